//! `lantern plugin diff`: compares two versions in a host, or two component files without a host.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use url::form_urlencoded::Serializer;

use super::path;
use crate::cli::Failure;
use crate::cli::client::OutputArgs;
use crate::cli::inspect::{Inspection, inspect};
use lantern_api::Differences;
use lantern_model::schema::PluginName;
use lantern_model::schema::difference::{Difference, Effect, differences};

#[derive(Debug, Args)]
#[command(
    override_usage = "lantern plugin diff NAME A B [OPTIONS]\n       lantern plugin diff FILE FILE [--json]"
)]
pub struct DiffArgs {
    /// Plugin of the host and two of its versions (digests of at least eight digits, or version numbers); or two component
    /// files, the older one first.
    #[arg(required = true, num_args = 2..=3, value_names = ["NAME", "A", "B"])]
    operands: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &DiffArgs) -> Result<(), Failure> {
    let found = match args.operands.as_slice() {
        [name, from, to] => of_host(args, name, from, to)?,
        [from, to] => of_files(Path::new(from), Path::new(to))?,
        _ => return Err(Failure::usage("expected NAME A B, or two files")),
    };
    args.output
        .print(&found, |found| render(&found.differences, found.effect))
}

fn of_host(args: &DiffArgs, name: &str, from: &str, to: &str) -> Result<Differences, Failure> {
    let name = PluginName::parse(name).map_err(Failure::usage)?;
    let query = Serializer::new(String::new())
        .append_pair("from", from)
        .append_pair("to", to)
        .finish();
    args.output
        .open()?
        .get_json(&path(&name, &format!("/differences?{query}")))
}

fn of_files(from: &Path, to: &Path) -> Result<Differences, Failure> {
    let old = inspect(from)?;
    let new = inspect(to)?;
    if old.manifest.name != new.manifest.name {
        return Err(Failure::usage(format!(
            "{} is plugin {}, and {} is plugin {}; only versions of one plugin can be compared",
            from.display(),
            old.manifest.name,
            to.display(),
            new.manifest.name
        )));
    }
    let mut found = component_differences(&old, &new);
    found.extend(differences(&old.manifest, &new.manifest));
    Ok(Differences {
        effect: Effect::of(&found),
        from: old.digest,
        to: new.digest,
        differences: found,
    })
}

/// Differences that the manifests do not contain.
fn component_differences(old: &Inspection, new: &Inspection) -> Vec<Difference> {
    let difference = |place: &str, change: String| Difference {
        place: place.to_owned(),
        change,
        effect: Effect::None,
    };
    let mut found = Vec::new();
    if old.contract != new.contract {
        let change = format!("{} becomes {}", old.contract, new.contract);
        found.push(difference("contract", change));
    }
    let gone = old.imports.iter().filter(|import| !new.imports.contains(import));
    found.extend(gone.map(|import| difference("imports", format!("no longer imports {import}"))));
    let fresh = new.imports.iter().filter(|import| !old.imports.contains(import));
    found.extend(fresh.map(|import| difference("imports", format!("also imports {import}"))));
    found
}

/// Renders one line per difference, and their effect.
pub fn render(differences: &[Difference], effect: Effect) -> String {
    if differences.is_empty() {
        return "  no differences\n".to_owned();
    }
    let mut text = String::new();
    for difference in differences {
        let effect = match difference.effect {
            Effect::NeedsRebuild => " (needs a rebuild)",
            Effect::None | Effect::Additive => "",
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "  - {difference}{effect}");
    }
    text.push_str(match effect {
        Effect::None => "the stored data does not change\n",
        Effect::Additive => "activation adds tables, columns, indexes or sources\n",
        Effect::NeedsRebuild => "the stored data does not fit: the tables must be rebuilt\n",
    });
    text
}
