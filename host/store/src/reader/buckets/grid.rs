//! The buckets of a range of time: their number, width and beginnings.

use std::fmt::Write as _;

use lantern_model::batch::Timestamp;

/// Widths of buckets, in milliseconds; larger ones are multiples of the last.
const WIDTHS_MS: [i64; 34] = {
    const S: i64 = 1_000;
    const M: i64 = 60 * S;
    const H: i64 = 60 * M;
    const D: i64 = 24 * H;
    [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        S,
        2 * S,
        5 * S,
        10 * S,
        15 * S,
        30 * S,
        M,
        2 * M,
        5 * M,
        10 * M,
        15 * M,
        30 * M,
        H,
        2 * H,
        3 * H,
        6 * H,
        12 * H,
        D,
        2 * D,
        5 * D,
        10 * D,
        30 * D,
        60 * D,
        90 * D,
        365 * D,
    ]
};

/// A range of time in buckets. Each begins at a multiple of the width; the first and the last extend beyond the range,
/// but contain only rows of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// The range begins.
    pub from: Timestamp,
    /// The range ends before.
    pub to: Timestamp,
    /// The width of each bucket, in milliseconds.
    pub width_ms: i64,
    /// The number of buckets.
    pub count: i64,
}

impl Buckets {
    /// Divides a range into at most `count` buckets.
    pub fn new(from: Timestamp, to: Timestamp, count: u32) -> Self {
        let to = Timestamp(to.0.max(from.0.saturating_add(1)));
        let most = i64::from(count.max(1));
        let number = |width_ms: i64| {
            let width = i128::from(width_ms) * 1_000;
            let first = i128::from(from.0).div_euclid(width);
            let last = (i128::from(to.0) - 1).div_euclid(width);
            i64::try_from(last - first + 1).unwrap_or(i64::MAX)
        };
        let largest = WIDTHS_MS[WIDTHS_MS.len() - 1];
        let width_ms = WIDTHS_MS
            .into_iter()
            .find(|&width| number(width) <= most)
            .unwrap_or_else(|| {
                let mut width = largest;
                while number(width) > most {
                    width = width.saturating_mul(2);
                }
                width
            });
        Self {
            from,
            to,
            width_ms,
            count: number(width_ms),
        }
    }

    pub(in crate::reader) fn width(&self) -> i64 {
        self.width_ms.saturating_mul(1_000)
    }

    /// When a bucket begins: at a multiple of the width, but not before the earliest admissible time.
    pub fn start(&self, number: i64) -> Timestamp {
        self.aligned(number).clamp(Timestamp::MIN, Timestamp::MAX)
    }

    /// The multiple of the width at which a bucket begins, which may lie before the earliest admissible time.
    pub(in crate::reader) fn aligned(&self, number: i64) -> Timestamp {
        let first = i128::from(self.from.0).div_euclid(i128::from(self.width()));
        let start = (first + i128::from(number)) * i128::from(self.width());
        let end = if start < 0 { i64::MIN } else { i64::MAX };
        Timestamp(i64::try_from(start).unwrap_or(end))
    }

    /// The number of the bucket that contains a time; none outside the range.
    pub(in crate::reader) fn number_of(&self, time: i64) -> Option<i64> {
        let distance = i128::from(time) - i128::from(self.aligned(0).0);
        let is_inside = (self.from.0..self.to.0).contains(&time);
        is_inside
            .then(|| i64::try_from(distance / i128::from(self.width())).ok())
            .flatten()
    }

    /// The limits of each bucket, clipped to the range, as rows of a table `b (i, first, past)`.
    pub(super) fn table(&self) -> String {
        let mut rows = String::new();
        for number in 0..self.count {
            let first = self.aligned(number).max(self.from).0;
            let past = self.aligned(number + 1).min(self.to).0;
            let comma = if number == 0 { "" } else { ", " };
            // Writing to a string cannot fail. The numbers are the host's own.
            let _ = write!(rows, "{comma}({number}, {first}, {past})");
        }
        format!("b (i, first, past) AS (VALUES {rows})")
    }
}
