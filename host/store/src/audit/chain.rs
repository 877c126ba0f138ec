//! The hash chain of the audit: each row contains the SHA-256 of the previous hash and of the row's content. [`verify`]
//! finds a row that was changed, removed or inserted, unless all later hashes were recomputed. Only a hash that was noted
//! elsewhere reveals a chain that was recomputed completely or truncated at its end.

use std::fmt;
use std::str::FromStr;

use crate::sql::{Connection, OptionalExtension as _, Transaction, params};
use sha2::{Digest as _, Sha256};

/// Prefix of every hashed content: the format of [`Row::hash`].
const FORMAT: &[u8] = b"lantern audit 1\n";

/// Number of rows of an earlier version that one transaction adds to the chain.
const PAGE: u32 = 1_000;

const COLUMNS: &str = "id, at, actor, action, plugin, digest, outcome, detail, ends, hash";

/// The hash of a row of the audit. It covers this row and all earlier rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHash([u8; 32]);

impl AuditHash {
    /// The hash that the first row continues.
    const ORIGIN: Self = Self([0; 32]);

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AuditHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || "a hash of the audit has 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

/// The content of a row.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) at: i64,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) plugin: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) outcome: String,
    pub(super) detail: String,
    pub(super) ends: Option<i64>,
}

impl Row {
    fn read(row: &crate::sql::Row<'_>) -> Result<(Self, Option<AuditHash>), crate::sql::Error> {
        let hash: Option<Vec<u8>> = row.get(9)?;
        let content = Self {
            id: row.get(0)?,
            at: row.get(1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            plugin: row.get(4)?,
            digest: row.get(5)?,
            outcome: row.get(6)?,
            detail: row.get(7)?,
            ends: row.get(8)?,
        };
        Ok((content, hash.and_then(|hash| AuditHash::of(&hash))))
    }

    /// Each part is preceded by its length, or by -1 where it is absent, so that different rows are different bytes.
    pub(super) fn hash(&self, previous: AuditHash) -> AuditHash {
        let mut hasher = Sha256::new();
        let mut part = |bytes: Option<&[u8]>| {
            let length = bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            hasher.update(length.to_le_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        part(Some(FORMAT));
        part(Some(previous.as_bytes()));
        part(Some(&self.id.to_le_bytes()));
        part(Some(&self.at.to_le_bytes()));
        for text in [&self.actor, &self.action, &self.outcome, &self.detail] {
            part(Some(text.as_bytes()));
        }
        part(self.plugin.as_deref().map(str::as_bytes));
        part(self.digest.as_deref().map(str::as_bytes));
        part(
            self.ends
                .map(i64::to_le_bytes)
                .as_ref()
                .map(|bytes| bytes.as_slice()),
        );
        AuditHash(hasher.finalize().into())
    }
}

/// The last row's number, and the hash that the next row continues.
pub(super) fn last(connection: &Connection) -> Result<(i64, AuditHash), crate::sql::Error> {
    let last = connection
        .prepare_cached("SELECT id, hash FROM _lantern_audit ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?)))
        .optional()?;
    Ok(match last {
        None => (0, AuditHash::ORIGIN),
        Some((id, hash)) => {
            let hash = hash.and_then(|hash| AuditHash::of(&hash));
            (id, hash.unwrap_or(AuditHash::ORIGIN))
        }
    })
}

/// Whether no rows of an earlier version remain to be added to the chain.
pub(super) fn is_begun(connection: &Connection) -> Result<bool, crate::sql::Error> {
    let last: Option<bool> = connection
        .prepare_cached("SELECT hash IS NOT NULL FROM _lantern_audit ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if last.unwrap_or(true) {
        return Ok(true);
    }
    // A row without a hash after rows with one was inserted manually. It stays unchanged, so that `check` reports it.
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_audit WHERE hash IS NOT NULL)",
        [],
        |row| row.get(0),
    )
}

/// Adds the rows of an earlier version to the chain.
pub(super) fn begin(transaction: &Transaction<'_>) -> Result<(), crate::sql::Error> {
    if is_begun(transaction)? {
        return Ok(());
    }
    let (mut id, mut hash) = (i64::MIN, AuditHash::ORIGIN);
    loop {
        let sql = format!("SELECT {COLUMNS} FROM _lantern_audit WHERE id > ?1 ORDER BY id LIMIT ?2");
        let rows: Vec<(Row, Option<AuditHash>)> = transaction
            .prepare_cached(&sql)?
            .query_map(params![id, PAGE], Row::read)?
            .collect::<Result<_, _>>()?;
        if rows.is_empty() {
            return Ok(());
        }
        for (row, _) in rows {
            (id, hash) = (row.id, row.hash(hash));
            transaction
                .prepare_cached("UPDATE _lantern_audit SET hash = ?2 WHERE id = ?1")?
                .execute(params![id, hash.as_bytes()])?;
        }
    }
}

/// Result of a verification of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Rows of the audit.
    pub(crate) rows: u64,
    /// The hash of the last row.
    pub(crate) head: Option<AuditHash>,
    /// Problem of the first row that does not continue the chain.
    pub(crate) first_fault: Option<String>,
    /// Rows that do not continue the chain.
    pub(crate) faults: u64,
    /// The row with the noted hash.
    pub(crate) noted: Option<i64>,
}

/// Recomputes the chain and searches for the hash `noted`.
pub(crate) fn verify(
    connection: &Connection,
    noted: Option<AuditHash>,
) -> Result<Verified, crate::sql::Error> {
    let mut found = Verified::default();
    if !is_begun(connection)? {
        found.faults = 1;
        found.first_fault = Some("no entry has a hash".to_owned());
        return Ok(found);
    }
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM _lantern_audit ORDER BY id"))?;
    let mut rows = statement.query([])?;
    let (mut last, mut previous) = (0, AuditHash::ORIGIN);
    while let Some(row) = rows.next()? {
        let (row, hash) = Row::read(&row)?;
        found.rows += 1;
        if let Some(fault) = fault(last, previous, &row, hash) {
            found.faults += 1;
            found.first_fault.get_or_insert(fault);
        }
        if hash.is_some() && hash == noted {
            found.noted = Some(row.id);
        }
        found.head = hash;
        (last, previous) = (row.id, hash.unwrap_or(AuditHash::ORIGIN));
    }
    Ok(found)
}

/// Returns the problem of a row that follows the row `last` with the hash `previous`.
fn fault(last: i64, previous: AuditHash, row: &Row, hash: Option<AuditHash>) -> Option<String> {
    let id = row.id;
    if id == last + 2 {
        return Some(format!("entry {} is missing", last + 1));
    }
    if id != last + 1 {
        return Some(format!("entries {} to {} are missing", last + 1, id - 1));
    }
    match hash {
        None => Some(format!("entry {id} has no hash, so the host did not write it")),
        Some(hash) if hash != row.hash(previous) => Some(format!(
            "entry {id} does not match its hash: it was altered or inserted, or the hash of the entry before it was \
             replaced"
        )),
        Some(_) => None,
    }
}
