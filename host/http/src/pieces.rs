//! Serializes the items of a page as JSON in pieces, on demand of the client: only the stored items and one piece are in
//! memory. Long values are serialized in parts.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;

use crate::budget::{PIECE_BYTES, Reservation};
use crate::items::identity;
use lantern_model::value::{Integers, JsonParts, JsonValue, Value};
use lantern_store::reader::{RowPage, RowRecord};

/// Values up to this size are serialized at once.
const SHORT_BYTES: usize = 1 << 10;

/// The items of a page.
pub trait Items {
    /// Approximate size of the items in memory, without those that were begun.
    fn bytes(&self) -> usize;

    /// Appends the next item after `text` to `parts`. Returns its size in memory; none after the last one.
    ///
    /// # Errors
    /// If JSON cannot represent a value.
    fn begin(&mut self, text: Vec<u8>, parts: &mut Parts) -> Result<Option<usize>, serde_json::Error>;
}

/// A page during serialization.
pub struct Pieces<I> {
    items: I,
    /// Text around the items.
    frame: Frame,
    is_first: bool,
    /// Parts to serialize next.
    parts: Parts,
    bytes_of_item: usize,
    reservation: Option<Reservation>,
    is_done: bool,
}

/// Text before, between and after items.
pub struct Frame {
    pub before: Vec<u8>,
    pub between: &'static [u8],
    pub after: Vec<u8>,
}

/// Parts of an item in the order of their serialization.
#[derive(Default)]
pub struct Parts(VecDeque<Part>);

impl Parts {
    /// Appends a value: a short one to `text`, a long one as a separate part after the previous text.
    ///
    /// # Errors
    /// If JSON cannot represent the value.
    pub fn value(
        &mut self,
        text: &mut Vec<u8>,
        value: Value,
        integers: Integers,
    ) -> Result<(), serde_json::Error> {
        let mut value = JsonParts::new(value, integers);
        if value.remaining_bytes() <= SHORT_BYTES {
            value.write_next(text)?;
        } else {
            self.text(std::mem::take(text));
            self.0.push_back(Part::Value(value));
        }
        Ok(())
    }

    /// Appends text.
    pub fn text(&mut self, text: Vec<u8>) {
        self.0.push_back(Part::Bytes(text));
    }
}

enum Part {
    Bytes(Vec<u8>),
    Value(JsonParts),
}

impl<I: Items> Pieces<I> {
    /// Starts a page. The reservation shrinks as items are sent.
    pub fn new(items: I, frame: Frame, reservation: Option<Reservation>) -> Self {
        let mut pieces = Self {
            items,
            parts: Parts::default(),
            frame,
            is_first: true,
            bytes_of_item: 0,
            reservation,
            is_done: false,
        };
        pieces.parts.text(pieces.frame.before.clone());
        pieces.shrink();
        pieces
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// If JSON cannot represent a value.
    pub fn next(&mut self) -> Result<Option<Bytes>, serde_json::Error> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            match self.parts.0.pop_front() {
                Some(part) => {
                    if let Some(rest) = part.write(&mut piece)? {
                        self.parts.0.push_front(rest);
                    }
                }
                None if self.is_done => break,
                None => self.begin_item()?,
            }
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    /// Whether everything is serialized.
    pub fn is_at_end(&self) -> bool {
        self.is_done && self.parts.0.is_empty()
    }

    fn shrink(&mut self) {
        if let Some(reservation) = &mut self.reservation {
            // The current piece and those in the connection.
            reservation.shrink(self.items.bytes() + self.bytes_of_item + 2 * PIECE_BYTES);
        }
    }

    fn begin_item(&mut self) -> Result<(), serde_json::Error> {
        let before = match std::mem::take(&mut self.is_first) {
            true => Vec::new(),
            false => self.frame.between.to_vec(),
        };
        let begun = self.items.begin(before, &mut self.parts)?;
        self.bytes_of_item = begun.unwrap_or(0);
        self.shrink();
        if begun.is_none() {
            self.is_done = true;
            self.parts.text(std::mem::take(&mut self.frame.after));
        }
        Ok(())
    }
}

impl<I: Items + Send + 'static> Pieces<I> {
    /// The body of the page: complete if it is one piece, else streamed.
    ///
    /// # Errors
    /// If JSON cannot represent a value of the first piece.
    pub fn into_body(mut self) -> Result<Body, serde_json::Error> {
        let first = self.next()?.unwrap_or_default();
        if self.is_at_end() {
            return Ok(first.into());
        }
        let parts = stream::try_unfold((Some(first), self), async |(ready, mut pieces)| {
            let part = match ready {
                Some(part) => Some(part),
                None => pieces.next()?,
            };
            Ok::<_, serde_json::Error>(part.map(|part| (part, (None, pieces))))
        });
        Ok(Body::from_stream(parts))
    }
}

