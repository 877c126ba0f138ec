//! The log's way out: standard error, written by a thread of its own from a queue with an end. Whoever logs never waits
//! for whoever reads: a terminal that is held, a pipe that nobody reads, a full disk or a reader that is gone cost lines,
//! which are counted, and nothing else.
//!
//! A library for this (tracing-appender 0.2) says on standard output when it cannot end, and panics where that is closed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::TelemetryError;

/// Lines that may wait: a few megabytes at worst, as lines of guests are cut.
const LINES_MAX: usize = 8_192;

/// How long the end waits for the lines that wait.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lines for which there was no room, or that could not be written.
static LOST: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// All before it is written; says so.
    End(SyncSender<()>),
}

/// Keeps the log going. What waits is written when it is dropped, within half a second or not at all.
#[must_use]
pub struct Log {
    queue: SyncSender<Message>,
}

impl Drop for Log {
    fn drop(&mut self) {
        let (ended, end) = mpsc::sync_channel(1);
        // A full queue is one that nobody reads.
        if self.queue.try_send(Message::End(ended)).is_ok() {
            end.recv_timeout(LAST_WORDS).ok();
        }
    }
}

/// Sends the log to standard error, as text or with one JSON object a line, and panics with it. To be called once.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(filter: &str, json: bool) -> Result<Log, TelemetryError> {
    let env_filter = EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let (queue, lines) = mpsc::sync_channel(LINES_MAX);
    let line = queue.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        // What cannot be logged would be told on standard error, with a panic when that cannot be written.
        .log_internal_errors(false)
        .with_writer(move || Line(line.clone()));
    let done = match json {
        true => log.json().flatten_event(true).try_init(),
        false => log.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    done.map_err(TelemetryError::Again)?;
    let writing = std::thread::Builder::new().name("log".to_owned());
    writing
        .spawn(move || write(&lines, &mut io::stderr()))
        .map_err(TelemetryError::Thread)?;
    std::panic::set_hook(Box::new(panicked));
    Ok(Log { queue })
}

/// How many lines of the log of this process were lost.
pub(super) fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn write(lines: &Receiver<Message>, out: &mut impl Write) {
    for message in lines {
        match message {
            Message::Line(line) => {
                if out.write_all(&line).is_err() {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Whoever waits for it may have given up.
            Message::End(ended) => drop(ended.try_send(())),
        }
    }
}

/// The way of one line, which comes in one piece.
struct Line(SyncSender<Message>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A panic is a line of the log like others; the usual hook would wait for standard error.
fn panicked(panic: &PanicHookInfo<'_>) {
    let words = panic.payload_as_str().unwrap_or("of an unknown kind");
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(thread, place, %backtrace, "panic: {words}"),
        _ => tracing::error!(thread, place, "panic: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the first lines and then no more.
    struct Fills(Vec<u8>, usize);

    impl Write for Fills {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.1 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1 -= 1;
            self.0.write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_the_end_is_not_waited_for() {
        let (queue, lines) = mpsc::sync_channel(4);
        let before = lost_lines();
        for _ in 0..6 {
            Line(queue.clone()).write_all(b"line\n").unwrap();
        }
        assert_eq!(lost_lines() - before, 2);
        // Nobody writes, and the queue is full.
        drop(Log { queue: queue.clone() });

        let writing = std::thread::spawn(move || {
            let mut out = Fills(Vec::new(), 3);
            write(&lines, &mut out);
            out.0
        });
        drop(Log { queue });
        assert_eq!(writing.join().unwrap(), b"line\nline\nline\n");
        assert_eq!(lost_lines() - before, 3);
    }
}
