//! The host's own records: dead letters, gaps and the ledger.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::State;
use super::cursor;
use super::parameters::Parameters;
use super::problem::Problem;
use crate::batch::RejectionClass;
use crate::schema::{PluginName, SourceName};
use crate::store::reader::{self, DeadLetterFilter, Page, SourceFilter};

/// One page of a list.
#[derive(Serialize)]
pub struct List<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> List<T> {
    pub(super) fn of<R>(list: &str, page: Page<R>, show: impl Fn(R) -> T) -> Json<Self> {
        let next_cursor = page.next.map(|id| cursor::encode(list, id));
        Json(Self {
            items: page.items.into_iter().map(show).collect(),
            next_cursor,
        })
    }
}

#[derive(Serialize)]
pub struct DeadLetter {
    id: i64,
    plugin: String,
    source: String,
    epoch: i64,
    stream: Option<String>,
    sequence: i64,
    subject: String,
    published: String,
    headers: Vec<(String, String)>,
    payload_base64: String,
    /// The payload once more, when it is UTF-8.
    payload_text: Option<String>,
    class: String,
    reason: String,
    version: String,
    digest: String,
    attempts: i64,
    state: String,
    first_at: String,
    last_at: String,
}

#[derive(Serialize)]
pub struct Gap {
    id: i64,
    plugin: String,
    source: String,
    epoch: i64,
    stream: Option<String>,
    first_sequence: i64,
    last_sequence: i64,
    exact: bool,
    reason: String,
    recorded_at: String,
}

#[derive(Serialize)]
pub struct LedgerRange {
    id: i64,
    plugin: String,
    source: String,
    epoch: i64,
    stream: Option<String>,
    version: String,
    digest: String,
    first_sequence: i64,
    last_sequence: i64,
    messages: i64,
    projected: i64,
    skipped: i64,
    dead: i64,
    missing: i64,
    rows: i64,
    first_at: String,
    last_at: String,
}

pub async fn dead_letters(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<List<DeadLetter>>, Problem> {
    const CLASSES: [RejectionClass; 8] = [
        RejectionClass::Malformed,
        RejectionClass::Unsupported,
        RejectionClass::Invalid,
        RejectionClass::Trap,
        RejectionClass::Timeout,
        RejectionClass::Memory,
        RejectionClass::Output,
        RejectionClass::Constraint,
    ];
    let parameters = Parameters::parse(&uri, &["plugin", "source", "class", "state", "limit", "cursor"])?;
    let filter = DeadLetterFilter {
        source: source_filter(&parameters)?,
        class: parameters
            .choice("class", &CLASSES.map(RejectionClass::as_str))?
            .map(str::to_owned),
        state: parameters
            .choice("state", &["open", "resolved", "discarded"])?
            .map(str::to_owned),
    };
    let after = after(&parameters, "dead-letters")?;
    let page = state
        .reader
        .dead_letters(&filter, parameters.limit()?, after)
        .await?;
    Ok(List::of("dead-letters", page, show_dead_letter))
}

pub async fn gaps(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<List<Gap>>, Problem> {
    let parameters = Parameters::parse(&uri, &["plugin", "source", "limit", "cursor"])?;
    let filter = source_filter(&parameters)?;
    let page = state
        .reader
        .gaps(&filter, parameters.limit()?, after(&parameters, "gaps")?)
        .await?;
    Ok(List::of("gaps", page, show_gap))
}

pub async fn ledger(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<List<LedgerRange>>, Problem> {
    let parameters = Parameters::parse(&uri, &["plugin", "source", "limit", "cursor"])?;
    let filter = source_filter(&parameters)?;
    let page = state
        .reader
        .ledger(&filter, parameters.limit()?, after(&parameters, "ledger")?)
        .await?;
    Ok(List::of("ledger", page, show_range))
}

fn source_filter(parameters: &Parameters) -> Result<SourceFilter, Problem> {
    Ok(SourceFilter {
        plugin: parameters
            .parsed("plugin", PluginName::parse)?
            .map(|name| name.to_string()),
        source: parameters
            .parsed("source", SourceName::parse)?
            .map(|name| name.to_string()),
    })
}

/// The record that the page begins after, as the parameter `cursor` of `list` says.
pub(super) fn after(parameters: &Parameters, list: &str) -> Result<Option<i64>, Problem> {
    parameters
        .get("cursor")
        .map(|text| cursor::decode(list, text))
        .transpose()
}

fn show_dead_letter(letter: reader::DeadLetter) -> DeadLetter {
    DeadLetter {
        id: letter.id,
        plugin: letter.plugin,
        source: letter.source,
        epoch: letter.epoch,
        stream: letter.stream,
        sequence: letter.sequence,
        subject: letter.subject,
        published: letter.published.to_rfc3339(),
        headers: letter.headers,
        payload_base64: STANDARD.encode(&letter.payload),
        payload_text: String::from_utf8(letter.payload).ok(),
        class: letter.class,
        reason: letter.reason,
        version: letter.version,
        digest: letter.digest,
        attempts: letter.attempts,
        state: letter.state,
        first_at: letter.first_at.to_rfc3339(),
        last_at: letter.last_at.to_rfc3339(),
    }
}

fn show_gap(gap: reader::Gap) -> Gap {
    Gap {
        id: gap.id,
        plugin: gap.plugin,
        source: gap.source,
        epoch: gap.epoch,
        stream: gap.stream,
        first_sequence: gap.first_sequence,
        last_sequence: gap.last_sequence,
        exact: gap.exact,
        reason: gap.reason,
        recorded_at: gap.recorded_at.to_rfc3339(),
    }
}

fn show_range(range: reader::LedgerRange) -> LedgerRange {
    LedgerRange {
        id: range.id,
        plugin: range.plugin,
        source: range.source,
        epoch: range.epoch,
        stream: range.stream,
        version: range.version,
        digest: range.digest,
        first_sequence: range.first_sequence,
        last_sequence: range.last_sequence,
        messages: range.messages,
        projected: range.projected,
        skipped: range.skipped,
        dead: range.dead,
        missing: range.missing,
        rows: range.rows,
        first_at: range.first_at.to_rfc3339(),
        last_at: range.last_at.to_rfc3339(),
    }
}
