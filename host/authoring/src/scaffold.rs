//! Creates a project: source code from a derived table, the SDK, and the first messages of the sample as fixtures with the
//! expected rows.

mod rust;
mod script;

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Tree, json};

use super::fixture;
use super::guess::{Guess, Shape, guess};
use super::outcome::render_value;
use super::sample::Sample;
use super::sdk;
use lantern_model::batch::{Delivery, Value};
use lantern_model::limits::TABLE_NAME_BYTES_MAX;
use lantern_model::schema::{ColumnType, PluginName, TableName};

/// Most messages that become fixtures.
const FIXTURES_MAX: usize = 3;

/// Sample for a project without sample messages.
const EXAMPLE: &str = r#"{"id":"e-1","at":"2026-05-28T10:41:00Z","host":"web-1","kind":"started","took_ms":12}
{"id":"e-2","at":"2026-05-28T10:41:07.5Z","host":"web-2","kind":"failed","took_ms":430,"text":"no route"}
"#;

/// The language of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust, with the SDK in the project.
    Rust,
    /// JavaScript, built with componentize-qjs from npm.
    Js,
    /// Python, built with componentize-py.
    Python,
}

impl Language {
    /// Source file of the plugin.
    fn source_file(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::Js => "plugin.js",
            Self::Python => "plugin.py",
        }
    }
}

/// Input of a new project.
#[derive(Debug)]
pub struct Plan {
    /// Name of the plugin; with `_` for `-` also the name of its table and source.
    pub name: PluginName,
    /// Language.
    pub language: Language,
    /// Stream that it reads.
    pub stream: String,
    /// Subjects that it reads.
    pub subjects: Vec<String>,
    /// Sample messages; `None` uses an example.
    pub sample: Option<Sample>,
}

/// A created project.
#[derive(Debug)]
pub struct NewProject {
    /// Directory of the project.
    pub dir: PathBuf,
    /// The derived table.
    pub guess: Guess,
    /// Description of the sample.
    pub origin: String,
    /// Number of sample messages.
    pub messages: usize,
    /// Notes on the sample.
    pub notes: Vec<String>,
    /// Number of fixtures.
    pub fixtures: usize,
    /// Number of fixtures with the expected row.
    pub expected: usize,
    /// Source file of the plugin.
    pub source_file: &'static str,
}

/// Why a project could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The directory is not empty.
    #[error("{0} already exists and is not empty")]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("failed to write {path}")]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The built-in example is invalid, which is a bug.
    #[error(transparent)]
    Example(#[from] super::sample::SampleError),
}

/// Creates a project in the directory `dir`, which must be empty or missing.
///
/// # Errors
/// See [`ScaffoldError`]. Written files stay.
pub fn create(dir: &Path, plan: Plan) -> Result<NewProject, ScaffoldError> {
    if dir.is_file() || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(ScaffoldError::Exists(dir.to_owned()));
    }
    let sample = match plan.sample {
        Some(sample) => sample,
        None => super::sample::split(EXAMPLE.as_bytes(), "an example".to_owned())?,
    };
    let names = Names {
        plugin: plan.name.to_string(),
        table: table_name(&plan.name),
        stream: plan.stream,
        subjects: plan.subjects,
    };
    let guess = guess(&sample.messages, &names.table);
    let files = match plan.language {
        Language::Rust => rust::files(&names, &guess),
        Language::Js => script::javascript(&names, &guess),
        Language::Python => script::python(&names, &guess),
    };
    for (name, text) in files {
        write(&dir.join(name), &text)?;
    }
    if plan.language == Language::Rust {
        sdk::write(dir).map_err(|source| ScaffoldError::Write {
            path: dir.join(sdk::FOLDER),
            source,
        })?;
    }
    let fixtures = Fixtures::choose(&guess, &sample, plan.language);
    fixtures.write(&dir.join(fixture::FOLDER), &names, &guess, &sample)?;
    Ok(NewProject {
        dir: dir.to_owned(),
        messages: sample.messages.len(),
        origin: sample.origin,
        notes: [sample.notes, fixtures.notes].concat(),
        guess,
        fixtures: fixtures.messages.len(),
        expected: if fixtures.have_rows {
            fixtures.messages.len()
        } else {
            0
        },
        source_file: plan.language.source_file(),
    })
}

