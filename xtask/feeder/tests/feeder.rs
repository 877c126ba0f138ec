//! The feeder with a real broker: its messages have the formats of the plugins, and a second run has the same ids.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests and their helpers fail by panicking"
)]

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream;
use serde_json::Value;

const STREAMS: [(&str, &str); 4] = [
    ("OBS_EVENTS", "obs.>"),
    ("AUDIT", "audit.>"),
    ("EVENTS", "events.started.>"),
    ("RESULTS", "results.>"),
];

/// A broker with a temporary folder, stopped with its test.
struct Broker {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Broker {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(nats_server())
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                "-1",
                "--jetstream",
                "--store_dir",
            ])
            .arg(folder.path().join("store"))
            .arg("--ports_file_dir")
            .arg(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ports = folder.path().join(format!("nats-server_{}.ports", child.id()));
        let url = wait_for("the broker", || {
            let text = std::fs::read_to_string(&ports).ok()?;
            let ports: Value = serde_json::from_str(&text).ok()?;
            Some(ports["nats"][0].as_str()?.to_owned())
        })
        .await;
        Self { child, url, folder }
    }

    async fn connect(&self) -> (async_nats::Client, jetstream::Context) {
        let client = async_nats::connect(&self.url).await.unwrap();
        (client.clone(), jetstream::new(client))
    }

    fn feeder(&self) -> Command {
        let url = self.folder.path().join("nats.url");
        std::fs::write(&url, format!("{}\n", self.url)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lantern-demo-feeder"));
        command
            .arg("--nats-url-file")
            .arg(url)
            .arg("--outbox")
            .arg(self.folder.path().join("outbox"));
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nats_server() -> PathBuf {
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join("nats-server"))
            .find(|file| file.is_file())
    });
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats-server");
    std::env::var_os("LANTERN_NATS_SERVER")
        .map(PathBuf::from)
        .or(on_path)
        .or_else(|| tool.is_file().then_some(tool))
        .expect("no nats-server: run `cargo xtask setup`, or name one in LANTERN_NATS_SERVER")
}

async fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "timed out waiting for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All messages of a stream.
async fn messages(context: &jetstream::Context, stream: &str) -> Vec<(String, Value)> {
    let last = last_sequence(context, stream).await;
    let stream = context.get_stream(stream).await.unwrap();
    let mut messages = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        messages.push((
            message.subject.to_string(),
            serde_json::from_slice(&message.payload).unwrap(),
        ));
    }
    messages
}

async fn create_streams(context: &jetstream::Context) {
    for (name, subject) in STREAMS {
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
    }
}

/// Runs the feeder until it has read the history and run its commands, waits for `more`, and stops it.
async fn run_once<T>(broker: &Broker, context: &jetstream::Context, more: impl Future<Output = T>) -> T {
    let mut child = broker
        .feeder()
        .arg("--until-stdin-closes")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let before = last_sequence(context, "RESULTS").await;
    let started = Instant::now();
    while last_sequence(context, "RESULTS").await < before + 3 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the feeder exited unexpectedly"
        );
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "timed out waiting for the results"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let more = more.await;
    drop(child.stdin.take());
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    more
}

async fn last_sequence(context: &jetstream::Context, stream: &str) -> u64 {
    context
        .get_stream(stream)
        .await
        .unwrap()
        .info()
        .await
        .unwrap()
        .state
        .last_sequence
}

