//! The parsers of files and lines, for the fuzz targets.

use bytes::Bytes;

use crate::entry::Entry;
use crate::event::Event;
use crate::{format, lines};

/// The event in the bytes of a file, when they hold one.
pub fn decode(bytes: &[u8]) -> Option<Event> {
    format::decode(&Bytes::copy_from_slice(bytes)).ok()
}

/// The bytes of a file for an event that has an id; empty when there is none.
pub fn encode(event: &Event) -> Vec<u8> {
    format::encode(event, event.id.as_deref().unwrap_or_default()).unwrap_or_default()
}

/// The body of a file behind a first line with its checksum.
pub fn seal(body: &[u8]) -> Vec<u8> {
    [format::first_line_of(body).as_bytes(), body].concat()
}

/// The name of the entry that a file name stands for, when it stands for one.
pub fn entry_name(name: &str) -> Option<String> {
    Entry::parse(name).map(Entry::file_name)
}

/// The lines of an input that is read `buffer` bytes at a time; `None` stands for a line above `limit`.
pub fn split_lines(input: &[u8], buffer: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
    lines::split(input, buffer, limit)
}
