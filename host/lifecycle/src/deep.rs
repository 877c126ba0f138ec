//! The deep check of a database: it projects the messages that the streams still hold again, with the version that the
//! ledger names, and compares rows and counters with the database. It changes nothing, and runs with or without a
//! running host.
//!
//! Rows of tables whose writes update rows depend on the whole history. They are compared only if the whole history is
//! available, in a scratch database.

mod report;
mod sample;
mod worker;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::adoption;
use super::components::Components;
use lantern_broker::{Broker, BrokerError};
use lantern_model::batch::Delivery;
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Digest, Loader, Plugin};
use lantern_store::ScratchError;
use lantern_store::check::{CheckError, Problem, plural};
use lantern_store::deep::{Compared, Comparer, DeadLetterState, DeepPlugin, DeepRange, DeepSource, survey};
use lantern_store::scratch::Scratch;

use sample::{check_full_history, share_of, spans};
use worker::{FullHistory, Loaded, RangeResult, Worker};

/// Messages in one batch.
const BATCH_MESSAGES: usize = 512;
/// Bytes in one batch; a single message may be larger.
const BATCH_BYTES: usize = 8 << 20;

/// The inputs of a deep check.
pub struct DeepParts {
    /// The database.
    pub database: PathBuf,
    /// The folder of installed components.
    pub components_dir: PathBuf,
    /// The source of messages.
    pub broker: Broker,
    /// Loads plugins from components.
    pub loader: Arc<Loader>,
}

/// The result of a deep check.
#[derive(Clone, Debug, Default)]
pub struct DeepReport {
    /// Messages of all streams that the ledger counts.
    pub handled: u64,
    /// Messages projected again.
    pub messages: u64,
    /// Rows that are equal to the stored ones.
    pub rows: u64,
    /// The differences, each with a remedy.
    pub problems: Vec<Problem>,
    /// What could not be compared, with the reasons.
    pub unverified: Vec<String>,
}

/// Why a deep check failed.
#[derive(Debug, thiserror::Error)]
pub enum DeepError {
    /// The database cannot be read.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The broker failed to answer.
    #[error("failed to read the messages")]
    Broker(#[from] BrokerError),
    /// The scratch database cannot be used.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A local operation failed.
    #[error("{0}")]
    Local(String),
}

/// Projects messages again and compares the rows: all messages, or about `sample` of each plugin.
///
/// # Errors
/// See [`DeepError`].
pub async fn check_deep(parts: &DeepParts, sample: Option<u64>) -> Result<DeepReport, DeepError> {
    let path = parts.database.clone();
    let plugins = blocking(move || survey(&path)).await??;
    let mut report = DeepReport::default();
    for plugin in plugins {
        report.handled += handled(&plugin, |source| source.stream.is_some());
        let mut check = PluginCheck::new(parts, &plugin).await?;
        check.run(&plugin, sample, &mut report).await?;
    }
    if report.messages == 0 && report.handled > 0 {
        report.problems.insert(0, nothing_compared(report.handled));
    }
    Ok(report)
}

/// The number of messages that the ledger counts for some sources of a plugin.
fn handled(plugin: &DeepPlugin, which: impl Fn(&DeepSource) -> bool) -> u64 {
    let sources = plugin.sources.iter().filter(|source| which(source));
    let ranges = sources.flat_map(|source| &source.ranges);
    ranges.map(|range| range.counts.messages).sum()
}

fn nothing_compared(handled: u64) -> Problem {
    Problem {
        problem: format!(
            "nothing was compared: none of {} in the ledger could be projected again",
            plural(handled, "message")
        ),
        remedy: "check that this is the host's broker (--nats URL, --config FILE); the reasons are below"
            .to_owned(),
    }
}

struct PluginCheck<'a> {
    parts: &'a DeepParts,
    /// `None` while a blocking thread uses it.
    worker: Option<Worker>,
    /// Versions that failed to load, with the reason.
    failed: BTreeMap<String, String>,
    folder: Option<TempFolder>,
}

/// A folder that is deleted when dropped.
struct TempFolder(PathBuf);

