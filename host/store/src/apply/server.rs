//! The rows of messages in PostgreSQL. Rows of a table with a single write that only inserts are copied in one stream per
//! batch; the other rows have one statement each, in stream order, because their effects depend on the order.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use rusqlite::types::ValueRef;
use sha2::{Digest as _, Sha256};
use tokio_postgres::types::{IsNull, Type};

use crate::commit::{Adopted, Entry, OriginId, RowEffects};
use crate::sql::postgres::{Session, Statement, encode};
use crate::sql::{Engine, Error};
use crate::statement::{self, ORIGIN_COLUMNS, quote_text};
use crate::values::to_sql;
use crate::values::{StorageClass, parameter, stored};
use lantern_model::batch::{Outcome, Row};
use lantern_model::schema::{Manifest, OnConflict, Write};

/// One statement for each row.
pub(super) struct ServerWrites<'a> {
    statements: Vec<Statement<'a>>,
    pub(super) effects: Vec<RowEffects>,
}

impl<'a> ServerWrites<'a> {
    pub(super) fn prepare(session: &'a Session, plugin: &'a Adopted) -> Result<Self, Error> {
        let statements = plugin.statements.iter();
        let statements: Vec<_> = statements
            .map(|text| session.prepare(text))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            effects: vec![RowEffects::default(); statements.len()],
            statements,
        })
    }

    pub(super) fn write_entry(&mut self, origin: OriginId, entry: &Entry) -> Result<(), Error> {
        self.write_some(origin, entry, |_| true)
    }

    /// Writes the rows of those writes that `is_included` selects.
    fn write_some(
        &mut self,
        origin: OriginId,
        entry: &Entry,
        is_included: impl Fn(usize) -> bool,
    ) -> Result<(), Error> {
        for (number, row) in rows_of(entry).filter(|(_, row)| is_included(row.write as usize)) {
            let write = row.write as usize;
            let stamp = stamp(origin, entry, number);
            let values: Vec<_> = row.values.iter().map(parameter).collect();
            let stamps = stamp.iter().map(|stamp| stamp as &dyn rusqlite::ToSql);
            let parameters: Vec<_> = stamps
                .chain(values.iter().map(|value| value as &dyn rusqlite::ToSql))
                .collect();
            let mut returned = self.statements[write].query(&parameters)?;
            self.effects[write] += match returned.next()? {
                None => RowEffects {
                    present: 1,
                    ..RowEffects::default()
                },
                Some([rusqlite::types::Value::Integer(1), ..]) => RowEffects {
                    inserted: 1,
                    ..RowEffects::default()
                },
                Some(_) => RowEffects {
                    updated: 1,
                    ..RowEffects::default()
                },
            };
        }
        Ok(())
    }
}

fn rows_of(entry: &Entry) -> impl Iterator<Item = (usize, &Row)> {
    let rows = match &entry.outcome {
        Outcome::Rows(rows) => rows.as_slice(),
        _ => &[],
    };
    rows.iter().enumerate()
}

fn stamp(origin: OriginId, entry: &Entry, number: usize) -> [i64; 3] {
    [origin.0, to_sql(entry.delivery.sequence), to_sql(number as u64)]
}

/// Writes the rows of a batch. Returns the effects of each write.
pub(super) fn write_batch(
    session: &Session,
    plugin: &Adopted,
    origin: OriginId,
    entries: &[Entry],
) -> Result<Vec<RowEffects>, Error> {
    let manifest = &plugin.manifest;
    let is_copied: Vec<bool> = manifest
        .writes
        .iter()
        .map(|write| is_copied(manifest, write))
        .collect();
    let mut writes = ServerWrites::prepare(session, plugin)?;
    if is_copied.contains(&false) {
        for entry in entries {
            writes.write_some(origin, entry, |write| !is_copied[write])?;
        }
    }
    let mut effects = writes.effects;
    for (number, write) in manifest
        .writes
        .iter()
        .enumerate()
        .filter(|(number, _)| is_copied[*number])
    {
        let copy = Copy::of(plugin, write);
        effects[number] += copy.run(session, number, origin, entries)?;
    }
    Ok(effects)
}

/// Whether the rows of a write can be copied: no other write has the same table, so that their order is that of the copy, and
/// the first row with a key is stored.
fn is_copied(manifest: &Manifest, write: &Write) -> bool {
    let inserts = matches!(write.on_conflict, OnConflict::Fail | OnConflict::Ignore);
    let of_table = manifest.writes.iter().filter(|other| other.table == write.table);
    inserts && of_table.count() == 1
}

/// The copy of the rows of one write.
struct Copy {
    /// The table and its copied columns.
    table: String,
    columns: String,
    types: Vec<Type>,
    /// The table of the session that has the rows before they are inserted; none if no row can be present.
    stage: Option<Stage>,
}

