//! Writes API tokens; `reader` lists them. The database stores the SHA-256 of a token, never the token. Each write is synced
//! to disk before it returns, so that a power failure does not restore a revoked token.

use crate::sql::Connection;

use super::audit::write_mark;
use super::{AuditMark, CommitError, Store};
use lantern_model::actor::Actor;
pub use lantern_model::actor::Role;
use lantern_model::batch::Timestamp;
use lantern_model::schema::TokenName;

/// A token to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Name.
    pub name: TokenName,
    /// Role.
    pub role: Role,
    /// SHA-256 of the token text.
    pub sha256: [u8; 32],
    /// Time of creation.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: Actor,
    /// Expiry; `None` means never.
    pub expires_at: Option<Timestamp>,
}

impl Store {
    /// Stores a token and its audit entry in one transaction. Returns false if a token with this name exists.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn create_token(&self, token: NewToken, mark: Option<AuditMark>) -> Result<bool, CommitError> {
        self.change_tokens(mark, move |connection| Ok(insert(connection, &token)? == 1))
            .await
    }

    /// Stores a token and its audit entry, and replaces a token with the same name.
    ///
    /// # Errors
    /// As for [`Store::create_token`].
    pub async fn replace_token(&self, token: NewToken, mark: Option<AuditMark>) -> Result<(), CommitError> {
        let replace = move |connection: &Connection| {
            delete(connection, token.name.as_str())?;
            Ok(insert(connection, &token)? == 1)
        };
        self.change_tokens(mark, replace).await.map(|_| ())
    }

    /// Removes a token and writes its audit entry. Returns false if no token has this name.
    ///
    /// # Errors
    /// As for [`Store::create_token`].
    pub async fn revoke_token(&self, name: &TokenName, mark: Option<AuditMark>) -> Result<bool, CommitError> {
        let name = name.to_string();
        self.change_tokens(mark, move |connection| Ok(delete(connection, &name)? == 1))
            .await
    }

    /// Changes tokens. If a row changed, writes the audit entry in the same transaction.
    async fn change_tokens(
        &self,
        mark: Option<AuditMark>,
        change: impl FnOnce(&Connection) -> Result<bool, crate::sql::Error> + Send + 'static,
    ) -> Result<bool, CommitError> {
        self.call(move |connection| {
            connection.make_durable()?;
            let transaction = connection.begin()?;
            let changed = change(&transaction)?;
            write_mark(&transaction, mark.as_ref().filter(|_| changed))?;
            transaction.commit()?;
            Ok(changed)
        })
        .await
    }

    /// Records the last use of a token.
    ///
    /// # Errors
    /// As for [`Store::create_token`].
    pub async fn touch_token(&self, sha256: [u8; 32], at: Timestamp) -> Result<(), CommitError> {
        self.call(move |connection| {
            connection.execute(
                "UPDATE _lantern_token SET last_used_at = ?2 WHERE sha256 = ?1",
                crate::sql::params![sha256, at.0],
            )?;
            Ok(())
        })
        .await
    }
}

/// Returns 0 if the name exists. A collision of digests is an error, because it cannot happen by chance.
fn insert(connection: &Connection, token: &NewToken) -> Result<usize, crate::sql::Error> {
    connection.execute(
        "INSERT INTO _lantern_token (name, role, sha256, created_at, created_by, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
        crate::sql::params![
            token.name.as_str(),
            token.role.as_str(),
            token.sha256,
            token.created_at.0,
            token.created_by.to_string(),
            token.expires_at.map(|at| at.0),
        ],
    )
}

fn delete(connection: &Connection, name: &str) -> Result<usize, crate::sql::Error> {
    connection.execute("DELETE FROM _lantern_token WHERE name = ?1", [name])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Reader;
    use crate::{Health, StoreConfig};
    use lantern_model::actor::HostPart;

    fn token(name: &str, byte: u8) -> NewToken {
        NewToken {
            name: TokenName::parse(name).unwrap(),
            role: Role::Viewer,
            sha256: [byte; 32],
            created_at: Timestamp(1),
            created_by: Actor::Host(HostPart::Start),
            expires_at: Some(Timestamp(9)),
        }
    }

    async fn open(dir: &std::path::Path) -> (Store, Reader) {
        let store = Store::open(StoreConfig::new(dir)).await.unwrap();
        let reader = Reader::open(store.path().unwrap()).await.unwrap();
        (store, reader)
    }

    #[tokio::test]
    async fn a_token_is_kept_used_replaced_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (store, reader) = open(dir.path()).await;
        assert!(store.create_token(token("ci", 1), None).await.unwrap());
        assert!(
            !store.create_token(token("ci", 2), None).await.unwrap(),
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

        store.replace_token(token("ci", 3), None).await.unwrap();
        let kept = reader.tokens().await.unwrap();
        assert_eq!((kept[0].sha256, kept[0].last_used_at), ([3; 32], None));
        let name = TokenName::parse("ci").unwrap();
        assert!(store.revoke_token(&name, None).await.unwrap());
        assert!(!store.revoke_token(&name, None).await.unwrap());
        assert!(reader.tokens().await.unwrap().is_empty());
    }
}
