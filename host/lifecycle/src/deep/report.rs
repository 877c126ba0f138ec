//! The findings of the deep check: differences between the ledger and the projected messages, and between rows.

use super::worker::RangeResult;
use super::{DeepError, DeepReport, PluginCheck, blocking};
use lantern_store::check::{Problem, plural};
use lantern_store::deep::{Compared, DeepPlugin, DeepRange, DeepSource};

impl PluginCheck<'_> {
    /// Compares the counters with the ledger. Returns why the whole history is unknown, if it is.
    pub(super) fn compare_counts(
        &self,
        name: &str,
        source: &DeepSource,
        range: &DeepRange,
        sampled: bool,
        result: RangeResult,
        report: &mut DeepReport,
    ) -> Option<String> {
        let location = format!(
            "{name}/{}, messages {} to {}",
            source.source, range.first, range.last
        );
        let remedy = format!("lantern rebuild {name}");
        let mut problem = |problem: String| {
            report.problems.push(Problem {
                problem,
                remedy: remedy.clone(),
            });
        };
        for reason in &result.rejected {
            problem(format!("{location}: {reason}"));
        }
        if sampled {
            return Some("only a sample was read".to_owned());
        }
        if result.unknown > 0 {
            let unknown = plural(result.unknown, "message");
            let reason = format!("{unknown} that a version projected later, which cannot be loaded");
            report.unverified.push(format!("{location}: {reason}"));
            return Some(reason);
        }
        let (ledger, made) = (range.counts, result.counts);
        if made.messages < ledger.messages {
            let gone = ledger.messages - made.messages;
            let reason = format!("{} no longer in the stream", plural(gone, "message"));
            report.unverified.push(format!("{location}: {reason}"));
            return Some(reason);
        }
        let mut pairs = vec![
            ("messages", ledger.messages, made.messages),
            ("dead letters", ledger.dead, made.dead),
        ];
        // Only the rows of an erased message could show whether it was skipped, and how many rows it gave.
        if result.erased == 0 {
            pairs.push(("projected messages", ledger.projected, made.projected));
            pairs.push(("skipped messages", ledger.skipped, made.skipped));
            if !result.has_dropped_table {
                pairs.push(("rows", ledger.rows, made.rows));
            }
        }
        let differing = pairs.into_iter().filter(|(_, ledger, made)| ledger != made);
        for (what, ledger, made) in differing {
            problem(format!(
                "{location}: the ledger counts {ledger} {what}, but the messages give {made}"
            ));
        }
        None
    }

    /// Compares the tables that depend on the whole history, and reports all rows.
    pub(super) async fn finish(
        &mut self,
        plugin: &DeepPlugin,
        merging: &[&str],
        full: Result<(), String>,
        report: &mut DeepReport,
    ) -> Result<(), DeepError> {
        let Some(mut worker) = self.worker.take() else {
            return Ok(());
        };
        if let Err(reason) = &full
            && !merging.is_empty()
        {
            report.unverified.push(format!(
                "{}, whose writes update stored rows, so that a row depends on the whole history: {reason}",
                merging.join(", ")
            ));
        }
        let through = plugin
            .sources
            .first()
            .map_or(0, |source| source.checkpoint.sequence);
        if full.is_ok() {
            worker = blocking(move || {
                let compared = match &worker.full {
                    Some(full) => worker
                        .comparer
                        .compare_whole(&full.scratch, through, &mut worker.found),
                    None => Ok(()),
                };
                compared.map(|()| worker)
            })
            .await??;
        }
        report_rows(&plugin.name, worker.found, report);
        Ok(())
    }
}

/// Reports the differing rows, and those that could not be compared.
fn report_rows(name: &str, found: Compared, report: &mut DeepReport) {
    report.rows += found.same;
    let remedy = format!("lantern rebuild {name}");
    let more = found.differing.saturating_sub(found.differences.len() as u64);
    for problem in found.differences {
        report.problems.push(Problem {
            problem: format!("{name}: {problem}"),
            remedy: remedy.clone(),
        });
    }
    if more > 0 {
        report.problems.push(Problem {
            problem: format!("{name}: {} more like these", plural(more, "difference")),
            remedy,
        });
    }
    for (number, text) in [
        (
            found.without_message,
            "of messages that are no longer in the stream",
        ),
        (found.expired, "deleted because of their age"),
        (found.erased, "whose value was erased with `lantern forget`"),
    ] {
        if number > 0 {
            report
                .unverified
                .push(format!("{name}: {} {text}", plural(number, "row")));
        }
    }
}
