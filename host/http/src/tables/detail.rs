//! One row with its message, its version and its neighbours.

use axum::Json;
use axum::extract::{self, FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::Serialize;

use super::name::TablePath;
use super::selection;
use crate::items::Item;
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::room::Room;
use crate::state::State;
use lantern_api::{Message, MessageOrigin, RowVersion};
use lantern_model::identity::RowIdentity;
use lantern_model::results::work::Trace;
use lantern_model::schema::description::ColumnRole;
use lantern_model::value::Value;
use lantern_store::RowKey;
use lantern_store::reader::{
    Condition, Key, ReadError, Reader, RowPage, RowPosition, RowQuery, RowRecord, Selection, Shape, Sort,
    Test,
};

/// Number of rows before and after.
const NEIGHBOURS: u32 = 5;

/// Serializes as `api::RowDetail`, with rows directly from their values.
#[derive(Serialize)]
pub struct Detail {
    row: Item,
    origin: MessageOrigin,
    version: Option<RowVersion>,
    message: Option<Message>,
    message_missing: Option<String>,
    note: Option<String>,
    neighbours: Neighbours,
}

/// Serializes as `api::Neighbours`.
#[derive(Serialize)]
pub struct Neighbours {
    before: Vec<Item>,
    after: Vec<Item>,
}

/// A row that a path names.
pub struct RowPath(TablePath, RowIdentity);

impl FromRequestParts<State> for RowPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let Path((table, row)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        let id = RowIdentity::parse(&row).map_err(Problem::bad_request)?;
        Ok(Self(TablePath::of(&table, parts, state).await?, id))
    }
}

pub async fn detail(
    extract::State(state): extract::State<State>,
    RowPath(table, id): RowPath,
    _room: Room,
    uri: Uri,
) -> Result<Json<Detail>, Problem> {
    let parameters = Parameters::parse(&uri, &["integers"])?;
    let integers = selection::integers(&parameters)?;
    let shape = table.shape(&state.reader).await?;
    let name = &shape.entry.name;
    let record = state.reader.row(&shape, id).await?;
    let record = record.ok_or_else(|| no_row(&shape, id))?;
    let before = neighbours(&state.reader, &shape, &record, true).await?;
    let after = neighbours(&state.reader, &shape, &record, false).await?;
    let trace = state
        .lifecycle
        .trace(name.as_str(), RowKey::Identity(id))
        .await
        .ok();
    let origin = MessageOrigin {
        source: trace.as_ref().map(|trace| trace.source.clone()),
        stream: trace.as_ref().and_then(|trace| trace.stream.clone()),
        epoch: trace.as_ref().map(|trace| trace.epoch),
        sequence: id.sequence,
    };
    let mut before = Item::all(before, integers);
    before.reverse();
    let after = Item::all(after, integers);
    let (version, message, message_missing, note) = provenance(trace);
    Ok(Json(Detail {
        row: Item::one(&shape, record, integers),
        origin,
        version,
        message,
        message_missing,
        note,
        neighbours: Neighbours { before, after },
    }))
}

type Provenance = (
    Option<RowVersion>,
    Option<Message>,
    Option<String>,
    Option<String>,
);

fn provenance(trace: Option<Trace>) -> Provenance {
    let Some(trace) = trace else {
        let missing = "the message of the row is unknown".to_owned();
        return (None, None, Some(missing), None);
    };
    let version = match (trace.version, trace.digest) {
        (Some(version), Some(digest)) => Some(RowVersion {
            plugin: trace.plugin,
            version,
            digest,
        }),
        _ => None,
    };
    let message = trace.message.map(|message| Message {
        found_in: message.found_in,
        subject: message.subject,
        published: message.published,
        headers: message.headers,
        bytes: message.payload_bytes,
        payload_base64: message.payload_base64,
    });
    (version, message, trace.message_missing, trace.note)
}

fn no_row(shape: &Shape, id: RowIdentity) -> Problem {
    Problem::not_found(format!(
        "table {} has no row {id}; a later message may have updated it, or it was deleted",
        shape.entry.name
    ))
}

/// Rows before or after one, nearest first.
async fn neighbours(
    reader: &Reader,
    shape: &Shape,
    record: &RowRecord,
    before: bool,
) -> Result<RowPage, ReadError> {
    let time = shape.time().and_then(|time| match record.values.get(time) {
        Some(Value::Timestamp(at)) => Some((time, Key::Integer(at.0))),
        _ => None,
    });
    let entity = shape.with_role(ColumnRole::Entity).next();
    let conditions = entity
        .and_then(|column| match record.values.get(column) {
            None | Some(Value::Null) => None,
            Some(value) => Some(Condition {
                column,
                test: Test::OneOf {
                    values: vec![value.clone()],
                    null: false,
                },
            }),
        })
        .into_iter()
        .collect();
    let (column, key) = time.unzip();
    let query = RowQuery {
        selection: Selection {
            conditions,
            ..Selection::default()
        },
        sort: Sort {
            column,
            descending: before,
        },
        columns: (0..shape.columns.len()).collect(),
        limit: NEIGHBOURS,
        after: Some(RowPosition {
            key: key.unwrap_or(Key::Null),
            row: record.rowid,
        }),
    };
    reader.rows(shape, &query).await
}
