//! Tests broker failures, and interference from other clients.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use lantern_broker::{OpenError, PullError, Start};

use super::nats::eventually;
use super::{
    STREAM, connected, failure, filled, publish, read, reopen, request, sequences, stream, wait_for_link,
};

#[tokio::test(flavor = "multi_thread")]
async fn reading_continues_after_the_broker_restarts() {
    let (mut server, _, broker) = filled(100).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    read(&mut subscription, 100).await;
    for round in 0..3 {
        server.kill();
        let error = failure(&mut subscription).await;
        assert_eq!(error, PullError::Reconnected);
        assert!(broker.open(request(100)).await.err().unwrap().is_retryable());
        server.restart();
        connected(&broker).await;
        publish(&server, 101, 10).await;
        subscription = reopen(&broker, request(100 + round * 10)).await;
        let first = 101 + round * 10;
        assert_eq!(
            sequences(&read(&mut subscription, 10).await),
            (first..first + 10).collect::<Vec<_>>()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnoticed_reconnect_ends_the_subscription() {
    let (mut server, _, broker) = filled(10).await;
    let before = wait_for_link(&broker, |link| link.is_connected()).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let pulled = subscription.next(5, 1 << 20).await.unwrap();
    let handle = subscription.handle();
    server.restart();
    wait_for_link(&broker, |link| link.is_connected() && *link != before).await;
    // The subscription may still return messages that arrived before the restart, but none that arrived after it.
    assert_eq!(failure(&mut subscription).await, PullError::Reconnected);
    assert!(
        handle.ack(pulled.ack).await.is_err(),
        "an acknowledgement of before must not reach the broker of now"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_detected_within_three_heartbeats() {
    let (server, _, broker) = filled(1).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    read(&mut subscription, 1).await;
    server.freeze();
    let error = failure(&mut subscription).await;
    let PullError::Silent { after } = error else {
        panic!("{error}")
    };
    assert!(
        after < Duration::from_secs(3),
        "the heartbeat is one second: {after:?}"
    );
    drop(subscription);
    server.thaw();
    let mut subscription = reopen(&broker, request(1)).await;
    publish(&server, 2, 1).await;
    assert_eq!(sequences(&read(&mut subscription, 1).await), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_while_reading_is_created_again() {
    let (server, stream, broker) = filled(10).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    read(&mut subscription, 10).await;
    stream.delete_consumer("lantern_test").await.unwrap();
    assert_eq!(failure(&mut subscription).await, PullError::ConsumerGone);
    publish(&server, 11, 1).await;
    let mut subscription = broker.open(request(10)).await.unwrap();
    assert_eq!(sequences(&read(&mut subscription, 1).await), [11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_before_a_pull_is_detected() {
    let (_server, stream, broker) = filled(0).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    stream.delete_consumer("lantern_test").await.unwrap();
    assert_eq!(failure(&mut subscription).await, PullError::ConsumerGone);
}

/// nats.rs #1584: the library's own message stream waits forever in this case.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_while_disconnected_is_created_again() {
    let (mut server, _, broker) = filled(10).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    read(&mut subscription, 10).await;
    server.stop();
    assert_eq!(failure(&mut subscription).await, PullError::Reconnected);
    let consumers = server
        .folder()
        .join("js/jetstream/$G/streams")
        .join(STREAM)
        .join("obs");
    std::fs::remove_dir_all(consumers).unwrap();
    server.restart();
    connected(&broker).await;
    assert_eq!(broker.consumer_facts(STREAM, "lantern_test").await.unwrap(), None);
    publish(&server, 11, 1).await;
    let mut subscription = reopen(&broker, request(10)).await;
    assert_eq!(sequences(&read(&mut subscription, 1).await), [11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_consumer_with_other_settings_is_replaced() {
    let (server, stream, broker) = filled(10).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    read(&mut subscription, 10).await;
    stream.delete_consumer("lantern_test").await.unwrap();
    let config = pull::Config {
        durable_name: Some("lantern_test".into()),
        ack_policy: AckPolicy::Explicit,
        max_deliver: 3,
        max_batch: 2,
        filter_subject: "ev.none".into(),
        ..Default::default()
    };
    stream.create_consumer(config).await.unwrap();
    let error = failure(&mut subscription).await;
    assert!(
        matches!(error, PullError::ConsumerGone | PullError::Refused { .. }),
        "{error}"
    );
    publish(&server, 11, 5).await;
    let mut subscription = broker.open(request(10)).await.unwrap();
    assert_eq!(sequences(&read(&mut subscription, 5).await), [11, 12, 13, 14, 15]);
    assert_eq!(
        subscription.handle().facts().await.unwrap().unwrap().differences,
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_consumer_is_detected_by_its_facts() {
    let (_server, stream, broker) = filled(0).await;
    let subscription = broker.open(request(0)).await.unwrap();
    let mut config = stream.consumer_info("lantern_test").await.unwrap().config;
    config.filter_subject = "ev.other".into();
    config.max_deliver = 3;
    stream.update_consumer(config).await.unwrap();
    let differences = subscription
        .handle()
        .facts()
        .await
        .unwrap()
        .unwrap()
        .differences
        .join("; ");
    assert!(
        differences.contains("filter") && differences.contains("max deliver is 3"),
        "{differences}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_is_reported_and_a_recreated_one_has_other_facts() {
    let (server, _, broker) = filled(10).await;
    let before = broker.stream_facts(STREAM).await.unwrap().unwrap();
    let mark = broker.message_at(STREAM, 10).await.unwrap().unwrap();
    let mut subscription = broker.open(request(0)).await.unwrap();
    let last = read(&mut subscription, 10).await.remove(9);
    assert_eq!(lantern_broker::Fingerprint::of(&last), mark);
    server.jetstream().await.delete_stream(STREAM).await.unwrap();
    assert_eq!(failure(&mut subscription).await, PullError::StreamGone);
    assert_eq!(broker.stream_facts(STREAM).await.unwrap(), None);
    assert!(matches!(
        broker.open(request(10)).await,
        Err(OpenError::NoStream { .. })
    ));
    stream(&server).await;
    assert!(matches!(
        broker.open(request(10)).await,
        Err(OpenError::Ahead {
            after: 10,
            last: 0,
            ..
        })
    ));
    publish(&server, 1, 10).await;
    let after = broker.stream_facts(STREAM).await.unwrap().unwrap();
    assert!(after.created_ns > before.created_ns);
    assert_ne!(
        broker.message_at(STREAM, 10).await.unwrap().unwrap().published_ns,
        mark.published_ns
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_message_with_a_known_sequence_is_another_history() {
    let (server, _, broker) = filled(10).await;
    let mark = broker.message_at(STREAM, 5).await.unwrap().unwrap();
    let mut wanted = request(5);
    wanted.start = Start::After {
        sequence: 5,
        published_ns: Some(mark.published_ns),
    };
    let mut subscription = broker.open(wanted).await.unwrap();
    // Another client resets the consumer to before the checkpoint. It delivers known messages, which the subscription
    // skips.
    let reset = format!("$JS.API.CONSUMER.RESET.{STREAM}.lantern_test");
    let client = server.client().await;
    client.request(reset.clone(), "{\"seq\":3}".into()).await.unwrap();
    assert_eq!(sequences(&read(&mut subscription, 5).await), [6, 7, 8, 9, 10]);
    drop(subscription);
    // Now the checkpoint claims an older publish time than that of those messages.
    let mut wanted = request(5);
    wanted.start = Start::After {
        sequence: 5,
        published_ns: Some(mark.published_ns - 1_000_000_000),
    };
    let mut subscription = broker.open(wanted).await.unwrap();
    client.request(reset, "{\"seq\":3}".into()).await.unwrap();
    assert_eq!(
        failure(&mut subscription).await,
        PullError::HistoryChanged { sequence: 3 }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_consumer_is_reported_and_resumes_automatically() {
    let (server, stream, broker) = filled(1).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    read(&mut subscription, 1).await;
    let until =
        async_nats::datetime::add_std_duration(async_nats::datetime::now(), Duration::from_secs(4)).unwrap();
    stream.pause_consumer("lantern_test", until).await.unwrap();
    publish(&server, 2, 1).await;
    let facts = subscription.handle().facts().await.unwrap().unwrap();
    assert!(facts.paused_until.is_some(), "{facts:?}");
    let early = tokio::time::timeout(Duration::from_secs(2), subscription.next(10, 1_000)).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(sequences(&read(&mut subscription, 1).await), [2]);
    eventually("the pause is over", Duration::from_secs(5), async || {
        broker
            .consumer_facts(STREAM, "lantern_test")
            .await
            .unwrap()
            .unwrap()
            .paused_until
            .is_none()
    })
    .await;
}
