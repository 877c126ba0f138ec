//! Tests the messages of a subscription.

use std::io::Write;
use std::time::Duration;

use async_nats::HeaderMap;
use lantern_broker::{PullError, Start};

use super::nats::{NatsServer, eventually};
use super::{STREAM, broker, failure, filled, next, publish, read, request, sequences, stream};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_messages_arrive_once_and_in_order() {
    let (_server, _, broker) = filled(20_000).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let all = read(&mut subscription, 20_000).await;
    for (index, delivery) in all.iter().enumerate() {
        let number = index as u64 + 1;
        assert_eq!(delivery.sequence, number);
        assert_eq!(delivery.payload, number.to_string().as_bytes());
        assert_eq!(delivery.subject, "ev.a");
        assert!(delivery.headers.is_empty());
    }
    assert!(
        all.windows(2)
            .all(|pair| pair[0].published_ns <= pair[1].published_ns)
    );
    let handle = subscription.handle();
    eventually("everything is acknowledged", Duration::from_secs(5), async || {
        let facts = handle.facts().await.unwrap().unwrap();
        (facts.ack_floor, facts.ack_pending, facts.pending) == (20_000, 0, 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_starts_at_the_requested_position() {
    let (_server, _, broker) = filled(1_000).await;
    for after in [0, 900, 10, 999, 0, 500] {
        let mut subscription = broker.open(request(after)).await.unwrap();
        let first = next(&mut subscription).await.unwrap();
        assert_eq!(first.deliveries[0].sequence, after + 1);
    }
    let last = broker.message_at(STREAM, 1_000).await.unwrap().unwrap();
    let start = Start::AfterTime(last.published_ns);
    let mut subscription = broker
        .open(super::OpenRequest { start, ..request(0) })
        .await
        .unwrap();
    assert_eq!(sequences(&read(&mut subscription, 1).await), [1_000]);
    drop(subscription);
    let mut subscription = broker.open(request(3)).await.unwrap();
    assert_eq!(
        next(&mut subscription).await.unwrap().deliveries[0].sequence,
        4,
        "a start time leaves no trace"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reopening_leaves_no_hole() {
    let (_server, _, broker) = filled(5_000).await;
    let mut after = 0;
    for _ in 0..50 {
        let mut subscription = broker.open(request(after)).await.unwrap();
        let pulled = subscription.next(100, 1 << 20).await.unwrap();
        assert_eq!(pulled.deliveries[0].sequence, after + 1);
        after = pulled.deliveries.last().unwrap().sequence;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_selects_its_part_of_a_shared_stream() {
    let server = NatsServer::start();
    stream(&server).await;
    let jetstream = server.jetstream().await;
    for number in 0..300_u32 {
        let subject = ["ev.a", "ev.b.x", "ev.c"][number as usize % 3];
        crate::nats::publish(&jetstream, subject, "").await;
    }
    let broker = broker(&server).await;
    for (consumer, subjects, count) in [
        ("one", vec!["ev.b.>"], 100),
        ("two", vec!["ev.a", "ev.b.*"], 200),
        ("all", vec![], 300),
    ] {
        let mut wanted = request(0);
        wanted.consumer = consumer.into();
        wanted.subjects = subjects.into_iter().map(str::to_owned).collect();
        let mut subscription = broker.open(wanted).await.unwrap();
        let all = read(&mut subscription, count).await;
        assert!(all.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
        if consumer == "one" {
            assert!(all.iter().all(|delivery| delivery.subject == "ev.b.x"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_respect_their_bounds() {
    let server = NatsServer::start();
    stream(&server).await;
    let jetstream = server.jetstream().await;
    for _ in 0..100 {
        jetstream
            .publish("ev.a", vec![b'x'; 1_000].into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let mut next_sequence = 1;
    while next_sequence <= 100 {
        let pulled = subscription.next(7, 3_500).await.unwrap();
        assert!(pulled.deliveries.len() <= 3, "{}", pulled.deliveries.len());
        for delivery in &pulled.deliveries {
            assert_eq!(delivery.sequence, next_sequence);
            next_sequence += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_next_loses_nothing() {
    let (server, _, broker) = filled(0).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let publishing = tokio::spawn(async move {
        publish(&server, 1, 3_000).await;
        server
    });
    let mut got = Vec::new();
    while got.len() < 3_000 {
        // So short that it often cancels `next` midway.
        let limit = Duration::from_micros(200);
        if let Ok(pulled) = tokio::time::timeout(limit, subscription.next(50, 1 << 20)).await {
            got.extend(sequences(&pulled.unwrap().deliveries));
        }
    }
    assert_eq!(got, (1..=3_000).collect::<Vec<_>>());
    publishing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_and_empty_messages_are_read() {
    let server = NatsServer::start_with("");
    stream(&server).await;
    let jetstream = server.jetstream().await;
    // Together with subject and headers, it is larger than the size of a pull request.
    let largest = vec![b'x'; 8_000_000];
    for payload in [
        vec![],
        largest.clone(),
        b"small".to_vec(),
        largest.clone(),
        largest,
        vec![],
    ] {
        crate::nats::publish(&jetstream, "ev.a", payload).await;
    }
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let sizes: Vec<usize> = read(&mut subscription, 6)
        .await
        .iter()
        .map(|delivery| delivery.payload.len())
        .collect();
    assert_eq!(sizes, [0, 8_000_000, 5, 8_000_000, 8_000_000, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_a_pull_request_is_a_batch() {
    let server = NatsServer::start_with("max_payload: 16MB");
    stream(&server).await;
    let jetstream = server.jetstream().await;
    for size in [1, 12_000_000, 12_000_000, 1] {
        jetstream
            .publish("ev.a", vec![b'x'; size].into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let sizes: Vec<usize> = read(&mut subscription, 4)
        .await
        .iter()
        .map(|delivery| delivery.payload.len())
        .collect();
    assert_eq!(sizes, [1, 12_000_000, 12_000_000, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_sorted_and_keep_their_values() {
    let server = NatsServer::start();
    stream(&server).await;
    let jetstream = server.jetstream().await;
    let mut headers = HeaderMap::new();
    for (name, value) in [("b", "2"), ("b", "1"), ("A", "x")] {
        headers.append(name, value);
    }
    headers.insert("Nats-Pin-Id", "pretender");
    headers.insert("big", "y".repeat(60 * 1024));
    jetstream
        .publish_with_headers("ev.50%.a%20b", headers, "".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let delivery = read(&mut subscription, 1).await.remove(0);
    assert_eq!(delivery.subject, "ev.50%.a%20b");
    let short: Vec<(&str, &str)> = delivery
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.get(..9).unwrap_or(value)))
        .collect();
    assert_eq!(
        short,
        [
            ("A", "x"),
            ("Nats-Pin-Id", "pretender"),
            ("b", "2"),
            ("b", "1"),
            ("big", "yyyyyyyyy")
        ]
    );
}

/// Publishes with header bytes that no client library sends, and waits until the stream has stored them.
pub(crate) async fn publish_raw(server: &NatsServer, headers: &[u8], payload: &[u8]) {
    publish_raw_to(server, "ev.raw", headers, payload).await;
}

async fn publish_raw_to(server: &NatsServer, subject: &str, headers: &[u8], payload: &[u8]) {
    let stream = server.jetstream().await.get_stream(STREAM).await.unwrap();
    let before = stream.cached_info().state.last_sequence;
    let mut raw = server.raw();
    let total = headers.len() + payload.len();
    write!(raw, "HPUB {subject} {} {total}\r\n", headers.len()).unwrap();
    raw.write_all(headers).unwrap();
    raw.write_all(payload).unwrap();
    raw.write_all(b"\r\n").unwrap();
    eventually(
        "the broker stores the message",
        Duration::from_secs(5),
        async || stream.get_info().await.unwrap().state.last_sequence > before,
    )
    .await;
}

/// The broker accepts NUL in a subject, and not every database stores it in a text.
#[tokio::test(flavor = "multi_thread")]
async fn a_subject_with_nul_is_the_same_text_however_it_is_read() {
    let server = NatsServer::start();
    stream(&server).await;
    publish_raw_to(&server, "ev.a\0b", b"NATS/1.0\r\nA: b\r\n\r\n", b"one").await;
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let delivered = read(&mut subscription, 1).await;
    let stored = broker.stored_message(STREAM, 1).await.unwrap().unwrap();
    assert_eq!(delivered[0].subject, "ev.a\u{fffd}b");
    assert_eq!(delivered[0], stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_message_that_resembles_a_status_is_a_message() {
    let server = NatsServer::start();
    stream(&server).await;
    publish_raw(&server, b"NATS/1.0 409 Consumer Deleted\r\n\r\n", b"one").await;
    publish_raw(
        &server,
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 77\r\n\r\n",
        b"two",
    )
    .await;
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let all = read(&mut subscription, 2).await;
    assert_eq!(
        (&all[0].payload[..], &all[1].payload[..]),
        (&b"one"[..], &b"two"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_purged_messages_are_skipped_without_a_hole() {
    let server = NatsServer::start();
    let stream = stream(&server).await;
    publish(&server, 1, 50).await;
    for sequence in [3, 4, 20] {
        stream.delete_message(sequence).await.unwrap();
    }
    let broker = broker(&server).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let all = sequences(&read(&mut subscription, 47).await);
    assert!(!all.contains(&3) && !all.contains(&20) && all.contains(&21));
    stream.purge().await.unwrap();
    publish(&server, 51, 2).await;
    assert_eq!(sequences(&read(&mut subscription, 2).await), [51, 52]);
    drop(subscription);
    let facts = broker.stream_facts(STREAM).await.unwrap().unwrap();
    assert_eq!(
        (facts.first_sequence, facts.last_sequence, facts.messages),
        (51, 52, 2)
    );
    assert_eq!(broker.message_at(STREAM, 3).await.unwrap(), None);
    let mut subscription = broker.open(request(10)).await.unwrap();
    assert_eq!(
        sequences(&read(&mut subscription, 2).await),
        [51, 52],
        "opening inside the purged part"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_ahead_of_the_reader_is_skipped() {
    let (server, stream, broker) = filled(20_000).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let mut last = 0;
    while last < 10 {
        last = subscription
            .next(10, 1 << 20)
            .await
            .unwrap()
            .deliveries
            .last()
            .unwrap()
            .sequence;
    }
    stream.purge().await.unwrap();
    publish(&server, 20_001, 1).await;
    while last < 20_001 {
        match next(&mut subscription).await {
            Ok(pulled) => last = pulled.deliveries.last().unwrap().sequence,
            Err(error) => {
                assert!(matches!(error, PullError::Hole { .. }), "{error}");
                drop(subscription);
                subscription = broker.open(request(last)).await.unwrap();
            }
        }
    }
    assert_eq!(last, 20_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_is_not_a_failure() {
    let (server, _, broker) = filled(0).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    // Longer than the lifetime of a pull request.
    let quiet = tokio::time::timeout(Duration::from_secs(12), subscription.next(10, 1_000)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    publish(&server, 1, 1).await;
    assert_eq!(read(&mut subscription, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_reveals_a_lost_last_delivery() {
    let (server, _, broker) = filled(0).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(300), subscription.next(10, 1_000)).await;
    assert!(quiet.is_err());
    // Another client requests a message from the same consumer and receives the second one.
    let thief = server.client().await;
    let mut loot = thief.subscribe("loot").await.unwrap();
    let ask = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.lantern_test");
    thief
        .publish_with_reply(ask, "loot", "{\"batch\":1,\"expires\":9000000000}".into())
        .await
        .unwrap();
    thief.flush().await.unwrap();
    publish(&server, 1, 2).await;
    let stolen = tokio::time::timeout(Duration::from_secs(5), futures_util::StreamExt::next(&mut loot)).await;
    assert!(stolen.unwrap().is_some());
    let error = failure(&mut subscription).await;
    assert!(matches!(error, PullError::Hole { .. }), "{error}");
}
