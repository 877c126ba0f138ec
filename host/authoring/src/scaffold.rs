//! A project to begin with: a guess as source code, the SDK beside it, and the first messages of the sample as fixtures
//! with the rows that they must become.

mod rust;
mod script;

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value as Tree, json};

use super::fixture;
use super::guess::{Guess, guess};
use super::sample::Sample;
use super::sdk;
use lantern_model::batch::Delivery;
use lantern_model::schema::{ColumnType, PluginName};

/// Messages that become fixtures: enough to see the form, few enough to read.
const FIXTURES_MAX: usize = 3;

/// What a project without a sample begins with.
const EXAMPLE: &str = r#"{"id":"e-1","at":"2026-05-28T10:41:00Z","host":"web-1","kind":"started","took_ms":12}
{"id":"e-2","at":"2026-05-28T10:41:07.5Z","host":"web-2","kind":"failed","took_ms":430,"text":"no route"}
"#;

/// The language of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust, with the SDK beside it.
    Rust,
    /// JavaScript, made a component by componentize-qjs from npm.
    Js,
    /// Python, made a component by componentize-py.
    Python,
}

impl Language {
    /// The file in which the author goes on.
    fn source_file(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::Js => "plugin.js",
            Self::Python => "plugin.py",
        }
    }
}

/// What is to be made.
#[derive(Debug)]
pub struct Plan {
    /// The plugin's name; with `_` for `-` also that of its table and source.
    pub name: PluginName,
    /// What it is written in.
    pub language: Language,
    /// The stream that it reads.
    pub stream: String,
    /// The subjects that it reads.
    pub subjects: Vec<String>,
    /// Messages to guess from; none takes an example.
    pub sample: Option<Sample>,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The folder.
    pub dir: PathBuf,
    /// What was guessed.
    pub guess: Guess,
    /// From what, in words.
    pub origin: String,
    /// How many messages it was guessed from.
    pub messages: usize,
    /// What should be known about how the messages were found.
    pub notes: Vec<String>,
    /// How many fixtures there are.
    pub fixtures: usize,
    /// The file in which the author goes on.
    pub source_file: &'static str,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// There is something.
    #[error("{0} is there already, and is not empty")]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The example is none, which would be a mistake of this program.
    #[error(transparent)]
    Example(#[from] super::sample::SampleError),
}

/// Makes a project in the folder `dir`, which is made as well.
///
/// # Errors
/// See [`ScaffoldError`]. What was written by then stays.
pub fn make(dir: &Path, plan: Plan) -> Result<Made, ScaffoldError> {
    if dir.is_file() || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(ScaffoldError::Exists(dir.to_owned()));
    }
    let sample = match plan.sample {
        Some(sample) => sample,
        None => super::sample::split(EXAMPLE.as_bytes(), "an example".to_owned())?,
    };
    let guess = guess(&sample.messages);
    let words = Words {
        plugin: plan.name.to_string(),
        table: table_name(&plan.name),
        stream: plan.stream,
        subjects: plan.subjects,
    };
    let files = match plan.language {
        Language::Rust => rust::files(&words, &guess),
        Language::Js => script::javascript(&words, &guess),
        Language::Python => script::python(&words, &guess),
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
    let fixtures = write_fixtures(dir, &words, &guess, &sample, plan.language)?;
    Ok(Made {
        dir: dir.to_owned(),
        messages: sample.messages.len(),
        origin: sample.origin,
        notes: sample.notes,
        guess,
        fixtures,
        source_file: plan.language.source_file(),
    })
}

/// The names in a project.
struct Words {
    plugin: String,
    table: String,
    stream: String,
    subjects: Vec<String>,
}

/// The table of a plugin that is called so.
pub fn table_name(plugin: &PluginName) -> String {
    let name = plugin.as_str().replace('-', "_");
    match lantern_model::schema::TableName::parse(&name) {
        Ok(_) => name,
        // It begins with a word that is reserved.
        Err(_) => format!("my_{name}").chars().take(63).collect(),
    }
}

fn write_fixtures(
    dir: &Path,
    words: &Words,
    guess: &Guess,
    sample: &Sample,
    language: Language,
) -> Result<usize, ScaffoldError> {
    let folder = dir.join(fixture::FOLDER);
    let chosen = &sample.messages[..sample.messages.len().min(FIXTURES_MAX)];
    for (index, message) in chosen.iter().enumerate() {
        let stem = format!("sample-{}", index + 1);
        // A plain file has the payload alone; the rest is then the same for each.
        let plain = fixture::message(&words.subjects, 0, message.payload.clone());
        let (name, text, seen): (_, _, &Delivery) = match sample.whole {
            true => (
                format!("{stem}.message.json"),
                fixture::envelope(message).into_bytes(),
                message,
            ),
            false if guess.shape == super::guess::Shape::Text => {
                (format!("{stem}.txt"), message.payload.to_vec(), &plain)
            }
            false => (format!("{stem}.json"), message.payload.to_vec(), &plain),
        };
        write(&folder.join(name), text)?;
        // Other languages than Rust write nested documents anew, each in its way: those are for `--bless`.
        let told = language == Language::Rust
            || guess
                .columns
                .iter()
                .all(|column| column.column_type != ColumnType::Json);
        if let Some(values) = guess.values(seen).filter(|_| told) {
            let row = json!({ "write": 0, "table": words.table, "values": values });
            let expected: Tree = json!({ "rows": [row] });
            write(
                &folder.join(format!("{stem}.expected.json")),
                format!("{expected:#}\n"),
            )?;
        }
    }
    Ok(chosen.len())
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
