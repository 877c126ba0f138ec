//! Ensures one host per data directory. The lock belongs to the kernel, so a host that died leaves none behind.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lantern_trust::private_files::{self, PrivateFileError, Trusted};

/// Why a data directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another host uses it.
    #[error("the data directory {} is in use by another lantern{holder}", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// ` (process N)`, if it is known.
        holder: String,
    },
    /// Other users could have written files into it, or can read or replace its files.
    #[error("the data directory is not safe: {source}{}", remedy(source))]
    Unsafe {
        /// The cause.
        source: PrivateFileError,
    },
    /// It cannot be created or written.
    #[error("cannot use the data directory {}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

fn remedy(error: &PrivateFileError) -> String {
    error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default()
}

/// The lock of a data directory, until it is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Creates the directory (mode 0700) if it is missing, checks that no other user can write to it, and locks it.
    pub(super) fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            dir: dir.to_owned(),
            source,
        };
        if !dir.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(failed)?;
        }
        private_files::check_directory(dir, Trusted::default())
            .map_err(|source| LockError::Unsafe { source })?;
        let mut file = private_files::open_or_create(&dir.join("lock"))
            .map_err(|source| LockError::Unsafe { source })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The process number is optional; without it the message is still correct.
                let holder = match file.read_to_string(&mut pid) {
                    Ok(_) if !pid.trim().is_empty() => format!(" (process {})", pid.trim()),
                    _ => String::new(),
                };
                return Err(LockError::InUse {
                    dir: dir.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_that_others_can_write_is_rejected_with_a_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        DirLock::take(&dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("lock"))), (0o700, 0o600));
        for bad in [0o777, 0o1777, 0o770] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(bad)).unwrap();
            let refused = DirLock::take(&dir).unwrap_err().to_string();
            assert!(refused.contains("chmod go-w"), "{refused}");
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        DirLock::take(&dir).unwrap();
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_rejected_and_its_target_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("lock")).unwrap();
        let refused = DirLock::take(dir.path()).unwrap_err();
        assert!(matches!(refused, LockError::Unsafe { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn the_error_of_a_second_host_names_the_process_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let refused = DirLock::take(dir.path()).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains(&format!("(process {})", std::process::id())),
            "{refused}"
        );
        drop(first);
        DirLock::take(dir.path()).expect("free again");
    }
}
