//! The file format of an event, readable with `head`:
//!
//! ```text
//! lantern-outbox 1 5e8a03b1
//! {"subject":"obs.pc-01","id":"…","headers":[["k","v"]],"payload_bytes":17}
//! the payload, byte for byte
//! ```
//!
//! The first line has the format, its version and the CRC-32 of the rest, which detects truncation and changed bits. The
//! checksum protects against accidents, not against attackers: anyone who can write to the directory can write events. No I/O.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::{Event, InvalidEvent};

const MAGIC: &str = "lantern-outbox ";
const VERSION: &str = "1";
/// `lantern-outbox 1 xxxxxxxx\n`
const FIRST_LINE_BYTES: usize = MAGIC.len() + VERSION.len() + 1 + 8 + 1;

/// The second line. Unknown fields are rejected, because a new version of the format has a new number.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    subject: String,
    id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    payload_bytes: u64,
}

/// Why a file contains no valid event. It is moved to `aside/` with this reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Corrupt {
    #[error("the file is empty")]
    Empty,
    #[error("the file does not start like an outbox file")]
    NotOurs,
    #[error("the file has format version {0:?}; this program supports version {VERSION}")]
    Version(String),
    #[error("the file is truncated: it has {found} of {expected} payload bytes")]
    Truncated { expected: u64, found: u64 },
    #[error("checksum mismatch: computed {found:08x}, expected {expected:08x}")]
    Checksum { expected: u32, found: u32 },
    #[error("the header line is not valid")]
    Header(#[source] serde_json::Error),
    #[error("the event cannot be published")]
    Invalid(#[source] InvalidEvent),
}

/// Encodes `event` with the message id `id`.
///
/// # Errors
/// If the header cannot be serialized, which does not happen for strings.
pub(crate) fn encode(event: &Event, id: &str) -> Result<Vec<u8>, serde_json::Error> {
    let header = Header {
        subject: event.subject.clone(),
        id: id.to_owned(),
        headers: event.headers.clone(),
        payload_bytes: event.payload.len() as u64,
    };
    let mut bytes = vec![b' '; FIRST_LINE_BYTES];
    bytes.reserve(event.payload.len() + 256);
    serde_json::to_writer(&mut bytes, &header)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&event.payload);
    let first = first_line(crc32fast::hash(&bytes[FIRST_LINE_BYTES..]));
    bytes[..FIRST_LINE_BYTES].copy_from_slice(first.as_bytes());
    Ok(bytes)
}

/// Decodes a file. The event's id is always set, and its payload shares `bytes`.
///
/// # Errors
/// [`Corrupt`] if [`encode`] did not produce these bytes.
pub(crate) fn decode(bytes: &Bytes) -> Result<Event, Corrupt> {
    if bytes.is_empty() {
        return Err(Corrupt::Empty);
    }
    let expected = checksum_in_first_line(bytes)?;
    let body = bytes.slice(FIRST_LINE_BYTES..);
    let header_end = body.iter().position(|&byte| byte == b'\n');
    let header = serde_json::from_slice::<Header>(&body[..header_end.unwrap_or(body.len())]);
    let payload = header_end.map(|end| body.slice(end + 1..)).unwrap_or_default();
    let found = crc32fast::hash(&body);
    if found != expected {
        // For a valid header with a larger size, truncation is the better explanation.
        return Err(match header {
            Ok(header) if header.payload_bytes > payload.len() as u64 => Corrupt::Truncated {
                expected: header.payload_bytes,
                found: payload.len() as u64,
            },
            _ => Corrupt::Checksum { expected, found },
        });
    }
    let header = header.map_err(Corrupt::Header)?;
    if header.payload_bytes != payload.len() as u64 {
        return Err(Corrupt::Truncated {
            expected: header.payload_bytes,
            found: payload.len() as u64,
        });
    }
    let event = Event {
        subject: header.subject,
        payload,
        headers: header.headers,
        id: Some(header.id),
    };
    // `put` has checked the size; the broker has its own limit.
    event.check(usize::MAX).map_err(Corrupt::Invalid)?;
    Ok(event)
}

