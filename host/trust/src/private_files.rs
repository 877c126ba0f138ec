//! Files and directories whose safety depends on their owner and mode: the data directory, keys and tokens.
//!
//! Writing never follows a symbolic link and never leaves a file readable by others. Reading refuses what another user
//! could have written.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Mode of a file that only its owner reads and writes.
pub const OWNER_ONLY: u32 = 0o600;

/// Larger than any key, token or address, and small enough to read into memory.
const BYTES_MAX: u64 = 64 * 1024;

/// Why a file or directory was rejected.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// Another user owns it and could have written anything there.
    #[error("{} belongs to another user (uid {owner})", path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write to it.
    #[error("{} can be written by other users (mode {:03o})", path.display(), mode & 0o777)]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is a link, a pipe or another unexpected kind of file.
    #[error("{} is not a {expected}", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// The expected kind.
        expected: &'static str,
    },
    /// The operating system reports an error.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The attempted operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("the system provides no random numbers: {0}")]
    Random(getrandom::Error),
}

impl PrivateFileError {
    /// A remedy for the operator.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Owner { path, .. } => Some(format!(
                "run Lantern as the owner of {0}, change the owner (chown), or choose another directory",
                path.display()
            )),
            Self::Writable { path, .. } => Some(format!(
                "chmod go-w {0}; or choose a directory inside it, which Lantern creates with mode 0700",
                path.display()
            )),
            _ => None,
        }
    }

    /// Whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Whose files are trusted: those of the current user and of root, and of one more user if given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trusted {
    also: Option<u32>,
}

impl Trusted {
    /// For a directory that the operator named: root administers the services of other users, so a process that runs as
    /// root also trusts the owner of that directory.
    pub fn named_by_operator(dir: &Path) -> Self {
        let also = fs::metadata(dir).ok().map(|meta| meta.uid());
        Self {
            also: also.filter(|_| geteuid().is_root()),
        }
    }

    fn owner(self, uid: u32) -> bool {
        uid == 0 || uid == geteuid().as_raw() || Some(uid) == self.also
    }

    fn check(self, path: &Path, meta: &Metadata) -> Result<(), PrivateFileError> {
        let path = path.to_owned();
        if !self.owner(meta.uid()) {
            let owner = meta.uid();
            return Err(PrivateFileError::Owner { path, owner });
        }
        match meta.mode() {
            mode if mode & 0o022 != 0 => Err(PrivateFileError::Writable { path, mode }),
            _ => Ok(()),
        }
    }
}

/// Checks that no untrusted user could have written into `dir`, or can do so.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn check_directory(dir: &Path, trusted: Trusted) -> Result<(), PrivateFileError> {
    let meta = fs::metadata(dir).map_err(failed("examine", dir))?;
    if !meta.is_dir() {
        return Err(PrivateFileError::Kind {
            path: dir.to_owned(),
            expected: "directory",
        });
    }
    trusted.check(dir, &meta)
}

/// Reads a file that no untrusted user can have written. Follows no link and does not block on a pipe.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn read(path: &Path, trusted: Trusted) -> Result<String, PrivateFileError> {
    let (file, meta) = open_regular(path, OpenOptions::new().read(true))?;
    trusted.check(path, &meta)?;
    let mut text = String::new();
    file.take(BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed("read", path))?;
    Ok(text)
}

/// Opens a file for reading and writing, and creates it empty with mode 0600 if it does not exist. Follows no link. A
/// file that every user could access is restricted to its owner; access of its group is the operator's choice and
/// stays.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn open_or_create(path: &Path) -> Result<File, PrivateFileError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY);
    let (file, meta) = open_regular(path, &mut options)?;
    if meta.mode() & 0o007 != 0 {
        let owner_only = fs::Permissions::from_mode(OWNER_ONLY);
        file.set_permissions(owner_only)
            .map_err(failed("set the mode of", path))?;
    }
    Ok(file)
}

/// Opens a regular file without following a link or blocking on a pipe.
fn open_regular(path: &Path, options: &mut OpenOptions) -> Result<(File, Metadata), PrivateFileError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(failed("open", path))?;
    let meta = file.metadata().map_err(failed("examine", path))?;
    if meta.is_file() {
        return Ok((file, meta));
    }
    Err(PrivateFileError::Kind {
        path: path.to_owned(),
        expected: "regular file",
    })
}

/// Writes a new file to disk. Fails when the path exists, even as a link.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn create(path: &Path, text: &str, mode: u32) -> Result<(), PrivateFileError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(failed("create", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write", path))
}

