//! Where settings are written: the file, the environment, the flags. Reads them into one list of what was
//! written and by whom; knows which names exist, and nothing of what values mean.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::settings::{self, Setting};
use super::value::Written;
use super::{Problem, Problems};
use lantern_model::batch::clean_text;

/// What every variable for a setting begins with.
const PREFIX: &str = "LANTERN__";

/// Larger than any configuration, smaller than any accident (a database given with `--config`).
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who wrote a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// This line of a file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Starts at 1.
        line: usize,
    },
    /// This variable.
    Env(String),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl Origin {
    /// For sorting: the layer, and the line within a file.
    pub(super) fn place(&self) -> (u8, usize) {
        match self {
            Self::Default => (0, 0),
            Self::File { line, .. } => (1, *line),
            Self::Env(_) => (2, 0),
            Self::Flag(_) => (3, 0),
        }
    }

    /// Whether both were written in the same place: the same file, the environment, the command line.
    pub fn same_layer(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A flag that stands for a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The setting's path.
    pub setting: &'static str,
    /// The flag as it is typed.
    pub name: &'static str,
    /// What came with it.
    pub value: OsString,
}

/// Everything that settings are read from. A plain value, so that a test can make one.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named with `--config`.
    pub file: Option<PathBuf>,
    /// The environment of the process.
    pub env: Vec<(OsString, OsString)>,
    /// Flags that were given.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// A file and flags, with the environment of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let mut env: Vec<_> = std::env::vars_os().collect();
        env.sort();
        Self { file, env, flags }
    }

    /// A variable's value, when it is there and is text.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.env.iter().find(|(key, _)| key == name)?;
        value.to_str()
    }
}

/// One value that somebody wrote.
#[derive(Clone, Debug)]
pub struct Entry {
    pub setting: &'static Setting,
    pub written: Written,
    pub origin: Origin,
}

/// What was written, lowest precedence first: file, environment, flags.
pub fn read(sources: &Sources, problems: &mut Problems) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(path) = &sources.file {
        read_file(path, &mut entries, problems);
    }
    read_env(&sources.env, &mut entries, problems);
    read_flags(&sources.flags, &mut entries, problems);
    entries
}

fn read_flags(flags: &[Flag], entries: &mut Vec<Entry>, problems: &mut Problems) {
    for flag in flags {
        let origin = Origin::Flag(flag.name);
        match (settings::find(flag.setting), flag.value.to_str()) {
            (Some(setting), Some(text)) => {
                entries.push(Entry {
                    setting,
                    written: Written::Bare(text.to_owned()),
                    origin,
                });
            }
            _ => problems.push(Problem::new(
                flag.setting,
                &origin,
                "is not UTF-8",
                "give it as UTF-8 text",
            )),
        }
    }
}

fn read_env(env: &[(OsString, OsString)], entries: &mut Vec<Entry>, problems: &mut Problems) {
    for (name, value) in env {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            problems.extend(nearly_a_setting(&name));
            continue;
        };
        let path = rest.to_ascii_lowercase().replace("__", ".");
        let origin = Origin::Env(clean_text(&name, 120));
        match (settings::find(&path), value.to_str()) {
            (Some(setting), Some(text)) => {
                entries.push(Entry {
                    setting,
                    written: Written::Bare(text.to_owned()),
                    origin,
                });
            }
            (Some(_), None) => {
                problems.push(Problem::new(
                    &path,
                    &origin,
                    "is not UTF-8",
                    "give it as UTF-8 text",
                ));
            }
            (None, _) => {
                let meant = settings::nearest(&path).map(variable_name);
                problems.push(unknown(&path, &origin, meant.as_deref()));
            }
        }
    }
}

/// A variable that is named as a setting's but for underscores, such as `LANTERN_LIMITS__MEMORY`, would have no effect.
fn nearly_a_setting(name: &str) -> Option<Problem> {
    let words = |name: &str| -> Vec<String> {
        let words = name.split('_').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    if !name.starts_with("LANTERN_") {
        return None;
    }
    let mut variables = settings::SETTINGS
        .iter()
        .map(|setting| variable_name(setting.path));
    let meant = variables.find(|variable| words(variable) == words(name))?;
    let origin = Origin::Env(clean_text(name, 120));
    Some(Problem::new(
        "",
        &origin,
        "is not a setting, and has no effect",
        format!("did you mean {meant}?"),
    ))
}

/// The variable that sets this setting.
pub fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

fn unknown(path: &str, origin: &Origin, meant: Option<&str>) -> Problem {
    let fix = match meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => "remove it; `lantern config reference` lists all settings".into(),
    };
    Problem::new(&clean_text(path, 120), origin, "there is no such setting", fix)
}

fn read_file(path: &Path, entries: &mut Vec<Entry>, problems: &mut Problems) {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(why) => {
            problems.push(Problem::new(
                &path.display().to_string(),
                &Origin::Flag("--config"),
                format!("cannot be read: {why}"),
                "name a TOML file; `lantern config reference` prints one to begin with",
            ));
            return;
        }
    };
    read_toml(path, &text, entries, problems);
}

/// Reads the text of the file at `path`, which is only named in problems.
pub(super) fn read_toml(path: &Path, text: &str, entries: &mut Vec<Entry>, problems: &mut Problems) {
    let (table, errors) = DeTable::parse_recoverable(text);
    // What the parser guessed after an error would be reported as unknown settings.
    if errors.is_empty() {
        walk(path, text, "", table.get_ref(), entries, problems);
    }
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let origin = Origin::File {
            path: path.to_owned(),
            line: line_of(text, at),
        };
        let message = format!("this is not TOML: {}", clean_text(error.message(), 200));
        problems.push(Problem::new(
            "",
            &origin,
            message,
            "mend the line; values that are text need quotes",
        ));
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a file".into());
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, and a configuration at most {FILE_BYTES_MAX}",
            meta.len()
        ));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text
        .as_bytes()
        .iter()
        .take(at)
        .filter(|byte| **byte == b'\n')
        .count()
}

fn walk(
    file: &Path,
    text: &str,
    section: &str,
    table: &DeTable<'_>,
    entries: &mut Vec<Entry>,
    problems: &mut Problems,
) {
    for (key, value) in table {
        let dot = if section.is_empty() { "" } else { "." };
        let path = format!("{section}{dot}{}", key.get_ref());
        let origin = Origin::File {
            path: file.to_owned(),
            line: line_of(text, key.span().start),
        };
        match (value.get_ref(), settings::find(&path)) {
            (value, Some(setting)) => entries.push(Entry {
                setting,
                written: written(value),
                origin,
            }),
            (DeValue::Table(inner), None) if settings::is_section(&path) => {
                walk(file, text, &path, inner, entries, problems);
            }
            (_, None) if settings::is_section(&path) => problems.push(Problem::new(
                &path,
                &origin,
                "is a section, not a value",
                format!("write [{path}] and its settings below it"),
            )),
            (_, None) => problems.push(unknown(&path, &origin, settings::nearest(&path))),
        }
    }
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix())
                .map_or(Written::Other("a number this large"), Written::Integer)
        }
        DeValue::Boolean(yes) => Written::Boolean(*yes),
        DeValue::Float(_) => Written::Other("a number with a fraction"),
        DeValue::Datetime(_) => Written::Other("a date"),
        DeValue::Array(_) => Written::Other("a list"),
        DeValue::Table(_) => Written::Other("a section"),
    }
}
