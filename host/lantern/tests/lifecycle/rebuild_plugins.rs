//! Property test of rebuilds for every stock, example and test plugin: random messages from its fixtures, losses, versions
//! and requests. A rebuild reproduces the tables, dead letters and counts, or it is rejected before it changes anything.
//! `LANTERN_REBUILD_SEED` and `LANTERN_REBUILD_ROUNDS` select other runs.

use std::path::Path;
use std::path::PathBuf;

use async_nats::HeaderMap;
use lantern_authoring::fixture;
use lantern_lifecycle::RebuildRequest;
use lantern_model::schema::Manifest;

use super::rebuild_loss::state;
use super::rebuild_property::{Random, number};
use super::*;

/// Rounds per plugin by default.
const ROUNDS: u64 = 2;

/// Plugins written in Rust; `evolving` has its own test, with a model.
pub(super) const PLUGINS: [&str; 9] = [
    "audit-log",
    "executions",
    "github-webhooks",
    "heartbeats",
    "host-perf",
    "misbehaving",
    "obs-events",
    "otel-logs",
    "syslog",
];

/// Payloads of the plugin `misbehaving`, which has no fixtures.
const COMMANDS: [&str; 10] = [
    "ok 1",
    "ok 2 a note",
    "typed 3 {\"a\":[1,2]}",
    "skip",
    "reject as asked",
    "trap",
    "nan",
    "half-wrong 4",
    "wrong-type",
    "bad-json",
];

/// A message that can be published.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) subject: String,
    headers: HeaderMap,
    pub(super) payload: Vec<u8>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins")
        .join(name)
}

/// The fixtures of a plugin, by source.
pub(super) fn samples(name: &str, manifest: &Manifest) -> Vec<Vec<Message>> {
    let mut all = vec![Vec::new(); manifest.sources.len()];
    for fixture in fixture::read(&folder(name).join("fixtures"), manifest).unwrap() {
        for message in fixture.messages {
            let mut headers = HeaderMap::new();
            for (name, value) in &message.headers {
                headers.append(name.as_str(), value.as_str());
            }
            all[fixture.source].push(Message {
                subject: message.subject.to_string(),
                headers,
                payload: message.payload.to_vec(),
            });
        }
    }
    if name == "misbehaving" {
        all[0].extend(COMMANDS.map(|command| Message {
            subject: "evil.x".to_owned(),
            headers: HeaderMap::new(),
            payload: command.into(),
        }));
    }
    all
}

/// Gives each identifier in a JSON object one of a few values, so that keys repeat, but not in every message.
pub(super) fn vary(payload: &[u8], variant: u64) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut object)) = serde_json::from_slice(payload) else {
        return payload.to_vec();
    };
    for (name, value) in &mut object {
        if let (true, Some(text)) = (name.ends_with("id"), value.as_str()) {
            *value = format!("{text}-{variant}").into();
        }
    }
    serde_json::to_vec(&object).unwrap()
}

/// The same plugin with another digest.
fn another(component: &[u8]) -> Vec<u8> {
    let metadata = lantern_plugin::Metadata {
        revision: Some("another".to_owned()),
        ..lantern_plugin::Metadata::default()
    };
    lantern_plugin::add_metadata(component, &metadata).unwrap()
}

/// What a rebuild has to reproduce: rows, dead letters, and the totals of each source. Where a rebuild cuts a range, it cannot
/// know how many of the messages without rows were skipped, and how many repeated a key.
fn contents(scene: &Scene) -> Vec<String> {
    let mut all = Vec::new();
    for table in scene.query("SELECT name FROM _lantern_table ORDER BY name") {
        let rows = format!("SELECT '{table}', * FROM \"{table}\" ORDER BY _origin, _sequence, _row");
        all.extend(scene.query(&rows));
    }
    all.extend(scene.query(
        "SELECT origin, sequence, state = 'open', class FROM _lantern_dead_letter
         WHERE state <> 'resolved' ORDER BY origin, sequence",
    ));
    all.extend(scene.query(
        "SELECT origin, sum(messages), sum(projected + skipped), sum(dead), sum(changed)
         FROM _lantern_ledger GROUP BY origin ORDER BY origin",
    ));
    all
}

/// The stream of a source.
#[derive(Clone)]
struct Stream {
    source: String,
    name: String,
    samples: Vec<Message>,
    /// Published messages.
    count: u64,
}

/// A plugin in a host, with its history.
struct Round {
    scene: Scene,
    name: &'static str,
    streams: Vec<Stream>,
    /// Whether no message was removed from a stream.
    whole: bool,
}

impl Round {
    async fn start(name: &'static str, component: &[u8]) -> Self {
        let scene = Scene::start().await;
        let installed = scene
            .lifecycle()
            .install(component.to_vec(), &operator())
            .await
            .unwrap();
        let loader = Arc::clone(&scene.running.as_ref().unwrap().loader);
        let bytes = component.to_vec();
        let plugin = tokio::task::spawn_blocking(move || loader.load(&bytes).unwrap())
            .await
            .unwrap();
        let manifest = plugin.manifest();
        let mut streams = Vec::new();
        for (source, samples) in manifest.sources.iter().zip(samples(name, manifest)) {
            let Some((stream, subjects)) = source.origin.replay() else {
                continue;
            };
            let subjects = match subjects {
                [] => vec![format!("{}.>", stream.to_lowercase())],
                subjects => subjects.to_vec(),
            };
            let config = async_nats::jetstream::stream::Config {
                name: stream.to_owned(),
                subjects,
                ..Default::default()
            };
            scene.server.create_stream(config).await;
            streams.push(Stream {
                source: source.name.to_string(),
                name: stream.to_owned(),
                samples,
                count: 0,
            });
        }
        scene
            .lifecycle()
            .activate(&installed.plugin, Some(installed.digest), &operator())
            .await
            .unwrap();
        Self {
            scene,
            name,
            streams,
            whole: true,
        }
    }

