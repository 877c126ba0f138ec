//! The host's own records: gaps and the ledger; and lists in pages, as all records come.

use std::borrow::Cow;

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;
use utoipa::openapi::schema::{Array, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::State;
use super::cursor;
use super::parameters::Parameters;
use super::problem::Problem;
use lantern_model::schema::{PluginName, SourceName};
use lantern_store::reader::{self, Page, SourceFilter};

/// One page of a list.
#[derive(Serialize)]
pub struct List<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T: ToSchema> PartialSchema for List<T> {
    fn schema() -> RefOr<Schema> {
        let cursor = SchemaType::from_iter([Type::String, Type::Null]);
        let cursor = ObjectBuilder::new()
            .schema_type(cursor)
            .description(Some("Where the next page begins; none at the end."));
        ObjectBuilder::new()
            .description(Some("One page of a list, the newest first."))
            .property("items", Array::new(Ref::from_schema_name(T::name())))
            .required("items")
            .property("next_cursor", cursor)
            .required("next_cursor")
            .into()
    }
}

impl<T: ToSchema> ToSchema for List<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
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

/// Messages that were gone before they were read.
#[derive(Serialize, ToSchema)]
pub struct Gap {
    /// Its number.
    id: i64,
    /// The plugin.
    plugin: String,
    /// The source.
    source: String,
    /// Which history of the source.
    epoch: i64,
    /// The stream; none for core NATS.
    stream: Option<String>,
    /// The first sequence that is missing.
    first_sequence: i64,
    /// The last one.
    last_sequence: i64,
    /// Whether all of them were this source's; some may not have been, where other subjects share the stream.
    exact: bool,
    /// How they were lost, in words.
    reason: String,
    /// When it was noticed (RFC 3339).
    recorded_at: String,
}

/// A range of the ledger: messages that follow each other and that one version handled.
#[derive(Serialize, ToSchema)]
pub struct LedgerRange {
    /// Its number.
    id: i64,
    /// The plugin.
    plugin: String,
    /// The source.
    source: String,
    /// Which history of the source.
    epoch: i64,
    /// The stream; none for core NATS.
    stream: Option<String>,
    /// The version that handled it.
    version: String,
    /// That version's digest.
    digest: String,
    /// The first sequence.
    first_sequence: i64,
    /// The last one.
    last_sequence: i64,
    /// Messages handled: projected, skipped and dead together.
    messages: i64,
    /// Those that gave rows.
    projected: i64,
    /// Those that gave nothing on purpose.
    skipped: i64,
    /// Those that became dead letters.
    dead: i64,
    /// Sequences that were gone before they were read.
    missing: i64,
    /// Rows that the plugin answered with: inserted, updated and already present together.
    rows: i64,
    /// Rows that were inserted. Ranges that an earlier version of Lantern recorded for tables whose writes update rows
    /// count their changes only in `rows`.
    inserted: i64,
    /// Rows that changed a stored row.
    updated: i64,
    /// Rows that changed nothing, because a row with their key was there already.
    present: i64,
    /// When its first batch was stored (RFC 3339).
    first_at: String,
    /// When its last one was.
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
        inserted: range.inserted,
        updated: range.updated,
        present: range.present,
        first_at: range.first_at.to_rfc3339(),
        last_at: range.last_at.to_rfc3339(),
    }
}
