//! Finds the host of a command, and the token for it.
//!
//! The user vouches for a host that is named by its URL. A host that is found through a data directory must prove its
//! identity before it receives a token (see [`super::verified`]), and the directory is trusted only if no other user can
//! write to it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::Deserialize;

use super::HostArgs;
use crate::app::{HOST_FILE, TOKEN_FILE};
use crate::cli::Failure;
use crate::config::{Flag, Sources, resolve};
use lantern_trust::identity::{Identity, KEY_FILE};
use lantern_trust::private_files::{self, PrivateFileError, Trusted};

/// Destination and credentials of requests.
#[derive(Debug)]
pub(super) struct Target {
    /// `http://HOST:PORT`.
    pub(super) url: String,
    pub(super) token: Option<String>,
    /// Identity that the host must prove; `None` for a host that is named by its URL.
    pub(super) identity: Option<Identity>,
}

/// The file that a running host writes to its data directory.
#[derive(Deserialize)]
struct HostFile {
    url: String,
    pid: i32,
}

/// Finds the host and the token. Does not connect.
pub(super) fn find(args: &HostArgs) -> Result<Target, Failure> {
    let named = match (&args.host, &args.data_dir) {
        (Some(host), _) => Some(host.clone()),
        (None, Some(_)) => None,
        (None, None) => variable("LANTERN_HOST"),
    };
    let Some(url) = named else {
        return in_directory(args);
    };
    Ok(Target {
        url: checked_url(&url)?,
        token: token(args, args.data_dir.as_deref(), Trusted::default())?,
        identity: None,
    })
}

fn in_directory(args: &HostArgs) -> Result<Target, Failure> {
    let (dir, trusted) = data_dir(args);
    let url = checked_url(&url_of(&dir, trusted)?)?;
    let token = token(args, Some(&dir), trusted)?;
    let identity = match private_files::read_secret(&dir.join(KEY_FILE), trusted) {
        Ok(Some(key)) => Some(Identity::new(key, url.as_str())),
        // Without a token, another program cannot obtain anything.
        _ if token.is_none() => None,
        Ok(None) => {
            return Err(unproven(anyhow!(
                "{} contains no key",
                dir.join(KEY_FILE).display()
            )));
        }
        Err(error) => return Err(unproven(error.into())),
    };
    Ok(Target { url, token, identity })
}

fn unproven(cause: anyhow::Error) -> Failure {
    Failure::new(cause.context("cannot verify the identity of the host; the token was not sent"))
        .hint("restart the host to create the key, or name the host with --host URL")
}

/// Checks the URL of a host and removes a trailing slash.
pub(super) fn checked_url(url: &str) -> Result<String, Failure> {
    let url = url.trim_end_matches('/').to_owned();
    let host = url.strip_prefix("http://").unwrap_or_default();
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        return Err(Failure::usage(format!("invalid host URL {url:?}"))
            .hint("use http://HOST:PORT; to reach a host behind TLS, use a tunnel"));
    }
    Ok(url)
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Resolves the data directory like `lantern serve` (flag, environment, configuration file, default), and whose files in
/// it are trusted.
fn data_dir(args: &HostArgs) -> (PathBuf, Trusted) {
    let flag = args.data_dir.as_ref().map(|dir| Flag {
        setting: "data_dir",
        name: "--data-dir",
        value: dir.into(),
    });
    let file = std::env::var_os("LANTERN_CONFIG").map(PathBuf::from);
    let sources = Sources::of_process(file, flag.into_iter().collect());
    let (resolved, _) = resolve(&sources);
    let dir = resolved.data_dir();
    // The default is relative to the current directory, which may belong to another user.
    let trusted = match resolved.data_dir_is_named() {
        true => Trusted::named_by_operator(&dir),
        false => Trusted::default(),
    };
    (dir, trusted)
}

/// Reads the URL of the host with this data directory.
fn url_of(dir: &Path, trusted: Trusted) -> Result<String, Failure> {
    let not_running = |cause: Option<String>| {
        let message = format!("no host is running with data directory {}", dir.display());
        let failure = Failure::new(anyhow!(message)).details(cause.into_iter().collect());
        failure.hint("start one with `lantern serve`, or name another with --data-dir or --host")
    };
    let path = dir.join(HOST_FILE);
    let read =
        private_files::check_directory(dir, trusted).and_then(|()| private_files::read(&path, trusted));
    let text = match read {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return Err(not_running(None)),
        Err(error) => return Err(untrusted(dir, error)),
    };
    let file: HostFile = serde_json::from_str(&text)
        .with_context(|| format!("failed to parse {}", path.display()))
        .map_err(Failure::new)?;
    // Only for the message: another process may have the number by now.
    if is_gone(file.pid) {
        return Err(not_running(Some(format!(
            "process {} did not shut down cleanly; {HOST_FILE} is stale",
            file.pid
        ))));
    }
    if !is_on_this_machine(&file.url) {
        let message = format!(
            "{} names {:?}, which is not an address of this machine",
            path.display(),
            file.url
        );
        return Err(Failure::new(anyhow!(message)).hint("name the host with --host URL"));
    }
    Ok(file.url)
}

fn untrusted(dir: &Path, error: PrivateFileError) -> Failure {
    let hint = error.hint();
    let failure =
        Failure::new(anyhow!(error).context(format!("the data directory {} is not trusted", dir.display())));
    match hint {
        Some(hint) => failure.hint(format!("{hint}; or name the host with --host URL")),
        None => failure,
    }
}

