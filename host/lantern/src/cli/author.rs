//! What the author of a plugin types, and what is printed: `lantern plugin new`, `test`, `run`, `record`, `dev`. The
//! work behind it is in `workshop`. A command is a file of its own.

pub mod dev;
pub mod new;
pub mod pack;
pub mod record;
pub mod run;
pub mod sign;
pub mod test;

use std::sync::mpsc::Receiver;

use super::{Failure, note, table};
use lantern_authoring::fixture::FixtureError;
use lantern_authoring::live::LiveError;
use lantern_authoring::project::{Project, ProjectError};
use lantern_authoring::trial::{self, Loaded, TrialError};
use lantern_model::schema::Manifest;
use lantern_plugin::{Compiled, Speed};
use lantern_telemetry::{GuestLine, listen_to_guests};
use lantern_trust::signature::sign::SignError;

/// A hint that an error of the workshop may have.
macro_rules! with_hint {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                let hint = error.hint().map(|hint| hint.to_owned());
                let failure = Failure::new(error);
                match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    )*};
}

with_hint!(ProjectError, TrialError, FixtureError, LiveError, SignError);

/// Builds what is at `path` and loads it as a host would. Says what an operator has to allow.
fn build_and_load(project: &Project, speed: Speed) -> Result<(Compiled, Loaded), Failure> {
    let component = project.build(speed)?;
    let loaded = trial::load(&component.component)?;
    if loaded.wasi {
        let name = &loaded.plugin.manifest().name;
        note(format_args!(
            "note: it imports WASI; an operator has to allow that, with everything in it empty: \
             lantern plugin set {name} wasi=true"
        ));
    }
    Ok((component, loaded))
}

/// Hears what plugins log from now on.
fn listen(filter: &str) -> Result<Receiver<GuestLine>, Failure> {
    listen_to_guests(filter).map_err(Failure::new)
}

/// What plugins have logged since this was asked the last time, as lines to print.
fn heard(lines: &Receiver<GuestLine>) -> Vec<String> {
    lines
        .try_iter()
        .map(|line| format!("log  {}  {}", line.level, line.text))
        .collect()
}

/// A duration for people: three digits are enough.
fn time(duration: std::time::Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 1_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

fn count(number: usize, word: &str) -> String {
    match number {
        1 => format!("1 {word}"),
        _ => format!("{number} {word}s"),
    }
}

/// The index of a source that is named, or of the only one.
fn source_named(manifest: &Manifest, name: Option<&str>) -> Result<Option<usize>, Failure> {
    let Some(name) = name else {
        return Ok((manifest.sources.len() == 1).then_some(0));
    };
    match manifest.source(name) {
        Some((index, _)) => Ok(Some(index)),
        None => Err(Failure::usage(format!("the plugin has no source {name}"))
            .hint(format!("it has {}", sources(manifest)))),
    }
}

fn sources(manifest: &Manifest) -> String {
    let names: Vec<&str> = manifest
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    names.join(", ")
}

/// Cells as a table with two blanks before each line.
fn indented(cells: &[Vec<String>], right: &[bool]) -> String {
    table::align(cells, right, "  ")
}
