//! The parsers of files and lines, exported for the fuzz targets.

use bytes::Bytes;

use crate::entry::Entry;
use crate::event::Event;
use crate::{format, lines};

/// Decodes the event of a file.
pub fn decode(bytes: &[u8]) -> Option<Event> {
    format::decode(&Bytes::copy_from_slice(bytes)).ok()
}

/// Encodes an event with an id; empty on failure.
pub fn encode(event: &Event) -> Vec<u8> {
    format::encode(event, event.id.as_deref().unwrap_or_default()).unwrap_or_default()
}

/// Prepends a first line with the checksum of the body.
pub fn seal(body: &[u8]) -> Vec<u8> {
    [format::first_line_of(body).as_bytes(), body].concat()
}

/// Parses a file name and formats its entry.
pub fn entry_name(name: &str) -> Option<String> {
    Entry::parse(name).map(Entry::file_name)
}

/// The lines of an input read in chunks of `buffer` bytes; `None` for a line longer than `limit`.
pub fn split_lines(input: &[u8], buffer: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
    lines::split(input, buffer, limit)
}
