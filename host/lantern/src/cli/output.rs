//! The only output of commands. Everything passes [`text`] or [`json`], which escape terminal control sequences, so no
//! text from a message, a plugin, a file name or a host can move the cursor, change colours, write to the clipboard or
//! reorder characters.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use anyhow::Error;

use super::Failure;
use lantern_model::batch::is_hazardous;

/// Escapes terminal control characters (as `\u{1b}`), except line ends and tabs.
pub fn text(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_hazardous(c) && !matches!(c, '\n' | '\t'))
}

/// Like [`text`], but also escapes line ends and tabs, so that a value cannot imitate other lines.
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

/// Escapes terminal control characters in JSON (as `\u001b`). They occur only in its strings, so the value is the same.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_escaped = |c| is_hazardous(c) && !matches!(c, '\n' | '\t' | '\r');
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            // All of them are in the basic multilingual plane. Writing to a String cannot fail.
            true => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Writes to standard output. A closed pipe (`lantern … | head`) is not a failure.
pub fn print(output: &str) -> Result<(), Failure> {
    write_out(&text(output)).map(|_| ())
}

/// Writes a value as JSON.
pub fn print_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Error::new(error).context("failed to serialize the output")))?;
    text.push('\n');
    write_out(&json(&text)).map(|_| ())
}

/// Writes one line of JSON. Returns `false` if the reader has closed the pipe.
pub fn print_json_line(text: &str) -> Result<bool, Failure> {
    write_out(&format!("{}\n", json(text)))
}

fn write_out(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(
            Error::new(error).context("failed to write to standard output"),
        )),
    }
}

/// Writes a line to standard error. Ignores write errors: a closed standard error must not fail the command.
pub fn note(line: std::fmt::Arguments<'_>) {
    print_error(format_args!("{line}\n"));
}

/// Like [`note`], without a line end.
pub fn print_error(message: std::fmt::Arguments<'_>) {
    drop(std::io::stderr().write_all(text(&message.to_string()).as_bytes()));
}

/// Replaces the current line of standard error, for a progress bar.
pub fn redraw(bar: &str) {
    drop(write!(std::io::stderr(), "\r\u{1b}[2K{}", line(bar)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[31m\u{9b}2J\u{7f}\u{8}\r\u{202e}\u{2066}\u{200f}\u{2028}b";
    const HARMLESS: &str = r"a\u{1b}[31m\u{9b}2J\u{7f}\u{8}\u{d}\u{202e}\u{2066}\u{200f}\u{2028}b";

    #[test]
    fn only_control_characters_are_escaped() {
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
