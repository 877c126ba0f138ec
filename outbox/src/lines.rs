//! Publishing a file or a pipe of lines: each line is one event. Stores lines in chunks, drains meanwhile, and
//! counts. It is all that `lantern publish` does besides reading its arguments.

use std::collections::HashMap;
use std::io::{self, BufRead, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::drain::{Broker, Drain, DrainError, DrainOptions};
use crate::entry::EntryId;
use crate::event::{Event, InvalidEvent, check_subject};
use crate::outbox::{Outbox, OutboxError, OwnEntry, PutError};
use crate::status::{BlockedSubject, LastError, chain};

/// Lines between the reader and the disk, and so in one chunk. One flush of the disk costs about as much as
/// writing a few hundred files, so a thousand share it well.
const CHUNK_LINES: usize = 1024;
/// Bytes of those lines.
const CHUNK_BYTES: u32 = 8 * 1024 * 1024;
/// Bad lines described in the report; the count beside them is not limited.
const BAD_LINES_LISTED_MAX: usize = 100;
/// How long to wait for the drain to make room on a full disk before trying again.
const DISK_FULL_PAUSE: Duration = Duration::from_millis(250);
/// How often to look what still waits, at most. A large directory is looked at less often.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Unpublished lines described in the report; the counts beside them are not limited.
const UNPUBLISHED_LISTED_MAX: usize = 100;
/// Entries of which the line number is remembered, before those that are published by now are forgotten.
const PLACES_MIN: usize = 64 * 1024;

/// What one event is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputFormat {
    /// Each line, which has to be JSON; blank lines are passed over.
    #[default]
    JsonLines,
    /// Each line as it is, without its end.
    Lines,
    /// The whole input, byte by byte.
    Whole,
}

/// What can be chosen about publishing lines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinesOptions {
    /// What one event is made of.
    pub format: InputFormat,
    /// The top-level field of the JSON whose value (text or a number) is the message id, so that the broker recognises
    /// a repeated event. Without it the outbox makes an id for each event.
    pub id_field: Option<String>,
    /// Headers for every event.
    pub headers: Vec<(String, String)>,
    /// Once everything is stored: how long to wait while nothing is published, before the rest is left to the
    /// next drain. Also how long a full disk is waited for. The default is 30 s.
    pub patience: Duration,
    /// How to drain.
    pub drain: DrainOptions,
}

impl Default for LinesOptions {
    fn default() -> Self {
        Self {
            format: InputFormat::default(),
            id_field: None,
            headers: Vec::new(),
            patience: Duration::from_secs(30),
            drain: DrainOptions {
                // Shorter than the patience, so that a broker which never answers is reported as the reason.
                ack_timeout: Duration::from_secs(10),
                ..DrainOptions::default()
            },
        }
    }
}

/// What became of the lines.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LinesReport {
    /// Lines read, blank and bad ones included.
    pub lines: u64,
    /// Lines that became events on disk.
    pub stored: u64,
    /// Of those, how many the broker has.
    pub published: u64,
    /// Events that the broker already had, as far as this process' drain saw.
    pub duplicates: u64,
    /// Of those stored, how many were moved to `aside/`.
    pub aside: u64,
    /// Of those stored, how many still wait in the outbox. The next drain publishes them.
    pub waiting: u64,
    /// Lines that are no event.
    pub bad: u64,
    /// The first hundred of them.
    pub bad_lines: Vec<BadLine>,
    /// The first hundred stored lines that are aside or still wait.
    pub unpublished: Vec<Unpublished>,
    /// Subjects that the broker refused at the end.
    pub blocked: Vec<BlockedSubject>,
    /// The last thing that went wrong, which is why some wait, when some do.
    pub last_error: Option<LastError>,
}

/// A line that is no event. The others are not held up by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, counted from 1.
    pub number: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A stored line that the broker does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublished {
    /// Its number, counted from 1.
    pub line: u64,
    /// The file that holds its event.
    pub file: PathBuf,
    /// Why it is aside; none for an event that waits.
    pub aside: Option<String>,
}

