//! Whether a rebuild can recreate everything that the live tables were made from. Pure functions: they compare the
//! counters of the ledger with what the stream still holds.

use super::RebuildRequest;
use lantern_store::{OriginId, RebuildSurvey, SourceHistory, TableSurvey};

/// What a stream still holds of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceCoverage {
    /// The live history.
    pub(super) origin: OriginId,
    /// The last sequence before the replay range.
    pub(super) after: u64,
    /// Messages after it that the stream holds, up to the checkpoint.
    pub(super) available: u64,
}

/// A range of sequences read with the same subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The last sequence before it.
    pub(super) after: u64,
    /// Its last sequence.
    pub(super) through: u64,
    /// Empty means every subject.
    pub(super) subjects: Vec<String>,
}

/// The ranges of a history after sequence `after`, merged where the subjects are the same. Unknown subjects are assumed
/// to be `subjects`.
pub(super) fn segments(history: &SourceHistory, after: u64, subjects: &[String]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for range in history.ranges.iter().filter(|range| range.last > after) {
        let read = range.subjects.as_deref().unwrap_or(subjects);
        match segments.last_mut() {
            Some(last) if same_members(&last.subjects, read) => last.through = range.last,
            _ => segments.push(Segment {
                after: after.max(range.first.saturating_sub(1)),
                through: range.last,
                subjects: read.to_vec(),
            }),
        }
    }
    segments
}

/// Whether two lists have the same members, in any order.
pub(super) fn same_members(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|member| other.contains(member))
}

/// Why the rebuild must not start, with numbers and a remedy; `None` if it may.
pub(super) fn rejection(
    survey: &RebuildSurvey,
    coverage: &[SourceCoverage],
    request: &RebuildRequest,
) -> Option<String> {
    let declared: Vec<&TableSurvey> = survey.tables.iter().filter(|table| table.declared).collect();
    let merging: Vec<&str> = declared
        .iter()
        .filter(|table| table.merges)
        .map(|table| table.table.as_str())
        .collect();
    merged_messages_gone(survey, coverage, &merging)
        .or_else(|| messages_deleted(survey, coverage))
        .or_else(|| rows_outside(&declared, request))
}

/// A row merged from several messages needs all of them.
fn merged_messages_gone(
    survey: &RebuildSurvey,
    coverage: &[SourceCoverage],
    merging: &[&str],
) -> Option<String> {
    if merging.is_empty() {
        return None;
    }
    let mut reasons = Vec::new();
    for history in &survey.histories {
        let found = coverage.iter().find(|coverage| coverage.origin == history.origin);
        let (after, available) = found.map_or((u64::MAX, 0), |coverage| (coverage.after, coverage.available));
        let lost = history.projected_before(after, available);
        if lost > 0 {
            let place = place(history);
            let all = history.handled();
            reasons.push(match found {
                Some(_) => format!("{lost} of {all} messages of {place} would not be read again"),
                None => format!("{all} messages of {place} cannot be read again"),
            });
        }
    }
    (!reasons.is_empty()).then(|| {
        format!(
            "rejected, nothing has changed: {}, and writes into {} merge several messages into one row, so its rows \
             could neither be recreated nor carried over in part (--from and --carry-over do not apply). Restore the \
             messages to the stream from a backup, or keep the tables as they are",
            reasons.join("; "),
            merging.join(", ")
        )
    })
}

fn place(history: &SourceHistory) -> String {
    let stream = history.stream.as_deref().unwrap_or("core NATS");
    match history.epoch {
        1 => format!("source {} ({stream})", history.source),
        epoch => format!("source {} ({stream}, epoch {epoch})", history.source),
    }
}

/// Messages deleted individually, or by a limit per subject, leave holes inside the replay range.
fn messages_deleted(survey: &RebuildSurvey, coverage: &[SourceCoverage]) -> Option<String> {
    let mut reasons = Vec::new();
    for coverage in coverage {
        let history = survey
            .histories
            .iter()
            .find(|history| history.origin == coverage.origin)?;
        let (least, _) = history.handled_behind(coverage.after);
        if coverage.available < least {
            reasons.push(format!(
                "{}: the ledger counts at least {least} messages after sequence {}, and the stream still holds {} of \
                 them",
                place(history),
                coverage.after,
                coverage.available
            ));
        }
    }
    (!reasons.is_empty()).then(|| {
        format!(
            "rejected, nothing has changed: {}. Messages were deleted inside the replay range, so their rows would \
             be lost. Give --from with a sequence after the last deleted message (rows from before it are kept), or \
             restore the messages",
            reasons.join("; ")
        )
    })
}

