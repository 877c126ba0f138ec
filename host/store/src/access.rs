//! Who may change something, and who did what: tokens and the audit. Owns what is written of both; the lists are in
//! `reader`. A token itself is never here, only its SHA-256. What is written here is on the disk when it is answered,
//! so that a power cut does not bring a revoked token back.

use rusqlite::Connection;

use super::{CommitError, Store, Synchronous};
use lantern_model::batch::{Timestamp, clean_text};
use lantern_model::schema::TokenName;

/// Longest text of an audit entry's parts, in bytes; they may hold what somebody sent.
const TEXT_BYTES_MAX: usize = 1024;

/// What a token allows. The later one allows all that the earlier one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
}

impl Role {
    /// `viewer` or `operator`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    /// Parses a role, or says in words why it is none.
    ///
    /// # Errors
    /// A sentence that names the roles there are.
    pub fn parse(word: &str) -> Result<Self, String> {
        [Self::Viewer, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| "role is one of viewer, operator".to_owned())
    }
}

/// A token to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What it is called.
    pub name: TokenName,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of its text.
    pub sha256: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// Whose token it was made with, or [`AuditEntry::HOST`].
    pub created_by: String,
    /// From when on it is refused; none means never.
    pub expires_at: Option<Timestamp>,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum AuditOutcome {
    /// It took effect.
    Done,
    /// It was not allowed, or made no sense; nothing changed.
    Refused,
    /// The host could not do it.
    Failed,
}

impl AuditOutcome {
    /// `done`, `refused` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Who did what, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// A token's name, [`AuditEntry::HOST`] or [`AuditEntry::NOBODY`].
    pub actor: String,
    /// What was done, as `noun.verb`.
    pub action: String,
    /// The plugin that it was about.
    pub plugin: Option<String>,
    /// The version that it was about.
    pub digest: Option<String>,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// For people: what changed, or why not.
    pub detail: String,
}

impl AuditEntry {
    /// The actor of what the host does by itself. No token can have this name.
    pub const HOST: &str = "(host)";
    /// The actor of a request without a good token. No token can have this name.
    pub const NOBODY: &str = "(nobody)";
}

