//! Tests streams that delete acknowledged messages.

use std::time::Duration;

use async_nats::jetstream::stream::RetentionPolicy;
use lantern_broker::{OpenError, Retention};

use super::nats::{NatsServer, eventually};
use super::{STREAM, broker, next, publish, read, request, sequences, stream_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_work_queue_deletes_only_acknowledged_messages() {
    let server = NatsServer::start();
    let stream = stream_with(&server, RetentionPolicy::WorkQueue).await;
    publish(&server, 1, 30).await;
    let broker = broker(&server).await;
    let facts = broker.stream_facts(STREAM).await.unwrap().unwrap();
    assert_eq!(facts.retention, Retention::WorkQueue);
    let mut subscription = broker.open(request(0)).await.unwrap();
    let mut tokens = Vec::new();
    for end in [10, 20] {
        let mut last = end - 10;
        while last < end {
            let pulled = subscription.next((end - last) as usize, 1 << 20).await.unwrap();
            assert_eq!(pulled.deliveries[0].sequence, last + 1);
            last = pulled.deliveries.last().unwrap().sequence;
            tokens.push((last, pulled.ack));
        }
    }
    for (last, token) in tokens {
        if last <= 10 {
            subscription.handle().ack(token).await.unwrap();
        } else {
            subscription.handle().in_progress(&token).await.unwrap();
        }
    }
    eventually("ten messages are gone", Duration::from_secs(5), async || {
        stream.get_info().await.unwrap().state.messages == 20
    })
    .await;
    drop(subscription);
    // The second ten were committed, but their acknowledgement was lost: the subscription acknowledges them now and
    // does not return them.
    let mut subscription = broker.open(request(20)).await.unwrap();
    assert_eq!(
        sequences(&read(&mut subscription, 10).await),
        (21..=30).collect::<Vec<_>>()
    );
    eventually("the queue is empty", Duration::from_secs(5), async || {
        stream.get_info().await.unwrap().state.messages == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_subjects_of_a_work_queue_are_not_touched() {
    let server = NatsServer::start();
    let stream = stream_with(&server, RetentionPolicy::WorkQueue).await;
    let jetstream = server.jetstream().await;
    for subject in ["ev.a", "ev.b", "ev.a", "ev.b"] {
        crate::nats::publish(&jetstream, subject, "").await;
    }
    let broker = broker(&server).await;
    let mut wanted = request(0);
    wanted.subjects = vec!["ev.a".into()];
    let mut subscription = broker.open(wanted).await.unwrap();
    assert_eq!(sequences(&read(&mut subscription, 2).await), [1, 3]);
    eventually("ours are gone", Duration::from_secs(5), async || {
        stream.get_info().await.unwrap().state.messages == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interest_stream_is_rewound_without_losing_interest() {
    let server = NatsServer::start();
    let stream = stream_with(&server, RetentionPolicy::Interest).await;
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    publish(&server, 1, 20).await;
    let pulled = next(&mut subscription).await.unwrap();
    assert_eq!(pulled.deliveries[0].sequence, 1);
    drop((subscription, pulled));
    // Nothing was acknowledged, so the broker redelivers everything. Another owner takes over without deleting the
    // consumer.
    let mut wanted = request(0);
    wanted.owner = "host-b".into();
    // The broker drops the requests of the closed connection with a short delay.
    eventually("the consumer is idle", Duration::from_secs(5), async || {
        let facts = broker.consumer_facts(STREAM, "lantern_test").await.unwrap();
        facts.is_some_and(|facts| facts.waiting == 0)
    })
    .await;
    broker.take_over(STREAM, "lantern_test", "host-b").await.unwrap();
    let mut subscription = broker.open(wanted).await.unwrap();
    assert_eq!(
        sequences(&read(&mut subscription, 20).await),
        (1..=20).collect::<Vec<_>>()
    );
    eventually("all is acknowledged", Duration::from_secs(5), async || {
        stream.get_info().await.unwrap().state.messages == 0
    })
    .await;
    let facts = broker
        .consumer_facts(STREAM, "lantern_test")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(facts.owner.as_deref(), Some("host-b"));
    drop(subscription);
    let mut config = stream.consumer_info("lantern_test").await.unwrap().config;
    config.max_deliver = 3;
    stream.update_consumer(config).await.unwrap();
    let mut wanted = request(20);
    wanted.owner = "host-b".into();
    let error = broker.open(wanted).await.err().unwrap();
    assert!(
        matches!(error, OpenError::Changed { .. }) && !error.is_retryable(),
        "{error}"
    );
}
