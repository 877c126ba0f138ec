//! Tests the commands for plugin authors with the real binary, cargo and real components, in a folder outside any
//! checkout.

#![allow(clippy::too_many_lines, reason = "a scenario is one sequence of steps")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by it"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Returns the build folder of all projects in these tests, so that registry crates are compiled once.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("author-target")
}

/// Creates an empty folder for projects. The path is always the same, so that the SDK next to a project is built only
/// once.
fn workplace(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("author").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn lantern(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(arguments)
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", target())
        // The crates of a project are a subset of the crates of this workspace.
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("RUSTFLAGS")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str], dir: &Path) -> String {
    let output = lantern(arguments, dir);
    assert!(
        output.status.success(),
        "{arguments:?}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a command that must exit with 1 and returns its combined output.
#[track_caller]
fn fails(arguments: &[&str], dir: &Path) -> String {
    let output = lantern(arguments, dir);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}\n{said}");
    said
}

/// Pins crates to the versions of this workspace, because those are available offline.
fn lock(project: &Path) {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    std::fs::copy(lock, project.join("Cargo.lock")).unwrap();
}

#[track_caller]
fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

#[track_caller]
fn has(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
}

const SAMPLE: &str = r#"{"orderId":"a","customer":"x","placedAt":"2026-05-28T12:41:00+02:00","total_cents":100,"type":"gift","note":null}
{"orderId":"b","customer":"x","placedAt":"2026-05-28T10:41:01Z","total_cents":250,"type":"gift","items":[{"sku":1}],"weight":2}
{"orderId":"c","customer":"y","placedAt":"2026-05-28T10:41:02Z","total_cents":250,"type":"gift","weight":2.5}
"#;

/// One project goes through all steps, to compile as rarely as possible.
#[test]
fn a_new_plugin_stores_rows_and_common_mistakes_are_explained() {
    let dir = workplace("rust");
    std::fs::write(dir.join("sample.jsonl"), SAMPLE).unwrap();
    let said = succeeds(&["plugin", "new", "orders", "--sample", "sample.jsonl"], &dir);
    has(
        &said,
        &[
            "stream ORDERS (orders.>)",
            "derived from 3 messages of sample.jsonl",
            "order_id",
            "key",
            "measure",
            "lantern plugin test",
        ],
    );
    let project = dir.join("orders");
    lock(&project);
    let again = fails(&["plugin", "new", "orders"], &dir);
    has(&again, &["orders already exists", "--path DIR"]);

    let said = succeeds(&["plugin", "test"], &project);
    has(&said, &["orders 0.1.0", "sample-1", "sample-3", "3 cases ok"]);

    // A second message, with and without an expectation, and one with its own subject.
    let fixture = project.join("fixtures/more.messages.jsonl");
    std::fs::write(
        &fixture,
        "{\"subject\":\"orders.new\",\"payload\":{\"orderId\":7}}\n{\"payload\":\"text\"}\n",
    )
    .unwrap();
    let said = fails(&["plugin", "test", "--filter", "more"], &project);
    has(
        &said,
        &[
            "FAILED",
            "more.expected.json is missing",
            "orderId: invalid type: integer `7`",
            "1 of 1 case failed",
        ],
    );
    let said = succeeds(&["plugin", "test", "--bless"], &project);
    has(&said, &["blessed", "4 cases ok, 1 of them accepted"]);
    edit(&project.join("fixtures/sample-2.expected.json"), "250", "251");
    let said = fails(&["plugin", "test"], &project);
    has(
        &said,
        &["row 1 of orders", "total_cents  expected 251", "actual 250"],
    );
    edit(&project.join("fixtures/sample-2.expected.json"), "251", "250");

    let said = succeeds(
        &[
            "plugin",
            "run",
            ".",
            "--input",
            "fixtures/sample-1.json",
            "--subject",
            "orders.x",
        ],
        &project,
    );
    has(
        &said,
        &[
            "orders.x 1 (",
            "1 row",
            "order_id     a",
            "placed_at    2026-05-28T10:41:00.000000Z",
        ],
    );
    let said = fails(
        &["plugin", "run", ".", "--input", "Cargo.toml", "--json"],
        &project,
    );
    has(&said, &["\"class\": \"malformed\""]);

    pack(&project);
    dev(&project);
    mistakes(&project);
}

/// Samples with values that a table stores in another way, or not at all.
#[test]
fn a_project_from_an_odd_sample_passes_its_first_test() {
    let dir = workplace("odd");
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let mixed = [
        // Windows programs write a byte order mark.
        "\u{feff}{\"id\":\"a\",\"x\":1e400}".to_owned(),
        "{\"id\":\"b\",\"id\":\"c\"}".to_owned(),
        format!("{{\"id\":\"d\",\"x\":{deep}}}"),
        "{\"id\":\"e\",\"x\":\"\\ud800\",\"n\":\"a\\u0000b\"}".to_owned(),
        "{\"id\":\"f\",\"r\":1547188415.8574971,\"at\":\"+12345-01-01T00:00:00Z\"}".to_owned(),
    ];
    for (name, sample, fixtures, note) in [
        (
            "mixed",
            mixed.join("\r\n"),
            3,
            "2 of 5 messages are not used as fixtures; the first is message 2: the field \"id\" occurs more than once",
        ),
        (
            "repeated",
            "{\"a\":1,\"a\":\"x\"}\n".to_owned(),
            1,
            "no message can be stored in a column for each field",
        ),
        (
            "deep",
            format!("{{\"x\":{deep}}}\n"),
            1,
            "no message can be stored as JSON",
        ),
    ] {
        std::fs::write(dir.join("sample.jsonl"), sample).unwrap();
        let created = succeeds(&["plugin", "new", name, "--sample", "sample.jsonl"], &dir);
        has(&created, &[note, "with the expected rows"]);
        lock(&dir.join(name));
        let tested = succeeds(&["plugin", "test"], &dir.join(name));
        let cases = format!("{fixtures} case{} ok", if fixtures == 1 { "" } else { "s" });
        has(&tested, &[cases.as_str()]);
    }

    std::fs::write(dir.join("sample.bin"), b"\xff\xfe\x00").unwrap();
    let created = succeeds(&["plugin", "new", "bytes", "--sample", "sample.bin"], &dir);
    has(
        &created,
        &[
            "no message becomes a row of this table; message 1: not UTF-8",
            "`lantern plugin test --bless`",
            "without the expected rows",
        ],
    );
}

fn pack(project: &Path) {
    let refused = fails(&["plugin", "pack", "--license", "mine alone"], project);
    has(&refused, &["the licence \"mine alone\" cannot be used", "SPDX"]);
    let said = succeeds(
        &[
            "plugin",
            "pack",
            "--license",
            "MIT",
            "--source",
            "https://example.org/orders",
        ],
        project,
    );
    has(
        &said,
        &["orders-0.1.0.wasm", "digest       sha256:", "licence      MIT"],
    );
    let said = succeeds(&["plugin", "inspect", "orders-0.1.0.wasm"], project);
    has(&said, &["orders 0.1.0", "MIT", "https://example.org/orders"]);
    has(&said, &["signature", "none"]);
    succeeds(
        &["plugin", "test", "orders-0.1.0.wasm", "--filter", "sample-1"],
        project,
    );
    sign(project);
}

fn sign(project: &Path) {
    let component = "orders-0.1.0.wasm";
    let inspect = ["plugin", "inspect", component];
    let with_key = |key: &'static str| [&inspect[..], &["--key", key]].concat();
    for name in ["mine", "theirs"] {
        let said = succeeds(&["plugin", "keygen", name, "--no-password"], project);
        has(
            &said,
            &[&format!("{name}.key"), "keep it private", "plugins.keys = \"RW"],
        );
    }
    let secret = project.join("mine.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&secret).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let public = std::fs::read_to_string(project.join("mine.pub")).unwrap();
    assert!(public.starts_with("untrusted comment: "), "{public}");
    let unsigned = fails(&with_key("mine.pub"), project);
    has(&unsigned, &["signature", "none"]);
    let said = succeeds(
        &["plugin", "sign", component, "--secret-key", "mine.key"],
        project,
    );
    let public_key = public.lines().nth(1).unwrap();
    has(&said, &["orders-0.1.0.wasm.minisig", public_key]);
    let secret = std::fs::read_to_string(secret).unwrap();
    assert!(!said.contains(secret.lines().nth(1).unwrap()), "{said}");
    has(&succeeds(&inspect, project), &["not verified; use --key"]);
    let good = succeeds(&with_key("mine.pub"), project);
    has(&good, &["valid, key", "file:orders-0.1.0.wasm"]);
    let other = fails(&with_key("theirs.pub"), project);
    has(&other, &["invalid: signed with key", "; --key is"]);
    let no_key = fails(
        &["plugin", "sign", component, "--secret-key", "mine.pub"],
        project,
    );
    has(
        &no_key,
        &["not a secret key of minisign", "lantern plugin keygen"],
    );
    let twice = lantern(&["plugin", "keygen", "mine", "--no-password"], project);
    assert_eq!(twice.status.code(), Some(2), "{}", text(&twice.stderr));
    has(&text(&twice.stderr), &["mine.key already exists"]);
}

/// A running `plugin dev`; killed if the test fails.
struct Dev {
    child: std::process::Child,
    lines: std::sync::mpsc::Receiver<String>,
    said: String,
}

impl Dev {
    fn start(project: &Path) -> Self {
        let server = std::env::var_os("LANTERN_NATS_SERVER").map(PathBuf::from);
        let server = server
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats-server"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(["plugin", "dev", "--full", "--nats-server"])
            .arg(server)
            .current_dir(project)
            .env("CARGO_TARGET_DIR", target())
            .env("CARGO_NET_OFFLINE", "true")
            .env("TMPDIR", project.parent().unwrap())
            .env_remove("RUSTFLAGS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(out) {
                let Ok(line) = line else { return };
                drop(sender.send(line));
            }
        });
        Self {
            child,
            lines,
            said: String::new(),
        }
    }

    #[track_caller]
    fn until(&mut self, words: &str) {
        loop {
            match self.lines.recv_timeout(std::time::Duration::from_secs(120)) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if line.contains(words) {
                        return;
                    }
                }
                Err(_) => panic!("{words:?} did not come after\n{}", self.said),
            }
        }
    }

    #[track_caller]
    fn stops(&mut self) {
        Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.said);
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dev(project: &Path) {
    let mut dev = Dev::start(project);
    dev.until("row  orders  order_id=a");
    dev.until("dead orders.new");
    // A saved message is sent; a failing build leaves the running version in place.
    std::fs::write(
        project.join("fixtures/later.json"),
        SAMPLE.lines().next().unwrap().replace("\"a\"", "\"later\""),
    )
    .unwrap();
    dev.until("row  orders  order_id=later");
    let library = project.join("src/lib.rs");
    edit(&library, "customer: String", "customer: Strin");
    dev.until("the previous version stays active");
    // The table changes, so it is rebuilt from all messages.
    edit(
        &library,
        "customer: Strin",
        "#[serde(rename = \"customer\")]\n    buyer: String",
    );
    dev.until("buyer=x");
    edit(
        &library,
        "#[serde(rename = \"customer\")]\n    buyer: String",
        "customer: String",
    );
    dev.until("customer=x");
    dev.stops();
    std::fs::remove_file(project.join("fixtures/later.json")).unwrap();
    let left: Vec<_> = std::fs::read_dir(project.parent().unwrap())
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.starts_with("lantern-dev"))
        .collect();
    assert!(left.is_empty(), "{left:?} stays behind");
}

fn mistakes(project: &Path) {
    let library = project.join("src/lib.rs");
    let good = std::fs::read_to_string(&library).unwrap();
    let with = |from: &str, to: &str| {
        std::fs::write(&library, &good).unwrap();
        edit(&library, from, to);
    };

    with("total_cents: i64", "total_cents: u64");
    has(
        &fails(&["plugin", "test"], project),
        &["`u64` cannot be a column", "total_cents: u64", "i64"],
    );

    with("lantern_sdk::export!(Orders);", "");
    let said = fails(&["plugin", "test"], project);
    has(&said, &["lantern_sdk::export!(Orders)"]);

    with(
        "rows.put(",
        "if message.sequence == 1 { loop { std::hint::black_box(0); } }\n    rows.put(",
    );
    let said = fails(&["plugin", "test", "--filter", "sample-1"], project);
    has(&said, &["rejected as timeout", "did not end within 1000 ms"]);

    with(
        "rows.put(",
        "if message.sequence == 1 { panic!(\"no such order\") }\n    rows.put(",
    );
    let said = fails(&["plugin", "test", "--filter", "sample-1"], project);
    has(&said, &["rejected as trap"]);
}