impl Drop for TempFolder {
    fn drop(&mut self) {
        // It is in the system's folder for temporary files.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl<'a> PluginCheck<'a> {
    async fn new(parts: &'a DeepParts, plugin: &DeepPlugin) -> Result<Self, DeepError> {
        let (path, plugin) = (parts.database.clone(), plugin.clone());
        let comparer = blocking(move || Comparer::open(&path, &plugin)).await??;
        Ok(Self {
            parts,
            worker: Some(Worker {
                comparer,
                versions: BTreeMap::new(),
                found: Compared::default(),
                full: None,
            }),
            failed: BTreeMap::new(),
            folder: None,
        })
    }

    async fn run(
        &mut self,
        plugin: &DeepPlugin,
        sample: Option<u64>,
        report: &mut DeepReport,
    ) -> Result<(), DeepError> {
        let name = &plugin.name;
        let merging: Vec<&str> = plugin
            .tables
            .iter()
            .filter(|table| table.merges)
            .map(|table| table.name.as_str())
            .collect();
        let mut full = match merging.is_empty() {
            true => Err(String::new()),
            false => check_full_history(plugin, sample),
        };
        let handled = handled(plugin, |_| true);
        for source in &plugin.sources {
            if let Err(reason) = self.same_history(source).await? {
                let messages: u64 = source.ranges.iter().map(|range| range.counts.messages).sum();
                if messages > 0 {
                    report.unverified.push(format!(
                        "{name}/{}, epoch {}: {}: {reason}",
                        source.source,
                        source.epoch,
                        plural(messages, "message")
                    ));
                    full = full.and(Err(reason));
                }
                continue;
            }
            for range in source.ranges.iter().filter(|range| range.counts.messages > 0) {
                let share = sample.map(|sample| share_of(sample, range.counts.messages, handled));
                let compared = self
                    .compare_range(plugin, source, range, share, full.is_ok(), report)
                    .await?;
                full = full.and(compared);
            }
        }
        self.finish(plugin, &merging, full, report).await
    }

    /// Compares one range; fills the scratch database if `fills_scratch`. The inner error says why the whole history is
    /// unknown.
    async fn compare_range(
        &mut self,
        plugin: &DeepPlugin,
        source: &DeepSource,
        range: &DeepRange,
        share: Option<u64>,
        fills_scratch: bool,
        report: &mut DeepReport,
    ) -> Result<Result<(), String>, DeepError> {
        let name = &plugin.name;
        if let Err(reason) = self.load(plugin, &range.digest) {
            report.unverified.push(format!(
                "{name}/{}: {} from {} to {}: {reason}",
                source.source,
                plural(range.counts.messages, "message"),
                range.first,
                range.last
            ));
            return Ok(Err(reason));
        }
        if fills_scratch && self.worker.as_ref().is_some_and(|worker| worker.full.is_none()) {
            self.begin_full(&range.digest, source).await?;
        }
        let mut result = self.check_range(plugin, source, range, share).await?;
        report.messages += result.counts.messages;
        // A rebuild that drops a table removes its rows from the ledger.
        result.has_dropped_table = self.has_dropped_table(plugin, &range.digest);
        Ok(
            match self.compare_counts(name, source, range, share.is_some(), result, report) {
                Some(reason) => Err(reason),
                None => Ok(()),
            },
        )
    }

    /// Whether the sequences of a history still identify the same messages; the error names the reason.
    async fn same_history(&self, source: &DeepSource) -> Result<Result<(), String>, DeepError> {
        let Some(stream) = &source.stream else {
            return Ok(Err("core NATS stores no messages".to_owned()));
        };
        if !source.present {
            return Ok(Err("they belong to an earlier history of the stream".to_owned()));
        }
        let Some(facts) = self.parts.broker.stream_facts(stream).await? else {
            return Ok(Err(format!("the broker has no stream {stream}")));
        };
        if source.stream_created_ns == Some(facts.created_ns) {
            return Ok(Ok(()));
        }
        // The creation time can change within one history; the message at the checkpoint decides.
        let mark = &source.checkpoint;
        let found = self.parts.broker.message_at(stream, mark.sequence).await?;
        let same = found.is_some_and(|found| {
            found.published_ns == mark.published_ns && Some(found.payload_sha256) == mark.payload_sha256
        });
        Ok(match same {
            true => Ok(()),
            false => Err(format!("stream {stream} was recreated since")),
        })
    }

    /// Loads a version, once.
    fn load(&mut self, plugin: &DeepPlugin, digest: &str) -> Result<(), String> {
        if let Some(reason) = self.failed.get(digest) {
            return Err(reason.clone());
        }
        let Some(worker) = &mut self.worker else {
            return Err("the check was interrupted".to_owned());
        };
        if worker.versions.contains_key(digest) {
            return Ok(());
        }
        match load(self.parts, plugin, digest) {
            Ok(plugin) => {
                let projector = plugin.projector();
                worker
                    .versions
                    .insert(digest.to_owned(), Loaded { plugin, projector });
                Ok(())
            }
            Err(reason) => {
                self.failed.insert(digest.to_owned(), reason.clone());
                Err(reason)
            }
        }
    }

    fn has_dropped_table(&self, plugin: &DeepPlugin, digest: &str) -> bool {
        let loaded = self
            .worker
            .as_ref()
            .and_then(|worker| worker.versions.get(digest));
        loaded.is_some_and(|loaded| {
            let mut declared = loaded.plugin.manifest().tables.iter();
            declared.any(|table| {
                !plugin
                    .tables
                    .iter()
                    .any(|there| there.name == table.name.as_str())
            })
        })
    }

    async fn begin_full(&mut self, digest: &str, source: &DeepSource) -> Result<(), DeepError> {
        let name = format!("lantern-check-{}", uuid::Uuid::new_v4().simple());
        let folder = TempFolder(std::env::temp_dir().join(name));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder.0)
            .map_err(|error| DeepError::Local(format!("cannot create {}: {error}", folder.0.display())))?;
        let Some(worker) = &mut self.worker else {
            return Ok(());
        };
        if let Some(loaded) = worker.versions.get(digest) {
            let sources = vec![source.source.clone()];
            let scratch = Scratch::make(&folder.0, adoption(&loaded.plugin), sources).await?;
            worker.full = Some(FullHistory {
                scratch,
                digest: digest.to_owned(),
            });
            self.folder = Some(folder);
        }
        Ok(())
    }

