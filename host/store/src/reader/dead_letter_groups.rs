//! Dead letters grouped by their reasons. A plugin with one fault reports it for a thousand messages, with a different
//! number or name each time; here those count as one reason.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::connections::Row;
use super::records::{DEAD_LETTER_MATCHES, dead_letter_arguments};
use super::{DeadLetterFilter, ReadError, Reader};
use lantern_model::batch::Timestamp;
use lantern_model::results::records::{DeadLetterGroup, DeadLetterReason};

/// Dead letters that are scanned, the newest first: twice as many as may be open in one source by default.
const DEAD_LETTERS_MAX: usize = 200_000;

/// Longest returned reason, in bytes; a star replaces the rest.
const REASON_BYTES_MAX: usize = 300;

/// Returned reasons per group; the others are only counted.
const REASONS_MAX: usize = 1_000;

/// Up to this many different quoted texts distinguish reasons: a missing field is worth its name, a bad value is not.
const TEXTS_MAX: usize = 20;

/// Dead letters with identical reasons.
struct Same {
    group: (String, String, String),
    reason: String,
    dead_letters: u64,
    last_at: Timestamp,
}

impl Reader {
    /// Dead letters by reason, the largest group first; and whether all were scanned, or only the newest: the scan is
    /// limited by the number of dead letters, and by the bytes of different reasons.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn dead_letter_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<(Vec<DeadLetterGroup>, bool), ReadError> {
        let sql = format!(
            "SELECT o.plugin, o.source, d.class, d.reason, d.last_at \
             FROM _lantern_dead_letter AS d JOIN _lantern_origin AS o ON o.id = d.origin \
             WHERE {DEAD_LETTER_MATCHES} ORDER BY d.id DESC LIMIT ?9"
        );
        let mut arguments = dead_letter_arguments(filter, None);
        arguments.push((DEAD_LETTERS_MAX as i64).into());
        let (mut found, mut bytes) = (Found::new(), 0);
        // Counted here and not by SQLite, which would keep every reason in memory before it returns the first.
        let read = self
            .fetch_sized(&sql, arguments, DEAD_LETTERS_MAX, |row| {
                let size = count(&mut found, row).map_err(ReadError::Sql)?;
                bytes += size;
                Ok(((), size))
            })
            .await?;
        let exact = read.len() < DEAD_LETTERS_MAX && bytes < self.limits.page_bytes;
        let found = found
            .into_iter()
            .map(|((group, reason), (dead_letters, last_at))| Same {
                group,
                reason,
                dead_letters,
                last_at,
            });
        Ok((groups(found.collect()), exact))
    }
}

/// For each group and reason, the number of dead letters and the last attempt.
type Found = HashMap<((String, String, String), String), (u64, Timestamp)>;

/// Counts a dead letter. Returns the bytes that it adds: none for a known reason.
fn count(found: &mut Found, row: &Row) -> Result<usize, crate::sql::Error> {
    let (plugin, source, class): (String, _, _) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (reason, last_at): (String, _) = (row.get(3)?, Timestamp(row.get(4)?));
    let size = plugin.len() + reason.len();
    match found.entry(((plugin, source, class), reason)) {
        Entry::Occupied(mut known) => {
            let (dead_letters, newest) = known.get_mut();
            *dead_letters += 1;
            *newest = last_at.max(*newest);
            Ok(0)
        }
        Entry::Vacant(first) => {
            first.insert((1, last_at));
            Ok(size)
        }
    }
}

fn groups(found: Vec<Same>) -> Vec<DeadLetterGroup> {
    let mut by_group: BTreeMap<_, Vec<Same>> = BTreeMap::new();
    for mut same in found {
        let group = std::mem::take(&mut same.group);
        by_group.entry(group).or_default().push(same);
    }
    let mut groups: Vec<DeadLetterGroup> = by_group
        .into_iter()
        .map(|((plugin, source, class), found)| {
            let dead_letters = found.iter().map(|same| same.dead_letters).sum();
            let mut reasons = reasons(found);
            let reasons_omitted = reasons.len().saturating_sub(REASONS_MAX) as u64;
            reasons.truncate(REASONS_MAX);
            DeadLetterGroup {
                plugin,
                source,
                class,
                dead_letters,
                reasons,
                reasons_omitted,
            }
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.dead_letters));
    groups
}

/// Merges reasons that differ only in numbers, and those that differ in too many quoted texts.
fn reasons(found: Vec<Same>) -> Vec<DeadLetterReason> {
    let mut by_words: HashMap<String, HashMap<String, DeadLetterReason>> = HashMap::new();
    for same in found {
        let without_texts = pattern(&same.reason, true);
        let without_numbers = pattern(&same.reason, false);
        let reason = DeadLetterReason {
            like: cut(same.reason),
            dead_letters: same.dead_letters,
            last_at: same.last_at.to_rfc3339(),
        };
        let alike = by_words.entry(without_texts).or_default();
        join(alike, without_numbers, reason);
    }
    let mut reasons = Vec::new();
    for (words, alike) in by_words {
        if alike.len() <= TEXTS_MAX {
            reasons.extend(alike.into_values());
        } else {
            let mut one = HashMap::new();
            for reason in alike.into_values() {
                join(&mut one, words.clone(), reason);
            }
            reasons.extend(one.into_values());
        }
    }
    reasons.sort_by(|a, b| {
        b.dead_letters
            .cmp(&a.dead_letters)
            .then_with(|| a.like.cmp(&b.like))
    });
    reasons
}

