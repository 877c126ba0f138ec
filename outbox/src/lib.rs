//! Publishes events to NATS JetStream through files, so that none is lost.
//!
//! A producer calls [`Outbox::put`]. When it returns, the event is a file on disk that survives a crash of the program, a
//! broker outage and a power failure. A [`Drain`] publishes the files in order and removes each one after the broker has
//! acknowledged it.
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
//! # Guarantees
//!
//! - **No stored event is lost**, whichever process is killed at whatever time. Losses in the broker after the
//!   acknowledgement are out of scope.
//! - **Each event is in the stream once**, as long as a repetition arrives within the duplicate window of the stream (two
//!   minutes by default): each event has a `Nats-Msg-Id`. A crash or a lost acknowledgement repeats at most one window, 256
//!   events. A repetition after the duplicate window is counted in [`Stats::late_repeats`], except after a restart of the
//!   process. Consumers that must not count twice need their own key.
//! - **Events of one subject are stored in the order of `put`**, even if connections are lost. A lost connection is never
//!   resumed, and the next one starts with the oldest event. There is one exception with a window above 1: a broker rejects
//!   an event and then accepts a later event of the same subject that was already in flight. Therefore a subject starts with
//!   one event in flight, and does so again after each rejection.
//! - **There is no order between subjects.** A subject without a stream, or with a full stream, is retried (after a quarter
//!   of a second, later every ten seconds) without blocking other subjects.
//! - **Several processes can put into one directory.** Their events are ordered by their clocks. One drain at a time
//!   processes the directory; others wait until it ends.
//!
//! # Rejected files
//!
//! A file that is damaged, or that the broker can never accept (larger than `max_payload` or the limit of the stream), is
//! moved to `aside/`, together with a `.reason` file. The outbox never deletes these files. To retry one, move it back
//! without its `.reason`.
//!
//! # Costs
//!
//! `put` waits for the disk: one sync of a file and one of the directory. [`Outbox::put_all`] waits once for many events; on
//! Linux it syncs the whole file system, which on a busy disk includes data of other programs. A drain runs on its own
//! thread and keeps up to 256 events and 8 MiB in flight.

mod backlog;
mod broker;
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

pub use broker::{Broker, DrainOptions};
pub use drain::{Drain, DrainError};
pub use entry::EntryId;
pub use event::{Event, InvalidEvent, check_subject};
pub use lines::{BadLine, InputFormat, LinesError, LinesOptions, LinesReport, Unpublished, publish_lines};
pub use outbox::{Outbox, OutboxError, OutboxOptions, PutError};
pub use status::{BlockedSubject, DrainState, LastError, Stats};
