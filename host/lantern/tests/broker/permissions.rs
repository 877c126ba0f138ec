//! Tests a user with few permissions.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::RetentionPolicy;
use lantern_broker::{Broker, BrokerConfig, BrokerError, OpenError};

use super::nats::NatsServer;
use super::*;

/// Starts a server with the user `host`, who may publish only to these subjects, and a user with all permissions.
fn server(publish: &[&str]) -> NatsServer {
    let list: Vec<String> = publish.iter().map(|subject| format!("{subject:?}")).collect();
    NatsServer::start_with(&format!(
        "authorization {{ users: [ {{ user: admin, password: pw }},\n\
         {{ user: host, password: pw, permissions: {{ publish: {{ allow: [{}] }}, subscribe: {{ allow: [\"_INBOX.>\"] }} }} }} ] }}\n\
         no_auth_user: admin\n",
        list.join(", ")
    ))
}

async fn restricted(server: &NatsServer) -> Broker {
    let url = server.url().replace("nats://", "nats://host:pw@");
    let broker = Broker::connect(BrokerConfig::remote(url)).await.unwrap();
    connected(&broker).await;
    broker
}

/// The permissions that docs/operations.md lists for an existing consumer.
const EXISTING: [&str; 6] = [
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.CONSUMER.INFO.EVENTS.lantern_test",
    "$JS.API.CONSUMER.RESET.EVENTS.lantern_test",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.lantern_test",
    "$JS.ACK.EVENTS.lantern_test.>",
];

/// The permissions that it lists for a consumer that Lantern creates.
const CREATING: [&str; 2] = [
    "$JS.API.CONSUMER.CREATE.EVENTS.lantern_test",
    "$JS.API.CONSUMER.DELETE.EVENTS.lantern_test",
];

fn suitable(retention: RetentionPolicy) -> pull::Config {
    pull::Config {
        durable_name: Some("lantern_test".into()),
        ack_policy: match retention {
            RetentionPolicy::Limits => AckPolicy::All,
            _ => AckPolicy::Explicit,
        },
        ack_wait: Duration::from_secs(3600),
        max_deliver: -1,
        max_ack_pending: -1,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_consumer_is_used_without_permission_to_create_or_delete_one() {
    for retention in [
        RetentionPolicy::Limits,
        RetentionPolicy::WorkQueue,
        RetentionPolicy::Interest,
    ] {
        let server = server(&EXISTING);
        let stream = stream_with(&server, retention).await;
        let made = stream.create_consumer(suitable(retention)).await.unwrap();
        let created = made.cached_info().created;
        publish(&server, 1, 20).await;
        let broker = restricted(&server).await;
        let mut subscription = broker.open(request(0)).await.unwrap();
        assert_eq!(read(&mut subscription, 20).await.len(), 20);
        drop(subscription);
        // An open request of the earlier subscription would be reported as in use.
        let mut subscription = broker.open(request(20)).await.unwrap();
        publish(&server, 21, 1).await;
        assert_eq!(sequences(&read(&mut subscription, 1).await), [21]);
        let info = stream.consumer_info("lantern_test").await.unwrap();
        assert_eq!(info.created, created, "{retention:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_reported_at_once() {
    let server = server(&EXISTING);
    stream(&server).await;
    let broker = restricted(&server).await;
    // Without the broker's refusal, the request would end as unanswered.
    let error = broker.open(request(0)).await.err().unwrap();
    let OpenError::Broker(BrokerError::Forbidden { what }) = &error else {
        panic!("{error}")
    };
    assert_eq!(what, "$JS.API.CONSUMER.CREATE.EVENTS.lantern_test");
    assert!(error.is_retryable() && error.hint().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsuitable_consumer_that_cannot_be_replaced_is_described() {
    let server = server(&EXISTING);
    let stream = stream(&server).await;
    let mut config = suitable(RetentionPolicy::Limits);
    config.max_deliver = 3;
    stream.create_consumer(config).await.unwrap();
    let broker = restricted(&server).await;
    let error = broker.open(request(0)).await.err().unwrap();
    assert!(
        matches!(&error, OpenError::Changed { differences, .. } if differences == &["max deliver is 3 and should be -1"]),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_sufficient() {
    let server = server(&[&EXISTING[..], &CREATING[..]].concat());
    stream(&server).await;
    publish(&server, 1, 5).await;
    let broker = restricted(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    assert_eq!(read(&mut subscription, 5).await.len(), 5);
    assert!(broker.message_at(STREAM, 5).await.unwrap().is_some());
    assert!(broker.stored_message(STREAM, 5).await.unwrap().is_some());
    drop(subscription);
    broker
        .delete_consumer(STREAM, "lantern_test", "host-a")
        .await
        .unwrap();
}
