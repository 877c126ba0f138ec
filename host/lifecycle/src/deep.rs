//! The deep check of a database: it projects the messages that the streams still hold again, with the version that the
//! ledger names, and compares rows and counters with the database. It changes nothing, and runs with or without a
//! running host.
//!
//! Rows of tables whose writes update rows depend on the whole history. They are compared only if the whole history is
//! available, in a scratch database.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::adoption;
use super::components::Components;
use lantern_broker::{Broker, BrokerError};
use lantern_model::batch::{Delivery, Outcome, Rejection, RejectionClass};
use lantern_model::schema::Manifest;
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Digest, Loader, Plugin, Projector};
use lantern_store::check::{CheckError, Problem, plural};
use lantern_store::deep::{
    Compared, Comparer, DeepPlugin, DeepRange, DeepSource, Expected, LetterState, survey,
};
use lantern_store::scratch::Scratch;
use lantern_store::{Counts, Entry, ScratchError};

/// Messages in one batch.
const BATCH_MESSAGES: usize = 512;
/// Bytes in one batch; a single message may be larger.
const BATCH_BYTES: usize = 8 << 20;
/// How long one call into a plugin may take before the next call begins.
const CALL_BUDGET: Duration = Duration::from_millis(500);
/// Number of positions in a range at which a sample is taken.
const SAMPLE_SPOTS: u64 = 16;

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
        let mut check = PluginCheck::new(parts, &plugin).await?;
        check.run(&plugin, sample, &mut report).await?;
    }
    Ok(report)
}

/// A loaded version.
struct Loaded {
    plugin: Arc<Plugin>,
    projector: Projector,
}

/// The state that moves to blocking threads.
struct Worker {
    comparer: Comparer,
    versions: BTreeMap<String, Loaded>,
    found: Compared,
    /// The tables whose writes update rows, filled from the messages so far.
    full: Option<FullHistory>,
}

