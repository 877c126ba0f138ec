//! The tables of plugins and their rows, as JSON that keeps every value exact.

use axum::Json;
use axum::extract::{self, Path, rejection::PathRejection};
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Serialize, ser};

use super::State;
use super::cursor;
use super::parameters::Parameters;
use super::problem::Problem;
use crate::schema::TableName;
use crate::store::TableDescription;
use crate::store::reader::{Cell, Order, RowEstimate, RowRecord};

#[derive(Serialize)]
pub struct Table {
    name: String,
    plugin: String,
    #[serde(flatten)]
    description: TableDescription,
    /// Counted when there are at most 10,000, else an estimate.
    rows: u64,
    rows_exact: bool,
    rows_expired: i64,
}

pub async fn tables(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Table>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let mut tables = Vec::new();
    for entry in state.reader.tables().await? {
        let RowEstimate { rows, exact } = state.reader.row_estimate(&entry.name).await?;
        tables.push(Table {
            name: entry.name.to_string(),
            plugin: entry.plugin,
            description: entry.description,
            rows,
            rows_exact: exact,
            rows_expired: entry.rows_expired,
        });
    }
    Ok(Json(tables))
}

#[derive(Serialize)]
pub struct Rows {
    items: Vec<Item>,
    next_cursor: Option<String>,
}

pub async fn rows(
    extract::State(state): extract::State<State>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Rows>, Problem> {
    let Path(name) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let name = TableName::parse(&name).map_err(Problem::bad_request)?;
    let parameters = Parameters::parse(&uri, &["limit", "cursor", "order"])?;
    let limit = parameters.limit()?;
    let order_word = parameters.choice("order", &["asc", "desc"])?.unwrap_or("desc");
    let order = if order_word == "asc" {
        Order::OldestFirst
    } else {
        Order::NewestFirst
    };
    let list = format!("rows {name} {order_word}");
    let after = parameters
        .get("cursor")
        .map(|text| cursor::decode(&list, text))
        .transpose()?;

    let table = state.reader.table(&name).await?;
    let table = table.ok_or_else(|| Problem::not_found(format!("there is no table {name}")))?;
    let page = state.reader.rows(&table, order, limit, after).await?;
    let columns: std::sync::Arc<[String]> = page.columns.into();
    let items = page
        .items
        .into_iter()
        .map(|record| Item {
            columns: columns.clone(),
            record,
        })
        .collect();
    Ok(Json(Rows {
        items,
        next_cursor: page.next.map(|id| cursor::encode(&list, id)),
    }))
}

/// A row as an object of its columns, and `_origin`.
struct Item {
    columns: std::sync::Arc<[String]>,
    record: RowRecord,
}

#[derive(Serialize)]
struct Origin<'a> {
    source: Option<&'a str>,
    epoch: Option<i64>,
    sequence: i64,
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len() + 1))?;
        for (name, cell) in self.columns.iter().zip(&self.record.cells) {
            map.serialize_entry(name, &Shown(cell))?;
        }
        let origin = &self.record.origin;
        let (source, epoch, sequence) = (origin.source.as_deref(), origin.epoch, origin.sequence);
        map.serialize_entry(
            "_origin",
            &Origin {
                source,
                epoch,
                sequence,
            },
        )?;
        map.end()
    }
}

/// A cell as JSON: times in RFC 3339, bytes in base64, documents as they are.
struct Shown<'a>(&'a Cell);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Cell::Null => serializer.serialize_none(),
            Cell::Boolean(yes) => serializer.serialize_bool(*yes),
            Cell::Integer(number) => serializer.serialize_i64(*number),
            Cell::Real(number) if number.is_finite() => serializer.serialize_f64(*number),
            // JSON has no word for it, and null would be a lie.
            Cell::Real(number) => Err(ser::Error::custom(format!("{number} is not finite"))),
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::Blob(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Cell::Timestamp(time) => serializer.serialize_str(&time.to_rfc3339()),
            Cell::Json(document) => document.serialize(serializer),
        }
    }
}
