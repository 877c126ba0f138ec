//! Reprojection: reads exactly the messages that one version handled again and projects them with the active version,
//! batch by batch, in parallel with ingestion. Each batch is one transaction, after which the ledger names the active
//! version; an interrupted reprojection can be repeated.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::retry::RetryUntil;
use super::{Actor, Inner, Lifecycle, LifecycleError, adoption};
use lantern_broker::EphemeralRead;
use lantern_model::batch::Delivery;
use lantern_model::results::work::Reprojected;
use lantern_model::schema::{ManifestDescription, description::SourceDescription};
use lantern_plugin::{Digest, Projector};
use lantern_projection::LoadedVersion;
use lantern_store::{
    Adopted, Entry, LedgerSpan, OpenDeadLetterFilter, RetriedDeadLetter, Rewrite, Rewritten, VersionId,
};

/// Messages in one transaction: few, so that a waiting commit is not delayed noticeably.
const BATCH_MESSAGES: usize = 256;
/// Bytes in one transaction; a single message may be larger.
const BATCH_BYTES: usize = 1 << 20;
/// How long one call into the plugin may take.
const PROJECT_BUDGET: Duration = Duration::from_millis(250);
/// How often a batch is tried while other writes change the same range of the ledger.
const ATTEMPTS: u32 = 5;

impl Lifecycle {
    /// Reprocesses the messages that a version handled, using the active version. [`Reprojected`] also reports an
    /// interrupted reprojection.
    ///
    /// # Errors
    /// [`LifecycleError::Conflict`] when the version is the active one, when none is active, when the two read a source
    /// in different ways, or when writes of the plugin's tables merge rows, which requires a rebuild.
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
            inner.require_here(&plugin)?;
            let _permit = inner.permit("reprojection", &plugin)?;
            let mut work = Reprojection::begin(Arc::clone(&inner), &plugin, digest).await?;
            tracing::warn!(
                plugin,
                from = work.report.from,
                to = work.report.to,
                %by,
                "reprojection started"
            );
            let ended = work.run().await;
            inner.running.notify(&plugin);
            let report = work.report(ended);
            tracing::warn!(
                plugin,
                messages = report.messages,
                gone = report.messages_gone,
                partial = report.partial,
                "reprojection ended"
            );
            Ok(report)
        })
        .await
    }
}

/// Why a reprojection ends early.
struct Interruption(String);

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self(format!("{:#}", anyhow::Error::new(error)))
    }
}

/// A running reprojection.
struct Reprojection {
    inner: Arc<Inner>,
    version: Arc<LoadedVersion>,
    adopted: Adopted,
    bad: VersionId,
    spans: Vec<LedgerSpan>,
    projector: Option<Projector>,
    done: Rewritten,
    report: Reprojected,
}

impl Reprojection {
    /// Checks whether the reprojection is possible, and collects its ranges.
    async fn begin(inner: Arc<Inner>, plugin: &str, digest: Digest) -> Result<Self, LifecycleError> {
        let installation = inner.installation(plugin).await?;
        let conflict = |reason: String| Err(LifecycleError::Conflict(reason));
        let Some(version) = inner.running.version(plugin) else {
            return conflict(format!("no version of plugin {plugin} is active"));
        };
        let loaded = version.plugin();
        if loaded.digest() == digest {
            let name = &loaded.manifest().version;
            return conflict(format!(
                "version {name} is active; activate another version first, which reprojects its messages"
            ));
        }
        let store = &inner.parts.store;
        let work = store.reader().version_work(plugin, &digest.to_string()).await?;
        let merging = store.reader().merging_tables(plugin).await?;
        if !merging.is_empty() {
            return conflict(format!(
                "writes into {} merge rows of several messages, which cannot be separated: rebuild the plugin's \
                 tables instead",
                merging.join(", ")
            ));
        }
        let active = ManifestDescription::from(&**loaded.manifest());
        let record = installation.version(work.version);
        let before = record.and_then(|record| record.description.as_ref());
        for span in &work.spans {
            check_same_source(&span.lineage.source, before, &active).map_err(LifecycleError::Conflict)?;
        }
        let adopted = store.plugins().adopt(adoption(loaded)).await?;
        let report = Reprojected {
            plugin: plugin.to_owned(),
            from: work.name,
            from_digest: digest.to_string(),
            to: loaded.manifest().version.to_string(),
            to_digest: loaded.digest().to_string(),
            ..Reprojected::default()
        };
        Ok(Self {
            inner,
            adopted,
            bad: work.version,
            spans: work.spans,
            projector: Some(version.projector()),
            version,
            done: Rewritten::default(),
            report,
        })
    }

