//! The files of the plugin directory: lists, reads and loads them. All functions block.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::super::load_failures::describe_error;
use super::super::{Component, Inner, LifecycleError};
use lantern_plugin::{Digest, Plugin};
use lantern_trust::signature::{FILE_SUFFIX, Rule, SIGNATURE_BYTES_MAX};

/// Distinguishes states of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Change time of the inode, in seconds and nanoseconds: only this field shows corrected permissions.
    changed: (i64, i64),
    inode: u64,
}

impl FileStamp {
    fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// The states of a file and of its signature.
pub(super) type FileStamps = (FileStamp, Option<FileStamp>);

pub(super) enum LoadedFile {
    /// These bytes were processed before.
    Known,
    /// The same bytes, with a signature that is not stored yet.
    NewSignature(Component),
    Plugin((Arc<Plugin>, Component)),
    Failed(FileFailure),
}

/// Why a file was not installed.
pub(super) struct FileFailure {
    pub(super) reason: String,
    /// The digest, if the signature was rejected.
    pub(super) unsigned: Option<Digest>,
}

impl FileFailure {
    pub(super) fn new(reason: String) -> Self {
        Self {
            reason,
            unsigned: None,
        }
    }

    pub(super) fn from_error(error: LifecycleError) -> Self {
        Self {
            unsigned: error.unsigned(),
            reason: describe_error(error),
        }
    }
}

/// Reads a whole file, with its signature, and loads it. Blocks.
pub(super) fn read_and_load(inner: &Inner, file: &str, known: Option<&str>) -> LoadedFile {
    let dir = &inner.parts.config.plugin_dir;
    let component = match read(dir, file, inner.parts.loader.module_bytes_max()) {
        Ok(bytes) => bytes,
        Err(error) => return LoadedFile::Failed(FileFailure::new(format!("it cannot be read: {error}"))),
    };
    let signature = match read(dir, &format!("{file}{FILE_SUFFIX}"), SIGNATURE_BYTES_MAX) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) if inner.parts.config.signatures.rule == Rule::Off => None,
        Err(error) => {
            let reason = format!("its signature cannot be read: {error}");
            return LoadedFile::Failed(FileFailure::new(reason));
        }
    };
    let component = Component {
        bytes: component,
        signature,
    };
    let digest = Digest::of(&component.bytes);
    if known == Some(digest.to_string().as_str()) {
        return match inner.improves_signature(digest, &component) {
            Ok(true) => LoadedFile::NewSignature(component),
            Ok(false) => LoadedFile::Known,
            Err(error) => LoadedFile::Failed(FileFailure::new(format!(
                "its stored signature cannot be read: {error}"
            ))),
        };
    }
    match inner.load_blocking(&component) {
        Ok(plugin) => LoadedFile::Plugin((plugin, component)),
        // Without the outer message: the failure already names the file.
        Err(LifecycleError::Load(error)) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            LoadedFile::Failed(FileFailure::new(format!("{:#}{hint}", anyhow::Error::new(error))))
        }
        Err(error) => LoadedFile::Failed(FileFailure::from_error(error)),
    }
}

/// Reads at most one byte more than allowed; the caller detects that the file is too large.
fn read(dir: &Path, file: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    // Opening a pipe would wait for a writer. Examine the opened file, because the name may already refer to another
    // one.
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(dir.join(file))?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    opened.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Lists the possible plugins (`*.wasm`, not hidden), each with the state of its signature. Follows symbolic links, as
/// an operator expects.
pub(super) fn list_files(dir: &Path) -> io::Result<BTreeMap<String, FileStamps>> {
    let mut files = BTreeMap::new();
    let mut signatures = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let signed = name.strip_suffix(FILE_SUFFIX);
        if !signed.unwrap_or(name).ends_with(".wasm") {
            continue;
        }
        // Ignore a file that disappeared since.
        let Ok(metadata) = fs::metadata(dir.join(name)) else {
            continue;
        };
        match signed {
            Some(signed) => signatures.insert(signed.to_owned(), FileStamp::of(&metadata)),
            None => files.insert(name.to_owned(), FileStamp::of(&metadata)),
        };
    }
    let stamps = files.into_iter().map(|(name, stamp)| {
        let signature = signatures.remove(&name);
        (name, (stamp, signature))
    });
    Ok(stamps.collect())
}