/// The rows of a page.
pub struct Rows {
    columns: Vec<Vec<u8>>,
    rows: std::vec::IntoIter<RowRecord>,
    integers: Integers,
    bytes: usize,
}

impl Rows {
    /// The rows of `page`.
    ///
    /// # Errors
    /// If JSON cannot represent a column name.
    pub fn new(page: RowPage, integers: Integers) -> Result<Self, serde_json::Error> {
        let RowPage { columns, items, .. } = page;
        Ok(Self {
            columns: names(&columns)?,
            bytes: items.iter().map(bytes_of).sum(),
            rows: items.into_iter(),
            integers,
        })
    }
}

impl Items for Rows {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn begin(&mut self, mut text: Vec<u8>, parts: &mut Parts) -> Result<Option<usize>, serde_json::Error> {
        let Some(record) = self.rows.next() else {
            return Ok(None);
        };
        let bytes = bytes_of(&record);
        self.bytes -= bytes;
        text.push(b'{');
        for (name, value) in self.columns.iter().zip(record.values) {
            text.extend_from_slice(name);
            parts.value(&mut text, value, self.integers)?;
            text.push(b',');
        }
        let (id, numbers) = identity(record.id);
        text.extend_from_slice(format!("\"_id\":\"{id}\"").as_bytes());
        for (name, number) in &numbers {
            text.extend_from_slice(format!(",\"{name}\":").as_bytes());
            serde_json::to_writer(&mut text, &JsonValue(number, self.integers))?;
        }
        text.push(b'}');
        parts.text(text);
        Ok(Some(bytes))
    }
}

impl Part {
    /// Serializes some of the part and returns the rest.
    fn write(self, piece: &mut Vec<u8>) -> Result<Option<Self>, serde_json::Error> {
        Ok(match self {
            Self::Bytes(bytes) => {
                piece.extend_from_slice(&bytes);
                None
            }
            Self::Value(mut value) => {
                let is_last = value.write_next(piece)?;
                (!is_last).then_some(Self::Value(value))
            }
        })
    }
}

/// Column names as JSON keys with a colon.
fn names(columns: &Arc<[String]>) -> Result<Vec<Vec<u8>>, serde_json::Error> {
    let name = |name: &String| {
        let mut name = serde_json::to_vec(name)?;
        name.push(b':');
        Ok(name)
    };
    columns.iter().map(name).collect()
}

/// Approximate size of a row in memory.
pub fn bytes_of(record: &RowRecord) -> usize {
    record.values.iter().map(|value| 32 + value.heap_bytes()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::items::Item;
    use lantern_model::identity::RowIdentity;

    #[test]
    fn pieces_equal_the_complete_json() {
        let id = RowIdentity {
            origin: 3,
            sequence: 2,
            row: 4,
        };
        let long = "ä\u{1}\"\\\n😀".repeat(20_000);
        let document = serde_json::to_string(&[&long, "x"]).unwrap();
        let record = |number| RowRecord {
            rowid: number,
            values: vec![
                Value::Text(long.clone()),
                Value::Null,
                Value::Blob(vec![7; 100_001]),
                Value::Json(document.clone()),
                Value::Integer(i64::MAX),
                Value::Text("short".to_owned()),
            ],
            id,
        };
        let columns: Arc<[String]> = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).into();
        let page = || RowPage {
            columns: Arc::clone(&columns),
            items: vec![record(1), record(2)],
            next: None,
        };
        let whole = serde_json::to_vec(&Item::all(page(), Integers::Text)).unwrap();
        let frame = Frame {
            before: b"[".to_vec(),
            between: b",",
            after: b"]".to_vec(),
        };
        let rows = Rows::new(page(), Integers::Text).unwrap();
        let mut pieces = Pieces::new(rows, frame, None);
        let mut joined = Vec::new();
        while let Some(piece) = pieces.next().unwrap() {
            // A piece ends after the part that fills it.
            assert!(piece.len() <= PIECE_BYTES + (40 << 10), "{}", piece.len());
            joined.extend_from_slice(&piece);
        }
        assert!(pieces.is_at_end());
        assert!(joined == whole, "the pieces differ from the complete JSON");
    }
}
