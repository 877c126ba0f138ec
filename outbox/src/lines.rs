//! Publishes a file or a pipe, one event per line: stores lines in chunks, drains concurrently, and counts. `lantern publish`
//! adds only its command line.

mod reader;
mod report;

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::drain::Drain;
use crate::entry::EntryId;
use crate::event::{Event, check_subject};
use crate::outbox::{Outbox, OutboxError, OwnEntry, PutError};
use crate::status::chain;

pub(crate) use reader::split;
use reader::{Line, is_json, message_id, read_lines};
pub use report::{BadLine, InputFormat, LinesError, LinesOptions, LinesReport, Unpublished};

/// Maximum number of lines per chunk. One sync of the disk costs as much as writing a few hundred files, so a thousand lines
/// amortize it.
const CHUNK_LINES: usize = 1024;
/// Maximum number of bad lines in the report; their count is not limited.
const BAD_LINES_LISTED_MAX: usize = 100;
/// Pause before a retry on a full disk.
const DISK_FULL_PAUSE: Duration = Duration::from_millis(250);
/// Minimum poll interval of the pending events. Large directories are polled less often.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum number of unpublished lines in the report; their counts are not limited.
const UNPUBLISHED_LISTED_MAX: usize = 100;
/// Number of remembered line numbers from which those of published entries are removed.
const LINE_NUMBERS_MIN: usize = 64 * 1024;

/// Puts every line of `reader` into the outbox as an event on `subject`, and drains the outbox until all lines are published or
/// there is no progress. An open pipe is published line by line.
///
/// When `cancel` is cancelled, reading stops and stored lines are left to the next drain. A blocked reader keeps its thread.
///
/// # Errors
/// [`LinesError`] if not all lines could be stored. Pending lines are not an error; the report counts them.
pub async fn publish_lines(
    reader: impl BufRead + Send + 'static,
    subject: &str,
    outbox: &Outbox,
    broker: Broker,
    options: LinesOptions,
    cancel: CancellationToken,
) -> Result<LinesReport, LinesError> {
    check_subject(subject).map_err(LinesError::Invalid)?;
    let template = Event {
        headers: options.headers.clone(),
        ..Event::new(subject, "")
    };
    template
        .check(outbox.size_limit_bytes())
        .map_err(LinesError::Invalid)?;
    let outbox = outbox.as_new_writer();
    let duplicates_before = outbox.stats()?.duplicates;
    let stop = cancel.child_token();
    let drain = tokio::spawn(Drain::new(&outbox, options.drain.clone()).run(broker, stop.clone()));

    let mut store = Store {
        outbox: &outbox,
        template,
        options: &options,
        report: LinesReport::default(),
        line_numbers: LineNumbers::default(),
    };
    let stored = store.store_all(reader, &cancel).await;
    let (mut report, line_numbers) = (store.report, store.line_numbers);
    wait_until_published(&outbox, options.patience, || {
        cancel.is_cancelled() || drain.is_finished()
    })
    .await?;
    // Read before the drain ends and clears them.
    report.blocked = outbox.stats()?.blocked;
    stop.cancel();
    let drained = drain.await;
    let own = outbox.own()?;
    report.unpublished = line_numbers.unpublished(&outbox)?;
    let stats = outbox.stats()?;
    (report.waiting, report.aside) = (own.waiting, own.aside);
    report.published = report.stored.saturating_sub(own.waiting + own.aside);
    report.duplicates = stats.duplicates - duplicates_before;
    report.last_error = stats.last_error;
    match (stored, drained) {
        (Err(failure), _) => Err(failure.with(report)),
        // If another drain has published everything, a drain that could not start is no error.
        (Ok(()), Ok(Err(source))) if report.waiting > 0 => Err(LinesError::Drain {
            report: Box::new(report),
            source,
        }),
        (Ok(()), _) => Ok(report),
    }
}

/// Waits until all events of this writer are published, there is no progress for `patience`, or `give_up` returns true.
async fn wait_until_published(
    outbox: &Outbox,
    patience: Duration,
    give_up: impl Fn() -> bool,
) -> Result<(), OutboxError> {
    let (mut fewest, mut moved_at) = (u64::MAX, Instant::now());
    loop {
        let begin = Instant::now();
        let waiting = outbox.own()?.waiting;
        if waiting < fewest {
            (fewest, moved_at) = (waiting, begin);
        }
        if waiting == 0 || give_up() || moved_at.elapsed() >= patience {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL.max(begin.elapsed() * 10)).await;
    }
}

/// Stores lines as events.
struct Store<'a> {
    outbox: &'a Outbox,
    template: Event,
    options: &'a LinesOptions,
    report: LinesReport,
    line_numbers: LineNumbers,
}

/// The line number of each event that may be unpublished.
#[derive(Default)]
struct LineNumbers {
    lines: HashMap<EntryId, u64>,
    /// Number of entries from which those of published events are removed; at least the minimum.
    limit: usize,
}

impl LineNumbers {
    fn add(
        &mut self,
        entries: impl Iterator<Item = (EntryId, u64)>,
        outbox: &Outbox,
    ) -> Result<(), OutboxError> {
        self.lines.extend(entries);
        if self.lines.len() > self.limit.max(LINE_NUMBERS_MIN) {
            let left = outbox.own_entries()?;
            let mut kept = HashMap::with_capacity(left.len());
            kept.extend(
                left.iter()
                    .filter_map(|own| self.lines.get_key_value(&own.entry.id)),
            );
            self.lines = kept;
            // Twice the remaining ones, so that the directory is listed once per as many new events.
            self.limit = self.lines.len() * 2;
        }
        Ok(())
    }