/// Why not all lines could be stored. What the report counts as stored is safe in the outbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinesError {
    /// Nothing can be published to this subject, or with these headers. Nothing was read.
    #[error("nothing can be published like this")]
    Invalid(#[source] InvalidEvent),
    /// The input broke off.
    #[error("cannot read line {line}")]
    Read {
        /// The number of the line, counted from 1.
        line: u64,
        /// What became of the lines before.
        report: Box<LinesReport>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The outbox did not take an event.
    #[error("cannot store the events")]
    Put {
        /// What became of the lines before.
        report: Box<LinesReport>,
        /// Why.
        #[source]
        source: PutError,
    },
    /// The outbox could not be read.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Nothing could be published. What was read is stored and waits.
    #[error("the events are stored but not published")]
    Drain {
        /// What became of the lines.
        report: Box<LinesReport>,
        /// Why.
        #[source]
        source: DrainError,
    },
}

/// Puts every line of `reader` into the outbox as an event on `subject` and publishes what waits there, until
/// everything that was put is published or nothing moves any more. A pipe that stays open is published line by line.
///
/// When `cancel` is cancelled, nothing more is read, and what is stored waits for the next drain. A reader that
/// blocks is left behind on its own thread.
///
/// # Errors
/// [`LinesError`] when not every line could be taken. That some wait in the end is not an error but a count in
/// the report.
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
        places: Places::default(),
    };
    let stored = store.all(reader, &cancel).await;
    let (mut report, places) = (store.report, store.places);
    wait(&outbox, options.patience, || {
        cancel.is_cancelled() || drain.is_finished()
    })
    .await?;
    // Read before the drain ends, which forgets them.
    report.blocked = outbox.stats()?.blocked;
    stop.cancel();
    let drained = drain.await;
    let own = outbox.own()?;
    report.unpublished = places.unpublished(&outbox)?;
    let stats = outbox.stats()?;
    (report.waiting, report.aside) = (own.waiting, own.aside);
    report.published = report.stored.saturating_sub(own.waiting + own.aside);
    report.duplicates = stats.duplicates - duplicates_before;
    report.last_error = stats.last_error;
    match (stored, drained) {
        (Err(broken), _) => Err(broken.with(report)),
        // A drain that could not start is no matter when another one has done its work.
        (Ok(()), Ok(Err(source))) if report.waiting > 0 => Err(LinesError::Drain {
            report: Box::new(report),
            source,
        }),
        (Ok(()), _) => Ok(report),
    }
}

/// Waits until nothing of this writer waits, nothing has moved for as long as `patience`, or `give_up` says so.
async fn wait(outbox: &Outbox, patience: Duration, give_up: impl Fn() -> bool) -> Result<(), OutboxError> {
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
        tokio::time::sleep(LOOK_INTERVAL.max(begin.elapsed() * 10)).await;
    }
}

/// Turns lines into events on disk.
struct Store<'a> {
    outbox: &'a Outbox,
    template: Event,
    options: &'a LinesOptions,
    report: LinesReport,
    places: Places,
}

/// Which line each event came from, for the events that may not be published yet.
#[derive(Default)]
struct Places {
    lines: HashMap<EntryId, u64>,
    /// How many there may be before the published ones are forgotten; 0 stands for the least.
    limit: usize,
}

