//! Tests every command that uses a broker, and the host, with each kind of login: `publish`, `plugin record`, `plugin new`, and
//! `plugin dev` with a running host.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::host::plugins;

/// Runs a command that must succeed; returns its output.
#[track_caller]
fn succeeds(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

/// A running `plugin dev`; killed if the test fails.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(dir: &Path, data: &Path) -> Self {
        // The command watches the folder of the component.
        let dir = dir.join("dev");
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(plugins().join("obs-events.wasm"), dir.join("obs-events.wasm")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(["plugin", "dev", "obs-events.wasm", "--data-dir"])
            .arg(data)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(out).map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn until(&self, words: &str) {
        let mut all = Vec::new();
        while !all.last().is_some_and(|line: &String| line.contains(words)) {
            let line = self.lines.recv_timeout(LIMIT);
            all.push(line.unwrap_or_else(|error| panic!("{words:?} did not come ({error}) after {all:?}")));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A host and all commands connect with these broker options.
fn connects(url: &str, login: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (dir, data) = (folder.path(), folder.path().join("data"));
    let stored = plugin_folder(&["obs-events"]);
    let mut command = Host::command(&data, url, stored.path());
    command.args(login);
    let host = Host::spawn(command);
    running(&host, "obs");

    let broker = [&["--nats", url], login].concat();
    let event = |number: u32| {
        let event = json!({"pc_id": "pc-1", "at": "2026-05-28T10:41:00Z", "kind": "logon",
            "source": "winlog:Security", "event_record_id": number.to_string(), "payload": {}});
        std::fs::write(dir.join("one.jsonl"), format!("{event}\n")).unwrap();
        let publish = [&["publish", "obs.pc-1", "one.jsonl"], &broker[..]].concat();
        assert_eq!(succeeds(dir, &publish), "1 stored\n");
    };
    event(1);
    let record = [
        "plugin",
        "record",
        "project",
        "--from-stream",
        "OBS_EVENTS",
        "--last",
        "1",
    ];
    let text = succeeds(dir, &[&record, &broker[..]].concat());
    assert!(text.contains("1 fixture written"), "{text}");
    let new = ["plugin", "new", "again", "--from-stream", "OBS_EVENTS"];
    let text = succeeds(dir, &[&new, &broker[..]].concat());
    assert!(
        text.contains("derived from 1 message of the stream OBS_EVENTS"),
        "{text}"
    );

    let mut dev = Dev::start(dir, &data);
    dev.until("active in");
    event(2);
    dev.until("row  obs_events");
    kill_process(Pid::from_child(&dev.child), Signal::INT).unwrap();
    assert!(dev.child.wait().unwrap().success());
    host.terminate();
    assert_eq!(query(&data, "SELECT count(*) FROM obs_events"), ["2"]);
    sound(&data);
}

#[test]
fn host_and_commands_connect_with_tls_and_a_client_certificate() {
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/certificates");
    let file = |name: &str| certificates.join(name).display().to_string();
    let tls = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify_and_map: true }}\n\
         authorization {{ users: [{{ user: \"ann@example.org\" }}] }}",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let server = NatsServer::start_with(&tls);
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let login = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    connects(&server.url(), &login);
}

#[test]
fn host_and_commands_connect_with_a_user_and_a_password() {
    let server = NatsServer::start_with("authorization { user: ann, password: \"p@ss/w%rd\" }");
    let by_password = server.url().replace("nats://", "nats://ann:p%40ss%2Fw%25rd@");
    connects(&by_password, &[]);
}

#[test]
fn host_and_commands_connect_with_an_nkey() {
    let folder = tempfile::tempdir().unwrap();
    let pair = KeyPair::new_user();
    let seed = folder.path().join("seed");
    std::fs::write(&seed, pair.seed().unwrap()).unwrap();
    let nkey = format!("authorization {{ users: [{{ nkey: {} }}] }}", pair.public_key());
    let server = NatsServer::start_with(&nkey);
    connects(&server.url(), &["--nkey", seed.to_str().unwrap()]);
}

/// Returns a signed JWT as `nsc` creates it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &serde_json::Value) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let name = subject.public_key();
    let body = part(
        &json!({"jti": name, "iat": 0, "iss": issuer.public_key(), "name": name, "sub": name, "nats": claims}),
    );
    let signed = format!("{header}.{body}");
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn host_and_commands_connect_with_a_credentials_file() {
    let [operator, system, account, user] = [
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    ];
    let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let no_storage = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
        "wildcards": true, "conn": -1, "leaf": -1});
    let of_account = |pair: &KeyPair, limits: &serde_json::Value| {
        jwt(
            &operator,
            pair,
            &json!({"type": "account", "version": 2, "limits": limits}),
        )
    };
    let server = NatsServer::start_with(&format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}\n {}: {} }}",
        jwt(&operator, &operator, &json!({"type": "operator", "version": 2})),
        system.public_key(),
        system.public_key(),
        of_account(&system, &no_storage),
        account.public_key(),
        of_account(&account, &limits),
    ));
    let claims =
        json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ann.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n\
         ------END USER NKEY SEED------\n",
        jwt(&account, &user, &claims),
        user.seed().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    connects(&server.url(), &["--creds", file.to_str().unwrap()]);
}
