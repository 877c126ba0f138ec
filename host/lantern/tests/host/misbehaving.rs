//! Tests guests that trap, loop, exhaust memory or return invalid data: their message becomes a dead letter, and other
//! plugins are not affected.

use super::*;
use crate::host::plugins;

/// Returns a plugin folder with the unaffected plugins and the bad one.
fn with_misbehaving() -> tempfile::TempDir {
    let folder = plugin_folder(&["obs-events"]);
    std::fs::write(
        folder.path().join("misbehaving.wasm"),
        evolving::build("misbehaving"),
    )
    .unwrap();
    folder
}

fn evil(words: &[&str]) -> Vec<(String, String)> {
    words
        .iter()
        .map(|word| ("evil.x".to_owned(), (*word).to_owned()))
        .collect()
}

#[test]
fn each_kind_of_misbehaviour_affects_only_its_message() {
    let site = Site::with(with_misbehaving());
    let host = site.running("evil");
    let bad = [
        ("trap", "trap"),
        ("loop", "timeout"),
        ("recurse", "trap"),
        ("grow", "memory"),
        ("copy", "memory"),
        ("short-answer", "output"),
        ("long-answer", "output"),
        ("wrong-count", "output"),
        ("extra-value", "output"),
        ("wrong-type", "output"),
        ("null-in-not-null", "output"),
        ("unknown-write", "output"),
        ("half-wrong 1", "output"),
        ("nan", "output"),
        ("infinity", "output"),
        ("nul-text", "output"),
        ("bad-json", "output"),
        ("too-many-rows", "output"),
        ("ansi", "invalid"),
    ];
    let mut messages = Vec::new();
    for (number, (word, _)) in bad.iter().enumerate() {
        messages.extend(evil(&[&format!("ok {number}"), word]));
    }
    site.publish(&messages);
    site.publish(&obs(1, 200));
    site.wait_for_rows(&host, "obs_events", 200);
    host.wait("all handled", LIMIT * 2, |host| {
        host.projection("evil")["checkpoint"] == messages.len()
    });
    site.wait_for_rows(&host, "evil", bad.len());
    let classes = query(
        site.dir(),
        "SELECT CAST(payload AS TEXT), class FROM _lantern_dead_letter ORDER BY sequence",
    );
    for ((word, class), found) in bad.iter().zip(&classes) {
        // The plugin chooses the class of `ansi`; the host determines the others.
        let same = found == &format!("{word}|{class}") || *word == "ansi" || *word == "too-many-rows";
        assert!(same, "{word}: {found}");
    }
    assert_eq!(classes.len(), bad.len(), "{classes:?}");
    let longest = query(site.dir(), "SELECT max(length(reason)) FROM _lantern_dead_letter");
    assert!(longest[0].parse::<usize>().unwrap() <= 4_096, "{longest:?}");
    assert_eq!(
        query(
            site.dir(),
            "SELECT count(*) FROM _lantern_dead_letter WHERE instr(reason, char(27))"
        ),
        ["0"]
    );
    site.end(host);
}

#[test]
fn a_trap_on_every_seventh_message_affects_only_those() {
    let site = Site::with(with_misbehaving());
    publish_evil_stream(&site.server);
    site.publish(&evil(&["count7"; 100]));
    let host = site.start();
    host.wait("all handled", LIMIT, |host| {
        host.projection("evil")["checkpoint"] == 100
    });
    // In a call with one message, no message is the seventh, so the retry in fresh instances rejects none.
    assert_eq!(query(site.dir(), "SELECT count(*) FROM evil"), ["100"]);
    assert_eq!(host.projection("evil")["dead_letters"], 0);
    site.end(host);
}

#[test]
fn a_corrupted_instance_is_discarded() {
    let site = Site::with(with_misbehaving());
    let host = site.running("evil");
    for number in 0..5 {
        site.publish(&evil(&["poison"]));
        host.wait("poisoned", LIMIT, |host| {
            host.projection("evil")["checkpoint"] == 2 * number + 1
        });
        site.publish(&evil(&["ok 1"]));
        host.wait("well again", LIMIT, |host| {
            host.projection("evil")["checkpoint"] == 2 * number + 2
        });
    }
    assert_eq!(query(site.dir(), "SELECT count(*) FROM evil"), ["10"]);
    site.end(host);
}

#[test]
fn a_slow_plugin_progresses_and_does_not_delay_others() {
    let site = Site::with(with_misbehaving());
    publish_evil_stream(&site.server);
    site.publish(&evil(&["loop"; 20]));
    let host = site.running("obs");
    site.publish(&obs(1, 100));
    site.wait_for_rows(&host, "obs_events", 100);
    let done = host.projection("evil")["checkpoint"].as_u64().unwrap();
    assert!(done < 20, "the neighbour waited for all loops");
    host.wait("all handled", LIMIT * 2, |host| {
        host.projection("evil")["dead_letters"] == 20
    });
    site.end(host);
}

fn publish_evil_stream(server: &NatsServer) {
    run(async {
        server.create_stream(crate::nats::stream("EVIL", "evil.>")).await;
    });
}

#[test]
fn an_invalid_file_is_reported_and_other_plugins_run() {
    let server = NatsServer::start();
    let folder = plugin_folder(&["obs-events"]);
    std::fs::write(folder.path().join("junk.wasm"), b"this is no plugin").unwrap();
    let whole = std::fs::read(plugins().join("audit-log.wasm")).unwrap();
    std::fs::write(folder.path().join("half.wasm"), &whole[..whole.len() / 2]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), folder.path());
    running(&host, "obs");
    for file in ["junk.wasm", "half.wasm"] {
        let name = format!("file:{file}");
        let (_, detail) = host.check(&name).unwrap_or_else(|| panic!("{name} is not named"));
        assert!(detail.starts_with("rejected: "), "{detail}");
    }
    publish(&server, &obs(1, 3));
    wait_for_rows(&host, dir.path(), "obs_events", 3);
}

#[test]
fn a_source_halts_at_the_limit_of_dead_letters_and_drops_nothing() {
    let site = Site::new(&["obs-events"]);
    let mut command = site.command();
    command.env("LANTERN__LIMITS__DEAD_LETTERS_MAX", "10");
    let host = Host::spawn(command);
    running(&host, "obs");
    for _ in 0..15 {
        site.publish(&[("obs.x".to_owned(), "poison".to_owned())]);
    }
    host.wait("halted", LIMIT, |host| {
        host.projection("obs")["state"] == "failed"
    });
    let reason = host.projection("obs")["last_error"].as_str().unwrap().to_owned();
    assert!(reason.contains("limits.dead_letters_max"), "{reason}");
    assert_eq!(host.get("/readyz").unwrap().0, 503);
    host.terminate();
    // With a higher limit, the remaining messages follow.
    let host = site.start();
    host.wait("all dead", LIMIT, |host| {
        host.projection("obs")["dead_letters"] == 15
    });
    site.end(host);
}
