//! Tests commands that connect to a broker, with every login method.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::*;

const STREAM: &str = "THINGS";

/// Runs a command; returns whether it succeeded, and its output.
fn lantern(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("TMPDIR", dir)
        .envs(env.iter().copied())
        .stdin(Stdio::null());
    let (code, text) = crate::host::output(&mut command);
    (code == 0, text)
}

async fn create_stream(server: &NatsServer) {
    server
        .create_stream(crate::nats::stream(STREAM, "things.>"))
        .await;
}

async fn stored(server: &NatsServer) -> u64 {
    let mut stream = server.jetstream().await.get_stream(STREAM).await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_record_use_the_credentials_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut server = NatsServer::start();
    create_stream(&server).await;
    let pair = nkeys::KeyPair::new_user();
    for (name, text) in [
        ("user", "ann\n"),
        ("password", "p@ss/w%rd\n"),
        ("token", "t0ken\n"),
        ("seed", &pair.seed().unwrap()),
        ("one.jsonl", "{\"n\":1}\n"),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let contexts = dir.join("config/nats/context");
    std::fs::create_dir_all(&contexts).unwrap();
    let context =
        json!({"url": server.url(), "user": "ann", "password": "p@ss/w%rd", "inbox_prefix": "_MINE"});
    std::fs::write(contexts.join("lab.json"), context.to_string()).unwrap();
    let config = dir.join("config");
    let config = config.to_str().unwrap();

    let url = server.url();
    let with = |login: &str| url.replace("nats://", &format!("nats://{login}@"));
    let (by_password, by_token) = (with("ann:p%40ss%2Fw%25rd"), with("t0ken"));
    let files = ["--nats-user-file", "user", "--nats-password-file", "password"];
    let password = "authorization { user: ann, password: \"p@ss/w%rd\" }";
    let token = "authorization { token: t0ken }";
    let nkey = format!("authorization {{ users: [{{ nkey: {} }}] }}", pair.public_key());
    let inbox = "authorization { users: [{ user: ann, password: \"p@ss/w%rd\", permissions: { subscribe: [\"_MINE.>\"] } }] }";
    let from_settings = [
        ("LANTERN__BROKER__URL", url.as_str()),
        ("LANTERN__BROKER__TOKEN_FILE", "token"),
    ];
    type Case<'a> = (&'a str, Vec<&'a str>, &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 9] = [
        (password, vec!["--nats", &by_password], &[]),
        (password, [&["--nats", &url], &files[..]].concat(), &[]),
        (password, vec![], &[("NATS_URL", &by_password)]),
        (password, files.to_vec(), &[("NATS_URL", &url)]),
        (
            inbox,
            vec!["--nats-context", "lab"],
            &[("XDG_CONFIG_HOME", config)],
        ),
        (
            inbox,
            vec!["--nats", &by_password, "--inbox-prefix", "_MINE"],
            &[],
        ),
        (token, vec!["--nats", &by_token], &[]),
        (token, vec![], &from_settings),
        (&nkey, vec!["--nats", &url, "--nkey", "seed"], &[]),
    ];
    for (number, (config, arguments, env)) in cases.iter().enumerate() {
        server.configure(config);
        server.restart();
        let publish = [&["publish", "things.a", "one.jsonl"], &arguments[..]].concat();
        let (done, text) = lantern(dir, &publish, env);
        assert!(done && text == "1 stored\n", "{arguments:?} {env:?}: {text}");
        let project = format!("project-{number}");
        let record = [
            &[
                "plugin",
                "record",
                &project,
                "--from-stream",
                STREAM,
                "--last",
                "1",
            ],
            &arguments[..],
        ]
        .concat();
        let (done, text) = lantern(dir, &record, env);
        assert!(
            done && text.contains("1 fixture written"),
            "{arguments:?} {env:?}: {text}"
        );
    }
    server.configure("");
    server.restart();
    assert_eq!(stored(&server).await, cases.len() as u64);
}

