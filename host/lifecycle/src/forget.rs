//! Erasure on request: finds what holds a value, removes it from the database, and deletes its messages from their
//! streams where the broker allows it.
//!
//! The order makes a crash harmless. The value is refused first, so that no older message brings it back; then each batch
//! of messages is one transaction that also records what has to be deleted from the streams; the streams come last. A
//! repeated erasure continues where the last one ended.

mod deletion;
mod report;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use deletion::remedy;
use futures_util::StreamExt as _;
pub use report::ForgetRequest;

use super::{Actor, Inner, Lifecycle, LifecycleError};
use lantern_broker::{BrokerError, StreamFacts};
use lantern_model::results::forget::{ForgetReport, ForgottenStream, ForgottenTable};
use lantern_store::OriginId;
use lantern_store::forget::{Erased, Erasure, ForgetError, ForgetSurvey, FoundMessage, StoredMessage};

/// Messages of one transaction: few enough that a commit behind it does not notice.
const BATCH_MESSAGES: usize = 64;
/// Messages that are read from or deleted in a stream at once.
const REQUESTS: usize = 16;
/// Attempts to empty the write-ahead log, and the pause between them: a read of the API ends within its deadline.
const LOG_ATTEMPTS: u32 = 40;
const LOG_PAUSE: Duration = Duration::from_millis(250);

/// Names that a note lists.
const NAMES_LISTED: usize = 50;

/// Largest database file that is rewritten by default: it takes seconds, and nothing is stored meanwhile.
const VACUUM_BYTES: u64 = 1 << 30;

impl Lifecycle {
    /// Erases rows that hold a value, their messages, and dead letters that mention it.
    ///
    /// # Errors
    /// [`LifecycleError::NotFound`] and [`LifecycleError::Conflict`] when the query fits no table, while a rebuild or
    /// another erasure runs; [`LifecycleError::Unavailable`] when database or broker do not answer: what was erased by
    /// then stays erased, and a repetition continues. No error holds the value.
    pub async fn forget(&self, request: ForgetRequest, by: &Actor) -> Result<ForgetReport, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let by = by.clone();
        self.detached(async move { inner.forget(request, &by).await })
            .await
    }
}

