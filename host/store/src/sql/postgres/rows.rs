//! The rows of a statement, as the server sends them: the host holds one portion of a result. The driver reads the next one
//! only after the host has taken the previous one, so that the server waits for a slow reader.
//!
//! A session runs one statement at a time. If the caller runs another one before it has read all rows, the rest of the rows is
//! received first (`Session::settle`).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{FutureExt as _, StreamExt as _};
use rusqlite::types::Value;
use tokio_postgres::{Row, RowStream};

use super::link::Link;
use super::values::Cell;
use crate::sql::Error;

/// Rows that are taken from the driver at a time, if it has received them.
const PORTION: usize = 64;

/// Rows that are received and discarded after the caller has read enough. If there are more, the host cancels the statement.
const DISCARDED_BYTES_MAX: usize = 1 << 20;

/// A result that the server is sending.
pub(super) struct Reading {
    /// None at the end.
    stream: Option<Pin<Box<RowStream>>>,
    received: VecDeque<Row>,
    failed: Option<Error>,
}

/// A result, shared by its reader and its session.
#[derive(Clone)]
pub(super) struct SharedReading(Arc<Mutex<Reading>>);

impl SharedReading {
    pub(super) fn new(stream: RowStream) -> Self {
        Self(Arc::new(Mutex::new(Reading {
            stream: Some(Box::pin(stream)),
            received: VecDeque::new(),
            failed: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives the rest of the result. The reader gets an error when it arrives there.
    pub(super) fn receive_all(&self, link: &Link) {
        let mut reading = self.lock();
        while reading.stream.is_some() {
            if let Err(error) = reading.receive(link) {
                reading.failed = Some(error);
            }
        }
    }
}

impl Reading {
    /// Receives the next portion. After an error there is none.
    fn receive(&mut self, link: &Link) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        match link.wait(portion(stream)) {
            Ok((rows, is_end)) => {
                self.received.extend(rows);
                if is_end {
                    self.stream = None;
                }
                Ok(())
            }
            Err(error) => {
                self.stream = None;
                Err(error)
            }
        }
    }

    fn next(&mut self, link: &Link) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.received.pop_front() {
                return Ok(Some(row));
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.stream.is_none() {
                return Ok(None);
            }
            self.receive(link)?;
        }
    }

    /// Receives and discards the rest. Returns whether that was all.
    fn discard(&mut self, link: &Link, bytes_max: usize) -> bool {
        let mut bytes = 0;
        while self.stream.is_some() && bytes <= bytes_max {
            // The caller has what it needs. An error closes the connection later.
            if let Err(error) = self.receive(link) {
                tracing::debug!(%error, "the rest of a result was not received");
            }
            bytes += self
                .received
                .drain(..)
                .map(|row| row.raw_size_bytes())
                .sum::<usize>();
        }
        self.stream.is_none()
    }
}

/// The next row, and those that the driver has received already; and whether that is the end.
async fn portion(stream: &mut Pin<Box<RowStream>>) -> Result<(Vec<Row>, bool), tokio_postgres::Error> {
    let mut rows = Vec::new();
    let mut next = stream.next().await;
    loop {
        match next {
            Some(row) => rows.push(row?),
            None => return Ok((rows, true)),
        }
        if rows.len() >= PORTION {
            return Ok((rows, false));
        }
        next = match stream.next().now_or_never() {
            Some(next) => next,
            None => return Ok((rows, false)),
        };
    }
}

/// The rows of a statement.
pub(crate) struct Rows<'s> {
    link: &'s Link,
    reading: SharedReading,
    current: Vec<Value>,
}

impl<'s> Rows<'s> {
    pub(super) fn new(link: &'s Link, reading: SharedReading) -> Self {
        Self {
            link,
            reading,
            current: Vec::new(),
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<&[Value]>, Error> {
        let Some(row) = self.reading.lock().next(self.link)? else {
            return Ok(None);
        };
        self.current.clear();
        for column in 0..row.len() {
            let Cell(value) = row.try_get(column)?;
            self.current.push(value);
        }
        Ok(Some(&self.current))
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        let bytes_max = match self.link.is_interruptible() {
            true => DISCARDED_BYTES_MAX,
            false => usize::MAX,
        };
        if !self.reading.lock().discard(self.link, bytes_max) {
            self.link.abandon();
        }
    }
}
