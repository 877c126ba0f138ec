//! Renders settings: effective values with their origins, and the reference with all defaults.

use std::fmt::Write as _;

use super::layers::{SettingOrigin, variable_name};
use super::settings::{Kind, Preset, SETTINGS};
use super::value::{Value, expected};
use super::{DATA_DIR_VARIABLE, Resolved};

/// Renders each setting with its value and origin, as valid TOML, without passwords.
pub fn show(resolved: &Resolved) -> String {
    let lines: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| match resolved.get(setting.path) {
            Some((value, origin)) => {
                let value = to_toml(setting.kind, value);
                (format!("{} = {value}", setting.path), origin.to_string())
            }
            None => match setting.preset {
                Preset::Derived(from) => (format!("# {} =", setting.path), format!("default ({from})")),
                _ => (format!("# {} =", setting.path), "not set".to_owned()),
            },
        })
        .collect();
    // Long paths must not move the other origins out of the window.
    const COLUMN_MAX: usize = 60;
    let width = lines
        .iter()
        .map(|(left, _)| left.chars().count().min(COLUMN_MAX))
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for (left, origin) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{left:width$}  # {origin}");
    }
    text
}

/// Renders a value as TOML, without passwords in broker URLs. The text before an `@` in a log filter is not a password.
pub(super) fn to_toml(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::LogFilter, Value::Text(filter)) => serde_json::Value::String(filter.clone()).to_string(),
        _ => value.to_string(),
    }
}

/// Renders a commented configuration file with every setting at its default.
pub fn reference() -> String {
    let mut text = String::from(
        "# All settings of Lantern with their defaults. To change a setting, remove the # before it.\n\
         #\n\
         # Flags override the environment, and the environment overrides this file. The variable of\n\
         # broker.tls.ca is LANTERN__BROKER__TLS__CA. Relative paths begin at the directory of this file.\n",
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

/// The default, or an example of the right form.
fn example(kind: Kind, preset: Preset) -> String {
    match (preset.text(), kind) {
        (Some(value), Kind::Boolean | Kind::Count { .. }) => value,
        (Some(value), _) => format!("{value:?}"),
        (_, Kind::Boolean) => "false".to_owned(),
        (_, Kind::Urls) => "\"nats://127.0.0.1:4222\"".to_owned(),
        (_, Kind::Database) => "\"postgres://lantern@localhost/lantern\"".to_owned(),
        (_, Kind::ApiUrl) => "\"http://10.0.0.7:8080\"".to_owned(),
        (_, Kind::Hosts) => "\"lantern.example.org\"".to_owned(),
        (_, Kind::Keys) => "\"publisher.pub\"".to_owned(),
        (_, Kind::Name) => "\"name\"".to_owned(),
        (_, Kind::Prefix) => "\"JS.hub.API\"".to_owned(),
        (_, _) => "\"path\"".to_owned(),
    }
}

/// Origin of the default data directory.
pub fn data_dir_origin(from_environment: bool) -> SettingOrigin {
    match from_environment {
        true => SettingOrigin::Env(DATA_DIR_VARIABLE.to_owned()),
        false => SettingOrigin::Default,
    }
}
