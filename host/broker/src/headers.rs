//! Message headers in Lantern's form: name and value pairs, sorted by name, values in the order sent. Owns the parser
//! for header bytes. The client library parses the headers of delivered messages itself and returns only what it
//! accepted; this parser gives the same result for everything that the library accepts, and a defined result for the
//! rest. So a message has the same headers however it was read.

use async_nats::{HeaderMap, StatusCode};

/// The subject of a delivery. The broker accepts NUL in a subject, and a text column of PostgreSQL does not.
pub(super) fn subject_text(subject: String) -> String {
    match subject.as_bytes().contains(&0) {
        true => subject.replace('\0', "\u{fffd}"),
        false => subject,
    }
}

/// The headers of a message; none if it has none.
pub(super) fn of(map: Option<&HeaderMap>) -> Vec<(String, String)> {
    map.map(from_map).unwrap_or_default()
}

/// The headers that the library parsed.
fn from_map(map: &HeaderMap) -> Vec<(String, String)> {
    let headers = map.iter().flat_map(|(name, values)| {
        values
            .iter()
            .map(move |value| (name.to_string(), value.as_str().to_owned()))
    });
    sorted(headers.collect())
}

/// Parses any header bytes; the broker stores everything that ends in an empty line. A line ends at LF or CR LF, and a
/// line that begins with white space continues the value before it. Bytes that are not UTF-8 become U+FFFD; a line
/// without a colon is a name without a value.
pub(super) fn from_bytes(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let mut headers = Vec::new();
    let mut lines = text.lines().skip(1).peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|next| next.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        value.truncate(value.trim_end().len());
        headers.push((name.to_owned(), value));
    }
    sorted(headers)
}

/// Whether the library ends its connection when it receives a message with this subject and these header bytes. It
/// rejects some headers and panics on others (nats.rs #1612); the connection is lost in both cases.
pub(super) fn break_the_connection(subject: &str, bytes: &[u8]) -> bool {
    // Stored subjects arrive as JSON, where the broker has replaced bytes that are not UTF-8.
    if subject.contains(char::REPLACEMENT_CHARACTER) {
        return true;
    }
    if bytes.is_empty() {
        return false;
    }
    // The library splits the line before a message with headers at any Unicode white space.
    let Ok(text) = std::str::from_utf8(bytes) else {
        return true;
    };
    subject.contains(char::is_whitespace) || !version_is_accepted(text) || !lines_are_accepted(text)
}

/// The first line: `NATS/1.0`, optionally with a status of three digits and a description.
fn version_is_accepted(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("NATS/1.0").map(str::trim).is_some_and(|rest| {
        let status = rest.split_once(' ').map_or(rest, |(status, _)| status.trim());
        status.is_empty() || status.parse::<StatusCode>().is_ok()
    })
}

fn lines_are_accepted(text: &str) -> bool {
    // A lone CR in a value or its continuation makes the library panic; CR in a name is rejected like any other
    // character that is not graphic.
    let has_return = |line: &str| line.contains('\r');
    let mut lines = text.lines().skip(1).peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        if !name.chars().all(|letter| letter.is_ascii_graphic()) {
            return false;
        }
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|next| next.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if has_return(value.trim_end()) {
            return false;
        }
    }
    true
}