impl From<ForgetError> for LifecycleError {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::NoTable(_) => Self::NotFound(error.to_string()),
            ForgetError::NoColumn { .. } | ForgetError::Value { .. } | ForgetError::TooMany => {
                Self::Conflict(error.to_string())
            }
            ForgetError::Unavailable(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl Inner {
    async fn forget(
        self: &Arc<Self>,
        request: ForgetRequest,
        by: &Actor,
    ) -> Result<ForgetReport, LifecycleError> {
        let _permit = self.exclusive("an erasure".to_owned())?;
        // A rebuild that is starting holds the lock until it is listed.
        let _exclusive = self.erasure.write().await;
        self.refuse_during_rebuilds()?;
        let mut work = ErasureTask {
            inner: self,
            facts: BTreeMap::new(),
            same: BTreeMap::new(),
            erased: BTreeSet::new(),
            report: ForgetReport {
                dry_run: request.dry_run,
                ..ForgetReport::default()
            },
        };
        let survey = match &request.query {
            Some(query) => self.parts.store.survey_forget(query.clone()).await?,
            None => ForgetSurvey::default(),
        };
        work.describe(&survey);
        if request.dry_run {
            work.predict(&survey).await?;
            return Ok(work.report);
        }
        work.erase(&request, &survey).await?;
        work.delete_outstanding().await?;
        work.clean_up(&survey, request.vacuum).await?;
        tracing::warn!(
            column = request.query.as_ref().map(|query| query.column.as_str()),
            messages = work.report.messages,
            rows = work.report.tables.iter().map(|table| table.rows_removed).sum::<u64>(),
            dead_letters = work.report.dead_letters,
            %by,
            "data was erased"
        );
        Ok(work.report)
    }

    /// A rebuild copies rows and reads messages again, so an erasure waits for its end.
    fn refuse_during_rebuilds(&self) -> Result<(), LifecycleError> {
        match self.rebuilds.any() {
            Some((id, plugin)) => Err(LifecycleError::Conflict(format!(
                "rebuild {} of plugin {plugin} is running; wait for its end, or cancel it with `lantern rebuild cancel {}`",
                id.0, id.0
            ))),
            None => Ok(()),
        }
    }
}

fn unavailable(error: &BrokerError) -> LifecycleError {
    LifecycleError::Unavailable(format!(
        "{error}; what was erased stays erased, repeat the command"
    ))
}

struct ErasureTask<'a> {
    inner: &'a Arc<Inner>,
    /// What the broker says of streams.
    facts: BTreeMap<String, Option<StreamFacts>>,
    /// Whether the stream of an epoch is still the one that was read.
    same: BTreeMap<OriginId, bool>,
    /// Messages that this run has erased in the database.
    erased: BTreeSet<(String, u64)>,
    report: ForgetReport,
}

impl ErasureTask<'_> {
    fn describe(&mut self, survey: &ForgetSurvey) {
        let report = &mut self.report;
        report.messages = survey.messages.len() as u64;
        report.dead_letters = survey.dead_letters;
        report.kept_tables = survey.kept.clone();
        for found in &survey.matches {
            report.tables.push(ForgottenTable {
                table: found.table.clone(),
                rows_matching: found.rows,
                rows_removed: 0,
            });
            if found.merges && found.rows > 0 {
                report.notes.push(format!(
                    "writes into {} merge messages, and a row names only the last one: older messages that it was made \
                     of stay in their stream until they are projected again, which then finds them by the value",
                    found.table
                ));
            } else if found.repeats > 0 && found.rows > 0 {
                report.notes.push(format!(
                    "messages of plugin {} contain {} rows that were already stored, and no row names these messages: \
                     those that repeat erased rows stay in their stream. `lantern rebuild {0}` finds them by the value, \
                     and then `lantern forget --outstanding` deletes them",
                    found.plugin, found.repeats
                ));
            }
        }
        report.notes.extend(not_searched(survey));
        self.count_rows(&survey.rows);
    }

    fn count_rows(&mut self, rows: &BTreeMap<String, u64>) {
        for (table, removed) in rows {
            let tables = &mut self.report.tables;
            match tables.iter_mut().find(|known| known.table == *table) {
                Some(known) => known.rows_removed += removed,
                None => tables.push(ForgottenTable {
                    table: table.clone(),
                    rows_matching: 0,
                    rows_removed: *removed,
                }),
            }
        }
    }

    fn stream(&mut self, name: &str) -> &mut ForgottenStream {
        let streams = &mut self.report.streams;
        let at = streams.iter().position(|known| known.stream == name);
        let at = at.unwrap_or_else(|| {
            streams.push(ForgottenStream {
                stream: name.to_owned(),
                ..ForgottenStream::default()
            });
            streams.len() - 1
        });
        &mut streams[at]
    }

    async fn facts(&mut self, stream: &str) -> Result<Option<&StreamFacts>, LifecycleError> {
        if !self.facts.contains_key(stream) {
            let broker = &self.inner.parts.broker;
            let facts = broker.stream_facts(stream).await?;
            self.facts.insert(stream.to_owned(), facts);
        }
        Ok(self.facts.get(stream).and_then(Option::as_ref))
    }

    /// What would become of the messages in their streams.
    async fn predict(&mut self, survey: &ForgetSurvey) -> Result<(), LifecycleError> {
        for message in &survey.messages {
            if let Some((stream, _)) = &message.stream {
                self.stream(stream).messages_deleted += 1;
            }
        }
        for at in 0..self.report.streams.len() {
            let name = self.report.streams[at].stream.clone();
            let broker = &self.inner.parts.broker;
            let obstacle = broker.delete_obstacle(&name).await?;
            if let Some(reason) = obstacle {
                let stream = &mut self.report.streams[at];
                stream.messages_left = std::mem::take(&mut stream.messages_deleted);
                stream.reason = Some(reason.to_owned());
                stream.remedy = Some(remedy(&name, reason));
            }
            self.note_copies(&name).await?;
        }
        if survey.outstanding > 0 {
            self.report.notes.push(format!(
                "{} messages of earlier erasures are still in their streams; this erasure tries to delete them again",
                survey.outstanding
            ));
        }
        Ok(())
    }

