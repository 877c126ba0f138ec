//! How the counts of a ledger range are divided when a part of it is reprojected. Pure functions.
//!
//! The ledger counts ranges and not messages, so both parts have to be derived from the messages that were read again,
//! from the existing rows and dead letters, and from the limits of a range. Three properties always hold, and
//! `store::check` verifies them: each range adds up, no range counts more than its width, and all ranges together count
//! exactly the existing dead letters, gaps and rows.

use crate::Counts;

/// A stretch of the reprojected part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Sequences that were gone when the host first read the stretch.
    pub(super) missing: u64,
    /// What is known about the former counts of its messages.
    pub(super) known: Known,
    /// Its new counts; none if none of its messages was read again, so that it stays unchanged.
    pub(super) new: Option<Counts>,
}

/// What is known about the messages of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Messages that were read again, or that have rows or a dead letter.
    pub(super) messages: u64,
    /// Messages with rows.
    pub(super) with_rows: u64,
    /// Messages that are dead letters.
    pub(super) dead: u64,
    /// Rows.
    pub(super) rows: u64,
}

/// The counts of each stretch, and of the rest of the range after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) stretches: Vec<Counts>,
    pub(super) rest: Counts,
}

/// Divides `whole`, the counts of a range, into stretches at its start and a rest of `rest_width` sequences.
pub(super) fn divide(whole: Counts, stretches: &[Stretch], rest_width: u64) -> Division {
    let mut rest = whole;
    for stretch in stretches {
        rest.missing = rest.missing.saturating_sub(stretch.missing);
    }
    let known: u64 = stretches.iter().map(|stretch| stretch.known.messages).sum();
    // The position of messages that left nothing and are gone from the stream is unknown. They stay with the rest as
    // long as it has space for them.
    let room = rest_width.saturating_sub(rest.missing);
    let mut overflow = whole.messages.saturating_sub(known).saturating_sub(room);
    let mut extra = vec![0; stretches.len()];
    // An unchanged stretch takes them first, because it consists of messages that are gone.
    for wants_new in [false, true] {
        for (stretch, extra) in stretches.iter().zip(&mut extra) {
            if stretch.new.is_some() == wants_new {
                let width = stretch.last - stretch.first + 1;
                let free = width.saturating_sub(stretch.missing + stretch.known.messages);
                *extra = overflow.min(free);
                overflow -= *extra;
            }
        }
    }
    let mut counts: Vec<Counts> = stretches
        .iter()
        .zip(extra)
        .map(|(stretch, extra)| take(&mut rest, stretch, extra))
        .collect();
    if rest_width == 0
        && let Some(last) = counts.last_mut()
    {
        // Rows that were written and have expired since.
        last.changed += rest.changed;
        last.inserted += rest.inserted;
        last.updated += rest.updated;
        rest = Counts::default();
    }
    Division {
        stretches: counts,
        rest,
    }
}

/// Removes a stretch from the remaining counts. `extra` of its messages left nothing.
fn take(rest: &mut Counts, stretch: &Stretch, extra: u64) -> Counts {
    let Known {
        messages,
        with_rows,
        dead,
        rows,
    } = stretch.known;
    let messages = messages + extra;
    let alive = messages.saturating_sub(dead);
    // Some may have produced rows that no longer exist: then fewer than `extra` messages were skipped.
    let projected = with_rows.max(alive.saturating_sub(rest.skipped)).min(alive);
    let old = Counts {
        messages,
        projected,
        skipped: alive - projected,
        dead,
        missing: stretch.missing,
        rows: rows + present(rest, projected, with_rows, rows),
        changed: rows,
        // Only tables whose writes never update are reprojected.
        inserted: rows,
        updated: 0,
    };
    rest.messages = rest.messages.saturating_sub(old.messages);
    rest.projected = rest.projected.saturating_sub(old.projected);
    rest.skipped = rest.skipped.saturating_sub(old.skipped);
    rest.dead = rest.dead.saturating_sub(old.dead);
    rest.rows = rest.rows.saturating_sub(old.rows);
    rest.changed = rest.changed.saturating_sub(old.changed);
    rest.inserted = rest.inserted.saturating_sub(old.inserted);
    match stretch.new {
        None => old,
        Some(new) => Counts {
            messages: new.messages + extra,
            skipped: new.skipped + extra,
            missing: stretch.missing,
            ..new
        },
    }
}

