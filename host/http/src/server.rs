//! Accepts a bounded number of connections, limits the time for receiving requests and sending responses, and drains
//! connections when the host stops.
//!
//! A dedicated thread accepts connections and reads their first bytes. It serves `/livez` and `/readyz` itself,
//! regardless of the load of other threads and the number of connections. Every other connection needs a slot and is
//! handed to the API threads.

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

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of connections. Each needs a task, a descriptor and a buffer of up to 64 KiB; the setting
    /// `http.answer_memory` bounds the memory of responses. More than the maximum number of table followers (see `live`),
    /// so that followers leave connections for requests.
    pub connections: usize,
    /// Maximum number of connections from one address; all of loopback is one.
    pub connections_of_peer: usize,
    /// Maximum number of connections that have not sent anything yet, or request `/livez` or `/readyz`. A new one replaces
    /// the oldest.
    pub newcomers: usize,
    /// Maximum time from the start of a connection, or the end of a response, to a complete request header.
    pub header_time: Duration,
    /// Maximum time that a client may leave a response unread.
    pub write_time: Duration,
    /// Maximum time for completing pending responses when the host stops.
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

/// Maximum size of a request header, and of the buffer of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// Pause after an accept failed for lack of descriptors or memory: an immediate retry would only waste CPU time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Response to a client for whose connection there is no slot.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Number of API threads. Requests mostly wait for the database, so two threads are enough for many clients.
const THREADS: usize = 2;

/// The API threads, which run at lower CPU priority than ingestion. Dropping them cancels their tasks.
#[derive(Debug)]
pub struct Threads {
    /// None after drop.
    runtime: Option<Runtime>,
    handle: Handle,
    /// The thread that accepts connections and serves health requests. None after drop.
    front: Option<Runtime>,
    front_handle: Handle,
}

impl Threads {
    /// Starts the threads. Start and drop are possible within any runtime.
    ///
    /// # Errors
    /// If the system cannot create threads.
    pub fn start() -> io::Result<Self> {
        let api = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("lantern-api")
            .on_thread_start(lantern_lifecycle::lower_priority())
            .enable_all()
            .build()?;
        // Normal priority: health requests must succeed on a busy machine too.
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

    /// Spawns a task on the API threads. Threads that it starts, such as those of database connections, inherit the
    /// priority.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(work)
    }

    /// Serves until `shutdown`, with the default limits. The returned task ends when the pending responses are sent.
    ///
    /// # Errors
    /// If the listener cannot be moved to the runtime.
    pub fn serve(
        &self,
        listener: TcpListener,
        state: State,
        shutdown: CancellationToken,
    ) -> io::Result<JoinHandle<()>> {
        let listener = listener.into_std()?;
        // The listener must be registered with the runtime that serves it.
        let _runtime = self.front_handle.enter();
        let listener = TcpListener::from_std(listener)?;
        let serving = serve_on(self.handle.clone(), listener, state, shutdown, Limits::default());
        Ok(self.front_handle.spawn(serving))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for runtime in [self.runtime.take(), self.front.take()].into_iter().flatten() {
            // Tokio does not allow waiting for a runtime on a thread of another one.
            runtime.shutdown_background();
        }
    }
}

/// Serves until `shutdown`; returns when the pending responses are sent or `drain_time` has elapsed.
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
    let failures = Repeats::new(Duration::from_secs(30));
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &failures) => accepted,
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
            "aborted pending responses after the drain time"
        );
        server.cut_off.cancel();
    }
    server.tasks.wait().await;
}

/// State that all connections share.
struct Server {
    router: Router,
    /// Runtime of the API threads.
    api: Handle,
    slots: Slots,
    /// Connections before their first request.
    newcomers: Slots,
    cut_off: CancellationToken,
    tasks: TaskTracker,
    limits: Limits,
}

impl Server {
    /// Waits for the first bytes of a connection, then serves it here or hands it to the API threads.
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
            () = place.must_close() => return,
            first = tokio::time::timeout(self.limits.header_time, is_for_health(&stream)) => first,
        };
        match first {
            Ok(Ok(true)) => self.serve(stream, peer, place, watcher, false).await,
            Ok(Ok(false)) => {
                drop(place);
                match self.slots.take(peer.counted()) {
                    Some(slot) => self.hand_over(stream, peer, slot, watcher),
                    None => reject(stream).await,
                }
            }
            // The client disconnected or sent nothing in time.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Hands a connection to the API threads.
    fn hand_over(self: Arc<Self>, stream: TcpStream, peer: Peer, slot: Slot, watcher: Watcher) {
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "failed to hand over a connection");
                return;
            }
        };
        let server = Arc::clone(&self);
        let served = async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => server.serve(stream, peer, slot, watcher, true).await,
                Err(error) => tracing::debug!(%error, "failed to register a connection with the API threads"),
            }
        };
        self.tasks.spawn_on(served, &self.api);
    }

    /// Serves the requests of a connection, or only the first.
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
            // Clients cause most errors: they disconnect, are too slow, or send invalid HTTP.
            end = connection => if let Err(error) = end {
                tracing::debug!(%error, "connection ended with an error");
            },
            () = slot.must_close() => {}
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

/// A body that marks its connection as busy until it is sent.
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

/// Whether a connection begins with a request for `/livez` or `/readyz`. Does not consume the bytes.
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

/// Sends the response [`FULL`] and closes the connection.
async fn reject(mut stream: TcpStream) {
    // Unread data would make the system reset the connection before the client reads the response.
    let mut request = [0; 4096];
    drop(stream.try_read(&mut request));
    drop(stream.write_all(FULL).await);
    drop(stream.shutdown().await);
}

/// Waits for the next connection.
async fn accept(listener: &TcpListener, failures: &Repeats) -> (TcpStream, Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Responses are written completely; Nagle's algorithm would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "failed to set TCP_NODELAY");
                }
                return (stream, Peer(address.ip()));
            }
            // The client is gone; try the next one.
            Err(error) if is_client_error(&error) => {}
            Err(error) => {
                if let Some(held_back) = failures.note(&error.to_string()) {
                    tracing::error!(%error, held_back, "failed to accept a connection; will retry");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_client_error(error: &io::Error) -> bool {
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
