//! Tests `lantern forget` against the real program: it is killed midway and repeated, and neither audit nor log
//! contains the erased data.

use std::process::{Command, Stdio};

use super::*;
use crate::evolving;
use crate::host::check;

const WHO: &str = "secret-of-ann";

struct Scene {
    server: NatsServer,
    /// User and password in the URL of the host, with `@`; empty without.
    login: &'static str,
    folder: tempfile::TempDir,
}

impl Scene {
    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Starts a host that appends its log, at level debug, to a file.
    fn host(&self) -> Host {
        let plugins = self.folder.path().join("plugins");
        let url = self.server.url().replace("://", &format!("://{}", self.login));
        let mut command = Host::command(&self.data(), &url, &plugins);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"));
        command
            .env("LANTERN__LOG__FILTER", "debug")
            .stderr(Stdio::from(log.unwrap()));
        Host::spawn(command)
    }

    /// Creates the stream, and installs the plugin at the next start.
    fn prepare(&self) {
        run(async {
            let stream = crate::nats::stream("EVOLVE", "evolve.>");
            let context = self.server.jetstream().await;
            context.create_stream(stream).await.unwrap();
        });
        let plugins = self.folder.path().join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        std::fs::write(plugins.join("a.wasm"), evolving::version(b'a')).unwrap();
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
        crate::host::output(&mut self.command(arguments))
    }

    fn count(&self, sql: &str) -> u64 {
        query(&self.data(), sql)[0].parse().unwrap()
    }

    /// Returns the number of messages in the stream.
    fn stored_messages(&self) -> u64 {
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
fn repeating_an_interrupted_erasure_completes_it() {
    let scene = Scene {
        server: NatsServer::start(),
        login: "",
        folder: tempfile::tempdir().unwrap(),
    };
    scene.prepare();
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
    assert_eq!(scene.stored_messages(), 2_000);
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
    assert!(
        scene.stored_messages() > 1_000,
        "all was deleted before the host was killed"
    );

    let host = scene.host();
    let (code, printed) = scene.lantern(&erase);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("stream EVOLVE: "), "{printed}");
    assert_eq!(scene.stored_messages(), 1_000);
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
    let status = host.terminate();
    assert!(status.success());
    let (code, report) = check(&scene.data());
    assert_eq!(code, 0, "{report}");
    assert!(report.contains("1,000 erased messages"), "{report}");
}

/// Users of a broker: one for the test, and one for the host with these permissions.
fn users(permissions: &str) -> String {
    format!(
        "authorization {{ users: [{{ user: test, password: t }}, {{ user: host, password: h {permissions} }}] }}\n\
         no_auth_user: test\n"
    )
}

#[test]
fn messages_that_cannot_be_deleted_are_reported_with_a_remedy() {
    let denied = users(r#", permissions: { publish: { deny: ["$JS.API.STREAM.MSG.DELETE.>"] } }"#);
    let mut scene = Scene {
        server: NatsServer::start_with(&denied),
        login: "host:h@",
        folder: tempfile::tempdir().unwrap(),
    };
    scene.prepare();
    run(async {
        let copy = crate::nats::mirror("EVOLVE_COPY", "EVOLVE");
        let context = scene.server.jetstream().await;
        context.create_stream(copy).await.unwrap();
    });
    let host = scene.host();
    publish(
        &scene.server,
        &[
            ("evolve.x".to_owned(), format!("{WHO} 1")),
            ("evolve.x".to_owned(), "2".to_owned()),
        ],
    );
    host.wait("checkpoint", LIMIT, |host| {
        host.projection("evolve")["checkpoint"] == 2
    });
    let (_, printed) = scene.lantern(&["forget", &format!("note={WHO}"), "--yes"]);
    for part in [
        "permit the host's user to publish to $JS.API.STREAM.MSG.DELETE.EVOLVE",
        "EVOLVE_COPY",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(scene.count("SELECT count(*) FROM evolved"), 1);
    assert_eq!(scene.stored_messages(), 2);
    scene.server.configure(&users(""));
    scene.server.reload();
    host.wait("the message is deleted", LIMIT, |_| {
        scene.lantern(&["forget", "--outstanding", "--yes"]);
        scene.stored_messages() == 1
    });
    host.terminate();
    let (code, report) = check(&scene.data());
    assert_eq!(code, 0, "{report}");
}

#[test]
fn the_report_counts_repeats_and_names_what_is_not_searched() {
    let site = Site::new(&["obs-events", "audit-log"]);
    let host = site.running("obs");
    site.publish(&obs(1, 3));
    site.publish(&obs(2, 2));
    host.wait("checkpoint", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == 5
    });
    let text = succeeds(site.dir(), &["forget", "pc_id=pc-1", "--dry-run"]);
    for part in [
        "would erase 3 messages",
        "messages of plugin obs-events contain 2 rows that were already stored",
        "not searched, because they lack the column: audit_log.",
        "not searched for the value within documents: ",
        "obs_events.payload",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // As the report says: a rebuild finds the repeated messages, and then they are deleted.
    let held = || {
        run(async {
            let context = site.server.jetstream().await;
            let mut stream = context.get_stream("OBS_EVENTS").await.unwrap();
            stream.info().await.unwrap().state.messages
        })
    };
    succeeds(site.dir(), &["forget", "pc_id=pc-1", "--yes"]);
    assert_eq!(held(), 2);
    succeeds(site.dir(), &["rebuild", "obs-events"]);
    succeeds(site.dir(), &["forget", "--outstanding", "--yes"]);
    assert_eq!(held(), 0);
    site.end(host);
}