/// A reason that is alone under its key is returned unchanged; for several, the key is their common part.
fn join(reasons: &mut HashMap<String, DeadLetterReason>, key: String, reason: DeadLetterReason) {
    if let Some(one) = reasons.get_mut(&key) {
        one.like = cut(key);
        one.dead_letters += reason.dead_letters;
        // Times as text have the same length and order.
        if reason.last_at > one.last_at {
            one.last_at = reason.last_at;
        }
    } else {
        reasons.insert(key, reason);
    }
}

fn cut(mut text: String) -> String {
    if text.len() > REASON_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
        text.push('*');
    }
    text
}

/// The reason with a star for each number and, if `texts`, for each quoted text.
fn pattern(reason: &str, texts: bool) -> String {
    let mut found = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(first) = rest.chars().next() {
        let after_word = found.ends_with(char::is_alphanumeric);
        let taken = match first {
            '"' | '`' | '\'' if texts && !after_word => quoted(rest, first),
            _ => None,
        };
        if let Some(length) = taken {
            found.extend([first, '*', first]);
            rest = rest.get(length..).unwrap_or_default();
        } else if is_word(first) {
            let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            let stem = word.trim_end_matches(['.', ':', '-']);
            let is_number = stem.starts_with(|c: char| c.is_ascii_digit())
                || stem.bytes().filter(u8::is_ascii_digit).count() >= 3;
            found.push_str(if is_number { "*" } else { stem });
            found.push_str(word.get(stem.len()..).unwrap_or_default());
            rest = behind;
        } else {
            found.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    found
}

/// The length of the quoted text at the start, including its quotes; none if the sign is an apostrophe.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let inner = text.get(quote.len_utf8()..)?;
    let end = inner.find(quote)?;
    let behind = inner.get(end + quote.len_utf8()..)?;
    let length = text.len() - behind.len();
    (!behind.starts_with(char::is_alphanumeric)).then_some(length)
}

/// The characters of numbers, times, addresses and generated names.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || ['_', '-', '.', ':', '+'].contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(reasons: impl IntoIterator<Item = String>) -> Vec<Same> {
        let same = |(index, reason)| Same {
            group: ("p".into(), "s".into(), "malformed".into()),
            reason,
            dead_letters: 1,
            last_at: Timestamp(i64::try_from(index).unwrap()),
        };
        reasons.into_iter().enumerate().map(same).collect()
    }

    #[track_caller]
    fn check(given: impl IntoIterator<Item = String>, expected: &[(&str, u64)]) {
        let reasons = reasons(found(given));
        let shown: Vec<_> = reasons
            .iter()
            .map(|one| (one.like.as_str(), one.dead_letters))
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn numbers_do_not_distinguish_reasons() {
        for (reason, expected) in [
            ("took 12.5 ms at 2026-11-21T10:00:00Z", "took * ms at *"),
            (
                "expected u64, line 3: column 17.",
                "expected u64, line *: column *.",
            ),
            ("no row for host-4711", "no row for *"),
            ("it can't be `x` or 'y'", "it can't be `x` or 'y'"),
            ("", ""),
        ] {
            assert_eq!(pattern(reason, false), expected);
        }
        assert_eq!(
            pattern("it can't be `x` or 'a b', \"7\"", true),
            "it can't be `*` or '*', \"*\""
        );
        assert_eq!(pattern("an `open quote", true), "an `open quote");
    }

    #[test]
    fn a_few_texts_distinguish_reasons_and_many_do_not() {
        let field = |name: &str, line| format!("missing field `{name}` at line {line}");
        check(
            [field("at", 1), field("kind", 2), field("at", 3)],
            &[
                ("missing field `at` at line *", 2),
                ("missing field `kind` at line 2", 1),
            ],
        );
        let many = (0..=TEXTS_MAX).map(|n| field(&"x".repeat(n + 1), 1));
        check(many, &[("missing field `*` at line *", TEXTS_MAX as u64 + 1)]);
    }

    #[test]
    fn many_reasons_are_counted_and_not_all_returned() {
        let word = |n: usize| ["a", "b", "c", "d", "e", "f", "g", "h"][n % 8];
        let reason = |n: usize| format!("{} {} {} {}", word(n), word(n / 8), word(n / 64), word(n / 512));
        let groups = groups(found((0..4_096).map(reason)));
        assert_eq!((groups.len(), groups[0].dead_letters), (1, 4_096));
        assert_eq!(groups[0].reasons.len(), REASONS_MAX);
        assert_eq!(groups[0].reasons_omitted, 4_096 - REASONS_MAX as u64);
    }

    #[test]
    fn a_long_reason_is_truncated_to_a_pattern_that_matches_it() {
        let [one] = reasons(found(["ä".repeat(1_000)])).try_into().unwrap();
        assert_eq!(one.like, format!("{}*", "ä".repeat(REASON_BYTES_MAX / 2)));
    }
}
