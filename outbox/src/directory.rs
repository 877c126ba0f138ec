//! The files of an outbox, accessed through a directory handle, so that files outside of it are unreachable. Owns the order of
//! steps that makes a file durable, and the locks. Knows entries and bytes, not events.
//!
//! ```text
//! <uuid>-<lane>.event    a pending event
//! <uuid>.tmp             an event being written, never read
//! aside/                 files that can never be published, each with a `.reason` file
//! done/                  files of published events, to be removed
//! writers.lock           shared lock of all writers; held exclusively for cleanup
//! drain.lock             lock of the drain
//! ```

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};

use crate::entry::{EVENT_SUFFIX, Entry, TMP_SUFFIX};

const ASIDE: &str = "aside";
const DONE: &str = "done";
const REASON_SUFFIX: &str = ".reason";
/// Larger files are not read: the maximum `max_payload` of a server is 64 MiB.
const FILE_BYTES_MAX: u64 = 66 * 1024 * 1024;
/// A `.tmp` file of this age is a leftover even if other writers are running: no write takes an hour.
const TMP_AGE_MAX: Duration = Duration::from_secs(3600);

/// Modes of created files and directories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    directory: u32,
    file: u32,
}

impl Modes {
    pub(crate) fn new(group_readable: bool) -> Self {
        match group_readable {
            false => Self {
                directory: 0o700,
                file: 0o600,
            },
            true => Self {
                directory: 0o750,
                file: 0o640,
            },
        }
    }

    /// Options for creating a file.
    fn options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        cap_std::fs::OpenOptionsExt::mode(&mut options, self.file);
        options
    }

    /// Creates a directory in the outbox, if it does not exist.
    fn create_dir(self, dir: &Dir, name: &str) -> io::Result<()> {
        let mut builder = cap_std::fs::DirBuilder::new();
        #[cfg(unix)]
        cap_std::fs::DirBuilderExt::mode(&mut builder, self.directory);
        ignore_exists(dir.create_dir_with(name, &builder))
    }
}

/// One outbox directory.
pub(crate) struct Directory {
    dir: Dir,
    modes: Modes,
    /// The directory opened for reading. `dir` itself may be an `O_PATH` handle, which cannot be synced.
    sync: File,
    /// For messages; all access uses `dir`.
    path: PathBuf,
    #[cfg(test)]
    pub(crate) faults: faults::Faults,
}

/// Why a pending file could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It was removed by someone else.
    Gone,
    /// A resource shortage of this process; a later read may succeed.
    Busy(io::Error),
    /// The file is unreadable.
    Unreadable(io::Error),
}

