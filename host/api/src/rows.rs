//! Rows of tables: pages, one row with its message, and the events of a table tail.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::tables::TableSearch;
use lantern_model::identity::RowIdentity;

/// A row as a client reads it. The server serializes its cells directly and never builds this map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row(pub Map<String, Value>);

impl PartialSchema for Row {
    fn schema() -> RefOr<Schema> {
        let number = |description: &str| {
            let types = SchemaType::from_iter([Type::Integer, Type::String]);
            let number = ObjectBuilder::new().schema_type(types);
            number.description(Some(description))
        };
        let row = ObjectBuilder::new()
            .description(Some(
                "A row: its columns by name, and its identity in `_id`, `_origin`, `_sequence` and `_row`; no column \
                 has these names. Times are RFC 3339, bytes are base64, JSON documents are embedded; integers are \
                 strings with `integers=text`.",
            ))
            .property("_id", RowIdentity::schema())
            .property("_origin", number("Number of the source's epoch, as in SQL."))
            .property("_sequence", number("Sequence of the message that last wrote the row, as in SQL."))
            .property("_row", number("Index of the row in its message, as in SQL."));
        ["_id", "_origin", "_sequence", "_row"]
            .into_iter()
            .fold(row, ObjectBuilder::required)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .into()
    }
}

impl ToSchema for Row {
    fn name() -> Cow<'static, str> {
        "Row".into()
    }
}

/// A row with its message, version and neighbours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowDetail {
    /// The row with all columns.
    pub row: Row,
    /// Message that last wrote the row.
    pub origin: MessageOrigin,
    /// Version that produced the row; null if unknown.
    pub version: Option<RowVersion>,
    /// The message, if it still exists.
    pub message: Option<Message>,
    /// Reason why the message is unavailable.
    pub message_missing: Option<String>,
    /// Remark about the origin of the row.
    pub note: Option<String>,
    /// Neighbouring rows.
    pub neighbours: Neighbours,
}

/// Rows before and after a row in order of time; rows of the same entity if the table has a column with that role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Neighbours {
    /// Earlier rows, nearest last.
    pub before: Vec<Row>,
    /// Later rows, nearest first.
    pub after: Vec<Row>,
}

/// One page of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowPage {
    /// The rows.
    pub items: Vec<Row>,
    /// Cursor of the next page; null on the last page.
    pub next_cursor: Option<String>,
    /// State of the full-text index, if the request has `search`. The rows are complete in any case: the host reads rows that
    /// the index does not contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub search: Option<TableSearch>,
}

/// Message that last wrote a row, with its stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageOrigin {
    /// Source; null if the host no longer knows it.
    pub source: Option<String>,
    /// Stream; null for core NATS.
    pub stream: Option<String>,
    /// Epoch of the source; null if the host no longer knows it.
    pub epoch: Option<u64>,
    /// Sequence of the message in its epoch.
    pub sequence: i64,
}

/// Version that produced a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowVersion {
    /// Plugin.
    pub plugin: String,
    /// Version number that the plugin declares.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Where the message was found: `stream`, or `dead-letter` if only the dead letter still has it.
    pub found_in: String,
    /// Subject.
    pub subject: String,
    /// Publication time (RFC 3339).
    pub published: String,
    /// Headers: name and value.
    pub headers: Vec<(String, String)>,
    /// Payload in base64.
    pub payload_base64: String,
    /// Size of the payload in bytes.
    pub bytes: usize,
}

/// Data of the event `rows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowsEvent {
    /// The rows, in the order in which the host handled their messages.
    pub items: Vec<Row>,
}

/// Data of the event `omitted`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OmittedEvent {
    /// Number of rows that the tail left out, counted up to 100,000.
    pub rows_omitted: u64,
}
