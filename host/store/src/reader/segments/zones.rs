//! Decides from the summaries of segments which segments a query reads. Pure functions.

use std::collections::HashMap;

/// The summary of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reader) struct Segment {
    pub(in crate::reader) number: i64,
    pub(in crate::reader) rows: u64,
    /// Rows without a time.
    pub(in crate::reader) untimed: u64,
    /// No row is earlier than the first or later than the second; none if no row has a time.
    pub(in crate::reader) times: Option<(i64, i64)>,
}

/// The rows of a segment that have one of the values of a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::reader) struct Matches {
    pub(in crate::reader) rows: u64,
    /// Rows whose values the summary does not list, so that they may match or not.
    pub(in crate::reader) unlisted: u64,
}

impl Matches {
    /// Adds the rows of a value; for the long texts of a segment, `is_unlisted`.
    pub(in crate::reader) fn add(&mut self, rows: i64, is_unlisted: bool) {
        match is_unlisted {
            true => self.unlisted += rows.unsigned_abs(),
            false => self.rows += rows.unsigned_abs(),
        }
    }
}

/// The matching rows of each segment that has any.
pub(in crate::reader) type SegmentMatches = HashMap<i64, Matches>;

/// A segment that may contain rows of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reader) struct Zone {
    pub(in crate::reader) segment: Segment,
    pub(in crate::reader) share: Share,
}

/// The part of a segment's rows that a selection contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reader) enum Share {
    /// All of them.
    All,
    /// This number of rows.
    Known(u64),
    /// At most this number; only reading the rows shows how many.
    Unknown(u64),
}

/// A selection, as far as it concerns summaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::reader) struct SummaryFilter {
    /// At this time or later.
    pub(in crate::reader) from: Option<i64>,
    /// Before this time.
    pub(in crate::reader) to: Option<i64>,
    /// Whether there are conditions that no summary answers.
    pub(in crate::reader) is_narrower: bool,
}

impl Share {
    /// The rows that satisfy two independent conditions.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, share) | (share, Self::All) => share,
            (one, other) => Self::Unknown(one.limit().min(other.limit())),
        }
    }

    fn limit(self) -> u64 {
        match self {
            Self::All => u64::MAX,
            Self::Known(rows) | Self::Unknown(rows) => rows,
        }
    }
}

impl Zone {
    /// The number of the selection's rows, if the summaries contain it.
    pub(in crate::reader) fn known(&self) -> Option<u64> {
        match self.share {
            Share::All => Some(self.segment.rows),
            Share::Known(rows) => Some(rows),
            Share::Unknown(_) => None,
        }
    }

    /// The most rows that the selection can contain.
    pub(in crate::reader) fn rows_max(&self) -> u64 {
        self.share.limit().min(self.segment.rows)
    }
}

/// The segments that may contain rows of a selection. `choices` are the matches of each condition on a facet.
pub(in crate::reader) fn zones(
    segments: impl IntoIterator<Item = Segment>,
    choices: &[SegmentMatches],
    scope: SummaryFilter,
) -> Vec<Zone> {
    let zone = |segment: Segment| {
        let mut share = in_range(&segment, scope)?;
        for choice in choices {
            let matches = choice.get(&segment.number)?;
            share = share.and(match matches {
                Matches { rows, unlisted: 0 } if *rows == segment.rows => Share::All,
                Matches { rows, unlisted: 0 } => Share::Known(*rows),
                Matches { rows, unlisted } => Share::Unknown(rows + unlisted),
            });
        }
        if scope.is_narrower {
            share = Share::Unknown(share.limit().min(segment.rows));
        }
        Some(Zone { segment, share })
    };
    segments.into_iter().filter_map(zone).collect()
}

/// The part of a segment in a range of time; none if there is none.
fn in_range(segment: &Segment, scope: SummaryFilter) -> Option<Share> {
    if scope.from.is_none() && scope.to.is_none() {
        return Some(Share::All);
    }
    let (first, last) = segment.times?;
    let timed = segment.rows - segment.untimed.min(segment.rows);
    let is_before = scope.from.is_some_and(|from| last < from);
    let is_after = scope.to.is_some_and(|to| first >= to);
    if is_before || is_after {
        return None;
    }
    let is_inside = scope.from.is_none_or(|from| first >= from) && scope.to.is_none_or(|to| last < to);
    Some(match is_inside {
        true if segment.untimed == 0 => Share::All,
        true => Share::Known(timed),
        false => Share::Unknown(timed),
    })
}

