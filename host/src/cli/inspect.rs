//! `lantern plugin inspect` and what `build` shows at its end: what a plugin says of itself, in words.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Failure, commands, print, print_json, table};
use crate::schema::{Guard, Manifest, Merge, OnConflict, Origin, Source, UpdateRule, Write};
use crate::store::TableDescription;
use crate::store::description::{ColumnDescription, RoleWord};

/// What is typed after `lantern plugin inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The plugin.
    file: std::path::PathBuf,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
}

/// Everything that can be said of a plugin without running it on messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The contract that it was built for, such as `lantern:projection@0.1.0`.
    pub contract: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// A sentence for people; may be empty.
    pub doc: String,
    /// What it reads.
    pub sources: Vec<SourceInfo>,
    /// The tables that it writes.
    pub tables: Vec<TableInfo>,
    /// How it writes them.
    pub writes: Vec<WriteInfo>,
    /// What it asks of its host; empty for most.
    pub imports: Vec<String>,
    /// Sizes of the parts of the file, the whole first.
    pub sizes: Vec<Size>,
}

/// One thing that a plugin reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceInfo {
    /// Its name in the plugin.
    pub name: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// Subjects; empty means all of the stream.
    pub subjects: Vec<String>,
    /// Whether messages come with their headers.
    pub wants_headers: bool,
}

/// A table with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableInfo {
    /// The name.
    pub name: String,
    /// The rest.
    #[serde(flatten)]
    pub description: TableDescription,
}

/// One way of putting rows into a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WriteInfo {
    /// The table.
    pub table: String,
    /// The columns that it fills.
    pub columns: Vec<String>,
    /// What happens when the row is there already, in words.
    pub on_conflict: String,
}

/// The size of a part of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// The part, in words.
    pub part: String,
    /// Its bytes.
    pub bytes: u64,
}

impl Inspection {
    /// Puts together what the manifest says and what only the file shows.
    pub fn new(
        manifest: &Manifest,
        contract: String,
        digest: String,
        imports: Vec<String>,
        sizes: Vec<Size>,
    ) -> Self {
        let tables = manifest.tables.iter();
        Self {
            contract,
            name: manifest.name.to_string(),
            version: manifest.version.to_string(),
            digest,
            doc: manifest.doc.clone(),
            sources: manifest.sources.iter().map(SourceInfo::from).collect(),
            tables: tables
                .map(|table| TableInfo {
                    name: table.name.to_string(),
                    description: table.into(),
                })
                .collect(),
            writes: manifest
                .writes
                .iter()
                .map(|write| write_info(manifest, write))
                .collect(),
            imports,
            sizes,
        }
    }

    /// For people.
    pub fn render(&self) -> String {
        let imports = if self.imports.is_empty() {
            "nothing".to_owned()
        } else {
            self.imports.join(", ")
        };
        let mut head = vec![
            vec!["plugin".to_owned(), format!("{} {}", self.name, self.version)],
            vec!["digest".to_owned(), self.digest.clone()],
            vec!["contract".to_owned(), self.contract.clone()],
            vec!["imports".to_owned(), imports],
        ];
        if !self.doc.is_empty() {
            head.insert(1, vec![String::new(), self.doc.clone()]);
        }
        head.extend(
            self.sizes
                .iter()
                .map(|size| vec![size.part.clone(), table::bytes(size.bytes)]),
        );
        let mut text = table::align(&head, &[], "");
        text.push_str("\nreads\n");
        let sources: Vec<_> = self.sources.iter().map(SourceInfo::cells).collect();
        text.push_str(&table::align(&sources, &[], "  "));
        for table in &self.tables {
            text.push_str(&table.render());
        }
        text.push_str("\nwrites\n");
        for (index, write) in self.writes.iter().enumerate() {
            text.push_str(&format!(
                "  {index}  {} ({})\n",
                write.table,
                write.columns.join(", ")
            ));
            text.push_str(&format!("     {}\n", write.on_conflict));
        }
        text
    }
}

impl From<&Source> for SourceInfo {
    fn from(source: &Source) -> Self {
        let (stream, subjects) = match &source.origin {
            Origin::JetStream { stream, subjects } => (Some(stream.clone()), subjects),
            Origin::Core { subjects } => (None, subjects),
        };
        Self {
            name: source.name.to_string(),
            stream,
            subjects: subjects.clone(),
            wants_headers: source.wants_headers,
        }
    }
}

