//! The database's file as the writer has it open. A host that writes detects at its next commit that the file was deleted
//! or replaced; this module lets a host without writes detect it as well.

use std::fs;
use std::future::pending;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::{CommitError, Store};

/// Identifies a file independently of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// The file that the writer has open, to compare with the file at the path. Cheap to clone.
#[derive(Clone)]
pub struct DatabaseFile {
    path: Option<PathBuf>,
    open: watch::Receiver<Option<Identity>>,
}

impl DatabaseFile {
    /// Compares the file at the path with the one that the writer has open, if it has one. Costs one `stat`.
    ///
    /// # Errors
    /// The difference, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        match (&self.path, *self.open.borrow()) {
            (Some(path), Some(open)) => compare(path, open),
            _ => Ok(()),
        }
    }
}

/// Fails when `path` does not name the file with this identity.
pub(super) fn compare(path: &Path, open: Identity) -> Result<(), String> {
    match Identity::of(path) {
        Ok(found) if found == open => Ok(()),
        Ok(_) => Err(format!("{} was replaced by another file", path.display())),
        Err(error) => Err(format!("{} is gone: {error}", path.display())),
    }
}

/// Reports that the writer has opened another file than before, or another session after the server ended one: a server that was
/// killed may have lost the last commits. Positions that were read before may be wrong.
pub struct Replacements(watch::Receiver<u64>);

impl Replacements {
    /// Waits until that has happened since this value was created or last waited.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The store is closed.
            pending().await
        }
    }
}

impl Store {
    /// The database's file as the writer has it open.
    pub fn file(&self) -> DatabaseFile {
        DatabaseFile {
            path: self.location.file().map(Path::to_owned),
            open: self.open_file.clone(),
        }
    }

    /// Replacements of the database's file from now on.
    pub fn replacements(&self) -> Replacements {
        let mut replacements = self.replacements.clone();
        replacements.mark_unchanged();
        Replacements(replacements)
    }

    /// Makes the writer open the file at the path, and create it if it is missing, unless it has that file open.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] and [`CommitError::Closed`].
    pub async fn reopen_replaced(&self) -> Result<(), CommitError> {
        self.flush().await
    }
}
