//! Writes the rows of messages one after the other, each message inside a savepoint.

use super::Refused;
use super::writes::Writes;
use crate::commit::{Adopted, Entry, OriginId, RowEffects};
use crate::sql::{Connection, Error, Kind};
use lantern_model::batch::{Outcome, Rejection, RejectionClass};

/// Writes the rows of messages. When the database rejects a row, the outcome of its message becomes a rejection, and nothing
/// of the message is written or counted.
///
/// Returns the effects of each write, and the messages that were rejected.
pub(super) fn write_isolated(
    connection: &Connection,
    plugin: &Adopted,
    origin: OriginId,
    entries: &mut [Entry],
) -> Result<(Vec<RowEffects>, Refused), Error> {
    let mut writes = Writes::prepare(connection, plugin)?;
    let mut refused = Vec::new();
    for entry in entries {
        let reason = write_message(&mut writes, connection, origin, entry)?;
        refused.extend(reason.map(|reason| (entry.delivery.sequence, reason)));
    }
    Ok((writes.finish()?, refused))
}

fn write_message(
    writes: &mut Writes<'_>,
    connection: &Connection,
    origin: OriginId,
    entry: &mut Entry,
) -> Result<Option<String>, Error> {
    connection.execute_batch("SAVEPOINT message")?;
    let before = writes.effects.clone();
    let refused = match writes.write_entry(origin, entry) {
        Ok(()) => None,
        Err(error) if error.is_caused_by_data() => {
            connection.execute_batch("ROLLBACK TO message")?;
            writes.effects = before;
            let rejection = rejection_of(&error);
            let reason = rejection.reason.clone();
            entry.outcome = Outcome::Reject(rejection);
            Some(reason)
        }
        Err(error) => return Err(error),
    };
    connection.execute_batch("RELEASE message")?;
    Ok(refused)
}

/// The outcome of a message whose rows the database rejected. The host checks rows against the types of their columns
/// before it writes them, so only a merged value can have a wrong type: a sum outside the range of its column.
pub(super) fn rejection_of(error: &Error) -> Rejection {
    let reason = match error.kind() {
        Kind::OutOfRange => format!(
            "a sum is outside the range of its column (whole numbers: 64 bits; reals: finite): {error}"
        ),
        _ => error.to_string(),
    };
    Rejection::new(RejectionClass::Constraint, &reason)
}
