//! A full disk: a memory file system of one megabyte. Mounting it requires root or a user namespace; without either the test
//! fails. Unit tests inject the same fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use lantern_outbox::{Event, Outbox, PutError};
use support::*;

/// Unmounts when dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(path: &'a Path) -> Self {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", "size=1m,nr_inodes=400", "lantern-test"])
            .arg(path);
        let mounted = command
            .stderr(Stdio::inherit())
            .status()
            .expect("mount is installed");
        assert!(mounted.success(), "cannot mount a tmpfs");
        Self(path)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily, because a server or a file may still be open after a failed assertion.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk() {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .unwrap()
        .stdout
        .starts_with(b"0\n");
    let test = ["full_disk_as_root", "--exact", "--ignored", "--nocapture"];
    let exe = std::env::current_exe().unwrap();
    let mut command = if root {
        Command::new(exe)
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]).arg(exe);
        command
    };
    let status = command
        .args(test)
        .status()
        .expect("the test starts as root of a namespace");
    assert!(
        status.success(),
        "the test with a full disk failed, or this user cannot mount a file system"
    );
}

/// Puts events until the disk is full, and returns their number.
fn fill(outbox: &Outbox, event: impl Fn(u64) -> Event) -> u64 {
    let mut put = 0;
    let full = loop {
        match outbox.put(&event(put)) {
            Ok(_) => put += 1,
            Err(error) => break error,
        }
        assert!(put < 200, "the disk of a megabyte is not full");
    };
    assert!(matches!(full, PutError::DiskFull { stored: 0, .. }), "{full:?}");
    assert_eq!(full.stored(), 0);
    put
}

#[tokio::test]
#[ignore = "started by a_full_disk, as root"]
async fn full_disk_as_root() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path());
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let path = dir.path().join("outbox");
    let outbox = Outbox::open(&path).unwrap();
    let event = |number: u64| Event::new("obs.a", format!("{number:<9000}"));

    let put = fill(&outbox, event);
    // A batch that does not fit leaves no files.
    let batch = outbox.put_all(&[event(900), event(901), event(902)]).unwrap_err();
    assert!(matches!(batch, PutError::DiskFull { stored: 0, .. }), "{batch:?}");
    assert_eq!(outbox.len().unwrap(), put);
    assert!(
        !names(&path).iter().any(|name| name.ends_with(".tmp")),
        "no partial file remains"
    );

    // Damaged while the disk is full: there is no space for `aside/` and the reason, but no event is lost or blocked.
    let damaged = event_names(&path).remove(1);
    std::fs::File::options()
        .write(true)
        .open(path.join(&damaged))
        .unwrap()
        .set_len(5000)
        .unwrap();
    std::fs::write(path.join("filler"), vec![0; 4096]).ok();

    // The drain frees space without needing any.
    let drain = Running::start(&outbox, server.broker());
    wait_for("all events except the damaged one", || async {
        (server.count("OBS").await == put - 1).then_some(())
    })
    .await;
    wait_until_empty(&outbox).await;
    assert_eq!(outbox.stats().unwrap().aside, 1);
    assert!(path.join("aside").join(&damaged).exists());
    // The space of published files is freed a moment later.
    wait_for("free space", || async { outbox.put(&event(put)).ok() }).await;
    wait_until_empty(&outbox).await;
    drain.stop().await;
    let found: Vec<u64> = payloads(&server.messages("OBS").await, "obs.a")
        .iter()
        .map(|n| n.trim().parse().unwrap())
        .collect();
    assert_eq!(found, (0..=put).filter(|&number| number != 1).collect::<Vec<_>>());

    // Out of inodes instead of blocks.
    let small: Vec<Event> = (0..500).map(|n| Event::new("obs.a", n.to_string())).collect();
    let full = outbox.put_all(&small).unwrap_err();
    assert!(matches!(full, PutError::DiskFull { stored: 0, .. }), "{full:?}");
    assert_eq!(outbox.len().unwrap(), 0);
    drop((outbox, mount));
}
