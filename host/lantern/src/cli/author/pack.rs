//! `lantern plugin pack`: builds a component with metadata, for distribution.

use std::path::PathBuf;

use clap::Args;

use super::build_and_load;
use crate::cli::{Failure, inspect, note, print};
use lantern_authoring::metadata::project_metadata;
use lantern_authoring::project::{Project, ProjectError};
use lantern_plugin::{Compiled, Metadata, Speed};

/// Arguments of `lantern plugin pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// Project directory, or component file.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Output file [default: NAME-VERSION.wasm].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Licence as an SPDX expression [default: from the project file, also for the following options].
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// URL of the source code.
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// URL of the homepage.
    #[arg(long, value_name = "URL")]
    homepage: Option<String>,
    /// Names of the authors.
    #[arg(long)]
    authors: Option<String>,
    /// Commit of the source code.
    #[arg(long, value_name = "COMMIT")]
    revision: Option<String>,
}

pub fn run(args: &PackArgs) -> Result<(), Failure> {
    let project = Project::open(&args.path)?;
    let (compiled, loaded) = build_and_load(&project, Speed::Full)?;
    let manifest = loaded.plugin.manifest();
    let declared = project_metadata(&project);
    let metadata = Metadata {
        name: Some(manifest.name.to_string()),
        version: Some(manifest.version.to_string()),
        description: Some(manifest.doc.clone()).filter(|doc| !doc.is_empty()),
        authors: args.authors.clone().or(declared.authors),
        licenses: args.license.clone().or(declared.licenses),
        source: args.source.clone().or(declared.source),
        homepage: args.homepage.clone().or(declared.homepage),
        revision: args.revision.clone().or(declared.revision),
    };
    let component = lantern_plugin::add_metadata(&compiled.component, &metadata).map_err(|error| {
        Failure::new(error)
            .hint("a licence is an SPDX expression such as Apache-2.0 OR MIT; a source is a URL (https://…)")
    })?;
    for (name, missing, flag) in [
        ("licence", metadata.licenses.is_none(), "--license"),
        ("source", metadata.source.is_none(), "--source"),
    ] {
        if missing {
            note(format_args!(
                "note: no {name} given: set it in the project file or with {flag}"
            ));
        }
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}-{}.wasm", manifest.name, manifest.version)));
    let packed = Compiled {
        name: compiled.name,
        component,
    };
    let built = lantern_plugin::write(&packed, Some(&out)).map_err(ProjectError::from)?;
    let mut text = format!(
        "{}\n  digest       {}\n",
        built.path.display(),
        built.plugin.digest()
    );
    for (name, value) in inspect::metadata_lines(&metadata) {
        text.push_str(&format!("  {name:<11}  {value}\n"));
    }
    print(&text)
}