    /// Removes everything from the database.
    async fn erase(&mut self, request: &ForgetRequest, survey: &ForgetSurvey) -> Result<(), LifecycleError> {
        let Some(query) = &request.query else {
            return Ok(());
        };
        let store = Arc::clone(&self.inner.parts.store);
        let through_ns = self.through_ns(survey).await?;
        store.refuse_value(query.clone(), through_ns).await?;
        // What came in between; from here on no older message adds to it.
        let survey = store.survey_forget(query.clone()).await?;
        self.report
            .tables
            .iter_mut()
            .for_each(|table| table.rows_removed = 0);
        self.report.dead_letters = 0;
        self.report.messages = survey.messages.len() as u64;
        let mut plugins = BTreeSet::new();
        for batch in survey.messages.chunks(BATCH_MESSAGES) {
            let erasures = self.erasures(batch).await?;
            let Erased {
                rows,
                dead_letters,
                plugins: some,
            } = store.erase(erasures).await?;
            self.count_rows(&rows);
            self.report.dead_letters += dead_letters;
            plugins.extend(some);
            // Ingestion commits between two batches.
            tokio::task::yield_now().await;
        }
        for plugin in plugins {
            self.inner.running.notify(&plugin);
        }
        Ok(())
    }

    /// The broker's time of the last message that is out already.
    async fn through_ns(&mut self, survey: &ForgetSurvey) -> Result<i64, LifecycleError> {
        let mut through = match survey.has_core_sources {
            true => lantern_model::batch::Timestamp::now().0.saturating_mul(1_000),
            false => 0,
        };
        for stream in &survey.streams {
            if let Some(facts) = self.facts(stream).await? {
                through = through.max(facts.last_time_ns);
            }
        }
        Ok(through)
    }

    /// Messages with what their streams hold of them.
    async fn erasures(&mut self, batch: &[FoundMessage]) -> Result<Vec<Erasure>, LifecycleError> {
        let mut wanted = Vec::with_capacity(batch.len());
        for message in batch {
            let mut stream = None;
            if let Some((name, created_ns)) = &message.stream {
                let is_same = self.is_same_history(message.origin, name).await?;
                stream = is_same.then(|| (name.clone(), *created_ns));
            }
            wanted.push((message.origin, message.sequence, stream));
        }
        let broker = &self.inner.parts.broker;
        let read = wanted.into_iter().map(|(origin, sequence, stream)| async move {
            let stored = match stream {
                Some((name, created_ns)) => stored(broker, name, created_ns, sequence).await?,
                None => None,
            };
            Ok::<_, BrokerError>(Erasure {
                origin: Some(origin),
                sequence,
                stored,
            })
        });
        let found: Vec<Result<Erasure, BrokerError>> = futures_util::stream::iter(read)
            .buffered(REQUESTS)
            .collect()
            .await;
        let mut erasures = Vec::with_capacity(found.len());
        for erasure in found {
            let erasure = erasure.map_err(|error| unavailable(&error))?;
            match &erasure.stored {
                Some(stored) => drop(self.erased.insert((stored.stream.clone(), erasure.sequence))),
                None => self.count_gone(batch, &erasure),
            }
            erasures.push(erasure);
        }
        Ok(erasures)
    }

