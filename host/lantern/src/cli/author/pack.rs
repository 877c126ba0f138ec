//! `lantern plugin pack`: a component that says what it is and where it is from, to be given to others.

use std::path::PathBuf;

use clap::Args;

use super::build_and_load;
use crate::cli::{Failure, inspect, note, print};
use lantern_authoring::about::about;
use lantern_authoring::project::{Project, ProjectError};
use lantern_plugin::{Compiled, Metadata, Speed};

/// What is typed after `lantern plugin pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// The project, or a component.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Where it is written [default: NAME-VERSION.wasm].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Its licence, as SPDX writes it [default: what the project's file says; so for the rest].
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// Where its sources are.
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// Where more is said about it.
    #[arg(long, value_name = "URL")]
    homepage: Option<String>,
    /// Who has made it.
    #[arg(long)]
    authors: Option<String>,
    /// The commit that it was built from.
    #[arg(long, value_name = "COMMIT")]
    revision: Option<String>,
}

pub fn run(args: &PackArgs) -> Result<(), Failure> {
    let project = Project::open(&args.path)?;
    let (compiled, loaded) = build_and_load(&project, Speed::Full)?;
    let manifest = loaded.plugin.manifest();
    let said = about(&project);
    let metadata = Metadata {
        name: Some(manifest.name.to_string()),
        version: Some(manifest.version.to_string()),
        description: Some(manifest.doc.clone()).filter(|doc| !doc.is_empty()),
        authors: args.authors.clone().or(said.authors),
        licenses: args.license.clone().or(said.licenses),
        source: args.source.clone().or(said.source),
        homepage: args.homepage.clone().or(said.homepage),
        revision: args.revision.clone().or(said.revision),
    };
    let component = lantern_plugin::add_metadata(&compiled.component, &metadata).map_err(|error| {
        Failure::new(error)
            .hint("a licence is an SPDX expression such as Apache-2.0 OR MIT, a source is https://…")
    })?;
    for (what, missing, flag) in [
        ("licence", metadata.licenses.is_none(), "--license"),
        ("source", metadata.source.is_none(), "--source"),
    ] {
        if missing {
            note(format_args!(
                "note: it names no {what}: say it in the project's file, or with {flag}"
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
    for (what, value) in inspect::metadata_lines(&metadata) {
        text.push_str(&format!("  {what:<11}  {value}\n"));
    }
    print(&text)
}
