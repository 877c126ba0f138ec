//! A real `nats-server` for each test, a proxy to it that can be cut, and helpers.

// Each test program uses a part of this module.
#![allow(dead_code)]

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, stream};
use async_nats::{ConnectOptions, HeaderMap};
use futures_util::StreamExt;
use lantern_outbox::{Broker, Drain, DrainError, DrainOptions, Outbox};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub mod line;

/// Time limit of every wait. Generous, so that a busy machine does not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with its own port and store. Killed when dropped.
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    dir: TempDir,
    config: String,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub subject: String,
    pub id: String,
    pub headers: HeaderMap,
    pub payload: Vec<u8>,
}

impl NatsServer {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with additional configuration lines.
    pub async fn start_with(config: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut server = Self {
            child: None,
            port,
            dir: tempfile::tempdir().unwrap(),
            config: config.to_owned(),
        };
        server.restart().await;
        server
    }

    /// Restarts the server with the same port and store.
    pub async fn restart(&mut self) {
        self.kill();
        let (store, config) = (self.dir.path().join("store"), self.dir.path().join("nats.conf"));
        let text = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {store:?} }}\n{}\n",
            self.port, self.config
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new(binary())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("nats-server starts"));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        wait_for("nats-server to listen", || async move {
            tokio::net::TcpStream::connect(address)
                .await
                .is_ok()
                .then_some(())
        })
        .await;
    }

    /// Restarts the server with other configuration lines.
    pub async fn restart_with(&mut self, config: &str) {
        self.config = config.to_owned();
        self.restart().await;
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by its name, for example `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn broker(&self) -> Broker {
        Broker::new(self.url(), ConnectOptions::new()).unwrap()
    }

    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client().await)
    }

    pub async fn create_stream(&self, name: &str, subjects: &[&str]) -> stream::Stream {
        self.create_stream_with(stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            ..Default::default()
        })
        .await
    }

    pub async fn create_stream_with(&self, config: stream::Config) -> stream::Stream {
        self.jetstream().await.create_stream(config).await.unwrap()
    }

    /// Number of messages in the stream; 0 while the broker does not respond.
    pub async fn count(&self, stream: &str) -> u64 {
        let Ok(client) = async_nats::connect(self.url()).await else {
            return 0;
        };
        let Ok(mut stream) = jetstream::new(client).get_stream(stream).await else {
            return 0;
        };
        stream.info().await.map_or(0, |info| info.state.messages)
    }

    /// All messages of the stream, in order.
    pub async fn messages(&self, stream: &str) -> Vec<Stored> {
        let stream = self.jetstream().await.get_stream(stream).await.unwrap();
        let count = stream.get_info().await.unwrap().state.messages as usize;
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut messages = Vec::with_capacity(count);
        let mut delivered = consumer.messages().await.unwrap();
        while messages.len() < count {
            let next = tokio::time::timeout(PATIENCE, delivered.next()).await;
            let message = next
                .expect("the stream delivers all messages")
                .unwrap()
                .unwrap()
                .message;
            let headers = message.headers.unwrap_or_default();
            messages.push(Stored {
                subject: message.subject.to_string(),
                id: headers
                    .get("Nats-Msg-Id")
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                headers,
                payload: message.payload.to_vec(),
            });
        }
        messages
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server program: from `LANTERN_NATS_SERVER`, from PATH, or installed by `cargo xtask`.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LANTERN_NATS_SERVER") {
        return path.into();
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path)
        .chain([tools])
        .map(|place| place.join("nats-server"));
    places.find(|place| place.is_file()).expect(
        "these tests need a nats-server: set LANTERN_NATS_SERVER, put one on PATH, or run cargo xtask setup",
    )
}

/// A directory for an outbox, in memory if possible, because tests of the drain would mostly wait for the disk. Tests of kills
/// and full disks use a real one.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A running drain.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), DrainError>>,
}

impl Running {
    pub fn start(outbox: &Outbox, broker: Broker) -> Self {
        Self::start_with(outbox, broker, DrainOptions::default())
    }

    pub fn start_with(outbox: &Outbox, broker: Broker, options: DrainOptions) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(Drain::new(outbox, options).run(broker, stop.clone()));
        Self { stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        ended
            .expect("a drain stops within five seconds")
            .unwrap()
            .unwrap();
    }
}

/// Waits until the condition holds, with a limit.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let begin = Instant::now();
    loop {
        if let Some(met) = condition().await {
            return met;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "timed out after {PATIENCE:?} waiting for {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the outbox is empty.
pub async fn wait_until_empty(outbox: &Outbox) {
    wait_until_waiting(outbox, 0).await;
}

/// Waits until at most this many events are pending.
pub async fn wait_until_waiting(outbox: &Outbox, most: u64) {
    let begin = Instant::now();
    while outbox.len().unwrap() > most {
        assert!(
            begin.elapsed() < PATIENCE,
            "events still wait: {:#?}",
            outbox.stats().unwrap()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The payloads on one subject, as text, in the stream's order.
pub fn payloads(messages: &[Stored], subject: &str) -> Vec<String> {
    let on_subject = messages.iter().filter(|message| message.subject == subject);
    on_subject
        .map(|message| String::from_utf8(message.payload.clone()).unwrap())
        .collect()
}

/// Counts from 0 as texts, which is what most tests publish.
pub fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The names of the events that wait.
pub fn event_names(dir: &Path) -> Vec<String> {
    names(dir)
        .into_iter()
        .filter(|name| name.ends_with(".event"))
        .collect()
}
