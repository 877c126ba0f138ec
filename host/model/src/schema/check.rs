//! Checks a manifest that a plugin sent, and reports all problems instead of only the first.

mod internal;
mod size;
mod sources;
mod tables;
#[cfg(test)]
pub(super) mod tests;
mod writes;

use std::fmt;

use super::keys::MeasuredKeys;
use super::{Column, ColumnName, Manifest, PluginName, RawManifest};
use crate::batch::is_hazardous;
use crate::limits::{
    DESCRIPTION_BYTES_MAX, DOC_BYTES_MAX, HINT_BYTES_MAX, HINTS_MAX, SOURCES_MAX, TABLES_MAX, WRITES_MAX,
};

/// One problem of a manifest, as a sentence that names the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Manifest {
    /// Checks a manifest that a plugin sent. The rules are those under which this host can run the plugin; a new version
    /// also has to be [portable](Self::portability_problems).
    ///
    /// # Errors
    /// All problems, in the order of the manifest.
    pub fn check(raw: RawManifest) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let bytes = size::of(&raw);
        if bytes > DESCRIPTION_BYTES_MAX {
            // Nothing else is checked, because each problem would repeat a part of it.
            problems.push(format!(
                "the description has {bytes} bytes, and the limit is {DESCRIPTION_BYTES_MAX}"
            ));
            return Err(problems.0);
        }
        let name = problems.keep(PluginName::parse(&raw.name));
        let version = problems.keep(semver::Version::parse(&raw.version).map_err(|error| {
            format!(
                "version {:?} is not a semantic version (semver.org): {error}",
                clean(&raw.version)
            )
        }));
        problems.bound("sources", raw.sources.len(), SOURCES_MAX);
        problems.bound("tables", raw.tables.len(), TABLES_MAX);
        problems.bound("writes", raw.writes.len(), WRITES_MAX);
        problems.doc("the plugin", &raw.doc);
        if raw.sources.is_empty() {
            problems.push("there is no source: a plugin requires at least one".to_owned());
        }
        let sources = sources::check_sources(raw.sources, &mut problems);
        let tables = tables::check_tables(raw.tables, &mut problems);
        let writes = match &tables {
            Some(tables) => writes::check_writes(&raw.writes, tables, &mut problems),
            None => None,
        };
        match (name, version, sources, tables, writes, problems.0.is_empty()) {
            (Some(name), Some(version), Some(sources), Some(tables), Some(writes), true) => Ok(Self {
                measured_keys: MeasuredKeys::new(&tables, &writes),
                name,
                version,
                doc: raw.doc,
                sources,
                tables,
                writes,
            }),
            _ => Err(problems.0),
        }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn push(&mut self, problem: String) {
        self.0.push(Problem(problem));
    }

    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.push(problem)).ok()
    }

    fn keep_in<T>(&mut self, place: &str, result: Result<T, String>) -> Option<T> {
        result
            .map_err(|problem| self.push(format!("{place}: {problem}")))
            .ok()
    }

    fn bound(&mut self, what: &str, count: usize, max: usize) {
        if count > max {
            self.push(format!("{count} {what} are more than {max}"));
        }
    }

    fn doc(&mut self, place: &str, doc: &str) {
        if doc.len() > DOC_BYTES_MAX {
            self.push(format!("the doc of {place} is longer than 64 KiB"));
        }
        if doc.contains(|c| is_hazardous(c) && !matches!(c, '\n' | '\t')) {
            self.push(format!(
                "the doc of {place} has a control character or a mark that changes the direction of text"
            ));
        }
    }

    fn hints(&mut self, place: &str, hints: &[(String, String)]) {
        self.bound(&format!("hints of {place}"), hints.len(), HINTS_MAX);
        for (key, value) in hints {
            if key.len() + value.len() > HINT_BYTES_MAX {
                self.push(format!(
                    "the hint {:?} of {place} is longer than 4 KiB",
                    clean(key)
                ));
            }
            self.one_line("a hint", place, key);
            self.one_line("a hint", place, value);
        }
    }

    /// Checks text that is displayed on one line.
    fn one_line(&mut self, what: &str, place: &str, text: &str) {
        if text.contains(is_hazardous) {
            self.push(format!(
                "{what} of {place} has a control character or a mark that changes the direction of text"
            ));
        }
    }
}

fn clean(text: &str) -> String {
    crate::batch::clean_text(text, 80)
}

fn columns_of(
    place: &str,
    what: &str,
    names: &[String],
    columns: &[Column],
    problems: &mut Problems,
) -> Option<Vec<ColumnName>> {
    let mut found: Vec<ColumnName> = Vec::with_capacity(names.len());
    for name in names {
        match columns.iter().find(|column| column.name.as_str() == name) {
            Some(column) if found.contains(&column.name) => {
                problems.push(format!("{place}: {what} names column {} twice", column.name));
            }
            Some(column) => found.push(column.name.clone()),
            None => problems.push(format!(
                "{place}: {what} names {:?}, which is not a column",
                clean(name)
            )),
        }
    }
    (found.len() == names.len()).then_some(found)
}
