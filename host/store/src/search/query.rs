//! The language of searches: words, `"phrases"`, `prefix*`, `-excluded`, `column:word` and `column.member:value`. A search is
//! parsed into terms that consist of words only, so that no operator of FTS5 can come from a user.

use serde::{Deserialize, Serialize};

use super::words::split_words;

/// Most terms of a search. Each is compared with every word of every row that is read.
pub const TERMS_MAX: usize = 32;

/// Most words of a term.
pub const WORDS_MAX: usize = 32;

/// A parsed search: rows match if they contain all terms, except that they must not contain the excluded ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchQuery {
    pub(crate) terms: Vec<Term>,
}

/// A word or several consecutive words of one text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Term {
    /// Whether rows that contain it do not match.
    pub(crate) is_excluded: bool,
    pub(crate) scope: Option<TermColumn>,
    /// At least one.
    pub(crate) words: Vec<String>,
    /// Whether the last word is only the beginning of a word.
    pub(crate) is_prefix: bool,
}

/// The texts in which a term is searched; all texts of a row without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TermColumn {
    /// The position of the column.
    pub(crate) column: usize,
    /// Names of members of a JSON document, from the outermost one.
    pub(crate) members: Vec<String>,
}

/// A column that a term can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchableColumn {
    /// Its position.
    pub position: usize,
    /// Whether its values are JSON documents.
    pub is_json: bool,
}

/// Why a text is not a search.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// It has no letter and no digit.
    #[error("the text contains no word")]
    NoWord,
    /// It has too many terms.
    #[error("more than {TERMS_MAX} terms")]
    TooManyTerms,
    /// One of its terms has too many words.
    #[error("more than {WORDS_MAX} words in one term")]
    TooManyWords,
}

impl SearchQuery {
    /// Parses a search. `column` returns the text or JSON column with a name.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub fn parse(text: &str, column: impl Fn(&str) -> Option<SearchableColumn>) -> Result<Self, SearchError> {
        let mut terms = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (piece, after) = split_term(rest);
            if let Some(term) = parse_term(piece, &column) {
                if term.words.len() > WORDS_MAX {
                    return Err(SearchError::TooManyWords);
                }
                terms.push(term);
            }
            rest = after.trim_start();
        }
        match terms.len() {
            0 => Err(SearchError::NoWord),
            1..=TERMS_MAX => Ok(Self { terms }),
            _ => Err(SearchError::TooManyTerms),
        }
    }

    /// Words that every matching row contains, each once. None if there are none, as in a search that only excludes.
    pub(crate) fn required_words(&self) -> Option<Vec<&str>> {
        let mut required = Vec::new();
        for term in self.terms.iter().filter(|term| !term.is_excluded) {
            let whole = term.words.len() - usize::from(term.is_prefix);
            required.extend(term.words[..whole].iter().map(String::as_str));
        }
        required.sort_unstable();
        required.dedup();
        (!required.is_empty()).then_some(required)
    }
}

/// Divides a text after its first term, which ends at white space outside quotes.
fn split_term(text: &str) -> (&str, &str) {
    let mut is_quoted = false;
    let end = text.find(|letter: char| {
        is_quoted ^= letter == '"';
        letter.is_whitespace() && !is_quoted
    });
    text.split_at(end.unwrap_or(text.len()))
}

/// The term of a piece of text; none if it has no word.
fn parse_term(piece: &str, column: &impl Fn(&str) -> Option<SearchableColumn>) -> Option<Term> {
    let (is_excluded, piece) = match piece.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, piece),
    };
    let (scope, text) = match piece.split_once(':') {
        Some((name, value)) => match parse_column(name, column) {
            Some(scope) => (Some(scope), value),
            None => (None, piece),
        },
        None => (None, piece),
    };
    let words = split_words(text);
    let is_prefix = is_prefix(text);
    (!words.is_empty()).then_some(Term {
        is_excluded,
        scope,
        words,
        is_prefix,
    })
}

