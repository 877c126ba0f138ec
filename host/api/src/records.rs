//! Pages of records, gaps and the ledger.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Array, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The records, newest first.
    pub items: Vec<T>,
    /// Cursor of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let cursor = SchemaType::from_iter([Type::String, Type::Null]);
        let cursor = ObjectBuilder::new()
            .schema_type(cursor)
            .description(Some("Cursor of the next page; null on the last page."));
        ObjectBuilder::new()
            .description(Some("One page of a list, newest first."))
            .property("items", Array::new(Ref::from_schema_name(T::name())))
            .required("items")
            .property("next_cursor", cursor)
            .required("next_cursor")
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// A gap: sequences that the stream lost before the host read them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Identifier.
    pub id: i64,
    /// Plugin.
    pub plugin: String,
    /// Source.
    pub source: String,
    /// Epoch of the source.
    pub epoch: i64,
    /// `_origin` of the epoch's rows.
    pub origin: i64,
    /// Stream; null for core NATS.
    pub stream: Option<String>,
    /// First lost sequence.
    pub first_sequence: i64,
    /// Last lost sequence.
    pub last_sequence: i64,
    /// Lost sequences.
    pub missing: i64,
    /// Whether all of them were messages of this source; if other subjects share the stream, `missing` is an upper bound.
    pub exact: bool,
    /// Cause of the loss, for people.
    pub reason: String,
    /// Time of detection (RFC 3339).
    pub recorded_at: String,
}

/// A ledger range: consecutive messages that one version handled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LedgerRange {
    /// Identifier.
    pub id: i64,
    /// Plugin.
    pub plugin: String,
    /// Source.
    pub source: String,
    /// Epoch of the source.
    pub epoch: i64,
    /// `_origin` of the epoch's rows.
    pub origin: i64,
    /// Stream; null for core NATS.
    pub stream: Option<String>,
    /// Version that handled the range.
    pub version: String,
    /// Digest of that version.
    pub digest: String,
    /// First sequence.
    pub first_sequence: i64,
    /// Last sequence.
    pub last_sequence: i64,
    /// Messages handled: the sum of projected, skipped and dead.
    pub messages: i64,
    /// Messages that produced rows.
    pub projected: i64,
    /// Messages that the plugin skipped.
    pub skipped: i64,
    /// Messages that became dead letters.
    pub dead: i64,
    /// Sequences that the stream lost before the host read them.
    pub missing: i64,
    /// Rows that the plugin returned: the sum of inserted, updated and present.
    pub rows: i64,
    /// Rows inserted. Ranges that an earlier version of Lantern recorded for tables whose writes update rows count
    /// changes only in `rows`.
    pub inserted: i64,
    /// Rows that updated a stored row.
    pub updated: i64,
    /// Rows that changed nothing because a row with the same key was already present.
    pub present: i64,
    /// Time at which the first batch was stored (RFC 3339).
    pub first_at: String,
    /// Time at which the last batch was stored (RFC 3339).
    pub last_at: String,
}