impl Directory {
    /// Opens the directory, and creates it durably if it does not exist.
    pub(crate) fn open(path: &Path, modes: Modes) -> io::Result<Self> {
        create_durably(path, modes)?;
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        let sync = dir.open(".")?.into_std();
        let path = path.to_owned();
        Ok(Self {
            dir,
            modes,
            sync,
            path,
            #[cfg(test)]
            faults: faults::Faults::default(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a lock file. The lock is released when the file is closed, at the latest when the process ends.
    pub(crate) fn lock_file(&self, name: &str) -> io::Result<File> {
        let mut options = self.modes.options();
        options.read(true).write(true).create(true).truncate(false);
        Ok(self.dir.open_with(name, &options)?.into_std())
    }

    /// Acquires the shared writers' lock, and removes partial files of killed writers.
    ///
    /// With the exclusive lock no writer is running, so all `.tmp` files are leftovers. Otherwise only old ones are, because files
    /// of running writers are seconds old.
    pub(crate) fn join_writers(&self) -> io::Result<File> {
        let lock = self.lock_file("writers.lock")?;
        match lock.try_lock() {
            Ok(()) => {
                self.remove_tmp_files(Duration::ZERO)?;
                // Another process may clean up between these two calls; this one has no files yet.
                lock.unlock()?;
            }
            Err(TryLockError::WouldBlock) => self.remove_tmp_files(TMP_AGE_MAX)?,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.lock_shared()?;
        Ok(lock)
    }

    fn remove_tmp_files(&self, age_min: Duration) -> io::Result<()> {
        for file in self.dir.entries()? {
            let file = file?;
            if !file.file_name().to_string_lossy().ends_with(TMP_SUFFIX) {
                continue;
            }
            let Ok(modified) = file.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            // After the clock was set back, a file may have a future time; it is kept.
            let age = SystemTime::now().duration_since(modified.into_std());
            if age_min.is_zero() || age.is_ok_and(|age| age >= age_min) {
                ignore_missing(file.remove_file())?;
            }
        }
        Ok(())
    }

    /// Writes the temporary file, and syncs it if `sync` is set. Removes it after an error.
    pub(crate) fn write_tmp(&self, entry: Entry, bytes: &[u8], sync: bool) -> io::Result<()> {
        let name = entry.tmp_name();
        let written = self.write_new(&name, bytes, sync);
        if written.is_err() {
            self.remove_tmp(entry);
        }
        written
    }

    fn write_new(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let mut options = self.modes.options();
        options.write(true).create_new(true);
        let mut file = self.dir.open_with(name, &options)?;
        #[cfg(test)]
        self.faults.write(&mut file, bytes)?;
        file.write_all(bytes)?;
        if sync {
            file.sync_all()?;
        }
        Ok(())
    }

    /// Syncs many temporary files.
    pub(crate) fn sync_tmp_files(&self, entries: &[Entry]) -> io::Result<()> {
        // One sync of the file system instead of one journal commit per file.
        #[cfg(target_os = "linux")]
        match rustix::fs::syncfs(&self.sync) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        entries
            .iter()
            .try_for_each(|entry| self.dir.open(entry.tmp_name())?.sync_all())
    }

    /// Renames a temporary file to its final name, which makes it visible to drains.
    pub(crate) fn publish_tmp(&self, entry: Entry) -> io::Result<()> {
        self.dir.rename(entry.tmp_name(), &self.dir, entry.file_name())
    }

    /// Removes a temporary file. If that fails, the next open of the outbox removes it.
    pub(crate) fn remove_tmp(&self, entry: Entry) {
        if let Err(error) = ignore_missing(self.dir.remove_file(entry.tmp_name())) {
            tracing::debug!(%error, %entry.id, "cannot remove a temporary file; the next open of the outbox will remove it");
        }
    }

    /// Makes all renames and removals durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        // Other systems cannot sync a directory.
        if cfg!(unix) { self.sync.sync_all() } else { Ok(()) }
    }

    /// A second handle for [`Directory::sync`] from another thread.
    pub(crate) fn sync_handle(&self) -> io::Result<File> {
        self.sync.try_clone()
    }

    /// Calls `found` for every event file, unordered, with its entry or its invalid name.
    pub(crate) fn scan(&self, mut found: impl FnMut(Result<Entry, OsString>)) -> io::Result<()> {
        for file in self.dir.entries()? {
            let name = file?.file_name();
            let text = name.to_string_lossy();
            if text.ends_with(EVENT_SUFFIX) {
                let entry = Entry::parse(&text);
                found(entry.ok_or(name));
            }
        }
        Ok(())
    }

    /// Reads a pending file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, ReadError> {
        let bytes = self.open_regular(name).and_then(|(file, size_bytes)| {
            let mut bytes = Vec::with_capacity(size_bytes as usize + 1);
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        bytes.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::Gone,
            io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted => ReadError::Busy(error),
            _ if out_of_files(&error) => ReadError::Busy(error),
            _ => ReadError::Unreadable(error),
        })
    }

    fn open_regular(&self, name: &str) -> io::Result<(cap_std::fs::File, u64)> {
        let mut options = OpenOptions::new();
        options.read(true);
        // Without it, opening a named pipe would block.
        #[cfg(unix)]
        cap_std::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let file = self.dir.open_with(name, &options)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("larger than the maximum event size"));
        }
        Ok((file, metadata.len()))
    }

    /// Opens the directory of published files.
    pub(crate) fn done(&self) -> io::Result<Dir> {
        self.modes.create_dir(&self.dir, DONE)?;
        self.dir.open_dir(DONE)
    }

    /// Moves a published file to `done`, if it still exists.
    pub(crate) fn retire(&self, entry: Entry, done: &Dir) -> io::Result<()> {
        let name = entry.file_name();
        ignore_missing(self.dir.rename(&name, done, &name))
    }

    /// Removes a published file, if it still exists.
    pub(crate) fn remove(&self, entry: Entry) -> io::Result<()> {
        ignore_missing(self.dir.remove_file(entry.file_name()))
    }

    /// Moves a file to `aside/` and writes its reason. Keeps an earlier file with the same name. Failing to write the reason is not
    /// an error.
    pub(crate) fn set_aside(&self, name: &str, reason: &str) -> io::Result<()> {
        self.modes.create_dir(&self.dir, ASIDE)?;
        let aside = self.dir.open_dir(ASIDE)?;
        let mut target = name.to_owned();
        let mut copy = 1;
        while aside.symlink_metadata(&target).is_ok() {
            copy += 1;
            target = format!("{name}.{copy}");
        }
        #[cfg(test)]
        self.faults.rename()?;
        self.dir.rename(name, &aside, &target)?;
        let mut options = self.modes.options();
        options.write(true).create(true).truncate(true);
        let written = aside
            .open_with(format!("{target}{REASON_SUFFIX}"), &options)
            .and_then(|mut file| file.write_all(format!("{reason}\n").as_bytes()));
        let synced = aside
            .open(".")
            .and_then(|aside| aside.sync_all())
            .and_then(|()| self.sync());
        if let Err(error) = written.and(synced) {
            tracing::warn!(%error, file = name, reason, "failed to write the reason of a file in aside");
        }
        Ok(())
    }

    /// Reads the reason of a file in `aside/`.
    pub(crate) fn reason_aside(&self, name: &str) -> String {
        let path = format!("{ASIDE}/{name}{REASON_SUFFIX}");
        let reason = self.dir.read_to_string(path);
        reason.map_or_else(
            |error| format!("unknown ({error})"),
            |text| text.trim().to_owned(),
        )
    }

    /// Calls `found` for each file in `aside/`, without the reason files.
    pub(crate) fn scan_aside(&self, mut found: impl FnMut(&str)) -> io::Result<()> {
        let files = match self.dir.read_dir(ASIDE) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for file in files {
            let name = file?.file_name();
            let name = name.to_string_lossy();
            if !name.ends_with(REASON_SUFFIX) {
                found(&name);
            }
        }
        Ok(())
    }
}

/// Creates a directory and its parents, and syncs each parent of a new directory: otherwise a power failure could remove the
/// outbox with its durable files.
fn create_durably(path: &Path, modes: Modes) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent, modes)?;
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, modes.directory);
    ignore_exists(builder.create(path))?;
    if cfg!(unix) {
        File::open(parent)?.sync_all()
    } else {
        Ok(())
    }
}

