//! A search as regular expressions of PostgreSQL, which compare the texts of rows with the same result as
//! [`SearchQuery::matches`](super::SearchQuery). The expressions name the letters of a word, and both cases of each letter, so
//! that the result does not depend on the locale of the server.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use super::query::Term;
use super::words::is_of_word;

/// Everything between two words.
static SEPARATOR: LazyLock<String> = LazyLock::new(separator);

/// For a letter in lower case, the other letters that become it.
static VARIANTS: LazyLock<HashMap<char, Vec<char>>> = LazyLock::new(variants);

/// For a letter in lower case that begins a sequence, the letters that become the sequence.
static SEQUENCES: LazyLock<Vec<(char, Vec<char>)>> = LazyLock::new(sequences);

/// The regular expressions of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TermPattern {
    /// Matches a text that contains the term.
    pub(crate) text: String,
    /// Matches every JSON document with a text that contains the term, and others.
    pub(crate) document: String,
    /// Matches a JSON document without escapes in which a string contains the term, but no names of members. None for terms
    /// that a number or a name such as `true` may contain.
    pub(crate) plain_document: Option<String>,
}

impl TermPattern {
    pub(crate) fn of(term: &Term) -> Self {
        let separator = SEPARATOR.as_str();
        let words: Vec<String> = term.words.iter().map(|word| in_any_case(word)).collect();
        let end = match term.is_prefix {
            true => String::new(),
            false => format!("(?:{separator}|$)"),
        };
        let first = words.first().cloned().unwrap_or_default();
        Self {
            text: format!("(?:^|{separator}){}{end}", words.join(&format!("{separator}+"))),
            // An escape may be any letter.
            document: format!(r"{first}|\\u"),
            plain_document: is_in_strings(term).then(|| plain_document(&words, term.is_prefix)),
        }
    }
}

/// Whether only strings of a JSON document can contain the first word of a term.
fn is_in_strings(term: &Term) -> bool {
    let is_only = term.is_prefix && term.words.len() == 1;
    let is_literal = |word: &str| {
        let names = ["true", "false", "null"];
        let is_name = names
            .iter()
            .any(|name| *name == word || (is_only && name.starts_with(word)));
        is_name
            || word
                .chars()
                .all(|letter| letter.is_ascii_digit() || letter == 'e')
    };
    term.words.first().is_some_and(|word| !is_literal(word))
}

/// The words inside of a string that no colon follows.
fn plain_document(words: &[String], is_prefix: bool) -> String {
    let separator = format!("[^\"{}", SEPARATOR.trim_start_matches("[^"));
    let words = words.join(&format!("{separator}+"));
    let rest = match is_prefix {
        true => "[^\"]*".to_owned(),
        false => format!("(?:{separator}[^\"]*)?"),
    };
    format!("(?:\"|{separator}){words}{rest}\"[ \\t\\r\\n]*(?:[],}}]|$)")
}

/// Matches the letters of a word in any case.
fn in_any_case(word: &str) -> String {
    let mut pattern = String::new();
    let mut rest = word;
    while let Some(letter) = rest.chars().next() {
        let sequence = SEQUENCES.iter().find(|(_, sequence)| {
            rest.chars().zip(sequence).filter(|(a, b)| a == *b).count() == sequence.len()
        });
        if let Some((whole, sequence)) = sequence {
            let parts: String = sequence.iter().map(|letter| one_letter(*letter)).collect();
            // Writing to a string cannot fail.
            let _ = write!(pattern, "(?:{}|{parts})", escaped(*whole));
            rest = &rest[sequence.iter().map(|letter| letter.len_utf8()).sum()..];
        } else {
            pattern.push_str(&one_letter(letter));
            rest = &rest[letter.len_utf8()..];
        }
    }
    pattern
}

fn one_letter(letter: char) -> String {
    match VARIANTS.get(&letter) {
        None => escaped(letter),
        Some(others) => {
            let others: String = others.iter().map(|letter| escaped(*letter)).collect();
            format!("[{}{others}]", escaped(letter))
        }
    }
}

fn escaped(letter: char) -> String {
    if letter.is_ascii_alphanumeric() {
        letter.to_string()
    } else {
        format!("\\U{:08x}", u32::from(letter))
    }
}

fn separator() -> String {
    let mut pattern = String::from("[^");
    let mut letters = ('\0'..=char::MAX).filter(|letter| is_of_word(*letter)).peekable();
    while let Some(first) = letters.next() {
        let mut last = first;
        while let Some(next) = letters.next_if(|next| u32::from(*next) == u32::from(last) + 1) {
            last = next;
        }
        let _ = write!(pattern, "{}", escaped(first));
        if last > first {
            let _ = write!(pattern, "-{}", escaped(last));
        }
    }
    pattern.push(']');
    pattern
}

fn variants() -> HashMap<char, Vec<char>> {
    let mut variants: HashMap<char, Vec<char>> = HashMap::new();
    for letter in ('\0'..=char::MAX).filter(|letter| is_of_word(*letter)) {
        let mut lower = letter.to_lowercase();
        if let (Some(one), None) = (lower.next(), lower.next())
            && one != letter
        {
            variants.entry(one).or_default().push(letter);
        }
    }
    variants
}

fn sequences() -> Vec<(char, Vec<char>)> {
    ('\0'..=char::MAX)
        .filter(|letter| is_of_word(*letter))
        .map(|letter| (letter, letter.to_lowercase().collect::<Vec<char>>()))
        .filter(|(_, lower)| lower.len() > 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_letters_of_a_word_match_in_any_case() {
        for (word, expected) in [
            ("a1", "[aA]1"),
            ("k", "[kK\\U0000212a]"),
            ("i\u{307}", "(?:\\U00000130|[iI]\\U00000307)"),
            ("ß", "[\\U000000df\\U00001e9e]"),
            ("日", "\\U000065e5"),
        ] {
            assert_eq!(in_any_case(word), expected, "{word}");
        }
        assert!(SEPARATOR.starts_with("[^0-9A-Za-z\\U000000aa"), "{}", *SEPARATOR);
    }
}