/// Replaces a file atomically with one of mode 0600: a reader sees the old text or the new one, and never a file that
/// others can access.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn write(path: &Path, text: &str) -> Result<(), PrivateFileError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace", &fresh)(error));
        }
        _ => {}
    }
    create(&fresh, text, OWNER_ONLY)?;
    fs::rename(&fresh, path).map_err(failed("write", path))
}

/// The secret in the file, which is created with a random one (mode 0600) when it does not exist or contains none.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn load_or_create_secret(path: &Path) -> Result<[u8; 32], PrivateFileError> {
    match read_secret(path, Trusted::default()) {
        Ok(Some(secret)) => return Ok(secret),
        Ok(None) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(PrivateFileError::Random)?;
    write(path, &format!("{}\n", URL_SAFE_NO_PAD.encode(secret)))?;
    Ok(secret)
}

/// The secret in the file; `None` when the file contains something else.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn read_secret(path: &Path, trusted: Trusted) -> Result<Option<[u8; 32]>, PrivateFileError> {
    let text = read(path, trusted)?;
    let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok();
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateFileError {
    move |source| PrivateFileError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_is_created_once_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.key");
        let secret = load_or_create_secret(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(load_or_create_secret(&path).unwrap(), secret);
        for text in ["", "short", "\u{feff}x"] {
            write(&path, text).unwrap();
            assert_ne!(load_or_create_secret(&path).unwrap(), secret, "{text:?}");
        }
    }

    #[test]
    fn a_file_or_directory_that_others_can_write_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.key");
        write(&path, "text").unwrap();
        for (mode, fits) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
            chmod(&path, mode);
            assert_eq!(read(&path, Trusted::default()).is_ok(), fits, "{mode:o}");
            chmod(dir.path(), mode | 0o100);
            let checked = check_directory(dir.path(), Trusted::default());
            assert_eq!(checked.is_ok(), fits, "{mode:o}");
            chmod(dir.path(), 0o700);
        }
        let error = check_directory(&path, Trusted::default()).unwrap_err();
        assert!(error.to_string().ends_with("x.key is not a directory"), "{error}");
    }

    #[test]
    fn world_access_is_removed_and_group_access_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lantern.db");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        open_or_create(&path).unwrap();
        assert_eq!(mode(), 0o600);
        fs::write(&path, "kept").unwrap();
        for (before, after) in [(0o644, 0o600), (0o666, 0o600), (0o640, 0o640), (0o600, 0o600)] {
            chmod(&path, before);
            open_or_create(&path).unwrap();
            assert_eq!(mode(), after, "{before:o}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_new_file_never_replaces_another_and_a_replaced_one_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (path, dangling) = (dir.path().join("host.key"), dir.path().join("link"));
        create(&path, "old", OWNER_ONLY).unwrap();
        let error = create(&path, "new", OWNER_ONLY).unwrap_err();
        assert!(error.to_string().contains("cannot create"), "{error}");
        std::os::unix::fs::symlink(dir.path().join("target"), &dangling).unwrap();
        create(&dangling, "new", OWNER_ONLY).unwrap_err();
        fs::remove_file(&dangling).unwrap();
        // Another file with the same stem keeps its temporary file.
        fs::write(dir.path().join("host.new"), "unrelated").unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_to_string(dir.path().join("host.new")).unwrap(),
            "unrelated"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn links_and_pipes_are_rejected_without_following_or_blocking() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link, pipe) = (
            dir.path().join("target"),
            dir.path().join("link"),
            dir.path().join("pipe"),
        );
        write(&target, "text").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(
            read(&link, Trusted::default()),
            Err(PrivateFileError::Io { .. })
        ));
        load_or_create_secret(&link).unwrap_err();
        open_or_create(&link).unwrap_err();
        write(&link, "new").unwrap();
        assert_eq!(
            fs::read_to_string(&target).unwrap(),
            "text",
            "the link was followed"
        );
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(matches!(
            read(&pipe, Trusted::default()),
            Err(PrivateFileError::Kind { .. })
        ));
    }

    #[test]
    fn files_of_other_users_are_trusted_only_in_a_directory_named_to_root() {
        let trusted = |uid| Trusted { also: None }.owner(uid);
        assert!(trusted(0) && trusted(geteuid().as_raw()) && !trusted(54_321));
        assert!(Trusted { also: Some(54_321) }.owner(54_321));
    }
}
