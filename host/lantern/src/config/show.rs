//! Settings as text: each value with its origin, and a reference file with every default.

use std::fmt::Write as _;

use super::layers::{Origin, variable_name};
use super::settings::{Kind, Preset, SETTINGS};
use super::value::{Value, expected};
use super::{DATA_DIR_VARIABLE, Resolved};

/// Each setting with its value and where that comes from; valid as a TOML file. Passwords are left out.
pub fn show(resolved: &Resolved) -> String {
    let lines: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| match resolved.get(setting.path) {
            Some((value, origin)) => {
                let value = written(setting.kind, value);
                (format!("{} = {value}", setting.path), origin.to_string())
            }
            None => match setting.preset {
                Preset::Derived(from) => (format!("# {} =", setting.path), format!("default ({from})")),
                _ => (format!("# {} =", setting.path), "not set".to_owned()),
            },
        })
        .collect();
    // Long paths would push every origin out of the window.
    const COLUMN_MAX: usize = 60;
    let width = lines
        .iter()
        .map(|(left, _)| left.chars().count().min(COLUMN_MAX))
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for (left, origin) in lines {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{left:width$}  # {origin}");
    }
    text
}

/// A value as a TOML file would have it. Passwords in broker addresses are left out; what stands before an `@` in a log
/// filter is the name of a span and no password.
pub(super) fn written(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::LogFilter, Value::Text(filter)) => serde_json::Value::String(filter.clone()).to_string(),
        _ => value.to_string(),
    }
}

/// A commented configuration file with every setting at its default.
pub fn reference() -> String {
    let mut text = String::from(
        "# Every setting of Lantern with its default. Remove the # before a setting to change it.\n\
         #\n\
         # A flag is stronger than the environment, the environment than this file. In the environment\n\
         # broker.tls.ca is LANTERN__BROKER__TLS__CA. Relative paths in a file begin at the file's directory.\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        let (its_section, key) = setting.path.rsplit_once('.').unwrap_or(("", setting.path));
        if its_section != section {
            section = its_section;
            let _ = write!(text, "\n[{section}]\n");
        }
        let default = match setting.preset {
            Preset::Unset => "Not set by default.".to_owned(),
            Preset::Value(_) | Preset::Number(_) | Preset::Bytes(_) | Preset::Span(_) => String::new(),
            Preset::Derived(from) => format!("Default: {from}."),
        };
        let _ = write!(text, "\n# {}\n", [setting.doc, &default].join(" ").trim_end());
        let _ = writeln!(
            text,
            "# {}; {}.",
            variable_name(setting.path),
            expected(setting.kind)
        );
        let _ = writeln!(text, "#{key} = {}", example(setting.kind, setting.preset));
    }
    text
}

/// What stands after the `=`: the default, or something of the right shape where there is none.
fn example(kind: Kind, preset: Preset) -> String {
    match (preset.written(), kind) {
        (Some(value), Kind::Boolean | Kind::Count { .. }) => value,
        (Some(value), _) => format!("{value:?}"),
        (_, Kind::Boolean) => "false".to_owned(),
        (_, Kind::Urls) => "\"nats://127.0.0.1:4222\"".to_owned(),
        (_, Kind::Hosts) => "\"lantern.example.org\"".to_owned(),
        (_, Kind::Keys) => "\"publisher.pub\"".to_owned(),
        (_, Kind::Name) => "\"name\"".to_owned(),
        (_, Kind::Prefix) => "\"JS.hub.API\"".to_owned(),
        (_, _) => "\"path\"".to_owned(),
    }
}

/// Where the data directory's default comes from.
pub fn data_dir_origin(from_environment: bool) -> Origin {
    match from_environment {
        true => Origin::Env(DATA_DIR_VARIABLE.to_owned()),
        false => Origin::Default,
    }
}
