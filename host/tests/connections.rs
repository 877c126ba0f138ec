//! The server on a real socket: slow clients, many clients, and the end.

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
use lantern::http::{Limits, serve_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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

/// One answer of a connection that stays open.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
        let read = read.expect("no answer").unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(answer).unwrap()
}

/// How long it takes until the server closes the connection.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    // A reset is a close as well.
    let _ = read.expect("the server keeps the connection");
    began.elapsed()
}

fn short() -> Limits {
    Limits {
        header_time: Duration::from_secs(1),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_its_header_is_closed() {
    let server = server(short()).await;
    let mut silent = connect(&server).await;
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: loc").await.unwrap();
    for stream in [&mut silent, &mut slow] {
        let time = closed_after(stream).await;
        assert!(time < Duration::from_secs(3), "{time:?}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_closed_when_it_idles() {
    let server = server(short()).await;
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        assert!(ask(&mut stream, LIVE).await.starts_with("HTTP/1.1 200"));
    }
    let time = closed_after(&mut stream).await;
    assert!(time < Duration::from_secs(3), "{time:?}");
}

#[tokio::test]
async fn more_clients_than_there_is_room_for_wait_their_turn() {
    let server = server(Limits {
        connections: 4,
        header_time: Duration::from_secs(1),
        ..Limits::default()
    })
    .await;
    let mut holders = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&server).await;
        ask(&mut stream, LIVE).await;
        holders.push(stream);
    }
    // These four end by the header time, and only then is the fifth accepted.
    let mut fifth = connect(&server).await;
    let began = Instant::now();
    ask(&mut fifth, LIVE).await;
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn garbage_and_giant_headers_are_refused() {
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
        // The server may hang up before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer))
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
        header_time: Duration::from_secs(30),
        ..Limits::default()
    })
    .await;
    // More than the sockets' own buffers hold.
    server
        .database
        .writer()
        .execute_batch(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 14)
             INSERT INTO things (id, body, _origin, _sequence, _row) SELECT x, zeroblob(1 << 20), 1, x, 0 FROM n",
        )
        .unwrap();
    let mut deaf = connect(&server).await;
    deaf.write_all(b"GET /api/v1/tables/things/rows HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    // It holds the only place, so an answer to somebody else means that it was closed.
    let mut other = connect(&server).await;
    ask(&mut other, LIVE).await;
    drop(deaf);
}

#[tokio::test]
async fn the_end_waits_for_answers_but_not_for_idle_clients() {
    let server = server(Limits::default()).await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(&server).await;
        ask(&mut stream, LIVE).await;
        idle.push(stream);
    }
    let silent = connect(&server).await;
    let began = Instant::now();
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .expect("it did not end")
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "it still listens"
    );
    drop((idle, silent));
}