/// How many of the rows that changed nothing, because a row with their key existed, come from a part of a range. The part
/// has `projected` messages with rows, of which `with_rows` left all of its `rows`.
///
/// Such rows leave nothing, so the ledger knows only their number in the whole range. It is divided in proportion to the
/// messages, within what is certain: a message that produced rows and left none produced at least one of them. The result
/// is exact if each message produces at most one row.
fn present(whole: &Counts, projected: u64, with_rows: u64, rows: u64) -> u64 {
    let all = whole.present();
    let share = all.saturating_mul(projected) / whole.projected.max(1);
    let least = projected.saturating_sub(with_rows).min(all);
    let left = whole.projected.saturating_sub(projected);
    let needed_by_rest = left.saturating_sub(whole.changed.saturating_sub(rows));
    let most = all.saturating_sub(needed_by_rest).max(least);
    share.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(projected: u64, skipped: u64, dead: u64, missing: u64) -> Counts {
        Counts {
            messages: projected + skipped + dead,
            projected,
            skipped,
            dead,
            missing,
            rows: projected,
            changed: projected,
            inserted: projected,
            updated: 0,
        }
    }

    fn again(first: u64, last: u64, old_rows: u64, old_dead: u64, new: Counts) -> Stretch {
        let known = Known {
            messages: new.messages,
            with_rows: old_rows,
            dead: old_dead,
            rows: old_rows,
        };
        Stretch {
            first,
            last,
            missing: 0,
            known,
            new: Some(new),
        }
    }

    #[test]
    fn ranges_read_again_are_removed_and_the_rest_stays() {
        let whole = counts(8, 1, 1, 0);
        let first = again(1, 4, 3, 1, counts(4, 0, 0, 0));
        let divided = divide(whole, &[first], 6);
        assert_eq!(divided.stretches, [counts(4, 0, 0, 0)]);
        assert_eq!(divided.rest, counts(5, 1, 0, 0));
        let last = again(5, 10, 5, 0, counts(0, 6, 0, 0));
        let divided = divide(divided.rest, &[last], 0);
        assert_eq!(divided.stretches, [counts(0, 6, 0, 0)]);
        assert_eq!(divided.rest, Counts::default());
    }

    #[test]
    fn rows_of_gone_messages_stay_with_the_adjacent_gone_messages() {
        // 1 to 5 are gone: two with rows, three skipped. 6 to 8 were read again, 9 and 10 follow later.
        let whole = counts(7, 3, 0, 0);
        let gone = Stretch {
            first: 1,
            last: 5,
            missing: 0,
            known: Known {
                messages: 2,
                with_rows: 2,
                dead: 0,
                rows: 2,
            },
            new: None,
        };
        let divided = divide(whole, &[gone, again(6, 8, 3, 0, counts(2, 1, 0, 0))], 2);
        assert_eq!(divided.stretches, [counts(2, 3, 0, 0), counts(2, 1, 0, 0)]);
        assert_eq!(divided.rest, counts(2, 0, 0, 0));
    }

    #[test]
    fn rows_that_have_expired_stay_counted() {
        // Ten rows were written, four still exist.
        let whole = counts(10, 0, 0, 0);
        let divided = divide(whole, &[again(1, 10, 4, 0, counts(10, 0, 0, 0))], 0);
        let expected = Counts {
            changed: 16,
            inserted: 16,
            ..counts(10, 0, 0, 0)
        };
        assert_eq!(divided.stretches, [expected]);
    }

    #[test]
    fn ignored_rows_leave_with_their_messages() {
        // Messages 1 to 5 inserted a row each, and 6 to 10 repeated their keys.
        let whole = Counts {
            changed: 5,
            inserted: 5,
            ..counts(10, 0, 0, 0)
        };
        let first = again(1, 5, 5, 0, counts(5, 0, 0, 0));
        let divided = divide(whole, &[first], 5);
        let repeated = Counts {
            changed: 0,
            inserted: 0,
            ..counts(5, 0, 0, 0)
        };
        assert_eq!(divided.rest, repeated);
        // The other way round: only the repetitions are reprojected.
        let divided = divide(whole, &[again(1, 5, 0, 0, counts(0, 5, 0, 0))], 5);
        assert_eq!(divided.rest, counts(5, 0, 0, 0));
        // Two rows for each message; one of the two was ignored.
        let whole = Counts {
            rows: 20,
            ..counts(10, 0, 0, 0)
        };
        let divided = divide(whole, &[again(1, 5, 5, 0, counts(5, 0, 0, 0))], 5);
        assert_eq!((divided.rest.rows, divided.rest.changed), (10, 5));
    }

    #[test]
    fn divided_ranges_add_up() {
        for missing in 0..3 {
            for gone in 0..4_u64 {
                for through in 4..=10 {
                    let width = 10;
                    let whole = counts(width - missing - 1, 1, 0, missing);
                    let read = (through - gone).min(through - missing.min(through));
                    let stretch = Stretch {
                        missing: missing.min(through - read),
                        ..again(1, through, read.saturating_sub(1), 0, counts(read, 0, 0, 0))
                    };
                    let divided = divide(whole, &[stretch], width - through);
                    let mut sum = divided.rest;
                    for (counts, width) in [(divided.stretches[0], through), (divided.rest, width - through)]
                    {
                        assert_eq!(counts.messages, counts.projected + counts.skipped + counts.dead);
                        assert!(counts.messages + counts.missing <= width, "{divided:?}");
                    }
                    sum += divided.stretches[0];
                    assert_eq!((sum.messages, sum.missing), (whole.messages, missing));
                }
            }
        }
    }
}
