//! Tests how real brokers are deployed: an account that imports the JetStream API of another one, a leaf node whose hub has
//! the streams, and streams that are mirrors, collect other streams, or rewrite subjects.

use async_nats::jetstream::stream::{Compression, Config, Source, SubjectTransform};
use lantern_broker::{Broker, BrokerConfig};

use super::nats::{NatsServer, eventually, free_port};
use super::{LIMIT, OpenRequest, STREAM, broker, connected, publish, read, request, sequences};

fn of_stream(name: &str) -> OpenRequest {
    OpenRequest {
        stream: name.into(),
        ..request(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_api_is_used_under_its_prefix() {
    let server = NatsServer::start_with(
        "accounts {
             A { jetstream: enabled, users: [{ user: a, password: a }], exports: [
                 { service: \"$JS.API.>\", response_type: stream }, { service: \"$JS.ACK.>\" },
                 { stream: \"deliver.>\" } ] }
             B { users: [{ user: b, password: b }], imports: [
                 { service: { account: A, subject: \"$JS.API.>\" }, to: \"far.API.>\" },
                 { service: { account: A, subject: \"$JS.ACK.>\" } } ] }
         }",
    );
    let url = |user: &str| server.url().replace("nats://", &format!("nats://{user}:{user}@"));
    let client = async_nats::ConnectOptions::new()
        .user_and_password("a".into(), "a".into())
        .connect(server.url())
        .await
        .unwrap();
    let context = async_nats::jetstream::new(client);
    let config = Config {
        name: STREAM.into(),
        subjects: vec!["ev.>".into()],
        retention: async_nats::jetstream::stream::RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    let mut stream = context.create_stream(config).await.unwrap();
    for number in 1..=30 {
        let payload = number.to_string().into();
        context.publish("ev.a", payload).await.unwrap().await.unwrap();
    }
    let config = BrokerConfig {
        jetstream_api_prefix: Some("far.API".into()),
        ..BrokerConfig::remote(url("b"))
    };
    let broker = Broker::connect(config).await.unwrap();
    connected(&broker).await;
    let mut subscription = broker.open(request(0)).await.unwrap();
    let all = sequences(&read(&mut subscription, 30).await);
    assert_eq!(all, (1..=30).collect::<Vec<_>>());
    eventually("the acknowledgements empty the work queue", LIMIT, async || {
        stream.info().await.unwrap().state.messages == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_node_reads_the_streams_of_its_hub() {
    let leaf_port = free_port();
    let mut hub = NatsServer::prepared(&format!("leafnodes {{ listen: \"127.0.0.1:{leaf_port}\" }}"));
    hub.set_jetstream("domain: hub");
    hub.restart();
    super::stream(&hub).await;
    let leaf = NatsServer::without_jetstream(&format!(
        "leafnodes {{ remotes: [{{ url: \"nats://127.0.0.1:{leaf_port}\" }}] }}"
    ));
    publish(&hub, 1, 50).await;
    let config = BrokerConfig {
        jetstream_domain: Some("hub".into()),
        ..BrokerConfig::remote(leaf.url())
    };
    let broker = Broker::connect(config).await.unwrap();
    connected(&broker).await;
    let mut subscription = super::reopen(&broker, request(0)).await;
    assert_eq!(sequences(&read(&mut subscription, 50).await).len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_collecting_streams_with_transforms_are_read() {
    let server = NatsServer::start();
    super::stream(&server).await;
    let context = server.jetstream().await;
    let source = || Source {
        name: STREAM.into(),
        ..Source::default()
    };
    let mirror = Config {
        name: "MIRROR".into(),
        mirror: Some(source()),
        compression: Some(Compression::S2),
        ..Config::default()
    };
    let collected = Config {
        name: "COLLECTED".into(),
        sources: Some(vec![Source {
            subject_transforms: vec![SubjectTransform {
                source: "ev.*".into(),
                destination: "from.{{wildcard(1)}}".into(),
            }],
            ..source()
        }]),
        ..Config::default()
    };
    let rewritten = Config {
        name: "REWRITTEN".into(),
        subjects: vec!["in.>".into()],
        subject_transform: Some(SubjectTransform {
            source: "in.>".into(),
            destination: "out.>".into(),
        }),
        ..Config::default()
    };
    for config in [mirror, collected, rewritten] {
        context.create_stream(config).await.unwrap();
    }
    publish(&server, 1, 40).await;
    for number in 1..=40 {
        let payload = number.to_string().into();
        context.publish("in.a", payload).await.unwrap().await.unwrap();
    }
    let broker = broker(&server).await;
    for (name, subject) in [
        ("MIRROR", "ev.a"),
        ("COLLECTED", "from.a"),
        ("REWRITTEN", "out.a"),
    ] {
        let mut subscription = broker.open(of_stream(name)).await.unwrap();
        let all = read(&mut subscription, 40).await;
        assert_eq!(sequences(&all), (1..=40).collect::<Vec<_>>(), "{name}");
        let payloads: Vec<_> = all.iter().map(|delivery| delivery.payload.clone()).collect();
        let expected: Vec<_> = (1..=40).map(|number: u32| number.to_string()).collect();
        assert_eq!(payloads, expected, "{name}");
        assert!(
            all.iter().all(|delivery| *delivery.subject == *subject),
            "{name}: {:?}",
            all[0]
        );
    }
}