    /// The report, with the reason if the reprojection ended early.
    fn report(self, ended: Result<(), Interruption>) -> Reprojected {
        Reprojected {
            messages: self.done.messages,
            rows_removed: self.done.rows_removed,
            inserted: self.done.effects.inserted,
            updated: self.done.effects.updated,
            present: self.done.effects.present,
            resolved: self.done.resolved,
            dead: self.done.rejected,
            partial: ended.err().map(|Interruption(reason)| reason),
            ..self.report
        }
    }

    async fn run(&mut self) -> Result<(), Interruption> {
        for span in std::mem::take(&mut self.spans) {
            let before = self.done.messages;
            self.reproject_range(&span).await?;
            let again = self.done.messages - before;
            self.report.messages_gone += span.counts.messages.saturating_sub(again);
        }
        self.reproject_dead_letters().await?;
        // A new row may have conflicted with a row of the replaced version that was still present; now none is.
        let refused = OpenDeadLetterFilter {
            plugin: Some(self.report.plugin.clone()),
            class: Some("constraint".to_owned()),
            ..OpenDeadLetterFilter::default()
        };
        if self.done.rejected > 0 {
            let (retried, _) = self
                .inner
                .retry(&self.version, refused, 0, RetryUntil::Done)
                .await?;
            self.done.rejected = self.done.rejected.saturating_sub(retried.resolved);
            self.done.effects += retried.effects;
        }
        Ok(())
    }

