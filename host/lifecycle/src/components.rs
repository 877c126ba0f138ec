//! The installed components, stored as files named by digest, each with its signature if it has one. A file is written
//! under a temporary name, synced and renamed, so that it is complete or absent; its bytes are compared with the digest
//! when read. No external input becomes part of a path.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use cap_std::fs::{Dir, OpenOptions};

use lantern_plugin::Digest;
use lantern_trust::signature::{FILE_SUFFIX, SIGNATURE_BYTES_MAX};

/// The folder of components. All methods block.
pub(super) struct Components {
    dir: Dir,
}

impl Components {
    /// Opens the folder, and creates it if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let authority = cap_std::ambient_authority();
        Dir::create_ambient_dir_all(path, authority)?;
        let dir = Dir::open_ambient_dir(path, authority)?;
        Ok(Self { dir })
    }

    /// Stores a component, unless it is already stored.
    pub(super) fn put(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        if self.get(digest).is_ok() {
            return Ok(());
        }
        self.write(&name(digest), bytes)
    }

    /// Stores the signature of a component and replaces an earlier one.
    pub(super) fn put_signature(&self, digest: Digest, signature: &[u8]) -> io::Result<()> {
        self.write(&signature_name(digest), signature)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Two concurrent writers of one component use two temporary files, and the second rename is harmless.
        let temporary = format!("{name}.{}.tmp", uuid::Uuid::new_v4().simple());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let written = self.dir.open_with(&temporary, &options).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        let placed = written.and_then(|()| self.dir.rename(&temporary, &self.dir, name));
        if placed.is_err() {
            // Report the first error. The next start removes the temporary file.
            drop(self.dir.remove_file(&temporary));
        }
        placed?;
        self.dir.open(".")?.sync_all()
    }

    /// Reads a component.
    ///
    /// # Errors
    /// Errors of the file system; `InvalidData` when the bytes do not match the digest.
    pub(super) fn get(&self, digest: Digest) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.dir.open(name(digest))?.read_to_end(&mut bytes)?;
        if Digest::of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the stored component is damaged: its bytes have another digest",
            ))
        }
    }

    /// Whether a component is stored. Only a version that could be loaded is.
    pub(super) fn contains(&self, digest: Digest) -> bool {
        self.dir.is_file(name(digest))
    }

    /// Reads the signature of a component, if one is stored. The caller checks it.
    pub(super) fn signature(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        let file = match self.dir.open(signature_name(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(SIGNATURE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Removes everything except the components in `kept`, temporary files included.
    pub(super) fn sweep(&self, kept: &[Digest]) -> io::Result<()> {
        let kept: Vec<String> = kept
            .iter()
            .flat_map(|digest| [name(*digest), signature_name(*digest)])
            .collect();
        for entry in self.dir.entries()? {
            let file = entry?.file_name();
            if !kept.iter().any(|kept| file == kept.as_str()) {
                self.dir.remove_file(&file)?;
            }
        }
        Ok(())
    }
}

fn name(digest: Digest) -> String {
    format!("{}.wasm", digest.hex())
}

fn signature_name(digest: Digest) -> String {
    format!("{}{FILE_SUFFIX}", name(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_component_is_complete_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open(folder.path()).unwrap();
        let digest = Digest::of(b"abc");
        assert!(components.get(digest).is_err());
        assert!(!components.contains(digest));
        components.put(digest, b"abc").unwrap();
        components.put(digest, b"abc").unwrap();
        assert_eq!(components.get(digest).unwrap(), b"abc");
        assert!(components.contains(digest));
        let file = folder.path().join(format!("{}.wasm", digest.hex()));
        std::fs::write(&file, b"abd").unwrap();
        assert_eq!(
            components.get(digest).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        components.put(digest, b"abc").unwrap();
        assert_eq!(components.get(digest).unwrap(), b"abc");
        assert_eq!(components.signature(digest).unwrap(), None);
        for signature in [b"one", b"two"] {
            components.put_signature(digest, signature).unwrap();
            assert_eq!(components.signature(digest).unwrap().unwrap(), signature);
        }
        std::fs::write(folder.path().join("half.tmp"), b"x").unwrap();
        components.sweep(&[digest]).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        components.sweep(&[]).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
