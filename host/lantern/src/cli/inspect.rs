//! `lantern plugin inspect`, and the summary that `build` prints: what a plugin declares.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::author::sign::with_suffix;
use super::{Failure, print, print_json, table};
use lantern_api::{Signature, SignatureState};
use lantern_authoring::project::{Project, ProjectError};
use lantern_model::schema::description::{ColumnDescription, NamedTable, SourceDescription};
use lantern_model::schema::{Manifest, ManifestDescription};
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Compiler, Loader, Metadata, Plugin, Speed, Target};
use lantern_trust::signature::{FILE_SUFFIX, Fault, TrustedKey, Verdict, key_named, verify};

/// Arguments of `lantern plugin inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Component file. Its signature is read from FILE.minisig, if it exists.
    file: PathBuf,
    /// Public key, or .pub file, that verifies the signature. Exits with 1 if the signature is not valid.
    #[arg(long, value_name = "KEY|FILE")]
    key: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Everything that is known about a plugin without running it on messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The contract of the component, such as `lantern:projection@0.1.0`.
    pub contract: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// What the plugin declares.
    #[serde(flatten)]
    pub manifest: ManifestDescription,
    /// Metadata in the component: licence, source, authors.
    pub metadata: Metadata,
    /// Result of checking the signature; `None` if it was not checked.
    pub signature: Option<Signature>,
    /// Imports of the component; empty for most.
    pub imports: Vec<String>,
    /// Whether it imports WASI, which an operator must allow.
    pub wasi: bool,
    /// Sizes: the component first, then its parts.
    pub sizes: Vec<Size>,
}

/// Size of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Name of the part.
    pub part: String,
    /// Size in bytes.
    pub bytes: u64,
}

impl Inspection {
    /// Combines the manifest with the properties of the component.
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

    /// Renders the inspection as text.
    pub fn render(&self) -> String {
        let manifest = &self.manifest;
        let mut head = vec![
            vec![
                "plugin".to_owned(),
                format!("{} {}", manifest.name, manifest.version),
            ],
            vec!["digest".to_owned(), self.digest.clone()],
            vec!["contract".to_owned(), self.contract.clone()],
            vec!["imports".to_owned(), self.describe_imports()],
        ];
        if !manifest.doc.is_empty() {
            head.insert(1, vec![String::new(), manifest.doc.clone()]);
        }
        let metadata = metadata_lines(&self.metadata).into_iter();
        head.extend(metadata.map(|(name, value)| vec![name.to_owned(), value]));
        let signature = self.signature.as_ref().map(describe_signature);
        head.extend(signature.map(|text| vec!["signature".to_owned(), text]));
        head.extend(
            self.sizes
                .iter()
                .map(|size| vec![size.part.clone(), table::bytes(size.bytes)]),
        );
        let mut text = table::align(&head, &[], "");
        text.push_str("\nsources\n");
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
                "\nIt imports WASI. A host rejects it until an operator allows an empty WASI:\n  \
                 lantern plugin set {} wasi=true\n",
                manifest.name
            ));
        }
        text
    }

    /// The imports in one line, with only the packages of WASI, because it has a dozen interfaces.
    fn describe_imports(&self) -> String {
        let package = |import: &str| Some(import.strip_prefix("wasi:")?.split('/').next()?.to_owned());
        let mut packages: Vec<String> = self.imports.iter().filter_map(|import| package(import)).collect();
        packages.sort();
        packages.dedup();
        let mut names: Vec<String> = self
            .imports
            .iter()
            .filter(|import| package(import).is_none())
            .cloned()
            .collect();
        if !packages.is_empty() {
            names.push(format!("WASI ({})", packages.join(", ")));
        }
        if names.is_empty() {
            return "none".to_owned();
        }
        names.join(", ")
    }
}

/// Metadata by name, without plugin name, version and description, which the manifest contains.
pub fn metadata_lines(metadata: &Metadata) -> Vec<(&'static str, String)> {
    [
        ("licence", &metadata.licenses),
        ("source", &metadata.source),
        ("homepage", &metadata.homepage),
        ("authors", &metadata.authors),
        ("revision", &metadata.revision),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.clone()?)))
    .collect()
}

fn source_cells(source: &SourceDescription) -> Vec<String> {
    let from = match &source.stream {
        Some(stream) => format!("stream {stream}"),
        None => "core NATS (at most once)".to_owned(),
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
        text.push_str(&format!("  retention {days} days\n"));
    }
    text
}

fn column_cells(column: &ColumnDescription) -> Vec<String> {
    let null = if column.nullable { "nullable" } else { "" };
    let column_type = column.column_type.to_string();
    vec![
        column.name.clone(),
        column_type,
        null.into(),
        column.role_with_unit().unwrap_or_default(),
        column.doc.clone(),
    ]
}

