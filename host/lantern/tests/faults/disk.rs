//! A disk that can run full.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// An in-memory disk of limited size; unmounted on drop.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// Returns `None` where this user may not mount.
    pub fn mount(folder: PathBuf, megabytes: u64) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(&folder)
            .stderr(std::process::Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }

    /// Fills the disk to the last byte.
    pub fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        for size in [1 << 20, 4 << 10, 1] {
            let bytes = vec![0_u8; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
