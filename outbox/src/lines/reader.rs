//! Reads lines of bounded size on a separate thread, and parses them.

use std::io::{self, BufRead, Read as _};
use std::sync::Arc;
use std::thread;

use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::CHUNK_LINES;

/// Maximum number of bytes per chunk.
const CHUNK_BYTES: u32 = 8 * 1024 * 1024;

/// One line without its line ending.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// Longer than the limit; its bytes were skipped.
    TooLong,
}

pub(super) type ReadLine = (io::Result<Line>, Option<OwnedSemaphorePermit>);

/// Reads on a separate thread, because a pipe may block forever. Ends when the receiver is dropped.
pub(super) fn read_lines(
    mut reader: impl BufRead + Send + 'static,
    size_limit: usize,
    whole: bool,
) -> mpsc::Receiver<ReadLine> {
    let (lines, received) = mpsc::channel(CHUNK_LINES);
    let (runtime, bytes) = (
        tokio::runtime::Handle::current(),
        Arc::new(Semaphore::new(CHUNK_BYTES as usize)),
    );
    let errors = lines.clone();
    let read = move || {
        let mut first = true;
        let mut next = || match (whole, std::mem::take(&mut first)) {
            (true, true) => read_all(&mut reader, size_limit).map(Some),
            (true, false) => Ok(None),
            (false, first) => next_line(&mut reader, size_limit, first),
        };
        while let Some(line) = next().transpose() {
            let size = line.as_ref().map_or(0, |line| {
                if let Line::Whole(bytes) = line {
                    bytes.len()
                } else {
                    0
                }
            });
            let size = u32::try_from(size).unwrap_or(u32::MAX).min(CHUNK_BYTES);
            // The semaphore is never closed.
            let permit = runtime.block_on(Arc::clone(&bytes).acquire_many_owned(size)).ok();
            let failed = line.is_err();
            if lines.blocking_send((line, permit)).is_err() || failed {
                return;
            }
        }
    };
    if let Err(error) = thread::Builder::new()
        .name("lantern-outbox-read".to_owned())
        .spawn(read)
    {
        // The channel is empty.
        let _ = errors.try_send((Err(error), None));
    }
    received
}

/// Reads the whole input as one line.
fn read_all(reader: &mut impl BufRead, limit: usize) -> io::Result<Line> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > limit {
        true => Ok(Line::TooLong),
        false => Ok(Line::Whole(bytes)),
    }
}

/// The lines of an input read in chunks of `buffer` bytes; `None` for one that is too long.
pub(crate) fn split(input: &[u8], buffer: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
    let mut reader = io::BufReader::with_capacity(buffer, input);
    let mut lines = Vec::new();
    while let Ok(Some(line)) = next_line(&mut reader, limit, lines.is_empty()) {
        lines.push(match line {
            Line::Whole(bytes) => Some(bytes),
            Line::TooLong => None,
        });
    }
    lines
}

/// The next line without `\n` or `\r\n`; `None` at the end. Skips a byte order mark before the first line.
fn next_line(reader: &mut impl BufRead, limit: usize, first: bool) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let (mut started, mut too_long) = (false, false);
    loop {
        let available = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.is_empty() && !started {
            return Ok(None);
        }
        started = true;
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        // A carriage return and a byte order mark are removed below, so the limit has four extra bytes.
        too_long |= bytes.len() + part.len() > limit.saturating_add(4);
        if !too_long {
            bytes.extend_from_slice(part);
        }
        let (used, at_end) = (
            part.len() + usize::from(end.is_some()),
            end.is_some() || part.is_empty(),
        );
        reader.consume(used);
        if at_end {
            break;
        }
    }
    if too_long {
        return Ok(Some(Line::TooLong));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    if first && bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(Some(Line::Whole(bytes)))
}

/// Reads the message id from a field of a JSON object.
pub(super) fn message_id(bytes: &[u8], field: &str) -> Result<String, String> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|_| format!("not JSON, so it has no {field:?}"))?;
    match &value[field] {
        serde_json::Value::String(text) => Ok(text.clone()),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        serde_json::Value::Null => Err(format!("no {field:?} for the message id")),
        _ => Err(format!("{field:?} is neither text nor a number")),
    }
}

/// Whether the bytes are one JSON text.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(input: &[u8], buffer: usize, limit: usize) -> Vec<Line> {
        let mut reader = BufReader::with_capacity(buffer, input);
        let mut first = true;
        std::iter::from_fn(|| next_line(&mut reader, limit, std::mem::take(&mut first)).unwrap()).collect()
    }

    #[test]
    fn lines_are_split_at_line_endings() {
        let check = |input: &[u8], expected: &[&[u8]]| {
            let expected: Vec<Line> = expected.iter().map(|line| Line::Whole(line.to_vec())).collect();
            for buffer in 1..=input.len() + 1 {
                assert_eq!(
                    lines(input, buffer, 100),
                    expected,
                    "{input:?} through {buffer} bytes"
                );
            }
        };
        check(b"", &[]);
        check(b"\n", &[b""]);
        check(b"a", &[b"a"]);
        check(b"a\n", &[b"a"]);
        check(b"a\r\nb\rc\n\nd", &[b"a", b"b\rc", b"", b"d"]);
        check(b"\xef\xbb\xbfa\n\xef\xbb\xbfb", &[b"a", b"\xef\xbb\xbfb"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped() {
        let input = [&b"short\n"[..], &[b'x'; 5000], b"\nnext\n"].concat();
        let short = Line::Whole(b"short".to_vec());
        let next = Line::Whole(b"next".to_vec());
        assert_eq!(lines(&input, 64, 100), [short, Line::TooLong, next]);
    }

    #[test]
    fn a_message_id_is_text_or_a_number() {
        for (line, expected) in [
            (r#"{"id":"a","n":1}"#, Ok("a")),
            (r#"{"id":7}"#, Ok("7")),
            (r#"{"n":1}"#, Err("no \"id\"")),
            (r#"{"id":null}"#, Err("no \"id\"")),
            (r#"{"id":[1]}"#, Err("neither text nor a number")),
            ("[1]", Err("no \"id\"")),
            ("x", Err("not JSON")),
        ] {
            match (message_id(line.as_bytes(), "id"), expected) {
                (Ok(id), Ok(expected)) => assert_eq!(id, expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
    }

    #[test]
    fn json_is_recognized() {
        for good in [&b"{}"[..], b" [1, 2] ", b"null", b"\"\xc3\xbc\"", b"1e3"] {
            assert!(is_json(good), "{good:?}");
        }
        for bad in [&b""[..], b"{", b"{}{}", b"\"\xff\"", b"{a:1}", b"nul"] {
            assert!(!is_json(bad), "{bad:?}");
        }
    }
}
