//! Limits of an outbox and the lock of its drain.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use lantern_outbox::{DrainState, Event, Outbox, OutboxOptions};
use support::*;

#[tokio::test]
async fn a_second_drain_waits_until_the_first_ends() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let first = Running::start(&outbox, server.broker());
    outbox.put(&Event::new("obs.a", "0")).unwrap();
    wait_until_empty(&outbox).await;
    let other = Outbox::open(dir.path()).unwrap();
    let second = Running::start(&other, server.broker());
    wait_for("the second to wait", || async {
        (other.stats().unwrap().drain == DrainState::WaitingForOther).then_some(())
    })
    .await;
    other.put(&Event::new("obs.a", "1")).unwrap();
    wait_until_empty(&other).await;
    assert_eq!(
        (
            outbox.stats().unwrap().published,
            other.stats().unwrap().published
        ),
        (2, 0)
    );
    first.stop().await;
    other.put(&Event::new("obs.a", "2")).unwrap();
    wait_until_empty(&other).await;
    assert_eq!(other.stats().unwrap().published, 1);
    second.stop().await;
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), numbers(3));
}

#[tokio::test]
async fn the_size_limit_of_the_outbox_is_enforced() {
    let dir = scratch();
    let mut options = OutboxOptions::default();
    options.size_limit_bytes = 1000;
    let outbox = Outbox::open_with(dir.path(), options).unwrap();
    outbox.put(&Event::new("a", vec![0; 900])).unwrap();
    assert!(outbox.put(&Event::new("a", vec![0; 1000])).is_err());
    assert_eq!(outbox.len().unwrap(), 1);
}
