//! `lantern plugin inspect` and what `build` shows at its end: what a plugin says of itself, in words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::author::sign::with_end;
use super::{Failure, commands, print, print_json, table};
use lantern_model::schema::description::{ColumnDescription, NamedTable, RoleWord, SourceDescription};
use lantern_model::schema::{Manifest, ManifestDescription};
use lantern_plugin::{Metadata, Target};
use lantern_trust::signature::{
    FILE_SUFFIX, Fault, SignatureState, SignatureView, TrustedKey, Verdict, key_named, verify,
};

/// What is typed after `lantern plugin inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The plugin. Its signature is looked for beside it, as FILE.minisig.
    file: PathBuf,
    /// Check the signature with this public key, or the .pub file that holds it. Exits with 1 when it is not good.
    #[arg(long, value_name = "KEY|FILE")]
    key: Option<String>,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
}

/// Everything that can be said of a plugin without running it on messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The contract that it was built for, such as `lantern:projection@0.1.0`.
    pub contract: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// What it says of itself.
    #[serde(flatten)]
    pub manifest: ManifestDescription,
    /// What its file says of where it is from.
    pub metadata: Metadata,
    /// What is known of the signature beside it; none where nobody has looked.
    pub signature: Option<SignatureView>,
    /// What it asks of its host; empty for most.
    pub imports: Vec<String>,
    /// Whether some of that is WASI, which an operator has to allow.
    pub wasi: bool,
    /// Sizes of the parts of the file, the whole first.
    pub sizes: Vec<Size>,
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
        wasi: bool,
        sizes: Vec<Size>,
    ) -> Self {
        Self {
            contract,
            digest,
            manifest: manifest.into(),
            metadata: Metadata::default(),
            signature: None,
            imports,
            wasi,
            sizes,
        }
    }

    /// For people.
    pub fn render(&self) -> String {
        let manifest = &self.manifest;
        let mut head = vec![
            vec![
                "plugin".to_owned(),
                format!("{} {}", manifest.name, manifest.version),
            ],
            vec!["digest".to_owned(), self.digest.clone()],
            vec!["contract".to_owned(), self.contract.clone()],
            vec!["imports".to_owned(), self.shown_imports()],
        ];
        if !manifest.doc.is_empty() {
            head.insert(1, vec![String::new(), manifest.doc.clone()]);
        }
        let told = metadata_lines(&self.metadata).into_iter();
        head.extend(told.map(|(what, value)| vec![what.to_owned(), value]));
        let signature = self.signature.as_ref().map(in_words);
        head.extend(signature.map(|words| vec!["signature".to_owned(), words]));
        head.extend(
            self.sizes
                .iter()
                .map(|size| vec![size.part.clone(), table::bytes(size.bytes)]),
        );
        let mut text = table::align(&head, &[], "");
        text.push_str("\nreads\n");
        let sources: Vec<_> = manifest.sources.iter().map(source_cells).collect();
        text.push_str(&table::align(&sources, &[], "  "));
        for table in &manifest.tables {
            text.push_str(&render_table(table));
        }
        text.push_str("\nwrites\n");
        for (index, write) in manifest.writes.iter().enumerate() {
            text.push_str(&format!(
                "  {index}  {} ({})\n",
                write.table,
                write.columns.join(", ")
            ));
            text.push_str(&format!("     {}\n", write.on_conflict));
        }
        if self.wasi {
            text.push_str(&format!(
                "\nIt imports WASI, and a host refuses that until an operator allows it; everything in it is empty there:\n  \
                 lantern plugin set {} wasi=true\n",
                manifest.name
            ));
        }
        text
    }

    /// The imports in one line. WASI comes in a dozen interfaces, whose packages say enough.
    fn shown_imports(&self) -> String {
        let package = |import: &str| Some(import.strip_prefix("wasi:")?.split('/').next()?.to_owned());
        let mut packages: Vec<String> = self.imports.iter().filter_map(|import| package(import)).collect();
        packages.sort();
        packages.dedup();
        let mut shown: Vec<String> = self
            .imports
            .iter()
            .filter(|import| package(import).is_none())
            .cloned()
            .collect();
        if !packages.is_empty() {
            shown.push(format!("WASI ({})", packages.join(", ")));
        }
        if shown.is_empty() {
            return "nothing".to_owned();
        }
        shown.join(", ")
    }
}

