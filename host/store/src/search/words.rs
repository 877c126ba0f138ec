//! The definition of a word, and the texts of a row that are divided into words. The index and the search of rows without an
//! index share it, so that both find the same rows.
//!
//! A word is a run of letters and digits, in lower case. In a JSON document, the strings, numbers and booleans are texts;
//! names of members are not.

use std::borrow::Cow;
use std::ops::ControlFlow;

/// Whether a character belongs to a word: letters and digits of all scripts, and accents that follow their letter.
pub(super) fn is_of_word(letter: char) -> bool {
    if letter.is_ascii() {
        return letter.is_ascii_alphanumeric();
    }
    letter.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&letter)
}

/// Passes each word of a text to `each`, in order.
pub(crate) fn for_each_word<B>(text: &str, mut each: impl FnMut(&str) -> ControlFlow<B>) -> ControlFlow<B> {
    let mut word = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            word.push(letter.to_ascii_lowercase());
        } else if !letter.is_ascii() && is_of_word(letter) {
            word.extend(letter.to_lowercase());
        } else if !word.is_empty() {
            each(&word)?;
            word.clear();
        }
    }
    if !word.is_empty() {
        each(&word)?;
    }
    ControlFlow::Continue(())
}

/// The words of a text.
pub(crate) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let all = for_each_word(text, |word| {
        words.push(word.to_owned());
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(all.is_continue());
    words
}

/// Passes each text of a JSON document to `each`, with the names of the members that lead to it; arrays add no name. Of a
/// malformed document, it passes some of the texts.
pub(crate) fn for_each_text<B>(
    document: &str,
    mut each: impl FnMut(&[Cow<'_, str>], &str) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut scan = Scan {
        document,
        position: 0,
        open: Vec::new(),
        names: Vec::new(),
        is_name: false,
    };
    while let Some(text) = scan.next_text() {
        each(&scan.names, &text)?;
    }
    ControlFlow::Continue(())
}

/// An open object or array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Object,
    Array,
}

/// A scan of a JSON document. It keeps no tree, so that the depth of a document is not limited.
struct Scan<'a> {
    document: &'a str,
    position: usize,
    open: Vec<Open>,
    /// The name of the present member of each open object.
    names: Vec<Cow<'a, str>>,
    /// Whether the next string is the name of a member.
    is_name: bool,
}

impl<'a> Scan<'a> {
    fn next_text(&mut self) -> Option<Cow<'a, str>> {
        let bytes = self.document.as_bytes();
        loop {
            let at = self.position;
            match *bytes.get(at)? {
                b'"' => {
                    let string = self.string();
                    if !self.is_name {
                        return Some(string);
                    }
                    if let Some(name) = self.names.last_mut() {
                        *name = string;
                    }
                }
                letter @ (b'{' | b'[' | b'}' | b']' | b',' | b':') => self.punctuation(letter),
                b' ' | b'\t' | b'\n' | b'\r' => self.position += 1,
                _ => {
                    let literal = self.literal();
                    if literal != "null" {
                        return Some(Cow::Borrowed(literal));
                    }
                }
            }
        }
    }

    fn punctuation(&mut self, letter: u8) {
        self.position += 1;
        match letter {
            b'{' => {
                self.open.push(Open::Object);
                self.names.push(Cow::Borrowed(""));
            }
            b'[' => self.open.push(Open::Array),
            b'}' | b']' if self.open.pop() == Some(Open::Object) => {
                self.names.pop();
            }
            _ => {}
        }
        self.is_name = matches!(letter, b'{' | b',') && self.open.last() == Some(&Open::Object);
    }

    /// The string that begins here.
    fn string(&mut self) -> Cow<'a, str> {
        let rest = &self.document.as_bytes()[self.position + 1..];
        let mut length = 0;
        let mut has_escapes = false;
        while let Some(found) = rest
            .get(length..)
            .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
        {
            length += found;
            if rest[length] == b'"' {
                break;
            }
            has_escapes = true;
            length += 2;
        }
        let length = if length < rest.len() && rest[length] == b'"' {
            length
        } else {
            rest.len()
        };
        let first = self.position + 1;
        self.position = first + length + 1;
        let text = self.document.get(first..first + length).unwrap_or_default();
        if has_escapes {
            Cow::Owned(unescaped(text))
        } else {
            Cow::Borrowed(text)
        }
    }

    /// The number or name that begins here.
    fn literal(&mut self) -> &'a str {
        let first = self.position;
        let rest = &self.document.as_bytes()[first..];
        let is_end = |byte: &u8| b",:]}[{\" \t\r\n".contains(byte);
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        self.position = first + length;
        self.document.get(first..first + length).unwrap_or_default()
    }
}