impl Store {
    /// Keeps a token. Answers whether it did; it does not when there is one of this name.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn create_token(&self, token: NewToken) -> Result<bool, CommitError> {
        self.call(move |connection| {
            durable(connection)?;
            Ok(insert(connection, &token)? == 1)
        })
        .await
    }

    /// Keeps a token in the place of the one of its name, if there is one.
    ///
    /// # Errors
    /// As for [`Store::create_token`].
    pub async fn replace_token(&self, token: NewToken) -> Result<(), CommitError> {
        self.call(move |connection| {
            durable(connection)?;
            let transaction = connection.transaction()?;
            delete(&transaction, token.name.as_str())?;
            insert(&transaction, &token)?;
            transaction.commit()
        })
        .await
    }

    /// Forgets a token. Answers whether there was one of this name.
    ///
    /// # Errors
    /// As for [`Store::create_token`].
    pub async fn revoke_token(&self, name: &TokenName) -> Result<bool, CommitError> {
        let name = name.to_string();
        self.call(move |connection| {
            durable(connection)?;
            Ok(delete(connection, &name)? == 1)
        })
        .await
    }

    /// Notes when a token was used last.
    ///
    /// # Errors
    /// As for [`Store::create_token`].
    pub async fn touch_token(&self, sha256: [u8; 32], at: Timestamp) -> Result<(), CommitError> {
        self.call(move |connection| {
            connection.execute(
                "UPDATE _lantern_token SET last_used_at = ?2 WHERE sha256 = ?1",
                rusqlite::params![sha256, at.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Adds an entry to the audit, at the present time.
    ///
    /// # Errors
    /// As for [`Store::create_token`].
    pub async fn append_audit(&self, entry: AuditEntry) -> Result<(), CommitError> {
        self.call(move |connection| {
            durable(connection)?;
            append(connection, &entry, Timestamp::now())
        })
        .await
    }
}

/// Adds an entry within whatever transaction is open.
pub(super) fn append(
    connection: &Connection,
    entry: &AuditEntry,
    at: Timestamp,
) -> Result<(), rusqlite::Error> {
    let clean = |text: &String| clean_text(text, TEXT_BYTES_MAX);
    connection.execute(
        "INSERT INTO _lantern_audit (at, actor, action, plugin, digest, outcome, detail) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        rusqlite::params![
            at.0,
            clean(&entry.actor),
            clean(&entry.action),
            entry.plugin.as_ref().map(clean),
            entry.digest.as_ref().map(clean),
            entry.outcome.as_str(),
            clean(&entry.detail),
        ],
    )?;
    Ok(())
}

/// Has the next commits of this connection wait for the disk; the writer decides anew before each batch.
fn durable(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(Synchronous::Full.pragma())
}

/// Answers with 0 when the name is taken. A collision of digests is an error: it cannot be chance.
fn insert(connection: &Connection, token: &NewToken) -> Result<usize, rusqlite::Error> {
    connection.execute(
        "INSERT INTO _lantern_token (name, role, sha256, created_at, created_by, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
        rusqlite::params![
            token.name.as_str(),
            token.role.as_str(),
            token.sha256,
            token.created_at.0,
            token.created_by,
            token.expires_at.map(|at| at.0),
        ],
    )
}

fn delete(connection: &Connection, name: &str) -> Result<usize, rusqlite::Error> {
    connection.execute("DELETE FROM _lantern_token WHERE name = ?1", [name])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::{AuditFilter, Reader};
    use crate::{Config, Health};

    fn token(name: &str, byte: u8) -> NewToken {
        NewToken {
            name: TokenName::parse(name).unwrap(),
            role: Role::Viewer,
            sha256: [byte; 32],
            created_at: Timestamp(1),
            created_by: AuditEntry::HOST.into(),
            expires_at: Some(Timestamp(9)),
        }
    }

    async fn open(dir: &std::path::Path) -> (Store, Reader) {
        let store = Store::open(Config::new(dir)).await.unwrap();
        let reader = Reader::open(store.path()).await.unwrap();
        (store, reader)
    }

    #[tokio::test]
    async fn a_token_is_kept_used_replaced_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (store, reader) = open(dir.path()).await;
        assert!(store.create_token(token("ci", 1)).await.unwrap());
        assert!(
            !store.create_token(token("ci", 2)).await.unwrap(),
            "the name is taken"
        );
        assert_eq!(*store.health().borrow(), Health::Healthy);
        store.touch_token([1; 32], Timestamp(5)).await.unwrap();
        let kept = reader.tokens().await.unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].name.as_str(), kept[0].role), ("ci", Role::Viewer));
        assert_eq!(kept[0].sha256, [1; 32]);
        assert_eq!(
            (kept[0].expires_at, kept[0].last_used_at),
            (Some(Timestamp(9)), Some(Timestamp(5)))
        );

        store.replace_token(token("ci", 3)).await.unwrap();
        let kept = reader.tokens().await.unwrap();
        assert_eq!((kept[0].sha256, kept[0].last_used_at), ([3; 32], None));
        let name = TokenName::parse("ci").unwrap();
        assert!(store.revoke_token(&name).await.unwrap());
        assert!(!store.revoke_token(&name).await.unwrap());
        assert!(reader.tokens().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_audit_is_read_by_pages_and_filters() {
        let dir = tempfile::tempdir().unwrap();
        let (store, reader) = open(dir.path()).await;
        for number in 0..5 {
            let entry = AuditEntry {
                actor: ["ann", "bob"][number % 2].into(),
                action: ["plugin.pause", "token.create"][usize::from(number > 2)].into(),
                plugin: (number < 3).then(|| "things".into()),
                digest: None,
                outcome: AuditOutcome::Done,
                detail: format!("{number}\u{1b}[31m{}", "x".repeat(10_000)),
            };
            store.append_audit(entry).await.unwrap();
        }
        let all = AuditFilter::default();
        let page = reader.audit(&all, 2, None).await.unwrap();
        let ids = |page: &crate::reader::Page<crate::reader::AuditRecord>| {
            page.items.iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        assert_eq!((ids(&page), page.next), (vec![5, 4], Some(4)));
        let page = reader.audit(&all, 3, page.next).await.unwrap();
        assert_eq!((ids(&page), page.next), (vec![3, 2, 1], None));
        assert!(page.items[0].detail.len() <= TEXT_BYTES_MAX && !page.items[0].detail.contains('\u{1b}'));
        for (filter, expected) in [
            (("ann", "", ""), vec![5, 3, 1]),
            (("", "plugin.pause", ""), vec![3, 2, 1]),
            (("bob", "", "things"), vec![2]),
            (("' OR 1=1 --", "", ""), vec![]),
        ] {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let filter = AuditFilter {
                actor: some(filter.0),
                action: some(filter.1),
                plugin: some(filter.2),
            };
            assert_eq!(
                ids(&reader.audit(&filter, 100, None).await.unwrap()),
                expected,
                "{filter:?}"
            );
        }
    }
}
