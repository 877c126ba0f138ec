//! Parses text with regular expressions, with rejections that name the part. Requires the feature `regex`.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::OnceLock;

use regex_lite::{Captures, Regex};

use crate::{OrReject, Rejection, Result};

/// A regular expression with named groups, compiled on first use. The syntax is that of the crate
/// [regex-lite](https://docs.rs/regex-lite/latest/regex_lite/#syntax), without Unicode classes and look-around. Matching takes
/// linear time.
///
/// ```
/// use lantern_sdk::{Pattern, Timestamp};
///
/// static LINE: Pattern = Pattern::new(r"^(?<at>\S+) (?<level>[A-Z]+) (?:pid=(?<pid>\w+) )?(?<text>.*)$");
///
/// let parts = LINE.read("2026-05-28T10:41:00Z WARN disk is full")?;
/// assert_eq!(parts.get::<Timestamp>("at")?.to_string(), "2026-05-28T10:41:00.000000Z");
/// assert_eq!(parts.get::<String>("text")?, "disk is full");
/// assert_eq!(parts.optional::<u32>("pid")?, None);
///
/// let parts = LINE.read("2026-05-28T10:41:00Z WARN pid=x7 disk is full")?;
/// assert_eq!(parts.optional::<u32>("pid").unwrap_err().reason, "pid: invalid digit found in string");
/// assert_eq!(LINE.read("hello").unwrap_err().reason, "the text does not match the expected format");
/// # Ok::<(), lantern_sdk::Rejection>(())
/// ```
pub struct Pattern {
    text: &'static str,
    regex: OnceLock<std::result::Result<Regex, regex_lite::Error>>,
}

impl Pattern {
    /// Creates a pattern without compiling it.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            regex: OnceLock::new(),
        }
    }

    /// Matches a text and returns its parts.
    ///
    /// # Errors
    /// If the text does not match, or the regular expression is invalid.
    pub fn read<'t>(&self, text: &'t str) -> Result<Parts<'t>> {
        let regex = self.regex.get_or_init(|| Regex::new(self.text)).as_ref();
        let regex = regex.map_err(|error| {
            Rejection::invalid(format_args!(
                "`{}` is not a valid regular expression: {error}",
                self.text
            ))
        })?;
        let parts = regex.captures(text).map(Parts);
        parts.or_malformed("the text does not match the expected format")
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// The named parts of a text that matches a [`Pattern`].
#[derive(Debug)]
pub struct Parts<'t>(Captures<'t>);

impl<'t> Parts<'t> {
    /// Parses the part with this name.
    ///
    /// # Errors
    /// If it is missing or cannot be parsed; the rejection names it.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        let part = self.text(name).or_malformed(format_args!("{name}: missing"))?;
        part.parse().or_malformed(name)
    }

    /// Like [`get`](Self::get), for an optional part.
    ///
    /// # Errors
    /// If it cannot be parsed; the rejection names it.
    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        self.text(name)
            .map(|part| part.parse().or_malformed(name))
            .transpose()
    }

    /// The text of the part with this name.
    pub fn text(&self, name: &str) -> Option<&'t str> {
        self.0.name(name).map(|part| part.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_expression_is_reported() {
        static WRONG: Pattern = Pattern::new("(?<a>");
        let reason = WRONG.read("x").unwrap_err().reason;
        assert!(
            reason.starts_with("`(?<a>` is not a valid regular expression: "),
            "{reason}"
        );
    }

    #[test]
    fn missing_and_invalid_parts_are_named() {
        static PAIR: Pattern = Pattern::new("^(?<a>[0-9]+)(?:-(?<b>[0-9]+))?$");
        let parts = PAIR.read("300").unwrap();
        assert_eq!(
            parts.get::<u8>("a").unwrap_err().reason,
            "a: number too large to fit in target type"
        );
        assert_eq!(parts.get::<u8>("b").unwrap_err().reason, "b: missing");
        assert_eq!(parts.optional::<u8>("b"), Ok(None));
        assert_eq!(parts.text("a"), Some("300"));
    }
}