    /// Publishes random messages for all sources and waits until they are handled.
    async fn publish(&mut self, count: u64, random: &mut Random) {
        let context = self.scene.server.jetstream().await;
        for stream in &mut self.streams {
            for _ in 0..count {
                let Message {
                    subject,
                    headers,
                    payload,
                } = stream.samples[random.next(stream.samples.len() as u64) as usize].clone();
                let payload = vary(&payload, random.next(6));
                let sent = context.publish_with_headers(subject, headers, payload.into());
                sent.await.unwrap().await.unwrap();
                stream.count += 1;
            }
        }
        let streams = self.streams.clone();
        let handled = move |scene: &Scene| {
            streams.iter().all(|stream| {
                let status = scene.status(&stream.source);
                status.is_some_and(|status| status.checkpoint >= stream.count)
            })
        };
        self.scene.wait("all messages are handled", handled).await;
    }

    /// Removes messages from the streams.
    async fn damage(&mut self, random: &mut Random) {
        let context = self.scene.server.jetstream().await;
        for Stream { name, count, .. } in &self.streams {
            let stream = context.get_stream(name).await.unwrap();
            let mut first = 1;
            if random.one_in(2) {
                first = 1 + random.next(*count);
                stream.purge().sequence(first).await.unwrap();
                self.whole &= first == 1;
            }
            if random.one_in(3) && first + 1 < *count {
                let sequence = first + 1 + random.next(count - first - 1);
                stream.delete_message(sequence).await.unwrap();
                self.whole = false;
            }
        }
    }

    async fn rebuild(
        &mut self,
        request: RebuildRequest,
        restart: bool,
    ) -> Result<RebuildState, LifecycleError> {
        let request = RebuildRequest {
            rate: restart.then_some(50),
            ..request
        };
        let id = self
            .scene
            .lifecycle()
            .rebuild(self.name, request, &operator())
            .await?;
        if restart {
            self.scene.close().await;
            self.scene.open().await;
        }
        Ok(self.scene.wait_for_rebuild(id).await?.state)
    }
}

/// Returns whether the rebuild was completed.
async fn one_round(name: &'static str, component: &[u8], random: &mut Random) -> bool {
    let mut round = Round::start(name, component).await;
    round.publish(10 + random.next(60), random).await;
    let other = round
        .scene
        .lifecycle()
        .install(another(component), &operator())
        .await
        .unwrap();
    if random.one_in(2) {
        round
            .scene
            .lifecycle()
            .activate(name, Some(other.digest), &operator())
            .await
            .unwrap();
        round.publish(random.next(30), random).await;
    }
    if random.one_in(2) {
        let all = lantern_store::OpenDeadLetterFilter::default();
        round.scene.discard(all).await;
    }
    round.damage(random).await;

    let last = round.streams.iter().map(|stream| stream.count).max().unwrap_or(1);
    let request = RebuildRequest {
        digest: random.one_in(2).then(|| other.digest.to_string()),
        carry_over: random.one_in(2),
        from_sequence: random.one_in(3).then(|| 1 + random.next(last)),
        drop_undeclared: random.one_in(2),
        keep_old_s: if random.one_in(2) { 3_600 } else { 0 },
        ..RebuildRequest::default()
    };
    let what = format!("{name}: {request:?}, whole: {}", round.whole);
    let asks_nothing = !request.carry_over && request.from_sequence.is_none();
    let (before, before_contents) = (state(&round.scene), contents(&round.scene));
    let restart = random.one_in(3);
    let ended = round.rebuild(request, restart).await;
    let done = matches!(ended, Ok(RebuildState::Done));
    assert_eq!(contents(&round.scene), before_contents, "{what}: {ended:?}");
    if !done {
        assert_eq!(state(&round.scene), before, "{what}: {ended:?}");
        assert!(
            round.streams.is_empty() || !round.whole || !asks_nothing,
            "refused without a reason: {what}: {ended:?}"
        );
    }
    round.publish(3, random).await;
    round.scene.close().await;
    round.scene.sound();
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_rebuild_of_any_plugin_reproduces_its_tables_or_changes_nothing() {
    let seed = number("LANTERN_REBUILD_SEED").unwrap_or(1);
    let rounds = number("LANTERN_REBUILD_ROUNDS").unwrap_or(ROUNDS);
    for name in PLUGINS {
        let component = tokio::task::spawn_blocking(|| evolving::build(name))
            .await
            .unwrap();
        let mut done = 0;
        for round in seed..seed + rounds {
            done += u64::from(one_round(name, &component, &mut Random(round)).await);
            println!("{name}, seed {round}: {done} done");
        }
    }
}
