//! Copies rows into a table of a server in the binary format of `COPY`, and inserts rows from a table of the session.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use rusqlite::types::ValueRef;
use sha2::{Digest as _, Sha256};
use tokio_postgres::types::{IsNull, Type};

use super::plan::Item;
use crate::commit::Adopted;
use crate::sql::postgres::{Invocation, Session, encode};
use crate::sql::{Engine, Error};
use crate::statement::{self, ORIGIN_COLUMNS, quote_text};
use crate::values::StorageClass;

/// Bytes of rows that are sent at once, so that the server works while the host encodes the next rows.
const PIECE_BYTES: usize = 64 * 1024;

/// The signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The copy of rows of one table, whichever of its writes they belong to.
pub(super) struct Copy<'a> {
    plugin: &'a Adopted,
    /// The table of the database and its columns.
    table: String,
    columns: String,
    types: Vec<Type>,
    /// The table of the session, and the statement that creates it.
    stage: String,
    create: String,
    /// For each write of the manifest, where its rows have the values of the columns.
    positions: Vec<Vec<Option<usize>>>,
}

impl<'a> Copy<'a> {
    pub(super) fn of(plugin: &'a Adopted, number: usize) -> Self {
        let table = &plugin.manifest.tables[number];
        let classes: Vec<StorageClass> = std::iter::repeat_n(StorageClass::Integer, ORIGIN_COLUMNS.len())
            .chain(
                table
                    .columns
                    .iter()
                    .map(|column| StorageClass::of(column.column_type)),
            )
            .collect();
        let names: Vec<String> = ORIGIN_COLUMNS
            .iter()
            .map(|name| quote_text(name))
            .chain(table.columns.iter().map(|column| statement::quote(&column.name)))
            .collect();
        let definitions: Vec<String> = names
            .iter()
            .zip(&classes)
            .map(|(name, class)| format!("{name} {}", class.as_sql(Engine::Postgres)))
            .collect();
        let definitions = definitions.join(", ");
        // Another declaration has another table.
        let digest = Sha256::digest(&definitions);
        let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let position = |write: &lantern_model::schema::Write| {
            (0..table.columns.len())
                .map(|column| write.columns.iter().position(|&written| written == column))
                .collect()
        };
        Self {
            plugin,
            table: quote_text(&plugin.tables[number]),
            columns: names.join(", "),
            types: classes.into_iter().map(StorageClass::server_type).collect(),
            stage: format!("pg_temp.stage_{digest}"),
            create: format!(
                "CREATE TEMP TABLE IF NOT EXISTS stage_{digest} (place BIGINT NOT NULL, {definitions}) ON COMMIT DELETE ROWS"
            ),
            positions: plugin.manifest.writes.iter().map(position).collect(),
        }
    }

    /// Copies rows into the table.
    pub(super) fn copy_rows(&self, session: &Session, items: &[Item<'_>]) -> Result<(), Error> {
        let Self { table, columns, .. } = self;
        let statement = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
        self.send(session, &statement, None, items)
    }

    /// Copies rows into the table of the session. Returns the place of the first.
    pub(super) fn stage_rows(&self, session: &Session, items: &[Item<'_>]) -> Result<i64, Error> {
        session.execute_batch(&self.create)?;
        let Self { stage, columns, .. } = self;
        let statement = format!("COPY {stage} (place, {columns}) FROM STDIN (FORMAT binary)");
        let first = session.reserve_places(items.len());
        self.send(session, &statement, Some(first), items)?;
        Ok(first)
    }

    /// The statement that inserts the rows of a write at `places` of the stage. If the write updates rows, it returns how
    /// many it inserted.
    pub(super) fn insert(
        &self,
        session: &Session,
        write: usize,
        places: std::ops::Range<i64>,
    ) -> Result<Invocation<'static>, Error> {
        let Self { table, stage, .. } = self;
        let manifest = &self.plugin.manifest;
        let text = statement::insert_from(manifest, &manifest.writes[write], table, stage);
        session.invocation(
            &text,
            vec![ValueRef::Integer(places.start), ValueRef::Integer(places.end)],
        )
    }

    fn send(
        &self,
        session: &Session,
        statement: &str,
        first: Option<i64>,
        items: &[Item<'_>],
    ) -> Result<(), Error> {
        let statement = session.prepare(statement)?;
        session.wait(async {
            let sink = session.client().copy_in::<_, Bytes>(statement.inner()).await?;
            let mut sink = std::pin::pin!(sink);
            let mut out = BytesMut::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
            out.put_slice(HEADER);
            for (place, item) in (first.unwrap_or(0)..).zip(items) {
                self.encode(&mut out, first.map(|_| place), item)?;
                if out.len() >= PIECE_BYTES {
                    sink.send(out.split().freeze()).await?;
                }
            }
            out.put_i16(-1);
            sink.send(out.freeze()).await?;
            sink.finish().await?;
            Ok::<_, Error>(())
        })
    }

    fn encode(&self, out: &mut BytesMut, place: Option<i64>, item: &Item<'_>) -> Result<(), Error> {
        let fields = self.types.len() + usize::from(place.is_some());
        out.put_i16(i16::try_from(fields).map_err(Error::encode)?);
        if let Some(place) = place {
            put(out, ValueRef::Integer(place), &Type::INT8)?;
        }
        let stamp = item.stamp.map(ValueRef::Integer).into_iter();
        let positions = self.positions[item.write].iter();
        // A column that the write omits is null.
        let values = positions.map(|position| position.map_or(ValueRef::Null, |at| item.values[at]));
        for (value, ty) in stamp.chain(values).zip(&self.types) {
            put(out, value, ty)?;
        }
        Ok(())
    }
}

/// Appends a field: its length, or -1 for null, and its bytes.
fn put(out: &mut BytesMut, value: ValueRef<'_>, ty: &Type) -> Result<(), Error> {
    let at = out.len();
    out.put_i32(-1);
    if let IsNull::No = encode(value, ty, out).map_err(Error::encode)? {
        let length = i32::try_from(out.len() - at - 4).map_err(Error::encode)?;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
