//! The layers of the configuration: file, environment, flags. Reads them into one list of raw values with their origins.
//! Checks names, but not values.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::settings::{self, Setting};
use super::value::RawSetting;
use super::{Problem, Problems};
use lantern_model::batch::clean_text;

/// Prefix of every variable for a setting.
const PREFIX: &str = "LANTERN__";

/// Size limit of a configuration file; rejects files such as a database.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// The default.
    Default,
    /// A line of a file.
    File {
        /// Path of the file, as given.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl SettingOrigin {
    /// Sort key: the layer, and the line within a file.
    pub(super) fn sort_key(&self) -> (u8, usize) {
        match self {
            Self::Default => (0, 0),
            Self::File { line, .. } => (1, *line),
            Self::Env(_) => (2, 0),
            Self::Flag(_) => (3, 0),
        }
    }

    /// Whether both have the same layer: file, environment or command line.
    pub fn same_layer(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A flag that sets a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Path of the setting.
    pub setting: &'static str,
    /// The flag, as in `--flag`.
    pub name: &'static str,
    /// Value of the flag.
    pub value: OsString,
}

/// The input of the configuration, as a plain value for tests.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The environment of the process.
    pub env: Vec<(OsString, OsString)>,
    /// The given flags.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// A file and flags, with the environment of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let mut env: Vec<_> = std::env::vars_os().collect();
        env.sort();
        Self { file, env, flags }
    }

    /// Value of a variable, if it exists and is UTF-8.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.env.iter().find(|(key, _)| key == name)?;
        value.to_str()
    }
}

/// A raw value of a setting.
#[derive(Clone, Debug)]
pub struct Entry {
    pub setting: &'static Setting,
    pub raw: RawSetting,
    pub origin: SettingOrigin,
}

/// Reads all raw values, lowest precedence first: file, environment, flags.
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
        let origin = SettingOrigin::Flag(flag.name);
        match (settings::find(flag.setting), flag.value.to_str()) {
            (Some(setting), Some(text)) => {
                entries.push(Entry {
                    setting,
                    raw: RawSetting::Bare(text.to_owned()),
                    origin,
                });
            }
            _ => problems.push(Problem::new(flag.setting, &origin, "not UTF-8", "use UTF-8 text")),
        }
    }
}

fn read_env(env: &[(OsString, OsString)], entries: &mut Vec<Entry>, problems: &mut Problems) {
    for (name, value) in env {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            problems.extend(misspelled_variable(&name));
            continue;
        };
        let path = rest.to_ascii_lowercase().replace("__", ".");
        let origin = SettingOrigin::Env(clean_text(&name, 120));
        match (settings::find(&path), value.to_str()) {
            (Some(setting), Some(text)) => {
                entries.push(Entry {
                    setting,
                    raw: RawSetting::Bare(text.to_owned()),
                    origin,
                });
            }
            (Some(_), None) => {
                problems.push(Problem::new(&path, &origin, "not UTF-8", "use UTF-8 text"));
            }
            (None, _) => {
                let suggestion = settings::nearest(&path).map(variable_name);
                problems.push(unknown(&path, &origin, suggestion.as_deref()));
            }
        }
    }
}

/// Reports a variable whose name differs from that of a setting only in underscores, such as `LANTERN_LIMITS__MEMORY`: it
/// would have no effect.
fn misspelled_variable(name: &str) -> Option<Problem> {
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
    let suggestion = variables.find(|variable| words(variable) == words(name))?;
    let origin = SettingOrigin::Env(clean_text(name, 120));
    Some(Problem::new(
        "",
        &origin,
        "unknown setting, has no effect",
        format!("did you mean {suggestion}?"),
    ))
}

/// The variable that sets this setting.
pub fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

fn unknown(path: &str, origin: &SettingOrigin, suggestion: Option<&str>) -> Problem {
    let fix = match suggestion {
        Some(suggestion) => format!("did you mean {suggestion}?"),
        None => "remove it; `lantern config reference` lists all settings".into(),
    };
    Problem::new(&clean_text(path, 120), origin, "unknown setting", fix)
}

fn read_file(path: &Path, entries: &mut Vec<Entry>, problems: &mut Problems) {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(why) => {
            problems.push(Problem::new(
                &path.display().to_string(),
                &SettingOrigin::Flag("--config"),
                format!("failed to read: {why}"),
                "use a TOML file; `lantern config reference` prints a template",
            ));
            return;
        }
    };
    read_toml(path, &text, entries, problems);
}

/// Parses the text of the file at `path`; the path is only used in problems.
pub(super) fn read_toml(path: &Path, text: &str, entries: &mut Vec<Entry>, problems: &mut Problems) {
    let (table, errors) = DeTable::parse_recoverable(text);
    // The parser recovers from errors with guesses, which would be reported as unknown settings.
    if errors.is_empty() {
        walk(path, text, "", table.get_ref(), entries, problems);
    }
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let origin = SettingOrigin::File {
            path: path.to_owned(),
            line: line_of(text, at),
        };
        let message = format!("invalid TOML: {}", clean_text(error.message(), 200));
        problems.push(Problem::new(
            "",
            &origin,
            message,
            "fix the line; text values require quotes",
        ));
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("not a file".into());
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(format!(
            "the file has {} bytes; the limit is {FILE_BYTES_MAX}",
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
        let origin = SettingOrigin::File {
            path: file.to_owned(),
            line: line_of(text, key.span().start),
        };
        match (value.get_ref(), settings::find(&path)) {
            (value, Some(setting)) => entries.push(Entry {
                setting,
                raw: raw_value(value),
                origin,
            }),
            (DeValue::Table(inner), None) if settings::is_section(&path) => {
                walk(file, text, &path, inner, entries, problems);
            }
            (_, None) if settings::is_section(&path) => problems.push(Problem::new(
                &path,
                &origin,
                "expected a section, found a value",
                format!("write [{path}] and its settings below that line"),
            )),
            (_, None) => problems.push(unknown(&path, &origin, settings::nearest(&path))),
        }
    }
}

fn raw_value(value: &DeValue<'_>) -> RawSetting {
    match value {
        DeValue::String(text) => RawSetting::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix())
                .map_or(RawSetting::Other("a number this large"), RawSetting::Integer)
        }
        DeValue::Boolean(yes) => RawSetting::Boolean(*yes),
        DeValue::Float(_) => RawSetting::Other("a number with a fraction"),
        DeValue::Datetime(_) => RawSetting::Other("a date"),
        DeValue::Array(_) => RawSetting::Other("a list"),
        DeValue::Table(_) => RawSetting::Other("a section"),
    }
}
