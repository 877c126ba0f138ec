//! Serializes rows as JSON in pieces, on demand of the client: only the stored rows and one piece are in memory. Long
//! values are serialized in parts.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Bytes;

use crate::budget::{PIECE_BYTES, Reservation};
use crate::items::identity;
use lantern_model::value::{Integers, JsonParts, JsonValue};
use lantern_store::reader::{RowPage, RowRecord};

/// Values up to this size are serialized at once.
const SHORT_BYTES: usize = 1 << 10;

/// The rows of a page during serialization.
pub struct Pieces {
    columns: Vec<Vec<u8>>,
    rows: std::vec::IntoIter<RowRecord>,
    integers: Integers,
    /// Text around the rows.
    frame: Frame,
    is_first: bool,
    /// Parts to serialize next.
    parts: VecDeque<Part>,
    /// Bytes of the current row and the following ones.
    held: usize,
    bytes_of_row: usize,
    reservation: Option<Reservation>,
    is_done: bool,
}

/// Text before, between and after rows.
pub struct Frame {
    pub before: Vec<u8>,
    pub between: &'static [u8],
    pub after: Vec<u8>,
}

enum Part {
    Bytes(Vec<u8>),
    Value(JsonParts),
}

impl Pieces {
    /// Starts a page. The reservation shrinks as rows are sent.
    ///
    /// # Errors
    /// If JSON cannot represent a value.
    pub fn new(
        page: RowPage,
        integers: Integers,
        frame: Frame,
        reservation: Option<Reservation>,
    ) -> Result<Self, serde_json::Error> {
        let RowPage { columns, items, .. } = page;
        let mut pieces = Self {
            columns: names(&columns)?,
            held: items.iter().map(bytes_of).sum(),
            rows: items.into_iter(),
            integers,
            parts: VecDeque::from([Part::Bytes(frame.before.clone())]),
            frame,
            is_first: true,
            bytes_of_row: 0,
            reservation,
            is_done: false,
        };
        pieces.shrink();
        Ok(pieces)
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// If JSON cannot represent a value.
    pub fn next(&mut self) -> Result<Option<Bytes>, serde_json::Error> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            match self.parts.pop_front() {
                Some(part) => {
                    if let Some(rest) = part.write(&mut piece)? {
                        self.parts.push_front(rest);
                    }
                }
                None if self.is_done => break,
                None => self.begin_row()?,
            }
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    /// Whether everything is serialized.
    pub fn is_at_end(&self) -> bool {
        self.is_done && self.parts.is_empty()
    }

    fn shrink(&mut self) {
        if let Some(reservation) = &mut self.reservation {
            // The current piece and those in the connection.
            reservation.shrink(self.held + 2 * PIECE_BYTES);
        }
    }

    fn begin_row(&mut self) -> Result<(), serde_json::Error> {
        self.held -= self.bytes_of_row;
        self.bytes_of_row = 0;
        self.shrink();
        let Some(record) = self.rows.next() else {
            self.is_done = true;
            self.parts
                .push_back(Part::Bytes(std::mem::take(&mut self.frame.after)));
            return Ok(());
        };
        self.bytes_of_row = bytes_of(&record);
        let mut text = match std::mem::take(&mut self.is_first) {
            true => Vec::new(),
            false => self.frame.between.to_vec(),
        };
        text.push(b'{');
        for (name, value) in self.columns.iter().zip(record.values) {
            text.extend_from_slice(name);
            let mut value = JsonParts::new(value, self.integers);
            if value.remaining_bytes() <= SHORT_BYTES {
                value.write_next(&mut text)?;
            } else {
                self.parts.push_back(Part::Bytes(std::mem::take(&mut text)));
                self.parts.push_back(Part::Value(value));
            }
            text.push(b',');
        }
        let (id, numbers) = identity(record.id);
        text.extend_from_slice(format!("\"_id\":\"{id}\"").as_bytes());
        for (name, number) in &numbers {
            text.extend_from_slice(format!(",\"{name}\":").as_bytes());
            serde_json::to_writer(&mut text, &JsonValue(number, self.integers))?;
        }
        text.push(b'}');
        self.parts.push_back(Part::Bytes(text));
        Ok(())
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
    use lantern_model::value::Value;

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
        let mut pieces = Pieces::new(page(), Integers::Text, frame, None).unwrap();
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