/// The text of a JSON string with escapes; a malformed escape becomes the replacement character.
fn unescaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('\\') {
        result.push_str(&rest[..position]);
        let mut letters = rest[position + 1..].chars();
        match letters.next() {
            Some('n') => result.push('\n'),
            Some('r') => result.push('\r'),
            Some('t') => result.push('\t'),
            Some('b') => result.push('\u{8}'),
            Some('f') => result.push('\u{c}'),
            Some('u') => {
                let (letter, after) = unicode_escape(letters.as_str());
                result.push(letter);
                rest = after;
                continue;
            }
            Some(letter) => result.push(letter),
            None => {}
        }
        rest = letters.as_str();
    }
    result.push_str(rest);
    result
}

/// The character of an escape after its `\u`, and the text after it.
fn unicode_escape(text: &str) -> (char, &str) {
    let unit = |text: &str| {
        text.get(..4)
            .and_then(|digits| u16::from_str_radix(digits, 16).ok())
    };
    let Some(first) = unit(text) else {
        return (char::REPLACEMENT_CHARACTER, text);
    };
    let after = &text[4..];
    let second = after.strip_prefix("\\u").and_then(unit);
    if let Some(second) = second
        && let Some(Ok(letter)) = char::decode_utf16([first, second]).next()
        && letter > '\u{ffff}'
    {
        return (letter, &after[6..]);
    }
    let letter = char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER);
    (letter, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        for (text, expected) in [
            ("", vec![]),
            ("--- !", vec![]),
            ("Disk-Full 99%", vec!["disk", "full", "99"]),
            ("user_id=7f", vec!["user", "id", "7f"]),
            ("STRAẞE Ärger", vec!["straße", "ärger"]),
            ("e\u{301}te\u{301}", vec!["e\u{301}te\u{301}"]),
            ("日本語 テキスト", vec!["日本語", "テキスト"]),
        ] {
            assert_eq!(split_words(text), expected, "{text}");
        }
    }

    /// The texts of a document, each with its names.
    fn texts(document: &str) -> Vec<String> {
        let mut texts = Vec::new();
        let all = for_each_text(document, |names, text| {
            texts.push(format!("{}={text}", names.join(".")));
            ControlFlow::<()>::Continue(())
        });
        assert!(all.is_continue());
        texts
    }

    #[test]
    fn the_texts_of_a_document_have_the_names_of_their_members() {
        let document = r#" {"a": {"b": ["x", 1, {"c": true}], "d": null}, "e": "q\"\n\u00e9\ud83d\ude00", "f": -1.5e3} "#;
        assert_eq!(
            texts(document),
            ["a.b=x", "a.b=1", "a.b.c=true", "e=q\"\né😀", "f=-1.5e3"]
        );
        assert_eq!(texts(r#""only""#), ["=only"]);
        assert_eq!(texts("[[],{}]"), [""; 0]);
    }

    #[test]
    fn a_malformed_document_ends_the_scan() {
        for document in [
            "{",
            "\"a",
            "\"a\\",
            "{\"a\":\"\\u12",
            "]]}",
            "{\"a\"",
            ",,:",
            "\"\\ud800\"",
            "é{é\"é\\é",
        ] {
            texts(document);
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(texts(&deep), [""; 0]);
    }

    #[test]
    fn serde_finds_the_same_strings() {
        let value =
            serde_json::json!({"a\"b": ["\u{1}\u{7f}\\ / \u{1f600} \u{e000}", {"": "deep"}], "c": "ÿ"});
        let found = texts(&value.to_string());
        assert_eq!(
            found,
            ["a\"b=\u{1}\u{7f}\\ / \u{1f600} \u{e000}", "a\"b.=deep", "c=ÿ"]
        );
    }
}
