//! Connections: accepted up to a number, each with limits on the time for reading a request and for writing an
//! answer, and ended in order when the host stops. Knows nothing of what is asked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{State, router};
use crate::telemetry::Repeats;

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; the next ones wait in the listener's queue. Each costs a task, a descriptor and up to
    /// 64 KiB of buffer, so these are 48 MiB at worst. More than follow tables (see `live`), so that those who
    /// listen leave room for those who ask.
    pub connections: usize,
    /// Longest time from the opening of a connection, or the end of an answer, to a whole request header.
    pub header_time: Duration,
    /// Longest time for which a client may leave an answer unread.
    pub write_time: Duration,
    /// Longest time that answers in hand are given when the host stops.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 768,
            header_time: Duration::from_secs(10),
            write_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(2),
        }
    }
}

/// Largest request header, and the buffer of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// Pause after an accept that failed for want of descriptors or memory: trying again at once would only burn the
/// processor that could free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How much less than the rest of the host those who ask get of a processor that is wanted by both (`nice`). Five
/// steps are about a quarter: messages go first, and nobody who asks waits forever.
#[cfg(target_os = "linux")]
const GIVE_WAY: i32 = 5;

/// Threads that answer. Answers wait for the database most of the time, so two are enough for many clients.
const THREADS: usize = 2;

/// Threads for those who ask, which give way to those that store rows: whoever looks does not slow down what is looked
/// at. When they are dropped, what is still under way there is dropped too.
#[derive(Debug)]
pub struct Threads {
    /// Some until they are dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Threads {
    /// Starts them. It may be called on any runtime, and they may be dropped there.
    ///
    /// # Errors
    /// When the system has no threads left.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("lantern-api")
            .on_thread_start(giving_way())
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Does something there. Threads that it starts give way as well, as those of database connections.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(work)
    }

    /// Serves there until `shutdown`, with the usual limits. What is returned ends when the answers in hand are sent.
    ///
    /// # Errors
    /// When the listener cannot be moved there.
    pub fn serve(
        &self,
        listener: TcpListener,
        state: State,
        shutdown: CancellationToken,
    ) -> io::Result<JoinHandle<()>> {
        let listener = listener.into_std()?;
        // Its events have to come from the runtime that serves it.
        let _there = self.handle.enter();
        let listener = TcpListener::from_std(listener)?;
        Ok(self.spawn(serve_with(listener, state, shutdown, Limits::default())))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for it is not allowed on a thread of another one.
            runtime.shutdown_background();
        }
    }
}

/// What lets the other threads of the host go first, to be called by each that answers. On Linux each thread has a
/// priority of its own, which the threads that it starts take over; elsewhere they are all alike.
#[cfg(target_os = "linux")]
fn giving_way() -> impl Fn() + Send + Sync + 'static {
    // Counted from where the host is now: an operator may have started it with `nice`.
    let own = rustix::process::getpriority_process(None);
    move || {
        let given = own.and_then(|own| rustix::process::setpriority_process(None, own + GIVE_WAY));
        if let Err(error) = given {
            tracing::debug!(%error, "a thread of the API cannot give way to the others");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn giving_way() -> impl Fn() + Send + Sync + 'static {
    || {}
}

/// Serves until `shutdown`; returns when the answers in hand are sent or `drain_time` is over.
pub async fn serve_with(listener: TcpListener, state: State, shutdown: CancellationToken, limits: Limits) {
    let service = TowerToHyperService::new(router(state));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (graceful, cut_off, tasks) = (
        GracefulShutdown::new(),
        CancellationToken::new(),
        TaskTracker::new(),
    );
    let troubles = Repeats::new(Duration::from_secs(30));
    loop {
        let next = async {
            // The semaphore is never closed; if it were, there would be nothing to serve.
            let slot = slots.clone().acquire_owned().await.ok()?;
            Some((slot, accept(&listener, &troubles).await))
        };
        let (slot, stream) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_buf_size(BUFFER_BYTES);
        let io = TokioIo::new(Box::pin(with_write_limit(stream, limits.write_time)));
        let connection = graceful.watch(builder.serve_connection(io, service.clone()));
        let cut_off = cut_off.clone();
        tasks.spawn(async move {
            tokio::select! {
                // How a connection ends is the client's affair: it hung up, was too slow or sent no HTTP.
                end = connection => if let Err(error) = end {
                    tracing::debug!(%error, "a connection ended early");
                },
                () = cut_off.cancelled() => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(limits.drain_time, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(connections = tasks.len(), "some answers were cut off at the end");
        cut_off.cancel();
    }
    tasks.wait().await;
}

/// The next connection, however long it takes.
async fn accept(listener: &TcpListener, troubles: &Repeats) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole; waiting for more to send only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection cannot be told not to wait");
                }
                return stream;
            }
            // That client is gone; the next one may be there.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                if let Some(held_back) = troubles.note(&error.to_string()) {
                    tracing::error!(%error, held_back, "cannot accept connections for now");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn with_write_limit(stream: TcpStream, time: Duration) -> TimeoutStream<TcpStream> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(time));
    stream
}
