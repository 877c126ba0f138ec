//! The identity of this host's database, which marks the owner of a consumer on the broker. It is stored in the database,
//! with a copy in the data directory, so that a deleted and recreated database keeps its consumers.

use std::io;
use std::path::Path;

use anyhow::Context as _;

use lantern_store::Store;
use lantern_trust::private_files;

/// File in the data directory with a copy of the identity.
const IDENTITY_FILE: &str = "instance";

/// Returns the database's identity. A database without one takes the identity of the data directory, or a new one.
///
/// # Errors
/// If the file cannot be read or written, or the database cannot be written.
pub(super) async fn load_identity(dir: &Path, store: &Store) -> anyhow::Result<String> {
    let path = dir.join(IDENTITY_FILE);
    let known = match std::fs::read_to_string(&path) {
        // Invalid content is replaced.
        Ok(text) => uuid::Uuid::parse_str(text.trim()).ok().map(|id| id.to_string()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => None,
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
    };
    let other = known.clone();
    let identity = store
        .fact("instance", move || {
            other.unwrap_or_else(|| uuid::Uuid::now_v7().to_string())
        })
        .await?;
    if known.as_ref() != Some(&identity) {
        private_files::write(&path, &format!("{identity}\n"))?;
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_store::{DATABASE_FILE, StoreConfig};

    async fn identity(dir: &Path) -> String {
        let store = Store::open(StoreConfig::new(dir)).await.unwrap();
        let identity = load_identity(dir, &store).await.unwrap();
        store.close().await;
        identity
    }

    fn delete_database(dir: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            drop(std::fs::remove_file(dir.join(format!("{DATABASE_FILE}{suffix}"))));
        }
    }

    #[tokio::test]
    async fn a_recreated_database_keeps_the_identity_and_a_copied_one_keeps_its_own() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = identity(one.path()).await;
        assert_eq!(identity(one.path()).await, first);
        let other = identity(two.path()).await;
        assert_ne!(first, other);
        // The database was deleted.
        delete_database(one.path());
        assert_eq!(identity(one.path()).await, first);
        // A copy of the first database on another machine is that database.
        delete_database(two.path());
        let file = |dir: &Path| dir.join(DATABASE_FILE);
        std::fs::copy(file(one.path()), file(two.path())).unwrap();
        assert_eq!(identity(two.path()).await, first);
        // Invalid content of the file is replaced.
        std::fs::write(one.path().join(IDENTITY_FILE), b"\xff").unwrap();
        assert_eq!(identity(one.path()).await, first);
    }
}
