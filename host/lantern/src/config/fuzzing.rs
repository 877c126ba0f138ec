//! The parser of configuration files, for the fuzz targets. It does not access the disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::layers::{self, Entry};
use super::value::Value;
use super::{Problems, Resolved, settings, show};

/// The parsed settings of a text.
pub struct ParsedConfig {
    /// The same settings as a configuration file.
    pub text: String,
    /// Path and value of each setting, as in the file.
    pub values: Vec<(&'static str, String)>,
    /// Number of problems.
    pub problems: usize,
}

/// Parses the text of a configuration file.
pub fn show(text: &str) -> ParsedConfig {
    let (mut entries, mut problems) = (Vec::new(), Problems::new());
    layers::read_toml(Path::new("/lantern.toml"), text, &mut entries, &mut problems);
    let (mut values, mut invalid) = (BTreeMap::new(), 0);
    for Entry { setting, raw, origin } in entries {
        match Value::parse(setting.kind, &raw, Path::new("/")) {
            Ok(value) => drop(values.insert(setting.path, (value, origin))),
            Err(_) => invalid += 1,
        }
    }
    let resolved = Resolved { values };
    ParsedConfig {
        text: show::show(&resolved),
        values: resolved
            .values
            .iter()
            .filter_map(|(path, (value, _))| {
                let setting = settings::find(path)?;
                Some((*path, show::to_toml(setting.kind, value)))
            })
            .collect(),
        problems: problems.len() + invalid,
    }
}