/// What metadata says beside name, version and description, which the plugin itself says.
pub fn metadata_lines(metadata: &Metadata) -> Vec<(&'static str, String)> {
    [
        ("licence", &metadata.licenses),
        ("source", &metadata.source),
        ("homepage", &metadata.homepage),
        ("authors", &metadata.authors),
        ("revision", &metadata.revision),
    ]
    .into_iter()
    .filter_map(|(what, value)| Some((what, value.clone()?)))
    .collect()
}

fn source_cells(source: &SourceDescription) -> Vec<String> {
    let from = match &source.stream {
        Some(stream) => format!("stream {stream}"),
        None => "core NATS, at most once".to_owned(),
    };
    let subjects = if source.subjects.is_empty() {
        "all subjects".into()
    } else {
        source.subjects.join(", ")
    };
    let headers = if source.wants_headers { "with headers" } else { "" };
    vec![source.name.clone(), from, subjects, headers.to_owned()]
}

fn render_table(table: &NamedTable) -> String {
    let description = &table.description;
    let mut text = format!("\ntable {}\n", table.name);
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

/// Prints what a plugin says of itself, and what its signature says of it.
pub fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let key = args.key.as_deref().map(key).transpose()?;
    let mut inspection = commands::inspect(&args.file)?;
    let signature = signature(&args.file, key.as_ref())?;
    let is_bad = key.is_some() && signature.state != SignatureState::Good;
    inspection.signature = Some(signature);
    match args.json {
        true => print_json(&inspection)?,
        false => print(&inspection.render())?,
    }
    Ok(if is_bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn key(text: &str) -> Result<TrustedKey, Failure> {
    // A key in base64 may look like a path, so that it is tried first.
    let key = TrustedKey::parse(text).or_else(|error| match std::fs::read_to_string(text) {
        Ok(text) => TrustedKey::parse(&text),
        Err(_) => Err(error),
    });
    key.map_err(|error| {
        Failure::usage(format!("--key {error}"))
            .hint("give the second line of a minisign .pub file, or the path of one")
    })
}

fn signature(file: &Path, key: Option<&TrustedKey>) -> Result<SignatureView, Failure> {
    let beside = with_end(file, FILE_SUFFIX);
    let signature = match std::fs::read(&beside) {
        Ok(signature) => signature,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Verdict::Faulty(Fault::Missing).view());
        }
        Err(error) => {
            let error = anyhow::Error::new(error).context(format!("cannot read {}", beside.display()));
            return Err(Failure::new(error));
        }
    };
    let Some(key) = key else {
        return Ok(match key_named(&signature) {
            None => Verdict::Faulty(Fault::Malformed).view(),
            named => SignatureView {
                key: named,
                ..Verdict::NotChecked.view()
            },
        });
    };
    let component = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let verdict = verify(std::slice::from_ref(key), &component, &signature);
    let reason = match &verdict {
        Verdict::Faulty(Fault::UnknownKey { key: other, .. }) => Some(format!(
            "it is signed with key {other}, and --key is {}",
            key.id()
        )),
        _ => verdict.view().reason,
    };
    Ok(SignatureView {
        reason,
        ..verdict.view()
    })
}

fn in_words(signature: &SignatureView) -> String {
    match signature {
        SignatureView {
            state: SignatureState::Missing,
            ..
        } => "none beside it".to_owned(),
        SignatureView {
            key: Some(key),
            comment: Some(comment),
            ..
        } => format!("good, of key {key}: {comment}"),
        SignatureView {
            key, reason: None, ..
        } => {
            let key = key.map(|key| key.to_string()).unwrap_or_default();
            format!("names key {key}; --key checks it")
        }
        SignatureView {
            reason: Some(reason), ..
        } => format!("not good: {reason}"),
    }
}

/// Builds, and then shows what was built.
pub fn run_build(package: &Path, out: Option<&Path>, wasi: bool) -> Result<ExitCode, Failure> {
    let target = if wasi { Target::Wasi } else { Target::Bare };
    let file = commands::build(package, out, target)?;
    let inspection = commands::inspect(&file)?;
    print(&format!("{}\n\n{}", file.display(), inspection.render()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
