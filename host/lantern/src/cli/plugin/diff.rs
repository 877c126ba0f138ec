//! `lantern plugin diff`: what differs between two versions that a host has, or between two files without a host.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use serde::{Deserialize, Serialize};
use url::form_urlencoded::Serializer;

use super::path;
use crate::cli::client::{Client, HostArgs};
use crate::cli::inspect::Inspection;
use crate::cli::{Failure, commands, print, print_json};
use lantern_model::schema::PluginName;
use lantern_model::schema::difference::{Difference, Effect, differences};

#[derive(Debug, Args)]
#[command(
    override_usage = "lantern plugin diff NAME A B [OPTIONS]\n       lantern plugin diff FILE FILE [--json]"
)]
pub struct DiffArgs {
    /// A plugin of the host and two of its versions, each a digest (eight digits or more) or a version number; or two
    /// component files, the older one first.
    #[arg(required = true, num_args = 2..=3, value_names = ["NAME", "A", "B"])]
    what: Vec<String>,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// What differs, as the host answers and as files are compared.
#[derive(Deserialize, Serialize)]
struct Differences {
    from: String,
    to: String,
    effect: Effect,
    differences: Vec<Difference>,
}

pub fn run(args: &DiffArgs) -> Result<(), Failure> {
    let found = match args.what.as_slice() {
        [name, from, to] => of_host(args, name, from, to)?,
        [from, to] => of_files(Path::new(from), Path::new(to))?,
        _ => return Err(Failure::usage("give NAME A B, or two files")),
    };
    match args.json {
        true => print_json(&found),
        false => print(&render(&found.differences, found.effect)),
    }
}

fn of_host(args: &DiffArgs, name: &str, from: &str, to: &str) -> Result<Differences, Failure> {
    let name = PluginName::parse(name).map_err(Failure::usage)?;
    let query = Serializer::new(String::new())
        .append_pair("from", from)
        .append_pair("to", to)
        .finish();
    Client::open(&args.host)?.get_json(&path(&name, &format!("/differences?{query}")))
}

fn of_files(from: &Path, to: &Path) -> Result<Differences, Failure> {
    // Whether WASI is allowed is the host's to say; here it is one more thing that may differ.
    let old = commands::inspect(from)?;
    let new = commands::inspect(to)?;
    if old.manifest.name != new.manifest.name {
        return Err(Failure::usage(format!(
            "{} is plugin {}, and {} is plugin {}; only versions of one plugin can be compared",
            from.display(),
            old.manifest.name,
            to.display(),
            new.manifest.name
        )));
    }
    let mut found = of_component(&old, &new);
    found.extend(differences(&old.manifest, &new.manifest));
    Ok(Differences {
        effect: Effect::of(&found),
        from: old.digest,
        to: new.digest,
        differences: found,
    })
}

/// What only the components show.
fn of_component(old: &Inspection, new: &Inspection) -> Vec<Difference> {
    let say = |place: &str, words: String| Difference {
        place: place.to_owned(),
        words,
        effect: Effect::None,
    };
    let mut found = Vec::new();
    if old.contract != new.contract {
        let words = format!("{} becomes {}", old.contract, new.contract);
        found.push(say("contract", words));
    }
    let gone = old.imports.iter().filter(|import| !new.imports.contains(import));
    found.extend(gone.map(|import| say("imports", format!("does not ask for {import} any more"))));
    let fresh = new.imports.iter().filter(|import| !old.imports.contains(import));
    found.extend(fresh.map(|import| say("imports", format!("also asks for {import}"))));
    found
}

/// Each difference in a line, and what they cost together.
pub fn render(differences: &[Difference], effect: Effect) -> String {
    if differences.is_empty() {
        return "  no difference in what they say of themselves\n".to_owned();
    }
    let mut text = String::new();
    for difference in differences {
        let cost = match difference.effect {
            Effect::NeedsRebuild => " (needs a rebuild)",
            Effect::None | Effect::Additive => "",
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "  - {difference}{cost}");
    }
    text.push_str(match effect {
        Effect::None => "what is stored stays as it is\n",
        Effect::Additive => "tables, columns, indexes or sources are added with the swap\n",
        Effect::NeedsRebuild => "what is stored does not fit: its tables have to be filled anew\n",
    });
    text
}
