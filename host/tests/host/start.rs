//! What keeps a host from starting is said in one clear error each, with the setting to change.

use std::net::TcpListener;
use std::process::{Command, Output};

use super::*;
use crate::host::plugin_folder;

/// Runs a command that is to fail by itself.
fn failing(mut command: Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it did not fail: {text}");
    (output, text)
}

#[test]
fn a_data_directory_in_use_is_refused_and_the_first_host_goes_on() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    let (_, text) = failing(Host::command(dir.path(), &server.url(), plugins.path()));
    assert!(text.contains("is in use by another lantern"), "{text}");
    running(&host, "obs");
}

#[test]
fn a_port_in_use_is_refused_with_the_setting_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command.args([
        "serve",
        "--nats",
        "nats://127.0.0.1:1",
        "--listen",
        &taken.local_addr().unwrap().to_string(),
    ]);
    command
        .arg("--data-dir")
        .arg(dir.path())
        .arg("--plugin-dir")
        .arg(plugins.path());
    let (_, text) = failing(command);
    assert!(text.contains("setting listen"), "{text}");
}

#[test]
fn a_folder_with_nothing_but_junk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("junk.wasm"), b"\x7fELF and so on").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = failing(Host::command(dir.path(), "nats://127.0.0.1:1", folder.path()));
    assert!(text.contains("junk.wasm"), "{text}");
}

#[test]
fn refused_credentials_are_named_and_waited_for() {
    let server = NatsServer::start_with("authorization { user: lantern, password: right }");
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let url = server.url().replace("nats://", "nats://lantern:wrong@");
    let host = Host::start(dir.path(), &url, plugins.path());
    host.wait("named", LIMIT, |host| {
        host.check("broker")
            .is_some_and(|(ok, detail)| !ok && detail.to_lowercase().contains("credentials"))
    });
    let (_, body) = host.get("/readyz").unwrap();
    assert!(!body.contains("wrong"), "the password is shown: {body}");
}

#[test]
fn a_damaged_database_is_refused() {
    use std::os::unix::fs::FileExt as _;
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 500));
    wait_for_rows(&host, dir.path(), "obs_events", 500);
    host.terminate();
    assert!(
        !dir.path().join("lantern.db-wal").exists(),
        "it would hide the damage"
    );
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("lantern.db"))
        .unwrap();
    // All but the first: those of the host's own tables have too little in them to be damaged in their middle.
    for page in 1..file.metadata().unwrap().len() / 4_096 {
        file.write_all_at(&[0xa5; 200], page * 4_096 + 100).unwrap();
    }
    let (_, text) = failing(Host::command(dir.path(), &server.url(), plugins.path()));
    assert!(text.contains("lantern.db"), "{text}");
}
