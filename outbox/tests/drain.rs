//! The drain with a real broker: order, window, blocked subjects, lost connections, rejected events.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::stream;
use futures_util::StreamExt;
use lantern_outbox::{Broker, DrainOptions, DrainState, Event, Outbox};
use support::line::Line;
use support::*;

fn numbered(subject: &str, count: usize) -> Vec<Event> {
    numbers(count)
        .into_iter()
        .map(|number| Event::new(subject, number))
        .collect()
}

fn options(change: impl FnOnce(&mut DrainOptions)) -> DrainOptions {
    let mut options = DrainOptions::default();
    change(&mut options);
    options
}

#[tokio::test]
async fn events_arrive_in_order_with_payload_headers_and_id() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let binary: Vec<u8> = (0..=255).collect();
    let special = Event::new("obs.special", binary.clone())
        .with_header("Trace", "a: b")
        .with_header("Trace", "again")
        .with_id("my id");
    outbox.put(&special).unwrap();
    let events: Vec<Event> = (0..2000)
        .map(|n| Event::new(format!("obs.{}", n % 3), n.to_string()))
        .collect();
    let ids = outbox.put_all(&events).unwrap();
    assert!(ids.is_sorted());
    assert_eq!(outbox.len().unwrap(), 2001);

    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    drain.stop().await;

    let messages = server.messages("OBS").await;
    assert_eq!(messages.len(), 2001);
    for subject in 0..3 {
        let expected: Vec<String> = (0..2000)
            .filter(|n| n % 3 == subject)
            .map(|n| n.to_string())
            .collect();
        assert_eq!(payloads(&messages, &format!("obs.{subject}")), expected);
    }
    let first = messages
        .iter()
        .find(|message| message.subject == "obs.special")
        .unwrap();
    assert_eq!((first.id.as_str(), &first.payload), ("my id", &binary));
    let trace: Vec<&str> = first
        .headers
        .get_all("Trace")
        .map(|value| value.as_str())
        .collect();
    assert_eq!(trace, ["a: b", "again"]);
    let stored: std::collections::HashSet<&str> =
        messages.iter().map(|message| message.id.as_str()).collect();
    assert!(
        ids.iter().all(|id| stored.contains(id.to_string().as_str())),
        "the entry's id is the message id"
    );
    let stats = outbox.stats().unwrap();
    assert_eq!(
        (stats.published, stats.duplicates, stats.waiting, stats.in_flight),
        (2001, 0, 0, 0)
    );
    assert_eq!((stats.last_error, stats.drain), (None, DrainState::Stopped));
}

#[tokio::test]
async fn new_events_of_this_and_other_processes_are_published_soon() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    // Without polling, only the notification within the process wakes the drain.
    let drain = Running::start_with(
        &outbox,
        server.broker(),
        options(|o| o.poll_interval = Duration::from_secs(3600)),
    );
    wait_for("the connection", || async {
        (outbox.stats().unwrap().drain == DrainState::Connected).then_some(())
    })
    .await;
    for n in 0..20 {
        outbox.put(&Event::new("obs.a", n.to_string())).unwrap();
        wait_until_empty(&outbox).await;
    }
    drain.stop().await;
    // Another outbox handle represents another process: they share only the directory.
    let drain = Running::start(&outbox, server.broker());
    let other = Outbox::open(dir.path()).unwrap();
    for n in 20..23 {
        other.put(&Event::new("obs.a", n.to_string())).unwrap();
        wait_until_empty(&outbox).await;
    }
    drain.stop().await;
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), numbers(23));
}

