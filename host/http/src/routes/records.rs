//! Routes about the host's records: dead letters, gaps, the ledger and the audit.

use axum::http::StatusCode;

use super::Routes;
use crate::audit::{self, Entry};
use crate::change::Change;
use crate::dead_letters::{self, CLASSES};
use crate::doc::{Doc, Query, Tag, choice, number, text, time};
use crate::forget;
use crate::parameters::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::records;
use lantern_api::{
    DEAD_LETTER_STATES, DeadLetter, DeadLetterReasons, Discarded, Gap, LedgerRange, Page, WhichDeadLetters,
};
use lantern_lifecycle::ForgetReport;
use lantern_model::batch::RejectionClass;
use lantern_store::Healed;

pub fn routes(routes: Routes) -> Routes {
    erasure(dead_letters(ledgers(routes)))
}

fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(Tag::Records, id, summary)
}

fn of_source() -> [Query; 2] {
    [
        text("plugin", "Of this plugin."),
        text("source", "Of this source."),
    ]
}

fn page() -> [Query; 2] {
    [
        number("limit", 1, LIMIT_MAX, LIMIT_DEFAULT, "Items of a page."),
        text("cursor", "The page's beginning: `next_cursor` of the one before."),
    ]
}

fn ledgers(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/gaps",
            records::gaps,
            doc("listGaps", "Messages that were gone before they were read")
                .queries(of_source())
                .queries(page())
                .answers::<Page<Gap>>("One page."),
        )
        .read(
            "/api/v1/ledger",
            records::ledger,
            doc("listLedger", "Which version handled which messages")
                .says(
                    "`messages = projected + skipped + dead` in every range; the ranges of a source \
                     follow each other without a hole and end at the checkpoint.",
                )
                .queries(of_source())
                .queries(page())
                .answers::<Page<LedgerRange>>("One page."),
        )
        .read(
            "/api/v1/audit",
            audit::list,
            doc("listAudit", "Who did what, and how it ended")
                .says("One entry for each change, refusal and recorded read. A change that has not ended is `started`.")
                .query(text("plugin", "About this plugin."))
                .query(text("actor", "By whoever has this token."))
                .query(text("action", "With this action.").example("plugin.activate"))
                .queries(page())
                .answers::<Page<Entry>>("One page."),
        )
}

fn dead_letters(routes: Routes) -> Routes {
    let filters = || {
        let [plugin, source] = of_source();
        [
            plugin,
            source,
            choice("class", &CLASSES.map(RejectionClass::as_str), "Of this kind."),
            choice("state", &DEAD_LETTER_STATES, "In this state."),
            text("reason", "With this reason; `*` stands for any text."),
            time("since", "First rejected at this time or later."),
            time("until", "First rejected before this time."),
        ]
    };
    routes
        .read(
            "/api/v1/dead-letters",
            dead_letters::list,
            doc("listDeadLetters", "Messages that could not be projected")
                .queries(filters())
                .queries(page())
                .answers::<Page<DeadLetter>>("One page."),
        )
        .read(
            "/api/v1/dead-letters/reasons",
            dead_letters::reasons,
            doc("deadLetterReasons", "Why messages could not be projected")
                .says("Dead letters counted by what their reasons have in common.")
                .queries(filters())
                .answers::<DeadLetterReasons>("The groups, and whether all letters were looked at."),
        )
        .read_recorded(
            "/api/v1/dead-letters/export",
            "dead-letters.export",
            dead_letters::export,
            doc("exportDeadLetters", "Dead letters as a file")
                .queries(filters())
                .answers_lines::<DeadLetter>("All that match, the newest first."),
        )
        .read(
            "/api/v1/dead-letters/{id}",
            dead_letters::one,
            doc("getDeadLetter", "One dead letter").answers::<DeadLetter>("The letter, whole."),
        )
        .change(
            Change::post("/api/v1/dead-letters/retry", "dead-letters.retry").within(dead_letters::RETRY_TIME),
            dead_letters::retry,
            doc("retryDeadLetters", "Try open dead letters again")
                .says("With the versions that run. Without a body, all of them.")
                .may_take::<WhichDeadLetters>()
                .answers::<Healed>("What came of it.")
                .refuses(StatusCode::NOT_FOUND)
                .refuses(StatusCode::CONFLICT)
                .refuses(StatusCode::UNPROCESSABLE_ENTITY),
        )
        .change(
            Change::post("/api/v1/dead-letters/discard", "dead-letters.discard"),
            dead_letters::discard,
            doc("discardDeadLetters", "Give open dead letters up")
                .says("Something has to be said: which, or `all`.")
                .may_take::<WhichDeadLetters>()
                .answers::<Discarded>("How many were given up.")
                .refuses(StatusCode::NOT_FOUND)
                .refuses(StatusCode::CONFLICT)
                .refuses(StatusCode::UNPROCESSABLE_ENTITY),
        )
}

fn erasure(routes: Routes) -> Routes {
    routes.change(
        Change::post("/api/v1/forget", "data.forget").within(forget::FORGET_TIME),
        forget::forget,
        doc("forget", "Erase a person's data")
            .says(
                "Removes the rows that hold a value with all rows of their messages, the content of dead letters that \
                 mention it, and the messages from their streams where the broker allows it. Rebuilds, retries and \
                 reprojections do not restore them. The audit records the column and the counts, not the value.",
            )
            .takes::<forget::Asked>()
            .answers::<ForgetReport>("What was removed, or would be, and what is left.")
            .refuses(StatusCode::NOT_FOUND)
            .refuses(StatusCode::CONFLICT),
    )
}
