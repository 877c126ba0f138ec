//! Tests `lantern forget` against the real program: it is killed midway and repeated, and neither audit nor log
//! contains the erased data.

use std::process::{Command, Stdio};

use super::*;
use crate::evolving;
use crate::host::check;

const WHO: &str = "secret-of-ann";

struct Scene {
    server: NatsServer,
    folder: tempfile::TempDir,
}

impl Scene {
    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Starts a host that appends its log, at level debug, to a file.
    fn host(&self) -> Host {
        let plugins = self.folder.path().join("plugins");
        let mut command = Host::command(&self.data(), &self.server.url(), &plugins);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"));
        command
            .env("LANTERN__LOG__FILTER", "debug")
            .stderr(Stdio::from(log.unwrap()));
        Host::spawn(command)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
        command
            .args(arguments)
            .env_clear()
            .env("LANTERN__DATA_DIR", self.data())
            .stdin(Stdio::null());
        command
    }

    /// Returns the exit code and all output.
    fn lantern(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let printed = text(&output.stdout) + &text(&output.stderr);
        (output.status.code().unwrap_or(-1), printed)
    }

    fn count(&self, sql: &str) -> u64 {
        query(&self.data(), sql)[0].parse().unwrap()
    }

    /// Returns the number of messages in the stream.
    fn held(&self) -> u64 {
        run(async {
            let context = self.server.jetstream().await;
            let mut stream = context.get_stream("EVOLVE").await.unwrap();
            stream.info().await.unwrap().state.messages
        })
    }

    #[track_caller]
    fn holds(&self, file: &str) -> bool {
        let bytes = std::fs::read(self.folder.path().join(file)).unwrap_or_default();
        bytes.windows(WHO.len()).any(|window| window == WHO.as_bytes())
    }
}

#[test]
fn an_erasure_that_was_killed_is_completed_by_its_repetition() {
    let scene = Scene {
        server: NatsServer::start(),
        folder: tempfile::tempdir().unwrap(),
    };
    run(async {
        let stream = async_nats::jetstream::stream::Config {
            name: "EVOLVE".into(),
            subjects: vec!["evolve.>".into()],
            ..Default::default()
        };
        scene
            .server
            .jetstream()
            .await
            .create_stream(stream)
            .await
            .unwrap();
    });
    let plugins = scene.folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::write(plugins.join("a.wasm"), evolving::version(b'a')).unwrap();
    let host = scene.host();
    let messages: Vec<(String, String)> = (0..2_000)
        .map(|n| {
            let payload = if n % 2 == 0 {
                format!("{WHO} {n}")
            } else {
                n.to_string()
            };
            ("evolve.x".to_owned(), payload)
        })
        .collect();
    publish(&scene.server, &messages);
    host.wait("checkpoint", LIMIT, |host| {
        host.projection("evolve")["checkpoint"] == 2_000
    });

    let condition = format!("note={WHO}");
    let erase = ["forget", &condition, "--yes"];
    let (code, printed) = scene.lantern(&["forget", &condition]);
    assert_eq!(code, 2, "{printed}");
    let (code, printed) = scene.lantern(&["forget", &condition, "--dry-run"]);
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("would erase 1000 messages")
            && printed.contains("stream EVOLVE: 1000 messages would be deleted"),
        "{printed}"
    );
    assert_eq!(scene.held(), 2_000);
    assert_eq!(scene.count("SELECT count(*) FROM _lantern_forgotten_value"), 0);
    let (code, printed) = scene.lantern(&["forget", "nothing=1", "--dry-run"]);
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("no table has a column nothing; tables: evolved (n, note)"),
        "{printed}"
    );

    let mut erasing = scene
        .command(&erase)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    host.wait("a part of the erasure", LIMIT, |_| {
        scene.count("SELECT count(*) FROM _lantern_forgotten_message") >= 100
    });
    host.kill();
    assert!(!erasing.wait().unwrap().success());
    assert!(scene.held() > 1_000, "all was deleted before the host was killed");

    let host = scene.host();
    let (code, printed) = scene.lantern(&erase);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("stream EVOLVE: "), "{printed}");
    assert_eq!(scene.held(), 1_000);
    assert_eq!(
        scene.count("SELECT count(*) FROM _lantern_dead_letter WHERE state = 'forgotten'"),
        1_000
    );
    assert_eq!(
        scene.count("SELECT count(*) FROM _lantern_forgotten_message WHERE deleted_at IS NULL"),
        0
    );
    assert_eq!(scene.count("SELECT count(*) FROM evolved"), 1_000);
    assert!(!scene.holds("data/lantern.db") && !scene.holds("data/lantern.db-wal"));
    let (code, printed) = scene.lantern(&["audit"]);
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("data.forget") && printed.contains("column note"),
        "{printed}"
    );
    assert!(!printed.contains(WHO), "{printed}");
    assert!(!scene.holds("log"));
    let (status, _) = host.terminate();
    assert!(status.success());
    let (code, report) = check(&scene.data());
    assert_eq!(code, 0, "{report}");
    assert!(report.contains("1,000 erased messages"), "{report}");
}