impl Places {
    fn add(
        &mut self,
        entries: impl Iterator<Item = (EntryId, u64)>,
        outbox: &Outbox,
    ) -> Result<(), OutboxError> {
        self.lines.extend(entries);
        if self.lines.len() > self.limit.max(PLACES_MIN) {
            let left = outbox.own_entries()?;
            let mut kept = HashMap::with_capacity(left.len());
            kept.extend(
                left.iter()
                    .filter_map(|own| self.lines.get_key_value(&own.entry.id)),
            );
            self.lines = kept;
            // Twice what is left: the directory is listed once for as many events as are added to it.
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

/// Why storing ended before the input did.
enum Broken {
    Read { line: u64, source: io::Error },
    Put(PutError),
    Outbox(OutboxError),
}

impl Broken {
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
    async fn all(
        &mut self,
        reader: impl BufRead + Send + 'static,
        cancel: &CancellationToken,
    ) -> Result<(), Broken> {
        let whole = self.options.format == InputFormat::Whole;
        let mut lines = read_lines(reader, self.outbox.size_limit_bytes(), whole);
        let mut chunk = Vec::new();
        loop {
            // Whatever is there goes to disk together: one line when they come slowly, a thousand when they wait.
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                read = lines.recv_many(&mut chunk, CHUNK_LINES) => if read == 0 { return Ok(()) },
            }
            let mut events = Vec::with_capacity(chunk.len());
            let mut permits = Vec::with_capacity(chunk.len());
            let mut broken = None;
            for (line, permit) in chunk.drain(..) {
                permits.extend(permit);
                match line {
                    Ok(line) => {
                        let event = self.event(line);
                        events.extend(event.map(|event| (self.report.lines, event)));
                    }
                    Err(source) => {
                        broken = Some(Broken::Read {
                            line: self.report.lines + 1,
                            source,
                        })
                    }
                }
            }
            self.put(events, cancel).await?;
            if let Some(broken) = broken {
                return Err(broken);
            }
        }
    }

    /// The event of a line; `None` for a blank or a bad one.
    fn event(&mut self, line: Line) -> Option<Event> {
        self.report.lines += 1;
        let json = self.options.format == InputFormat::JsonLines;
        let checked = match line {
            Line::TooLong => Err("it is longer than the largest event that may be published".to_owned()),
            Line::Whole(bytes) if json && bytes.trim_ascii().is_empty() => return None,
            Line::Whole(bytes) if json && !is_json(&bytes) => Err("it is not JSON".to_owned()),
            Line::Whole(bytes) => self.checked(bytes),
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

    fn checked(&self, bytes: Vec<u8>) -> Result<Event, String> {
        let id = self.options.id_field.as_deref();
        let event = Event {
            id: id.map(|field| id_in(&bytes, field)).transpose()?,
            payload: bytes.into(),
            ..self.template.clone()
        };
        let checked = event.check(self.outbox.size_limit_bytes());
        checked.map(|()| event).map_err(|invalid| chain(&invalid))
    }

    /// Puts the events, and waits for the drain to make room when the disk is full.
    async fn put(&mut self, events: Vec<(u64, Event)>, cancel: &CancellationToken) -> Result<(), Broken> {
        let (lines, events): (Vec<u64>, Vec<Event>) = events.into_iter().unzip();
        let events: Arc<[Event]> = events.into();
        let (mut begin, mut part) = (0, events.len());
        let mut moved_at = Instant::now();
        while begin < events.len() {
            let end = events.len().min(begin + part);
            let (entries, result) = self.put_part(Arc::clone(&events), begin, end).await;
            let stored = entries.len();
            self.report.stored += stored as u64;
            let placed = entries.into_iter().zip(lines[begin..].iter().copied());
            self.places.add(placed, self.outbox).map_err(Broken::Outbox)?;
            begin += stored;
            if stored > 0 {
                moved_at = Instant::now();
            }
            match result {
                Ok(()) => part = events.len(),
                Err(PutError::DiskFull { .. })
                    if moved_at.elapsed() < self.options.patience && !cancel.is_cancelled() =>
                {
                    // A smaller part may fit where this one does not.
                    part = (part / 2).max(1);
                    tokio::time::sleep(DISK_FULL_PAUSE).await;
                }
                Err(error) => return Err(Broken::Put(error)),
            }
        }
        Ok(())
    }

    /// Puts some of the events; the ids are those of the first ones, which are stored, also when there is an error.
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

/// One line without its end.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    /// Longer than the limit; its bytes were passed over.
    TooLong,
}

type ReadLine = (io::Result<Line>, Option<OwnedSemaphorePermit>);

/// Reads on a thread of its own, because a pipe may keep it waiting for ever. Ends when the receiver is dropped.
fn read_lines(
    mut reader: impl BufRead + Send + 'static,
    size_limit: usize,
    whole: bool,
) -> mpsc::Receiver<ReadLine> {
    let (lines, received) = mpsc::channel(CHUNK_LINES);
    let (runtime, bytes) = (
        tokio::runtime::Handle::current(),
        Arc::new(Semaphore::new(CHUNK_BYTES as usize)),
    );
    let errors = lines.clone();
    let read = move || {
        let mut first = true;
        let mut next = || match (whole, std::mem::take(&mut first)) {
            (true, true) => all(&mut reader, size_limit).map(Some),
            (true, false) => Ok(None),
            (false, first) => next_line(&mut reader, size_limit, first),
        };
        while let Some(line) = next().transpose() {
            let size = line.as_ref().map_or(0, |line| {
                if let Line::Whole(bytes) = line {
                    bytes.len()
                } else {
                    0
                }
            });
            let size = u32::try_from(size).unwrap_or(u32::MAX).min(CHUNK_BYTES);
            // Never closed, so there is always a permit in the end.
            let permit = runtime.block_on(Arc::clone(&bytes).acquire_many_owned(size)).ok();
            let broken = line.is_err();
            if lines.blocking_send((line, permit)).is_err() || broken {
                return;
            }
        }
    };
    if let Err(error) = thread::Builder::new()
        .name("lantern-outbox-read".to_owned())
        .spawn(read)
    {
        // The channel is empty, so there is room.
        let _ = errors.try_send((Err(error), None));
    }
    received
}

/// The whole input.
fn all(reader: &mut impl BufRead, limit: usize) -> io::Result<Line> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > limit {
        true => Ok(Line::TooLong),
        false => Ok(Line::Whole(bytes)),
    }
}

/// All lines of an input that is read `buffer` bytes at a time; `None` stands for one that is too long.
pub(crate) fn split(input: &[u8], buffer: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
    let mut reader = io::BufReader::with_capacity(buffer, input);
    let mut lines = Vec::new();
    while let Ok(Some(line)) = next_line(&mut reader, limit, lines.is_empty()) {
        lines.push(match line {
            Line::Whole(bytes) => Some(bytes),
            Line::TooLong => None,
        });
    }
    lines
}

/// The next line, without its `\n` or `\r\n`; `None` at the end. A byte order mark before the first is dropped.
fn next_line(reader: &mut impl BufRead, limit: usize, first: bool) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let (mut begun, mut too_long) = (false, false);
    loop {
        let available = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.is_empty() && !begun {
            return Ok(None);
        }
        begun = true;
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        // Two more than the limit: a carriage return and a mark are taken off below.
        too_long |= bytes.len() + part.len() > limit.saturating_add(4);
        if !too_long {
            bytes.extend_from_slice(part);
        }
        let (used, at_end) = (
            part.len() + usize::from(end.is_some()),
            end.is_some() || part.is_empty(),
        );
        reader.consume(used);
        if at_end {
            break;
        }
    }
    if too_long {
        return Ok(Some(Line::TooLong));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    if first && bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(Some(Line::Whole(bytes)))
}

/// The message id in a field of a JSON object.
fn id_in(bytes: &[u8], field: &str) -> Result<String, String> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|_| format!("it is not JSON, so it has no {field:?}"))?;
    match &value[field] {
        serde_json::Value::String(text) => Ok(text.clone()),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        serde_json::Value::Null => Err(format!("it has no {field:?} to be its message id")),
        _ => Err(format!("its {field:?} is neither text nor a number")),
    }
}

/// Whether the bytes are one JSON text. The value itself is not looked at.
fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(input: &[u8], buffer: usize, limit: usize) -> Vec<Line> {
        let mut reader = BufReader::with_capacity(buffer, input);
        let mut first = true;
        std::iter::from_fn(|| next_line(&mut reader, limit, std::mem::take(&mut first)).unwrap()).collect()
    }

