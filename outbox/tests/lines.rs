//! Publishing lines like `lantern publish`, with a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::io::{BufReader, Cursor, Write};
use std::time::Duration;

use lantern_outbox::{InputFormat, LinesError, LinesOptions, LinesReport, Outbox, publish_lines};
use support::*;
use tokio_util::sync::CancellationToken;

async fn publish(
    server: &NatsServer,
    outbox: &Outbox,
    subject: &str,
    input: impl Into<Vec<u8>>,
    change: impl FnOnce(&mut LinesOptions),
) -> Result<LinesReport, LinesError> {
    let mut options = LinesOptions::default();
    change(&mut options);
    let reader = Cursor::new(input.into());
    publish_lines(
        reader,
        subject,
        outbox,
        server.broker(),
        options,
        CancellationToken::new(),
    )
    .await
}

#[tokio::test]
async fn each_json_line_is_an_event_and_bad_lines_are_reported() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let input = "\u{feff}{\"n\":0}\n\n{\"n\":1}\r\nnot json\n   \n[2]\n{\"n\":\n3";
    let headers = |options: &mut LinesOptions| options.headers.push(("From".to_owned(), "test".to_owned()));
    let report = publish(&server, &outbox, "obs.a", input, headers).await.unwrap();
    assert_eq!((report.lines, report.stored, report.published), (8, 4, 4));
    assert_eq!(
        (report.waiting, report.aside, report.duplicates, report.bad),
        (0, 0, 0, 2)
    );
    let bad: Vec<(u64, &str)> = report
        .bad_lines
        .iter()
        .map(|bad| (bad.number, bad.reason.as_str()))
        .collect();
    assert_eq!(bad, [(4, "not JSON"), (7, "not JSON")]);
    let messages = server.messages("OBS").await;
    assert_eq!(
        payloads(&messages, "obs.a"),
        ["{\"n\":0}", "{\"n\":1}", "[2]", "3"]
    );
    assert!(
        messages
            .iter()
            .all(|message| message.headers.get("From").unwrap().as_str() == "test")
    );
}

#[tokio::test]
async fn raw_lines_are_published_unchanged() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let long = vec![b'x'; 2 * 1024 * 1024];
    let input = [&b"a b\n\n\xff\xfe\n"[..], &long, b"\nend"].concat();
    let report = publish(&server, &outbox, "obs.a", input, |options| {
        options.format = InputFormat::Lines
    })
    .await
    .unwrap();
    assert_eq!(
        (report.lines, report.stored, report.published, report.bad),
        (5, 4, 4, 1)
    );
    assert_eq!(report.bad_lines[0].number, 4);
    let found: Vec<Vec<u8>> = server
        .messages("OBS")
        .await
        .into_iter()
        .map(|message| message.payload)
        .collect();
    assert_eq!(found, [&b"a b"[..], b"", b"\xff\xfe", b"end"]);
}

#[tokio::test]
async fn many_lines_keep_their_order() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let input = numbers(5000).join("\n");
    let report = publish(&server, &outbox, "obs.a", input, |_| {}).await.unwrap();
    assert_eq!((report.stored, report.published, report.waiting), (5000, 5000, 0));
    assert_eq!(payloads(&server.messages("OBS").await, "obs.a"), numbers(5000));
}

#[tokio::test]
async fn a_line_of_an_open_pipe_is_published_immediately() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let (pipe, mut writer) = std::io::pipe().unwrap();
    let cancel = CancellationToken::new();
    let publishing = tokio::spawn({
        let (outbox, broker, cancel) = (outbox.clone(), server.broker(), cancel.clone());
        async move {
            publish_lines(
                BufReader::new(pipe),
                "obs.a",
                &outbox,
                broker,
                LinesOptions::default(),
                cancel,
            )
            .await
        }
    });
    for count in 1..=3 {
        writer.write_all(b"{}\n").unwrap();
        wait_for("the line", || async {
            (server.count("OBS").await == count).then_some(())
        })
        .await;
    }
    cancel.cancel();
    let report = tokio::time::timeout(PATIENCE, publishing)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!((report.stored, report.published), (3, 3));
}

#[tokio::test]
async fn unpublished_lines_are_counted_and_published_by_the_next_run() {
    let mut server = NatsServer::start().await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let short = |options: &mut LinesOptions| options.patience = Duration::from_millis(700);
    let report = publish(&server, &outbox, "obs.a", "1\n2\n", short).await.unwrap();
    assert_eq!((report.stored, report.published, report.waiting), (2, 0, 2));
    assert_eq!(report.blocked[0].reason, "no stream has this subject");
    let left: Vec<_> = report
        .unpublished
        .iter()
        .map(|left| (left.line, &left.aside))
        .collect();
    assert_eq!(left, [(1, &None), (2, &None)]);
    assert!(report.unpublished.iter().all(|left| left.file.is_file()));

    server.kill();
    let report = publish(&server, &outbox, "obs.a", "3", short).await.unwrap();
    assert_eq!((report.stored, report.published, report.waiting), (1, 0, 1));
    assert!(report.last_error.unwrap().message.contains("cannot connect"));

    server.restart().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let report = publish(&server, &outbox, "obs.a", "4", |_| {}).await.unwrap();
    assert_eq!((report.stored, report.published, report.waiting), (1, 1, 0));
    assert_eq!(
        payloads(&server.messages("OBS").await, "obs.a"),
        ["1", "2", "3", "4"]
    );
}

