//! Tests a real component that imports WASI, built by Rust's tools for wasm32-wasip2. A host rejects it until an
//! operator allows it, and each error names the required setting. Once allowed, it behaves like the same plugin without
//! WASI.

use std::process::Command;

use super::*;

/// Runs `lantern` for a host; returns the exit code and the output.
fn lantern(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command.args(arguments).current_dir(dir);
    crate::host::output(command.env("LANTERN__DATA_DIR", dir.join("data")))
}

/// Runs a command that must succeed, and returns its output.
#[track_caller]
fn done(dir: &Path, arguments: &[&str]) -> String {
    let (code, text) = lantern(dir, arguments);
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

const HOW: &str = "lantern plugin set obs-events wasi=true";

#[test]
fn a_real_wasip2_component_runs_where_an_operator_allows_it() {
    let server = NatsServer::start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("plugins")).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/obs-events");

    // Build and inspect need no permission, but mention that a host does.
    let text = done(
        dir.path(),
        &["plugin", "build", "--wasi", source, "--out", "obs.wasm"],
    );
    assert!(text.contains("WASI (cli, io)"), "{text}");
    assert!(text.contains(HOW), "{text}");
    let text = done(dir.path(), &["plugin", "inspect", "obs.wasm"]);
    assert!(text.contains(HOW), "{text}");
    let described = done(dir.path(), &["plugin", "inspect", "--json", "obs.wasm"]);
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["wasi"], true);

    // WASI is disabled by default, also for a file in the plugin directory.
    let data = dir.path().join("data");
    let host = Host::start(&data, &server.url(), &dir.path().join("plugins"));
    let (code, text) = lantern(dir.path(), &["plugin", "install", "obs.wasm", "--activate"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("imports wasi:"), "{text}");
    assert!(text.contains(HOW), "{text}");

    // WASI is allowed before the installation; then it is a plugin like any other.
    done(dir.path(), &["plugin", "set", "obs-events", "wasi=true"]);
    done(dir.path(), &["plugin", "install", "obs.wasm", "--activate"]);
    running(&host, "obs");
    publish(&server, &obs(1, 300));
    publish(&server, &[("obs.pc-1".to_owned(), "no JSON".to_owned())]);
    wait_for_rows(&host, &data, "obs_events", 300);
    host.wait("all handled", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == 301
    });
    assert_eq!(
        query(&data, "SELECT class, reason FROM _lantern_dead_letter"),
        ["malformed|expected ident at line 1 column 2"]
    );

    // The permission cannot be revoked while the plugin runs.
    let (code, text) = lantern(dir.path(), &["plugin", "set", "obs-events", "wasi="]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("imports wasi:"), "{text}");
    drop(host);
    sound(&data);
}
