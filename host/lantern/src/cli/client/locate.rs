//! Finds the host that a command is for, and the token to send to it.
//!
//! A host that the user names by its address is the user's choice. One that is found through a data directory has to
//! prove that it is the host of that directory before it gets a token (see [`super::verified`]), and the directory is
//! only believed when no other user can write to it.

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

/// Where requests go, and what they carry.
#[derive(Debug)]
pub(super) struct Target {
    /// `http://HOST:PORT`.
    pub(super) url: String,
    pub(super) token: Option<String>,
    /// What the host has to prove first; none for a host that was named by its address.
    pub(super) identity: Option<Identity>,
}

/// What a running host leaves in its data directory.
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
        // Without a token there is nothing that another program could obtain.
        _ if token.is_none() => None,
        Ok(None) => return Err(unproven(anyhow!("{} holds no key", dir.join(KEY_FILE).display()))),
        Err(error) => return Err(unproven(error.into())),
    };
    Ok(Target { url, token, identity })
}

fn unproven(cause: anyhow::Error) -> Failure {
    Failure::new(
        cause
            .context("cannot verify that the host is the one of this data directory; the token was not sent"),
    )
    .hint("restart a host of an earlier version, which creates the key; or name the host with --host URL")
}

/// The address of a host, without the slash at its end.
pub(super) fn checked_url(url: &str) -> Result<String, Failure> {
    let url = url.trim_end_matches('/').to_owned();
    let host = url.strip_prefix("http://").unwrap_or_default();
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        return Err(Failure::usage(format!("{url:?} is not the address of a host"))
            .hint("give http://HOST:PORT; a host behind TLS is reached through a tunnel"));
    }
    Ok(url)
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// As `lantern serve` resolves it: flag, environment, configuration file, default; and whose files in it are trusted.
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
    // The default is relative to the current directory, which may be anybody's.
    let trusted = match resolved.data_dir_is_named() {
        true => Trusted::named_by_operator(&dir),
        false => Trusted::default(),
    };
    (dir, trusted)
}

/// The address of the host that has this data directory.
fn url_of(dir: &Path, trusted: Trusted) -> Result<String, Failure> {
    let nobody = |cause: Option<String>| {
        let words = format!("no host runs with data directory {}", dir.display());
        let failure = Failure::new(anyhow!(words)).details(cause.into_iter().collect());
        failure.hint("start one with `lantern serve`, or name another with --data-dir or --host")
    };
    let path = dir.join(HOST_FILE);
    let read =
        private_files::check_directory(dir, trusted).and_then(|()| private_files::read(&path, trusted));
    let text = match read {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return Err(nobody(None)),
        Err(error) => return Err(untrusted(dir, error)),
    };
    let file: HostFile = serde_json::from_str(&text)
        .with_context(|| format!("{} cannot be understood", path.display()))
        .map_err(Failure::new)?;
    // For the message alone: a number may belong to another process by now, so it proves nothing.
    if is_gone(file.pid) {
        return Err(nobody(Some(format!(
            "process {} did not stop in order and left {HOST_FILE} behind",
            file.pid
        ))));
    }
    if !is_on_this_machine(&file.url) {
        let words = format!(
            "{} names {:?}, which is not an address of this machine",
            path.display(),
            file.url
        );
        return Err(Failure::new(anyhow!(words)).hint("name the host with --host URL"));
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

/// Whether the address is loopback or one that this machine has: only such a one can be bound.
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
            .ok_or_else(|| Failure::usage("LANTERN_TOKEN holds no token"));
    }
    // A user who may not read it can still send requests that need no token.
    let text = dir.and_then(|dir| private_files::read(&dir.join(TOKEN_FILE), trusted).ok());
    Ok(text.and_then(|text| clean(&text)))
}

/// The token in a file that the user names.
pub(super) fn token_in(path: &Path) -> Result<String, Failure> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()));
    text.and_then(|text| clean(&text).with_context(|| format!("{} holds no token", path.display())))
        .map_err(Failure::new)
}

/// One word that can stand in a header.
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

    fn refused(args: &HostArgs) -> String {
        find(args).expect_err("it finds a host").render()
    }

    fn write(path: &Path, text: &str) {
        private_files::write(path, text).unwrap();
    }

    fn host_file(dir: &Path, url: &str, pid: u32) {
        write(&dir.join(HOST_FILE), &format!(r#"{{"url":"{url}","pid":{pid}}}"#));
    }

    #[test]
    fn a_host_is_found_by_its_data_directory_and_has_to_prove_itself_before_it_gets_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let text = refused(&args(None, Some(dir.path())));
        assert!(
            text.starts_with("error: no host runs with data directory"),
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
        let text = refused(&args(None, Some(dir.path())));
        assert!(text.contains("the token was not sent"), "{text}");
        private_files::load_or_create_secret(&dir.path().join(KEY_FILE)).unwrap();
        let found = find(&args(None, Some(dir.path()))).unwrap();
        assert_eq!(found.token.as_deref(), Some("lantern_x"));
        assert!(found.identity.is_some());

        // Greater than any process number.
        host_file(dir.path(), "http://127.0.0.1:7", i32::MAX as u32);
        let text = refused(&args(None, Some(dir.path())));
        assert!(text.contains("left host.json behind"), "{text}");
    }

    #[test]
    fn a_directory_that_others_can_write_or_a_foreign_address_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        host_file(dir.path(), "http://127.0.0.1:7", std::process::id());
        for mode in [0o777, 0o770, 0o702] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let text = refused(&args(None, Some(dir.path())));
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
            let text = refused(&args(None, Some(dir.path())));
            assert!(text.contains("not an address of this machine"), "{text}");
        }
    }

    #[test]
    fn a_host_that_is_named_by_its_address_gets_the_tokens_that_are_given_with_it() {
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
                refused(&args(Some(bad), None)).contains("is not the address"),
                "{bad}"
            );
        }
        let with_file = HostArgs {
            token_file: Some(dir.path().join("missing")),
            ..args(Some("http://a"), None)
        };
        assert!(refused(&with_file).contains("cannot read the token"));
    }
}
