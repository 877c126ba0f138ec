//! What a running host leaves in its data directory for programs on its machine: `host.json`, which says where it is,
//! and `operator.token`, by which its owner may change things. The second stays when the host stops.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use lantern_http::{Access, LOCAL_TOKEN};
use lantern_trust::private_files;

/// The file in the data directory that says where the running host is: `url` and `pid`.
pub const HOST_FILE: &str = "host.json";

/// The file in the data directory that holds its owner's token.
pub const TOKEN_FILE: &str = "operator.token";

/// The file that says where the host is.
pub(super) struct Presence {
    path: PathBuf,
}

impl Presence {
    /// Says that this process serves at `url`.
    pub(super) fn write(dir: &Path, url: &str) -> anyhow::Result<Self> {
        let path = dir.join(HOST_FILE);
        let text = format!("{}\n", json!({"url": url, "pid": std::process::id()}));
        private_files::write(&path, &text)?;
        Ok(Self { path })
    }

    /// The host no longer answers. A host that is killed leaves the file behind, and readers look whether the process
    /// is there.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the file that names the host was not removed");
        }
    }
}

/// Sees to it that the token in the data directory is good, and makes it anew when the database does not know it: at
/// the first start, and when one of the two was deleted or is from a backup.
pub(super) async fn keep_operator_token(dir: &Path, access: &Access) -> anyhow::Result<()> {
    let path = dir.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let holder = access.holder(text.trim());
            if holder.is_some_and(|holder| holder.name == LOCAL_TOKEN) {
                warn_of_readers(&path);
                return Ok(());
            }
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let token = access.renew_local().await?;
    private_files::write(&path, &format!("{}\n", token.as_str()))?;
    Ok(())
}

fn warn_of_readers(path: &Path) {
    let mode = fs::metadata(path).map(|meta| meta.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        tracing::warn!(path = %path.display(), "others than its owner can read this token, and do with the host what they like");
    }
}

/// Where a program on this machine reaches a host that listens there.
pub(super) fn url_of(address: SocketAddr) -> String {
    let near = match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        other => other,
    };
    format!("http://{near}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use lantern_http as http;
    use lantern_store::{Reader, Store};

    #[tokio::test]
    async fn the_owners_token_is_kept_and_made_anew_when_it_is_not_good() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(
            Store::open(lantern_store::StoreConfig::new(dir.path()))
                .await
                .unwrap(),
        );
        let reader = Reader::open(store.path()).await.unwrap();
        let access = http::Access::open(store, &reader, http::Config::loopback())
            .await
            .unwrap();
        let path = dir.path().join(TOKEN_FILE);
        let mut seen = Vec::new();
        for written in [None, Some("lantern_made_up\n"), Some(""), Some("\u{feff}x")] {
            if let Some(text) = written {
                fs::write(&path, text).unwrap();
            }
            for _ in 0..2 {
                keep_operator_token(dir.path(), &access).await.unwrap();
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(access.holder(text.trim()).unwrap().name, LOCAL_TOKEN);
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
                seen.push(text);
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), 4, "a good one was replaced, or a bad one kept");
        assert_eq!(reader.tokens().await.unwrap().len(), 1);
    }

    #[test]
    fn a_host_that_listens_everywhere_is_found_on_loopback() {
        for (address, url) in [
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://[::1]:1"),
            ("10.0.0.7:1", "http://10.0.0.7:1"),
        ] {
            assert_eq!(url_of(address.parse().unwrap()), url);
        }
    }

    #[test]
    fn the_file_is_there_until_the_host_stops() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{HOST_FILE}.new")), "half").unwrap();
        let presence = Presence::write(dir.path(), "http://127.0.0.1:1").unwrap();
        let text = fs::read_to_string(dir.path().join(HOST_FILE)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            json!({"url": "http://127.0.0.1:1", "pid": std::process::id()})
        );
        presence.remove();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
