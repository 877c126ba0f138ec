//! The host's own records: gaps and the ledger; and lists in pages, as all records come.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use super::State;
use super::cursor;
use super::parameters::Parameters;
use super::problem::Problem;
use crate::schema::{PluginName, SourceName};
use crate::store::reader::{self, Page, SourceFilter};

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

/// A range of the ledger.
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

/// Whose records are asked for.
pub(super) fn source_filter(parameters: &Parameters) -> Result<SourceFilter, Problem> {
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

pub(super) fn show_range(range: reader::LedgerRange) -> LedgerRange {
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