#[test]
fn configured_credentials_are_not_sent_to_another_broker() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let server = NatsServer::start();
    let env = [
        ("LANTERN__BROKER__URL", "nats://127.0.0.1:1"),
        ("LANTERN__BROKER__TOKEN_FILE", "missing"),
    ];
    // With the login from the settings, the missing file would be an error.
    let record = [
        "plugin",
        "record",
        "--from-stream",
        "NONE",
        "--nats",
        &server.url(),
    ];
    let (_, text) = lantern(dir, &record, &env);
    assert!(text.contains("no stream NONE on the broker"), "{text}");
    let (_, text) = lantern(dir, &record[..4], &env);
    assert!(text.contains("broker.token_file"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_names_rejected_messages_and_does_not_resend_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut server = NatsServer::prepared("");
    server.restart();
    create_stream(&server).await;
    let mut stream = server.jetstream().await.get_stream(STREAM).await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = 1_000;
    server.jetstream().await.update_stream(config).await.unwrap();
    let large = "x".repeat(5_000);
    std::fs::write(dir.join("some.jsonl"), format!("1\nnot json\n\"{large}\"\n2\n")).unwrap();
    let url = server.url();
    let publish = ["publish", "things.a", "some.jsonl", "--nats", &url];
    let (done, text) = lantern(dir, &publish, &[]);
    assert!(!done);
    assert!(
        text.starts_with("error: the broker stored 2 of 4 lines\n"),
        "{text}"
    );
    assert!(text.contains("  - line 2: not JSON\n"), "{text}");
    assert!(
        text.contains("  - line 3: the broker can never accept it: "),
        "{text}"
    );
    let kept = text.split("kept in ").nth(1).unwrap().lines().next().unwrap();
    assert!(Path::new(kept).is_file(), "{kept}");

    let (done, again) = lantern(dir, &publish, &[]);
    assert!(
        !done && again.contains("an earlier run with this file left 1 of its events unsent in"),
        "{again}"
    );
    assert_eq!(stored(&server).await, 2, "the second run has sent lines again");
    let outbox = Path::new(kept).parent().unwrap().parent().unwrap();
    std::fs::remove_dir_all(outbox).unwrap();
    std::fs::write(dir.join("some.jsonl"), "3\n").unwrap();
    let (done, text) = lantern(dir, &publish, &[]);
    assert!(done && text == "1 stored\n", "{text}");
    assert_eq!(
        std::fs::read_dir(outbox.parent().unwrap()).unwrap().count(),
        0,
        "a scratch outbox is left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_accepts_text_lines_files_and_ids() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let server = NatsServer::start();
    create_stream(&server).await;
    let url = server.url();
    std::fs::write(dir.join("log"), "Nov 28 host: x\n\ny\n").unwrap();
    std::fs::write(dir.join("bytes"), b"\x00\xff\n\x01").unwrap();
    std::fs::write(dir.join("ids"), "{\"id\":1}\n{\"id\":1}\n").unwrap();
    let publish = |arguments: &[&str]| {
        let all = [&["publish", "things.a", "--nats", &url], arguments].concat();
        let (done, text) = lantern(dir, &all, &[]);
        assert!(done, "{arguments:?}: {text}");
        text
    };
    assert_eq!(publish(&["log", "--format", "text"]), "3 stored\n");
    assert_eq!(publish(&["bytes", "--format", "raw"]), "1 stored\n");
    let text = publish(&["ids", "--id-field", "id"]);
    assert_eq!(text, "2 stored, 1 of them duplicates\n");
    assert_eq!(stored(&server).await, 5);
    let stream = server.jetstream().await.get_stream(STREAM).await.unwrap();
    assert_eq!(
        &stream.get_raw_message(4).await.unwrap().payload[..],
        b"\x00\xff\n\x01"
    );
}

#[test]
fn only_the_owner_reaches_the_embedded_broker_through_the_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let plugins = plugin_folder(&["obs-events"]);
    let data = dir.join("data");
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            "umask 022; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_lantern"),
        ])
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .arg("--plugin-dir")
        .arg(plugins.path())
        .env("LANTERN__BROKER__EMBEDDED__BINARY", crate::nats::binary())
        .env("LANTERN__LOG__FILTER", "warn")
        .stdout(Stdio::piped());
    let host = Host::spawn(command);
    running(&host, "obs");
    std::fs::write(dir.join("one.jsonl"), "{\"n\":1}\n").unwrap();
    let (done, text) = lantern(dir, &["publish", "obs.a", "one.jsonl", "--data-dir", "data"], &[]);
    assert!(done && text == "1 stored\n", "{text}");
    let record = [
        "plugin",
        "record",
        "project",
        "--from-stream",
        "OBS_EVENTS",
        "--data-dir",
        "data",
    ];
    let (done, text) = lantern(dir, &record, &[]);
    assert!(done && text.contains("1 fixture written"), "{text}");

    let address = std::fs::read_to_string(data.join("broker/nats.url")).unwrap();
    let (login, address) = address.trim().rsplit_once('@').unwrap();
    assert!(login.starts_with("nats://lantern:"), "{login}");
    let anonymous = format!("nats://{address}");
    let record = [
        "plugin",
        "record",
        "project",
        "--from-stream",
        "OBS_EVENTS",
        "--nats",
        &anonymous,
    ];
    let (done, text) = lantern(dir, &record, &[]);
    assert!(!done && text.contains("authorization"), "{text}");

    let mut left = vec![data.clone()];
    while let Some(path) = left.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mode = meta.permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{} is open to others: {mode:03o}", path.display());
        if meta.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    assert!(data.join("cache.key").is_file() && data.join("host.key").is_file());
    assert_eq!(
        query(
            &data,
            "SELECT count(*) FROM _lantern_host WHERE key = 'cache_key'"
        ),
        ["0"]
    );
    host.terminate();
}

#[test]
fn a_data_directory_writable_by_others_is_rejected_before_use() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, dir.join("lock")).unwrap();
    let plugins = plugin_folder(&["obs-events"]);
    let output = Host::command(&dir, "nats://127.0.0.1:1", plugins.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("chmod go-w"), "{text}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let output = Host::command(&dir, "nats://127.0.0.1:1", plugins.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_eq!(
        std::fs::read_to_string(&victim).unwrap(),
        "precious",
        "the link was followed"
    );
}
