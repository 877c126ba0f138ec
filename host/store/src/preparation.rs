//! What happens to the database file before the writer starts: permissions, migrations, a quick check, and the audit entries
//! of the last run.

use std::path::{Path, PathBuf};

use super::lock::LockError;
use super::migrations::migrate;
use super::{OpenError, PageSize, Store, audit, check};
use lantern_trust::private_files;

/// Checks the database file, and migrates the host's tables. Creates a missing file with pages of `page_size`.
pub(super) async fn prepare_file(path: &Path, page_size: PageSize) -> Result<(), OpenError> {
    // The next steps report a file that cannot be read.
    if path.is_file()
        && let Err(source @ check::CheckError::Newer { .. }) = check::version(path)
    {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            source,
        });
    }
    restrict(path)?;
    migrate(path, page_size)
        .await
        .map_err(|source| OpenError::Database {
            path: path.to_owned(),
            source,
        })?;
    check::quick(path).map_err(|problem| OpenError::Damaged {
        path: path.to_owned(),
        problem,
    })
}

/// Creates the database file with mode 0600, which SQLite also gives to its -wal and -shm files, and restricts the mode of
/// files that an earlier version left readable by everyone.
fn restrict(path: &Path) -> Result<(), OpenError> {
    let restricted = private_files::open_or_create(path).and_then(|_| {
        for end in ["-wal", "-shm"] {
            let mut companion = path.as_os_str().to_owned();
            companion.push(end);
            let companion = PathBuf::from(companion);
            if companion.exists() {
                private_files::open_or_create(&companion)?;
            }
        }
        Ok(())
    });
    restricted.map_err(|source| OpenError::Lock(LockError::Unsafe { source }))
}

/// Ends the entries of the audit whose changes were interrupted. Returns whether that was possible; otherwise it is done
/// before the next change.
pub(super) async fn settle_audit(store: &Store) -> bool {
    match store
        .call({
            let node = store.node.clone();
            move |connection| audit::settle(connection, node.as_ref())
        })
        .await
    {
        Ok(interrupted) => {
            if interrupted > 0 {
                tracing::warn!(
                    interrupted,
                    "the host stopped during changes; see outcome `interrupted` in the audit"
                );
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "failed to end interrupted entries of the audit; will retry before the next change");
            false
        }
    }
}
