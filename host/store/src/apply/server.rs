//! The rows of messages in PostgreSQL. Most rows of a batch are copied in one stream; the rows that cannot be copied with the
//! result of the stream order have one statement each, and the host sends them without waiting for each answer.

mod copy;
mod plan;

use rusqlite::types::Value;

use super::Refused;
use super::row_writer::rejection_of;
use crate::commit::{Adopted, Entry, OriginId, RowEffects};
use crate::sql::Error;
use crate::sql::postgres::{Answer, Invocation, Session};
use copy::Copy;
use lantern_model::batch::Outcome;
use lantern_model::schema::{OnConflict, Write};
use plan::{Item, Method, TableRows, plan};

/// Writes the rows of a batch. Returns the effects of each write.
pub(super) fn write_batch(
    session: &Session,
    plugin: &Adopted,
    origin: OriginId,
    entries: &[Entry],
) -> Result<Vec<RowEffects>, Error> {
    let manifest = &plugin.manifest;
    let mut effects = vec![RowEffects::default(); manifest.writes.len()];
    let tables = plan(manifest, origin, entries);
    let mut calls = Calls::default();
    for (number, table) in tables.iter().enumerate() {
        if table.method == Method::Copied && !table.copied().is_empty() {
            Copy::of(plugin, number).copy_rows(session, table.copied())?;
            for item in table.copied() {
                effects[item.write].inserted += 1;
            }
        } else {
            calls.add_staged(session, plugin, number, table)?;
        }
        calls.add_single(session, plugin, table.single())?;
    }
    let answers = session.run_in_order(calls.invocations)?;
    for (call, answer) in calls.descriptions.iter().zip(&answers) {
        effects[call.write] += call.effects(&manifest.writes[call.write], answer);
    }
    Ok(effects)
}

/// Statements to run in order, each with a description of its rows.
#[derive(Default)]
struct Calls<'b> {
    invocations: Vec<Invocation<'b>>,
    descriptions: Vec<Call>,
}

/// The rows of a statement.
struct Call {
    write: usize,
    /// Rows that the statement writes.
    rows: u64,
    /// Later rows that they stand for as well.
    further: u64,
    /// Whether the rows come from the table of the session.
    is_staged: bool,
}

impl<'b> Calls<'b> {
    /// Copies rows into the table of the session and adds the statements that insert them from there.
    fn add_staged(
        &mut self,
        session: &Session,
        plugin: &Adopted,
        number: usize,
        table: &TableRows<'b>,
    ) -> Result<(), Error> {
        if table.copied().is_empty() {
            return Ok(());
        }
        let copy = Copy::of(plugin, number);
        let mut place = copy.stage_rows(session, table.copied())?;
        for items in table.segments() {
            let call = Call::of(items, true);
            let until = place + crate::values::to_sql(call.rows);
            let invocation = copy.insert(session, call.write, place..until)?;
            self.add(invocation, call);
            place = until;
        }
        Ok(())
    }

    fn add_single(&mut self, session: &Session, plugin: &Adopted, items: &[Item<'b>]) -> Result<(), Error> {
        for item in items {
            let stamp = item.stamp.map(rusqlite::types::ValueRef::Integer);
            let values = stamp.into_iter().chain(item.values.iter().copied()).collect();
            let invocation = session.invocation(&plugin.statements[item.write], values)?;
            self.add(invocation, Call::of(std::slice::from_ref(item), false));
        }
        Ok(())
    }

    fn add(&mut self, invocation: Invocation<'b>, call: Call) {
        self.invocations.push(invocation);
        self.descriptions.push(call);
    }
}

impl Call {
    /// The call for rows of one write.
    fn of(items: &[Item<'_>], is_staged: bool) -> Self {
        Self {
            write: items.first().map_or(0, |item| item.write),
            rows: items.len() as u64,
            further: items.iter().map(|item| item.further).sum(),
            is_staged,
        }
    }

    fn effects(&self, write: &Write, answer: &Answer) -> RowEffects {
        let changes = match &write.on_conflict {
            OnConflict::Update(rule) => rule.changes(),
            OnConflict::Fail | OnConflict::Ignore => false,
        };
        let number = |column: usize| match answer.first.get(column) {
            Some(Value::Integer(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        // A single row returns whether it was inserted, a statement for staged rows how many it changed and inserted.
        let (changed, inserted) = match (self.is_staged, changes) {
            (true, true) => (number(0), number(1)),
            (true, false) => (answer.affected, answer.affected),
            (false, _) => (answer.affected, number(0)),
        };
        let (updated, present) = match changes {
            true => (self.further, 0),
            false => (0, self.further),
        };
        RowEffects {
            inserted,
            updated: changed.saturating_sub(inserted) + updated,
            present: self.rows.saturating_sub(changed) + present,
        }
    }
}

/// Writes the rows of a batch of which the server rejects some: halves it until only the messages remain whose rows are
/// rejected. Their outcome becomes a rejection.
///
/// Returns the effects of each write, and the rejected messages.
pub(super) fn write_isolated(
    session: &Session,
    plugin: &Adopted,
    origin: OriginId,
    entries: &mut [Entry],
) -> Result<(Vec<RowEffects>, Refused), Error> {
    let mut written = (
        vec![RowEffects::default(); plugin.manifest.writes.len()],
        Vec::new(),
    );
    isolate(session, plugin, origin, entries, &mut written)?;
    Ok(written)
}

fn isolate(
    session: &Session,
    plugin: &Adopted,
    origin: OriginId,
    entries: &mut [Entry],
    written: &mut (Vec<RowEffects>, Refused),
) -> Result<(), Error> {
    session.execute_batch("SAVEPOINT part")?;
    let error = match write_batch(session, plugin, origin, entries) {
        Ok(effects) => {
            for (total, effects) in written.0.iter_mut().zip(effects) {
                *total += effects;
            }
            return session.execute_batch("RELEASE part");
        }
        Err(error) if error.is_caused_by_data() => error,
        Err(error) => return Err(error),
    };
    session.execute_batch("ROLLBACK TO part; RELEASE part")?;
    if let [entry] = entries {
        let rejection = rejection_of(&error);
        written
            .1
            .push((entry.delivery.sequence, rejection.reason.clone()));
        entry.outcome = Outcome::Reject(rejection);
        return Ok(());
    }
    let (one, other) = entries.split_at_mut(entries.len() / 2);
    isolate(session, plugin, origin, one, written)?;
    isolate(session, plugin, origin, other, written)
}