    /// Projects the messages of a range again, or `share` of them, and compares their rows.
    async fn check_range(
        &mut self,
        plugin: &DeepPlugin,
        source: &DeepSource,
        range: &DeepRange,
        share: Option<u64>,
    ) -> Result<RangeResult, DeepError> {
        let mut result = RangeResult::default();
        for (first, last, most) in spans(range, share) {
            self.check_span(plugin, source, range, (first, last, most), &mut result)
                .await?;
        }
        Ok(result)
    }

    async fn check_span(
        &mut self,
        plugin: &DeepPlugin,
        source: &DeepSource,
        range: &DeepRange,
        (first, last, most): (u64, u64, u64),
        result: &mut RangeResult,
    ) -> Result<(), DeepError> {
        let Some((stream, subjects)) = self.subjects(range, source) else {
            return Ok(());
        };
        let Some(mut reading) = self.parts.broker.read(&stream, &subjects, first).await? else {
            return Ok(());
        };
        let (mut next, mut left) = (first, most);
        while next <= last && left > 0 {
            let wanted = BATCH_MESSAGES.min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut batch = reading.next(wanted, BATCH_BYTES, Duration::ZERO).await?;
            let ended = batch.last().is_none_or(|delivery| delivery.sequence >= last);
            batch.retain(|delivery| delivery.sequence <= last);
            left = left.saturating_sub(batch.len() as u64);
            // A sample covers only the messages themselves; a full check also covers the sequences between them and up
            // to the end.
            let through = match batch.last() {
                Some(delivery) if !ended || most < u64::MAX => delivery.sequence,
                _ if most < u64::MAX => break,
                _ => last,
            };
            self.check_batch(plugin, source, range, (next, through), batch, result)
                .await?;
            next = through + 1;
            if ended {
                break;
            }
        }
        reading.close().await;
        Ok(())
    }

    fn subjects(&self, range: &DeepRange, source: &DeepSource) -> Option<(String, Vec<String>)> {
        let loaded = self.worker.as_ref()?.versions.get(&range.digest)?;
        let (_, declared) = loaded.plugin.manifest().source(&source.source)?;
        let (stream, subjects) = declared.origin.replay()?;
        Some((stream.to_owned(), subjects.to_vec()))
    }

    async fn check_batch(
        &mut self,
        plugin: &DeepPlugin,
        source: &DeepSource,
        range: &DeepRange,
        (first, last): (u64, u64),
        batch: Vec<Delivery>,
        result: &mut RangeResult,
    ) -> Result<(), DeepError> {
        let Some(worker) = &self.worker else {
            return Ok(());
        };
        let dead_letters = worker.comparer.dead_letters(source.origin, first, last)?;
        for state in dead_letters.values() {
            if let DeadLetterState::ResolvedBy(digest) = state {
                // A version that cannot be loaded leaves its messages unverified.
                drop(self.load(plugin, digest));
            }
        }
        let Some(mut worker) = self.worker.take() else {
            return Ok(());
        };
        let (origin, source, digest) = (source.origin, source.source.clone(), range.digest.clone());
        let (worker, done) = blocking(move || {
            let done = worker.compare_batch(&source, origin, &digest, (first, last), batch, &dead_letters);
            (worker, done)
        })
        .await?;
        self.worker = Some(worker);
        let done = done?;
        result.counts += done.counts;
        result.unknown += done.unknown;
        result.erased += done.erased;
        result.rejected.extend(done.rejected);
        Ok(())
    }
}

fn load(parts: &DeepParts, plugin: &DeepPlugin, digest: &str) -> Result<Arc<Plugin>, String> {
    let settings: PluginSettings = serde_json::from_str(&plugin.settings)
        .map_err(|error| format!("the settings of the plugin cannot be read: {error}"))?;
    let parsed: Digest = digest.parse().map_err(|_| format!("{digest} is not a digest"))?;
    let bytes = component(&parts.components_dir, parsed)
        .map_err(|error| format!("the component {digest} cannot be read: {error}"))?;
    parts
        .loader
        .load_installed(&bytes, &settings)
        .map_err(|error| format!("the component {digest} cannot be loaded: {error}"))
}

fn component(folder: &Path, digest: Digest) -> std::io::Result<Vec<u8>> {
    // `Components::open` would create the folder.
    if !folder.is_dir() {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Components::open(folder)?.get(digest)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DeepError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DeepError::Local(format!("the check panicked: {error}")))
}
