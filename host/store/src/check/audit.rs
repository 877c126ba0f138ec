//! Whether the audit is as the host wrote it.

use crate::sql::Connection;

use super::super::AuditHash;
use super::super::audit::chain::{Verified, verify};
use super::{AuditReport, Report};

/// What an operator does about an audit that was altered.
const COMPARE: &str =
    "find out who can write to the database file; a copy from before shows the original entries";

/// Verifies the chain, and looks for a hash that was noted earlier.
pub(super) fn check(
    connection: &Connection,
    noted: Option<AuditHash>,
    report: &mut Report,
) -> Result<(), crate::sql::Error> {
    let found = verify(connection, noted)?;
    if let Some(fault) = &found.first_fault {
        let others = match found.faults {
            ..=1 => String::new(),
            faults => format!(" (first of {faults} faults)"),
        };
        report.problem(format!("audit: {fault}{others}"), COMPARE);
    }
    let Verified { rows, head, .. } = found;
    if let Some(noted) = noted
        && found.noted.is_none()
    {
        report.problem(
            format!(
                "audit: no entry has the hash {noted}: entries up to the noted one were removed, or the chain was computed \
                 again"
            ),
            COMPARE,
        );
    }
    report.audit = AuditReport {
        rows,
        head: head.map(|head| head.to_string()),
        noted_row: found.noted,
    };
    Ok(())
}
