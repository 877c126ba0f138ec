//! Ends the faults, waits until the host has read everything, and compares the database with the journal.

use std::time::{Duration, Instant};

use super::host::check;
use super::journal::context;
use super::streams::Stream;
use super::verdict::{Counts, Found, Kind, judge};
use super::world::{LIMIT, PLUGINS, World, pause, run};

impl World {
    /// Publishes a message to each stream and waits until its row is in the table: the host has then handled all
    /// earlier messages as well.
    pub fn catch_up(&mut self) {
        self.make_ready();
        let url = self.broker.url();
        for stream in Stream::ALL {
            let row = |id| stream.payload(id);
            let id = self.until("a marker is published", || {
                run(async {
                    let context = context(&url).await?;
                    self.journal.publish(&context, stream, Kind::Row, row).await
                })
            });
            let sql = numbered(stream);
            self.until(&format!("marker {id} of {} has a row", stream.name()), || {
                let connection = self.open().ok()?;
                connection
                    .query_row(&sql, [id as i64], |row| row.get::<_, i64>(0))
                    .ok()
            });
        }
    }

    /// Waits for rebuilds, resumes paused plugins, and activates the version that creates rows, because another version
    /// may reject every message.
    fn make_ready(&self) {
        self.until("no rebuild runs", || {
            let rebuilds = self.host.as_ref()?.get("/api/v1/rebuilds").ok()?.1;
            let rebuilds: serde_json::Value = serde_json::from_str(&rebuilds).ok()?;
            let mut rebuilds = rebuilds.as_array()?.iter();
            (!rebuilds.any(|rebuild| rebuild["state"] == "running")).then_some(())
        });
        for plugin in PLUGINS {
            self.until("a plugin is resumed", || {
                self.operate(&["plugin", "resume", plugin]).then_some(())
            });
        }
        self.until("a version that makes rows is active", || {
            self.operate(&["plugin", "install", "a.wasm", "--activate"])
                .then_some(())
        });
    }

    /// Waits until `found` returns a value.
    pub fn until<T>(&self, what: &str, found: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = found() {
                return found;
            }
            if Instant::now() > deadline {
                let ask = |path| match self.host.as_ref().map(|host| host.get(path)) {
                    Some(Ok((_, body))) => body,
                    other => format!("{other:?}"),
                };
                panic!(
                    "stuck, not within {LIMIT:?}: {what}\n{}\n{}",
                    ask("/readyz"),
                    ask("/api/v1/projections")
                );
            }
            pause(100);
        }
    }

    /// Ends every fault, waits until everything is read, and compares the database with the journal.
    pub fn settle(&mut self) -> Counts {
        self.publisher.pause();
        self.catch_up();
        // Dead letters of a bad version.
        self.until("dead letters are retried", || {
            self.operate(&["dead-letters", "retry", "--plugin", "evolving"])
                .then_some(())
        });
        for stream in Stream::ALL {
            let what = format!("the acknowledgements of {} reach the checkpoint", stream.name());
            self.until(&what, || self.is_acknowledged(stream).filter(|&is| is));
        }
        let found = self.until("the database is read", || self.found().ok());
        let counts = judge(&self.journal.entries(), &found);
        assert!(counts.is_clean(), "{counts}");
        self.publisher.resume();
        counts
    }

    /// Whether the consumer's acknowledgement floor is the checkpoint, and a stream that deletes acknowledged messages is
    /// empty. `None` if broker or database do not answer.
    fn is_acknowledged(&self, stream: Stream) -> Option<bool> {
        let checkpoint: i64 = self
            .open()
            .ok()?
            .query_row(
                "SELECT c.sequence FROM _lantern_origin o JOIN _lantern_checkpoint c ON c.origin = o.id
                 WHERE o.plugin = ?1 AND o.source = ?2 ORDER BY o.epoch DESC LIMIT 1",
                [stream.plugin(), stream.source()],
                |row| row.get(0),
            )
            .ok()?;
        self.with_stream(stream, async |handle| {
            let consumer = handle.consumer_info(stream.consumer()).await.ok()?;
            let held = handle.get_info().await.ok()?.state.messages;
            let is_empty = held == 0 || !self.setup.deletes_acknowledged(stream);
            Some(is_empty && consumer.ack_floor.stream_sequence == checkpoint as u64)
        })
    }

    fn open(&self) -> rusqlite::Result<rusqlite::Connection> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = rusqlite::Connection::open_with_flags(self.data.join("lantern.db"), flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(connection)
    }

    fn found(&self) -> rusqlite::Result<Found> {
        let connection = self.open()?;
        let mut found = Found::default();
        for stream in Stream::ALL {
            let mut statement = connection.prepare(stream.rows())?;
            // A row without an id belongs to no message of the journal; no publisher sends such a message.
            let ids = statement.query_map([], |row| row.get::<_, Option<i64>>(0))?;
            for id in ids {
                *found.rows.entry((stream, id?.unwrap_or(0) as u64)).or_default() += 1;
            }
            let mut statement = connection.prepare(
                "SELECT CAST(d.payload AS TEXT) FROM _lantern_dead_letter d JOIN _lantern_origin o ON o.id = d.origin
                 WHERE o.source = ?1 AND d.state = 'open'",
            )?;
            let payloads = statement.query_map([stream.source()], |row| row.get::<_, String>(0))?;
            for payload in payloads {
                *found.dead_letters.entry((stream, id_in(&payload?))).or_default() += 1;
            }
            let mut statement = connection.prepare(
                "SELECT g.first_sequence, g.last_sequence FROM _lantern_gap g JOIN _lantern_origin o ON o.id = g.origin
                 WHERE o.source = ?1",
            )?;
            let gaps = statement.query_map([stream.source()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })?;
            for gap in gaps {
                let (first, last) = gap?;
                found.gaps.push((stream, first as u64, last as u64));
            }
        }
        Ok(found)
    }

    /// The final comparison, which includes `lantern check`.
    pub fn finish(mut self) -> Counts {
        let counts = self.settle();
        self.end_host(false);
        let (code, text) = check(&self.data);
        assert_eq!(code, 0, "lantern check: {text}");
        counts
    }
}

/// Returns a query for the rows with the id in parameter 1.
fn numbered(stream: Stream) -> String {
    let rows = stream.rows();
    let column = rows.trim_start_matches("SELECT ").split(" FROM ").next().unwrap();
    format!("{rows} WHERE {column} = ?1")
}

/// Returns the last number in a payload.
fn id_in(payload: &str) -> u64 {
    let end = payload.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let digits = end.len() - end.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    end[end.len() - digits..].parse().unwrap_or(0)
}
