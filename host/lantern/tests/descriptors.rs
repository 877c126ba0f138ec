//! Tests a process without free file descriptors: the accept loop neither spins nor ends, and resumes once descriptors
//! are free. Has its own binary, because the limit applies to the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by them"
)]

#[path = "api/database.rs"]
mod database;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use database::Database;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Reads the processor time of this process. Holds its file open, because the test leaves no descriptor to open one.
struct Processor(File);

impl Processor {
    fn open() -> Self {
        Self(File::open("/proc/self/stat").unwrap())
    }

    /// Returns the processor time so far, in clock ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let mut bytes = [0; 4096];
        let length = self.0.read_at(&mut bytes, 0).unwrap();
        let stat = std::str::from_utf8(&bytes[..length]).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_free_descriptors_waits_and_then_serves() {
    let database = Database::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let state = database.state().await;
    let server = tokio::spawn(lantern_http::serve_with(
        listener,
        state,
        shutdown.clone(),
        lantern_http::Limits::default(),
    ));

    // Create the client's socket before the descriptors run out, and connect it afterwards.
    let client = tokio::net::TcpSocket::new_v4().unwrap();
    let processor = Processor::open();
    let before = processor.ticks();
    let old = getrlimit(Resource::Nofile);
    // The limit is an upper bound of the number of a new descriptor. With 0 no call gets one, even if another thread of
    // this process closes a file in the meantime.
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(0),
            ..old
        },
    )
    .unwrap();
    assert!(File::open("/dev/null").is_err(), "the limit has no effect");

    let mut stream: TcpStream = client.connect(address).await.unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let early = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
    assert!(
        early.is_err(),
        "it was answered without a descriptor to accept with"
    );

    setrlimit(Resource::Nofile, old).unwrap();
    let spent = processor.ticks() - before;
    assert!(spent < 50, "{spent} ticks in two seconds: the loop spins");
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    shutdown.cancel();
    server.await.unwrap();
}
