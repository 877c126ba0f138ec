//! Writes the rows of messages one after the other, in either engine.

use super::server::ServerWrites;
use super::writes::Writes;
use crate::commit::{Adopted, Entry, OriginId, RowEffects};
use crate::sql::{Connection, Error, Kind};
use lantern_model::batch::{Outcome, Rejection, RejectionClass};

/// The prepared statements of a plugin's writes, with the effects of the rows that they wrote.
pub(super) enum RowWriter<'a> {
    Sqlite(Writes<'a>),
    Postgres(ServerWrites<'a>),
}

impl<'a> RowWriter<'a> {
    pub(super) fn prepare(connection: &'a Connection, plugin: &'a Adopted) -> Result<Self, Error> {
        Ok(match connection {
            Connection::Sqlite(_) => Self::Sqlite(Writes::prepare(connection, plugin)?),
            Connection::Postgres(session) => Self::Postgres(ServerWrites::prepare(session, plugin)?),
        })
    }

    /// Writes the rows of one message.
    pub(super) fn write_entry(&mut self, origin: OriginId, entry: &Entry) -> Result<(), Error> {
        match self {
            Self::Sqlite(writes) => writes.write_entry(origin, entry),
            Self::Postgres(writes) => writes.write_entry(origin, entry),
        }
    }

    /// Writes the rows of one message inside a savepoint. Returns the reason if the database rejects a row: then the
    /// outcome is a rejection, and nothing of the message is written or counted.
    pub(super) fn write_isolated(
        &mut self,
        connection: &Connection,
        origin: OriginId,
        entry: &mut Entry,
    ) -> Result<Option<String>, Error> {
        connection.execute_batch("SAVEPOINT message")?;
        let before = self.effects().clone();
        let refused = match self.write_entry(origin, entry) {
            Ok(()) => None,
            Err(error) if error.is_caused_by_data() => {
                connection.execute_batch("ROLLBACK TO message")?;
                *self.effects() = before;
                let rejection = Rejection::new(RejectionClass::Constraint, &rejection_reason(&error));
                let reason = rejection.reason.clone();
                entry.outcome = Outcome::Reject(rejection);
                Some(reason)
            }
            Err(error) => return Err(error),
        };
        connection.execute_batch("RELEASE message")?;
        Ok(refused)
    }

    fn effects(&mut self) -> &mut Vec<RowEffects> {
        match self {
            Self::Sqlite(writes) => &mut writes.effects,
            Self::Postgres(writes) => &mut writes.effects,
        }
    }

    /// Returns the effects of each write.
    pub(super) fn finish(self) -> Result<Vec<RowEffects>, Error> {
        match self {
            Self::Sqlite(writes) => writes.finish(),
            Self::Postgres(writes) => Ok(writes.effects),
        }
    }
}

/// The reason of a dead letter whose rows the database rejected. The host checks rows against the types of their
/// columns before it writes them, so only a merged value can have a wrong type: a sum outside the range of its column.
fn rejection_reason(error: &Error) -> String {
    if error.kind() == Kind::OutOfRange {
        return format!(
            "a sum is outside the range of its column (whole numbers: 64 bits; reals: finite): {error}"
        );
    }
    error.to_string()
}
