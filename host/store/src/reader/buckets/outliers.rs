//! The time range of a table without outliers: a single wrong clock must not stretch a histogram over years.

/// Rows at each end of a table's time range that are examined for outliers.
pub(super) const END_ROWS: usize = 16;

/// A row at an end of the range is an outlier when the time between it and the rest is more than this many times as long
/// as the rest, and longer than [`OUTLIER_DISTANCE_MIN`].
const OUTLIER_FACTOR: i64 = 10;

/// Shortest distance of an outlier, in microseconds: 30 days. A table whose rows lie within some weeks is always shown
/// whole.
const OUTLIER_DISTANCE_MIN: i64 = 30 * 24 * 3_600 * 1_000_000;

/// The first and the last time of a table without outliers, from the outermost times of its two ends: ascending from
/// the earliest, and descending from the latest. All rows but the outermost [`END_ROWS`] of each end always belong to
/// the range (in a small table, the middle half).
pub(super) fn central_range(lowest: &[i64], highest: &[i64]) -> Option<(i64, i64)> {
    let (&inner_low, &inner_high) = (lowest.last()?, highest.last()?);
    let inwards: Vec<i64> = highest.iter().rev().copied().collect();
    let mut early: Vec<i64> = lowest.to_vec();
    let late = if inner_low < inner_high {
        inwards
    } else {
        // The two ends meet, so together they contain all rows: then the middle half is the core.
        early.extend(inwards.into_iter().filter(|&time| time > inner_low));
        let late = early.split_off(early.len() * 3 / 4);
        early.truncate(early.len() / 3 + 1);
        late
    };
    early.reverse();
    let (&last, &first) = (late.first()?, early.first().or(late.first())?);
    let (mut first, mut last) = (first, last);
    let near = |distance: i64, first: i64, last: i64| {
        let span = last.saturating_sub(first);
        distance <= span.saturating_mul(OUTLIER_FACTOR).max(OUTLIER_DISTANCE_MIN)
    };
    let (mut early, mut late) = (early.into_iter().peekable(), late.into_iter().peekable());
    // Each added row makes the range longer, which may bring the next row of the other end near.
    loop {
        let before = (early.len(), late.len());
        while let Some(time) = early.next_if(|time| near(first.saturating_sub(*time), first, last)) {
            first = first.min(time);
        }
        while let Some(time) = late.next_if(|time| near(time.saturating_sub(last), first, last)) {
            last = last.max(time);
        }
        if (early.len(), late.len()) == before {
            return Some((first, last));
        }
    }
}
