//! A real `nats-server` for tests: on a free port, with its own store, and with fault injection. Drop kills the server
//! and removes its store.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness fails like the tests that use it"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use rustix::process::{Pid, Signal, kill_process};

/// A running (or stopped) server.
pub struct NatsServer {
    binary: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    extra: String,
    /// Extra settings inside `jetstream { }`; `None` starts the server without JetStream.
    jetstream: Option<String>,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts a server with JetStream.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The process of the running server.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Starts a server with JetStream and extra configuration lines.
    pub fn start_with(extra: &str) -> Self {
        let mut server = Self::prepared(extra);
        server.restart();
        server
    }

    /// Starts a server with extra JetStream settings.
    pub fn start_with_jetstream(settings: &str) -> Self {
        let mut server = Self::prepared("");
        server.set_jetstream(settings);
        server.restart();
        server
    }

    /// Starts a server that stores nothing.
    pub fn without_jetstream(extra: &str) -> Self {
        let mut server = Self::prepared(extra);
        server.jetstream = None;
        server.restart();
        server
    }

    /// Replaces the extra JetStream settings; takes effect with the next `restart`.
    pub fn set_jetstream(&mut self, settings: &str) {
        self.jetstream = Some(settings.to_owned());
    }

    /// Chooses a port and a store without starting the server.
    pub fn prepared(extra: &str) -> Self {
        Self {
            binary: binary(),
            port: free_port(),
            folder: tempfile::tempdir().unwrap(),
            extra: extra.to_owned(),
            jetstream: Some(String::new()),
            child: None,
        }
    }

    /// Replaces the extra configuration; takes effect with the next `restart`.
    pub fn configure(&mut self, extra: &str) {
        self.extra = extra.to_owned();
    }

    /// Reloads the configuration after a change by `configure`.
    pub fn reload(&self) {
        self.write_config();
        signal(self.child.as_ref().unwrap(), Signal::HUP);
    }

    fn write_config(&self) -> PathBuf {
        let config = self.folder.path().join("nats.conf");
        let jetstream = self.jetstream.as_ref().map(|settings| {
            let store = self.folder.path().join("js").display().to_string();
            format!("jetstream {{ store_dir: {store:?} \n {settings} }}\n")
        });
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nmax_payload: 8MB\n{}{}\n",
            self.port,
            jetstream.unwrap_or_default(),
            self.extra
        );
        std::fs::write(&config, text).unwrap();
        config
    }

    /// Starts the server with the same store and port; kills it first if it runs.
    pub fn restart(&mut self) {
        self.kill();
        let config = self.write_config();
        let log = std::fs::File::create(self.folder.path().join("nats.log")).unwrap();
        let child = Command::new(&self.binary)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !greets(self.port) {
            assert!(
                Instant::now() < deadline,
                "the server does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server immediately, like a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops the server gracefully.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::TERM);
            child.wait().unwrap();
        }
    }

    /// Freezes the server: connections stay open, but it does not respond.
    pub fn freeze(&self) {
        signal(self.child.as_ref().unwrap(), Signal::STOP);
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        signal(self.child.as_ref().unwrap(), Signal::CONT);
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder with store, configuration and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("nats.log")).unwrap_or_default()
    }

    /// Returns a plain client, for actions of a test without Lantern.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    /// Returns a JetStream context of a plain client.
    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client().await)
    }

    /// Creates a stream with a plain client.
    pub async fn create_stream(&self, config: jetstream::stream::Config) -> jetstream::stream::Stream {
        self.jetstream().await.create_stream(config).await.unwrap()
    }

    /// Opens a bare connection and sends CONNECT, for data that no client library sends.
    pub fn raw(&self) -> TcpStream {
        raw(self.port).unwrap()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Publishes a message, and waits until the broker has stored it.
pub async fn publish(
    context: &jetstream::Context,
    subject: impl async_nats::subject::ToSubject,
    payload: impl Into<Vec<u8>>,
) {
    let ack = context.publish(subject, payload.into().into()).await.unwrap();
    ack.await.unwrap();
}

/// Returns the configuration of a stream with one subject filter.
pub fn stream(name: &str, subject: &str) -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    }
}

/// Returns the configuration of a mirror of a stream.
pub fn mirror(name: &str, of: &str) -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: name.to_owned(),
        mirror: Some(jetstream::stream::Source {
            name: of.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Opens a bare connection to the server at this port and sends CONNECT.
pub fn raw(port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"CONNECT {\"headers\":true,\"verbose\":false}\r\n")?;
    Ok(stream)
}

/// Returns whether a server at this port sends its greeting.
pub(crate) fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).is_ok() && &greeting == b"INFO "
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Returns a free port.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Returns the path of the `nats-server` to test with.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    find("LANTERN_NATS_SERVER", on_path, "nats-server")
}

/// Returns the path of the older `nats-server`, whose clusters change the creation time of streams.
pub fn older_binary() -> PathBuf {
    find("LANTERN_NATS_SERVER_2_14_3", [], "nats-server-2.14.3")
}

/// Returns the program that `variable` names, else one of `others`, else the one that `cargo xtask` has fetched.
fn find(variable: &str, others: impl IntoIterator<Item = PathBuf>, fetched: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/tools")
        .join(fetched);
    named
        .into_iter()
        .chain(others)
        .chain([tools])
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("these tests need {fetched}: run `cargo xtask test`, or name one in {variable}")
        })
}

/// Waits until `condition` holds; panics after `limit` with `what`.
pub async fn eventually(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
