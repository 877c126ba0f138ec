//! Tests how the command line finds and changes a running host, and which files remain when the host ends.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;

/// Runs a command for the host with this data directory; returns exit code, standard output and standard error.
fn lantern(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command
        .args(arguments)
        .env_clear()
        .env("LANTERN__DATA_DIR", dir)
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .envs(env.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap()
}

#[test]
fn commands_find_the_host_and_use_the_token_of_its_owner() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (code, _, error) = lantern(dir, &["status"], &[]);
    assert_eq!(code, 1);
    assert!(
        error.contains("no host is running with data directory"),
        "{error}"
    );

    let host = Host::start(dir, &server.url(), plugins.path());
    running(&host, "obs");
    let mode = std::fs::metadata(dir.join("operator.token"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, status, error) = lantern(dir, &["status"], &[]);
    assert_eq!(code, 0, "{status}{error}");
    assert!(
        status.contains(" is ready\n") && status.contains("\nobs-events/obs  running"),
        "{status}"
    );
    let (_, status, _) = lantern(dir, &["status", "--json"], &[]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["ready"], &status["projections"][0]["source"]),
        (&json!(true), &json!("obs"))
    );

    let create = [
        "token",
        "create",
        "ci",
        "--role",
        "viewer",
        "--expires-in-days",
        "7",
    ];
    let (code, token, error) = lantern(dir, &create, &[]);
    assert_eq!(code, 0, "{error}");
    assert!(
        token.starts_with("lantern_") && token.lines().count() == 1,
        "{token}"
    );
    let viewer = [("LANTERN_TOKEN", token.trim())];
    let (code, _, error) = lantern(dir, &["token", "list"], &viewer);
    assert_eq!(code, 1);
    assert!(error.contains("role operator"), "{error}");
    let (code, list, _) = lantern(dir, &["token", "list"], &[]);
    assert_eq!(code, 0);
    assert!(
        list.contains("\nci     viewer    ") && list.contains("\nlocal  operator"),
        "{list}"
    );

    assert_eq!(lantern(dir, &["token", "revoke", "ci"], &[]).0, 0);
    let (code, _, error) = lantern(dir, &["token", "revoke", "ci"], &[]);
    assert_eq!(code, 1);
    assert!(error.contains("there is no token ci"), "{error}");
    assert_eq!(lantern(dir, &["token", "revoke", "../x"], &[]).0, 2);
    let (code, _, error) = lantern(dir, &["audit"], &viewer);
    assert_eq!(code, 1);
    assert!(
        error.contains("the token is unknown") && error.contains("hint: "),
        "{error}"
    );
    let (_, audit, _) = lantern(dir, &["audit", "--actor", "local", "--limit", "2"], &[]);
    let lines: Vec<&str> = audit.lines().skip(1).collect();
    assert_eq!(lines.len(), 2, "{audit}");
    assert!(
        lines[0].contains("token.revoke  -       refused") && lines[1].contains("done"),
        "{audit}"
    );
    assert!(!audit.contains(token.trim()));
    host.terminate();
}

#[test]
fn the_files_of_a_host_are_correct_after_every_kind_of_exit() {
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let host = Host::start(dir, &server.url(), plugins.path());
    let token = read(dir, "operator.token");
    assert!(read(dir, "host.json").contains(&host.pid().to_string()));
    host.terminate();
    assert!(!dir.join("host.json").exists());

    let host = Host::start(dir, &server.url(), plugins.path());
    assert_eq!(read(dir, "operator.token"), token, "a good token was replaced");
    host.kill();
    let (code, _, error) = lantern(dir, &["status"], &[]);
    assert_eq!(code, 1);
    assert!(error.contains("host.json is stale"), "{error}");

    // The database is gone, and with it the record of the token.
    for file in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
        drop(std::fs::remove_file(dir.join(file)));
    }
    let host = Host::start(dir, &server.url(), plugins.path());
    assert_ne!(read(dir, "operator.token"), token);
    assert_eq!(lantern(dir, &["token", "list"], &[]).0, 0);
    host.terminate();
}