/// The names in a project.
struct Names {
    plugin: String,
    table: String,
    stream: String,
    subjects: Vec<String>,
}

/// Table name of a plugin.
pub fn table_name(plugin: &PluginName) -> String {
    let mut name = plugin.as_str().replace('-', "_");
    if TableName::parse(&name).is_err() {
        // The name begins with a reserved word.
        name.insert_str(0, "my_");
    }
    // All characters are ASCII.
    name.truncate(TABLE_NAME_BYTES_MAX);
    name
}

/// The messages that become fixtures.
struct Fixtures {
    /// Their indexes in the sample.
    messages: Vec<usize>,
    /// Whether the row of each is known.
    have_rows: bool,
    notes: Vec<String>,
}

impl Fixtures {
    /// Chooses the first messages that become rows, or the first messages if none does.
    fn choose(guess: &Guess, sample: &Sample, language: Language) -> Self {
        let total = sample.messages.len();
        let (mut messages, mut problems) = (Vec::new(), Vec::new());
        for (index, message) in sample.messages.iter().enumerate() {
            match guess.values(message) {
                Ok(_) => messages.push(index),
                Err(problem) => problems.push((index, problem)),
            }
        }
        let mut notes = Vec::new();
        let mut have_rows = !messages.is_empty();
        if let Some((index, problem)) = problems.first() {
            let (number, count) = (index + 1, problems.len());
            notes.push(match have_rows {
                true => format!("{count} of {total} messages are not used as fixtures; the first is message {number}: {problem}"),
                false => format!(
                    "no message becomes a row of this table; message {number}: {problem}. Change {}, then accept the \
                     outcomes with `lantern plugin test --bless`",
                    language.source_file()
                ),
            });
        }
        if messages.is_empty() {
            messages = (0..total).collect();
        }
        messages.truncate(FIXTURES_MAX);
        let has_json = guess
            .columns
            .iter()
            .any(|column| column.column_type == ColumnType::Json);
        if have_rows && has_json && language != Language::Rust {
            have_rows = false;
            notes.push(
                "the fixtures have no expected rows, because the language determines the format of JSON columns: review \
                 the outcomes of `lantern plugin test`, then accept them with `--bless`"
                    .to_owned(),
            );
        }
        Self {
            messages,
            have_rows,
            notes,
        }
    }

    fn write(
        &self,
        folder: &Path,
        names: &Names,
        guess: &Guess,
        sample: &Sample,
    ) -> Result<(), ScaffoldError> {
        let chosen = self
            .messages
            .iter()
            .filter_map(|&index| sample.messages.get(index));
        for (number, message) in (1..).zip(chosen) {
            let stem = format!("sample-{number}");
            // A plain file contains only the payload; the other fields have defaults.
            let plain = fixture::message(&names.subjects, 0, message.payload.clone());
            let (name, text, delivery): (_, _, &Delivery) = match sample.has_envelopes {
                true => (
                    format!("{stem}.message.json"),
                    fixture::envelope(message).into_bytes(),
                    message,
                ),
                false if guess.shape == Shape::Text => {
                    (format!("{stem}.txt"), message.payload.to_vec(), &plain)
                }
                false => (format!("{stem}.json"), message.payload.to_vec(), &plain),
            };
            write(&folder.join(name), text)?;
            if let (true, Ok(values)) = (self.have_rows, guess.values(delivery)) {
                let path = folder.join(format!("{stem}.expected.json"));
                write(&path, format!("{:#}\n", expected(&names.table, &values)))?;
            }
        }
        Ok(())
    }
}

/// The expected outcome: one row.
fn expected(table: &str, values: &[(&str, Value)]) -> Tree {
    let values: Map<String, Tree> = values
        .iter()
        .map(|(column, value)| ((*column).to_owned(), render_value(value)))
        .collect();
    json!({ "rows": [{ "write": 0, "table": table, "values": values }] })
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), ScaffoldError> {
    let failed = |source| ScaffoldError::Write {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
