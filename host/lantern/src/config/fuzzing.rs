//! The parser of configuration files, for the fuzz targets. It does not touch the disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::layers::{self, Entry};
use super::value::Value;
use super::{Problems, Resolved, settings, show};

/// What was understood of a text.
pub struct Shown {
    /// The same settings as a configuration file.
    pub text: String,
    /// Each setting's path and value, as the file has them.
    pub values: Vec<(&'static str, String)>,
    /// How many things were wrong.
    pub problems: usize,
}

/// Reads the text of a configuration file.
pub fn show(text: &str) -> Shown {
    let (mut entries, mut problems) = (Vec::new(), Problems::new());
    layers::read_toml(Path::new("/lantern.toml"), text, &mut entries, &mut problems);
    let (mut values, mut misfits) = (BTreeMap::new(), 0);
    for Entry {
        setting,
        written,
        origin,
    } in entries
    {
        match Value::parse(setting.kind, &written, Path::new("/")) {
            Ok(value) => drop(values.insert(setting.path, (value, origin))),
            Err(_) => misfits += 1,
        }
    }
    let resolved = Resolved { values };
    Shown {
        text: show::show(&resolved),
        values: resolved
            .values
            .iter()
            .filter_map(|(path, (value, _))| {
                let setting = settings::find(path)?;
                Some((*path, show::written(setting.kind, value)))
            })
            .collect(),
        problems: problems.len() + misfits,
    }
}
