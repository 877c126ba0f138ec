//! Tests start failures: each reports one clear error with the setting to change.

use std::net::TcpListener;
use std::process::{Command, Output};

use super::*;

/// Runs a command that must exit without a signal.
fn failing(mut command: Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it did not fail: {text}");
    (output, text)
}

#[test]
fn a_second_host_on_a_data_directory_is_rejected_and_the_first_continues() {
    let site = Site::new(&["obs-events"]);
    let host = site.start();
    let (_, text) = failing(site.command());
    assert!(text.contains("is in use by another lantern"), "{text}");
    running(&host, "obs");
}

#[test]
fn a_port_in_use_is_reported_with_the_setting_to_change() {
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
fn a_plugin_directory_with_only_invalid_files_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("junk.wasm"), b"\x7fELF and so on").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = failing(Host::command(dir.path(), "nats://127.0.0.1:1", folder.path()));
    assert!(text.contains("junk.wasm"), "{text}");
}

#[test]
fn rejected_credentials_are_reported_and_retried() {
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
fn a_damaged_database_is_rejected() {
    use std::os::unix::fs::FileExt as _;
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    site.publish(&obs(1, 500));
    site.wait_for_rows(&host, "obs_events", 500);
    host.terminate();
    assert!(
        !site.dir().join("lantern.db-wal").exists(),
        "it would hide the damage"
    );
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(site.dir().join("lantern.db"))
        .unwrap();
    // Damage every page but the first, near its start: the pages of the host's own tables contain too little data for
    // damage in the middle to matter.
    for page in 1..file.metadata().unwrap().len() / 4_096 {
        file.write_all_at(&[0xa5; 200], page * 4_096 + 100).unwrap();
    }
    let (_, text) = failing(site.command());
    assert!(text.contains("lantern.db"), "{text}");
}

#[test]
fn a_host_with_defaults_creates_its_plugin_directory_and_ignores_sighup() {
    let server = NatsServer::start();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("fresh");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--nats",
            &server.url(),
            "--data-dir",
        ])
        .arg(&data)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut host = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(host.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    assert!(line.starts_with("lantern is up"), "{line}");
    assert!(data.join("plugins").is_dir());
    let pid = rustix::process::Pid::from_child(&host);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    // Read each log line until one names the signal; the log closes if the host exits.
    let mut log = std::io::BufReader::new(host.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("ignored SIGHUP") {
        let read = std::io::BufRead::read_line(&mut log, &mut seen).unwrap();
        assert!(read > 0, "the host has ended: {seen}");
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(host.wait().unwrap().success());
}

#[test]
fn a_host_without_its_components_starts_and_accepts_them_again() {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    site.publish(&obs(1, 10));
    site.wait_for_rows(&host, "obs_events", 10);
    host.terminate();
    let file = site.plugins.path().join("obs-events.wasm");
    let kept = site.dir().join("kept.wasm");
    std::fs::rename(&file, &kept).unwrap();
    let lose = || std::fs::remove_dir_all(site.dir().join("components")).unwrap();

    // The state after only the database was restored: the host serves the tables and reports the plugin.
    lose();
    let host = site.start();
    let (ok, detail) = host.check("plugin:obs-events").unwrap();
    assert!(!ok && detail.contains("cannot be read"), "{detail}");
    let rows = host.json("/api/v1/tables/obs_events/rows");
    assert_eq!(rows["items"].as_array().unwrap().len(), 10);
    site.publish(&obs(11, 10));
    succeeds(
        site.dir(),
        &["plugin", "install", "--activate", kept.to_str().unwrap()],
    );
    succeeds(site.dir(), &["plugin", "resume", "obs-events"]);
    site.wait_for_rows(&host, "obs_events", 20);
    assert_eq!(host.check("plugin:obs-events"), None);
    host.terminate();

    // The file in the plugin directory restores it as well, although the host has already processed it.
    lose();
    std::fs::rename(&kept, &file).unwrap();
    let host = site.start();
    site.publish(&obs(21, 10));
    site.wait_for_rows(&host, "obs_events", 30);
    site.end(host);
}

#[test]
fn serve_and_check_reject_a_database_of_a_newer_version() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = tempfile::tempdir().unwrap();
    let server = NatsServer::start();
    Host::start(dir.path(), &server.url(), plugins.path()).terminate();
    let connection = rusqlite::Connection::open(dir.path().join("lantern.db")).unwrap();
    connection
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'of a newer version', TRUE, x'00', 0)",
            [],
        )
        .unwrap();
    drop(connection);
    let (_, text) = failing(Host::command(dir.path(), &server.url(), plugins.path()));
    assert!(text.contains("written by a newer Lantern (schema 9999"), "{text}");
    let (code, text) = lantern(dir.path(), &["check"]);
    assert_ne!(code, 0, "{text}");
    assert!(text.contains("restore a copy from before the upgrade"), "{text}");
}
