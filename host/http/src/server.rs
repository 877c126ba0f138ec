//! Connections: accepted up to a number, each with limits on the time for reading a request and for writing an
//! answer, and ended in order when the host stops.
//!
//! A dedicated thread accepts them and looks at the first bytes. It answers `/livez` and `/readyz` itself, however much
//! the other threads have to do and however many connections there are; every other connection gets a slot, if there is
//! one, and goes to the threads of the API.

mod slots;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::budget::Peer;
use super::router::router;
use super::state::State;
use lantern_telemetry::Repeats;
use slots::{Busy, Slot, Slots};

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Each costs a task, a descriptor and a buffer of up to 64 KiB; what else answers take is
    /// bounded by the setting `http.answer_memory`. More than follow tables (see `live`), so that those who listen
    /// leave room for those who ask.
    pub connections: usize,
    /// Connections from one address at once; all of loopback is one.
    pub connections_of_peer: usize,
    /// Connections that have not sent anything yet, or ask for `/livez` and `/readyz`. The oldest gives way to the next.
    pub newcomers: usize,
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
            connections_of_peer: 672,
            newcomers: 256,
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

/// Why a client without a slot is sent away.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Threads that answer. Answers wait for the database most of the time, so two are enough for many clients.
const THREADS: usize = 2;

/// Threads for those who ask, which give way to those that store rows: whoever looks does not slow down what is looked
/// at. When they are dropped, what is still under way there is dropped too.
#[derive(Debug)]
pub struct Threads {
    /// Some until they are dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    /// The thread that accepts connections and answers whether the host is alive. Some until it is dropped.
    front: Option<Runtime>,
    front_handle: Handle,
}

impl Threads {
    /// Starts them. It may be called on any runtime, and they may be dropped there.
    ///
    /// # Errors
    /// When the system has no threads left.
    pub fn start() -> io::Result<Self> {
        let api = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("lantern-api")
            .on_thread_start(giving_way())
            .enable_all()
            .build()?;
        // It has little to do, and does not give way: the host says that it is alive when the machine is busy as well.
        let front = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lantern-front")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: api.handle().clone(),
            runtime: Some(api),
            front_handle: front.handle().clone(),
            front: Some(front),
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
        let _there = self.front_handle.enter();
        let listener = TcpListener::from_std(listener)?;
        let serving = serve_on(self.handle.clone(), listener, state, shutdown, Limits::default());
        Ok(self.front_handle.spawn(serving))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for runtime in [self.runtime.take(), self.front.take()].into_iter().flatten() {
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
    serve_on(Handle::current(), listener, state, shutdown, limits).await;
}

/// Accepts connections here and serves them on `api`.
async fn serve_on(
    api: Handle,
    listener: TcpListener,
    state: State,
    shutdown: CancellationToken,
    limits: Limits,
) {
    let server = Arc::new(Server {
        router: router(state),
        api,
        slots: Slots::new(limits.connections, limits.connections_of_peer),
        newcomers: Slots::new(limits.newcomers, limits.newcomers),
        cut_off: CancellationToken::new(),
        tasks: TaskTracker::new(),
        limits,
    });
    let graceful = GracefulShutdown::new();
    let troubles = Repeats::new(Duration::from_secs(30));
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &troubles) => accepted,
        };
        let received = Arc::clone(&server).receive(stream, peer, graceful.watcher(), shutdown.clone());
        server.tasks.spawn(received);
    }
    drop(listener);
    server.tasks.close();
    if tokio::time::timeout(limits.drain_time, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = server.tasks.len(),
            "some answers were cut off at the end"
        );
        server.cut_off.cancel();
    }
    server.tasks.wait().await;
}

/// What all connections share.
struct Server {
    router: Router,
    /// Where requests are answered.
    api: Handle,
    slots: Slots,
    /// Connections of which it is not known yet what they want.
    newcomers: Slots,
    cut_off: CancellationToken,
    tasks: TaskTracker,
    limits: Limits,
}

impl Server {
    /// Waits for the first bytes of a connection, and serves it here or on the threads of the API.
    async fn receive(
        self: Arc<Self>,
        stream: TcpStream,
        peer: Peer,
        watcher: Watcher,
        shutdown: CancellationToken,
    ) {
        let Some(place) = self.newcomers.take(peer.counted()) else {
            return;
        };
        let first = tokio::select! {
            () = shutdown.cancelled() => return,
            () = place.has_to_give_way() => return,
            first = tokio::time::timeout(self.limits.header_time, is_for_health(&stream)) => first,
        };
        match first {
            Ok(Ok(true)) => self.serve(stream, peer, place, watcher, false).await,
            Ok(Ok(false)) => {
                drop(place);
                match self.slots.take(peer.counted()) {
                    Some(slot) => self.hand_over(stream, peer, slot, watcher),
                    None => refuse(stream).await,
                }
            }
            // It hung up, or was silent for too long.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Serves a connection on the threads of the API.
    fn hand_over(self: Arc<Self>, stream: TcpStream, peer: Peer, slot: Slot, watcher: Watcher) {
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection cannot be moved to another thread");
                return;
            }
        };
        let server = Arc::clone(&self);
        let served = async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => server.serve(stream, peer, slot, watcher, true).await,
                Err(error) => tracing::debug!(%error, "a connection cannot be served on another thread"),
            }
        };
        self.tasks.spawn_on(served, &self.api);
    }

    /// Answers the requests of a connection, or only the first.
    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: Peer,
        slot: Slot,
        watcher: Watcher,
        keep_alive: bool,
    ) {
        let slot = Arc::new(slot);
        let (router, own) = (self.router.clone(), Arc::clone(&slot));
        let service = service_fn(move |request| answer(router.clone(), request, peer, own.busy()));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .keep_alive(keep_alive)
            .header_read_timeout(self.limits.header_time)
            .max_buf_size(BUFFER_BYTES);
        let io = TokioIo::new(Box::pin(with_write_limit(stream, self.limits.write_time)));
        let connection = watcher.watch(builder.serve_connection(io, service));
        tokio::select! {
            // How a connection ends is the client's affair: it hung up, was too slow or sent no HTTP.
            end = connection => if let Err(error) = end {
                tracing::debug!(%error, "a connection ended early");
            },
            () = slot.has_to_give_way() => {}
            () = self.cut_off.cancelled() => {}
        }
    }
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    peer: Peer,
    busy: Busy,
) -> Result<Response<Answer>, Infallible> {
    request.extensions_mut().insert(peer);
    let response = router.oneshot(request.map(Body::new)).await?;
    Ok(response.map(|body| Answer { body, _busy: busy }))
}

/// A body, and that its connection is at work until it is sent.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a connection begins with a request for `/livez` or `/readyz`. The bytes remain to be read.
async fn is_for_health(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 12];
    let length = stream.peek(&mut first).await?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let first = &first[..length];
    Ok([&b"GET /livez "[..], b"GET /readyz "]
        .iter()
        .any(|health| first.starts_with(health)))
}

/// Tells a client that there is no slot for its connection.
async fn refuse(mut stream: TcpStream) {
    // What is not read would make the system reset the connection before the answer is read.
    let mut request = [0; 4096];
    drop(stream.try_read(&mut request));
    drop(stream.write_all(FULL).await);
    drop(stream.shutdown().await);
}

/// The next connection, however long it takes.
async fn accept(listener: &TcpListener, troubles: &Repeats) -> (TcpStream, Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Answers are written whole; waiting for more to send only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection cannot be told not to wait");
                }
                return (stream, Peer(address.ip()));
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
