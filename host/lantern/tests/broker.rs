//! Tests the broker module against a real `nats-server`: its guarantees while the broker is killed, frozen and
//! restored, and while another client deletes or changes streams and consumers.

#![allow(clippy::too_many_lines, reason = "a scenario is one sequence of steps")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, but clippy does not take a test's helpers for tests"
)]

#[path = "support/nats.rs"]
mod nats;

#[path = "broker/deployments.rs"]
mod deployments;
#[path = "broker/embedded.rs"]
mod embedded;
#[path = "broker/faults.rs"]
mod faults;
#[path = "broker/limits.rs"]
mod limits;
#[path = "broker/link.rs"]
mod link;
#[path = "broker/malformed.rs"]
mod malformed;
#[path = "broker/messages.rs"]
mod messages;
#[path = "broker/owners.rs"]
mod owners;
#[path = "broker/permissions.rs"]
mod permissions;
#[path = "broker/reading.rs"]
mod reading;
#[path = "broker/replacement.rs"]
mod replacement;
#[path = "broker/retention.rs"]
mod retention;

use std::time::Duration;

use async_nats::jetstream;
use lantern_broker::{Broker, BrokerConfig, Link, OpenRequest, PullError, Pulled, Start, Subscription};
use lantern_model::batch::Delivery;
use nats::NatsServer;

const STREAM: &str = "EVENTS";
const LIMIT: Duration = Duration::from_secs(20);

/// Returns a connected broker handle whose pings detect a lost connection quickly.
async fn broker(server: &NatsServer) -> Broker {
    let broker = Broker::connect(BrokerConfig::remote(server.url())).await.unwrap();
    connected(&broker).await;
    broker
}

async fn connected(broker: &Broker) {
    wait_for_link(broker, Link::is_connected).await;
}

async fn wait_for_link(broker: &Broker, wanted: impl FnMut(&Link) -> bool) -> Link {
    let mut link = broker.link();
    let found = tokio::time::timeout(LIMIT, link.wait_for(wanted)).await;
    match found {
        Ok(link) => link.unwrap().clone(),
        Err(_) => panic!("the link stays {:?}", *broker.link().borrow()),
    }
}

/// Creates an ordinary stream for `ev.>`.
async fn stream(server: &NatsServer) -> jetstream::stream::Stream {
    stream_with(server, jetstream::stream::RetentionPolicy::Limits).await
}

async fn stream_with(
    server: &NatsServer,
    retention: jetstream::stream::RetentionPolicy,
) -> jetstream::stream::Stream {
    let config = jetstream::stream::Config {
        name: STREAM.into(),
        subjects: vec!["ev.>".into()],
        retention,
        ..Default::default()
    };
    server.create_stream(config).await
}

/// Starts a server with the stream and its first messages, and connects.
async fn filled(count: u64) -> (NatsServer, jetstream::stream::Stream, Broker) {
    let server = NatsServer::start();
    let stream = stream(&server).await;
    publish(&server, 1, count).await;
    let broker = broker(&server).await;
    (server, stream, broker)
}

/// Publishes `count` messages to `ev.a`; the payloads are consecutive numbers that start at `first`.
async fn publish(server: &NatsServer, first: u64, count: u64) {
    let jetstream = server.jetstream().await;
    let mut acks = Vec::new();
    for number in first..first + count {
        acks.push(
            jetstream
                .publish("ev.a", number.to_string().into())
                .await
                .unwrap(),
        );
        if acks.len() == 500 || number + 1 == first + count {
            for ack in acks.drain(..) {
                ack.await.unwrap();
            }
        }
    }
}

fn request(after: u64) -> OpenRequest {
    OpenRequest {
        replace: false,
        term: 0,
        stream: STREAM.into(),
        subjects: Vec::new(),
        consumer: "lantern_test".into(),
        owner: "host-a".into(),
        start: Start::After {
            sequence: after,
            published_ns: None,
        },
        plugin: "test".into(),
        source: "events".into(),
        description: "a test".into(),
    }
}

async fn next(subscription: &mut Subscription) -> Result<Pulled, PullError> {
    tokio::time::timeout(LIMIT, subscription.next(4096, 1 << 20))
        .await
        .expect("next neither gives nor fails")
}

/// Reads `count` messages and acknowledges each batch.
async fn read(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let handle = subscription.handle();
    let mut all = Vec::new();
    while all.len() < count {
        let Pulled { deliveries, ack } = next(subscription).await.unwrap();
        all.extend(deliveries);
        handle.ack(ack).await.unwrap();
    }
    assert_eq!(all.len(), count);
    all
}

/// Reads until the subscription fails.
async fn failure(subscription: &mut Subscription) -> PullError {
    loop {
        if let Err(error) = next(subscription).await {
            return error;
        }
    }
}

/// Opens the subscription as soon as the broker accepts it.
async fn reopen(broker: &Broker, request: OpenRequest) -> Subscription {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match broker.open(request.clone()).await {
            Ok(subscription) => return subscription,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                assert!(tokio::time::Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.sequence).collect()
}
