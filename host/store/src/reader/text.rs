//! Text search that ignores the case of ASCII letters: linear in the text for every search text, and interruptible. The
//! SQL function and the live tail share it, so that both find the same rows.

use std::sync::Arc;

use memchr::memmem;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};

use super::interrupt::Interrupt;
pub use crate::search::Stopped;

/// The SQL function `lantern_contains(text, needle)`: null for null.
pub(super) const CONTAINS: &str = "lantern_contains";

/// Text is searched in parts of this size; the search checks for an interrupt between two parts.
const PART_BYTES: usize = 64 << 10;

/// A text to search for, prepared once for many searches.
#[derive(Clone, Debug)]
pub(super) struct Needle(memmem::Finder<'static>);

impl Needle {
    pub(super) fn new(sought: &[u8]) -> Self {
        let folded = sought.to_ascii_lowercase();
        Self(memmem::Finder::new(&folded).into_owned())
    }

    /// Whether `text` contains it. Both are UTF-8, in which no character begins within another, so bytes are compared.
    pub(super) fn is_in(&self, text: &[u8], mut has_to_stop: impl FnMut() -> bool) -> Result<bool, Stopped> {
        let length = self.0.needle().len();
        if length == 0 {
            return Ok(true);
        }
        let mut folded = Vec::with_capacity(text.len().min(PART_BYTES + length));
        let mut first = 0;
        while text.len() - first >= length {
            if has_to_stop() {
                return Err(Stopped);
            }
            // Parts overlap, so that a match across their border is found.
            let past = text.len().min(first + PART_BYTES + length - 1);
            folded.clear();
            folded.extend_from_slice(&text[first..past]);
            folded.make_ascii_lowercase();
            if self.0.find(&folded).is_some() {
                return Ok(true);
            }
            first = text.len().min(first + PART_BYTES);
        }
        Ok(false)
    }
}

/// Registers the function with a connection. A search ends with `SQLITE_INTERRUPT` when the interrupt is due: SQLite
/// itself checks only between calls of functions.
pub(super) fn register(connection: &Connection, interrupt: Arc<Interrupt>) -> Result<(), rusqlite::Error> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function(CONTAINS, 2, flags, move |context| contains(context, &interrupt))
}

fn contains(context: &Context<'_>, interrupt: &Interrupt) -> Result<Option<bool>, rusqlite::Error> {
    // A parameter is the same for all rows of a statement, and so is its prepared form.
    let needle = context.get_or_create_aux(1, |value| {
        value
            .as_bytes()
            .map(Needle::new)
            .map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
    })?;
    let text = match context.get_raw(0) {
        ValueRef::Text(text) => text,
        _ => return Ok(None),
    };
    match needle.is_in(text, || interrupt.is_due()) {
        Ok(found) => Ok(Some(found)),
        Err(Stopped) => Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_INTERRUPT),
            None,
        )),
    }
}

/// The approximate size of a number in JSON.
pub(super) const NUMBER_BYTES: usize = 8;

/// The approximate size of a stored value in JSON, where a control character has six bytes.
pub(super) fn json_size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(text) => json_bytes(text),
        ValueRef::Blob(bytes) => bytes.len().div_ceil(3) * 4,
        _ => NUMBER_BYTES,
    }
}

/// The size of text as a JSON string, without the quotes.
pub(super) fn json_bytes(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.iter().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_ignores_the_case_of_ascii_letters() {
        for (text, sought, expected) in [
            ("aaab", "AAB", true),
            ("Straße", "sTRASSE", false),
            ("STRAßE", "straße", true),
            ("Ärger", "ärger", false),
            ("", "a", false),
            ("a", "", true),
            ("100%", "0%", true),
        ] {
            let found = Needle::new(sought.as_bytes()).is_in(text.as_bytes(), || false);
            assert_eq!(found, Ok(expected), "{text} {sought}");
        }
    }

    #[test]
    fn text_across_the_border_of_two_parts_is_found() {
        let needle = Needle::new(b"Needle");
        for position in PART_BYTES - 8..PART_BYTES + 8 {
            let mut text = vec![b'n'; 2 * PART_BYTES];
            text[position..position + 6].copy_from_slice(b"nEEDLE");
            assert_eq!(needle.is_in(&text, || false), Ok(true), "{position}");
            assert_eq!(
                needle.is_in(&text[..position + 5], || false),
                Ok(false),
                "{position}"
            );
            assert_eq!(
                needle.is_in(&text[..position + 6], || false),
                Ok(true),
                "{position}"
            );
        }
    }

    #[test]
    fn the_bytes_of_text_in_json_are_counted() {
        let text: String = (0..=0x100).filter_map(char::from_u32).collect();
        let rendered = serde_json::to_string(&text).unwrap();
        assert_eq!(json_bytes(text.as_bytes()) + 2, rendered.len());
    }

    #[test]
    fn a_search_checks_often_whether_it_has_to_stop() {
        let mut looks = 0;
        let stopped = Needle::new(b"b").is_in(&vec![b'a'; 10 * PART_BYTES], || {
            looks += 1;
            looks > 3
        });
        assert_eq!((stopped, looks), (Err(Stopped), 4));
    }
}
