//! Tests ephemeral reads: they return everything in a stream in order, whatever the content, and leave no trace on the
//! broker.

use futures_util::TryStreamExt as _;
use lantern_broker::EphemeralRead;

use super::messages::publish_raw;
use super::*;

/// Reads until the end of the stream.
async fn all(reading: &mut EphemeralRead) -> Vec<Delivery> {
    let mut all = Vec::new();
    loop {
        let batch = reading.next(100, 1 << 20, Duration::ZERO).await.unwrap();
        if batch.is_empty() {
            return all;
        }
        assert!(batch.len() <= 100);
        all.extend(batch);
    }
}

/// The names of the consumers of a stream.
async fn consumer_names(stream: &jetstream::stream::Stream) -> Vec<String> {
    stream.consumer_names().try_collect().await.unwrap()
}

async fn consumers(stream: &mut jetstream::stream::Stream) -> usize {
    stream.info().await.unwrap().state.consumer_count
}

#[tokio::test]
async fn stored_messages_are_read_in_order_and_the_consumer_is_deleted() {
    let server = NatsServer::start();
    let mut stream = stream(&server).await;
    let broker = broker(&server).await;
    publish(&server, 1, 1_234).await;
    stream.delete_message(700).await.unwrap();
    let mut reading = broker.read(STREAM, &[], 500).await.unwrap().unwrap();
    let read = sequences(&all(&mut reading).await);
    assert_eq!(
        read,
        (500..=1_234)
            .filter(|&sequence| sequence != 700)
            .collect::<Vec<_>>()
    );
    let made = consumer_names(&stream).await;
    assert_eq!(made.len(), 1);
    // The read continues with new messages.
    publish(&server, 1_235, 1).await;
    let next = reading
        .next(100, 1 << 20, Duration::from_millis(500))
        .await
        .unwrap();
    assert_eq!(sequences(&next), [1_235]);
    assert_eq!(
        consumer_names(&stream).await,
        made,
        "an end counted as a loss, after which the read creates a new consumer"
    );
    reading.close().await;
    assert_eq!(consumers(&mut stream).await, 0);
    assert!(broker.read("NONE", &[], 1).await.unwrap().is_none());
    let beyond = broker.stored_message(STREAM, 700).await.unwrap();
    assert_eq!(beyond, None);
    let one = broker.stored_message(STREAM, 701).await.unwrap().unwrap();
    assert_eq!((one.subject.as_str(), &one.payload[..]), ("ev.a", &b"701"[..]));
}

#[tokio::test]
async fn messages_that_break_a_connection_and_large_ones_are_passed() {
    let server = NatsServer::start();
    let _stream = stream(&server).await;
    let broker = broker(&server).await;
    // After a failure, the read passes some messages one by one, in which the next one would not be noticed.
    for number in 0..3 {
        publish(&server, 1 + number * 151, 150).await;
        publish_raw(&server, b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n", b"not utf-8").await;
    }
    let large = vec![b'x'; 700_000];
    let jetstream = server.jetstream().await;
    crate::nats::publish(&jetstream, "ev.a", large).await;
    publish(&server, 455, 150).await;
    publish_raw(&server, b"NATS/1.0\r\nX: a\rb\r\n\r\n", b"the library panics").await;
    let mut reading = broker.read(STREAM, &[], 1).await.unwrap().unwrap();
    let mut read = Vec::new();
    loop {
        let batch = reading.next(100, 100_000, Duration::ZERO).await.unwrap();
        if batch.is_empty() {
            break;
        }
        read.extend(sequences(&batch));
    }
    assert_eq!(read, (1..=605).collect::<Vec<_>>());
    // Each of four messages ends the connection. The read notices it, instead of waiting for an answer that cannot arrive.
    assert_eq!(reading.lost_connections(), 4);
    reading.close().await;
    assert!(
        broker.link().borrow().is_connected(),
        "the host's own connection is not touched"
    );
}

#[tokio::test]
async fn the_last_messages_are_found_in_a_shared_stream() {
    let server = NatsServer::start();
    let mut stream = stream(&server).await;
    let broker = broker(&server).await;
    let jetstream = server.jetstream().await;
    for number in 1..=600 {
        // Many at the beginning, few at the end.
        let rare = if number < 200 {
            number % 2 == 0
        } else {
            number % 50 == 0
        };
        let subject = if rare { "ev.rare" } else { "ev.a" };
        crate::nats::publish(&jetstream, subject, "x").await;
    }
    let rare = ["ev.rare".to_owned()];
    for messages in [1, 5, 9, 10, 40, 105, 108, 500] {
        let (first, surplus) = broker.sequence_of_last(STREAM, &rare, messages).await.unwrap();
        let mut reading = broker.read(STREAM, &rare, first).await.unwrap().unwrap();
        let read = all(&mut reading).await;
        reading.close().await;
        assert_eq!(
            read.len() as u64 - surplus,
            messages.min(108),
            "{messages}: {first}, {surplus}"
        );
    }
    assert_eq!(broker.sequence_of_last(STREAM, &[], 100).await.unwrap(), (501, 0));
    assert_eq!(consumers(&mut stream).await, 0);
}

#[tokio::test]
async fn a_stream_that_deletes_acknowledged_messages_is_read_without_a_consumer() {
    let server = NatsServer::start();
    let mut stream = stream_with(&server, jetstream::stream::RetentionPolicy::WorkQueue).await;
    let broker = broker(&server).await;
    publish(&server, 1, 30).await;
    let (first, surplus) = broker.sequence_of_last(STREAM, &[], 10).await.unwrap();
    assert_eq!((first, surplus), (21, 0));
    let mut reading = broker.read(STREAM, &[], first).await.unwrap().unwrap();
    assert_eq!(sequences(&all(&mut reading).await), (21..=30).collect::<Vec<_>>());
    assert_eq!(consumers(&mut stream).await, 0);
    assert_eq!(stream.info().await.unwrap().state.messages, 30);
    reading.close().await;
}
