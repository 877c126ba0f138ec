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
    pub(super) fn of(list: &str, page: reader::Page<T>) -> Json<Self> {
        Json(Self(Page {
            items: page.items,
            next_cursor: page.next.map(|id| cursor::encode(list, id)),
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
    Ok(List::of("gaps", page))
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
    Ok(List::of("ledger", page))
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
