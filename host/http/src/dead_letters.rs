//! Lists, exports, retries and discards dead letters.

mod body;

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{self, Path, rejection::PathRejection};
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::budget::Reservation;
use super::change::{AuditNote, OptionalInput};
use super::cursor;
use super::gate::Operator;
use super::parameters::{self, Parameters};
use super::pieces::{Frame, Pieces};
use super::problem::Problem;
use super::records::{after, source_filter};
use super::room::Room;
use super::state::State;
use super::views;
use lantern_api::{
    DEAD_LETTER_STATES, DeadLetter, DeadLetterReasons, DeadLetterSelection, Discarded, RetryTotals,
};
use lantern_model::batch::{RejectionClass, Timestamp};
use lantern_model::schema::{PluginName, SourceName};
use lantern_store::OpenDeadLetterFilter;
use lantern_store::reader::{self, DeadLetterFilter, ReadError, Reader};

use body::DeadLetters;

/// Maximum time that a client waits for a retry; the retry continues after it.
pub const RETRY_TIME: Duration = Duration::from_secs(150);

/// Dead letters per page of an export. The reader also bounds a page in bytes, so a slow client holds no more memory than
/// that.
const EXPORT_PAGE: u32 = 50;

/// Maximum time that an export waits for memory for its next page before it aborts.
const EXPORT_WAIT: Duration = Duration::from_secs(30);

/// Maximum length of the parameter `reason` in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// Classes of rejections.
pub const CLASSES: [RejectionClass; 9] = [
    RejectionClass::Malformed,
    RejectionClass::Unsupported,
    RejectionClass::Invalid,
    RejectionClass::Trap,
    RejectionClass::Timeout,
    RejectionClass::Memory,
    RejectionClass::Output,
    RejectionClass::Constraint,
    RejectionClass::Forgotten,
];

const FILTERS: [&str; 7] = ["plugin", "source", "class", "state", "reason", "since", "until"];

pub async fn list(
    extract::State(state): extract::State<State>,
    room: Room,
    uri: Uri,
) -> Result<Response, Problem> {
    let known = [&FILTERS[..], &["limit", "cursor"]].concat();
    let parameters = Parameters::parse(&uri, &known)?;
    let filter = filter(&parameters)?;
    let after = after(&parameters, "dead-letters")?;
    let mut page = state
        .reader
        .dead_letters(&filter, parameters.limit()?, after)
        .await?;
    let reservation = reserve(&room, &mut page)?;
    let next_cursor = page.next.map(|id| cursor::encode("dead-letters", id));
    let after = serde_json::json!({"next_cursor": next_cursor}).to_string();
    let frame = Frame {
        before: b"{\"items\":[".to_vec(),
        between: b",",
        // The rest of the object that `before` begins.
        after: [&b"],"[..], &after.as_bytes()[1..]].concat(),
    };
    json_response(page.items, frame, Some(reservation))
}

/// Reserves the memory of a page.
fn reserve(room: &Room, page: &mut reader::Page<DeadLetter>) -> Result<Reservation, Problem> {
    let reservation = room.take().ok_or_else(no_memory)?;
    fit(reservation, page).ok_or_else(no_memory)
}

/// Extends a reservation to the memory of a page. If that is too little, the page keeps only the dead letters that fit;
/// none if not even one fits. A dead letter that needs more than the share of a client takes the whole share.
fn fit(mut reservation: Reservation, page: &mut reader::Page<DeadLetter>) -> Option<Reservation> {
    loop {
        let needed = body::bytes_of_page(&page.items);
        let has_room = reservation.grow(needed);
        let is_last = page.items.len() < 2;
        if has_room && (is_last || reservation.bytes() >= needed) {
            return Some(reservation);
        }
        if is_last {
            return None;
        }
        page.items.pop();
        page.next = page.items.last().map(|dead_letter| dead_letter.id);
    }
}

fn no_memory() -> Problem {
    Problem::busy("the memory for responses (http.answer_memory) is in use; retry")
}

