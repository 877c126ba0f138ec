//! What a bad version has made is made again: just its messages are read once more from their streams and projected by
//! the version that runs, batch by batch, beside everything else. Each batch is one transaction, after which the ledger
//! names the version that runs; so it may be cut off at any time and begun again.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Actor, Inner, Lifecycle, LifecycleError, adoption};
use lantern_broker::EphemeralRead;
use lantern_model::batch::Delivery;
use lantern_model::schema::{ManifestDescription, Origin, description::SourceDescription};
use lantern_plugin::{Digest, Projector};
use lantern_projection::Version;
use lantern_store::{Adopted, Entry, LedgerSpan, LetterFilter, Retried, Rewrite, Rewritten, VersionId};

/// Messages of one transaction: few enough that a commit behind it does not notice.
const BATCH_MESSAGES: usize = 256;
/// Bytes of the same; a single message may be larger.
const BATCH_BYTES: usize = 1 << 20;
/// How long one call into the plugin may go on.
const PROJECT_BUDGET: Duration = Duration::from_millis(250);
/// How often a batch is tried when somebody else changes the same range of the ledger.
const ATTEMPTS: u32 = 5;

/// What projecting again has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reprojected {
    /// The plugin.
    pub plugin: String,
    /// The version whose work was replaced.
    pub from: String,
    /// Its digest.
    pub from_digest: String,
    /// The version that has done it again.
    pub to: String,
    /// Its digest.
    pub to_digest: String,
    /// What was done.
    #[serde(flatten)]
    pub done: Rewritten,
    /// Of the messages, those that were dead letters which the bad version had resolved.
    pub letters: u64,
    /// Messages that are gone from their stream: they keep their rows, which stay the bad version's.
    pub gone: u64,
    /// Why some are gone, in words.
    pub notes: Vec<String>,
    /// Why it ended before its end. What is left still names the bad version: it can be begun again.
    pub partial: Option<String>,
}

impl Lifecycle {
    /// Makes again what a version has made, with the version that runs. See [`Reprojected`] for what came of it, also
    /// when it could not be finished.
    ///
    /// # Errors
    /// [`LifecycleError::Conflict`] when the version is the one that runs, when none runs, when the two read a source
    /// in different ways, or when writes of the plugin's tables merge rows, so that only a rebuild is right.
    /// [`LifecycleError::NoVersion`], [`LifecycleError::NoPlugin`] and [`LifecycleError::Unavailable`]. Nothing has
    /// changed then.
    pub async fn reproject(
        &self,
        plugin: &str,
        digest: Digest,
        by: &Actor,
    ) -> Result<Reprojected, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move {
            let _turn = inner.turn("reprojection", &plugin)?;
            let mut work = Work::begin(Arc::clone(&inner), &plugin, digest).await?;
            tracing::warn!(
                plugin,
                from = work.report.from,
                to = work.report.to,
                by = by.0,
                "the work of a version is made again"
            );
            let ended = work.run().await;
            inner.fleet.lock().await.nudge(&plugin);
            let mut report = work.report;
            report.partial = ended.err().map(|Cut(reason)| reason);
            tracing::warn!(
                plugin,
                messages = report.done.messages,
                gone = report.gone,
                partial = report.partial,
                "the work of a version was made again"
            );
            Ok(report)
        })
        .await
    }
}

/// A reason to end before the end, in words.
struct Cut(String);

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Cut {
    fn from(error: E) -> Self {
        Self(format!("{:#}", anyhow::Error::new(error)))
    }
}

/// A reprojection under way.
struct Work {
    inner: Arc<Inner>,
    version: Arc<Version>,
    adopted: Adopted,
    bad: VersionId,
    spans: Vec<LedgerSpan>,
    projector: Option<Projector>,
    report: Reprojected,
}