#[tokio::test]
async fn the_window_limits_the_events_in_flight() {
    let server = NatsServer::start().await;
    let client = server.client().await;
    // A subscriber that does not reply, without a stream.
    let mut deaf = client.subscribe("deaf.>").await.unwrap();
    client.flush().await.unwrap();
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let events: Vec<Event> = (0..100)
        .map(|n| Event::new(format!("deaf.{n}"), vec![0; 1000]))
        .collect();
    outbox.put_all(&events).unwrap();
    outbox.put_all(&events).unwrap();

    for (options, expected) in [
        (options(|o| o.window = 7), 7),
        (options(|o| o.window_bytes = 4500), 5),
        // One per subject, because none has been acknowledged.
        (options(|_| {}), 100),
    ] {
        let drain = Running::start_with(&outbox, server.broker(), options);
        for _ in 0..expected {
            tokio::time::timeout(PATIENCE, deaf.next())
                .await
                .expect("the window is filled")
                .unwrap();
        }
        let more = tokio::time::timeout(Duration::from_millis(300), deaf.next()).await;
        assert!(more.is_err(), "more than {expected} were in flight");
        assert_eq!(outbox.stats().unwrap().in_flight, expected);
        drain.stop().await;
    }
    assert_eq!(outbox.len().unwrap(), 200);
}

#[tokio::test]
async fn a_repeatedly_killed_broker_gets_every_event_once_and_in_order() {
    const EVENTS: usize = 6_000;
    let mut server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put_all(&numbered("obs.a", EVENTS)).unwrap();
    let drain = Running::start(&outbox, server.broker());
    for round in 1..=4 {
        wait_until_waiting(&outbox, (EVENTS - round * EVENTS / 5) as u64).await;
        server.kill();
        server.restart().await;
    }
    wait_until_empty(&outbox).await;
    drain.stop().await;
    let found = payloads(&server.messages("OBS").await, "obs.a");
    assert!(
        found == numbers(EVENTS),
        "{} of {EVENTS} or out of order",
        found.len()
    );
}

/// Events sent to a dead connection are lost, queued ones are not: a reconnecting client would send the later events first.
#[tokio::test]
async fn a_connection_that_loses_data_does_not_change_the_order() {
    const EVENTS: usize = 6_000;
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let line = Line::to(server.address()).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put_all(&numbered("obs.a", EVENTS)).unwrap();
    let drain = Running::start(&outbox, line.broker());
    for round in 1..=10 {
        wait_until_waiting(&outbox, (EVENTS - round * EVENTS / 11) as u64).await;
        line.lose_to_server();
        tokio::time::sleep(Duration::from_millis(round as u64 % 4 * 5)).await;
        line.cut();
    }
    wait_until_empty(&outbox).await;
    drain.stop().await;
    let found = payloads(&server.messages("OBS").await, "obs.a");
    assert!(
        found == numbers(EVENTS),
        "{} of {EVENTS} or out of order",
        found.len()
    );
}

#[tokio::test]
async fn events_with_a_lost_acknowledgement_are_detected_as_duplicates() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let line = Line::to(server.address()).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let drain = Running::start(&outbox, line.broker());
    outbox.put(&Event::new("obs.a", "0")).unwrap();
    wait_until_empty(&outbox).await;
    line.lose_to_client();
    outbox.put(&Event::new("obs.a", "1")).unwrap();
    wait_for("the event to be stored", || async {
        (server.count("OBS").await == 2).then_some(())
    })
    .await;
    assert_eq!(
        outbox.len().unwrap(),
        1,
        "without an acknowledgement the file stays"
    );
    line.cut();
    wait_until_empty(&outbox).await;
    drain.stop().await;
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), numbers(2));
    let stats = outbox.stats().unwrap();
    assert_eq!((stats.published, stats.duplicates, stats.late_repeats), (2, 1, 0));
    assert!(
        stats.last_error.unwrap().message.contains("connection"),
        "the loss is reported"
    );
}

/// A process killed after publishing and before removing the file.
#[tokio::test]
async fn a_published_file_that_remains_is_a_duplicate() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put_all(&numbered("obs.a", 10)).unwrap();
    let copies: Vec<(String, Vec<u8>)> = event_names(dir.path())
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(dir.path().join(name)).unwrap()))
        .collect();
    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    for (name, bytes) in copies {
        std::fs::write(dir.path().join(format!("{name}.new")), bytes).unwrap();
        std::fs::rename(dir.path().join(format!("{name}.new")), dir.path().join(name)).unwrap();
    }
    wait_until_empty(&outbox).await;
    drain.stop().await;
    let stats = outbox.stats().unwrap();
    assert_eq!((stats.published, stats.duplicates), (20, 10));
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), numbers(10));
}