/// A scratch database filled with the whole history.
struct FullHistory {
    scratch: Scratch,
    /// The version that wrote to it last.
    digest: String,
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

/// The result of projecting a range again.
#[derive(Default)]
struct RangeResult {
    counts: Counts,
    /// Messages whose version cannot be loaded.
    unknown: u64,
    /// Erased messages.
    erased: u64,
    /// Whether the version declares a table that no longer exists, so that the ledger counts fewer rows.
    has_dropped_table: bool,
    rejected: Vec<String>,
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
        let handled: u64 = plugin
            .sources
            .iter()
            .flat_map(|source| &source.ranges)
            .map(|range| range.counts.messages)
            .sum();
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
                if let Err(reason) = self.load(plugin, &range.digest) {
                    report.unverified.push(format!(
                        "{name}/{}: {} from {} to {}: {reason}",
                        source.source,
                        plural(range.counts.messages, "message"),
                        range.first,
                        range.last
                    ));
                    full = full.and(Err(reason));
                    continue;
                }
                if full.is_ok() && self.worker.as_ref().is_some_and(|worker| worker.full.is_none()) {
                    self.begin_full(&range.digest, source).await?;
                }
                let result = self.check_range(plugin, source, range, share).await?;
                report.messages += result.counts.messages;
                let mut result = result;
                // A rebuild that drops a table removes its rows from the ledger.
                result.has_dropped_table = self.has_dropped_table(plugin, &range.digest);
                if let Some(reason) =
                    self.compare_counts(name, source, range, share.is_some(), result, report)
                {
                    full = full.and(Err(reason));
                }
            }
        }
        self.finish(plugin, &merging, full, report).await
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
        let letters = worker.comparer.letters(source.origin, first, last)?;
        for state in letters.values() {
            if let LetterState::ResolvedBy(digest) = state {
                // A version that cannot be loaded leaves its messages unverified.
                drop(self.load(plugin, digest));
            }
        }
        let Some(mut worker) = self.worker.take() else {
            return Ok(());
        };
        let (origin, source, digest) = (source.origin, source.source.clone(), range.digest.clone());
        let (worker, done) = blocking(move || {
            let done = worker.compare_batch(&source, origin, &digest, (first, last), batch, &letters);
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

    /// Compares the counters with the ledger. Returns why the whole history is unknown, if it is.
    fn compare_counts(
        &self,
        name: &str,
        source: &DeepSource,
        range: &DeepRange,
        sampled: bool,
        result: RangeResult,
        report: &mut DeepReport,
    ) -> Option<String> {
        let location = format!(
            "{name}/{}, messages {} to {}",
            source.source, range.first, range.last
        );
        let remedy = format!("lantern rebuild {name}");
        let mut problem = |problem: String| {
            report.problems.push(Problem {
                problem,
                remedy: remedy.clone(),
            });
        };
        for reason in &result.rejected {
            problem(format!("{location}: {reason}"));
        }
        if sampled {
            return Some("only a sample was read".to_owned());
        }
        if result.unknown > 0 {
            let unknown = plural(result.unknown, "message");
            let reason = format!("{unknown} that a version projected later, which cannot be loaded");
            report.unverified.push(format!("{location}: {reason}"));
            return Some(reason);
        }
        let (ledger, made) = (range.counts, result.counts);
        if made.messages < ledger.messages {
            let gone = ledger.messages - made.messages;
            let reason = format!("{} no longer in the stream", plural(gone, "message"));
            report.unverified.push(format!("{location}: {reason}"));
            return Some(reason);
        }
        let mut pairs = vec![
            ("messages", ledger.messages, made.messages),
            ("dead letters", ledger.dead, made.dead),
        ];
        // Only the rows of an erased message could show whether it was skipped, and how many rows it gave.
        if result.erased == 0 {
            pairs.push(("projected messages", ledger.projected, made.projected));
            pairs.push(("skipped messages", ledger.skipped, made.skipped));
            if !result.has_dropped_table {
                pairs.push(("rows", ledger.rows, made.rows));
            }
        }
        let differing = pairs.into_iter().filter(|(_, ledger, made)| ledger != made);
        for (what, ledger, made) in differing {
            problem(format!(
                "{location}: the ledger counts {ledger} {what}, but the messages give {made}"
            ));
        }
        None
    }

    async fn finish(
        &mut self,
        plugin: &DeepPlugin,
        merging: &[&str],
        full: Result<(), String>,
        report: &mut DeepReport,
    ) -> Result<(), DeepError> {
        let Some(mut worker) = self.worker.take() else {
            return Ok(());
        };
        if let Err(reason) = &full
            && !merging.is_empty()
        {
            report.unverified.push(format!(
                "{}, whose writes update stored rows, so that a row depends on the whole history: {reason}",
                merging.join(", ")
            ));
        }
        let through = plugin
            .sources
            .first()
            .map_or(0, |source| source.checkpoint.sequence);
        if full.is_ok() {
            worker = blocking(move || {
                let compared = match &worker.full {
                    Some(full) => worker
                        .comparer
                        .compare_whole(&full.scratch, through, &mut worker.found),
                    None => Ok(()),
                };
                compared.map(|()| worker)
            })
            .await??;
        }
        let found = worker.found;
        report.rows += found.same;
        let remedy = format!("lantern rebuild {}", plugin.name);
        let more = found.differing.saturating_sub(found.differences.len() as u64);
        for problem in found.differences {
            report.problems.push(Problem {
                problem: format!("{}: {problem}", plugin.name),
                remedy: remedy.clone(),
            });
        }
        if more > 0 {
            report.problems.push(Problem {
                problem: format!("{}: {} more like these", plugin.name, plural(more, "difference")),
                remedy,
            });
        }
        for (number, text) in [
            (
                found.without_message,
                "of messages that are no longer in the stream",
            ),
            (found.expired, "deleted because of their age"),
            (found.erased, "whose value was erased with `lantern forget`"),
        ] {
            if number > 0 {
                report
                    .unverified
                    .push(format!("{}: {} {text}", plugin.name, plural(number, "row")));
            }
        }
        Ok(())
    }
}

impl Worker {
    /// Projects a batch, each message with the version that made its rows, and compares the rows.
    fn compare_batch(
        &mut self,
        source: &str,
        origin: lantern_store::OriginId,
        digest: &str,
        span: (u64, u64),
        batch: Vec<Delivery>,
        letters: &BTreeMap<u64, LetterState>,
    ) -> Result<RangeResult, DeepError> {
        let mut outcomes: BTreeMap<u64, (Outcome, Arc<Manifest>)> = BTreeMap::new();
        let mut result = RangeResult::default();
        let mut by_version: BTreeMap<&str, Vec<Delivery>> = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        for delivery in &batch {
            let version = match letters.get(&delivery.sequence) {
                Some(LetterState::Dead | LetterState::Erased) => continue,
                Some(LetterState::ResolvedBy(version)) => version.as_str(),
                None => digest,
            };
            if self.versions.contains_key(version) {
                by_version.entry(version).or_default().push(delivery.clone());
            } else {
                unknown.insert(delivery.sequence);
            }
        }
        for (version, deliveries) in by_version {
            let made = self.project(version, source, &deliveries)?;
            let Some(loaded) = self.versions.get(version) else {
                continue;
            };
            for (delivery, outcome) in deliveries.iter().zip(made) {
                let manifest = Arc::clone(loaded.plugin.manifest());
                outcomes.insert(delivery.sequence, (outcome, manifest));
            }
        }
        result.counts.messages = batch.len() as u64;
        let present: BTreeSet<u64> = batch.iter().map(|delivery| delivery.sequence).collect();
        for (sequence, _) in letters.iter().filter(|(_, state)| **state == LetterState::Erased) {
            result.erased += 1;
            if !present.contains(sequence) {
                result.counts.messages += 1;
                result.counts.dead += 1;
            }
        }
        result.unknown = unknown.len() as u64;
        let mut expected = Vec::new();
        for delivery in &batch {
            let sequence = delivery.sequence;
            match outcomes.get(&sequence) {
                Some((Outcome::Rows(rows), manifest)) if !rows.is_empty() => {
                    result.counts.projected += 1;
                    result.counts.rows += rows.len() as u64;
                    expected.push(Expected {
                        sequence,
                        published_ns: delivery.published_ns,
                        manifest: manifest.as_ref(),
                        rows,
                    });
                }
                Some((Outcome::Rows(_) | Outcome::Skip, _)) => result.counts.skipped += 1,
                Some((Outcome::Reject(rejection), _)) => {
                    result.counts.dead += 1;
                    result.rejected.push(format!(
                        "message {sequence} is not a dead letter, but its version rejects it: {}",
                        rejection.reason
                    ));
                }
                None => result.counts.dead += 1,
            }
        }
        let read = batch
            .iter()
            .map(|delivery| delivery.sequence)
            .filter(|sequence| !unknown.contains(sequence))
            .collect();
        self.comparer
            .compare(origin, span, &read, &expected, &mut self.found)?;
        drop(expected);
        self.fill_scratch(source, digest, batch, outcomes)?;
        Ok(result)
    }

    fn project(
        &mut self,
        version: &str,
        source: &str,
        deliveries: &[Delivery],
    ) -> Result<Vec<Outcome>, DeepError> {
        let Some(loaded) = self.versions.get_mut(version) else {
            return Ok(Vec::new());
        };
        let no_source = || DeepError::Local(format!("version {version} reads no source {source}"));
        let (number, _) = loaded.plugin.manifest().source(source).ok_or_else(no_source)?;
        let mut outcomes = Vec::with_capacity(deliveries.len());
        while outcomes.len() < deliveries.len() {
            let projected = loaded
                .projector
                .project(number, &deliveries[outcomes.len()..], CALL_BUDGET);
            if let Some(reason) = projected.halted.filter(|_| projected.outcomes.is_empty()) {
                return Err(DeepError::Local(format!("version {version}: {reason}")));
            }
            outcomes.extend(projected.outcomes);
        }
        Ok(outcomes)
    }

    /// Writes the messages to the scratch database, if there is one.
    fn fill_scratch(
        &mut self,
        source: &str,
        digest: &str,
        batch: Vec<Delivery>,
        mut outcomes: BTreeMap<u64, (Outcome, Arc<Manifest>)>,
    ) -> Result<(), DeepError> {
        let Some(full) = &mut self.full else {
            return Ok(());
        };
        if full.digest != digest
            && let Some(loaded) = self.versions.get(digest)
        {
            full.scratch.switch(&adoption(&loaded.plugin))?;
            full.digest = digest.to_owned();
        }
        let dead = || Outcome::Reject(Rejection::new(RejectionClass::Invalid, "a dead letter"));
        let entries = batch.into_iter().map(|delivery| Entry {
            outcome: outcomes
                .remove(&delivery.sequence)
                .map_or_else(dead, |(outcome, _)| outcome),
            delivery,
        });
        full.scratch.apply(source, entries.collect())?;
        Ok(())
    }
}

/// Whether the history of a plugin's tables can be repeated; the error names the reason.
fn check_full_history(plugin: &DeepPlugin, sample: Option<u64>) -> Result<(), String> {
    if sample.is_some() {
        return Err("only a sample was read".to_owned());
    }
    if plugin.sources.len() > 1 {
        return Err(
            "they were made from several sources or histories, whose order is not recorded".to_owned(),
        );
    }
    if plugin.erased {
        return Err("messages were erased with `lantern forget`".to_owned());
    }
    if plugin.resolved {
        return Err("dead letters were projected later, out of stream order".to_owned());
    }
    if plugin
        .tables
        .iter()
        .any(|table| table.merges && table.expired > 0)
    {
        return Err("rows were deleted because of their age".to_owned());
    }
    Ok(())
}

/// The spans of a range to read: first and last sequence, and a maximum number of messages. The whole range, or evenly
/// distributed samples.
fn spans(range: &DeepRange, share: Option<u64>) -> Vec<(u64, u64, u64)> {
    let Some(share) = share else {
        return vec![(range.first, range.last, u64::MAX)];
    };
    if share >= range.counts.messages {
        return vec![(range.first, range.last, range.counts.messages)];
    }
    let spots = SAMPLE_SPOTS.min(share).max(1);
    let width = range.last - range.first + 1;
    let each = share.div_ceil(spots);
    (0..spots)
        .map(|location| {
            let first = range.first + width / spots * location;
            let last = match location + 1 {
                next if next == spots => range.last,
                next => range.first + width / spots * next - 1,
            };
            (first, last.max(first), each)
        })
        .collect()
}

/// A range's share of a sample, at least one message.
fn share_of(sample: u64, messages: u64, all: u64) -> u64 {
    let share = u128::from(sample) * u128::from(messages) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(u64::MAX).clamp(1, messages.max(1))
}

fn load(parts: &DeepParts, plugin: &DeepPlugin, digest: &str) -> Result<Arc<Plugin>, String> {
    let settings: PluginSettings = serde_json::from_str(&plugin.settings)
        .map_err(|error| format!("the settings of the plugin cannot be read: {error}"))?;
    let parsed: Digest = digest.parse().map_err(|_| format!("{digest} is not a digest"))?;
    let bytes = component(&parts.components_dir, parsed)
        .map_err(|error| format!("the component {digest} cannot be read: {error}"))?;
    parts
        .loader
        .load_with(&bytes, &settings)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_lies_evenly_in_its_range() {
        let range = |first, last, messages| DeepRange {
            digest: String::new(),
            first,
            last,
            counts: Counts {
                messages,
                ..Counts::default()
            },
        };
        assert_eq!(spans(&range(5, 9, 5), None), [(5, 9, u64::MAX)]);
        assert_eq!(spans(&range(5, 9, 5), Some(7)), [(5, 9, 5)]);
        assert_eq!(spans(&range(1, 10, 10), Some(2)), [(1, 5, 1), (6, 10, 1)]);
        for (messages, share) in [(1_000, 100), (1_000, 999), (17, 16), (40, 17)] {
            let found = spans(&range(1, messages, messages), Some(share));
            let most: u64 = found
                .iter()
                .map(|(first, last, most)| (*most).min(last - first + 1))
                .sum();
            assert!(most >= share.min(messages) * 9 / 10, "{found:?}");
            assert_eq!((found[0].0, found.last().unwrap().1), (1, messages));
            assert!(
                found.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0),
                "{found:?}"
            );
        }
        assert_eq!(share_of(100, 1, 1_000_000), 1);
        assert_eq!(share_of(100, 500_000, 1_000_000), 50);
    }
}
