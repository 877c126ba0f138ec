//! Rows that a follower missed before it reconnected: their ranges, and filtering them in parts.

use bytes::Bytes;

use super::ring::{self, Added, Items, View};
use crate::cursor;
use lantern_store::reader::{ArrivalPositions, BEGINNING, RowRecord, Shape};

/// A range of missed rows: history, start (exclusive) and end.
pub type MissedRange = (i64, (i64, i64), (i64, i64));

/// The ranges that a follower has missed, one per history.
pub fn missed(after: &ArrivalPositions, joined: &ArrivalPositions) -> Vec<MissedRange> {
    let newest = after.keys().next_back().copied().unwrap_or(i64::MIN);
    let ranges = joined.iter().filter_map(|(&history, &until)| {
        let from = match after.get(&history) {
            Some(&from) => from,
            // A newer history; an older one was omitted from the position because there were too many.
            None if history > newest => BEGINNING,
            None => return None,
        };
        (from < until).then_some((history, from, until))
    });
    ranges.collect()
}

/// Position of a row in its history.
pub fn place_of(record: &RowRecord) -> (i64, i64) {
    (record.id.sequence, record.id.row)
}

/// Event id for resuming after these places.
pub fn resume_id(shape: &Shape, places: &ArrivalPositions) -> String {
    cursor::of_places(shape.entry.name.as_str(), places)
}

/// Result of filtering missed rows.
pub struct Compared {
    /// Event with the rows.
    pub block: Option<Bytes>,
    /// The last row that was compared.
    pub place: (i64, i64),
}

/// Filters rows (at least one) until a packet is full or `has_to_stop`. It consumes at least one row, so that the follower
/// makes progress: a row that could not be compared or is too large is omitted.
pub fn compare(
    shape: &Shape,
    view: &View,
    rows: &[RowRecord],
    has_to_stop: impl Fn() -> bool,
    id: impl Fn((i64, i64)) -> String,
) -> Compared {
    let mut items = Items::new(shape, &view.wanted);
    let mut last = None;
    for record in rows {
        let added = match view.matcher.matches(shape, &record.values, &has_to_stop) {
            Ok(true) => items.add(record),
            Ok(false) => Added::Yes,
            Err(_) => Added::TooLarge,
        };
        match added {
            Added::Yes => last = Some(place_of(record)),
            // Omit it if it is the first; otherwise send the rows before it first.
            Added::TooLarge if last.is_none() => {
                return Compared {
                    block: Some(ring::omitted(1)),
                    place: place_of(record),
                };
            }
            Added::TooLarge | Added::Full => break,
        }
    }
    let place = last.unwrap_or_default();
    Compared {
        block: (items.rows() > 0).then(|| items.into_event(Some(&id(place)))),
        place,
    }
}
