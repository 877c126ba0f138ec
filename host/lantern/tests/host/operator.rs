//! Tests an operator's tasks through the command line against the real program: plugins are installed, swapped, rolled
//! back, paused and removed, dead letters are retried, and the audit records who did it.

use std::process::{Command, Stdio};

use super::*;
use crate::evolving;

#[path = "operator/names.rs"]
mod names;

struct Scene {
    server: NatsServer,
    folder: tempfile::TempDir,
    host: Host,
}

impl Scene {
    /// Starts a host with an empty plugin directory, and a stream for the evolving plugin.
    fn start() -> Self {
        let server = NatsServer::start();
        run(async {
            server
                .create_stream(crate::nats::stream("EVOLVE", "evolve.>"))
                .await;
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        for letter in [b'a', b'b', b'c', b'e', b'f'] {
            let name = format!("{}.wasm", char::from(letter));
            std::fs::write(folder.path().join(name), evolving::version(letter)).unwrap();
        }
        let data = folder.path().join("data");
        let host = Host::start(&data, &server.url(), &folder.path().join("plugins"));
        Self { server, folder, host }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Returns exit code, standard output and standard error.
    fn lantern(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("LANTERN__DATA_DIR", self.data())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Runs a command that must succeed, and returns its output.
    #[track_caller]
    fn done(&self, command: &str) -> String {
        let arguments: Vec<&str> = command.split(' ').collect();
        let (code, out, error) = self.lantern(&arguments);
        assert_eq!(code, 0, "{command}: {out}{error}");
        out
    }

    /// Runs a command that must fail with this code, and returns its error.
    #[track_caller]
    fn fails(&self, command: &str, code: i32) -> String {
        let arguments: Vec<&str> = command.split(' ').collect();
        let (found, out, error) = self.lantern(&arguments);
        assert_eq!(found, code, "{command}: {out}{error}");
        error
    }

    fn publish(&self, payloads: &[&str]) {
        let messages: Vec<(String, String)> = payloads
            .iter()
            .map(|payload| ("evolve.x".to_owned(), (*payload).to_owned()))
            .collect();
        publish(&self.server, &messages);
    }

    fn wait_for_checkpoint(&self, sequence: u64) {
        self.host.wait(&format!("checkpoint {sequence}"), LIMIT, |host| {
            host.projection("evolve")["checkpoint"] == sequence
        });
    }

    fn notes(&self) -> Vec<String> {
        query(&self.data(), "SELECT n || note FROM evolved ORDER BY n")
    }
}

#[track_caller]
fn assert_contains(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

#[test]
fn an_operator_installs_activates_retries_pauses_and_removes() {
    let scene = Scene::start();
    assert_contains(
        &scene.done("plugin list"),
        &["no plugins installed", "lantern plugin install FILE --activate"],
    );
    assert_contains(
        &scene.done("plugin install a.wasm --activate"),
        &[
            "evolving 1.0.0 (",
            ") is active\n",
            "lantern plugin show evolving",
        ],
    );
    scene.publish(&["1", "2", "later 3", "4"]);
    scene.wait_for_checkpoint(4);
    let letters = scene.done("dead-letters list");
    assert_contains(&letters, &["evolving/evolve", "malformed", "what is later?"]);
    let id = letters
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    assert_contains(
        &scene.done(&format!("dead-letters show {id}")),
        &["\nlater 3\n", "EVOLVE 3, epoch 1", &format!("retry --id {id}")],
    );
    assert_contains(
        &scene.done("dead-letters retry --plugin evolving"),
        &["resolved 0 of 1 dead letters"],
    );

    // The second version can decode the message.
    let installed = scene.done("plugin install e.wasm");
    assert_contains(
        &installed,
        &["evolving 1.3.0", "is installed", "version 1.0.0 becomes 1.3.0"],
    );
    assert_contains(
        &scene.done("plugin activate evolving@1.3.0"),
        &[
            "is active",
            "resolved 1 of 1 dead letters",
            "lantern plugin rollback evolving",
        ],
    );
    assert_eq!(scene.notes(), ["1a", "2a", "3e", "4a"]);
    scene.publish(&["5"]);
    scene.wait_for_checkpoint(5);

    assert_contains(
        &scene.done("plugin rollback evolving"),
        &["evolving 1.0.0", "is active"],
    );
    scene.publish(&["later 6", "7"]);
    scene.wait_for_checkpoint(7);
    assert_eq!(scene.notes(), ["1a", "2a", "3e", "4a", "5e", "7a"]);
    let shown = scene.done("plugin show evolving");
    assert_contains(
        &shown,
        &[
            "1.3.0",
            "replaced",
            "sent by local",
            "messages passed since loading",
            "0 failed calls",
        ],
    );
    let handled: Vec<&str> = shown.lines().filter(|line| line.starts_with("evolve ")).collect();
    assert_eq!(handled.len(), 3, "{shown}");

    scene.done("plugin pause evolving --reason maintenance");
    scene.host.wait("paused", LIMIT, |host| {
        host.check("projection:evolving/evolve") == Some((true, "paused: maintenance (by local)".to_owned()))
    });
    scene.publish(&["8"]);
    assert_contains(
        &scene.done("plugin list"),
        &["paused", "paused: evolving: maintenance (by local)"],
    );
    scene.done("plugin resume evolving");
    scene.wait_for_checkpoint(8);

    assert_contains(
        &scene.done("plugin set evolving limits.memory=128MiB dead_letters.max=7"),
        &["limits.memory=128 MiB", "dead_letters.max=7"],
    );
    let error = scene.fails("plugin set evolving limits.memory=1B limits.memroy=1", 1);
    assert_contains(
        &error,
        &[
            "\n  - limits.memory: 1 B is out of range",
            "\n  - limits.memroy: unknown field",
        ],
    );
    assert_contains(
        &scene.done("plugin set evolving limits.memory= dead_letters.max="),
        &["evolving now has the default settings"],
    );
    removed(&scene);
    audited(&scene);
    sound(&scene.data());
}

/// The end: exports and discards the last dead letter, and removes the plugin twice.
fn removed(scene: &Scene) {
    let line = scene.done("dead-letters export --state open");
    let letter: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&letter["payload_text"], &letter["payload_base64"]),
        (&json!("later 6"), &json!("bGF0ZXIgNg=="))
    );
    assert!(scene.fails("dead-letters discard", 2).contains("--all"));
    assert!(scene.fails("dead-letters retry", 2).contains("--all"));
    assert_contains(
        &scene.done("dead-letters discard --since 1h"),
        &["discarded 1 dead letters"],
    );
    assert_contains(
        &scene.done("dead-letters retry --all"),
        &["no matching open dead letters"],
    );
    assert_eq!(scene.done("dead-letters export --state open"), "");

    assert!(scene.fails("plugin remove evolving", 2).contains("--keep-tables"));
    assert!(
        scene
            .fails("plugin remove evolving --drop-tables", 2)
            .contains("--yes")
    );
    scene.done("plugin remove evolving --keep-tables");
    assert!(
        scene
            .fails("plugin show evolving", 1)
            .contains("hint: lantern plugin list")
    );
    assert_eq!(scene.notes().len(), 7);
    assert_contains(&scene.done("plugin install a.wasm --activate"), &["is active"]);
    scene.publish(&["9"]);
    scene.wait_for_checkpoint(9);
    assert_eq!(scene.notes().len(), 8);
    assert_contains(
        &scene.done("plugin remove evolving --drop-tables --yes"),
        &["with its tables evolved"],
    );
}

fn audited(scene: &Scene) {
    let audit = scene.done("audit --actor local --plugin evolving --json");
    let entries: Vec<serde_json::Value> = serde_json::from_str(&audit).unwrap();
    let listed: Vec<String> = entries
        .iter()
        .rev()
        .map(|entry| format!("{} {}", entry["action"], entry["outcome"]).replace('"', ""))
        .collect();
    assert_eq!(
        listed,
        [
            "plugin.install done",
            "dead-letters.retry done",
            "plugin.install done",
            "plugin.activate done",
            "plugin.rollback done",
            "plugin.pause done",
            "plugin.resume done",
            "plugin.set done",
            "plugin.set refused",
            "plugin.set done",
            "plugin.remove done",
            "plugin.install done",
            "plugin.remove done",
        ]
    );
    assert!(audit.contains("version 1.3.0 is active"), "{audit}");
}

/// Returns the names of a process's threads, each with its niceness.
#[cfg(target_os = "linux")]
fn threads(pid: u32) -> Vec<(String, i64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (begin, rest) = stat.rsplit_once(')')?;
        let (_, name) = begin.split_once('(')?;
        Some((name.to_owned(), rest.split_whitespace().nth(16)?.parse().ok()?))
    };
    // Some threads exit while the test reads the list.
    tasks.filter_map(|task| read(task.unwrap())).collect()
}

/// Operations started over the API run on the host's own threads, which have priority over the API threads (ADR 12).
#[cfg(target_os = "linux")]
#[test]
fn api_reads_run_at_lower_priority_than_ingestion() {
    let scene = Scene::start();
    scene.done("plugin install a.wasm --activate");
    scene.publish(&[r#"{"n":1,"note":"x"}"#]);
    scene.wait_for_checkpoint(1);
    let threads = threads(scene.host.pid());
    let of = |name: &str| -> Vec<i64> {
        let named = threads.iter().filter(|(found, _)| found == name);
        named.map(|(_, nice)| *nice).collect()
    };
    let own = of("lantern")[0];
    assert_eq!(of("lantern"), vec![own; of("lantern").len()], "{threads:?}");
    assert!(of("lantern").len() > 2, "{threads:?}");
    // The response threads, and at least one thread that reads the database for them. The thread that accepts
    // connections has little work; it keeps normal priority so that liveness probes succeed on a busy machine.
    for (name, least, nice) in [("lantern-api", 3, own + 5), ("lantern-front", 1, own)] {
        assert_eq!(of(name), vec![nice; of(name).len()], "{threads:?}");
        assert!(of(name).len() >= least, "{threads:?}");
    }
}

#[test]
fn versions_are_compared_in_the_host_and_between_files() {
    let scene = Scene::start();
    scene.done("plugin install a.wasm --activate");
    scene.done("plugin install c.wasm");
    let in_host = scene.done("plugin diff evolving 1.0.0 2.0.0");
    let of_files = scene.done("plugin diff a.wasm c.wasm");
    assert_eq!(in_host, of_files);
    assert_contains(
        &in_host,
        &[
            "table evolved, column note: is text and would become integer (needs a rebuild)",
            "the tables must be rebuilt",
        ],
    );
    assert_contains(
        &scene.done("plugin diff a.wasm b.wasm"),
        &["column extra: is new", "activation adds tables"],
    );
    let json: serde_json::Value =
        serde_json::from_str(&scene.done("plugin diff a.wasm a.wasm --json")).unwrap();
    assert_eq!(
        (&json["effect"], &json["differences"]),
        (&json!("none"), &json!([]))
    );

    let error = scene.fails("plugin install c.wasm --activate", 1);
    assert_contains(
        &error,
        &[
            "the version was installed but not activated: table evolved",
            "hint: ",
        ],
    );
    let error = scene.fails("plugin activate evolving@2.0.0", 1);
    assert_contains(
        &error,
        &[
            "error: The tables of the plugin are incompatible",
            "\n  - ",
            "column note is text",
            "\nhint: ",
        ],
    );
    assert!(
        scene
            .fails("plugin diff evolving 1.0.0 9.9.9", 1)
            .contains("hint: lantern plugin show evolving")
    );
    std::fs::write(scene.folder.path().join("junk.wasm"), "junk").unwrap();
    assert_contains(
        &scene.fails("plugin install junk.wasm", 1),
        &["error: The component cannot be loaded", "hint: "],
    );
    assert!(
        scene
            .fails("plugin diff a.wasm junk.wasm", 1)
            .contains("failed to load junk.wasm")
    );
    assert!(
        scene
            .fails("plugin install absent.wasm", 1)
            .contains("failed to read absent.wasm")
    );
    assert!(scene.fails("plugin show ../x", 2).contains("plugin name"));
}

#[test]
fn an_operator_runs_a_canary_traces_rows_and_reprojects_a_version() {
    let scene = Scene::start();
    scene.done("plugin install a.wasm --activate");
    scene.publish(&["1", "2", "3"]);
    scene.wait_for_checkpoint(3);
    let tried = scene.done("plugin install f.wasm --canary 10");
    assert_contains(
        &tried,
        &[
            "evolving 1.4.0",
            "is installed",
            "changed",
            "1003",
            "lantern plugin activate evolving@",
        ],
    );
    assert_contains(
        &scene.done("plugin canary evolving@1.4.0 --messages 2"),
        &["candidate", "evolve 3:"],
    );
    assert_eq!(scene.notes(), ["1a", "2a", "3a"]);
    let data = scene.data().display().to_string();
    let there = format!(
        "{}/api/v1/plugins/evolving/component?version=1.4.0",
        scene.host.url()
    );
    assert_contains(
        &scene.done(&format!(
            "plugin install {there} --from-token-file {data}/operator.token --data-dir {data}"
        )),
        &["evolving 1.4.0", "is installed"],
    );
    assert_contains(
        &scene.fails("plugin canary evolving", 2),
        &["no version of evolving given"],
    );

    scene.done("plugin activate evolving@1.4.0");
    scene.publish(&["4", "5"]);
    scene.wait_for_checkpoint(5);
    assert_eq!(scene.notes(), ["1a", "2a", "3a", "1004f", "1005f"]);
    let traced = scene.done("trace evolved 1:4:0");
    assert_contains(
        &traced,
        &[
            "stream EVOLVE, sequence 4",
            "evolving 1.4.0",
            "evolve.x, published ",
            "\n4\n",
        ],
    );
    assert_contains(&scene.fails("trace evolved 9:9:9", 1), &["Not found"]);
    assert_contains(
        &scene.done("plugin written evolving@1.4.0"),
        &["evolve      1     4   5         2"],
    );
    assert_contains(&scene.fails("reproject evolving --digest 1.4.0", 1), &["1.4.0"]);
    scene.done("plugin rollback evolving");
    assert_contains(
        &scene.done("reproject evolving --digest 1.4.0"),
        &[
            "reprojected 2 messages of version 1.4.0 with 1.0.0\nrows: 2 removed; 2 inserted, 0 updated, 0 present",
        ],
    );
    assert_eq!(scene.notes(), ["1a", "2a", "3a", "4a", "5a"]);
    assert_contains(
        &scene.done("plugin written evolving@1.4.0"),
        &["has handled no messages"],
    );

    // A changed table can only be activated by a rebuild.
    scene.done("plugin install c.wasm");
    assert_contains(
        &scene.fails("plugin activate evolving@2.0.0", 1),
        &["would become integer", "lantern rebuild"],
    );
    assert_contains(
        &scene.done("rebuild evolving@2.0.0"),
        &[
            "rebuild 1 of evolving: done, 5 rows in",
            "0 carried over, 0 lost",
            "table evolved: 5 rows before, 5 after",
        ],
    );
    assert_eq!(scene.notes(), ["11", "22", "33", "44", "55"]);
    assert_contains(&scene.done("rebuild list"), &["evolving", "done"]);
    assert_contains(&scene.fails("rebuild cancel 1", 1), &["is done already"]);
    assert_contains(&scene.fails("rebuild cancel 9", 1), &["there is no rebuild 9"]);
    sound(&scene.data());
}
