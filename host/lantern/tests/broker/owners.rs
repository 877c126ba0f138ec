//! Tests two hosts that share one consumer.

use lantern_broker::{OpenError, OpenRequest, TakeOver};

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

    // While the consumer is in use, the host refuses a takeover even if an operator requests it.
    let error = second
        .take_over(STREAM, "lantern_test", "host-b")
        .await
        .err()
        .unwrap();
    assert!(matches!(error, OpenError::Taken { idle: false, .. }), "{error}");

    // The first host stops. It may only be restarting, so its consumer is not taken over until an operator requests it.
    drop(reading);
    first.stop().await;
    let error = second.open(theirs.clone()).await.err().unwrap();
    assert!(
        matches!(&error, OpenError::Taken { owner: Some(owner), .. } if owner == "host-a"),
        "{error}"
    );
    super::nats::eventually("the consumer is idle", super::LIMIT, async || {
        let facts = second.consumer_facts(STREAM, "lantern_test").await.unwrap();
        facts.unwrap().waiting == 0
    })
    .await;
    let error = second.open(theirs.clone()).await.err().unwrap();
    assert!(error.hint().unwrap().contains("take-over"), "{error}");
    let again = broker(&server).await;
    drop(again.open(request(11)).await.unwrap());
    again.stop().await;
    super::nats::eventually("the consumer is idle", super::LIMIT, async || {
        let facts = second.consumer_facts(STREAM, "lantern_test").await.unwrap();
        facts.unwrap().waiting == 0
    })
    .await;
    let taken = second.take_over(STREAM, "lantern_test", "host-b").await.unwrap();
    assert_eq!(taken, TakeOver::Taken(Some("host-a".into())));
    let taken = second.take_over(STREAM, "lantern_test", "host-b").await.unwrap();
    assert_eq!(taken, TakeOver::Own);
    let taken = second.take_over(STREAM, "nothing", "host-b").await.unwrap();
    assert_eq!(taken, TakeOver::Absent);
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
    assert!(
        matches!(error, OpenError::Busy { .. }) && error.is_retryable(),
        "{error}"
    );
    assert!(error.to_string().contains("a copy of this database"), "{error}");
    publish(&server, 1, 1).await;
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_consumer_of_the_same_host_is_used_at_once() {
    let server = NatsServer::start();
    stream(&server).await;
    publish(&server, 1, 3).await;
    let first = broker(&server).await;
    let mut reading = first.open(request(0)).await.unwrap();
    next(&mut reading).await.unwrap();
    drop(first);
    drop(reading);
    let again = broker(&server).await;
    // An open request of the earlier connection would be reported as in use.
    let mut reading = again.open(request(3)).await.unwrap();
    publish(&server, 4, 1).await;
    assert_eq!(sequences(&read(&mut reading, 1).await), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_rejects_the_subjects_that_the_manifest_check_rejects() {
    let server = NatsServer::start();
    stream(&server).await;
    let host = broker(&server).await;
    let wanted = |subjects: [&str; 2]| OpenRequest {
        subjects: subjects.map(str::to_owned).into(),
        ..request(0)
    };
    for subjects in [["ev.>", "ev.a"], ["ev.a", "ev.*"], ["ev.a", "ev.a"]] {
        let error = host.open(wanted(subjects)).await.err().unwrap();
        assert!(!error.is_retryable(), "{error}");
        assert!(
            error.to_string().ends_with("(10138)") || error.to_string().ends_with("(10136)"),
            "{error}"
        );
    }
    drop(host.open(wanted(["ev.*.c", "ev.b.*"])).await.unwrap());
}