#[tokio::test]
async fn a_subject_without_a_stream_does_not_block_others() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put_all(&numbered("late.a", 500)).unwrap();
    outbox.put_all(&numbered("obs.a", 500)).unwrap();
    let drain = Running::start(&outbox, server.broker());
    wait_until_waiting(&outbox, 500).await;
    let blocked = wait_for("a second refusal", || async {
        outbox
            .stats()
            .unwrap()
            .blocked
            .pop()
            .filter(|blocked| blocked.attempts >= 2)
    })
    .await;
    assert_eq!(
        (blocked.subject.as_str(), blocked.reason.as_str()),
        ("late.a", "no stream has this subject")
    );
    outbox.put(&Event::new("obs.b", "new")).unwrap();
    wait_until_waiting(&outbox, 500).await;

    server.create_stream("LATE", &["late.>"]).await;
    wait_until_empty(&outbox).await;
    let stats = outbox.stats().unwrap();
    assert_eq!(
        (stats.blocked_subjects, stats.published, stats.duplicates),
        (0, 1001, 0)
    );
    drain.stop().await;
    assert_eq!(payloads(&server.messages("LATE").await, "late.a"), numbers(500));
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), numbers(500));
}

/// A full stream that rejects messages, and then has space again.
#[tokio::test]
async fn a_full_stream_blocks_only_its_own_subjects() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let full = stream::Config {
        name: "FULL".to_owned(),
        subjects: vec!["full.>".to_owned()],
        max_messages: 10,
        discard: stream::DiscardPolicy::New,
        ..Default::default()
    };
    let stream = server.create_stream_with(full).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put_all(&numbered("full.a", 25)).unwrap();
    outbox.put_all(&numbered("obs.a", 100)).unwrap();
    let drain = Running::start(&outbox, server.broker());
    wait_until_waiting(&outbox, 15).await;
    let mut found = Vec::new();
    for waiting in [5, 0] {
        wait_for("the refusal", || async { outbox.stats().unwrap().blocked.pop() }).await;
        found.extend(payloads(&server.messages("FULL").await, "full.a"));
        stream.purge().await.unwrap();
        wait_until_waiting(&outbox, waiting).await;
    }
    found.extend(payloads(&server.messages("FULL").await, "full.a"));
    drain.stop().await;
    assert_eq!(found, numbers(25));
    assert_eq!(server.count("OBS").await, 100);
}

#[tokio::test]
async fn events_that_the_broker_can_never_accept_go_aside_with_the_reason() {
    let mut server = NatsServer::start().await;
    let small = stream::Config {
        name: "SMALL".to_owned(),
        subjects: vec!["small.>".to_owned()],
        max_message_size: 500,
        ..Default::default()
    };
    server.create_stream_with(small).await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    // The limit of the broker is lower than that of the outbox.
    server.restart_with("max_payload: 2000").await;
    outbox.put(&Event::new("obs.a", vec![b'x'; 3000])).unwrap();
    outbox.put(&Event::new("small.a", vec![b'x'; 1000])).unwrap();
    outbox.put(&Event::new("obs.a", "after")).unwrap();
    outbox.put(&Event::new("small.a", "after")).unwrap();
    let expected = Event::new("obs.a", "on condition").with_header("Nats-Expected-Last-Sequence", "77");
    outbox.put(&expected).unwrap();
    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    let stats = outbox.stats().unwrap();
    assert_eq!((stats.published, stats.aside, stats.blocked_subjects), (2, 3, 0));
    drain.stop().await;
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), ["after"]);
    assert_eq!(payloads(&server.messages("SMALL").await, "small.a"), ["after"]);
    let aside = dir.path().join("aside");
    let reasons: Vec<String> = names(&aside)
        .iter()
        .filter(|name| name.ends_with(".reason"))
        .map(|name| std::fs::read_to_string(aside.join(name)).unwrap())
        .collect();
    assert_eq!(reasons.len(), 3);
    assert!(
        reasons[0].contains("Payload size limit of 2000 exceeded"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains("message size exceeds maximum allowed"),
        "{reasons:?}"
    );
    assert!(reasons[2].contains("wrong last sequence"), "{reasons:?}");

    // An operator raises the limit and moves the file back.
    server.restart_with("").await;
    let name = event_names(&aside).remove(0);
    std::fs::rename(aside.join(&name), dir.path().join(&name)).unwrap();
    let drain = Running::start(&outbox, server.broker());
    wait_until_empty(&outbox).await;
    drain.stop().await;
    assert_eq!(server.messages("OBS").await[1].payload.len(), 3000);
}

