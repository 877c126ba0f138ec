//! Hands events to NATS JetStream through files, so that none is lost on the way.
//!
//! A program that sees an event calls [`Outbox::put`]. When that returns, the event is a file on disk: it survives
//! the program, the broker and a power cut. A [`Drain`] publishes the files in order, waits for the broker's
//! acknowledgement of each, and then removes it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use lantern_outbox::{Broker, Drain, DrainOptions, Event, Outbox};
//! use tokio_util::sync::CancellationToken;
//!
//! let outbox = Outbox::open("/var/lib/agent/outbox")?;
//! let broker = Broker::at("nats://127.0.0.1:4222")?;
//! let stop = CancellationToken::new();
//! let drain = tokio::spawn(Drain::new(&outbox, DrainOptions::default()).run(broker, stop.clone()));
//!
//! outbox.put(&Event::new("obs.pc-01", r#"{"kind":"logon"}"#))?;
//!
//! stop.cancel();
//! drain.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Nothing that was put is lost**, whatever is killed and whenever. What the broker loses after it has
//!   acknowledged is the broker's matter.
//! - **Each event is in the stream once**, as long as a repetition comes within the stream's duplicate window (two
//!   minutes unless told otherwise): each carries a `Nats-Msg-Id`. A crash or a lost answer repeats at most one
//!   window, 256 events. A repetition that came too late is counted in [`Stats::late_repeats`]; after a restart of
//!   the process it cannot be known. Consumers that must not count twice need a key of their own.
//! - **Events of one subject are in the stream in the order in which they were put**, also when connections are lost
//!   in the middle. Each lost connection ends for good and the next one begins at the oldest event. There is one
//!   exception, with a window above 1: a broker that refuses an event and then takes a later one of the same subject
//!   which was already on its way. A subject therefore starts with one event in flight, and after each refusal again.
//! - **Between subjects there is no order.** One that has no stream, or whose stream is full, rests and is tried again
//!   (after a quarter of a second, later every ten seconds), and the others pass it by.
//! - **Several processes may put into one directory.** Between them the order is that of their clocks. One drain
//!   at a time has the directory; others wait for it to end.
//!
//! # What goes aside
//!
//! A file that is damaged, or that its broker can never take (larger than `max_payload` or the stream's limit), is
//! moved to `aside/`, with a file beside it that says why. The outbox never deletes these. To try one again, move it
//! back without its `.reason`.
//!
//! # Costs
//!
//! `put` waits for the disk: one sync of a file and one of the directory. [`Outbox::put_all`] waits once for many
//! events; on Linux it flushes the whole file system for that, which on a busy disk includes what other programs wrote.
//! A drain works on a thread of its own and keeps 256 events and 8 MiB in flight.

mod backlog;
mod directory;
mod drain;
mod entry;
mod event;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod lanes;
mod lines;
mod outbox;
mod session;
mod status;
mod sweeper;
mod verdict;

pub use drain::{Broker, Drain, DrainError, DrainOptions};
pub use entry::EntryId;
pub use event::{Event, InvalidEvent, check_subject};
pub use lines::{BadLine, InputFormat, LinesError, LinesOptions, LinesReport, Unpublished, publish_lines};
pub use outbox::{Outbox, OutboxError, OutboxOptions, PutError};
pub use status::{BlockedSubject, DrainState, LastError, Stats};
