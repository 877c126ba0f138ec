//! Simulates a power failure (D12): writes that were not synchronized reach the disk in part, in sectors, or not at
//! all. A library loaded before libc (`support/power.c`) records the host's file operations; after each kill the test
//! rebuilds the files as a disk could hold them.

use std::collections::BTreeMap;

use async_nats::jetstream::stream::RetentionPolicy;

use super::*;
use crate::io::library;
use crate::torture::{Moments, Publisher, settle};

const ROUNDS: usize = 12;
/// The unit that a disk writes atomically.
const SECTOR: usize = 512;
/// Size of a record's header: kind, path length, offset and data length.
const RECORD: usize = 24;

/// A file: the synchronized content, and the changes since.
#[derive(Default)]
struct File {
    safe: Vec<u8>,
    since: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl File {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.safe.len() < end {
            self.safe.resize(end, 0);
        }
        self.safe[at..end].copy_from_slice(bytes);
    }

    fn synchronize(&mut self) {
        for change in std::mem::take(&mut self.since) {
            match change {
                Change::Write(at, bytes) => self.write(at, &bytes),
                Change::Length(length) => self.safe.resize(length, 0),
            }
        }
    }

    /// Applies a random subset of the unsynchronized changes.
    fn lose_power(&mut self, chance: &mut Moments) {
        for change in std::mem::take(&mut self.since) {
            match change {
                Change::Length(length) if chance.coin() => self.safe.resize(length, 0),
                Change::Length(_) => {}
                Change::Write(at, bytes) => {
                    let first = SECTOR - at % SECTOR;
                    let (head, rest) = bytes.split_at(first.min(bytes.len()));
                    let mut at = at;
                    for sector in std::iter::once(head).chain(rest.chunks(SECTOR)) {
                        if chance.coin() {
                            self.write(at, sector);
                        }
                        at += sector.len();
                    }
                }
            }
        }
    }
}

/// A disk with the database's files, by name.
#[derive(Default)]
struct Disk(BTreeMap<String, File>);

impl Disk {
    /// Replays the operations of a host, in order.
    fn follow(&mut self, journal: &Path) {
        let journal = std::fs::read(journal).unwrap();
        let mut rest = journal.as_slice();
        while !rest.is_empty() {
            // The host was killed while it wrote the last record.
            let Some((record, behind)) = rest.split_at_checked(RECORD) else {
                break;
            };
            let word = |at: usize| u32::from_ne_bytes(record[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_ne_bytes(record[at..at + 8].try_into().unwrap());
            let (kind, at, length) = (word(0), long(8) as usize, long(16) as usize);
            let Some((path, behind)) = behind.split_at_checked(word(4) as usize) else {
                break;
            };
            let name = Path::new(std::str::from_utf8(path).unwrap()).file_name().unwrap();
            let name = name.to_str().unwrap().to_owned();
            let file = self.0.entry(name.clone()).or_default();
            let Some((bytes, behind)) = behind.split_at_checked(if kind == 1 { length } else { 0 }) else {
                break;
            };
            match kind {
                1 => file.since.push(Change::Write(at, bytes.to_vec())),
                2 => file.since.push(Change::Length(length)),
                3 => file.synchronize(),
                4 => drop(self.0.remove(&name)),
                _ => panic!("the journal has a record of kind {kind}"),
            }
            rest = behind;
        }
    }

    /// Simulates the power failure: the files in `dir` become the content of the disk.
    fn cut(&mut self, dir: &Path, chance: &mut Moments) {
        for name in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
            drop(std::fs::remove_file(dir.join(name)));
        }
        for (name, file) in &mut self.0 {
            file.lose_power(chance);
            std::fs::write(dir.join(name), &file.safe).unwrap();
        }
    }
}

/// Returns the last checkpoint in the files of `dir`. Reads copies, because opening the database modifies it.
fn checkpoint(dir: &Path) -> u64 {
    let copy = tempfile::tempdir().unwrap();
    for name in ["lantern.db", "lantern.db-wal"] {
        drop(std::fs::copy(dir.join(name), copy.path().join(name)));
    }
    let found = query(copy.path(), "SELECT max(sequence) FROM _lantern_checkpoint");
    found[0].parse().unwrap_or(0)
}

/// Returns the number of messages whose rows were lost in power failures and restored by the next start, for a stream
/// with this retention.
fn lost_for_a_while(retention: RetentionPolicy) -> u64 {
    let server = NatsServer::start();
    run(async {
        let config = async_nats::jetstream::stream::Config {
            name: "OBS_EVENTS".into(),
            subjects: vec!["obs.>".into()],
            retention,
            ..Default::default()
        };
        server.create_stream(config).await;
    });
    let plugins = plugin_folder(&["obs-events"]);
    let (dir, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let library = library(tools.path(), "power");
    let journal = tools.path().join("journal");
    let (mut disk, mut chance) = (Disk::default(), Moments::seeded());
    let publisher = Publisher::start(server.url());
    let mut lost = 0;
    for _ in 0..ROUNDS {
        drop(std::fs::remove_file(&journal));
        let mut command = Host::command(dir.path(), &server.url(), plugins.path());
        command.env("LD_PRELOAD", &library).env("POWER_JOURNAL", &journal);
        let host = Host::spawn(command);
        running(&host, "obs");
        chance.pause(50, 700);
        host.kill();
        let before = checkpoint(dir.path());
        disk.follow(&journal);
        disk.cut(dir.path(), &mut chance);
        lost += before - checkpoint(dir.path());
    }
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    let outcome = settle(publisher, &host, dir.path());
    assert_eq!((outcome.lost, outcome.duplicated), (0, 0), "{outcome:?}");
    assert_eq!(outcome.problems, "");
    println!("lost for a while: {lost}");
    lost
}

#[test]
fn messages_lost_in_a_power_failure_are_read_again() {
    let lost = lost_for_a_while(RetentionPolicy::Limits);
    // Otherwise the test exercised nothing.
    assert!(lost > 0);
}

/// Such a stream deletes a message on acknowledgement, so the host synchronizes its row first.
#[test]
fn a_power_failure_loses_no_acknowledged_message_of_a_work_queue() {
    lost_for_a_while(RetentionPolicy::WorkQueue);
}
