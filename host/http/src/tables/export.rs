//! Exports the rows of a selection as a file. The export reads short pages, so a slow client neither blocks checkpoints of
//! the write-ahead log nor holds more than a page in memory. It reads a page when memory for it is available.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract;
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::name::TablePath;
use super::{rows, selection};
use crate::budget::{PIECE_BYTES, Reservation};
use crate::csv;
use crate::pieces::{Frame, Pieces, Rows, bytes_of};
use crate::problem::Problem;
use crate::room::Room;
use crate::state::State;
use lantern_model::value::Integers;
use lantern_store::reader::{ReadError, Reader, RowPage, RowQuery, RowRecord, Shape};

/// Rows per page; the reader also bounds a page in bytes.
const PAGE: u32 = 500;

/// Maximum time that an export waits for memory for its next page before it aborts.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Jsonl,
}

pub async fn export(
    extract::State(state): extract::State<State>,
    table: TablePath,
    room: Room,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = selection::read(&uri, &["format", "sort", "order", "columns"])?;
    let format = match parameters.choice("format", &["csv", "jsonl"])? {
        Some("csv") => Format::Csv,
        Some(_) => Format::Jsonl,
        None => return Err(Problem::bad_request("format is required: csv or jsonl")),
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
        room,
        page: None,
        ended: false,
    };
    // The first page can still fail with an error response; later pages can only abort the response.
    let first = export.next().await.map_err(|error| match error {
        ExportError::Read(error) => Problem::from(error),
        ExportError::Json(error) => {
            tracing::error!(%error, "failed to export a row");
            Problem::internal()
        }
        ExportError::NoRoom => Problem::busy(error.to_string()),
    })?;
    let parts = stream::try_unfold((first, export), async |(ready, mut export)| match ready {
        Some(part) => Ok::<_, ExportError>(Some((part, (None, export)))),
        None => Ok(export.next().await?.map(|part| (part, (None, export)))),
    });
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// Reason for aborting an export; the client detects the abort.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("read rows")]
    Read(#[from] ReadError),
    #[error("write a row as JSON")]
    Json(#[from] serde_json::Error),
    #[error("no memory for the next page within the time limit")]
    NoRoom,
}

/// A running export.
struct Export {
    reader: Reader,
    shape: Shape,
    query: RowQuery,
    format: Format,
    integers: Integers,
    room: Room,
    /// The current page.
    page: Option<Page>,
    ended: bool,
}

/// A page in the format of the file.
enum Page {
    Csv(CsvPage),
    Jsonl(Pieces<Rows>),
}

impl Export {
    /// The next part of the file; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ExportError> {
        loop {
            let part = match &mut self.page {
                Some(Page::Csv(page)) => page.next(),
                Some(Page::Jsonl(page)) => page.next()?,
                None => None,
            };
            if part.is_some() || self.ended {
                return Ok(part);
            }
            let is_first = self.page.is_none();
            // Release the memory of the previous page first.
            self.page = None;
            let reservation = match self.room.take() {
                Some(reservation) => reservation,
                None => self.room.another(WAIT).await.ok_or(ExportError::NoRoom)?,
            };
            let page = self.reader.rows(&self.shape, &self.query).await?;
            self.query.after.clone_from(&page.next);
            self.ended = page.next.is_none();
            self.page = Some(self.page_of(page, is_first, reservation)?);
        }
    }

    fn page_of(
        &self,
        page: RowPage,
        is_first: bool,
        reservation: Reservation,
    ) -> Result<Page, serde_json::Error> {
        Ok(match self.format {
            Format::Csv => Page::Csv(CsvPage::new(page, is_first, reservation)),
            Format::Jsonl => {
                let after = if page.items.is_empty() { "" } else { "\n" };
                let frame = Frame {
                    before: Vec::new(),
                    between: b"\n",
                    after: after.into(),
                };
                let rows = Rows::new(page, self.integers)?;
                Page::Jsonl(Pieces::new(rows, frame, Some(reservation)))
            }
        })
    }
}

/// Rows as CSV lines.
struct CsvPage {
    header: Option<Vec<u8>>,
    rows: std::vec::IntoIter<RowRecord>,
    held: usize,
    reservation: Reservation,
}

impl CsvPage {
    fn new(page: RowPage, with_header: bool, reservation: Reservation) -> Self {
        let header = with_header.then(|| {
            let mut header = Vec::new();
            csv::line(
                &mut header,
                page.columns.iter().map(String::as_str).chain(["_id"]),
            );
            header
        });
        Self {
            header,
            held: page.items.iter().map(bytes_of).sum(),
            rows: page.items.into_iter(),
            reservation,
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let mut part = self.header.take().unwrap_or_default();
        while part.len() < PIECE_BYTES {
            let Some(record) = self.rows.next() else {
                break;
            };
            self.held -= bytes_of(&record);
            let id = record.id.to_string();
            csv::line(&mut part, record.values.iter().map(csv::field).chain([id]));
        }
        self.reservation.shrink(self.held + part.len() + PIECE_BYTES);
        (!part.is_empty()).then(|| part.into())
    }
}
