//! Text formats by regular expressions, with rejections that name the part. With the feature `regex`.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::OnceLock;

use regex_lite::{Captures, Regex};

use crate::{OrReject, Rejection, Result};

/// A regular expression with named parts, which is compiled when it is first used. What it may say is in the documentation
/// of the crate [regex-lite](https://docs.rs/regex-lite/latest/regex_lite/#syntax): all but Unicode classes and look-around,
/// and it is small and never slow.
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
/// assert_eq!(LINE.read("hello").unwrap_err().reason, "the text does not have the form that is expected");
/// # Ok::<(), lantern_sdk::Rejection>(())
/// ```
pub struct Pattern {
    text: &'static str,
    regex: OnceLock<std::result::Result<Regex, regex_lite::Error>>,
}

impl Pattern {
    /// Takes the expression without looking.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            regex: OnceLock::new(),
        }
    }

    /// The parts of a text.
    ///
    /// # Errors
    /// When the text does not match, or the expression is none.
    pub fn read<'t>(&self, text: &'t str) -> Result<Parts<'t>> {
        let regex = self.regex.get_or_init(|| Regex::new(self.text)).as_ref();
        let regex = regex.map_err(|error| {
            Rejection::invalid(format_args!("`{}` is no regular expression: {error}", self.text))
        })?;
        let parts = regex.captures(text).map(Parts);
        parts.or_malformed("the text does not have the form that is expected")
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
    /// The part with this name, as any type that can be read from text.
    ///
    /// # Errors
    /// When it is missing or cannot be read as that; the rejection names it.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        let part = self
            .text(name)
            .or_malformed(format_args!("{name}: it is missing"))?;
        part.parse().or_malformed(name)
    }

    /// As [`get`](Self::get), for a part that a text may do without.
    ///
    /// # Errors
    /// When it cannot be read as that; the rejection names it.
    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        self.text(name)
            .map(|part| part.parse().or_malformed(name))
            .transpose()
    }

    /// The part with this name as it stands in the text.
    pub fn text(&self, name: &str) -> Option<&'t str> {
        self.0.name(name).map(|part| part.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_that_is_none_is_said_so() {
        static WRONG: Pattern = Pattern::new("(?<a>");
        let reason = WRONG.read("x").unwrap_err().reason;
        assert!(
            reason.starts_with("`(?<a>` is no regular expression: "),
            "{reason}"
        );
    }

    #[test]
    fn parts_that_are_missing_are_named() {
        static PAIR: Pattern = Pattern::new("^(?<a>[0-9]+)(?:-(?<b>[0-9]+))?$");
        let parts = PAIR.read("300").unwrap();
        assert_eq!(
            parts.get::<u8>("a").unwrap_err().reason,
            "a: number too large to fit in target type"
        );
        assert_eq!(parts.get::<u8>("b").unwrap_err().reason, "b: it is missing");
        assert_eq!(parts.optional::<u8>("b"), Ok(None));
        assert_eq!(parts.text("a"), Some("300"));
    }
}
