//! The drain: the one in each directory that publishes what waits. Owns the thread, the lock and the pauses between
//! connections; what happens on a connection is [`crate::session`]'s.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr, ToServerAddrs};
use percent_encoding::percent_decode_str;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::outbox::Outbox;
use crate::session::{self, End, backoff};
use crate::status::DrainState;
use crate::sweeper::Sweeper;

/// How often a drain that waits for another one looks whether that one has ended.
const LOCK_POLL: Duration = Duration::from_millis(250);
/// First and longest pause between two connections.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What can be chosen about a drain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DrainOptions {
    /// Events in flight at most. With a round trip of 1 ms the default, 256, allows 256,000 a second, and with
    /// 10 ms still 25,600; and it is how many the broker sees again after a crash. With 1, not even a broker that refuses an
    /// event and takes the next one of its subject can change their order.
    pub window: usize,
    /// Payload bytes in flight at most; one event may exceed it. The default is 8 MiB: a window of large events
    /// must not cost a producer its memory.
    pub window_bytes: usize,
    /// How long to wait for an acknowledgement. The default is 30 s.
    pub ack_timeout: Duration,
    /// How often to look for events that other processes have put. Those of this process are noticed at once. The
    /// default is 250 ms.
    pub poll_interval: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self {
            window: 256,
            window_bytes: 8 * 1024 * 1024,
            ack_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(250),
        }
    }
}

/// Where to publish: servers, and how to connect to them.
///
/// The drain makes its connections itself, one after the other, because the order of events depends on what
/// happens when one is lost. It replaces the callbacks for events, reconnect delay and server choice in `options`.
#[derive(Clone, Debug)]
pub struct Broker {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) options: ConnectOptions,
}

impl Broker {
    /// A broker at these addresses, for example `"nats://127.0.0.1:4222"`.
    ///
    /// # Errors
    /// When an address cannot be read.
    pub fn new(servers: impl ToServerAddrs, options: ConnectOptions) -> io::Result<Self> {
        Ok(Self {
            servers: servers.to_server_addrs()?.collect(),
            options,
        })
    }

    /// The broker at these addresses, separated by commas. User and password in an address, or a token (a user without
    /// a password), are used to log in; percent-encoding in them is decoded.
    ///
    /// # Errors
    /// When an address cannot be read.
    pub fn at(url: &str) -> io::Result<Self> {
        let mut options = ConnectOptions::new();
        let mut servers = Vec::new();
        for address in url
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
        {
            let address: ServerAddr = address.parse()?;
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            options = match (address.username(), address.password()) {
                (Some(user), Some(password)) => options.user_and_password(decoded(user), decoded(password)),
                (Some(token), None) => options.token(decoded(token)),
                (None, _) => options,
            };
            servers.push(address);
        }
        Ok(Self { servers, options })
    }

    /// A connection to the broker, for what does not go through an outbox.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses the login.
    pub async fn connect(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        self.options.clone().connect(self.servers.clone()).await
    }
}

/// Publishes what waits in an outbox, in order, until it is stopped.
pub struct Drain {
    outbox: Outbox,
    options: DrainOptions,
}

/// Why a drain could not run. Trouble with the broker or with single files is none of these: the drain survives
/// it, and [`Outbox::stats`] tells of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} to drain the outbox {path}", path = path.display())]
pub struct DrainError {
    /// What was tried.
    pub step: &'static str,
    /// The directory.
    pub path: PathBuf,
    /// What the system said.
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

    /// Publishes what waits and what comes until `cancel` is cancelled, then takes the answers that still arrive
    /// within two seconds and returns. Works on a thread of its own, because it is mostly waiting for files.
    ///
    /// When another drain has the directory, in this process or in another one, this one waits for its end.
    /// Dropping the future stops the drain as `cancel` does, without waiting for it.
    ///
    /// # Errors
    /// [`DrainError`] when the thread, its runtime or the lock file cannot be made.
    pub async fn run(self, broker: Broker, cancel: CancellationToken) -> Result<(), DrainError> {
        let path = self.outbox.path().to_owned();
        let failed = |step| move |source| DrainError { step, path, source };
        let stop = cancel.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let (done, finished) = oneshot::channel();
        let thread = thread::Builder::new().name("lantern-outbox".to_owned());
        let spawned = thread.spawn(move || {
            let result = self.work(&broker, &stop);
            self.outbox.shared.status.drain(DrainState::Stopped);
            self.outbox.shared.status.unblock_all();
            // Nobody waits for the result when the future was dropped.
            let _ = done.send(result);
        });
        spawned.map_err(failed.clone()("start a thread"))?;
        let gone = |_| failed("keep its thread running")(io::ErrorKind::BrokenPipe.into());
        finished.await.map_err(gone)?
    }

    fn work(&self, broker: &Broker, stop: &CancellationToken) -> Result<(), DrainError> {
        let shared = &self.outbox.shared;
        let failed = |step| {
            move |source| DrainError {
                step,
                path: self.outbox.path().to_owned(),
                source,
            }
        };
        let waits = runtime().map_err(failed("make a runtime"))?;
        let Some(_lock) = self.lock(&waits, stop).map_err(failed("take the drain lock"))? else {
            return Ok(());
        };
        let sweeper = Sweeper::start(shared).map_err(failed("start a thread"))?;
        let mut backlog = Backlog::new(Arc::clone(shared), self.options.window, sweeper);
        let mut failures = 0;
        loop {
            shared.status.drain(DrainState::Disconnected);
            let runtime = runtime().map_err(failed("make a runtime"))?;
            let end = runtime.block_on(session::run(shared, &self.options, broker, &mut backlog, stop));
            // The connection and all that is queued for it end here.
            runtime.shutdown_background();
            let End::Failed { reason, progress } = end else {
                return Ok(());
            };
            shared.status.drain(DrainState::Disconnected);
            failures = if progress { 1 } else { failures + 1 };
            let pause = backoff(failures, RECONNECT);
            if failures == 1 {
                tracing::warn!(outbox = %self.outbox.path().display(), reason, "the outbox waits for its broker");
            } else {
                tracing::debug!(outbox = %self.outbox.path().display(), reason, ?pause, failures, "still waiting");
            }
            shared.status.error(reason);
            if !wait(&waits, stop, pause) {
                return Ok(());
            }
        }
    }

    /// The lock that makes this the only drain of the directory, or `None` when stopped before getting it.
    fn lock(&self, waits: &Runtime, stop: &CancellationToken) -> io::Result<Option<File>> {
        let lock = self.outbox.shared.directory.lock_file("drain.lock")?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            if self.outbox.shared.status.drain_state() != DrainState::WaitingForOther {
                self.outbox.shared.status.drain(DrainState::WaitingForOther);
                tracing::info!(outbox = %self.outbox.path().display(), "another drain has this outbox; waiting for its end");
            }
            if !wait(waits, stop, LOCK_POLL) {
                return Ok(None);
            }
        }
    }
}

/// A runtime on the calling thread, so that files and connection take turns without a hop between threads.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Waits that long. `false` when stopped.
fn wait(runtime: &Runtime, stop: &CancellationToken, pause: Duration) -> bool {
    runtime.block_on(async {
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    })
}
