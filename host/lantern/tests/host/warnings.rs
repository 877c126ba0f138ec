//! Tests the warnings of a running source: acknowledgements that the broker rejects, a consumer that the broker may
//! delete, filters that match nothing.

use async_nats::jetstream::stream::{Config, ConsumerLimits, PersistenceMode, RetentionPolicy, Source};

use super::*;
use crate::nats::free_port;

/// Returns a user with all permissions, for the test, and a user with or without permission to publish to `$JS.ACK.>`.
fn users(acknowledges: bool) -> String {
    let permissions = if acknowledges {
        ""
    } else {
        ", permissions: { publish: { deny: [\"$JS.ACK.>\"] } }"
    };
    format!(
        "authorization {{ users: [ {{ user: admin, password: pw }}, {{ user: host, password: pw {permissions} }} ] }}\n\
         no_auth_user: admin\n"
    )
}

fn make_stream(server: &NatsServer, config: Config) {
    run(async {
        server.create_stream(config).await;
    });
}

fn observed(retention: RetentionPolicy) -> Config {
    Config {
        name: "OBS_EVENTS".into(),
        subjects: vec!["obs.>".into()],
        retention,
        ..Default::default()
    }
}

fn warns_of(host: &Host, kind: &str) -> bool {
    let projection = host.projection("obs");
    let warnings = projection["warnings"].as_array().unwrap();
    warnings.iter().any(|warning| warning["kind"] == kind)
}

#[test]
fn rejected_acknowledgements_are_reported_and_repeated_when_permitted() {
    for retention in [
        RetentionPolicy::Limits,
        RetentionPolicy::WorkQueue,
        RetentionPolicy::Interest,
    ] {
        let mut server = NatsServer::start_with(&users(false));
        make_stream(&server, observed(retention));
        let plugins = plugin_folder(&["obs-events"]);
        let dir = tempfile::tempdir().unwrap();
        let url = server.url().replace("nats://", "nats://host:pw@");
        let host = Host::start(dir.path(), &url, plugins.path());
        running(&host, "obs");
        publish(&server, &obs(1, 30));
        wait_for_rows(&host, dir.path(), "obs_events", 30);
        host.wait("the warning", LIMIT, |host| {
            warns_of(host, "acknowledgements-refused")
        });
        let detail = host.projection("obs")["warnings"][0]["detail"].to_string();
        assert!(
            detail.contains("$JS.ACK.>") && detail.contains("import"),
            "{detail}"
        );
        assert_eq!(host.projection("obs")["lag"], 0, "all of it is stored");
        let limits = retention == RetentionPolicy::Limits;
        assert_eq!(
            host.check("projection:obs-events/obs").unwrap().0,
            limits,
            "{retention:?}"
        );

        // No new message is published.
        server.configure(&users(true));
        server.reload();
        host.wait("they arrive", LIMIT, |_| {
            run(async {
                let stream = server.jetstream().await.get_stream("OBS_EVENTS").await.unwrap();
                let consumer = stream.consumer_info("lantern-obs-events-obs").await.unwrap();
                consumer.num_ack_pending == 0
            })
        });
        host.wait("no warning", LIMIT, |host| {
            !warns_of(host, "acknowledgements-refused")
        });
        host.wait("ready", LIMIT, |host| {
            host.check("projection:obs-events/obs").unwrap().0
        });
        if !limits {
            let left = run(async {
                let stream = server.jetstream().await.get_stream("OBS_EVENTS").await.unwrap();
                stream.get_info().await.unwrap().state.messages
            });
            assert_eq!(left, 0, "{retention:?}");
        }
        host.terminate();
        sound(dir.path());
    }
}

#[test]
fn a_consumer_that_an_interest_stream_may_delete_causes_a_warning() {
    let server = NatsServer::start();
    let config = Config {
        consumer_limits: Some(ConsumerLimits {
            inactive_threshold: Duration::from_secs(60),
            max_ack_pending: 0,
        }),
        ..observed(RetentionPolicy::Interest)
    };
    make_stream(&server, config);
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    host.wait("the warning", LIMIT, |host| warns_of(host, "consumer-expires"));
    let detail = host.projection("obs")["warnings"][0]["detail"].to_string();
    assert!(
        detail.contains("lantern-obs-events-obs") && detail.contains("60s"),
        "{detail}"
    );
    assert!(host.check("projection:obs-events/obs").unwrap().0);
}

#[test]
fn a_filter_without_matching_subjects_causes_a_warning_also_for_mirrors() {
    let elsewhere = |name: &str| Config {
        name: name.into(),
        subjects: vec!["elsewhere.>".into()],
        ..Default::default()
    };
    let mirror = Config {
        name: "OBS_EVENTS".into(),
        mirror: Some(Source {
            name: "ORIGIN".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let start = |configs: Vec<Config>| {
        let (server, plugins) = (NatsServer::start(), plugin_folder(&["obs-events"]));
        configs
            .into_iter()
            .for_each(|config| make_stream(&server, config));
        let dir = tempfile::tempdir().unwrap();
        let host = Host::start(dir.path(), &server.url(), plugins.path());
        host.wait("the warning", LIMIT, |host| {
            warns_of(host, "filter-matches-nothing")
        });
        let detail = host.projection("obs")["warnings"][0]["detail"].to_string();
        assert!(
            detail.contains("elsewhere.>") && detail.contains("obs.>"),
            "{detail}"
        );
        (server, plugins, dir, host)
    };
    drop(start(vec![elsewhere("ORIGIN"), mirror]));
    let (server, _plugins, _dir, host) = start(vec![elsewhere("OBS_EVENTS")]);
    run(async {
        let changed = observed(RetentionPolicy::Limits);
        server.jetstream().await.update_stream(changed).await.unwrap();
    });
    host.wait("no warning", LIMIT, |host| {
        !warns_of(host, "filter-matches-nothing")
    });
}

#[test]
fn status_and_doctor_warn_about_messages_that_are_confirmed_before_they_are_on_disk() {
    let monitoring = free_port();
    let server = NatsServer::start_with(&format!("http: \"127.0.0.1:{monitoring}\"\n"));
    let config = Config {
        persist_mode: Some(PersistenceMode::Async),
        ..observed(RetentionPolicy::Limits)
    };
    make_stream(&server, config);
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    host.wait("the warning", LIMIT, |host| warns_of(host, "persisted-later"));
    assert!(host.check("projection:obs-events/obs").unwrap().0);
    let doctor = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(["doctor", "--nats", &server.url(), "--data-dir"])
            .arg(dir.path())
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = doctor(&[]);
    assert!(text.contains("(persist_mode async)"), "{text}");
    assert!(text.contains("sync         not checked"), "{text}");
    let text = doctor(&["--monitoring", &format!("http://127.0.0.1:{monitoring}")]);
    assert!(text.contains("writes streams to disk every 120 s"), "{text}");
}
