//! Tests the server on a real socket: slow clients, many clients, and shutdown.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by them"
)]

#[path = "api/database.rs"]
mod database;

use std::time::{Duration, Instant};

use database::Database;
use lantern_http::{Limits, serve_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Ends a test that would not end; far longer than anything takes that a test waits for.
const LIMIT: Duration = Duration::from_secs(60);
/// A time limit of the server that no test reaches.
const NEVER: Duration = Duration::from_secs(3_600);

struct Server {
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    database: Database,
}

async fn server(limits: Limits) -> Server {
    let database = Database::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve_with(
        listener,
        database.state().await,
        shutdown.clone(),
        limits,
    ));
    Server {
        address,
        shutdown,
        task,
        database,
    }
}

const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

const INFO: &[u8] = b"GET /api/v1/info HTTP/1.1\r\nhost: localhost\r\n\r\n";
const ROWS: &[u8] = b"GET /api/v1/tables/things/rows HTTP/1.1\r\nhost: localhost\r\n\r\n";
const TAIL: &[u8] = b"GET /api/v1/tables/things/tail HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Sends a request and reads the head of the response.
async fn begin(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = tokio::time::timeout(LIMIT, stream.read_u8()).await;
        head.push(read.expect("no answer").unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends a request and returns the whole response.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    let head = begin(stream, request).await;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// Sends requests, each on a new connection, until the status is 200.
async fn until_answered(server: &Server, request: &[u8]) {
    let began = Instant::now();
    loop {
        let mut stream = connect(server).await;
        if begin(&mut stream, request).await.starts_with("HTTP/1.1 200") {
            return;
        }
        assert!(began.elapsed() < LIMIT, "never answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the server closes the connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
    // A reset counts as a close.
    let _ = read.expect("the server keeps the connection");
}

fn with_header_time(header_time: Duration) -> Limits {
    Limits {
        header_time,
        ..Limits::default()
    }
}

fn short() -> Limits {
    with_header_time(Duration::from_secs(1))
}

#[tokio::test]
async fn a_client_that_never_finishes_its_header_is_closed() {
    let patient = server(with_header_time(NEVER)).await;
    let server = server(short()).await;
    let part = b"GET /livez HTTP/1.1\r\nhost: loc";
    let mut kept = connect(&patient).await;
    kept.write_all(part).await.unwrap();
    let mut silent = connect(&server).await;
    let mut slow = connect(&server).await;
    slow.write_all(part).await.unwrap();
    for stream in [&mut silent, &mut slow] {
        closed(stream).await;
    }
    let rest = ask(&mut kept, b"alhost\r\n\r\n").await;
    assert!(
        rest.ends_with("ok\n"),
        "the limit is the one of the server: {rest}"
    );
}

#[tokio::test]
async fn a_connection_is_reused_and_closed_when_idle() {
    let server = server(short()).await;
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        assert!(ask(&mut stream, INFO).await.starts_with("HTTP/1.1 200"));
    }
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_new_connection_replaces_an_idle_one() {
    let server = server(Limits {
        connections: 4,
        header_time: NEVER,
        ..Limits::default()
    })
    .await;
    let mut holders = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&server).await;
        ask(&mut stream, INFO).await;
        holders.push(stream);
    }
    let mut fifth = connect(&server).await;
    assert!(ask(&mut fifth, INFO).await.starts_with("HTTP/1.1 200"));
    // The oldest one.
    closed(&mut holders[0]).await;
    assert!(ask(&mut holders[3], INFO).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_host_reports_liveness_when_all_connections_are_busy() {
    for (connections, connections_of_peer) in [(2, 100), (100, 2)] {
        let server = server(Limits {
            connections,
            connections_of_peer,
            newcomers: 4,
            ..Limits::default()
        })
        .await;
        let mut followers = Vec::new();
        for _ in 0..2 {
            let mut stream = connect(&server).await;
            assert!(begin(&mut stream, TAIL).await.starts_with("HTTP/1.1 200"));
            followers.push(stream);
        }
        // Silent connections do not block other clients either.
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(connect(&server).await);
        }
        let refused = begin(&mut connect(&server).await, INFO).await;
        assert!(
            refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"),
            "{refused}"
        );
        for path in ["livez", "readyz"] {
            let request = format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let answer = ask(&mut connect(&server).await, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        drop(followers);
        until_answered(&server, INFO).await;
    }
}

/// Resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_use_bounded_memory() {
    const CLIENTS: usize = 60;
    let server = server(Limits::default()).await;
    server
        .database
        .writer()
        .execute(
            "INSERT INTO things (id, \"order\", _origin, _sequence, _row) VALUES (1, ?1, 1, 1, 0)",
            ["a".repeat(7_000_000)],
        )
        .unwrap();
    let before = resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = connect(&server).await;
        stream.write_all(ROWS).await.unwrap();
        clients.push(stream);
    }
    // Each client receives a response or a 503 with Retry-After.
    let mut served = 0;
    for client in &mut clients {
        let mut head = [0; 12];
        let read = tokio::time::timeout(LIMIT, client.read_exact(&mut head)).await;
        read.expect("no answer").unwrap();
        match &head {
            b"HTTP/1.1 200" => served += 1,
            b"HTTP/1.1 503" => {}
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }
    assert!(
        (1..CLIENTS / 2).contains(&served),
        "{served} of {CLIENTS} hold an answer"
    );
    let grown = resident_bytes().saturating_sub(before);
    // All of them together would need 420 MB; other tests of this process run at the same time.
    assert!(grown < 128 << 20, "{grown} bytes");
    assert!(ask(&mut connect(&server).await, LIVE).await.ends_with("ok\n"));
    drop(clients);
    until_answered(&server, ROWS).await;
}

#[tokio::test]
async fn invalid_and_oversized_headers_are_rejected() {
    let server = server(Limits::default()).await;
    let giant = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "a".repeat(200_000)
    );
    for request in [
        "\x16\x03\x01\x02\x00".repeat(10).as_str(),
        "GARBAGE\r\n\r\n",
        giant.as_str(),
    ] {
        let mut stream = connect(&server).await;
        // The server may close the connection before the whole request is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    ask(&mut connect(&server).await, LIVE).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed() {
    let server = server(Limits {
        connections: 1,
        write_time: Duration::from_millis(500),
        header_time: NEVER,
        ..Limits::default()
    })
    .await;
    // More than the buffers of the sockets hold.
    server
        .database
        .writer()
        .execute_batch(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 14)
             INSERT INTO things (id, body, _origin, _sequence, _row) SELECT x, zeroblob(1 << 20), 1, x, 0 FROM n",
        )
        .unwrap();
    let mut deaf = connect(&server).await;
    assert!(begin(&mut deaf, ROWS).await.starts_with("HTTP/1.1 200"));
    // This client holds the only slot, so a response to another client proves that the server closed the connection.
    until_answered(&server, INFO).await;
    drop(deaf);
}

#[tokio::test]
async fn shutdown_waits_for_responses_but_not_for_idle_clients() {
    let server = server(Limits {
        header_time: NEVER,
        drain_time: NEVER,
        ..Limits::default()
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(&server).await;
        ask(&mut stream, LIVE).await;
        idle.push(stream);
    }
    let silent = connect(&server).await;
    server.shutdown.cancel();
    tokio::time::timeout(LIMIT, server.task)
        .await
        .expect("it did not end")
        .unwrap();
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "it still listens"
    );
    drop((idle, silent));
}