    fn count_gone(&mut self, batch: &[FoundMessage], erasure: &Erasure) {
        let mut batch = batch.iter();
        let found =
            batch.find(|found| Some(found.origin) == erasure.origin && found.sequence == erasure.sequence);
        if let Some((name, _)) = found.and_then(|found| found.stream.as_ref()) {
            let name = name.clone();
            self.stream(&name).messages_gone += 1;
        }
    }

    /// Removes what else may hold the content: replaced tables, and the write-ahead log.
    async fn clean_up(&mut self, survey: &ForgetSurvey, vacuum: Option<bool>) -> Result<(), LifecycleError> {
        let store = &self.inner.parts.store;
        if !survey.kept.is_empty() {
            store.drop_kept_tables(survey.kept.clone()).await?;
        }
        while store.rebuilds().sweep().await? {
            tokio::task::yield_now().await;
        }
        store.search().purge().await?;
        if wants_vacuum(store.path(), vacuum) {
            match store.scrub(true).await {
                Ok(_) => self.report.vacuumed = true,
                Err(error) => self.report.notes.push(format!(
                    "the database file could not be rewritten ({error}): repeat with --outstanding --vacuum"
                )),
            }
        } else {
            self.report.notes.push(NOT_VACUUMED.to_owned());
        }
        let mut emptied = store.scrub(false).await?;
        for _ in 1..LOG_ATTEMPTS {
            if emptied {
                break;
            }
            tokio::time::sleep(LOG_PAUSE).await;
            emptied = store.scrub(false).await?;
        }
        self.report.log_emptied = emptied;
        if !emptied {
            self.report.notes.push(
                "the write-ahead log could not be emptied, because a reader holds an old snapshot: end it and repeat \
                 with --outstanding"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// The note where the database file was left as it is.
const NOT_VACUUMED: &str = "the database file was not rewritten: traces of the content can be left in unused parts of it; \
    `lantern forget --outstanding --vacuum` rewrites it, and nothing is stored meanwhile";

/// What the query does not search.
fn not_searched(survey: &ForgetSurvey) -> Vec<String> {
    let mut notes = Vec::new();
    if !survey.tables_not_searched.is_empty() {
        notes.push(format!(
            "not searched, because they lack the column: {}. Their rows are removed only if they come from the same \
             messages",
            enumerate(&survey.tables_not_searched)
        ));
    }
    if !survey.documents_not_searched.is_empty() {
        notes.push(format!(
            "not searched for the value within documents: {}. Erase such rows by another column",
            enumerate(&survey.documents_not_searched)
        ));
    }
    notes
}

/// Names for a note, of which a database can have thousands.
fn enumerate(names: &[String]) -> String {
    let listed = names.get(..NAMES_LISTED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMES_LISTED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

fn wants_vacuum(database: Option<&std::path::Path>, asked: Option<bool>) -> bool {
    // One whose size is not known counts as large.
    let is_small =
        |file: &std::path::Path| std::fs::metadata(file).is_ok_and(|file| file.len() <= VACUUM_BYTES);
    asked.unwrap_or_else(|| database.is_some_and(is_small))
}

async fn stored(
    broker: &lantern_broker::Broker,
    stream: String,
    stream_created_ns: i64,
    sequence: u64,
) -> Result<Option<StoredMessage>, BrokerError> {
    let found = broker.stored_message(&stream, sequence).await?;
    Ok(found.map(|delivery| StoredMessage {
        stream,
        stream_created_ns,
        published_ns: delivery.published_ns,
        subject: delivery.subject,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notes_name_what_is_not_searched() {
        let names = |count: usize| (0..count).map(|number| format!("t{number}")).collect::<Vec<_>>();
        let survey = ForgetSurvey {
            tables_not_searched: names(2),
            documents_not_searched: names(NAMES_LISTED + 3),
            ..ForgetSurvey::default()
        };
        let notes = not_searched(&survey);
        assert!(notes[0].contains("lack the column: t0, t1."), "{notes:?}");
        assert!(notes[1].contains(", t49 and 3 more."), "{notes:?}");
        assert!(not_searched(&ForgetSurvey::default()).is_empty());
    }
}
