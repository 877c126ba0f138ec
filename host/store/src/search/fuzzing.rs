//! Searches and documents from untrusted bytes, for the fuzz targets.

use std::collections::HashSet;

use super::entries::add_words;
use super::words::split_words;
use super::{SearchQuery, SearchableColumn, SearchedText, indexed_word};

/// Parses a search and compares it with a document as text and as JSON: words cannot leave the quotes of an expression of
/// FTS5, and a matching document has all words that the index requires.
pub fn search(search: &str, document: &str) {
    let column = |name: &str| {
        let position = ["text", "json"].iter().position(|known| *known == name)?;
        Some(SearchableColumn {
            position,
            is_json: position == 1,
        })
    };
    let Ok(query) = SearchQuery::parse(search, column) else {
        return;
    };
    for term in &query.terms {
        for word in &term.words {
            assert_eq!(split_words(word), std::slice::from_ref(word), "{search:?}");
        }
    }
    let texts = [false, true].map(|is_json| SearchedText {
        column: usize::from(is_json),
        text: document,
        is_json,
    });
    let mut indexed = HashSet::new();
    for text in texts {
        add_words(&mut indexed, text.text, text.is_json);
    }
    if query.matches(texts, || false) == Ok(true) {
        let required = query.required_words().unwrap_or_default();
        let is_indexed = |word: &&str| indexed.contains(indexed_word(word));
        assert!(required.iter().all(is_indexed), "{search:?} {document:?}");
    }
}