struct Stage {
    create: String,
    name: String,
    /// The conflict clause.
    conflict: String,
}

impl Copy {
    fn of(plugin: &Adopted, write: &Write) -> Self {
        let table = plugin.manifest.table_of(write);
        let columns = write.columns.iter().map(|&column| &table.columns[column]);
        let classes: Vec<StorageClass> = std::iter::repeat_n(StorageClass::Integer, ORIGIN_COLUMNS.len())
            .chain(columns.clone().map(|column| StorageClass::of(column.column_type)))
            .collect();
        let origin = ORIGIN_COLUMNS.iter().map(|name| quote_text(name));
        let names: Vec<String> = origin
            .chain(columns.map(|column| statement::quote(&column.name)))
            .collect();
        let stage = matches!(write.on_conflict, OnConflict::Ignore).then(|| {
            Stage::of(
                &names,
                &classes,
                statement::conflict_clauses(table, write, Engine::Postgres),
            )
        });
        Self {
            table: quote_text(&plugin.tables[write.table]),
            columns: names.join(", "),
            types: classes.into_iter().map(StorageClass::server_type).collect(),
            stage,
        }
    }

    fn run(
        &self,
        session: &Session,
        write: usize,
        origin: OriginId,
        entries: &[Entry],
    ) -> Result<RowEffects, Error> {
        let Some((data, rows)) = self.encode(write, origin, entries)? else {
            return Ok(RowEffects::default());
        };
        let Self { table, columns, .. } = self;
        let Some(stage) = &self.stage else {
            copy(
                session,
                &format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)"),
                data,
            )?;
            return Ok(RowEffects {
                inserted: rows,
                ..RowEffects::default()
            });
        };
        let Stage {
            create,
            name,
            conflict,
        } = stage;
        session.execute_batch(create)?;
        copy(
            session,
            &format!("COPY {name} (place, {columns}) FROM STDIN (FORMAT binary)"),
            data,
        )?;
        let insert =
            format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {name} ORDER BY place{conflict}");
        let inserted = session.execute(&insert, &[])? as u64;
        // A further batch of the same transaction uses the table again.
        session.execute_batch(&format!("DELETE FROM {name}"))?;
        Ok(RowEffects {
            inserted,
            updated: 0,
            present: rows - inserted,
        })
    }

    /// The rows in the binary format of `COPY`, and their number; none if there are none.
    fn encode(
        &self,
        write: usize,
        origin: OriginId,
        entries: &[Entry],
    ) -> Result<Option<(Bytes, u64)>, Error> {
        let mut out = BytesMut::with_capacity(256 * entries.len());
        // The signature, no flags, no extension.
        out.put_slice(b"PGCOPY\n\xff\r\n\0");
        out.put_i32(0);
        out.put_i32(0);
        let has_place = self.stage.is_some();
        let fields = self.types.len() + usize::from(has_place);
        let mut rows = 0_i64;
        for entry in entries {
            for (number, row) in rows_of(entry).filter(|(_, row)| row.write as usize == write) {
                out.put_i16(i16::try_from(fields).map_err(Error::encode)?);
                if has_place {
                    put(&mut out, ValueRef::Integer(rows), &Type::INT8)?;
                }
                let stamp = stamp(origin, entry, number).map(ValueRef::Integer);
                let values = stamp.into_iter().chain(row.values.iter().map(stored));
                for (value, ty) in values.zip(&self.types) {
                    put(&mut out, value, ty)?;
                }
                rows += 1;
            }
        }
        out.put_i16(-1);
        Ok((rows > 0).then(|| (out.freeze(), rows.unsigned_abs())))
    }
}

impl Stage {
    fn of(names: &[String], classes: &[StorageClass], conflict: String) -> Self {
        let columns: Vec<String> = names
            .iter()
            .zip(classes)
            .map(|(name, class)| format!("{name} {}", class.as_sql(Engine::Postgres)))
            .collect();
        let columns = columns.join(", ");
        // Another declaration has another table.
        let digest = Sha256::digest(&columns);
        let bytes: Vec<String> = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("stage_{}", bytes.concat());
        Self {
            create: format!(
                "CREATE TEMP TABLE IF NOT EXISTS {name} (place BIGINT NOT NULL, {columns}) ON COMMIT DELETE ROWS"
            ),
            name: format!("pg_temp.{name}"),
            conflict,
        }
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

fn copy(session: &Session, statement: &str, data: Bytes) -> Result<(), Error> {
    session.wait(async {
        let sink = session.client().copy_in(statement).await?;
        let mut sink = std::pin::pin!(sink);
        sink.send(data).await?;
        sink.finish().await
    })?;
    Ok(())
}