/// Prints what a plugin declares, and the result of checking its signature.
pub fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let key = args.key.as_deref().map(key).transpose()?;
    let mut inspection = inspect(&args.file)?;
    let signature = signature(&args.file, key.as_ref())?;
    let is_invalid = key.is_some() && signature.state != SignatureState::Good;
    inspection.signature = Some(signature);
    match args.json {
        true => print_json(&inspection)?,
        false => print(&inspection.render())?,
    }
    Ok(if is_invalid {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn key(text: &str) -> Result<TrustedKey, Failure> {
    // A key in base64 may look like a path, so it is tried first.
    let key = TrustedKey::parse(text).or_else(|error| match std::fs::read_to_string(text) {
        Ok(text) => TrustedKey::parse(&text),
        Err(_) => Err(error),
    });
    key.map_err(|error| {
        Failure::usage(format!("--key {error}"))
            .hint("use the second line of a minisign .pub file, or the path of the file")
    })
}

fn signature(file: &Path, key: Option<&TrustedKey>) -> Result<Signature, Failure> {
    let signature_file = with_suffix(file, FILE_SUFFIX);
    let signature = match std::fs::read(&signature_file) {
        Ok(signature) => signature,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Verdict::Faulty(Fault::Missing).view());
        }
        Err(error) => {
            let error =
                anyhow::Error::new(error).context(format!("failed to read {}", signature_file.display()));
            return Err(Failure::new(error));
        }
    };
    let Some(key) = key else {
        return Ok(match key_named(&signature) {
            None => Verdict::Faulty(Fault::Malformed).view(),
            Some(key) => Signature {
                key: Some(key.to_string()),
                ..Verdict::NotChecked.view()
            },
        });
    };
    let component = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    let verdict = verify(std::slice::from_ref(key), &component, &signature);
    let reason = match &verdict {
        Verdict::Faulty(Fault::UnknownKey { key: other, .. }) => {
            Some(format!("signed with key {other}; --key is {}", key.id()))
        }
        _ => verdict.view().reason,
    };
    Ok(Signature {
        reason,
        ..verdict.view()
    })
}

fn describe_signature(signature: &Signature) -> String {
    match signature {
        Signature {
            state: SignatureState::Missing,
            ..
        } => "none".to_owned(),
        Signature {
            key: Some(key),
            comment: Some(comment),
            ..
        } => format!("valid, key {key}: {comment}"),
        Signature {
            key, reason: None, ..
        } => {
            format!(
                "key {}, not verified; use --key",
                key.as_deref().unwrap_or_default()
            )
        }
        Signature {
            reason: Some(reason), ..
        } => format!("invalid: {reason}"),
    }
}

/// Builds a component and prints a summary.
pub fn run_build(package: &Path, out: Option<&Path>, wasi: bool) -> Result<ExitCode, Failure> {
    let target = if wasi { Target::Wasi } else { Target::Bare };
    let file = build(package, out, target)?;
    let inspection = inspect(&file)?;
    print(&format!("{}\n\n{}", file.display(), inspection.render()))?;
    Ok(ExitCode::SUCCESS)
}

/// Inspects a component without a host. The component receives an empty WASI if it imports WASI; [`Inspection::wasi`]
/// reports that an operator must allow it.
pub fn inspect(file: &Path) -> Result<Inspection, Failure> {
    let settings = PluginSettings {
        wasi: true,
        internal_subjects: true,
        ..PluginSettings::default()
    };
    let bytes = std::fs::read(file)
        .with_context(|| format!("failed to read {}", file.display()))
        .map_err(Failure::new)?;
    // The user can interrupt the command, so the compiler needs no process that can be killed.
    let loader =
        Loader::new(lantern_plugin::EngineConfig::new(Compiler::InProcess), [0; 32]).map_err(Failure::new)?;
    let plugin = loader.load_with(&bytes, &settings).map_err(|error| {
        let hint = error.hint();
        let context = format!("failed to load {}", file.display());
        let failure = Failure::new(anyhow::Error::new(error).context(context));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    Ok(Inspection {
        metadata: lantern_plugin::read_metadata(&bytes),
        ..inspection(&plugin)
    })
}

fn inspection(plugin: &Plugin) -> Inspection {
    let facts = plugin.facts();
    let size = |part: &str, bytes: usize| Size {
        part: part.to_owned(),
        bytes: bytes as u64,
    };
    let sizes = vec![
        size("component", facts.component_bytes),
        size("compiled code", facts.code_bytes),
        size("memory after describe", facts.memory_bytes),
    ];
    let contract = facts.contract.to_string();
    Inspection::new(
        plugin.manifest(),
        contract,
        plugin.digest().to_string(),
        facts.imports.clone(),
        facts.wasi,
        sizes,
    )
}

/// Builds a component and returns its path.
fn build(package: &Path, out: Option<&Path>, target: Target) -> Result<PathBuf, Failure> {
    let built = match target {
        Target::Bare => lantern_plugin::write(&Project::open(package)?.build(Speed::Full)?, out),
        Target::Wasi => lantern_plugin::build(package, out, target),
    };
    Ok(built.map_err(ProjectError::from)?.path)
}

#[cfg(test)]
mod tests;