/// Stable, so that the values of one name keep their order.
fn sorted(mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// The library's result for a message; `None` when it ends the connection instead.
    async fn by_the_library(subject: &str, headers: &[u8]) -> Option<Vec<(String, String)>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut message =
            format!("HMSG {subject} 1 r.1 {} {}\r\n", headers.len(), headers.len() + 1).into_bytes();
        message.extend(headers);
        message.extend(b"x\r\n");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // A second attempt fails at once.
            drop(listener);
            let info = b"INFO {\"server_id\":\"t\",\"version\":\"2.15.1\",\"headers\":true,\"max_payload\":1000}\r\n";
            stream.write_all(info).await.unwrap();
            let (mut sent, mut seen, mut buffer) = (false, Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                seen.extend(&buffer[..count]);
                if seen.ends_with(b"PING\r\n") {
                    stream.write_all(b"PONG\r\n").await.unwrap();
                }
                if !sent && seen.windows(4).any(|word| word == b"SUB ") {
                    sent = true;
                    stream.write_all(&message).await.unwrap();
                }
            }
        });
        let options = async_nats::ConnectOptions::new().max_reconnects(1);
        let client = options.connect(address.to_string()).await.unwrap();
        let mut subscriber = client.subscribe(subject.to_owned()).await.unwrap();
        let message = tokio::time::timeout(std::time::Duration::from_secs(10), subscriber.next());
        let message = message.await.expect("neither a message nor an end");
        server.abort();
        message.map(|message| of(message.headers.as_ref()))
    }

    /// Each entry is possible publisher input; all end in an empty line, as the broker requires.
    const INPUTS: [&[u8]; 30] = [
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nB: 2\r\nA: x\r\nB:1\r\n\r\n",
        b"NATS/1.0\r\nX: a\rb\r\n\r\n",
        b"NATS/1.0\r\nX: a\r\r\n\r\n",
        b"NATS/1.0\r\nX: \ra\r\n\r\n",
        b"NATS/1.0\r\nA: x\nB: y\r\n\r\n",
        b"NATS/1.0\r\nA: x\n\nB: y\r\n\r\n",
        b"NATS/1.0\nA: x\r\n\r\n",
        b"NATS/1.0\r\nA: x\r\n more\r\n\tand more\r\n\r\n",
        b"NATS/1.0\r\nA: x\r\n\xc2\xa0more\r\n\r\n",
        b"NATS/1.0\r\nA: x\r\n \rmore\r\n\r\n",
        b"NATS/1.0\r\nA: x\r\n\r\n B: y\r\n\r\n",
        b"NATS/1.0\r\n A: x\r\n\r\n",
        b"NATS/1.0\r\nA:\xc2\xa0x\xe2\x80\x83\r\n\r\n",
        b"NATS/1.0\r\nA: \xff\r\n\r\n",
        b"NATS/1.0\r\nnocolon\r\n\r\n",
        b"NATS/1.0\r\nBad Name: x\r\n\r\n",
        b"NATS/1.0\r\nN\xc3\xa4me: x\r\n\r\n",
        b"NATS/1.0\r\n: no name\r\n\r\n",
        b"NATS/1.0\r\nA:\r\n\r\n",
        b"NATS/1.0\r\nA: x: y\r\n\r\n",
        b"NATS/1.0\r\nnats-msg-id: x\r\nNats-Msg-Id: y\r\n\r\n",
        b"NATS/1.0\r\nA: x\x00y\r\n\r\n",
        b"NATS/1.0\r\nA\rB: x\r\n\r\n",
        b"NATS/1.0 503\r\nA: x\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nA: x\r\n\r\n",
        b"NATS/1.0 abc\r\nA: x\r\n\r\n",
        b"NATS/1.01\r\nA: x\r\n\r\n",
        b"NATS/2.0\r\nA: x\r\n\r\n",
        b"NATS/1.0  1000 \r\nA: x\r\n\r\n",
    ];

    #[tokio::test(flavor = "multi_thread")]
    async fn both_parsers_agree_on_accepted_headers_and_the_rest_breaks_the_library() {
        for input in INPUTS {
            let text = String::from_utf8_lossy(input).into_owned();
            let library = by_the_library("a.b", input).await;
            assert_eq!(break_the_connection("a.b", input), library.is_none(), "{text:?}");
            if let Some(headers) = library {
                assert_eq!(from_bytes(input), headers, "{text:?}");
            }
        }
        let plain = b"NATS/1.0\r\nA: x\r\n\r\n";
        for subject in ["a.b", "a.\u{a0}b", "a.\u{b}b", "a.\u{85}b", "a.\u{200b}b"] {
            let library = by_the_library(subject, plain).await;
            assert_eq!(
                break_the_connection(subject, plain),
                library.is_none(),
                "{subject:?}"
            );
        }
        assert!(break_the_connection("a.\u{fffd}", b""));
        assert!(!break_the_connection("a.\u{a0}", b""));
    }

    #[test]
    fn any_header_bytes_become_text() {
        let headers =
            from_bytes(b"NATS/1.0\r\nB: 2\r\nA: \xff\r\nB:1\r\nnocolon\r\nBad Name:x: y\r\n more\r\n\r\n");
        let pairs: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("A", "\u{fffd}"),
                ("B", "2"),
                ("B", "1"),
                ("Bad Name", "x: y more"),
                ("nocolon", "")
            ]
        );
        assert_eq!(
            from_bytes(b"NATS/1.0\r\nX: a\rb\r\n\r\n"),
            [("X".to_owned(), "a\rb".to_owned())]
        );
        assert!(from_bytes(b"").is_empty());
    }

    #[test]
    fn a_map_is_sorted_and_keeps_the_order_of_values() {
        let mut map = HeaderMap::new();
        for (name, value) in [("b", "2"), ("b", "1"), ("a", "x")] {
            map.append(name, value);
        }
        let expected = [("a", "x"), ("b", "2"), ("b", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(from_map(&map), expected);
    }
}
