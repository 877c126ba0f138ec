//! The only way from a command to the terminal. Everything that is printed passes [`text`] or [`json`] here, so nothing
//! that came from a message, a plugin, a file name or a host can move the cursor, change colours, write to the
//! clipboard or reorder what is shown.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use anyhow::Error;

use super::Failure;
use lantern_model::batch::is_hazardous;

/// Text with everything escaped (`\u{1b}`) that a terminal obeys, apart from line ends and tabs.
pub fn text(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_hazardous(c) && !matches!(c, '\n' | '\t'))
}

/// One value on one line: as [`text`], with line ends and tabs escaped as well, so that a value cannot imitate the lines
/// around it.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_hazardous)
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            true => escaped.extend(c.escape_unicode()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// The same JSON, with what a terminal obeys written as `\u001b`. Such characters occur in its strings alone.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_escaped = |c| is_hazardous(c) && !matches!(c, '\n' | '\t' | '\r');
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            // All of them are in the first plane. Writing to a String does not fail.
            true => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Writes to standard output. A reader that went away (`lantern … | head`) is not a failure.
pub fn print(text_: &str) -> Result<(), Failure> {
    write_out(&text(text_)).map(|_| ())
}

/// Writes a value as JSON, for programs.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Error::new(error).context("cannot write the answer as JSON")))?;
    text.push('\n');
    write_out(&json(&text)).map(|_| ())
}

/// Writes one line of JSON. `false` when nobody reads any more.
pub fn print_json_line(text: &str) -> Result<bool, Failure> {
    write_out(&format!("{}\n", json(text)))
}

fn write_out(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(
            Error::new(error).context("cannot write to standard output"),
        )),
    }
}

/// Writes a line to standard error, separate from the answer. Write errors are ignored: a closed standard error must not fail the command.
pub fn note(line: std::fmt::Arguments<'_>) {
    mutter(format_args!("{line}\n"));
}

/// As [`note`], without an end of the line.
pub fn mutter(words: std::fmt::Arguments<'_>) {
    drop(std::io::stderr().write_all(text(&words.to_string()).as_bytes()));
}

/// Replaces the current line of standard error, for a bar that moves. `bar` is the program's own text.
pub fn redraw(bar: &str) {
    drop(write!(std::io::stderr(), "\r\u{1b}[2K{}", line(bar)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[31m\u{9b}2J\u{7f}\u{8}\r\u{202e}\u{2066}\u{200f}\u{2028}b";
    const HARMLESS: &str = r"a\u{1b}[31m\u{9b}2J\u{7f}\u{8}\u{d}\u{202e}\u{2066}\u{200f}\u{2028}b";

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_nothing_else() {
        assert_eq!(text(HOSTILE), HARMLESS);
        assert_eq!(text("a\n\tb"), "a\n\tb");
        assert_eq!(line("a\n\tb"), r"a\u{a}\u{9}b");
        for plain in ["", "Grüße, 世界 👩‍👩‍👧", "a\u{301}", "\u{5d0}\u{5d1}"] {
            assert_eq!(line(plain), plain);
        }
        assert_eq!(text(&text(HOSTILE)), HARMLESS, "escaping twice changes nothing");
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let value = serde_json::json!({HOSTILE: [HOSTILE, 1, "x\ny"]});
        let written = serde_json::to_string_pretty(&value).unwrap();
        let escaped = json(&written);
        assert!(!escaped.contains(|c| is_hazardous(c) && c != '\n'), "{escaped:?}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
            value
        );
    }
}