impl Work {
    /// Looks whether it can be done, and what there is to do.
    async fn begin(inner: Arc<Inner>, plugin: &str, digest: Digest) -> Result<Self, LifecycleError> {
        let installation = inner.installation(plugin).await?;
        let conflict = |words: String| Err(LifecycleError::Conflict(words));
        let Some(version) = inner.fleet.lock().await.version(plugin) else {
            return conflict(format!("no version of plugin {plugin} runs"));
        };
        let loaded = version.plugin();
        if loaded.digest() == digest {
            let name = &loaded.manifest().version;
            return conflict(format!(
                "version {name} is the one that runs; activate another one, which is to do its work again"
            ));
        }
        let store = &inner.parts.store;
        let work = store.work_of(plugin, &digest.to_string()).await?;
        let merging = store.merging_tables(plugin).await?;
        if !merging.is_empty() {
            return conflict(format!(
                "writes into {} merge rows of several messages, which cannot be taken apart again: rebuild the \
                 plugin's tables instead",
                merging.join(", ")
            ));
        }
        let active = ManifestDescription::from(&**loaded.manifest());
        let record = installation.version(work.version);
        let before = record.and_then(|record| record.description.as_ref());
        for span in &work.spans {
            same_source(&span.lineage.source, before, &active).map_err(LifecycleError::Conflict)?;
        }
        let adopted = store.adopt(adoption(loaded)).await?;
        let report = Reprojected {
            plugin: plugin.to_owned(),
            from: work.name,
            from_digest: digest.to_string(),
            to: loaded.manifest().version.to_string(),
            to_digest: loaded.digest().to_string(),
            done: Rewritten::default(),
            letters: 0,
            gone: 0,
            notes: Vec::new(),
            partial: None,
        };
        Ok(Self {
            inner,
            adopted,
            bad: work.version,
            spans: work.spans,
            projector: Some(version.projector()),
            version,
            report,
        })
    }

    async fn run(&mut self) -> Result<(), Cut> {
        for span in std::mem::take(&mut self.spans) {
            let before = self.report.done.messages;
            self.range(&span).await?;
            let again = self.report.done.messages - before;
            self.report.gone += span.counts.messages.saturating_sub(again);
        }
        self.letters().await?;
        // A new row may have met one of the bad version's that was still there; now none is.
        let refused = LetterFilter {
            plugin: Some(self.report.plugin.clone()),
            class: Some("constraint".to_owned()),
            ..LetterFilter::default()
        };
        if self.report.done.rejected > 0 {
            let (healed, _) = self.inner.heal(&self.version, refused, 0, None).await?;
            self.report.done.rejected = self.report.done.rejected.saturating_sub(healed.resolved);
            self.report.done.rows_written += healed.rows;
        }
        Ok(())
    }

    /// One range of the ledger.
    async fn range(&mut self, span: &LedgerSpan) -> Result<(), Cut> {
        let stream = match self.inner.same_history(&span.lineage).await {
            Ok(stream) => stream,
            Err(reason) => {
                self.note(&span.lineage.source, &reason);
                return Ok(());
            }
        };
        let manifest = Arc::clone(self.version.plugin().manifest());
        let Some((source, declared)) = manifest.source(&span.lineage.source) else {
            return Ok(());
        };
        let Origin::JetStream { subjects, .. } = &declared.origin else {
            return Ok(());
        };
        let reading = self
            .inner
            .parts
            .broker
            .read(&stream, subjects, span.first)
            .await?;
        let Some(mut reading) = reading else {
            return Ok(());
        };
        let done = self.stretch(span, source, &mut reading).await;
        reading.close().await;
        done
    }

