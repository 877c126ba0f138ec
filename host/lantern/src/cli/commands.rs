//! From the commands to the rooms that do the work. Printing, flags and exit codes are in each command's own file.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Failure;
use super::check::{CheckReport, DeepCheck, SourceCheck};
use super::inspect::{Inspection, Size};
use crate::app;
use crate::config::Config;
use lantern_authoring::project::{Project, ProjectError};
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Compiler, Loader, Plugin, Speed, Target};
use lantern_store::AuditHash;

/// Runs the host until it is told to stop.
pub async fn serve(config: Config) -> Result<ExitCode, Failure> {
    app::serve(config).await.map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

/// Verifies a database, and looks for a hash of its audit that was noted earlier.
pub fn check(data_dir: &Path, audit_head: Option<AuditHash>) -> Result<CheckReport, Failure> {
    let database = data_dir.join(lantern_store::DATABASE_FILE);
    let report = lantern_store::check::check_with(&database, audit_head).map_err(Failure::new)?;
    let unverified_values = report.unverified_values();
    let sources = report
        .sources
        .into_iter()
        .map(|source| SourceCheck {
            plugin: source.plugin,
            source: source.source,
            epoch: source.epoch,
            stream: source.stream,
            checkpoint: source.checkpoint,
            messages: source.counts.messages,
            projected: source.counts.projected,
            skipped: source.counts.skipped,
            dead: source.counts.dead,
            missing: source.counts.missing,
            rows: source.counts.rows,
            inserted: source.counts.inserted,
            updated: source.counts.updated,
            present: source.counts.present(),
        })
        .collect();
    Ok(CheckReport {
        database,
        unverified_values,
        audit: report.audit,
        deep: None,
        sources,
        tables: report.tables,
        problems: report.problems,
        unverified: report.unverified,
    })
}

/// Compares the rows of a database with those that its messages give.
pub fn check_deep(config: &Config, sample: Option<u64>, report: &mut CheckReport) -> Result<(), Failure> {
    let found = block_on(app::check_deep(config, sample))?.map_err(Failure::new)?;
    report.problems.extend(found.problems);
    report.unverified.splice(0..0, found.unverified);
    report.deep = Some(DeepCheck {
        messages: found.messages,
        rows: found.rows,
    });
    Ok(())
}

/// Looks into a plugin without running the host. Where it imports WASI it gets that, with everything in it empty:
/// whether it may have it is for each host's operator to say, and [`Inspection::wasi`] says that there is something to say.
pub fn inspect(file: &Path) -> Result<Inspection, Failure> {
    let settings = PluginSettings {
        wasi: true,
        internal_subjects: true,
        ..PluginSettings::default()
    };
    let bytes = std::fs::read(file)
        .with_context(|| format!("read {}", file.display()))
        .map_err(Failure::new)?;
    // The one who asks waits for the answer, so the compiler need not be a process that can be killed.
    let loader =
        Loader::new(lantern_plugin::EngineConfig::new(Compiler::InProcess), [0; 32]).map_err(Failure::new)?;
    let plugin = loader.load_with(&bytes, &settings).map_err(|error| {
        let hint = error.hint();
        let failure =
            Failure::new(anyhow::Error::new(error).context(format!("{} is refused", file.display())));
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

/// Builds a plugin; answers with where it was written.
pub fn build(package: &Path, out: Option<&Path>, target: Target) -> Result<std::path::PathBuf, Failure> {
    let built = match target {
        Target::Bare => lantern_plugin::write(&Project::open(package)?.build(Speed::Full)?, out),
        Target::Wasi => lantern_plugin::build(package, out, target),
    };
    Ok(built.map_err(ProjectError::from)?.path)
}

/// Waits for something that a command does with a broker.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(future))
}

/// Compiles a component in this process, which the host may kill.
pub fn compile_component() -> Result<ExitCode, Failure> {
    Ok(lantern_plugin::compile_child_main())
}
