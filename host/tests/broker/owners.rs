//! One consumer, two hosts.

use std::time::Instant;

use lantern::broker::{OpenError, OpenRequest};

use super::nats::NatsServer;
use super::{STREAM, broker, next, publish, read, request, sequences, stream};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_in_use_by_another_host_is_not_touched() {
    let server = NatsServer::start();
    stream(&server).await;
    publish(&server, 1, 10).await;
    let first = broker(&server).await;
    let mut reading = first.open(request(0)).await.unwrap();
    let waiting = tokio::spawn(async move {
        let all = read(&mut reading, 11).await;
        (all, reading)
    });
    let second = broker(&server).await;
    let theirs = OpenRequest {
        owner: "host-b".into(),
        ..request(0)
    };
    super::nats::eventually("the first host pulls", super::LIMIT, async || {
        first
            .consumer_facts(STREAM, "lantern_test")
            .await
            .unwrap()
            .unwrap()
            .delivered
            == 10
    })
    .await;
    let error = second.open(theirs.clone()).await.err().unwrap();
    assert!(
        matches!(&error, OpenError::Taken { owner: Some(owner), .. } if owner == "host-a"),
        "{error}"
    );
    assert!(error.is_retryable() && error.hint().is_some());
    publish(&server, 11, 1).await;
    let (all, reading) = waiting.await.unwrap();
    assert_eq!(
        sequences(&all),
        (1..=11).collect::<Vec<_>>(),
        "the first host has not noticed"
    );

    // The first host ends; its consumer is free then.
    drop(reading);
    first.stop().await;
    let mut reading = second.open(theirs).await.unwrap();
    assert_eq!(next(&mut reading).await.unwrap().deliveries[0].sequence, 1);
    let facts = second
        .consumer_facts(STREAM, "lantern_test")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(facts.owner.as_deref(), Some("host-b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_database_does_not_share_the_consumer() {
    let server = NatsServer::start();
    stream(&server).await;
    let first = broker(&server).await;
    let mut reading = first.open(request(0)).await.unwrap();
    let waiting = tokio::spawn(async move { read(&mut reading, 1).await });
    super::nats::eventually("the first host pulls", super::LIMIT, async || {
        first
            .consumer_facts(STREAM, "lantern_test")
            .await
            .unwrap()
            .unwrap()
            .waiting
            > 0
    })
    .await;
    let copy = broker(&server).await;
    let error = copy.open(request(0)).await.err().unwrap();
    assert!(matches!(error, OpenError::Taken { .. }), "{error}");
    publish(&server, 1, 1).await;
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_consumer_of_before_is_free_at_once() {
    let server = NatsServer::start();
    stream(&server).await;
    publish(&server, 1, 3).await;
    let first = broker(&server).await;
    let mut reading = first.open(request(0)).await.unwrap();
    next(&mut reading).await.unwrap();
    drop(first);
    drop(reading);
    let again = broker(&server).await;
    let started = Instant::now();
    let mut reading = again.open(request(3)).await.unwrap();
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
    publish(&server, 4, 1).await;
    assert_eq!(sequences(&read(&mut reading, 1).await), [4]);
}
