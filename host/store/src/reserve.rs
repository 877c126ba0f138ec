//! A file that only reserves space. When the disk is full, an operator deletes it to free space: a database in WAL mode
//! cannot even be checkpointed on a full disk.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::StoreConfig;
use lantern_trust::private_files::OWNER_ONLY;

const FILE: &str = "reserve";

/// The largest part of the free space that the reserve may take.
const SHARE_MIN: u64 = 20;

/// Creates the reserve file if it is missing and the disk has enough space. The host runs without it, so an error is
/// only logged.
pub(super) fn keep(config: &StoreConfig) {
    let path = config.dir.join(FILE);
    if config.reserve_bytes == 0 || path.exists() {
        return;
    }
    match make(&path, config) {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(path = %path.display(), "not creating the reserve file: too little free disk space")
        }
        Err(error) => tracing::warn!(path = %path.display(), %error, "failed to create the reserve file"),
    }
}

fn make(path: &Path, config: &StoreConfig) -> std::io::Result<bool> {
    let room = statvfs(&config.dir)?;
    if room.f_bavail.saturating_mul(room.f_frsize) < config.reserve_bytes.saturating_mul(SHARE_MIN) {
        return Ok(false);
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, config.reserve_bytes)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_created_once_and_takes_its_space() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            reserve_bytes: 1 << 20,
            ..StoreConfig::new(dir.path())
        };
        keep(&config);
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        std::fs::remove_file(&path).unwrap();
        keep(&StoreConfig {
            reserve_bytes: u64::MAX / 64,
            ..config
        });
        assert!(!path.exists(), "it would take the last free space");
    }
}