fn out_of_files(error: &io::Error) -> bool {
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error() {
        let errno = rustix::io::Errno::from_raw_os_error(code);
        return matches!(errno, rustix::io::Errno::MFILE | rustix::io::Errno::NFILE);
    }
    let _ = error;
    false
}

/// Whether an error means a full disk or quota.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn ignore_exists(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Fault injection for unit tests.
#[cfg(test)]
pub(crate) mod faults {
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    pub(crate) struct Faults {
        /// Remaining bytes of the disk; negative means unlimited.
        pub(crate) disk_bytes: AtomicI64,
        pub(crate) renames_fail: AtomicBool,
    }

    impl Default for Faults {
        fn default() -> Self {
            Self {
                disk_bytes: AtomicI64::new(-1),
                renames_fail: AtomicBool::new(false),
            }
        }
    }

    impl Faults {
        /// Simulates a full disk: writes a part, then fails.
        pub(crate) fn write(&self, file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
            let left = self.disk_bytes.load(Ordering::Relaxed);
            if left < 0 {
                return Ok(());
            }
            if left < bytes.len() as i64 {
                file.write_all(&bytes[..left as usize])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.disk_bytes.fetch_sub(bytes.len() as i64, Ordering::Relaxed);
            Ok(())
        }

        pub(crate) fn rename(&self) -> io::Result<()> {
            if self.renames_fail.load(Ordering::Relaxed) {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        }
    }
}