/// The first line of a file with the given body.
pub(crate) fn first_line_of(body: &[u8]) -> String {
    first_line(crc32fast::hash(body))
}

fn first_line(checksum: u32) -> String {
    format!("{MAGIC}{VERSION} {checksum:08x}\n")
}

fn checksum_in_first_line(bytes: &[u8]) -> Result<u32, Corrupt> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes()).ok_or(Corrupt::NotOurs)?;
    // Longer than any version number, and short enough that the reason does not quote a foreign file.
    let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(&line[..line.len().min(32)]).map_err(|_| Corrupt::NotOurs)?;
    let (version, checksum) = line.split_once(' ').ok_or(Corrupt::NotOurs)?;
    if version != VERSION {
        return Err(Corrupt::Version(version.to_owned()));
    }
    let checksum = u32::from_str_radix(checksum, 16).map_err(|_| Corrupt::NotOurs)?;
    // Compared as text, to detect a changed bit that turns `a` into `A`.
    if bytes.starts_with(first_line(checksum).as_bytes()) {
        Ok(checksum)
    } else {
        Err(Corrupt::NotOurs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new("obs.pc-01", vec![0, 1, 2, b'\n', 0xff, b'\r', b'\n'])
            .with_header("k", "v: \"w\"")
            .with_header("k", "again")
            .with_id("id-1")
    }

    fn decoded(bytes: &[u8]) -> Result<Event, Corrupt> {
        decode(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn an_event_round_trips() {
        let bytes = encode(&event(), "id-1").unwrap();
        assert_eq!(decoded(&bytes).unwrap(), event());
        let empty = Event::new("a", "").with_id("x");
        assert_eq!(decoded(&encode(&empty, "x").unwrap()).unwrap(), empty);
    }

    #[test]
    fn the_format_matches_the_documentation() {
        let bytes = encode(
            &Event::new("obs.pc-01", "{\"a\":1}").with_header("k", "v"),
            "id-1",
        )
        .unwrap();
        let expected = "lantern-outbox 1 5b7a7556\n\
            {\"subject\":\"obs.pc-01\",\"id\":\"id-1\",\"headers\":[[\"k\",\"v\"]],\"payload_bytes\":7}\n{\"a\":1}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let good = encode(&event(), "id-1").unwrap();
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[index] ^= 1 << bit;
                assert!(decoded(&bad).is_err(), "byte {index}, bit {bit}");
            }
        }
    }

    #[test]
    fn every_truncation_and_extension_is_detected() {
        let good = encode(&event(), "id-1").unwrap();
        for length in 0..good.len() {
            assert!(decoded(&good[..length]).is_err(), "{length} bytes");
        }
        assert!(decoded(&[&good[..], b"x"].concat()).is_err());
        let cut = decoded(&good[..good.len() - 3]).unwrap_err().to_string();
        assert_eq!(cut, "the file is truncated: it has 4 of 7 payload bytes");
    }

    #[test]
    fn reasons_name_the_problem() {
        let check = |bytes: &[u8], reason: &str| {
            let found = crate::status::chain(&decoded(bytes).unwrap_err());
            assert!(found.contains(reason), "{found:?} does not contain {reason:?}");
        };
        check(b"", "empty");
        check(b"{\"pc_id\":\"x\"}", "does not start");
        check(&[0xff; 4096], "does not start");
        check(b"lantern-outbox 2 00000000\n{}", "version \"2\"");
        let header = b"{\"subject\":\"a.>\",\"id\":\"x\",\"payload_bytes\":0}\n";
        let forged = [first_line(crc32fast::hash(header)).as_bytes(), header].concat();
        check(&forged, "wildcard");
    }
}