    fn unpublished(&self, outbox: &Outbox) -> Result<Vec<Unpublished>, OutboxError> {
        let mut left: Vec<(u64, OwnEntry)> = outbox
            .own_entries()?
            .into_iter()
            .filter_map(|own| Some((*self.lines.get(&own.entry.id)?, own)))
            .collect();
        left.sort_by_key(|(line, _)| *line);
        left.truncate(UNPUBLISHED_LISTED_MAX);
        let described = left.into_iter().map(|(line, own)| Unpublished {
            line,
            file: own.file,
            aside: own.aside,
        });
        Ok(described.collect())
    }
}

/// Why storing ended before the input.
enum StoreFailure {
    Read { line: u64, source: io::Error },
    Put(PutError),
    Outbox(OutboxError),
}

impl StoreFailure {
    fn with(self, report: LinesReport) -> LinesError {
        let report = Box::new(report);
        match self {
            Self::Read { line, source } => LinesError::Read { line, report, source },
            Self::Put(source) => LinesError::Put { report, source },
            Self::Outbox(error) => LinesError::Outbox(error),
        }
    }
}

impl Store<'_> {
    async fn store_all(
        &mut self,
        reader: impl BufRead + Send + 'static,
        cancel: &CancellationToken,
    ) -> Result<(), StoreFailure> {
        let whole = self.options.format == InputFormat::Whole;
        let mut lines = read_lines(reader, self.outbox.size_limit_bytes(), whole);
        let mut chunk = Vec::new();
        loop {
            // Stores all available lines together: one line from a slow pipe, a thousand from a file.
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                read = lines.recv_many(&mut chunk, CHUNK_LINES) => if read == 0 { return Ok(()) },
            }
            let mut events = Vec::with_capacity(chunk.len());
            let mut permits = Vec::with_capacity(chunk.len());
            let mut failure = None;
            for (line, permit) in chunk.drain(..) {
                permits.extend(permit);
                match line {
                    Ok(line) => {
                        let event = self.event(line);
                        events.extend(event.map(|event| (self.report.lines, event)));
                    }
                    Err(source) => {
                        failure = Some(StoreFailure::Read {
                            line: self.report.lines + 1,
                            source,
                        })
                    }
                }
            }
            self.put(events, cancel).await?;
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
    }

    /// Converts a line to an event; `None` for a blank or bad line.
    fn event(&mut self, line: Line) -> Option<Event> {
        self.report.lines += 1;
        let json = self.options.format == InputFormat::JsonLines;
        let checked = match line {
            Line::TooLong => Err("longer than the maximum event size".to_owned()),
            Line::Whole(bytes) if json && bytes.trim_ascii().is_empty() => return None,
            Line::Whole(bytes) if json && !is_json(&bytes) => Err("not JSON".to_owned()),
            Line::Whole(bytes) => self.checked_event(bytes),
        };
        match checked {
            Ok(event) => Some(event),
            Err(reason) => {
                self.report.bad += 1;
                if self.report.bad_lines.len() < BAD_LINES_LISTED_MAX {
                    self.report.bad_lines.push(BadLine {
                        number: self.report.lines,
                        reason,
                    });
                }
                None
            }
        }
    }

    fn checked_event(&self, bytes: Vec<u8>) -> Result<Event, String> {
        let id = self.options.id_field.as_deref();
        let event = Event {
            id: id.map(|field| message_id(&bytes, field)).transpose()?,
            payload: bytes.into(),
            ..self.template.clone()
        };
        let checked = event.check(self.outbox.size_limit_bytes());
        checked.map(|()| event).map_err(|invalid| chain(&invalid))
    }

    /// Puts the events; on a full disk, waits until the drain frees space.
    async fn put(
        &mut self,
        events: Vec<(u64, Event)>,
        cancel: &CancellationToken,
    ) -> Result<(), StoreFailure> {
        let (lines, events): (Vec<u64>, Vec<Event>) = events.into_iter().unzip();
        let events: Arc<[Event]> = events.into();
        let (mut begin, mut part) = (0, events.len());
        let mut moved_at = Instant::now();
        while begin < events.len() {
            let end = events.len().min(begin + part);
            let (entries, result) = self.put_part(Arc::clone(&events), begin, end).await;
            let stored = entries.len();
            self.report.stored += stored as u64;
            let numbered = entries.into_iter().zip(lines[begin..].iter().copied());
            self.line_numbers
                .add(numbered, self.outbox)
                .map_err(StoreFailure::Outbox)?;
            begin += stored;
            if stored > 0 {
                moved_at = Instant::now();
            }
            match result {
                Ok(()) => part = events.len(),
                Err(PutError::DiskFull { .. })
                    if moved_at.elapsed() < self.options.patience && !cancel.is_cancelled() =>
                {
                    // A smaller part may fit.
                    part = (part / 2).max(1);
                    tokio::time::sleep(DISK_FULL_PAUSE).await;
                }
                Err(error) => return Err(StoreFailure::Put(error)),
            }
        }
        Ok(())
    }

    /// Puts a part of the events. Returns the ids of the stored ones even in case of an error.
    async fn put_part(
        &self,
        events: Arc<[Event]>,
        begin: usize,
        end: usize,
    ) -> (Vec<EntryId>, Result<(), PutError>) {
        let outbox = self.outbox.clone();
        let put = tokio::task::spawn_blocking(move || outbox.put_some(&events[begin..end]));
        put.await.unwrap_or_else(|error| {
            let failed = self.outbox.failed("put", 0, io::Error::other(error));
            (Vec::new(), Err(failed))
        })
    }
}
