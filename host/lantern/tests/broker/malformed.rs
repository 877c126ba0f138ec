//! Tests messages that the client library cannot receive: it rejects their headers and drops the connection, or panics.

use std::io::Write;
use std::time::Duration;

use async_nats::jetstream::stream::RetentionPolicy;
use futures_util::StreamExt as _;
use lantern_broker::{Broker, Link, PullError};
use lantern_model::batch::Delivery;

use super::messages::publish_raw;
use super::nats::{NatsServer, eventually};
use super::{
    LIMIT, STREAM, broker, filled, next, publish, read, reopen, request, sequences, stream, stream_with,
    wait_for_link,
};

/// A lone CR in a header value: the library panics (nats.rs #1612).
const PANICS: &[u8] = b"NATS/1.0\r\nX: a\rb\r\n\r\n";
const NOT_UTF8: &[u8] = b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n";
const NO_COLON: &[u8] = b"NATS/1.0\r\nnocolon\r\n\r\n";

/// Reads like a projection until `count` messages have arrived: reopens at the checkpoint after each failure.
async fn read_through(broker: &Broker, count: usize) -> (Vec<Delivery>, Vec<PullError>) {
    let (mut got, mut failures): (Vec<Delivery>, Vec<PullError>) = (Vec::new(), Vec::new());
    while got.len() < count {
        let after = got.last().map_or(0, |delivery| delivery.sequence);
        let mut subscription = reopen(broker, request(after)).await;
        let handle = subscription.handle();
        loop {
            match next(&mut subscription).await {
                Ok(pulled) => {
                    got.extend(pulled.deliveries);
                    // If an acknowledgement is not sent, the next open makes up for it.
                    drop(handle.ack(pulled.ack).await);
                }
                Err(failure) => {
                    failures.push(failure);
                    break;
                }
            }
            if got.len() >= count {
                break;
            }
        }
        handle.flush().await;
        assert!(failures.len() < 40, "{failures:?}");
    }
    (got, failures)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_break_the_connection_and_their_neighbours_are_read() {
    let server = NatsServer::start();
    stream(&server).await;
    publish(&server, 1, 5).await;
    publish_raw(&server, PANICS, b"{}").await;
    publish(&server, 7, 30).await;
    publish_raw(&server, NOT_UTF8, b"not utf-8").await;
    publish_raw(&server, NO_COLON, b"no colon").await;
    publish(&server, 39, 3).await;
    publish_raw(&server, PANICS, b"last").await;
    let broker = broker(&server).await;
    let before = broker.link().borrow().clone();
    let (got, failures) = read_through(&broker, 42).await;
    assert_eq!(sequences(&got), (1..=42).collect::<Vec<_>>());
    let header = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
    assert_eq!(got[5].headers, header("X", "a\rb"));
    assert_eq!(got[36].headers, header("A", "\u{fffd}\u{fffd}"));
    assert_eq!(got[37].headers, header("nocolon", ""));
    assert!(failures.contains(&PullError::PastUnreadable), "{failures:?}");
    let losses = failures
        .iter()
        .filter(|failure| **failure == PullError::Reconnected)
        .count();
    assert!(
        losses <= 3,
        "a place is suspected after one loss, and neighbours are read with it: {failures:?}"
    );
    assert_eq!(
        *broker.link().borrow(),
        before,
        "the connection for requests is not touched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_at_such_a_message_passes_it() {
    let server = NatsServer::start();
    stream(&server).await;
    publish_raw(&server, PANICS, b"{}").await;
    for _ in 0..2 {
        let broker = broker(&server).await;
        let (got, _) = read_through(&broker, 1).await;
        assert_eq!(got[0].headers, [("X".to_owned(), "a\rb".to_owned())]);
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_queues_pass_such_messages_without_loss_and_without_remainder() {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let server = NatsServer::start();
        let stream = stream_with(&server, retention).await;
        let broker = broker(&server).await;
        // With interest retention, the stream keeps messages only once the consumer exists.
        drop(broker.open(request(0)).await.unwrap());
        publish(&server, 1, 5).await;
        publish_raw(&server, PANICS, b"one").await;
        publish_raw(&server, NO_COLON, b"two").await;
        publish(&server, 8, 5).await;
        let (got, failures) = read_through(&broker, 12).await;
        assert_eq!(sequences(&got), (1..=12).collect::<Vec<_>>(), "{failures:?}");
        let mut subscription = reopen(&broker, request(12)).await;
        let waiting = tokio::spawn(async move { next(&mut subscription).await });
        eventually("all is acknowledged", LIMIT, async || {
            stream.get_info().await.unwrap().state.messages == 0
        })
        .await;
        waiting.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn such_messages_break_only_the_connection_of_their_source() {
    let server = NatsServer::start();
    stream(&server).await;
    let other = crate::nats::stream("OTHER", "other");
    let jetstream = server.jetstream().await;
    jetstream.create_stream(other).await.unwrap();
    let broker = broker(&server).await;
    let mut quiet = request(0);
    (quiet.stream, quiet.consumer) = ("OTHER".into(), "lantern_other".into());
    let mut quiet = broker.open(quiet).await.unwrap();
    for _ in 0..5 {
        publish_raw(&server, PANICS, b"{}").await;
    }
    let reading = broker.clone();
    let bad = tokio::spawn(async move { read_through(&reading, 5).await });
    for _ in 0..20 {
        crate::nats::publish(&jetstream, "other", "x").await;
        assert_eq!(read(&mut quiet, 1).await.len(), 1);
    }
    bad.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_task_has_ended_is_replaced() {
    let (server, _, broker) = filled(1).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    read(&mut subscription, 1).await;
    // A response to the host reveals its inbox; a message sent there reaches the client for requests.
    let spy = server.client().await;
    let mut answers = spy.subscribe("_INBOX.>").await.unwrap();
    spy.flush().await.unwrap();
    broker.stream_facts(STREAM).await.unwrap();
    let answer = tokio::time::timeout(LIMIT, answers.next())
        .await
        .unwrap()
        .unwrap();
    let (inbox, _) = answer.subject.rsplit_once('.').unwrap();
    let mut raw = server.raw();
    write!(raw, "HPUB {inbox}.x {} {}\r\n", PANICS.len(), PANICS.len()).unwrap();
    raw.write_all(PANICS).unwrap();
    raw.write_all(b"\r\n").unwrap();
    let link = wait_for_link(
        &broker,
        |link| matches!(link, Link::Connected(server) if server.generation > 1),
    )
    .await;
    assert!(matches!(link, Link::Connected(server) if server.generation == 2));
    assert!(broker.stream_facts(STREAM).await.unwrap().is_some());
    publish(&server, 2, 1).await;
    assert_eq!(
        sequences(&read(&mut subscription, 1).await),
        [2],
        "a subscription has its own connection"
    );
    // The new client can fail in the same way.
    tokio::time::timeout(Duration::from_secs(5), broker.stream_facts(STREAM))
        .await
        .unwrap()
        .unwrap();
}