/// The scope that a name before a colon denotes; none if it is not that of a column, as in `12:30`.
fn parse_column(name: &str, column: &impl Fn(&str) -> Option<SearchableColumn>) -> Option<TermColumn> {
    let mut names = name.split('.');
    let found = column(names.next()?)?;
    let members: Vec<String> = names.map(str::to_owned).collect();
    (found.is_json || members.is_empty()).then_some(TermColumn {
        column: found.position,
        members,
    })
}

/// Whether an asterisk follows the last letter of a text directly.
fn is_prefix(text: &str) -> bool {
    let text = text.trim_end_matches('"');
    match text.strip_suffix('*') {
        Some(before) => !split_words(before.get(last_character(before)..).unwrap_or_default()).is_empty(),
        None => false,
    }
}

/// Where the last character of a text begins.
fn last_character(text: &str) -> usize {
    text.char_indices()
        .next_back()
        .map_or(0, |(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Option<SearchableColumn> {
        let position = ["note", "payload"].iter().position(|known| *known == name)?;
        Some(SearchableColumn {
            position,
            is_json: position == 1,
        })
    }

    /// The terms of a search in a canonical form.
    fn parsed(text: &str) -> Result<Vec<String>, SearchError> {
        let query = SearchQuery::parse(text, column)?;
        let shown = |term: &Term| {
            let scope = term.scope.as_ref().map_or(String::new(), |scope| {
                format!(
                    "{}{}:",
                    scope.column,
                    scope
                        .members
                        .iter()
                        .map(|name| format!(".{name}"))
                        .collect::<String>()
                )
            });
            let sign = if term.is_excluded { "-" } else { "" };
            let star = if term.is_prefix { "*" } else { "" };
            format!("{sign}{scope}{}{star}", term.words.join(" "))
        };
        Ok(query.terms.iter().map(shown).collect())
    }

    #[test]
    fn a_search_is_parsed_into_terms() {
        for (text, expected) in [
            ("Disk full", vec!["disk", "full"]),
            ("  disk   -full ", vec!["disk", "-full"]),
            ("\"disk is full\" now", vec!["disk is full", "now"]),
            ("-\"disk full\"", vec!["-disk full"]),
            ("web-01", vec!["web 01"]),
            ("12:30", vec!["12 30"]),
            ("http://host/path", vec!["http host path"]),
            (
                "note:disk payload.user.name:\"Ada L\"",
                vec!["0:disk", "1.user.name:ada l"],
            ),
            ("-payload:x", vec!["-1:x"]),
            ("note.member:x", vec!["note member x"]),
            ("dis*", vec!["dis*"]),
            ("note:\"disk fu*\"", vec!["0:disk fu*"]),
            ("disk * x", vec!["disk", "x"]),
            ("\"open", vec!["open"]),
            ("a\"b c\"d", vec!["a b c d"]),
            ("NEAR(a b) OR ^c {x}:y", vec!["near a", "b", "or", "c", "x y"]),
            ("- -- a", vec!["a"]),
        ] {
            assert_eq!(parsed(text).unwrap(), expected, "{text}");
        }
        for text in ["", "--", "\"\"", "payload:", "*"] {
            assert_eq!(parsed(text), Err(SearchError::NoWord), "{text}");
        }
        assert_eq!(
            parsed(&"a ".repeat(TERMS_MAX + 1)),
            Err(SearchError::TooManyTerms)
        );
        assert_eq!(
            parsed(&"a-".repeat(WORDS_MAX + 1)),
            Err(SearchError::TooManyWords)
        );
    }

    #[test]
    fn excluded_terms_and_prefixes_require_no_word() {
        let required = |text: &str| {
            let query = SearchQuery::parse(text, column).unwrap();
            query.required_words().map(|words| words.join(" "))
        };
        assert_eq!(required("b a -c \"a d\"").as_deref(), Some("a b d"));
        assert_eq!(required("\"full dis*\"").as_deref(), Some("full"));
        assert_eq!(required("dis*"), None);
        assert_eq!(required("-c"), None);
    }
}
