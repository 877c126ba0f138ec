//! Tokens and the audit, as lists.

use super::connections::Row;
use super::{Page, ReadError, Reader};
use crate::{AuditHash, Role};
use lantern_model::batch::Timestamp;
use lantern_model::results::audit::AuditRecord;

/// Maximum number of tokens. Each is a person or a program; all are held in memory.
pub const TOKENS_MAX: usize = 1_000;

/// A token, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// SHA-256 of its text.
    pub sha256: [u8; 32],
    /// Time of creation.
    pub created_at: Timestamp,
    /// Name of the token that created it.
    pub created_by: String,
    /// Expiry; none if it does not expire.
    pub expires_at: Option<Timestamp>,
    /// Last use, accurate to a minute; none if never used.
    pub last_used_at: Option<Timestamp>,
}

/// A filter for audit entries; `None` matches everything.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// The actor.
    pub actor: Option<String>,
    /// The action.
    pub action: Option<String>,
    /// The affected plugin.
    pub plugin: Option<String>,
}

impl Reader {
    /// All tokens, by name.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, ReadError> {
        const SQL: &str = "SELECT name, role, sha256, created_at, created_by, expires_at, last_used_at \
             FROM _lantern_token ORDER BY name";
        self.fetch_sized(SQL, Vec::new(), TOKENS_MAX, |row| {
            token(row).map(|token| (token, 0))
        })
        .await
    }

    /// The audit, the newest entries first: one for each action. The entry from before a change is not listed when the
    /// change has ended. `after` is the `next` of the page before.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        limit: u32,
        after: Option<i64>,
    ) -> Result<Page<AuditRecord>, ReadError> {
        const SQL: &str = "SELECT id, at, actor, action, plugin, digest, outcome, detail, hash, \
                 (SELECT s.at FROM _lantern_audit s WHERE s.id = a.ends) \
             FROM _lantern_audit a \
             WHERE id < ?1 AND (actor = ?2 OR ?2 IS NULL) AND (action = ?3 OR ?3 IS NULL) \
             AND (plugin = ?4 OR ?4 IS NULL) \
             AND (outcome <> 'started' OR NOT EXISTS (SELECT 1 FROM _lantern_audit e WHERE e.ends = a.id)) \
             ORDER BY id DESC LIMIT ?5";
        let arguments = vec![
            after.unwrap_or(i64::MAX).into(),
            filter.actor.clone().into(),
            filter.action.clone().into(),
            filter.plugin.clone().into(),
            (i64::from(limit) + 1).into(),
        ];
        self.page(SQL, arguments, limit, |row| {
            let entry = entry(row).map_err(ReadError::Sql)?;
            Ok((entry.id, entry, 0))
        })
        .await
    }
}

fn token(row: &Row) -> Result<TokenRecord, ReadError> {
    let name: String = row.get(0).map_err(ReadError::Sql)?;
    let what = || format!("the token {name}");
    let word: String = row.get(1).map_err(ReadError::Sql)?;
    let role = Role::parse(&word).map_err(|error| ReadError::corrupt(what(), error))?;
    let digest: Vec<u8> = row.get(2).map_err(ReadError::Sql)?;
    let sha256 = digest
        .try_into()
        .map_err(|_| ReadError::corrupt(what(), "its digest has not 32 bytes"))?;
    let times = |row: &Row| -> Result<_, crate::sql::Error> {
        let time = |column: usize| row.get::<Option<i64>>(column).map(|at| at.map(Timestamp));
        Ok((Timestamp(row.get(3)?), row.get::<String>(4)?, time(5)?, time(6)?))
    };
    let (created_at, created_by, expires_at, last_used_at) = times(row).map_err(ReadError::Sql)?;
    Ok(TokenRecord {
        name,
        role,
        sha256,
        created_at,
        created_by,
        expires_at,
        last_used_at,
    })
}

fn entry(row: &Row) -> Result<AuditRecord, crate::sql::Error> {
    let hash: Option<Vec<u8>> = row.get(8)?;
    Ok(AuditRecord {
        id: row.get(0)?,
        at: Timestamp(row.get(1)?).to_rfc3339(),
        actor: row.get(2)?,
        action: row.get(3)?,
        plugin: row.get(4)?,
        digest: row.get(5)?,
        outcome: row.get(6)?,
        detail: row.get(7)?,
        hash: hash
            .and_then(|hash| AuditHash::of(&hash))
            .map(|hash| hash.to_string()),
        began_at: row.get::<Option<i64>>(9)?.map(|at| Timestamp(at).to_rfc3339()),
    })
}
