//! Files in the data directory for programs on the same machine: `host.json` with the address of the running host, and
//! `operator.token` with the token of its owner, which stays when the host stops.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::Deserialize;
use serde_json::json;

use lantern_broker::BrokerLocation;
use lantern_http::Access;
use lantern_trust::private_files::{self, Trusted};

/// File in the data directory with `url` and `pid` of the running host.
pub const HOST_FILE: &str = "host.json";

/// File in the data directory with the token of its owner.
pub const TOKEN_FILE: &str = "operator.token";

/// The file `host.json` of a running host.
pub(super) struct HostFile {
    path: PathBuf,
}

impl HostFile {
    /// Writes the file for this process, which serves at `url` and reads from the broker at `broker`.
    pub(super) fn write(dir: &Path, url: &str, broker: &BrokerLocation) -> anyhow::Result<Self> {
        let path = dir.join(HOST_FILE);
        let broker = match broker {
            BrokerLocation::Embedded(_) => None,
            BrokerLocation::Remote(_) | BrokerLocation::Context { .. } => Some(broker.to_string()),
        };
        let content = json!({"url": url, "pid": std::process::id(), "broker": broker});
        let text = format!("{content}\n");
        private_files::write(&path, &text)?;
        Ok(Self { path })
    }

    /// Removes the file. A killed host leaves it behind; readers check whether the process exists.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "failed to remove the file with the address of the host");
        }
    }
}

/// The external broker of the running host with this data directory, without its login: its URLs, or a description of
/// its context. None if no host runs, or if it has an embedded broker.
pub(super) fn external_broker(dir: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        pid: i32,
        broker: Option<String>,
    }
    let text = private_files::read(&dir.join(HOST_FILE), Trusted::named_by_operator(dir)).ok()?;
    let content: Content = serde_json::from_str(&text).ok()?;
    let is_gone = |pid| matches!(test_kill_process(pid), Err(Errno::SRCH));
    let runs = Pid::from_raw(content.pid).is_some_and(|pid| !is_gone(pid));
    content.broker.filter(|_| runs)
}

/// Ensures that the token in the data directory is valid. Creates a new one if the database does not know it: at the first
/// start, and after one of the two was deleted or restored.
pub(super) async fn ensure_operator_token(dir: &Path, access: &Access) -> anyhow::Result<()> {
    let path = dir.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let holder = access.holder(text.trim());
            if holder.is_some_and(|holder| access.is_local(&holder.name)) {
                warn_if_readable_by_others(&path);
                return Ok(());
            }
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
    }
    let token = access.renew_local().await?;
    private_files::write(&path, &format!("{}\n", token.as_str()))?;
    Ok(())
}

fn warn_if_readable_by_others(path: &Path) {
    let mode = fs::metadata(path).map(|meta| meta.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        tracing::warn!(path = %path.display(), "other users can read the operator token and change the host; run chmod go-rwx");
    }
}

/// URL at which a program on this machine reaches a host that listens on `address`.
pub(super) fn local_url(address: SocketAddr) -> String {
    let address = match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        other => other,
    };
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use lantern_http as http;
    use lantern_http::LOCAL_TOKEN;
    use lantern_store::{Reader, Store};

    #[tokio::test]
    async fn the_operator_token_is_kept_and_replaced_if_it_is_invalid() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(
            Store::open(lantern_store::StoreConfig::new(dir.path()))
                .await
                .unwrap(),
        );
        let reader = Reader::open(store.path().unwrap()).await.unwrap();
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
                ensure_operator_token(dir.path(), &access).await.unwrap();
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(access.holder(text.trim()).unwrap().name.as_str(), LOCAL_TOKEN);
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
                seen.push(text);
            }
        }
        seen.dedup();
        assert_eq!(
            seen.len(),
            4,
            "a valid token was replaced, or an invalid one kept"
        );
        assert_eq!(reader.tokens().await.unwrap().len(), 1);
    }

    #[test]
    fn a_host_on_a_wildcard_address_is_reached_on_loopback() {
        for (address, url) in [
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://[::1]:1"),
            ("10.0.0.7:1", "http://10.0.0.7:1"),
        ] {
            assert_eq!(local_url(address.parse().unwrap()), url);
        }
    }

    #[test]
    fn the_host_file_exists_until_the_host_stops() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{HOST_FILE}.new")), "half").unwrap();
        let remote = |urls: &str| {
            BrokerLocation::Remote(lantern_broker::Remote {
                urls: vec![urls.to_owned()],
                ..lantern_broker::Remote::default()
            })
        };
        let file = HostFile::write(
            dir.path(),
            "http://127.0.0.1:1",
            &remote("nats://bob:secret@a:4222"),
        )
        .unwrap();
        let text = fs::read_to_string(dir.path().join(HOST_FILE)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            json!({"url": "http://127.0.0.1:1", "pid": std::process::id(), "broker": "nats://a:4222"})
        );
        assert_eq!(external_broker(dir.path()).as_deref(), Some("nats://a:4222"));
        file.remove();
        assert_eq!(external_broker(dir.path()), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
