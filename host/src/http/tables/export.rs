//! The rows of a selection as a file: read in short pages, so that however long a client takes, no reader holds up the
//! write-ahead log and no more than a page is in memory.

use axum::body::{Body, Bytes};
use axum::extract;
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::NameOfTable;
use super::cells::{Integers, Item, word};
use super::{rows, selection};
use crate::http::State;
use crate::http::csv;
use crate::http::problem::Problem;
use crate::store::reader::{Cell, ReadError, Reader, RowPage, RowQuery, Shape};

/// Rows that are read at once; a page also ends at the reader's own limit of bytes.
const PAGE: u32 = 500;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Jsonl,
}

pub async fn export(
    extract::State(state): extract::State<State>,
    table: NameOfTable,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = selection::read(&uri, &["format", "sort", "order", "columns"])?;
    let format = match parameters.choice("format", &["csv", "jsonl"])? {
        Some("csv") => Format::Csv,
        Some(_) => Format::Jsonl,
        None => return Err(Problem::bad_request("format is missing: csv or jsonl")),
    };
    let shape = table.shape(&state.reader).await?;
    let query = RowQuery {
        selection: selection::parse(&shape, &parameters)?,
        sort: rows::sort(&shape, &parameters)?,
        columns: rows::columns(&shape, &parameters)?,
        limit: PAGE,
        after: None,
    };
    let (kind, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
        Format::Jsonl => ("application/x-ndjson", "jsonl"),
    };
    let disposition = format!("attachment; filename=\"{}.{ending}\"", shape.entry.name);
    let mut export = Export {
        integers: selection::integers(&parameters)?,
        reader: state.reader,
        shape,
        query,
        format,
        begun: false,
        ended: false,
    };
    // What cannot be read at all is said as a problem; later the answer can only break off.
    let first = export.page().await.map_err(|error| match error {
        ExportError::Read(error) => Problem::from(error),
        ExportError::Json(error) => {
            tracing::error!(%error, "a row cannot be exported");
            Problem::internal()
        }
    })?;
    let parts = stream::try_unfold((first, export), async |(ready, mut export)| match ready {
        Some(part) => Ok::<_, ExportError>(Some((part, (None, export)))),
        None => Ok(export.page().await?.map(|part| (part, (None, export)))),
    });
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// Why an export breaks off; the client sees that it is not whole.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("read rows")]
    Read(#[from] ReadError),
    #[error("write a row as JSON")]
    Json(#[from] serde_json::Error),
}

/// An export that is under way.
struct Export {
    reader: Reader,
    shape: Shape,
    query: RowQuery,
    format: Format,
    integers: Integers,
    begun: bool,
    ended: bool,
}

impl Export {
    /// The next part of the file; none at its end.
    async fn page(&mut self) -> Result<Option<Bytes>, ExportError> {
        while !self.ended {
            let page = self.reader.rows(&self.shape, &self.query).await?;
            self.query.after.clone_from(&page.next);
            self.ended = page.next.is_none();
            let part = self.written(page)?;
            self.begun = true;
            if !part.is_empty() {
                return Ok(Some(part.into()));
            }
        }
        Ok(None)
    }

    fn written(&self, page: RowPage) -> Result<Vec<u8>, serde_json::Error> {
        let mut part = Vec::new();
        match self.format {
            Format::Csv => {
                if !self.begun {
                    csv::line(&mut part, page.columns.iter().map(String::as_str));
                }
                for record in &page.items {
                    csv::line(&mut part, record.cells.iter().map(field));
                }
            }
            Format::Jsonl => {
                for item in Item::all(page, self.integers) {
                    serde_json::to_writer(&mut part, &item)?;
                    part.push(b'\n');
                }
            }
        }
        Ok(part)
    }
}

/// A cell as a field.
fn field(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Text(_) | Cell::Json(_) | Cell::Blob(_) => csv::text(word(cell)),
        cell => word(cell),
    }
}
