//! Gaps, the ledger, and pages of records.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use super::cursor;
use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::{Gap, LedgerRange, Page};
use lantern_model::schema::{PluginName, SourceName};
use lantern_store::reader::{self, SourceFilter};

/// A page of records as a response.
#[derive(Serialize)]
#[serde(transparent)]
pub struct List<T>(Page<T>);

impl<T> List<T> {
    pub(super) fn of<R>(list: &str, page: reader::Page<R>, show: impl Fn(R) -> T) -> Json<Self> {
        let next_cursor = page.next.map(|id| cursor::encode(list, id));
        Json(Self(Page {
            items: page.items.into_iter().map(show).collect(),
            next_cursor,
        }))
    }
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
    Ok(List::of("gaps", page, gap_view))
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
    Ok(List::of("ledger", page, range_view))
}

/// The filter of the parameters `plugin` and `source`.
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

/// The record after which the page begins: the parameter `cursor` of `list`.
pub(super) fn after(parameters: &Parameters, list: &str) -> Result<Option<i64>, Problem> {
    parameters
        .get("cursor")
        .map(|text| cursor::decode(list, text))
        .transpose()
}

fn gap_view(gap: reader::GapRecord) -> Gap {
    Gap {
        id: gap.id,
        plugin: gap.plugin,
        source: gap.source,
        epoch: gap.epoch,
        origin: gap.origin,
        stream: gap.stream,
        first_sequence: gap.first_sequence,
        last_sequence: gap.last_sequence,
        missing: gap.last_sequence - gap.first_sequence + 1,
        exact: gap.exact,
        reason: gap.reason,
        recorded_at: gap.recorded_at.to_rfc3339(),
    }
}

pub(super) fn range_view(range: reader::LedgerRecord) -> LedgerRange {
    LedgerRange {
        id: range.id,
        plugin: range.plugin,
        source: range.source,
        epoch: range.epoch,
        origin: range.origin,
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
        inserted: range.inserted,
        updated: range.updated,
        present: range.present,
        first_at: range.first_at.to_rfc3339(),
        last_at: range.last_at.to_rfc3339(),
    }
}
