//! Tests the real binary: its output and exit codes.

#![allow(clippy::too_many_lines, reason = "a scenario is one sequence of steps")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "cli/terminal.rs"]
mod terminal;

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn lantern(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_version_includes_the_version_of_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let output = lantern(&["--version"], dir.path());
    assert!(output.status.success());
    let version = text(&output.stdout);
    assert!(
        version.starts_with(&format!("lantern {} (SQLite 3.", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
}

#[test]
fn an_invalid_configuration_exits_with_78_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("lantern.toml"),
        "lisen = 'x'\n[limits]\nmemory = 'much'\n",
    )
    .unwrap();
    for command in [&["serve"][..], &["config", "check"], &["config", "show"]] {
        let arguments = [command, &["--config", "lantern.toml", "--data-dir", "data"]].concat();
        let output = lantern(&arguments, dir.path());
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        let error = text(&output.stderr);
        assert_eq!(
            error,
            "error: invalid configuration: 2 problems\n  \
             - lantern.toml:1: lisen: unknown setting; did you mean listen?\n  \
             - lantern.toml:3: limits.memory: not a size: \"much\"; use a size from 1 MiB to 4 GiB, such as \"64 MiB\"\n"
        );
        assert!(!dir.path().join("data").exists());
    }
}

#[test]
fn config_show_prints_values_with_their_origins() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(["config", "show", "--listen", "127.0.0.1:0"])
        .current_dir(dir.path())
        .env_clear()
        .env("LANTERN__BROKER__URL", "nats://bob:hunter2@localhost")
        .env("STATE_DIRECTORY", "/var/lib/lantern")
        .output()
        .unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for line in [
        "data_dir = \"/var/lib/lantern\" # env STATE_DIRECTORY",
        "listen = \"127.0.0.1:0\" # flag --listen",
        "broker.url = \"nats://***@localhost\" # env LANTERN__BROKER__URL",
        "log.format = \"text\" # default",
    ] {
        let found = shown
            .lines()
            .any(|shown| shown.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        assert!(found, "{line} is missing in\n{shown}");
    }
    assert!(!shown.contains("hunter2"));
}

#[test]
fn the_reference_is_a_valid_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let reference = lantern(&["config", "reference"], dir.path());
    assert!(reference.status.success());
    std::fs::write(dir.path().join("lantern.toml"), &reference.stdout).unwrap();
    let output = lantern(&["config", "check", "--config", "lantern.toml"], dir.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "OK: the configuration is valid\n");
}

#[test]
fn usage_errors_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["serv"], "serve"),
        (&["check"], "--data-dir"),
        (&["token", "create", "../x", "--role", "viewer"], "token name"),
        (&["token", "create", "x", "--role", "admin"], "viewer, operator"),
        (&["status", "--host", "https://x"], "http://HOST:PORT"),
        (&["plugin", "show", "../x"], "plugin name"),
        (&["plugin", "activate", "a@"], "a digest or a version"),
        (&["plugin", "set", "a"], "KEY=VALUE"),
        (&["plugin", "set", "a", "b"], "KEY=VALUE"),
        (&["plugin", "set", "a", "b=1", "b=2"], "duplicate setting b"),
        (&["plugin", "remove", "a"], "--keep-tables"),
        (
            &["plugin", "remove", "a", "--keep-tables", "--drop-tables"],
            "cannot be used with",
        ),
        (&["plugin", "diff", "a"], "FILE"),
        (&["plugin", "diff", "A", "1", "2"], "plugin name"),
        (&["dead-letters", "retry"], "--all"),
        (&["dead-letters", "discard"], "--all"),
        (&["dead-letters", "list", "--since", "yesterday"], "2h"),
        (&["dead-letters", "show", "x"], "invalid"),
        (&["plugin", "sign", "x.wasm"], "--secret-key"),
        (&["plugin", "inspect", "x.wasm", "--key", "y"], "not a public key"),
        (
            &["plugin", "inspect", "x.wasm", "--key", "RWRTY0IySECRET"],
            "--key is a secret key",
        ),
        #[cfg(not(feature = "oci"))]
        (
            &[
                "plugin",
                "install",
                "oci://ghcr.io/me/orders:0.1.0",
                "--host",
                "http://127.0.0.1:1",
            ],
            "--features oci",
        ),
        (&["plugin", "new", "../x"], "plugin name"),
        (&["plugin", "new", "x", "--nats", "y"], "--from-stream"),
        (&["plugin", "record"], "--from-stream"),
        (
            &["plugin", "record", "--from-stream", "S", "--seq", "9..1"],
            "the first not after",
        ),
        (&["publish", "a.*"], "wildcards"),
        (&["publish", "a.b"], "--nats URL, or --data-dir DIR"),
        (
            &["publish", "a.b", "--nats", "x", "--data-dir", "y"],
            "cannot be used with",
        ),
        (&["publish", "a.b", "--header", "novalue"], "KEY:VALUE"),
    ];
    for (arguments, words) in cases {
        let output = lantern(arguments, dir.path());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn a_failure_has_a_cause_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let output = lantern(&["publish", "a.b", "--data-dir", "data"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "error: cannot open data/broker/nats.url\n\
         caused by: No such file or directory (os error 2)\n\
         hint: a running host with an embedded broker writes its address there; for another broker use --nats URL\n"
    );
}

#[test]
fn completions_are_printed_for_each_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = lantern(&["completions", shell], dir.path());
        assert!(output.status.success());
        let script = text(&output.stdout);
        for word in ["publish", "rollback", "dead-letters", "keep-tables"] {
            assert!(script.contains(word), "{shell} has no {word}");
        }
    }
}

#[test]
fn config_check_reads_the_context() {
    let home = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(["config", "check"])
        .env_clear()
        .env("HOME", home.path())
        .env("LANTERN__BROKER__CONTEXT", "nope")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("env LANTERN__BROKER__CONTEXT: broker.context: cannot read the context")
            && error.contains("nope.json"),
        "{error}"
    );
}
