//! Routes for dead letters, gaps, the ledger and the audit.

use axum::http::StatusCode;

use super::Routes;
use crate::audit;
use crate::change::Change;
use crate::dead_letters::{self, CLASSES};
use crate::doc::{Doc, Query, Tag, choice, number, text, time};
use crate::forget;
use crate::parameters::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::records;
use lantern_api::{
    AuditRecord, DEAD_LETTER_STATES, DeadLetter, DeadLetterReasons, DeadLetterSelection, Discarded, Forget,
    ForgetReport, Gap, LedgerRange, Page, RetryTotals,
};
use lantern_model::batch::RejectionClass;

pub fn routes(routes: Routes) -> Routes {
    erasure(dead_letter_changes(dead_letters(ledgers(routes))))
}

fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(Tag::Records, id, summary)
}

fn of_source() -> [Query; 2] {
    [
        text("plugin", "Filter by plugin."),
        text("source", "Filter by source."),
    ]
}

fn page() -> [Query; 2] {
    [
        number(
            "limit",
            1,
            LIMIT_MAX,
            LIMIT_DEFAULT,
            "Maximum number of items per page.",
        ),
        text("cursor", "`next_cursor` of the previous page."),
    ]
}

fn ledgers(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/gaps",
            records::gaps,
            doc("listGaps", "List gaps")
                .description("A gap is a range of messages that the stream lost before the host read them.")
                .queries(of_source())
                .queries(page())
                .answers::<Page<Gap>>("One page."),
        )
        .read(
            "/api/v1/ledger",
            records::ledger,
            doc("listLedger", "List ledger ranges")
                .description(
                    "The ledger records which version handled which messages. `messages = projected + skipped + dead` \
                     holds in every range; the ranges of a source are contiguous and end at the checkpoint.",
                )
                .queries(of_source())
                .queries(page())
                .answers::<Page<LedgerRange>>("One page."),
        )
        .read(
            "/api/v1/audit",
            audit::list,
            doc("listAudit", "List audit entries")
                .description("One entry for each change, refusal and recorded read. A change that has not ended is `started`.")
                .query(text("plugin", "Filter by plugin."))
                .query(text("actor", "Filter by actor: a token name, or an internal actor such as `(host)`."))
                .query(text("action", "Filter by action.").example("plugin.activate"))
                .queries(page())
                .answers::<Page<AuditRecord>>("One page."),
        )
}

fn filters() -> [Query; 7] {
    let [plugin, source] = of_source();
    [
        plugin,
        source,
        choice("class", &CLASSES.map(RejectionClass::as_str), "Filter by class."),
        choice("state", &DEAD_LETTER_STATES, "Filter by state."),
        text("reason", "Filter by reason; `*` matches any text."),
        time("since", "Earliest time of the first rejection."),
        time("until", "The first rejection was before this time."),
    ]
}

fn dead_letters(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/dead-letters",
            dead_letters::list,
            doc("listDeadLetters", "List dead letters")
                .queries(filters())
                .queries(page())
                .answers::<Page<DeadLetter>>("One page."),
        )
        .read(
            "/api/v1/dead-letters/reasons",
            dead_letters::reasons,
            doc("deadLetterReasons", "Group dead letters by reason")
                .description("Reasons that differ only in details such as numbers count as one.")
                .queries(filters())
                .answers::<DeadLetterReasons>("The groups, and whether all dead letters were counted."),
        )
        .read_recorded(
            "/api/v1/dead-letters/export",
            "dead-letters.export",
            dead_letters::export,
            doc("exportDeadLetters", "Export dead letters")
                .queries(filters())
                .answers_lines::<DeadLetter>("All matching dead letters, newest first."),
        )
        .read(
            "/api/v1/dead-letters/{id}",
            dead_letters::one,
            doc("getDeadLetter", "Get a dead letter")
                .answers::<DeadLetter>("The dead letter with its payload."),
        )
}

fn dead_letter_changes(routes: Routes) -> Routes {
    routes
        .change(
            Change::post("/api/v1/dead-letters/retry", "dead-letters.retry").within(dead_letters::RETRY_TIME),
            dead_letters::retry,
            doc("retryDeadLetters", "Retry dead letters")
                .description(
                    "Retries open dead letters with the active versions. Without a body, retries all.",
                )
                .may_take::<DeadLetterSelection>()
                .answers::<RetryTotals>("Number of dead letters retried and resolved.")
                .fails_with(StatusCode::NOT_FOUND)
                .fails_with(StatusCode::CONFLICT)
                .fails_with(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .change(
            Change::post("/api/v1/dead-letters/discard", "dead-letters.discard"),
            dead_letters::discard,
            doc("discardDeadLetters", "Discard dead letters")
                .description("Discards open dead letters. The body needs a filter or `all`.")
                .may_take::<DeadLetterSelection>()
                .answers::<Discarded>("Number of discarded dead letters.")
                .fails_with(StatusCode::NOT_FOUND)
                .fails_with(StatusCode::CONFLICT)
                .fails_with(StatusCode::UNPROCESSABLE_ENTITY),
        )
}

fn erasure(routes: Routes) -> Routes {
    routes.change(
        Change::post("/api/v1/forget", "data.forget").within(forget::FORGET_TIME),
        forget::forget,
        doc("forget", "Erase a person's data")
            .description(
                "Removes the rows that hold a value with all rows of their messages, the content of dead letters that \
                 mention it, and the messages from their streams where the broker allows it. Rebuilds, retries and \
                 reprojections do not restore them. The audit records the column and the counts, not the value.",
            )
            .takes::<Forget>()
            .answers::<ForgetReport>("What was removed, or would be removed in a dry run, and what remains.")
            .fails_with(StatusCode::NOT_FOUND)
            .fails_with(StatusCode::CONFLICT),
    )
}