/// A separate service drains the directory.
#[tokio::test]
async fn another_drain_publishes_the_lines() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let service = Outbox::open(dir.path()).unwrap();
    let drain = Running::start(&service, server.broker());
    wait_for("the service", || async {
        (service.stats().unwrap().drain == lantern_outbox::DrainState::Connected).then_some(())
    })
    .await;
    let outbox = Outbox::open(dir.path()).unwrap();
    let report = publish(&server, &outbox, "obs.a", "1\n2", |_| {}).await.unwrap();
    assert_eq!((report.stored, report.published, report.waiting), (2, 2, 0));
    assert_eq!(service.published(), 2);
    drain.stop().await;
}

#[tokio::test]
async fn an_invalid_subject_is_rejected_before_reading() {
    let server = NatsServer::start().await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    for subject in ["", "a.*", "a b"] {
        let refused = publish(&server, &outbox, subject, "1", |_| {}).await;
        assert!(
            matches!(refused, Err(LinesError::Invalid(_))),
            "{subject:?}: {refused:?}"
        );
    }
    assert_eq!(outbox.len().unwrap(), 0);
}

#[tokio::test]
async fn the_whole_input_is_one_message() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let whole = |options: &mut LinesOptions| options.format = InputFormat::Whole;
    let bytes = b"\xef\xbb\xbfa\r\n\n\x00\xff\n";
    let report = publish(&server, &outbox, "obs.a", &bytes[..], whole)
        .await
        .unwrap();
    assert_eq!((report.lines, report.published), (1, 1));
    let report = publish(&server, &outbox, "obs.a", vec![b'x'; 2 << 20], whole)
        .await
        .unwrap();
    assert_eq!((report.lines, report.published, report.bad), (1, 0, 1));
    let messages = server.messages("OBS").await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].payload, bytes);
}

#[tokio::test]
async fn a_message_id_from_a_field_deduplicates_lines() {
    let server = NatsServer::start().await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let by_id = |options: &mut LinesOptions| options.id_field = Some("id".to_owned());
    let input = "{\"id\":\"a\"}\n{\"id\":2}\n{\"n\":1}\n{\"id\":\"a\",\"again\":true}\n";
    let report = publish(&server, &outbox, "obs.a", input, by_id).await.unwrap();
    assert_eq!((report.stored, report.published, report.duplicates), (3, 3, 1));
    assert_eq!(report.bad_lines[0].number, 3);
    assert_eq!(server.count("OBS").await, 2);
}

#[tokio::test]
async fn a_rejected_line_is_reported_with_number_reason_and_file() {
    let mut server = NatsServer::start().await;
    server.restart_with("max_payload: 1000").await;
    server.create_stream("OBS", &["obs.>"]).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let large = format!("\"{}\"", "x".repeat(5000));
    let input = format!("1\n\n{large}\n2\n");
    let report = publish(&server, &outbox, "obs.a", input, |_| {}).await.unwrap();
    assert_eq!((report.stored, report.published, report.aside), (3, 2, 1));
    let [left] = &report.unpublished[..] else {
        panic!("{report:?}")
    };
    assert_eq!(left.line, 3);
    let reason = left.aside.as_deref().unwrap();
    assert!(reason.contains("the broker can never accept it: "), "{reason}");
    assert!(left.file.starts_with(dir.path().join("aside")) && left.file.is_file());
}

#[tokio::test]
async fn a_stream_without_acknowledgements_is_reported() {
    let server = NatsServer::start().await;
    let config = async_nats::jetstream::stream::Config {
        name: "OBS".to_owned(),
        subjects: vec!["obs.>".to_owned()],
        no_ack: true,
        ..Default::default()
    };
    server.create_stream_with(config).await;
    let dir = scratch();
    let outbox = Outbox::open(dir.path()).unwrap();
    let report = publish(&server, &outbox, "obs.a", "1\n2\n", |options| {
        options.patience = Duration::from_secs(3);
        options.drain.ack_timeout = Duration::from_millis(500);
    });
    let report = report.await.unwrap();
    assert_eq!((report.published, report.waiting), (0, 2));
    let error = report.last_error.unwrap().message;
    assert!(error.contains("no_ack"), "{error}");
}
