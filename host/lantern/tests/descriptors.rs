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
use std::time::{Duration, Instant};

use database::Database;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Processor time of this process, in clock ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_it_waits_and_then_serves() {
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
    let old = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(64),
            ..old
        },
    )
    .unwrap();
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    assert!(!held.is_empty());
    // Reading /proc requires a descriptor.
    drop(held.pop());
    let before = ticks();
    held.push(File::open("/dev/null").unwrap());

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

    held.clear();
    let spent = ticks() - before;
    assert!(spent < 50, "{spent} ticks in two seconds: the loop spins");
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "after {:?}", began.elapsed());

    setrlimit(Resource::Nofile, old).unwrap();
    shutdown.cancel();
    server.await.unwrap();
}
