//! Leftovers, damaged files and foreign files in an outbox.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::path::Path;
use std::process::Command;

use lantern_outbox::{Event, Outbox};
use support::*;

/// Puts one event, removes its file, and returns the name and the content.
fn event_file(outbox: &Outbox, dir: &Path, payload: &str) -> (String, Vec<u8>) {
    outbox.put(&Event::new("obs.a", payload.to_owned())).unwrap();
    let name = event_names(dir).pop().unwrap();
    let bytes = std::fs::read(dir.join(&name)).unwrap();
    std::fs::remove_file(dir.join(&name)).unwrap();
    (name, bytes)
}

/// Creates one file of each invalid kind, and returns their names with the expected reasons.
fn invalid_files(outbox: &Outbox, path: &Path) -> Vec<(String, &'static str)> {
    let mut expected: Vec<(String, &str)> = Vec::new();
    let (name, _) = event_file(outbox, path, "empty");
    std::fs::write(path.join(&name), b"").unwrap();
    expected.push((name, "the file is empty"));
    let (name, bytes) = event_file(outbox, path, "truncated");
    std::fs::write(path.join(&name), &bytes[..bytes.len() - 4]).unwrap();
    expected.push((name, "it has 5 of 9 payload bytes"));
    let (name, mut bytes) = event_file(outbox, path, "flipped");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x10;
    std::fs::write(path.join(&name), bytes).unwrap();
    expected.push((name, "checksum mismatch"));
    let (name, _) = event_file(outbox, path, "foreign");
    std::fs::write(path.join(&name), b"{\"pc_id\":\"x\"}").unwrap();
    expected.push((name, "does not start like an outbox file"));
    let (name, _) = event_file(outbox, path, "directory");
    std::fs::create_dir(path.join(&name)).unwrap();
    expected.push((name, "not a regular file"));
    let (name, _) = event_file(outbox, path, "pipe");
    assert!(
        Command::new("mkfifo")
            .arg(path.join(&name))
            .status()
            .unwrap()
            .success()
    );
    expected.push((name, "not a regular file"));
    let (name, bytes) = event_file(outbox, path, "renamed");
    let name = format!("{}00000000.event", &name[..37]);
    std::fs::write(path.join(&name), bytes).unwrap();
    expected.push((name, "does not match the subject obs.a"));
    std::fs::write(path.join("README.event"), b"hello").unwrap();
    expected.push(("README.event".to_owned(), "file name is not valid"));
    expected
}

#[tokio::test]
async fn damaged_files_go_aside_without_blocking_events() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let outbox = Outbox::open(path).unwrap();
    let expected = invalid_files(&outbox, path);
    // Not an event file by its name, so it is ignored.
    std::fs::write(path.join("notes.txt"), b"hello").unwrap();
    outbox.put(&Event::new("obs.a", "good")).unwrap();

    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    drain.stop().await;
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), ["good"]);
    let stats = outbox.stats().unwrap();
    assert_eq!((stats.published, stats.aside, stats.skipped), (1, 8, 0));
    let aside = path.join("aside");
    assert_eq!(names(&aside).len(), 16, "{:?}", names(&aside));
    for (name, reason) in expected {
        let found = std::fs::read_to_string(aside.join(format!("{name}.reason"))).unwrap();
        assert!(
            found.contains(reason),
            "{name}: {found:?} does not contain {reason:?}"
        );
        assert!(aside.join(name).exists(), "nothing is deleted");
    }
    assert!(path.join("notes.txt").exists());
}

#[tokio::test]
async fn an_earlier_file_in_aside_is_not_overwritten() {
    let server = NatsServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path()).unwrap();
    let (name, _) = event_file(&outbox, dir.path(), "x");
    let drain = Running::start(&outbox, server.broker());
    for content in ["first", "second", "third"] {
        std::fs::write(dir.path().join("new"), content).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join(&name)).unwrap();
        wait_until_empty(&outbox).await;
    }
    drain.stop().await;
    let aside = dir.path().join("aside");
    for (name, content) in [
        (name.clone(), "first"),
        (format!("{name}.2"), "second"),
        (format!("{name}.3"), "third"),
    ] {
        assert_eq!(std::fs::read_to_string(aside.join(&name)).unwrap(), content);
        assert!(aside.join(format!("{name}.reason")).exists());
    }
}

