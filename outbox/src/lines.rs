//! Publishing a file or a pipe of lines: each line is one event. Stores lines in chunks, drains meanwhile, and
//! counts. It is all that `lantern publish` does besides reading its arguments.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::drain::{Broker, Drain, DrainError, DrainOptions};
use crate::event::{Event, InvalidEvent, check_subject};
use crate::outbox::{Outbox, OutboxError, PutError};
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

/// What can be chosen about publishing lines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinesOptions {
    /// Take each line as it is. Otherwise a line must be JSON, and blank lines are passed over.
    pub raw: bool,
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
            raw: false,
            headers: Vec::new(),
            patience: Duration::from_secs(30),
            drain: DrainOptions::default(),
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
    };
    let stored = store.all(reader, &cancel).await;
    let mut report = store.report;
    wait(&outbox, options.patience, || {
        cancel.is_cancelled() || drain.is_finished()
    })
    .await?;
    // Read before the drain ends, which forgets them.
    report.blocked = outbox.stats()?.blocked;
    stop.cancel();
    let drained = drain.await;
    let own = outbox.own()?;
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
}

/// Why storing ended before the input did.
enum Broken {
    Read { line: u64, source: io::Error },
    Put(PutError),
}

impl Broken {
    fn with(self, report: LinesReport) -> LinesError {
        let report = Box::new(report);
        match self {
            Self::Read { line, source } => LinesError::Read { line, report, source },
            Self::Put(source) => LinesError::Put { report, source },
        }
    }
}

impl Store<'_> {
    async fn all(
        &mut self,
        reader: impl BufRead + Send + 'static,
        cancel: &CancellationToken,
    ) -> Result<(), Broken> {
        let mut lines = read_lines(reader, self.outbox.size_limit_bytes());
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
                    Ok(line) => events.extend(self.event(line)),
                    Err(source) => {
                        broken = Some(Broken::Read {
                            line: self.report.lines + 1,
                            source,
                        })
                    }
                }
            }
            self.put(events, cancel).await.map_err(Broken::Put)?;
            if let Some(broken) = broken {
                return Err(broken);
            }
        }
    }

    /// The event of a line; `None` for a blank or a bad one.
    fn event(&mut self, line: Line) -> Option<Event> {
        self.report.lines += 1;
        let checked = match line {
            Line::TooLong => Err("it is longer than the largest event that may be published".to_owned()),
            Line::Whole(bytes) if !self.options.raw && bytes.trim_ascii().is_empty() => return None,
            Line::Whole(bytes) if !self.options.raw && !is_json(&bytes) => Err("it is not JSON".to_owned()),
            Line::Whole(bytes) => {
                let event = Event {
                    payload: bytes.into(),
                    ..self.template.clone()
                };
                let checked = event.check(self.outbox.size_limit_bytes());
                checked.map(|()| event).map_err(|invalid| chain(&invalid))
            }
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

    /// Puts the events, and waits for the drain to make room when the disk is full.
    async fn put(&mut self, events: Vec<Event>, cancel: &CancellationToken) -> Result<(), PutError> {
        let events: Arc<[Event]> = events.into();
        let (mut begin, mut part) = (0, events.len());
        let mut moved_at = Instant::now();
        while begin < events.len() {
            let end = events.len().min(begin + part);
            let result = self.put_part(Arc::clone(&events), begin, end).await;
            let stored = result.as_ref().map_or_else(PutError::stored, |()| end - begin);
            self.report.stored += stored as u64;
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
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn put_part(&self, events: Arc<[Event]>, begin: usize, end: usize) -> Result<(), PutError> {
        let outbox = self.outbox.clone();
        let put = tokio::task::spawn_blocking(move || outbox.put_all(&events[begin..end]).map(|_| ()));
        put.await
            .unwrap_or_else(|error| Err(self.outbox.failed("put", 0, io::Error::other(error))))
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
fn read_lines(mut reader: impl BufRead + Send + 'static, size_limit: usize) -> mpsc::Receiver<ReadLine> {
    let (lines, received) = mpsc::channel(CHUNK_LINES);
    let (runtime, bytes) = (
        tokio::runtime::Handle::current(),
        Arc::new(Semaphore::new(CHUNK_BYTES as usize)),
    );
    let errors = lines.clone();
    let read = move || {
        let mut first = true;
        while let Some(line) = next_line(&mut reader, size_limit, std::mem::take(&mut first)).transpose() {
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
    fn json_is_told_from_what_is_not() {
        for good in [&b"{}"[..], b" [1, 2] ", b"null", b"\"\xc3\xbc\"", b"1e3"] {
            assert!(is_json(good), "{good:?}");
        }
        for bad in [&b""[..], b"{", b"{}{}", b"\"\xff\"", b"{a:1}", b"nul"] {
            assert!(!is_json(bad), "{bad:?}");
        }
    }
}
