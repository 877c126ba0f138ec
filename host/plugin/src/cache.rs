//! Keeps compiled code between starts. Cached code is executed unchecked, so a file is trusted only if it carries a tag
//! made with the host's secret key; any other file is treated as missing.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::digest::Digest;

const TAG_BYTES: usize = 32;
/// The purpose of the tag, so that a tag made with this key for another purpose is not valid here.
const PURPOSE: &[u8] = b"lantern compiled plugin 1";

/// A directory of compiled code.
pub(super) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    compatibility: [u8; 32],
}

impl Cache {
    /// Creates the directory, or restricts an existing one to its owner. `compatibility` identifies the engine.
    pub fn open(dir: &Path, key: [u8; 32], compatibility: [u8; 32]) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            dir: dir.to_owned(),
            key,
            compatibility,
        })
    }

    /// The code of a component, if it is cached and authentic.
    pub fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read cached code; recompiling");
                return None;
            }
        };
        let authentic = bytes.len() >= TAG_BYTES && {
            let (code, tag) = bytes.split_at(bytes.len() - TAG_BYTES);
            self.mac(digest, code)
                .is_some_and(|mac| mac.verify_slice(tag).is_ok())
        };
        if authentic {
            bytes.truncate(bytes.len() - TAG_BYTES);
            Some(bytes)
        } else {
            tracing::warn!(
                path = %path.display(),
                "cached code was not written by this host, or is damaged; recompiling"
            );
            None
        }
    }

    /// Caches the code of a component. A failure is logged and only costs time at the next start.
    pub fn put(&self, digest: Digest, code: &[u8]) {
        let path = self.path(digest);
        if let Err(error) = self.write(&path, digest, code) {
            tracing::warn!(path = %path.display(), %error, "failed to cache compiled code");
        }
        self.remove_others(digest, &path);
    }

    fn write(&self, path: &Path, digest: Digest, code: &[u8]) -> io::Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let Some(mac) = self.mac(digest, code) else {
            return Ok(());
        };
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .dir
            .join(format!("{}-{}-{number}.tmp", digest.hex(), std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        // No fsync: after a power cut, a torn file fails the check of its tag.
        let written = file
            .write_all(code)
            .and_then(|()| file.write_all(&mac.finalize().into_bytes()))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // The first error matters.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes files of other host versions for the same component, and temporary files of processes that ended while
    /// writing.
    fn remove_others(&self, digest: Digest, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        let (component, own_process) = (digest.hex(), format!("-{}-", std::process::id()));
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with(&component) && !name.contains(&own_process) && path != keep {
                // A remaining file does no harm.
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let engine: String = self.compatibility[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.dir.join(format!("{}-{engine}.code", digest.hex()))
    }

    /// `None` cannot happen: HMAC takes keys of any length.
    fn mac(&self, digest: Digest, code: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        for part in [PURPOSE, digest.as_bytes(), &self.compatibility, code] {
            mac.update(part);
        }
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn cache(dir: &Path, key: [u8; 32], engine: u8) -> Cache {
        Cache::open(dir, key, [engine; 32]).unwrap()
    }

    #[test]
    fn code_is_found_only_with_the_engine_and_key_that_cached_it() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"component");
        let ours = cache(dir.path(), KEY, 1);
        assert_eq!(ours.get(digest), None);
        ours.put(digest, b"machine code");
        assert_eq!(ours.get(digest).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(ours.get(Digest::of(b"another")), None);
        assert_eq!(cache(dir.path(), KEY, 2).get(digest), None, "another engine");
        assert_eq!(cache(dir.path(), [8; 32], 1).get(digest), None, "another key");
        let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_changed_file_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"component");
        let cache = cache(dir.path(), KEY, 1);
        cache.put(digest, b"machine code");
        let path = cache.path(digest);
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(cache.get(digest), None, "byte {position}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(cache.get(digest), None, "length {length}");
        }
        // Authentic code of another component in this one's place.
        let other = Digest::of(b"another");
        cache.put(other, b"other code");
        fs::copy(cache.path(other), &path).unwrap();
        assert_eq!(cache.get(digest), None);
    }

    #[test]
    fn files_of_older_hosts_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"component");
        cache(dir.path(), KEY, 1).put(digest, b"old");
        cache(dir.path(), KEY, 2).put(digest, b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(
            cache(dir.path(), KEY, 2).get(digest).as_deref(),
            Some(&b"new"[..])
        );
    }
}