/// Part of the rows of a segment that is at or after a time, if its rows are evenly spread.
fn part_since(times: (i64, i64), since: i64) -> f64 {
    let (first, last) = times;
    let span = (i128::from(last) - i128::from(first) + 1) as f64;
    let since = (i128::from(last) - i128::from(since) + 1) as f64;
    (since / span).clamp(0.0, 1.0)
}

/// The number of rows in a range of time, if the rows of each segment are evenly spread.
pub(in crate::reader) fn rows_in_range(segments: &[Segment], scope: SummaryFilter) -> f64 {
    let rows = |segment: &Segment| {
        let Some(times) = segment.times else {
            return 0.0;
        };
        let since = part_since(times, scope.from.unwrap_or(i64::MIN));
        let past = scope.to.map_or(0.0, |to| part_since(times, to));
        (since - past).max(0.0) * segment.rows as f64
    };
    segments.iter().map(rows).sum()
}

/// A segment for a page in the order of time, the latest rows first. For the earliest first, all times are negated.
#[derive(Clone, Copy, Debug)]
pub(in crate::reader) struct Span {
    pub(in crate::reader) times: (i64, i64),
    pub(in crate::reader) rows: u64,
    /// Rows that may belong to the page.
    pub(in crate::reader) matching: u64,
}

/// What a page costs, in rows read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::reader) struct Costs {
    /// A walk along the index of the time reads these rows, one by one.
    pub(in crate::reader) walk: f64,
    /// The segments that contain matching rows have these rows.
    pub(in crate::reader) segments: f64,
    /// The number of these segments.
    pub(in crate::reader) count: usize,
}

