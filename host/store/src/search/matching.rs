//! Whether the texts of a row contain a search: a single pass over the words of each text.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::query::{SearchQuery, Term};
use super::words::{for_each_text, for_each_word};

/// Bytes of text after which a search checks whether it has to stop.
const PART_BYTES: usize = 64 << 10;

/// The search was stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// A value of a searched column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchedText<'a> {
    /// The position of its column.
    pub(crate) column: usize,
    pub(crate) text: &'a str,
    pub(crate) is_json: bool,
}

/// Why a pass over the words ended early.
enum End {
    Decided,
    Stopped,
}

/// The state of one search in one row.
struct Pass<'q, F> {
    terms: &'q [Term],
    /// For each term, bit `n` is set if the first `n + 1` words of the term end at the last word.
    begun: Vec<u32>,
    found: Vec<bool>,
    unchecked_bytes: usize,
    has_to_stop: F,
}

impl SearchQuery {
    /// Whether the texts of a row match. `has_to_stop` is called every few kilobytes of text.
    ///
    /// # Errors
    /// [`Stopped`] if `has_to_stop` returned true before the result was known.
    pub(crate) fn matches<'t>(
        &self,
        texts: impl IntoIterator<Item = SearchedText<'t>>,
        has_to_stop: impl FnMut() -> bool,
    ) -> Result<bool, Stopped> {
        let mut pass = Pass {
            terms: &self.terms,
            begun: vec![0; self.terms.len()],
            found: vec![false; self.terms.len()],
            unchecked_bytes: 0,
            has_to_stop,
        };
        for text in texts {
            match pass.value(text) {
                ControlFlow::Break(End::Stopped) => return Err(Stopped),
                ControlFlow::Break(End::Decided) => break,
                ControlFlow::Continue(()) => {}
            }
        }
        let terms = self.terms.iter().zip(pass.found);
        Ok(terms.into_iter().all(|(term, found)| found != term.is_excluded))
    }
}

impl<F: FnMut() -> bool> Pass<'_, F> {
    fn value(&mut self, value: SearchedText<'_>) -> ControlFlow<End> {
        match value.is_json {
            true => for_each_text(value.text, |names, text| self.text(value.column, names, text)),
            false => self.text(value.column, &[], value.text),
        }
    }

    fn text(&mut self, column: usize, names: &[Cow<'_, str>], text: &str) -> ControlFlow<End> {
        let terms = self.terms;
        let is_searched = |term: &Term| {
            term.scope.as_ref().is_none_or(|scope| {
                scope.column == column
                    && scope.members.len() <= names.len()
                    && scope
                        .members
                        .iter()
                        .zip(names)
                        .all(|(member, name)| member == name)
            })
        };
        let searched: Vec<usize> = (0..terms.len())
            .filter(|&term| !self.found[term] && is_searched(&terms[term]))
            .collect();
        for &term in &searched {
            self.begun[term] = 0;
        }
        for_each_word(text, |word| {
            self.check_stop(word.len())?;
            searched.iter().try_for_each(|&term| self.word(term, word))
        })
    }

    fn check_stop(&mut self, bytes: usize) -> ControlFlow<End> {
        self.unchecked_bytes += bytes;
        if self.unchecked_bytes < PART_BYTES {
            return ControlFlow::Continue(());
        }
        self.unchecked_bytes = 0;
        match (self.has_to_stop)() {
            true => ControlFlow::Break(End::Stopped),
            false => ControlFlow::Continue(()),
        }
    }

    /// Continues a term with the next word of a text.
    fn word(&mut self, number: usize, word: &str) -> ControlFlow<End> {
        let term = &self.terms[number];
        let last = term.words.len() - 1;
        let mut equal = 0_u32;
        for (position, sought) in term.words.iter().enumerate() {
            let is_equal = match term.is_prefix && position == last {
                true => word.starts_with(sought.as_str()),
                false => word == sought,
            };
            equal |= u32::from(is_equal) << position;
        }
        let begun = ((self.begun[number] << 1) | 1) & equal;
        self.begun[number] = begun;
        if begun >> last & 1 == 0 || self.found[number] {
            return ControlFlow::Continue(());
        }
        self.found[number] = true;
        let is_decided = term.is_excluded || self.is_complete();
        if is_decided {
            ControlFlow::Break(End::Decided)
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Whether all required terms were found and nothing can exclude the row any more.
    fn is_complete(&self) -> bool {
        let mut terms = self.terms.iter().zip(&self.found);
        terms.all(|(term, found)| *found && !term.is_excluded)
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::SearchableColumn;
    use super::*;

    fn matches(search: &str, note: &str, payload: &str) -> bool {
        let column = |name: &str| {
            let position = ["note", "payload"].iter().position(|known| *known == name)?;
            Some(SearchableColumn {
                position,
                is_json: position == 1,
            })
        };
        let texts = [(0, note, false), (1, payload, true)];
        let texts = texts.map(|(column, text, is_json)| SearchedText {
            column,
            text,
            is_json,
        });
        SearchQuery::parse(search, column)
            .unwrap()
            .matches(texts, || false)
            .unwrap()
    }

    #[test]
    fn a_row_matches_if_it_contains_all_terms() {
        let note = "The disk is full, the fan is fine";
        let payload =
            r#"{"user": {"name": "Ada Lovelace", "tags": ["Admin", "ops"]}, "status": 404, "full": "no"}"#;
        for (search, expected) in [
            ("disk", true),
            ("DISK full", true),
            ("dis", false),
            ("dis*", true),
            ("disk missing", false),
            ("\"disk is full\"", true),
            ("\"disk full\"", false),
            ("\"is fin*\"", true),
            ("\"is fine extra\"", false),
            ("\"fan is fine\" -disk", false),
            ("fan -missing", true),
            ("-missing", true),
            ("-disk", false),
            ("ada 404 fan", true),
            ("\"fine ada\"", false),
            ("payload.user.name:ada", true),
            ("payload.user:ada", true),
            ("payload:ada", true),
            ("payload.name:ada", false),
            ("note:ada", false),
            ("payload.user.tags:ops", true),
            ("payload.user.tags:\"admin ops\"", false),
            ("payload.status:404", true),
            ("-payload.status:404 disk", false),
            ("-payload.status:200 disk", true),
            ("lovelace -note:lovelace", true),
            ("user", false),
            ("payload.full:no note:full", true),
        ] {
            assert_eq!(matches(search, note, payload), expected, "{search}");
        }
    }

    #[test]
    fn overlapping_beginnings_of_a_phrase_are_found() {
        assert!(matches("\"a a b\"", "a a a b", "{}"));
        assert!(!matches("\"a a b\"", "a b a b", "{}"));
    }

    #[test]
    fn a_search_checks_often_whether_it_has_to_stop() {
        let text = "a ".repeat(PART_BYTES * 5);
        let one = SearchedText {
            column: 0,
            text: &text,
            is_json: false,
        };
        let query = SearchQuery::parse("b", |_| None).unwrap();
        let mut checks = 0;
        let stopped = query.matches([one], || {
            checks += 1;
            checks > 3
        });
        assert_eq!((stopped, checks), (Err(Stopped), 4));
    }
}
