//! Lists the rows of a table in pages.

use axum::extract;
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};

use super::name::TablePath;
use super::{search, selection};
use crate::cursor;
use crate::parameters::Parameters;
use crate::pieces::{Frame, Pieces, Rows};
use crate::problem::Problem;
use crate::room::Room;
use crate::state::State;
use lantern_store::reader::{RowQuery, Shape, Sort};

pub async fn rows(
    extract::State(state): extract::State<State>,
    table: TablePath,
    room: Room,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = selection::read(&uri, &["limit", "cursor", "sort", "order", "columns"])?;
    let limit = parameters.limit()?;
    let shape = table.shape(&state.reader).await?;
    let sort = sort(&shape, &parameters)?;
    let list = list_name(&shape, sort, &parameters);
    let after = parameters
        .get("cursor")
        .map(|text| cursor::place(&list, text))
        .transpose()?;
    let query = RowQuery {
        selection: selection::parse(&shape, &parameters)?,
        sort,
        columns: columns(&shape, &parameters)?,
        limit,
        after,
    };
    let integers = selection::integers(&parameters)?;
    let page = state.reader.rows(&shape, &query).await?;
    let next_cursor = page.next.as_ref().map(|place| cursor::of_place(&list, place));
    let mut after = b"],\"next_cursor\":".to_vec();
    let mut written = serde_json::to_writer(&mut after, &next_cursor);
    if query.selection.search.is_some() {
        let search = search::view(&state.reader, &shape).await?;
        after.extend_from_slice(b",\"search\":");
        written = written.and_then(|()| serde_json::to_writer(&mut after, &search));
    }
    let frame = written.map(|()| Frame {
        before: b"{\"items\":[".to_vec(),
        between: b",",
        after: [&after[..], b"}"].concat(),
    });
    let rows = Rows::new(page, integers);
    let pieces = frame.and_then(|frame| Ok(Pieces::new(rows?, frame, room.take())));
    let body = pieces.and_then(Pieces::into_body);
    let body = body.map_err(|error| {
        tracing::error!(%error, "failed to serialize a row as JSON");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Name of a list for its cursors: table, order and selection.
fn list_name(shape: &Shape, sort: Sort, parameters: &Parameters) -> String {
    let by = sort
        .column
        .map_or("", |column| shape.columns[column].name.as_str());
    let direction = if sort.descending { "desc" } else { "asc" };
    let fingerprint = selection::fingerprint(parameters);
    format!("rows {} {direction}:{by} {fingerprint}", shape.entry.name)
}

/// The parameter `columns`; defaults to all.
pub fn columns(shape: &Shape, parameters: &Parameters) -> Result<Vec<usize>, Problem> {
    let chosen = selection::columns(shape, parameters, "columns")?;
    Ok(chosen.unwrap_or_else(|| (0..shape.columns.len()).collect()))
}

/// The order: `sort=COLUMN` or `sort=-COLUMN`; `order=` by arrival; by default the time column, newest first, or arrival
/// if there is none.
pub fn sort(shape: &Shape, parameters: &Parameters) -> Result<Sort, Problem> {
    let order = parameters.choice("order", &["asc", "desc"])?;
    let (column, descending) = match (parameters.get("sort"), order) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("sort and order are mutually exclusive"));
        }
        (Some(text), None) => {
            let name = text.strip_prefix('-');
            let column = selection::column(shape, "sort", name.unwrap_or(text))?;
            let column_type = shape.columns[column].column_type;
            if !column_type.is_sortable() {
                return Err(Problem::bad_request(format!("sort: {column_type} has no order")));
            }
            (Some(column), name.is_some())
        }
        (None, Some(order)) => (None, order == "desc"),
        (None, None) => (shape.time(), true),
    };
    Ok(Sort { column, descending })
}