#[track_caller]
fn has_fields(body: &Value, fields: &[&str]) {
    for field in fields {
        assert!(!body[*field].is_null(), "{field} of {body}");
    }
    for field in ["at", "started_at", "finished_at", "occurred_at"] {
        if let Some(time) = body[field].as_str() {
            assert!(
                chrono::DateTime::parse_from_rfc3339(time).is_ok(),
                "{field} of {body}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_events_reach_their_streams() {
    let broker = Broker::start().await;
    let (client, context) = broker.connect().await;
    create_streams(&context).await;
    let mut samples = client.subscribe("host_perf.>").await.unwrap();
    let mut heartbeats = client.subscribe("heartbeat.>").await.unwrap();
    client.flush().await.unwrap();

    let sampling = async { (next(&mut samples).await, next(&mut heartbeats).await) };
    let (sample, heartbeat) = run_once(&broker, &context, sampling).await;

    check_observations(messages(&context, "OBS_EVENTS").await);
    check_audit(&messages(&context, "AUDIT").await);
    check_executions(
        &messages(&context, "EVENTS").await,
        &messages(&context, "RESULTS").await,
    );
    let sample: Value = serde_json::from_slice(&sample).unwrap();
    has_fields(
        &sample,
        &[
            "pc_id",
            "at",
            "cpu_pct",
            "cpu_count",
            "mem_used_bytes",
            "mem_total_bytes",
        ],
    );
    let heartbeat: Value = serde_json::from_slice(&heartbeat).unwrap();
    has_fields(
        &heartbeat,
        &["pc_id", "at", "agent_version", "hostname", "os_family"],
    );
}

#[track_caller]
fn check_observations(all: Vec<(String, Value)>) {
    let mut kinds: HashMap<String, usize> = HashMap::new();
    for (subject, body) in all {
        has_fields(
            &body,
            &["pc_id", "at", "kind", "source", "event_record_id", "payload"],
        );
        assert_eq!(subject, format!("obs.{}", body["pc_id"].as_str().unwrap()));
        *kinds
            .entry(body["kind"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(kinds.get("boot"), Some(&1), "{kinds:?}");
    assert!(
        kinds.get("process_start").is_some_and(|count| *count > 1),
        "{kinds:?}"
    );
}

#[track_caller]
fn check_audit(audit: &[(String, Value)]) {
    let actions: Vec<_> = audit
        .iter()
        .map(|(_, body)| body["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        (actions.first(), actions.last()),
        (Some(&"demo.start"), Some(&"demo.stop"))
    );
}

#[track_caller]
fn check_executions(started: &[(String, Value)], results: &[(String, Value)]) {
    assert_eq!((started.len(), results.len()), (3, 3));
    for ((subject, begin), (_, end)) in started.iter().zip(results) {
        has_fields(
            begin,
            &[
                "result_id",
                "request_id",
                "exec_id",
                "pc_id",
                "started_at",
                "manifest_id",
                "version",
            ],
        );
        has_fields(
            end,
            &[
                "result_id",
                "request_id",
                "exec_id",
                "pc_id",
                "exit_code",
                "stdout",
                "stderr",
            ],
        );
        has_fields(end, &["started_at", "finished_at", "manifest_id"]);
        assert_eq!(begin["result_id"], end["result_id"]);
        let (pc_id, exec_id) = (
            begin["pc_id"].as_str().unwrap(),
            begin["exec_id"].as_str().unwrap(),
        );
        assert_eq!(*subject, format!("events.started.{pc_id}.{exec_id}"));
    }
    let codes: Vec<_> = results
        .iter()
        .map(|(_, body)| body["exit_code"].as_i64().unwrap())
        .collect();
    assert_eq!(codes[..2], [0, 0]);
    assert_ne!(codes[2], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_has_the_same_ids() {
    let broker = Broker::start().await;
    let (_, context) = broker.connect().await;
    create_streams(&context).await;
    let own = std::process::id();
    // Events that are the same in both runs: this process, the boot, and the packages.
    let lasting = |body: &Value| body["source"] != "system:processes" || body["payload"]["pid"] == own;
    let known = |body: &Value| (body["source"].to_string(), body["event_record_id"].to_string());
    let mut ids = Vec::new();
    let mut seen = 0;
    for _ in 0..2 {
        run_once(&broker, &context, async {}).await;
        let all = messages(&context, "OBS_EVENTS").await;
        let new = &all[seen..];
        seen = all.len();
        ids.push(
            new.iter()
                .map(|(_, body)| body)
                .filter(|body| lasting(body))
                .map(known)
                .collect::<HashSet<_>>(),
        );
    }
    assert!(ids[0].len() >= 2, "{ids:?}");
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_a_stream_stay_in_the_outbox() {
    let broker = Broker::start().await;
    let (_, context) = broker.connect().await;
    let mut child = broker
        .feeder()
        .arg("--until-stdin-closes")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let outbox = broker.folder.path().join("outbox");
    wait_for("an event in the outbox", || (files(&outbox) > 0).then_some(())).await;
    drop(child.stdin.take());
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(files(&outbox) > 0, "events without a stream are kept");

    create_streams(&context).await;
    run_once(&broker, &context, async {}).await;
    assert_eq!(files(&outbox), 0);
    let audit = messages(&context, "AUDIT").await;
    let starts = audit
        .iter()
        .filter(|(_, body)| body["action"] == "demo.start")
        .count();
    assert_eq!(starts, 2, "including the run without streams");
}

fn files(outbox: &Path) -> usize {
    let Ok(entries) = outbox.read_dir() else { return 0 };
    entries
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .ends_with(".event")
        })
        .count()
}

async fn next(subscriber: &mut async_nats::Subscriber) -> bytes::Bytes {
    use futures_util::StreamExt;
    let wait = tokio::time::timeout(Duration::from_secs(60), subscriber.next());
    wait.await.expect("a message in time").expect("a message").payload
}