/// The server responds to such a publish only with a log line and an error for the connection.
#[tokio::test]
async fn a_subject_without_permission_does_not_block_others() {
    let config = "authorization { users: [
        { user: admin, password: x }
        { user: agent, password: x, permissions: { publish: { deny: [\"secret.>\"] } } } ] }";
    let server = NatsServer::start_with(config).await;
    let admin = ConnectOptions::with_user_and_password("admin".into(), "x".into());
    let context = async_nats::jetstream::new(admin.connect(server.url()).await.unwrap());
    let stream = |name: &str, subject: &str| stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    };
    context.create_stream(stream("OBS", "obs.>")).await.unwrap();
    context.create_stream(stream("SECRET", "secret.>")).await.unwrap();
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put(&Event::new("secret.a", "x")).unwrap();
    outbox.put_all(&numbered("obs.a", 1000)).unwrap();
    let agent = ConnectOptions::with_user_and_password("agent".into(), "x".into());
    let broker = Broker::new(server.url(), agent).unwrap();
    let short = options(|o| o.ack_timeout = Duration::from_millis(500));
    let drain = Running::start_with(&outbox, broker, short);
    wait_until_waiting(&outbox, 1).await;
    let blocked = wait_for("the refusal", || async {
        outbox.put(&Event::new("obs.b", "more")).unwrap();
        outbox.stats().unwrap().blocked.pop()
    })
    .await;
    assert_eq!(blocked.subject, "secret.a");
    assert!(
        blocked.reason.contains("Permissions Violation"),
        "{}",
        blocked.reason
    );
    wait_until_waiting(&outbox, 1).await;
    drain.stop().await;
}

#[tokio::test]
async fn a_hanging_broker_is_disconnected_and_retried() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put_all(&numbered("obs.a", 3_000)).unwrap();
    let short = options(|o| o.ack_timeout = Duration::from_millis(500));
    let drain = Running::start_with(&outbox, server.broker(), short);
    wait_until_waiting(&outbox, 2_700).await;
    server.signal("STOP");
    wait_for("the drain to notice", || async {
        let error = outbox.stats().unwrap().last_error?;
        error.message.contains("did not respond").then_some(())
    })
    .await;
    server.signal("CONT");
    wait_until_empty(&outbox).await;
    drain.stop().await;
    let found = payloads(&server.messages("OBS").await, "obs.a");
    assert!(
        found == numbers(3_000),
        "{} of 3,000 or out of order",
        found.len()
    );
}

#[tokio::test]
async fn an_unreachable_broker_is_retried() {
    let mut server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    server.kill();
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    outbox.put(&Event::new("obs.a", "0")).unwrap();
    let drain = Running::start(&outbox, server.broker());
    let error = wait_for("the error", || async { outbox.stats().unwrap().last_error }).await;
    assert!(
        error.message.contains("cannot connect to the broker"),
        "{}",
        error.message
    );
    assert_eq!(outbox.stats().unwrap().drain, DrainState::Disconnected);
    server.restart().await;
    wait_until_empty(&outbox).await;
    drain.stop().await;
}