/// Estimates what `needed` matching rows at `latest` or earlier cost, if the rows of each segment are evenly spread over
/// its time.
pub(in crate::reader) fn costs(spans: &[Span], needed: u64, latest: i64) -> Costs {
    let end = spans.iter().map(|span| span.times.1).max().unwrap_or_default();
    let latest = latest.min(end);
    let rows_since = |since: i64, rows: fn(&Span) -> u64| -> f64 {
        let later = latest.saturating_add(1);
        let part = |span: &Span| (part_since(span.times, since) - part_since(span.times, later)).max(0.0);
        spans.iter().map(|span| rows(span) as f64 * part(span)).sum()
    };
    let has_enough = |since: i64| rows_since(since, |span| span.matching) >= needed as f64;
    let mut since = spans.iter().map(|span| span.times.0).min().unwrap_or(latest);
    if has_enough(since) {
        let mut too_late = latest.max(since);
        // Each step halves the error, which begins with the whole time of the table.
        for _ in 0..30 {
            let middle = i64::midpoint(since, too_late);
            match has_enough(middle) {
                true => since = middle,
                false => too_late = middle,
            }
        }
    }
    let is_read = |span: &&Span| span.matching > 0 && span.times.1 >= since && span.times.0 <= latest;
    Costs {
        walk: rows_since(since, |span| span.rows),
        segments: spans.iter().filter(is_read).map(|span| span.rows as f64).sum(),
        count: spans.iter().filter(is_read).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: i64, rows: u64, untimed: u64, times: Option<(i64, i64)>) -> Segment {
        Segment {
            number,
            rows,
            untimed,
            times,
        }
    }

    fn matching(all: &[(i64, u64, u64)]) -> SegmentMatches {
        all.iter()
            .map(|&(number, rows, unlisted)| (number, Matches { rows, unlisted }))
            .collect()
    }

    #[test]
    fn a_summary_decides_how_much_of_a_segment_is_selected() {
        let all = [
            segment(0, 100, 0, Some((0, 99))),
            segment(1, 100, 10, Some((100, 199))),
            segment(2, 100, 0, Some((200, 299))),
            segment(3, 5, 5, None),
        ];
        let range = |from, to| SummaryFilter {
            from: Some(from),
            to: Some(to),
            is_narrower: false,
        };
        let of = |choices: &[SegmentMatches], scope| -> Vec<(i64, Share)> {
            zones(all, choices, scope)
                .into_iter()
                .map(|zone| (zone.segment.number, zone.share))
                .collect()
        };
        use Share::{All, Known, Unknown};
        let everything = SummaryFilter::default();
        assert_eq!(of(&[], everything), [(0, All), (1, All), (2, All), (3, All)]);
        assert_eq!(of(&[], range(0, 200)), [(0, All), (1, Known(90))]);
        assert_eq!(
            of(&[], range(50, 201)),
            [(0, Unknown(100)), (1, Known(90)), (2, Unknown(100))]
        );
        assert_eq!(of(&[], range(300, 400)), []);
        let kind = matching(&[(0, 100, 0), (1, 7, 0), (2, 1, 2)]);
        assert_eq!(
            of(std::slice::from_ref(&kind), everything),
            [(0, All), (1, Known(7)), (2, Unknown(3))]
        );
        assert_eq!(
            of(std::slice::from_ref(&kind), range(0, 150)),
            [(0, All), (1, Unknown(7))]
        );
        let source = matching(&[(1, 3, 0)]);
        assert_eq!(of(&[kind, source], everything), [(1, Unknown(3))]);
        let narrower = SummaryFilter {
            is_narrower: true,
            ..everything
        };
        assert_eq!(of(&[matching(&[(0, 4, 0)])], narrower), [(0, Unknown(4))]);
    }

    #[test]
    fn the_rows_of_a_range_are_estimated_from_even_segments() {
        let all = [segment(0, 100, 0, Some((0, 99)))];
        for (from, to, rows) in [
            (None, None, 100.0),
            (Some(25), Some(75), 50.0),
            (Some(200), None, 0.0),
        ] {
            let scope = SummaryFilter {
                from,
                to,
                is_narrower: false,
            };
            assert!((rows_in_range(&all, scope) - rows).abs() < 1.0, "{scope:?}");
        }
    }

    /// Segments of 1,000 rows, of which each `every`th contains one matching row.
    fn spans(count: i64, every: i64, times: impl Fn(i64) -> (i64, i64)) -> Vec<Span> {
        let span = |number| Span {
            times: times(number),
            rows: 1_000,
            matching: u64::from(number % every == 0),
        };
        (0..count).map(span).collect()
    }

    #[test]
    fn the_costs_of_a_page_depend_on_how_rare_a_value_is_and_whether_rows_arrive_in_order() {
        let in_order = |number: i64| (number * 1_000, number * 1_000 + 999);
        let at_random = |_: i64| (0, 9_999_999);
        // A rare value in rows that arrived in order: the walk reads all rows between the matching ones.
        let rare = costs(&spans(10_000, 100, in_order), 50, i64::MAX - 1);
        assert!((4.8e6..5.2e6).contains(&rare.walk), "{rare:?}");
        assert!((49..=51).contains(&rare.count), "{rare:?}");
        // In rows that arrived in no order each segment may contain the latest rows.
        let rare = costs(&spans(10_000, 100, at_random), 50, 9_999_999);
        assert!((4.8e6..5.2e6).contains(&rare.walk), "{rare:?}");
        assert_eq!(rare.count, 100);
        // A common value there.
        let mut common = spans(10_000, 1, at_random);
        for span in &mut common {
            span.matching = 500;
        }
        let common = costs(&common, 50, 9_999_999);
        assert!((90.0..110.0).contains(&common.walk), "{common:?}");
        assert_eq!(common.count, 10_000);
        // After a cursor, the rows before it do not count.
        let after = costs(&spans(10_000, 100, in_order), 10, 999_999);
        assert!((0.9e6..1.1e6).contains(&after.walk), "{after:?}");
        assert_eq!(after.count, 10);
        // Fewer rows match than the page holds.
        let few = costs(&spans(100, 50, in_order), 50, i64::MAX - 1);
        assert!((few.walk - 100_000.0).abs() < 1.0 && few.count == 2, "{few:?}");
        assert_eq!(costs(&[], 5, 7).count, 0);
    }
}
