//! Publishes header bytes that no client library sends, over a bare connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Publishes and returns the sequence that the broker acknowledged, if any.
pub fn publish(mut connection: TcpStream, subject: &str, headers: &[u8], payload: &[u8]) -> Option<u64> {
    const INBOX: &str = "_INBOX.faults";
    let limit = Duration::from_secs(2);
    connection.set_read_timeout(Some(limit)).ok()?;
    let total = headers.len() + payload.len();
    let head = format!(
        "SUB {INBOX} 1\r\nHPUB {subject} {INBOX} {} {total}\r\n",
        headers.len()
    );
    let bytes = [head.as_bytes(), headers, payload, b"\r\n"].concat();
    connection.write_all(&bytes).ok()?;
    let (deadline, mut answer) = (Instant::now() + limit, Vec::new());
    let mut buffer = [0; 4096];
    while Instant::now() < deadline {
        match connection.read(&mut buffer) {
            Ok(read @ 1..) => answer.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
        if let Some(sequence) = sequence_in(&String::from_utf8_lossy(&answer)) {
            return Some(sequence);
        }
    }
    None
}

/// Returns the number after `"seq":` once the acknowledgement is complete.
fn sequence_in(answer: &str) -> Option<u64> {
    let (_, rest) = answer.split_once("\"seq\":")?;
    let (number, _) = rest.split_once([',', '}'])?;
    number.trim().parse().ok()
}

#[test]
fn an_acknowledgement_is_read_when_complete() {
    assert_eq!(
        sequence_in(r#"MSG _INBOX.faults 1 30 {"stream":"OBS_EVENTS", "seq":12"#),
        None
    );
    assert_eq!(sequence_in(r#"{"stream":"OBS_EVENTS", "seq":12}"#), Some(12));
}
