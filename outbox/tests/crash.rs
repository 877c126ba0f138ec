//! A process killed with SIGKILL at various times, while it puts, drains, or both. This test program starts itself again with
//! only the test `victim`, and kills that process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lantern_outbox::{Event, Outbox};
use support::*;

/// The process to kill, not a separate test. Prints the number of each event after `put` returns.
#[tokio::test]
#[ignore = "started by the other tests of this file"]
async fn victim() {
    let dir = std::env::var("VICTIM_DIR").expect("started by the other tests of this file");
    let outbox = Outbox::open(dir).unwrap();
    if let Ok(url) = std::env::var("VICTIM_URL") {
        let broker = lantern_outbox::Broker::new(url, async_nats::ConnectOptions::new()).unwrap();
        std::mem::forget(Running::start(&outbox, broker));
    }
    let putting = tokio::task::spawn_blocking(move || {
        let first: u64 = std::env::var("VICTIM_FIRST").unwrap().parse().unwrap();
        let batch: u64 = std::env::var("VICTIM_BATCH").unwrap().parse().unwrap();
        let mut number = first;
        loop {
            let numbers: Vec<u64> = (number..number + batch).collect();
            let events: Vec<Event> = numbers
                .iter()
                .map(|n| Event::new("obs.a", n.to_string()))
                .collect();
            outbox.put_all(&events).unwrap();
            let lines: String = numbers.iter().map(|number| format!("put {number}\n")).collect();
            std::io::stdout().write_all(lines.as_bytes()).unwrap();
            number += batch;
        }
    });
    putting.await.unwrap();
}

fn start_victim(dir: &Path, url: Option<&str>, first: u64, batch: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "victim",
        "--exact",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env("VICTIM_DIR", dir)
        .env("VICTIM_FIRST", first.to_string())
        .env("VICTIM_BATCH", batch.to_string());
    if let Some(url) = url {
        command.env("VICTIM_URL", url);
    }
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the victim a given time after its first event, and returns the numbers that it printed.
fn kill_after(mut victim: Child, life: Duration) -> Vec<u64> {
    let stdout = BufReader::new(victim.stdout.take().unwrap());
    let (first, came) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut numbers = Vec::new();
        for line in stdout.lines().map_while(Result::ok) {
            // The test harness prints on the same lines.
            if let Some((_, number)) = line.split_once("put ") {
                numbers.extend(number.parse::<u64>());
                let _ = first.send(());
            }
        }
        numbers
    });
    came.recv_timeout(PATIENCE).expect("the victim puts an event");
    std::thread::sleep(life);
    victim.kill().unwrap();
    victim.wait().unwrap();
    reader.join().unwrap()
}

/// A deterministic time that differs between rounds.
fn life(round: u64) -> Duration {
    Duration::from_micros(round * 7919 % 60_000)
}

#[tokio::test]
async fn a_killed_producer_loses_and_duplicates_no_event() {
    const ROUNDS: u64 = 20;
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut put = Vec::new();
    for round in 0..ROUNDS {
        let batch = [1, 1, 7, 100][round as usize % 4];
        let victim = start_victim(dir.path(), Some(&server.url()), round * 1_000_000, batch);
        put.extend(
            tokio::task::spawn_blocking(move || kill_after(victim, life(round)))
                .await
                .unwrap(),
        );
    }
    assert!(put.len() as u64 >= ROUNDS);
    let outbox = Outbox::open(dir.path()).unwrap();
    assert!(
        !names(dir.path()).iter().any(|name| name.ends_with(".tmp")),
        "leftovers are removed"
    );
    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    drain.stop().await;

    let found = payloads(&server.messages("OBS").await, "obs.a");
    let found: Vec<u64> = found.iter().map(|number| number.parse().unwrap()).collect();
    let set: HashSet<u64> = found.iter().copied().collect();
    let lost: Vec<&u64> = put.iter().filter(|number| !set.contains(number)).collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", put.len());
    assert_eq!(found.len(), set.len(), "the broker detects duplicates");
    let out_of_order: Vec<&[u64]> = found.windows(2).filter(|pair| pair[0] > pair[1]).collect();
    assert!(
        out_of_order.is_empty(),
        "the stream has the order of put, except for {out_of_order:?}"
    );
    // At most one batch per round was stored but not printed.
    assert!(found.len() as u64 <= put.len() as u64 + ROUNDS * 100);
    assert_eq!(outbox.stats().unwrap().aside, 0, "a kill leaves no damaged file");
}

#[tokio::test]
async fn a_killed_producer_does_not_affect_another_one() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut put = Vec::new();
    for round in 0..5 {
        // Both drain; one waits for the lock, and acquires it when the other is killed.
        let victims = [0, 500_000]
            .map(|offset| start_victim(dir.path(), Some(&server.url()), round * 1_000_000 + offset, 3));
        let kills =
            victims.map(|victim| tokio::task::spawn_blocking(move || kill_after(victim, life(round + 3))));
        for kill in kills {
            put.extend(kill.await.unwrap());
        }
    }
    let outbox = Outbox::open(dir.path()).unwrap();
    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    drain.stop().await;
    let found = payloads(&server.messages("OBS").await, "obs.a");
    let set: HashSet<u64> = found.iter().map(|number| number.parse().unwrap()).collect();
    assert!(put.iter().all(|number| set.contains(number)), "an event was lost");
    assert_eq!(found.len(), set.len());
}

#[test]
fn a_batch_interrupted_by_a_kill_is_stored_as_a_prefix() {
    for round in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let put = kill_after(start_victim(dir.path(), None, 0, 300), life(round) / 10);
        let outbox = Outbox::open(dir.path()).unwrap();
        let waiting = outbox.len().unwrap();
        assert!(
            waiting >= put.len() as u64,
            "{waiting} wait, {} were put",
            put.len()
        );
        let payloads: Vec<u64> = event_names(dir.path())
            .iter()
            .map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap())
            .map(|text| text.rsplit('\n').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(payloads, (0..waiting).collect::<Vec<_>>(), "a prefix, in order");
    }
}
