//! Writes the log to standard error, on a separate thread that reads a bounded queue. Logging never waits for the
//! reader: a stopped terminal, an unread pipe, a full disk or a closed reader costs only lines, which are counted.
//!
//! The library for this (tracing-appender 0.2) reports on standard output when it cannot stop, and panics where that is
//! closed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::TelemetryError;

/// Maximum number of waiting lines: a few megabytes at most, because lines of guests are cut.
const LINES_MAX: usize = 8_192;

/// How long dropping the log waits for the queued lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Lines that the queue or standard error did not accept.
static LOST: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// Confirms that all lines before it are written.
    End(SyncSender<()>),
}

/// Keeps the log running. Dropping it writes the queued lines, within half a second or not at all.
#[must_use]
pub struct Log {
    queue: SyncSender<Message>,
}

impl Drop for Log {
    fn drop(&mut self) {
        let (ended, end) = mpsc::sync_channel(1);
        // Nobody reads a full queue.
        if self.queue.try_send(Message::End(ended)).is_ok() {
            end.recv_timeout(FLUSH_TIMEOUT).ok();
        }
    }
}

/// Writes the log, including panics, to standard error, as text or as one JSON object per line. Call it once.
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
        // The library would report errors on standard error and panic when that fails.
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
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log { queue })
}

/// Number of lost log lines of this process.
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
            // The receiver may have given up.
            Message::End(ended) => drop(ended.try_send(())),
        }
    }
}

/// Writer of one line, which arrives in one piece.
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

/// Logs a panic like any other line; the default hook would wait for standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("of an unknown kind");
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(thread, place = location, %backtrace, "panic: {message}")
        }
        _ => tracing::error!(thread, place = location, "panic: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts the first lines and then no more.
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
    fn rejected_lines_are_counted_and_the_end_does_not_wait() {
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
