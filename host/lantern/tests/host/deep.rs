//! Tests which broker a deep check uses, and that it never passes without a comparison.

use super::*;
use crate::host::{lantern, plugin_folder};

#[test]
fn a_deep_check_uses_the_broker_of_the_running_host_and_fails_without_one() {
    let (server, other) = (NatsServer::start(), NatsServer::start());
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 4));
    wait_for_rows(&host, dir.path(), "obs_events", 4);
    let (code, text) = lantern(dir.path(), &["check", "--deep"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("Projected again: 4 of 4 messages, 4 rows identical"),
        "{text}"
    );
    assert!(text.contains(&server.url()), "{text}");
    let (code, text) = lantern(dir.path(), &["check", "--deep", "--nats", &other.url()]);
    assert_eq!(code, 1, "{text}");
    for words in [
        "Projected again: 0 of 4 messages",
        "nothing was compared: none of 4 messages in the ledger",
        "the broker has no stream OBS_EVENTS",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("OK: no problems found"), "{text}");

    host.terminate();
    let (code, text) = lantern(dir.path(), &["check", "--deep"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("has no embedded broker") && text.contains("--nats"),
        "{text}"
    );
    let (code, text) = lantern(dir.path(), &["check", "--deep", "--nats", &server.url()]);
    assert_eq!(code, 0, "{text}");
    assert!(!dir.path().join("broker").exists());
}
