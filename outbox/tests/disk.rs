//! A disk that is really full: a file system of one megabyte in memory. Mounting one needs root, or a namespace in
//! which this process is root; where neither is to be had the test fails, and the fault injection in the unit
//! tests is what remains.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should fail loudly"
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
            .expect("there is a mount program");
        assert!(mounted.success(), "cannot mount a tmpfs");
        Self(path)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily: a server or a file may still be open after a failed assertion.
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
        .expect("the test can be started as root of a namespace");
    assert!(
        status.success(),
        "the test on a full disk failed, or this user may not mount a file system"
    );
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

    // One by one until it is full.
    let mut put = 0;
    let full = loop {
        match outbox.put(&event(put)) {
            Ok(_) => put += 1,
            Err(error) => break error,
        }
        assert!(put < 200, "a megabyte is never full");
    };
    assert!(matches!(full, PutError::DiskFull { stored: 0, .. }), "{full:?}");
    assert_eq!(full.stored(), 0);
    // A batch that does not fit leaves nothing of it.
    let batch = outbox.put_all(&[event(900), event(901), event(902)]).unwrap_err();
    assert!(matches!(batch, PutError::DiskFull { stored: 0, .. }), "{batch:?}");
    assert_eq!(outbox.len().unwrap(), put);
    assert!(
        !names(&path).iter().any(|name| name.ends_with(".tmp")),
        "no half file is in the way"
    );

    // Damaged while the disk is full: `aside/` and the reason have no room, and still nothing is lost or in the way.
    let damaged = event_names(&path).remove(1);
    std::fs::File::options()
        .write(true)
        .open(path.join(&damaged))
        .unwrap()
        .set_len(5000)
        .unwrap();
    std::fs::write(path.join("filler"), vec![0; 4096]).ok();

    // The drain makes room, although it has none itself.
    let drain = Running::start(&outbox, server.broker());
    wait_for("all but the damaged one to be published", || async {
        (server.count("OBS").await == put - 1).then_some(())
    })
    .await;
    wait_until_empty(&outbox).await;
    assert_eq!(outbox.stats().unwrap().aside, 1);
    assert!(path.join("aside").join(&damaged).exists());
    // The room of published files comes back a moment after them.
    wait_for("room", || async { outbox.put(&event(put)).ok() }).await;
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