    /// Reprojects one range of the ledger.
    async fn reproject_range(&mut self, span: &LedgerSpan) -> Result<(), Interruption> {
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
        let Some((_, subjects)) = declared.origin.replay() else {
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
        let done = self.reproject_span(span, source, &mut reading).await;
        reading.close().await;
        done
    }

    async fn reproject_span(
        &mut self,
        span: &LedgerSpan,
        source: usize,
        reading: &mut EphemeralRead,
    ) -> Result<(), Interruption> {
        let mut first = span.first;
        loop {
            check_interrupted(&self.inner, &self.version).await?;
            let began = Instant::now();
            let mut batch = reading.next(BATCH_MESSAGES, BATCH_BYTES, Duration::ZERO).await?;
            let end = batch.last().is_none_or(|delivery| delivery.sequence >= span.last);
            batch.retain(|delivery| delivery.sequence <= span.last);
            if batch.is_empty() && first == span.first {
                self.note(&span.lineage.source, "they are no longer in the stream");
                return Ok(());
            }
            let through = match batch.last() {
                Some(last) if !end => last.sequence,
                _ => span.last,
            };
            let entries = self.project(source, batch).await?;
            self.commit(span, first, through, entries).await?;
            if end {
                return Ok(());
            }
            first = through + 1;
            // Leave the projections, which share the writer, as much time as the batch used.
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    async fn commit(
        &mut self,
        span: &LedgerSpan,
        first: u64,
        through: u64,
        entries: Vec<Entry>,
    ) -> Result<(), Interruption> {
        for _ in 0..ATTEMPTS {
            let rewrite = Rewrite {
                origin: span.lineage.origin,
                bad: self.bad,
                first,
                through,
                entries: entries.clone(),
                plugin: self.adopted.clone(),
            };
            if let Some(done) = self.inner.parts.store.reprojections().write(rewrite).await? {
                self.done += done;
                return Ok(());
            }
        }
        Err(Interruption(format!(
            "the ledger of source {} changed meanwhile",
            span.lineage.source
        )))
    }

    /// Reprojects the dead letters that the replaced version resolved, in any range: they have kept their messages.
    async fn reproject_dead_letters(&mut self) -> Result<(), Interruption> {
        let mut after = 0;
        loop {
            check_interrupted(&self.inner, &self.version).await?;
            let store = &self.inner.parts.store;
            let limit = u32::try_from(BATCH_MESSAGES).unwrap_or(u32::MAX);
            let dead_letters = store
                .reader()
                .dead_letters_resolved_by(self.bad, after, limit)
                .await?;
            let Some(last) = dead_letters.last() else {
                return Ok(());
            };
            after = last.id;
            for dead_letter in dead_letters {
                let manifest = Arc::clone(self.version.plugin().manifest());
                let Some((source, _)) = manifest.source(&dead_letter.source) else {
                    continue;
                };
                let entries = self.project(source, vec![dead_letter.delivery]).await?;
                let retried = entries.into_iter().map(|entry| RetriedDeadLetter {
                    id: dead_letter.id,
                    origin: dead_letter.origin,
                    entry,
                });
                let store = &self.inner.parts.store;
                let done = store
                    .reprojections()
                    .write_dead_letters(self.adopted.clone(), self.bad, retried.collect())
                    .await?;
                self.report.former_dead_letters += done.messages;
                self.done += done;
            }
        }
    }

    /// Projects all of the messages on a blocking thread.
    async fn project(
        &mut self,
        source: usize,
        deliveries: Vec<Delivery>,
    ) -> Result<Vec<Entry>, Interruption> {
        let projector = self.projector.take();
        let mut projector = projector.unwrap_or_else(|| self.version.projector());
        let stop = self.inner.stop.clone();
        let work = tokio::task::spawn_blocking(move || {
            let mut outcomes = Vec::with_capacity(deliveries.len());
            let mut interrupted = None;
            while outcomes.len() < deliveries.len() && interrupted.is_none() {
                let projected = projector.project(source, &deliveries[outcomes.len()..], PROJECT_BUDGET);
                outcomes.extend(projected.outcomes);
                interrupted = projected
                    .halted
                    .or_else(|| stop.is_cancelled().then(|| "the host is stopping".to_owned()));
            }
            let entries: Vec<Entry> = deliveries
                .into_iter()
                .zip(outcomes)
                .map(|(delivery, outcome)| Entry { delivery, outcome })
                .collect();
            (projector, entries, interrupted)
        });
        let (projector, entries, interrupted) = work.await?;
        self.projector = Some(projector);
        match interrupted {
            Some(reason) => Err(Interruption(reason)),
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

/// Returns an error if the reprojection has to end.
async fn check_interrupted(inner: &Inner, version: &Arc<LoadedVersion>) -> Result<(), Interruption> {
    if inner.stop.is_cancelled() {
        return Err(Interruption("the host is stopping".to_owned()));
    }
    if inner.running.runs(version) {
        return Ok(());
    }
    let reason = "another version was activated, or the settings changed";
    Err(Interruption(reason.to_owned()))
}

/// Whether two versions read a source in the same way, so that the active one finds the messages that the other
/// handled.
fn check_same_source(
    name: &str,
    before: Option<&ManifestDescription>,
    active: &ManifestDescription,
) -> Result<(), String> {
    fn find<'a>(description: &'a ManifestDescription, name: &str) -> Option<&'a SourceDescription> {
        description.sources.iter().find(|source| source.name == name)
    }
    let Some(now) = find(active, name) else {
        return Err(format!(
            "the active version does not read source {name}: rebuild the plugin's tables instead"
        ));
    };
    match before.and_then(|before| find(before, name)) {
        Some(then) if then.stream != now.stream || then.subjects != now.subjects => Err(format!(
            "the active version reads source {name} with other subjects: rebuild the plugin's tables instead"
        )),
        _ => Ok(()),
    }
}