#[tokio::test]
async fn leftovers_are_never_published_and_are_removed_without_writers() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path()).unwrap();
    let (name, bytes) = event_file(&outbox, dir.path(), "half");
    let tmp = dir.path().join(format!("{}.tmp", &name[..36]));
    let (half, old) = (dir.path().join("0.tmp"), dir.path().join("1.tmp"));
    std::fs::write(&tmp, &bytes).unwrap();
    std::fs::write(&half, b"").unwrap();
    std::fs::write(&old, b"x").unwrap();
    let two_hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    std::fs::File::options()
        .write(true)
        .open(&old)
        .unwrap()
        .set_modified(two_hours_ago)
        .unwrap();

    let other = Outbox::open(dir.path()).unwrap();
    assert!(
        tmp.exists() && half.exists(),
        "a running writer may be writing them"
    );
    assert!(!old.exists(), "but not after two hours");
    let drain = Running::start(&outbox, server.broker());
    outbox.put(&Event::new("obs.a", "whole")).unwrap();
    wait_until_empty(&outbox).await;
    drain.stop().await;
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), ["whole"]);

    drop((outbox, other));
    let _again = Outbox::open(dir.path()).unwrap();
    assert!(!tmp.exists() && !half.exists());
}

#[tokio::test]
async fn published_files_of_an_earlier_drain_are_removed() {
    let server = NatsServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path()).unwrap();
    std::fs::create_dir(dir.path().join("done")).unwrap();
    let (name, bytes) = event_file(&outbox, dir.path(), "published");
    std::fs::write(dir.path().join("done").join(name), bytes).unwrap();
    assert_eq!(outbox.len().unwrap(), 0);
    let drain = Running::start(&outbox, server.broker());
    wait_for("done/ to be swept", || async {
        names(&dir.path().join("done")).is_empty().then_some(())
    })
    .await;
    drain.stop().await;
}

#[test]
fn the_order_is_kept_after_a_restart_with_an_earlier_clock() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path()).unwrap();
    let (name, bytes) = event_file(&outbox, dir.path(), "x");
    drop(outbox);
    // A file of the year 2060: its first hexadecimal digits are milliseconds.
    let later = format!("0295{}", &name[4..]);
    std::fs::write(dir.path().join(&later), bytes).unwrap();
    let outbox = Outbox::open(dir.path()).unwrap();
    let id = outbox.put(&Event::new("obs.a", "y")).unwrap();
    assert!(id.to_string().as_str() > &later[..36], "{id} after {later}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_modes_allow_the_group_only_if_configured() {
    use std::os::unix::fs::PermissionsExt as _;

    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    for (group_readable, expected) in [(false, (0o700, 0o600)), (true, (0o750, 0o640))] {
        let dir = scratch();
        let path = dir.path().join("made").join("for it");
        let mut options = lantern_outbox::OutboxOptions::default();
        options.group_readable = group_readable;
        let outbox = Outbox::open_with(&path, options).unwrap();
        outbox.put(&Event::new("obs.a", "published")).unwrap();
        std::fs::write(path.join("x.event"), "no event").unwrap();
        std::fs::set_permissions(path.join("x.event"), std::fs::Permissions::from_mode(expected.1)).unwrap();
        let drain = Running::start(&outbox, server.broker());
        wait_for("one published event and one in aside", || async {
            let stats = outbox.stats().unwrap();
            (stats.waiting == 0 && stats.aside == 1).then_some(())
        })
        .await;
        drain.stop().await;
        outbox.put(&Event::new("obs.a", "waits")).unwrap();
        let mut seen = 0;
        let mut left = vec![dir.path().join("made")];
        while let Some(found) = left.pop() {
            let meta = std::fs::symlink_metadata(&found).unwrap();
            let mode = meta.permissions().mode() & 0o777;
            let expected = if meta.is_dir() { expected.0 } else { expected.1 };
            // The umask may remove permissions of the group, and never adds any.
            assert_eq!(mode & !expected, 0, "{} has mode {mode:o}", found.display());
            assert_eq!(mode & 0o700, expected & 0o700, "{}", found.display());
            seen += 1;
            if meta.is_dir() {
                left.extend(
                    std::fs::read_dir(&found)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
        }
        assert!(seen >= 8, "{seen} files and directories");
    }
}
