//! Tests consumers whose position cannot be trusted: one that another client moves, and one that does not deliver.

use async_nats::jetstream::consumer::Info;
use lantern_broker::OpenRequest;

use super::nats::{NatsServer, eventually};
use super::{LIMIT, STREAM, broker, next, publish, read, reopen, request, sequences, stream};

const CONSUMER: &str = "lantern_test";

async fn consumer(server: &NatsServer) -> Info {
    let stream = server.jetstream().await.get_stream(STREAM).await.unwrap();
    stream.consumer_info(CONSUMER).await.unwrap()
}

/// A reset neither ends a standing pull nor notifies its client: the broker delivers everything again to that client.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_another_client_does_not_fence_a_pull_and_nothing_is_read_twice() {
    let server = NatsServer::start();
    stream(&server).await;
    publish(&server, 1, 20).await;
    let broker = broker(&server).await;
    let mut reading = broker.open(request(0)).await.unwrap();
    assert_eq!(
        sequences(&read(&mut reading, 20).await),
        (1..=20).collect::<Vec<_>>()
    );
    // The pull stands while the subscription waits.
    let waiting = tokio::spawn(async move { next(&mut reading).await });
    eventually("a standing pull", LIMIT, async || {
        consumer(&server).await.num_waiting > 0
    })
    .await;
    let client = server.jetstream().await.client();
    let reset = format!("$JS.API.CONSUMER.RESET.{STREAM}.{CONSUMER}");
    let answer = client.request(reset, r#"{"seq":1}"#.into()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(!answer.contains("\"error\""), "{answer}");
    publish(&server, 21, 1).await;
    // Whatever arrives, the subscription passes on no message twice: it ends, or continues with the new message.
    let after = match waiting.await.unwrap() {
        Ok(pulled) => {
            assert_eq!(sequences(&pulled.deliveries), [21]);
            21
        }
        Err(_) => 20,
    };
    publish(&server, 22, 1).await;
    let mut again = reopen(&broker, request(after)).await;
    let rest = 22 - after;
    let found = read(&mut again, usize::try_from(rest).unwrap()).await;
    assert_eq!(sequences(&found), (after + 1..=22).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_cannot_be_trusted_is_deleted_and_created_after_the_checkpoint() {
    let server = NatsServer::start();
    stream(&server).await;
    publish(&server, 1, 10).await;
    let broker = broker(&server).await;
    let mut reading = broker.open(request(0)).await.unwrap();
    read(&mut reading, 10).await;
    drop(reading);
    let before = consumer(&server).await.created;
    let mut reading = reopen(&broker, request(4)).await;
    assert_eq!(consumer(&server).await.created, before, "it is only moved");
    read(&mut reading, 6).await;
    drop(reading);
    let replacing = OpenRequest {
        replace: true,
        ..request(7)
    };
    let mut reading = reopen(&broker, replacing).await;
    assert_ne!(consumer(&server).await.created, before);
    assert_eq!(sequences(&read(&mut reading, 3).await), [8, 9, 10]);
}