fn is_gone(pid: i32) -> bool {
    let alive = |pid| !matches!(test_kill_process(pid), Err(Errno::SRCH));
    !Pid::from_raw(pid).is_some_and(alive)
}

/// Whether the address is loopback or belongs to this machine: only such an address can be bound.
fn is_on_this_machine(url: &str) -> bool {
    let address = url
        .strip_prefix("http://")
        .and_then(|rest| rest.parse::<SocketAddr>().ok());
    address.is_some_and(|address| {
        let ip: IpAddr = address.ip();
        ip.is_loopback() || (!ip.is_unspecified() && UdpSocket::bind((ip, 0)).is_ok())
    })
}

fn token(args: &HostArgs, dir: Option<&Path>, trusted: Trusted) -> Result<Option<String>, Failure> {
    if let Some(path) = &args.token_file {
        return token_in(path).map(Some);
    }
    if let Some(text) = variable("LANTERN_TOKEN") {
        return clean(&text)
            .map(Some)
            .ok_or_else(|| Failure::usage("LANTERN_TOKEN contains no valid token"));
    }
    // Requests that need no token also work for users who cannot read the file.
    let text = dir.and_then(|dir| private_files::read(&dir.join(TOKEN_FILE), trusted).ok());
    Ok(text.and_then(|text| clean(&text)))
}

/// Reads the token from a file that the user names.
pub(super) fn token_in(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the token in {}", path.display()));
    text.and_then(|text| clean(&text).with_context(|| format!("{} contains no valid token", path.display())))
        .map_err(Failure::new)
}

/// Trims a token and checks that it is valid in a header.
fn clean(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn args(host: Option<&str>, dir: Option<&Path>) -> HostArgs {
        HostArgs {
            host: host.map(str::to_owned),
            data_dir: dir.map(Path::to_owned),
            token_file: None,
        }
    }

    fn find_error(args: &HostArgs) -> String {
        find(args).expect_err("found a host").render()
    }

    fn write(path: &Path, text: &str) {
        private_files::write(path, text).unwrap();
    }

    fn host_file(dir: &Path, url: &str, pid: u32) {
        write(&dir.join(HOST_FILE), &format!(r#"{{"url":"{url}","pid":{pid}}}"#));
    }

    #[test]
    fn a_host_found_by_its_data_directory_must_prove_its_identity_before_it_receives_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let text = find_error(&args(None, Some(dir.path())));
        assert!(
            text.starts_with("error: no host is running with data directory"),
            "{text}"
        );
        assert!(text.contains("`lantern serve`"), "{text}");

        host_file(dir.path(), "http://127.0.0.1:7", std::process::id());
        let found = find(&args(None, Some(dir.path()))).unwrap();
        assert_eq!(
            (found.url.as_str(), found.token, found.identity.is_some()),
            ("http://127.0.0.1:7", None, false)
        );
        write(&dir.path().join(TOKEN_FILE), "lantern_x\n");
        let text = find_error(&args(None, Some(dir.path())));
        assert!(text.contains("the token was not sent"), "{text}");
        private_files::load_or_create_secret(&dir.path().join(KEY_FILE)).unwrap();
        let found = find(&args(None, Some(dir.path()))).unwrap();
        assert_eq!(found.token.as_deref(), Some("lantern_x"));
        assert!(found.identity.is_some());

        // Greater than any process number.
        host_file(dir.path(), "http://127.0.0.1:7", i32::MAX as u32);
        let text = find_error(&args(None, Some(dir.path())));
        assert!(text.contains("host.json is stale"), "{text}");
    }

    #[test]
    fn a_directory_writable_by_others_or_a_foreign_address_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        host_file(dir.path(), "http://127.0.0.1:7", std::process::id());
        for mode in [0o777, 0o770, 0o702] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let text = find_error(&args(None, Some(dir.path())));
            assert!(
                text.contains("is not trusted") && text.contains("chmod go-w"),
                "{text}"
            );
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // TEST-NET-1, and names that could resolve to anything.
        for url in [
            "http://192.0.2.1:80",
            "http://example.org:80",
            "http://0.0.0.0:80",
            "x",
        ] {
            host_file(dir.path(), url, std::process::id());
            let text = find_error(&args(None, Some(dir.path())));
            assert!(text.contains("not an address of this machine"), "{text}");
        }
    }

    #[test]
    fn a_host_named_by_its_url_receives_the_given_token() {
        let elsewhere = find(&args(Some("http://10.0.0.7:7070/"), None)).unwrap();
        assert_eq!(
            (elsewhere.url.as_str(), elsewhere.token.as_deref()),
            ("http://10.0.0.7:7070", None)
        );
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join(TOKEN_FILE), "lantern_x");
        let both = find(&args(Some("http://a"), Some(dir.path()))).unwrap();
        assert_eq!(both.token.as_deref(), Some("lantern_x"));
        for bad in [
            "",
            "127.0.0.1:7070",
            "https://a",
            "http://",
            "http://a/b",
            "http://b@a",
        ] {
            assert!(
                find_error(&args(Some(bad), None)).contains("invalid host URL"),
                "{bad}"
            );
        }
        let with_file = HostArgs {
            token_file: Some(dir.path().join("missing")),
            ..args(Some("http://a"), None)
        };
        assert!(find_error(&with_file).contains("failed to read the token"));
    }
}
