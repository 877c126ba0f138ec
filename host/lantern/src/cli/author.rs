//! Commands for plugin authors: `lantern plugin new`, `test`, `run`, `record`, `dev`, `pack`, `keygen` and `sign`, each in its
//! own file. The crate `lantern_authoring` does the work.

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

/// Converts errors with hints into failures.
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

/// Builds the project and loads the component as a host does. Prints a note if an operator must allow WASI.
fn build_and_load(project: &Project, speed: Speed) -> Result<(Compiled, Loaded), Failure> {
    let component = project.build(speed)?;
    let loaded = trial::load(&component.component)?;
    if loaded.wasi {
        let name = &loaded.plugin.manifest().name;
        note(format_args!(
            "note: the component imports WASI; an operator must allow an empty WASI: lantern plugin set {name} wasi=true"
        ));
    }
    Ok((component, loaded))
}

/// Subscribes to the log lines of plugins.
fn subscribe_to_log(filter: &str) -> Result<Receiver<GuestLine>, Failure> {
    listen_to_guests(filter).map_err(Failure::new)
}

/// Renders the log lines that plugins have written since the last call.
fn drain_log(lines: &Receiver<GuestLine>) -> Vec<String> {
    lines
        .try_iter()
        .map(|line| format!("log  {}  {}", line.level, line.text))
        .collect()
}

/// Formats a duration with at most three digits.
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

/// Index of the named source, or of the only one.
fn find_source(manifest: &Manifest, name: Option<&str>) -> Result<Option<usize>, Failure> {
    let Some(name) = name else {
        return Ok((manifest.sources.len() == 1).then_some(0));
    };
    match manifest.source(name) {
        Some((index, _)) => Ok(Some(index)),
        None => Err(Failure::usage(format!("unknown source {name}"))
            .hint(format!("sources of this plugin: {}", source_names(manifest)))),
    }
}

fn source_names(manifest: &Manifest) -> String {
    let names: Vec<&str> = manifest
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    names.join(", ")
}

/// Renders a table that is indented by two blanks.
fn indented(cells: &[Vec<String>], right: &[bool]) -> String {
    table::align(cells, right, "  ")
}