impl SourceInfo {
    fn cells(&self) -> Vec<String> {
        let from = match &self.stream {
            Some(stream) => format!("stream {stream}"),
            None => "core NATS, at most once".to_owned(),
        };
        let subjects = if self.subjects.is_empty() {
            "all subjects".into()
        } else {
            self.subjects.join(", ")
        };
        let headers = if self.wants_headers { "with headers" } else { "" };
        vec![self.name.clone(), from, subjects, headers.to_owned()]
    }
}

impl TableInfo {
    fn render(&self) -> String {
        let description = &self.description;
        let mut text = format!("\ntable {}\n", self.name);
        if !description.doc.is_empty() {
            text.push_str(&format!("  {}\n", description.doc));
        }
        let columns: Vec<_> = description.columns.iter().map(column_cells).collect();
        text.push_str(&table::align(&columns, &[], "  "));
        if !description.primary_key.is_empty() {
            text.push_str(&format!(
                "  primary key ({})\n",
                description.primary_key.join(", ")
            ));
        }
        for index in &description.indexes {
            let kind = if index.unique { "unique" } else { "index" };
            text.push_str(&format!("  {kind} ({})\n", index.columns.join(", ")));
        }
        if let Some(days) = description.retention_days {
            text.push_str(&format!("  rows are kept for {days} days\n"));
        }
        text
    }
}

fn column_cells(column: &ColumnDescription) -> Vec<String> {
    let role = match (column.role, &column.unit) {
        (None, _) => String::new(),
        (Some(RoleWord::Time), _) => "time".into(),
        (Some(RoleWord::Entity), _) => "entity".into(),
        (Some(RoleWord::Facet), _) => "facet".into(),
        (Some(RoleWord::Measure), None) => "measure".into(),
        (Some(RoleWord::Measure), Some(unit)) => format!("measure in {unit}"),
    };
    let null = if column.nullable { "or null" } else { "" };
    let column_type = column.column_type.to_string();
    vec![
        column.name.clone(),
        column_type,
        null.into(),
        role,
        column.doc.clone(),
    ]
}

fn write_info(manifest: &Manifest, write: &Write) -> WriteInfo {
    let target = manifest.table_of(write);
    let name = |index: &usize| target.columns.get(*index).map(|column| column.name.to_string());
    WriteInfo {
        table: target.name.to_string(),
        columns: write.columns.iter().filter_map(name).collect(),
        on_conflict: conflict_in_words(&write.on_conflict),
    }
}

fn conflict_in_words(rule: &OnConflict) -> String {
    match rule {
        OnConflict::Fail => "a row that is there already makes the message a dead letter".into(),
        OnConflict::Ignore => "a row that is there already stays as it is".into(),
        OnConflict::Update(rule) => update_in_words(rule),
    }
}

fn update_in_words(rule: &UpdateRule) -> String {
    let list = |names: &[String]| names.join(", ");
    let key: Vec<String> = rule.key.iter().map(ToString::to_string).collect();
    let guard = match &rule.guard {
        Guard::Always => String::new(),
        Guard::WhileNull(column) => format!(", while its {column} is null"),
        Guard::Newer(column) => format!(", when the new {column} is greater or there was none"),
    };
    let kinds = [
        (Merge::Replace, "replaces"),
        (Merge::Fill, "fills where null"),
        (Merge::Add, "adds to"),
        (Merge::Min, "keeps the smaller of"),
        (Merge::Max, "keeps the greater of"),
    ];
    let deeds: Vec<String> = kinds
        .into_iter()
        .filter_map(|(kind, verb)| {
            let of_kind = rule.merges.iter().filter(|(_, merge)| *merge == kind);
            let columns: Vec<String> = of_kind.map(|(column, _)| column.to_string()).collect();
            (!columns.is_empty()).then(|| format!("{verb} {}", list(&columns)))
        })
        .collect();
    let deeds = if deeds.is_empty() {
        "changes nothing".to_owned()
    } else {
        deeds.join("; ")
    };
    format!("a row with the same {}{guard}: {deeds}", list(&key))
}

/// Prints what a plugin says of itself.
pub fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let inspection = commands::inspect(&args.file)?;
    match args.json {
        true => print_json(&inspection)?,
        false => print(&inspection.render())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds, and then shows what was built.
pub fn run_build(package: &Path, out: Option<&Path>) -> Result<ExitCode, Failure> {
    let file = commands::build(package, out)?;
    let inspection = commands::inspect(&file)?;
    print(&format!("{}\n\n{}", file.display(), inspection.render()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
