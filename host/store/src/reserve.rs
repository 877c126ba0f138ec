//! A file that only takes space. When the disk is full, an operator deletes it and has room to work in; a database in
//! WAL mode cannot even be checkpointed without some.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::Config;
use lantern_trust::private_files::OWNER_ONLY;

const FILE: &str = "reserve";

/// A disk on which the reserve would be a large part of what is left is better off without it.
const SHARE_MIN: u64 = 20;

/// Makes the reserve when it is missing and there is plenty of room. Doing without is no reason not to run, so what
/// goes wrong is only said.
pub(super) fn keep(config: &Config) {
    let path = config.dir.join(FILE);
    if config.reserve_bytes == 0 || path.exists() {
        return;
    }
    match make(&path, config) {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(path = %path.display(), "no reserve file: there is too little room on the disk")
        }
        Err(error) => tracing::warn!(path = %path.display(), %error, "no reserve file"),
    }
}

fn make(path: &Path, config: &Config) -> std::io::Result<bool> {
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
    fn the_reserve_is_made_once_and_takes_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            reserve_bytes: 1 << 20,
            ..Config::new(dir.path())
        };
        keep(&config);
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        std::fs::remove_file(&path).unwrap();
        keep(&Config {
            reserve_bytes: u64::MAX / 64,
            ..config
        });
        assert!(!path.exists(), "it would take the last room");
    }
}
