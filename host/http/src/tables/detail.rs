//! One row with all that is known of it: its message, the version that made it, and what happened around it.

use axum::Json;
use axum::extract::{self, FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use super::NameOfTable;
use super::cells::Item;
use super::selection;
use crate::State;
use crate::budget::Room;
use crate::parameters::Parameters;
use crate::problem::Problem;
use lantern_lifecycle::Trace;
use lantern_model::schema::description::RoleWord;
use lantern_store::RowKey;
use lantern_store::reader::{
    Cell, Condition, Key, Place, ReadError, Reader, RowPage, RowQuery, RowRecord, Selection, Shape, Sort,
    Test,
};

/// Rows before and after.
const NEIGHBOURS: u32 = 5;

/// A row with all that is known of it.
#[derive(Serialize, ToSchema)]
#[schema(as = RowDetail)]
pub struct Detail {
    /// The row, whole.
    row: Item,
    /// Which message wrote it last.
    origin: Origin,
    /// Which version made it; none where that is not known.
    version: Option<Version>,
    /// The message, where it is still there.
    message: Option<Message>,
    /// Why the message cannot be shown.
    message_missing: Option<String>,
    /// What has to be known in order to understand this.
    note: Option<String>,
    /// The rows around it.
    neighbours: Neighbours,
}

/// Which message wrote the row last.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageOrigin)]
pub struct Origin {
    /// The source; none where it is not known any more.
    source: Option<String>,
    /// The stream; none for core NATS.
    stream: Option<String>,
    /// Which history of the source.
    epoch: Option<i64>,
    /// The sequence of the message in it.
    sequence: i64,
}

/// Which version of which plugin made it.
#[derive(Serialize, ToSchema)]
#[schema(as = RowVersion)]
pub struct Version {
    /// The plugin.
    plugin: String,
    /// The version that it says it is.
    version: String,
    /// `sha256:` and 64 hex digits.
    digest: String,
}

/// The message itself.
#[derive(Serialize, ToSchema)]
pub struct Message {
    /// `stream`, or `dead-letter` where only that was kept.
    found_in: &'static str,
    /// The subject that it was published to.
    subject: String,
    /// When (RFC 3339).
    published: String,
    /// Its headers: name and value.
    headers: Vec<(String, String)>,
    /// Its payload.
    payload_base64: String,
    /// Its size.
    bytes: usize,
}

/// What happened around it, in the order of time; of the same entity where the table has one.
#[derive(Serialize, ToSchema)]
pub struct Neighbours {
    /// The nearest last.
    before: Vec<Item>,
    /// The nearest first.
    after: Vec<Item>,
}

/// A row that a path names.
pub struct NameOfRow(NameOfTable, i64);

impl FromRequestParts<State> for NameOfRow {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let Path((table, row)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        let number = row
            .parse()
            .map_err(|_| Problem::bad_request("a row is named by the number that it has as _row"))?;
        Ok(Self(NameOfTable::of(&table, parts, state).await?, number))
    }
}

pub async fn detail(
    extract::State(state): extract::State<State>,
    NameOfRow(table, number): NameOfRow,
    _room: Room,
    uri: Uri,
) -> Result<Json<Detail>, Problem> {
    let parameters = Parameters::parse(&uri, &["integers"])?;
    let integers = selection::integers(&parameters)?;
    let shape = table.shape(&state.reader).await?;
    let name = &shape.entry.name;
    let record = state.reader.row(&shape, number).await?;
    let record = record.ok_or_else(|| Problem::not_found(format!("table {name} has no row {number}")))?;
    let before = neighbours(&state.reader, &shape, &record, true).await?;
    let after = neighbours(&state.reader, &shape, &record, false).await?;
    let trace = match row_key(&record) {
        Some(key) => state.lifecycle.trace(name.as_str(), key).await.ok(),
        None => None,
    };
    let origin = Origin {
        source: record.origin.source.clone(),
        stream: trace.as_ref().and_then(|trace| trace.stream.clone()),
        epoch: record.origin.epoch,
        sequence: record.origin.sequence,
    };
    let mut before = Item::all(before, integers);
    before.reverse();
    let after = Item::all(after, integers);
    let (version, message, message_missing, note) = told(trace);
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

type Told = (Option<Version>, Option<Message>, Option<String>, Option<String>);

fn told(trace: Option<Trace>) -> Told {
    let Some(trace) = trace else {
        let missing = "it is not known which message the row comes from".to_owned();
        return (None, None, Some(missing), None);
    };
    let version = match (trace.version, trace.digest) {
        (Some(version), Some(digest)) => Some(Version {
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
    (version, message, trace.gone, trace.note)
}

fn row_key(record: &RowRecord) -> Option<RowKey> {
    Some(RowKey::Origin {
        origin: record.origin.number,
        sequence: record.origin.sequence.try_into().ok()?,
        row: record.origin.row.try_into().ok()?,
    })
}

/// The rows around one, the nearest first.
async fn neighbours(
    reader: &Reader,
    shape: &Shape,
    record: &RowRecord,
    before: bool,
) -> Result<RowPage, ReadError> {
    let time = shape.time().and_then(|time| match record.cells.get(time) {
        Some(Cell::Timestamp(at)) => Some((time, Key::Integer(at.0))),
        _ => None,
    });
    let entity = shape.with_role(RoleWord::Entity).next();
    let conditions = entity
        .and_then(|column| match record.cells.get(column) {
            None | Some(Cell::Null) => None,
            Some(cell) => Some(Condition {
                column,
                test: Test::OneOf {
                    values: vec![cell.to_value()],
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
        after: Some(Place {
            key: key.unwrap_or(Key::Null),
            row: record.row,
        }),
    };
    reader.rows(shape, &query).await
}
