//! Pages of records, gaps and the ledger.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Array, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The records, the newest first.
    pub items: Vec<T>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

impl<T: ToSchema> PartialSchema for Page<T> {
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

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// Messages that were gone before they were read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Its number.
    pub id: i64,
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// Which history of the source.
    pub epoch: i64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The first sequence that is missing.
    pub first_sequence: i64,
    /// The last one.
    pub last_sequence: i64,
    /// Whether all of them were this source's; some may not have been, where other subjects share the stream.
    pub exact: bool,
    /// How they were lost, in words.
    pub reason: String,
    /// When it was noticed (RFC 3339).
    pub recorded_at: String,
}

/// A range of the ledger: messages that follow each other and that one version handled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LedgerRange {
    /// Its number.
    pub id: i64,
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// Which history of the source.
    pub epoch: i64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The version that handled it.
    pub version: String,
    /// That version's digest.
    pub digest: String,
    /// The first sequence.
    pub first_sequence: i64,
    /// The last one.
    pub last_sequence: i64,
    /// Messages handled: projected, skipped and dead together.
    pub messages: i64,
    /// Those that gave rows.
    pub projected: i64,
    /// Those that gave nothing on purpose.
    pub skipped: i64,
    /// Those that became dead letters.
    pub dead: i64,
    /// Sequences that were gone before they were read.
    pub missing: i64,
    /// Rows that the plugin answered with: inserted, updated and already present together.
    pub rows: i64,
    /// Rows that were inserted. Ranges that an earlier version of Lantern recorded for tables whose writes update rows
    /// count their changes only in `rows`.
    pub inserted: i64,
    /// Rows that changed a stored row.
    pub updated: i64,
    /// Rows that changed nothing, because a row with their key was there already.
    pub present: i64,
    /// When its first batch was stored (RFC 3339).
    pub first_at: String,
    /// When its last one was.
    pub last_at: String,
}
