//! The drain publishes the pending events of a directory. Owns the thread, the lock and the pauses between connections;
//! [`crate::session`] handles one connection.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::broker::{Broker, DrainOptions};
use crate::outbox::Outbox;
use crate::session::{self, End, backoff};
use crate::status::DrainState;
use crate::sweeper::Sweeper;

/// Poll interval of a drain that waits for the lock of another one.
const LOCK_POLL: Duration = Duration::from_millis(250);
/// First and longest pause between two connections.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Publishes the pending events of an outbox in order, until it is stopped.
pub struct Drain {
    outbox: Outbox,
    options: DrainOptions,
}

/// A drain could not run. Problems with the broker or with single files are not errors: the drain continues, and
/// [`Outbox::stats`] reports them.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} to drain the outbox {path}", path = path.display())]
pub struct DrainError {
    /// The failed step.
    pub step: &'static str,
    /// The directory.
    pub path: PathBuf,
    /// The error of the system.
    #[source]
    pub source: io::Error,
}

impl Drain {
    /// A drain for this outbox.
    pub fn new(outbox: &Outbox, options: DrainOptions) -> Self {
        let options = DrainOptions {
            window: options.window.max(1),
            ..options
        };
        Self {
            outbox: outbox.clone(),
            options,
        }
    }

    /// Publishes pending and new events until `cancel` is cancelled, then waits up to two seconds for acknowledgements. Runs on
    /// a separate thread, because it mostly waits for files.
    ///
    /// If another drain of any process holds the lock of the directory, this one waits until it ends. Dropping the future
    /// stops the drain like `cancel`, without waiting.
    ///
    /// # Errors
    /// [`DrainError`] if the thread, its runtime or the lock file cannot be created.
    pub async fn run(self, broker: Broker, cancel: CancellationToken) -> Result<(), DrainError> {
        let path = self.outbox.path().to_owned();
        let failed = |step| move |source| DrainError { step, path, source };
        let stop = cancel.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let (done, finished) = oneshot::channel();
        let thread = thread::Builder::new().name("lantern-outbox".to_owned());
        let spawned = thread.spawn(move || {
            let result = self.run_sessions(&broker, &stop);
            self.outbox.shared.status.set_drain_state(DrainState::Stopped);
            self.outbox.shared.status.unblock_all();
            // The receiver is gone if the future was dropped.
            let _ = done.send(result);
        });
        spawned.map_err(failed.clone()("start a thread"))?;
        let gone = |_| failed("keep its thread running")(io::ErrorKind::BrokenPipe.into());
        finished.await.map_err(gone)?
    }

    fn run_sessions(&self, broker: &Broker, stop: &CancellationToken) -> Result<(), DrainError> {
        let shared = &self.outbox.shared;
        let failed = |step| {
            move |source| DrainError {
                step,
                path: self.outbox.path().to_owned(),
                source,
            }
        };
        let waits = runtime().map_err(failed("create a runtime"))?;
        let Some(_lock) = self.lock(&waits, stop).map_err(failed("take the drain lock"))? else {
            return Ok(());
        };
        let sweeper = Sweeper::start(shared).map_err(failed("start a thread"))?;
        let mut backlog = Backlog::new(Arc::clone(shared), self.options.window, sweeper);
        let mut failures = 0;
        loop {
            shared.status.set_drain_state(DrainState::Disconnected);
            let runtime = runtime().map_err(failed("create a runtime"))?;
            let end = runtime.block_on(session::run(shared, &self.options, broker, &mut backlog, stop));
            // Closes the connection and drops everything queued for it.
            runtime.shutdown_background();
            let End::Failed { reason, progress } = end else {
                return Ok(());
            };
            shared.status.set_drain_state(DrainState::Disconnected);
            failures = if progress { 1 } else { failures + 1 };
            let pause = backoff(failures, RECONNECT);
            if failures == 1 {
                tracing::warn!(outbox = %self.outbox.path().display(), reason, "the outbox cannot reach its broker; retrying");
            } else {
                tracing::debug!(outbox = %self.outbox.path().display(), reason, ?pause, failures, "still retrying");
            }
            shared.status.set_error(reason);
            if !wait(&waits, stop, pause) {
                return Ok(());
            }
        }
    }

    /// Acquires the drain lock of the directory; `None` if stopped before.
    fn lock(&self, waits: &Runtime, stop: &CancellationToken) -> io::Result<Option<File>> {
        let lock = self.outbox.shared.directory.lock_file("drain.lock")?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            if self.outbox.shared.status.drain_state() != DrainState::WaitingForOther {
                self.outbox
                    .shared
                    .status
                    .set_drain_state(DrainState::WaitingForOther);
                tracing::info!(outbox = %self.outbox.path().display(), "another drain holds the lock of this outbox; waiting");
            }
            if !wait(waits, stop, LOCK_POLL) {
                return Ok(None);
            }
        }
    }
}

/// A runtime on the calling thread, so that file and network operations need no thread switch.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Waits for `pause`. Returns `false` when stopped.
fn wait(runtime: &Runtime, stop: &CancellationToken, pause: Duration) -> bool {
    runtime.block_on(async {
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    })
}