    async fn stretch(
        &mut self,
        span: &LedgerSpan,
        source: usize,
        reading: &mut EphemeralRead,
    ) -> Result<(), Cut> {
        let mut first = span.first;
        loop {
            go_on(&self.inner, &self.version).await?;
            let began = Instant::now();
            let mut batch = reading.next(BATCH_MESSAGES, BATCH_BYTES, Duration::ZERO).await?;
            let end = batch.last().is_none_or(|delivery| delivery.sequence >= span.last);
            batch.retain(|delivery| delivery.sequence <= span.last);
            if batch.is_empty() && first == span.first {
                self.note(&span.lineage.source, "they are not in the stream any more");
                return Ok(());
            }
            let through = match batch.last() {
                Some(last) if !end => last.sequence,
                _ => span.last,
            };
            let entries = self.project(source, batch).await?;
            self.settle(span, first, through, entries).await?;
            if end {
                return Ok(());
            }
            first = through + 1;
            // As long again for the projections, which share the writer.
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    async fn settle(
        &mut self,
        span: &LedgerSpan,
        first: u64,
        through: u64,
        entries: Vec<Entry>,
    ) -> Result<(), Cut> {
        for _ in 0..ATTEMPTS {
            let rewrite = Rewrite {
                origin: span.lineage.origin,
                bad: self.bad,
                first,
                through,
                entries: entries.clone(),
                plugin: self.adopted.clone(),
            };
            if let Some(done) = self.inner.parts.store.rewrite(rewrite).await? {
                self.report.done += done;
                return Ok(());
            }
        }
        Err(Cut(format!(
            "the ledger of source {} has changed meanwhile",
            span.lineage.source
        )))
    }

    /// Dead letters that the bad version has resolved, in whatever range: they have kept their messages.
    async fn letters(&mut self) -> Result<(), Cut> {
        let mut after = 0;
        loop {
            go_on(&self.inner, &self.version).await?;
            let store = &self.inner.parts.store;
            let limit = u32::try_from(BATCH_MESSAGES).unwrap_or(u32::MAX);
            let letters = store.letters_resolved_by(self.bad, after, limit).await?;
            let Some(last) = letters.last() else {
                return Ok(());
            };
            after = last.id;
            for letter in letters {
                let manifest = Arc::clone(self.version.plugin().manifest());
                let Some((source, _)) = manifest.source(&letter.source) else {
                    continue;
                };
                let entries = self.project(source, vec![letter.delivery]).await?;
                let retried = entries.into_iter().map(|entry| Retried {
                    id: letter.id,
                    origin: letter.origin,
                    entry,
                });
                let store = &self.inner.parts.store;
                let done = store
                    .rewrite_letters(self.adopted.clone(), self.bad, retried.collect())
                    .await?;
                self.report.letters += done.messages;
                self.report.done += done;
            }
        }
    }

    /// Asks the plugin, on a thread that may block, about all of the messages.
    async fn project(&mut self, source: usize, deliveries: Vec<Delivery>) -> Result<Vec<Entry>, Cut> {
        let projector = self.projector.take();
        let mut projector = projector.unwrap_or_else(|| self.version.projector());
        let stop = self.inner.stop.clone();
        let work = tokio::task::spawn_blocking(move || {
            let mut outcomes = Vec::with_capacity(deliveries.len());
            let mut cut = None;
            while outcomes.len() < deliveries.len() && cut.is_none() {
                let projected = projector.project(source, &deliveries[outcomes.len()..], PROJECT_BUDGET);
                outcomes.extend(projected.outcomes);
                cut = projected
                    .halted
                    .or_else(|| stop.is_cancelled().then(|| "the host stops".to_owned()));
            }
            let entries: Vec<Entry> = deliveries
                .into_iter()
                .zip(outcomes)
                .map(|(delivery, outcome)| Entry { delivery, outcome })
                .collect();
            (projector, entries, cut)
        });
        let (projector, entries, cut) = work.await?;
        self.projector = Some(projector);
        match cut {
            Some(reason) => Err(Cut(reason)),
            None => Ok(entries),
        }
    }

    fn note(&mut self, source: &str, reason: &str) {
        let note = format!("source {source}: {reason}");
        if !self.report.notes.contains(&note) {
            self.report.notes.push(note);
        }
    }
}

/// Whether there is a reason to end here.
async fn go_on(inner: &Inner, version: &Arc<Version>) -> Result<(), Cut> {
    if inner.stop.is_cancelled() {
        return Err(Cut("the host stops".to_owned()));
    }
    if inner.fleet.lock().await.runs(version) {
        return Ok(());
    }
    let reason = "another version was activated, or other settings are in force";
    Err(Cut(reason.to_owned()))
}

/// Whether two versions read a source in the same way, so that the one finds the messages that the other has handled.
fn same_source(
    name: &str,
    before: Option<&ManifestDescription>,
    active: &ManifestDescription,
) -> Result<(), String> {
    fn find<'a>(description: &'a ManifestDescription, name: &str) -> Option<&'a SourceDescription> {
        description.sources.iter().find(|source| source.name == name)
    }
    let Some(now) = find(active, name) else {
        return Err(format!(
            "the version that runs does not read source {name}: rebuild the plugin's tables instead"
        ));
    };
    match before.and_then(|before| find(before, name)) {
        Some(then) if then.stream != now.stream || then.subjects != now.subjects => Err(format!(
            "the version that runs reads source {name} from other subjects: rebuild the plugin's tables instead"
        )),
        _ => Ok(()),
    }
}