fn json_response(
    dead_letters: Vec<DeadLetter>,
    frame: Frame,
    reservation: Option<Reservation>,
) -> Result<Response, Problem> {
    let body = Pieces::new(DeadLetters::new(dead_letters), frame, reservation).into_body();
    let body = body.map_err(|error| {
        tracing::error!(%error, "failed to serialize a dead letter as JSON");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub async fn one(
    extract::State(state): extract::State<State>,
    path: Result<Path<i64>, PathRejection>,
    room: Room,
    uri: Uri,
) -> Result<Response, Problem> {
    let Path(id) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    Parameters::parse(&uri, &[])?;
    let dead_letter = state.reader.dead_letter(id).await?;
    let mut page = reader::Page {
        items: vec![dead_letter.ok_or_else(|| no_dead_letter(id))?],
        next: None,
    };
    let reservation = reserve(&room, &mut page)?;
    let frame = Frame {
        before: Vec::new(),
        between: b"",
        after: Vec::new(),
    };
    json_response(page.items, frame, Some(reservation))
}

fn no_dead_letter(id: i64) -> Problem {
    Problem::not_found(format!("there is no dead letter {id}"))
}

fn filter(parameters: &Parameters) -> Result<DeadLetterFilter, Problem> {
    Ok(DeadLetterFilter {
        source: source_filter(parameters)?,
        class: parameters
            .choice("class", &CLASSES.map(RejectionClass::as_str))?
            .map(str::to_owned),
        state: parameters
            .choice("state", &DEAD_LETTER_STATES)?
            .map(str::to_owned),
        reason: parameters.parsed("reason", reason_pattern)?,
        since: parameters.time("since")?,
        until: parameters.time("until")?,
    })
}

/// Validates a pattern for reasons. The limit is above the length of all reasons that [`reasons`] returns.
fn reason_pattern(text: &str) -> Result<String, String> {
    if text.len() <= REASON_BYTES_MAX {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "reason has {} bytes; at most {REASON_BYTES_MAX} are allowed; use * for any text",
            text.len()
        ))
    }
}

/// Groups dead letters by reason.
pub async fn reasons(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<DeadLetterReasons>, Problem> {
    let parameters = Parameters::parse(&uri, &FILTERS)?;
    let (groups, exact) = state.reader.dead_letter_groups(&filter(&parameters)?).await?;
    Ok(Json(DeadLetterReasons { groups, exact }))
}

/// Exports all matching dead letters as JSON lines, newest first.
pub async fn export(
    extract::State(state): extract::State<State>,
    room: Room,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(&uri, &FILTERS)?;
    let mut export = Export {
        filter: filter(&parameters)?,
        reader: state.reader,
        room,
        page: None,
        next: Some(None),
    };
    // The first page can still fail with an error response; later pages can only abort the response.
    let first = export.next().await.map_err(|error| match error {
        ExportError::Read(error) => Problem::from(error),
        ExportError::Json(_) => Problem::internal(),
        ExportError::NoRoom => Problem::busy(error.to_string()),
    })?;
    let parts = stream::try_unfold((first, export), async |(ready, mut export)| match ready {
        Some(part) => Ok::<_, ExportError>(Some((part, (None, export)))),
        None => Ok(export.next().await?.map(|part| (part, (None, export)))),
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"dead-letters.jsonl\"",
        ),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// A running export.
struct Export {
    reader: Reader,
    filter: DeadLetterFilter,
    room: Room,
    /// The current page.
    page: Option<Pieces<DeadLetters>>,
    /// Identifier after which the next page begins; none if there is no next page.
    next: Option<Option<i64>>,
}

/// Reason for aborting an export; the client detects the abort.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("read dead letters")]
    Read(#[from] ReadError),
    #[error("write a dead letter as JSON")]
    Json(#[from] serde_json::Error),
    #[error("no memory for the next page within the time limit (http.answer_memory)")]
    NoRoom,
}

impl Export {
    /// The next part of the file; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ExportError> {
        loop {
            if let Some(page) = &mut self.page
                && let Some(part) = page.next()?
            {
                return Ok(Some(part));
            }
            // Release the memory of the previous page first.
            self.page = None;
            let Some(after) = self.next else {
                return Ok(None);
            };
            let reservation = match self.room.take() {
                Some(reservation) => reservation,
                None => self.room.another(EXPORT_WAIT).await.ok_or(ExportError::NoRoom)?,
            };
            let mut page = self.reader.dead_letters(&self.filter, EXPORT_PAGE, after).await?;
            let reservation = fit(reservation, &mut page).ok_or(ExportError::NoRoom)?;
            self.next = page.next.map(Some);
            let frame = Frame {
                before: Vec::new(),
                between: b"\n",
                after: if page.items.is_empty() { "" } else { "\n" }.into(),
            };
            self.page = Some(Pieces::new(
                DeadLetters::new(page.items),
                frame,
                Some(reservation),
            ));
        }
    }
}

/// The filter that a request describes.
fn filter_of(which: DeadLetterSelection) -> Result<OpenDeadLetterFilter, String> {
    let time = |name, text: Option<String>| text.map(|text| parameters::time(name, &text)).transpose();
    let plugin = which.plugin.as_deref().map(PluginName::parse).transpose()?;
    let source = which.source.as_deref().map(SourceName::parse).transpose()?;
    let classes = CLASSES.map(RejectionClass::as_str);
    if which
        .class
        .as_deref()
        .is_some_and(|class| !classes.contains(&class))
    {
        return Err(format!("class must be one of {}", classes.join(", ")));
    }
    Ok(OpenDeadLetterFilter {
        plugin: plugin.map(|name| name.to_string()),
        source: source.map(|name| name.to_string()),
        class: which.class,
        reason: which.reason.as_deref().map(reason_pattern).transpose()?,
        since: time("since", which.since)?,
        until: time("until", which.until)?,
        id: which.id,
    })
}

pub async fn retry(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    note: AuditNote,
    OptionalInput(which): OptionalInput<DeadLetterSelection>,
) -> Result<Json<RetryTotals>, Problem> {
    let filter = filter_of(which).map_err(Problem::bad_request)?;
    note_filter(&note, &filter);
    if let Some(plugin) = &filter.plugin {
        state.lifecycle.show(plugin).await?;
    }
    require_open(&state, &filter).await?;
    let what = describe(&filter);
    let totals = state.lifecycle.retry_dead_letters(filter, &by).await?;
    note.detail(format!(
        "{what}: {} of {} resolved",
        totals.resolved, totals.tried
    ));
    Ok(Json(views::retry_totals(totals)))
}

pub async fn discard(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    note: AuditNote,
    OptionalInput(which): OptionalInput<DeadLetterSelection>,
) -> Result<Json<Discarded>, Problem> {
    let all = which.all;
    let filter = filter_of(which).map_err(Problem::bad_request)?;
    note_filter(&note, &filter);
    if filter == OpenDeadLetterFilter::default() && !all {
        let problem = Problem::bad_request("this would discard all open dead letters of all plugins");
        return Err(problem.hint("add a filter, or set \"all\": true"));
    }
    require_open(&state, &filter).await?;
    let by = note.requester(&by);
    let discarded = state.lifecycle.discard_dead_letters(filter, by).await?;
    Ok(Json(Discarded { discarded }))
}

fn note_filter(note: &AuditNote, filter: &OpenDeadLetterFilter) {
    if let Some(plugin) = &filter.plugin {
        note.plugin(plugin);
    }
    note.detail(describe(filter));
}

/// Requires that the dead letter of the filter, if it names one, exists and is open.
async fn require_open(state: &State, filter: &OpenDeadLetterFilter) -> Result<(), Problem> {
    let Some(id) = filter.id else { return Ok(()) };
    let dead_letter = state
        .reader
        .dead_letter(id)
        .await?
        .ok_or_else(|| no_dead_letter(id))?;
    if dead_letter.state == "open" {
        Ok(())
    } else {
        Err(Problem::conflict(format!(
            "dead letter {id} is already {}",
            dead_letter.state
        )))
    }
}

fn describe(filter: &OpenDeadLetterFilter) -> String {
    let time = |time: &Option<Timestamp>| time.map(Timestamp::to_rfc3339);
    let parts = [
        ("plugin", filter.plugin.clone()),
        ("source", filter.source.clone()),
        ("class", filter.class.clone()),
        ("reason", filter.reason.clone()),
        ("since", time(&filter.since)),
        ("until", time(&filter.until)),
        ("id", filter.id.map(|id| id.to_string())),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value?)))
        .collect();
    match parts.as_slice() {
        [] => "all open dead letters".to_owned(),
        parts => format!("open dead letters with {}", parts.join(", ")),
    }
}
