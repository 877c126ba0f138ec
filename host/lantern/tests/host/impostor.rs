//! Tests programs that listen where a command expects the host: none of them may receive a token.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;

/// How an impostor responds.
#[derive(Clone)]
enum Behaviour {
    /// Sends these bytes on each connection.
    Answer(&'static str),
    /// Forwards everything to a real host, and the responses back.
    Relay(String),
}

/// A listener that records everything it receives.
struct Impostor {
    address: String,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Impostor {
    fn start(address: &str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received = Arc::new(Mutex::new(Vec::new()));
        let records = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (records, behaviour) = (Arc::clone(&records), behaviour.clone());
                std::thread::spawn(move || serve(stream, &behaviour, &records));
            }
        });
        Self { address, received }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns everything received since the last call.
    fn received(&self) -> String {
        let bytes = std::mem::take(&mut *self.received.lock().unwrap());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn serve(mut stream: TcpStream, behaviour: &Behaviour, records: &Mutex<Vec<u8>>) {
    let mut upstream = match behaviour {
        Behaviour::Relay(address) => Some(TcpStream::connect(address).unwrap()),
        Behaviour::Answer(_) => None,
    };
    if let Some(upstream) = &upstream {
        let (mut from, mut to) = (upstream.try_clone().unwrap(), stream.try_clone().unwrap());
        std::thread::spawn(move || {
            drop(std::io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Both));
        });
    }
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        records.lock().unwrap().extend_from_slice(&bytes[..length]);
        match (&mut upstream, behaviour) {
            (Some(upstream), _) => drop(upstream.write_all(&bytes[..length])),
            (None, Behaviour::Answer(text)) => drop(stream.write_all(text.as_bytes())),
            (None, Behaviour::Relay(_)) => {}
        }
    }
}

fn lantern(arguments: &[&str], env: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command.args(arguments).env_clear().envs(env.iter().copied());
    let (code, text) = crate::host::output(&mut command);
    (code == 0, text)
}

/// Records `url` as the address of the running host.
fn point_to(dir: &Path, url: &str) {
    let text = serde_json::json!({"url": url, "pid": std::process::id()}).to_string();
    std::fs::write(dir.join("host.json"), text).unwrap();
}

#[test]
fn a_download_server_receives_only_the_token_given_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // The command finds the host before it fetches the component.
    let host = Impostor::start("127.0.0.1:0", Behaviour::Answer(""));
    point_to(dir, &host.url());
    std::fs::write(
        dir.join("host.key"),
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    )
    .unwrap();
    std::fs::write(dir.join("operator.token"), "lantern_secret").unwrap();
    std::fs::write(dir.join("other.token"), "lantern_for_the_source").unwrap();
    let (data_dir, other) = (dir.to_str().unwrap(), dir.join("other.token"));
    let other = other.to_str().unwrap();
    let not_found = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let source = Impostor::start("127.0.0.1:0", Behaviour::Answer(not_found));
    let component = format!("{}/api/v1/plugins/x/component", source.url());
    let install = ["plugin", "install", &component, "--data-dir", data_dir];

    for (more, env) in [
        (&[][..], &[][..]),
        (&[], &[("LANTERN_TOKEN", "lantern_secret")]),
        (&["--token-file", &format!("{data_dir}/operator.token")], &[]),
    ] {
        let (done, text) = lantern(&[&install[..], more].concat(), env);
        assert!(!done && text.contains("status 404"), "{text}");
        let received = source.received();
        assert!(received.contains("GET /api/v1/plugins/x/component"), "{received}");
        assert!(
            !received.contains("secret") && !received.to_lowercase().contains("authorization"),
            "{received}"
        );
    }
    let (_, text) = lantern(&[&install[..], &["--from-token-file", other]].concat(), &[]);
    let received = source.received();
    assert!(
        received.contains("Bearer lantern_for_the_source") && !received.contains("secret"),
        "{received}{text}"
    );
}

#[test]
fn a_program_that_takes_the_port_of_a_killed_host_never_sees_a_token() {
    let plugins = plugin_folder(&["obs-events"]);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let data_dir = dir.to_str().unwrap();
    let list = ["token", "list", "--data-dir", data_dir];
    let nowhere = "nats://127.0.0.1:1";
    let host = Host::start(dir, nowhere, plugins.path());
    let address = host.url().replace("http://", "");
    let (done, text) = lantern(&list, &[]);
    assert!(done, "{text}");
    host.kill();
    let token = std::fs::read_to_string(dir.join("operator.token")).unwrap();

    let refused = |impostor: &Impostor, expected: &str| {
        for env in [&[][..], &[("LANTERN_TOKEN", token.trim())]] {
            for arguments in [
                &list[..],
                &["plugin", "pause", "obs-events", "--data-dir", data_dir],
            ] {
                let (done, text) = lantern(arguments, env);
                assert!(
                    !done
                        && text.contains("is not the host of this data directory")
                        && text.contains(expected),
                    "{text}"
                );
            }
        }
        let received = impostor.received();
        assert!(received.contains("GET /api/v1/prove?nonce="), "{received}");
        assert!(
            !received.contains(token.trim()) && !received.to_lowercase().contains("authorization"),
            "{received}"
        );
    };
    let taken = Impostor::start(
        &address,
        Behaviour::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
    );
    // Another process may have reused the pid of the killed host.
    point_to(dir, &taken.url());
    refused(&taken, "returned no proof of identity");
    let made_up = Impostor::start(
        "127.0.0.1:0",
        Behaviour::Answer(
            "HTTP/1.1 200 OK\r\ncontent-length: 55\r\n\r\n{\"proof\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
        ),
    );
    point_to(dir, &made_up.url());
    refused(&made_up, "does not have the key");

    // The host runs again at another address, and the impostor forwards requests to it.
    let host = Host::start(dir, nowhere, plugins.path());
    let (done, text) = lantern(&list, &[]);
    assert!(done, "{text}");
    let relay = Impostor::start("127.0.0.1:0", Behaviour::Relay(host.url().replace("http://", "")));
    point_to(dir, &relay.url());
    refused(&relay, "does not have the key");
    host.terminate();
}

#[test]
fn a_data_directory_of_another_user_receives_no_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let planted = folder.path().join("lantern-data");
    std::fs::create_dir(&planted).unwrap();
    let impostor = Impostor::start(
        "127.0.0.1:0",
        Behaviour::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"),
    );
    point_to(&planted, &impostor.url());
    std::fs::write(
        planted.join("host.key"),
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    )
    .unwrap();
    std::fs::set_permissions(&planted, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command
        .args(["token", "list"])
        .current_dir(folder.path())
        .env_clear()
        .env("LANTERN_TOKEN", "lantern_secret");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("is not trusted"),
        "{text}"
    );
    assert_eq!(impostor.received(), "");
}