    #[test]
    fn lines_are_cut_at_their_ends_only() {
        let check = |input: &[u8], expected: &[&[u8]]| {
            let expected: Vec<Line> = expected.iter().map(|line| Line::Whole(line.to_vec())).collect();
            for buffer in 1..=input.len() + 1 {
                assert_eq!(
                    lines(input, buffer, 100),
                    expected,
                    "{input:?} through {buffer} bytes"
                );
            }
        };
        check(b"", &[]);
        check(b"\n", &[b""]);
        check(b"a", &[b"a"]);
        check(b"a\n", &[b"a"]);
        check(b"a\r\nb\rc\n\nd", &[b"a", b"b\rc", b"", b"d"]);
        check(b"\xef\xbb\xbfa\n\xef\xbb\xbfb", &[b"a", b"\xef\xbb\xbfb"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_without_being_held() {
        let input = [&b"short\n"[..], &[b'x'; 5000], b"\nnext\n"].concat();
        let short = Line::Whole(b"short".to_vec());
        let next = Line::Whole(b"next".to_vec());
        assert_eq!(lines(&input, 64, 100), [short, Line::TooLong, next]);
    }

    #[test]
    fn an_id_is_text_or_a_number_of_the_named_field() {
        for (line, expected) in [
            (r#"{"id":"a","n":1}"#, Ok("a")),
            (r#"{"id":7}"#, Ok("7")),
            (r#"{"n":1}"#, Err("no \"id\"")),
            (r#"{"id":null}"#, Err("no \"id\"")),
            (r#"{"id":[1]}"#, Err("neither text nor a number")),
            ("[1]", Err("no \"id\"")),
            ("x", Err("not JSON")),
        ] {
            match (id_in(line.as_bytes(), "id"), expected) {
                (Ok(id), Ok(expected)) => assert_eq!(id, expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
    }

    #[test]
    fn json_is_told_from_what_is_not() {
        for good in [&b"{}"[..], b" [1, 2] ", b"null", b"\"\xc3\xbc\"", b"1e3"] {
            assert!(is_json(good), "{good:?}");
        }
        for bad in [&b""[..], b"{", b"{}{}", b"\"\xff\"", b"{a:1}", b"nul"] {
            assert!(!is_json(bad), "{bad:?}");
        }
    }
}
