//! A process that is killed with SIGKILL at any moment, while it puts, drains, or both. This test binary is its
//! own victim: it starts itself again with the test `victim` as the only one to run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should fail loudly"
)]

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lantern_outbox::{Event, Outbox};
use support::*;

/// Not a test of its own: what the killed process does. Prints the number of each event once `put` has returned.
#[tokio::test]
#[ignore = "started by the other tests of this file"]
async fn victim() {
    let dir = std::env::var("VICTIM_DIR").expect("this test is started by the others");
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
            let said: String = numbers.iter().map(|number| format!("put {number}\n")).collect();
            std::io::stdout().write_all(said.as_bytes()).unwrap();
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

/// Lets the victim live for a moment after its first event, kills it, and gives the numbers it said it has put.
fn kill_after(mut victim: Child, life: Duration) -> Vec<u64> {
    let stdout = BufReader::new(victim.stdout.take().unwrap());
    let (first, came) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut numbers = Vec::new();
        for line in stdout.lines().map_while(Result::ok) {
            // The harness prints on the same lines.
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

/// Moments that differ from round to round and are the same in each run.
fn life(round: u64) -> Duration {
    Duration::from_micros(round * 7919 % 60_000)
}

#[tokio::test]
async fn a_producer_killed_while_it_puts_and_drains_loses_nothing_and_repeats_nothing() {
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
        "leftovers are gone"
    );
    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    drain.stop().await;

    let found = payloads(&server.messages("OBS").await, "obs.a");
    let found: Vec<u64> = found.iter().map(|number| number.parse().unwrap()).collect();
    let set: HashSet<u64> = found.iter().copied().collect();
    let lost: Vec<&u64> = put.iter().filter(|number| !set.contains(number)).collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", put.len());
    assert_eq!(
        found.len(),
        set.len(),
        "the broker recognises what it already has"
    );
    let out_of_order: Vec<&[u64]> = found.windows(2).filter(|pair| pair[0] > pair[1]).collect();
    assert!(
        out_of_order.is_empty(),
        "the order of puts is the order of the stream, but for {out_of_order:?}"
    );
    // At most one batch a round was stored without the victim living long enough to say so.
    assert!(found.len() as u64 <= put.len() as u64 + ROUNDS * 100);
    assert_eq!(outbox.stats().unwrap().aside, 0, "a kill leaves no damaged file");
}

#[tokio::test]
async fn two_producers_in_one_outbox_are_killed_without_harm_to_each_other() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut put = Vec::new();
    for round in 0..5 {
        // Both want to drain; one waits for the other's lock, and gets it when that one is killed.
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
    assert!(
        put.iter().all(|number| set.contains(number)),
        "something was lost"
    );
    assert_eq!(found.len(), set.len());
}

#[test]
fn a_batch_killed_in_the_middle_leaves_none_of_it_or_the_first_few() {
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
        assert_eq!(payloads, (0..waiting).collect::<Vec<_>>(), "no hole, in order");
    }
}
