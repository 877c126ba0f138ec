//! Tests connecting, and loss of the connection.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use lantern_broker::{Broker, BrokerConfig, BrokerError, BrokerLocation, Link, Remote, SecretSource};

use super::nats::{NatsServer, eventually};
use super::{STREAM, broker, connected, filled, read, request, wait_for_link};

#[tokio::test(flavor = "multi_thread")]
async fn the_host_waits_for_a_broker_that_starts_later() {
    let mut server = NatsServer::prepared("");
    let broker = Broker::connect(BrokerConfig::remote(server.url())).await.unwrap();
    let link = wait_for_link(&broker, |link| {
        matches!(
            link,
            Link::Connecting {
                last_error: Some(_),
                ..
            }
        )
    })
    .await;
    assert!(format!("{link:?}").contains("refused"), "{link:?}");
    let error = broker.stream_facts(STREAM).await.unwrap_err();
    assert!(
        matches!(error, BrokerError::NotConnected { .. }) && error.is_retryable(),
        "{error}"
    );
    server.restart();
    let Link::Connected(found) = wait_for_link(&broker, Link::is_connected).await else {
        unreachable!()
    };
    assert_eq!((found.generation, found.jetstream), (1, true));
    assert_eq!(found.url, server.url());
    assert!(found.version.major >= 2 && found.max_payload > 1_000_000);
    server.kill();
    wait_for_link(&broker, |link| !link.is_connected()).await;
    server.restart();
    let Link::Connected(found) = wait_for_link(&broker, Link::is_connected).await else {
        unreachable!()
    };
    assert_eq!(found.generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_credentials_are_reported_and_new_ones_are_used() {
    let mut server = NatsServer::start_with("authorization { user: ann, password: right }");
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let remote = Remote {
        urls: vec![server.url()],
        user: Some("ann".into()),
        password: Some(SecretSource::File(password.clone())),
        ..Remote::default()
    };
    let broker = Broker::connect(BrokerConfig::new(BrokerLocation::Remote(remote)))
        .await
        .unwrap();
    let link = wait_for_link(&broker, |link| matches!(link, Link::Refused { .. })).await;
    let Link::Refused { why, hint } = link else {
        unreachable!()
    };
    assert!(
        why.contains("refuses the credentials") && hint.contains("credentials"),
        "{why} {hint}"
    );
    let error = broker.stream_facts(STREAM).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
    std::fs::write(&password, "right\n").unwrap();
    connected(&broker).await;

    // Access is revoked while the host is connected; the host must not retry too often.
    server.configure("authorization { user: ann, password: newer }");
    server.restart();
    wait_for_link(&broker, |link| matches!(link, Link::Refused { .. })).await;
    let before = server.log().matches("authentication error").count();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let attempts = server.log().matches("authentication error").count() - before;
    assert!((1..=4).contains(&attempts), "{attempts} attempts in 5 s");
    std::fs::remove_file(&password).unwrap();
    let link = wait_for_link(&broker, |link| format!("{link:?}").contains("password file")).await;
    assert!(matches!(link, Link::Refused { .. }), "{link:?}");
    std::fs::write(&password, "newer").unwrap();
    connected(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_the_url_is_used_and_never_displayed() {
    let server = NatsServer::start_with("authorization { user: ann, password: \"s3cret/%\" }");
    let url = server.url().replace("nats://", "nats://ann:s3cret%2F%25@");
    let config = BrokerConfig::remote(url);
    let broker = Broker::connect(config).await.unwrap();
    connected(&broker).await;
    assert!(!format!("{:?}", *broker.link().borrow()).contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_an_nkey_are_accepted() {
    let server = NatsServer::start_with("authorization { token: tok }");
    let broker = Broker::connect(BrokerConfig::remote(server.url().replace("//", "//tok@")))
        .await
        .unwrap();
    connected(&broker).await;

    let pair = nkeys::KeyPair::new_user();
    let users = format!("authorization {{ users: [{{ nkey: {} }}] }}", pair.public_key());
    let server = NatsServer::start_with(&users);
    let seed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(seed.path(), pair.seed().unwrap()).unwrap();
    let remote = Remote {
        urls: vec![server.url()],
        nkey_file: Some(seed.path().to_owned()),
        ..Remote::default()
    };
    let broker = Broker::connect(BrokerConfig::new(BrokerLocation::Remote(remote)))
        .await
        .unwrap();
    connected(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_of_the_nats_cli_is_used() {
    let server = NatsServer::start_with("authorization { user: ann, password: pw }");
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        r#"{{"description":"","url":"{}","user":"ann","password":"pw","inbox_prefix":"_MINE","creds":""}}"#,
        server.url()
    );
    std::fs::write(folder.path().join("lab.json"), text).unwrap();
    let place = BrokerLocation::Context {
        name: "lab".into(),
        folder: Some(folder.path().to_owned()),
    };
    let broker = Broker::connect(BrokerConfig::new(place)).await.unwrap();
    connected(&broker).await;
    assert!(broker.ensure_stream(STREAM, &["ev.>".into()]).await.unwrap());
    assert!(
        !broker.ensure_stream(STREAM, &["other".into()]).await.unwrap(),
        "an existing one is left alone"
    );
    assert_eq!(
        broker.stream_facts(STREAM).await.unwrap().unwrap().subjects,
        ["ev.>"]
    );
    let error = broker.ensure_stream("OTHER", &["ev.a".into()]).await.unwrap_err();
    assert!(
        error.to_string().contains("overlap") && !error.is_retryable(),
        "{error}"
    );
}

/// Starts a fake server that reports version 2.9.10, as in Debian, and answers pings.
fn old_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let info = "INFO {\"server_id\":\"old\",\"version\":\"2.9.10\",\"max_payload\":1048576,\"headers\":true}\r\n";
            stream.write_all(info.as_bytes()).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if buffer[..count].windows(4).any(|word| word == b"PING") {
                        stream.write_all(b"PONG\r\n").unwrap();
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_too_old_is_rejected_with_the_reason() {
    let broker = Broker::connect(BrokerConfig::remote(format!("nats://127.0.0.1:{}", old_server())))
        .await
        .unwrap();
    let link = wait_for_link(&broker, |link| matches!(link, Link::Refused { .. })).await;
    let Link::Refused { why, .. } = link else {
        unreachable!()
    };
    assert_eq!(why, "nats-server 2.9.10 is too old: 2.10 or later is required");
    assert!(matches!(broker.open(request(0)).await, Err(error) if !error.is_retryable()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_jetstream_is_reported() {
    let port = super::nats::free_port();
    let mut child = std::process::Command::new(super::nats::binary())
        .args(["-a", "127.0.0.1", "-p", &port.to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let broker = Broker::connect(BrokerConfig::remote(format!("nats://127.0.0.1:{port}")))
        .await
        .unwrap();
    let Link::Connected(found) = wait_for_link(&broker, Link::is_connected).await else {
        unreachable!()
    };
    assert!(!found.jetstream);
    let error = broker.stream_facts(STREAM).await.unwrap_err();
    assert!(
        matches!(error, BrokerError::NoJetStream { .. }) && error.hint().is_some(),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn core_messages_arrive_in_order_and_survive_a_reconnect() {
    let mut server = NatsServer::start();
    let broker = broker(&server).await;
    let mut core = broker
        .subscribe_core(&["hb.>".into(), "perf.*".into()])
        .await
        .unwrap();
    for round in 0..2 {
        let client = server.client().await;
        eventually("the subscription is there", Duration::from_secs(10), async || {
            client.publish("hb.one", "1".into()).await.unwrap();
            client.flush().await.unwrap();
            let got = tokio::time::timeout(Duration::from_millis(200), core.next(100, 1_000)).await;
            matches!(got, Ok(Ok(batch)) if batch[0].sequence == 0 && batch[0].subject == "hb.one")
        })
        .await;
        assert_eq!(core.dropped(), 0);
        if round == 0 {
            server.restart();
            connected(&broker).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_core_messages_are_dropped_and_counted() {
    let (server, _, broker) = filled(100).await;
    let mut core = broker.subscribe_core(&["flood".into()]).await.unwrap();
    let mut subscription = broker.open(request(0)).await.unwrap();
    let client = server.client().await;
    for _ in 0..50_000 {
        client.publish("flood", "x".into()).await.unwrap();
    }
    client.flush().await.unwrap();
    assert_eq!(read(&mut subscription, 100).await.len(), 100);
    eventually(
        "what does not fit is counted",
        Duration::from_secs(10),
        async || core.dropped() > 10_000,
    )
    .await;
    let mut got = 0;
    while let Ok(batch) = tokio::time::timeout(Duration::from_millis(300), core.next(1_000, 1 << 20)).await {
        got += batch.unwrap().len() as u64;
    }
    assert_eq!(got + core.dropped(), 50_000);
}
