//! Rows of tables: pages, one row with its message, and the events of a table that is followed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{AdditionalProperties, RefBuilder, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A row as a client reads it. The server serializes its cells directly and never builds this map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row(pub Map<String, Value>);

impl PartialSchema for Row {
    fn schema() -> RefOr<Schema> {
        let named = "What names it in its table until a rebuild: a number of 64 bits, as text, because JavaScript rounds those.";
        let row = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(named));
        let origin = RefBuilder::new()
            .ref_location_from_schema_name(RowOrigin::name())
            .description(Some("Which message wrote it last."));
        ObjectBuilder::new()
            .description(Some(
                "A row: its columns by name, and `_row` and `_origin`, which no column can be called. \
                 Times are in RFC 3339, bytes in base64, documents as they are; whole numbers are text \
                 where `integers=text` was asked for.",
            ))
            .property("_row", row)
            .required("_row")
            .property("_origin", RefOr::Ref(origin.build()))
            .required("_origin")
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .into()
    }
}

impl ToSchema for Row {
    fn name() -> Cow<'static, str> {
        "Row".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((RowOrigin::name().into_owned(), RowOrigin::schema()));
    }
}

/// Which message a row was last written by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowOrigin {
    /// The source; none where it is not known any more.
    pub source: Option<String>,
    /// Which history of the source.
    pub epoch: Option<i64>,
    /// The sequence of the message in it.
    pub sequence: i64,
}

/// A row with all that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowDetail {
    /// The row, whole.
    pub row: Row,
    /// Which message wrote it last.
    pub origin: MessageOrigin,
    /// Which version made it; none where that is not known.
    pub version: Option<RowVersion>,
    /// The message, where it is still there.
    pub message: Option<Message>,
    /// Why the message cannot be shown.
    pub message_missing: Option<String>,
    /// What has to be known in order to understand this.
    pub note: Option<String>,
    /// The rows around it.
    pub neighbours: Neighbours,
}

/// What happened around it, in the order of time; of the same entity where the table has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Neighbours {
    /// The nearest last.
    pub before: Vec<Row>,
    /// The nearest first.
    pub after: Vec<Row>,
}

/// One page, as the server writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowPage {
    /// The rows, in order.
    pub items: Vec<Row>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

/// Which message wrote the row last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageOrigin {
    /// The source; none where it is not known any more.
    pub source: Option<String>,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// Which history of the source.
    pub epoch: Option<i64>,
    /// The sequence of the message in it.
    pub sequence: i64,
}

/// Which version of which plugin made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowVersion {
    /// The plugin.
    pub plugin: String,
    /// The version that it says it is.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
}

/// The message itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// `stream`, or `dead-letter` where only that was kept.
    pub found_in: String,
    /// The subject that it was published to.
    pub subject: String,
    /// When (RFC 3339).
    pub published: String,
    /// Its headers: name and value.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload_base64: String,
    /// Its size.
    pub bytes: usize,
}

/// The data of the event `rows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowsEvent {
    /// In the order in which their messages were handled.
    pub items: Vec<Row>,
}

/// The data of the event `gap`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GapEvent {
    /// Rows that were left out; counted up to 100,000.
    pub skipped: u64,
}