/// Rows of messages outside the replay range have to be carried over, and have to fit the new table.
fn rows_outside(declared: &[&TableSurvey], request: &RebuildRequest) -> Option<String> {
    let keeps = request.carry_over || request.from_sequence.is_some() || request.from_time.is_some();
    let outside: Vec<String> = declared
        .iter()
        .filter(|table| table.outside > 0)
        .map(|table| format!("{} rows of table {}", table.outside, table.table))
        .collect();
    if outside.is_empty() {
        return None;
    }
    if !keeps {
        return Some(format!(
            "rejected, nothing has changed: {} come from messages that no stream holds any more, and would be lost; \
             --carry-over keeps them as they are",
            outside.join(" and ")
        ));
    }
    let obstacles: Vec<String> = declared
        .iter()
        .filter(|table| !table.obstacles.is_empty())
        .map(|table| {
            format!(
                "{} rows of table {} cannot be carried over: {}",
                table.outside,
                table.table,
                table.obstacles.join("; ")
            )
        })
        .collect();
    (!obstacles.is_empty()).then(|| {
        format!(
            "rejected, nothing has changed: {}. Rebuild with a version whose columns hold these values",
            obstacles.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_store::{Counts, HeadBounds, SurveyedRange};

    fn history(origin: i64, messages: u64, skipped: u64, head: Option<(u64, u64)>) -> SourceHistory {
        SourceHistory {
            origin: OriginId(origin),
            source: "s".into(),
            epoch: 1,
            stream: Some("S".into()),
            checkpoint: 1_000,
            ranges: vec![SurveyedRange {
                first: 1,
                last: 1_000,
                digest: "sha256:0".into(),
                subjects: Some(vec!["a".into()]),
                counts: Counts {
                    messages,
                    projected: messages - skipped,
                    skipped,
                    ..Counts::default()
                },
                head: head.map(|(min, max)| HeadBounds { min, max }),
            }],
            erased: Vec::new(),
        }
    }

    fn survey(merges: bool, outside: u64, histories: Vec<SourceHistory>) -> RebuildSurvey {
        RebuildSurvey {
            histories,
            tables: vec![TableSurvey {
                table: "t".into(),
                declared: true,
                merges,
                outside,
                obstacles: Vec::new(),
            }],
        }
    }

    fn coverage(after: u64, available: u64) -> SourceCoverage {
        SourceCoverage {
            origin: OriginId(1),
            after,
            available,
        }
    }

    #[track_caller]
    fn rejected(
        survey: &RebuildSurvey,
        coverage: &[SourceCoverage],
        request: &RebuildRequest,
        expected: &str,
    ) {
        let reason = rejection(survey, coverage, request).unwrap_or_default();
        assert!(reason.contains(expected), "{expected:?} is not in {reason:?}");
    }

    #[test]
    fn a_merging_table_needs_every_message_that_the_ledger_counts() {
        let plain = RebuildRequest::default();
        let carry = RebuildRequest {
            carry_over: true,
            ..RebuildRequest::default()
        };
        let from = RebuildRequest {
            from_sequence: Some(501),
            ..RebuildRequest::default()
        };
        let whole = survey(true, 0, vec![history(1, 1_000, 0, None)]);
        assert_eq!(rejection(&whole, &[coverage(0, 1_000)], &plain), None);
        let trimmed = survey(true, 0, vec![history(1, 1_000, 0, Some((0, 500)))]);
        for request in [&plain, &carry, &from] {
            rejected(&trimmed, &[coverage(500, 500)], request, "500 of 1000 messages");
        }
        // In a stream shared with other subjects, all trimmed messages belonged to those.
        assert_eq!(rejection(&trimmed, &[coverage(500, 1_000)], &plain), None);
        let older = survey(true, 0, vec![history(1, 1_000, 0, None), history(2, 7, 0, None)]);
        rejected(&older, &[coverage(0, 1_000)], &plain, "7 messages");
        let skipped = survey(true, 0, vec![history(1, 1_000, 1_000, Some((0, 500)))]);
        assert_eq!(rejection(&skipped, &[coverage(500, 500)], &plain), None);
    }

    #[test]
    fn a_hole_inside_the_range_is_found_by_counting() {
        let plain = RebuildRequest::default();
        let whole = survey(false, 0, vec![history(1, 1_000, 0, None)]);
        rejected(&whole, &[coverage(0, 999)], &plain, "at least 1000 messages");
        let trimmed = survey(false, 400, vec![history(1, 1_000, 0, Some((400, 400)))]);
        let carry = RebuildRequest {
            carry_over: true,
            ..RebuildRequest::default()
        };
        assert_eq!(rejection(&trimmed, &[coverage(400, 600)], &carry), None);
        rejected(&trimmed, &[coverage(400, 599)], &carry, "still holds 599");
        rejected(&trimmed, &[coverage(400, 600)], &plain, "400 rows of table t");
    }

    #[test]
    fn rows_that_do_not_fit_are_named() {
        let mut trimmed = survey(false, 400, vec![history(1, 1_000, 0, Some((400, 400)))]);
        trimmed.tables[0].obstacles = vec!["column v is new".into()];
        let carry = RebuildRequest {
            carry_over: true,
            ..RebuildRequest::default()
        };
        rejected(&trimmed, &[coverage(400, 600)], &carry, "column v is new");
        trimmed.tables[0].declared = false;
        assert_eq!(rejection(&trimmed, &[coverage(400, 600)], &carry), None);
    }

    #[test]
    fn ranges_with_the_same_subjects_are_counted_together() {
        let mut history = history(1, 1_000, 0, None);
        let mut second = history.ranges[0].clone();
        (second.first, second.last) = (1_001, 2_000);
        let mut third = second.clone();
        (third.first, third.last, third.subjects) = (2_001, 3_000, None);
        history.ranges.extend([second, third]);
        let segment = |after, through, subject: &str| Segment {
            after,
            through,
            subjects: vec![subject.to_owned()],
        };
        assert_eq!(
            segments(&history, 500, &["b".to_owned()]),
            [segment(500, 2_000, "a"), segment(2_000, 3_000, "b")]
        );
        assert_eq!(segments(&history, 3_000, &[]), []);
    }
}
