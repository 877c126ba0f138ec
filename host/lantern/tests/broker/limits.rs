//! Tests brokers that limit the size of a pull request.

use std::time::Duration;

use async_nats::jetstream::stream::RetentionPolicy;

use super::nats::NatsServer;
use super::{broker, filled, publish, read, reopen, request, sequences, stream, stream_with};

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_broker_are_respected_without_changing_the_consumer() {
    for limit in [250, 5_000] {
        for retention in [RetentionPolicy::Limits, RetentionPolicy::Interest] {
            let server =
                NatsServer::start_with_jetstream(&format!("limits {{ max_request_batch: {limit} }}"));
            let stream = stream_with(&server, retention).await;
            let broker = broker(&server).await;
            let mut subscription = broker.open(request(0)).await.unwrap();
            let made = stream.consumer_info("lantern_test").await.unwrap();
            assert_eq!(made.config.max_batch, limit, "the broker fills in its limit");
            publish(&server, 1, 600).await;
            let all = sequences(&read(&mut subscription, 600).await);
            assert_eq!(all, (1..=600).collect::<Vec<_>>(), "limit {limit}, {retention:?}");
            let facts = subscription.handle().facts().await.unwrap().unwrap();
            assert_eq!(facts.differences, Vec::<String>::new());
            drop(subscription);
            publish(&server, 601, 1).await;
            let mut subscription = reopen(&broker, request(600)).await;
            assert_eq!(sequences(&read(&mut subscription, 1).await), [601]);
            let now = stream.consumer_info("lantern_test").await.unwrap();
            assert_eq!(now.created, made.created, "the consumer was not recreated");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_an_operator_set_on_the_consumer_are_respected() {
    let (server, stream, broker) = filled(0).await;
    let subscription = broker.open(request(0)).await.unwrap();
    let mut config = stream.consumer_info("lantern_test").await.unwrap().config;
    config.max_batch = 3;
    config.max_bytes = 1_000;
    config.max_expires = Duration::from_millis(500);
    stream.update_consumer(config).await.unwrap();
    drop(subscription);
    publish(&server, 1, 50).await;
    // Larger than the limit of one request, so the client requests it alone.
    let jetstream = server.jetstream().await;
    let large = vec![b'x'; 5_000];
    crate::nats::publish(&jetstream, "ev.a", large).await;
    publish(&server, 52, 50).await;
    let mut subscription = reopen(&broker, request(0)).await;
    let all = sequences(&read(&mut subscription, 101).await);
    assert_eq!(all, (1..=101).collect::<Vec<_>>());
    // A request expires after half a second here; several expire before a message arrives.
    let quiet = tokio::time::timeout(Duration::from_secs(4), subscription.next(10, 1_000)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    publish(&server, 102, 1).await;
    assert_eq!(sequences(&read(&mut subscription, 1).await), [102]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_read_respects_the_limits_of_the_broker() {
    let server = NatsServer::start_with_jetstream("limits { max_request_batch: 250 }");
    stream(&server).await;
    let broker = broker(&server).await;
    publish(&server, 1, 600).await;
    let mut reading = broker.read(super::STREAM, &[], 1).await.unwrap().unwrap();
    let mut all = Vec::new();
    let mut batches = 0;
    while all.len() < 600 {
        let batch = reading.next(1_000, 8 << 20, Duration::ZERO).await.unwrap();
        assert!(!batch.is_empty());
        batches += 1;
        all.extend(batch);
    }
    assert_eq!(sequences(&all), (1..=600).collect::<Vec<_>>());
    assert!(batches <= 3, "{batches} batches: it was read one by one");
    reading.close().await;
}
