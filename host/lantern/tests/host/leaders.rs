//! Tests changes of leaders on a cluster of three servers while messages flow: no message is lost, none is stored twice, and
//! the host reports what it waits for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use async_nats::jetstream::stream;
use rustix::process::Signal;
use serde_json::Value;

use super::*;
use crate::cluster::{STREAM, config, events, publish_until_stored, shared, with_stream};
use crate::cluster_of_servers::Cluster;
use crate::host::plugin_folder;

const CONSUMER: &str = "lantern-obs-events-obs";

/// Messages before and after each change.
const SOME: usize = 40;

/// Publishes one message after another until it is stopped.
struct Publisher {
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Publisher {
    fn start(url: String) -> Self {
        let (stop, stored) = (Arc::new(AtomicBool::default()), Arc::new(AtomicUsize::default()));
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&stored));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let context = runtime.block_on(Cluster::connect(&url));
            while !stopping.load(Ordering::Relaxed) {
                let next = count.load(Ordering::Relaxed) + 1;
                runtime.block_on(publish_until_stored(&context, events(next, 1)));
                count.store(next, Ordering::Relaxed);
            }
        });
        Self { stop, stored, thread }
    }

    fn stored(&self) -> usize {
        self.stored.load(Ordering::Relaxed)
    }

    /// Waits until the stream has stored this many more messages.
    fn wait_for_more(&self, count: usize) {
        let (target, deadline) = (self.stored() + count, Instant::now() + LIMIT);
        while self.stored() < target {
            assert!(Instant::now() < deadline, "the cluster stores no messages");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends, and returns how many messages the stream has stored.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.stored.load(Ordering::Relaxed)
    }
}

/// A host that reads from the cluster while messages are published.
struct Scene<'a> {
    cluster: MutexGuard<'a, Cluster>,
    host: Host,
    publisher: Publisher,
    dir: tempfile::TempDir,
    _plugins: tempfile::TempDir,
}

impl<'a> Scene<'a> {
    fn start(cluster: MutexGuard<'a, Cluster>) -> Self {
        let (dir, plugins) = (tempfile::tempdir().unwrap(), plugin_folder(&["obs-events"]));
        let host = Host::start(dir.path(), &cluster.url(), plugins.path());
        running(&host, "obs");
        let publisher = Publisher::start(cluster.url());
        let scene = Self {
            cluster,
            host,
            publisher,
            dir,
            _plugins: plugins,
        };
        scene.flow();
        scene
    }

    /// Waits until messages are stored and projected.
    fn flow(&self) {
        self.publisher.wait_for_more(SOME);
        let target = self.publisher.stored();
        self.host.wait("messages are projected", LIMIT, |host| {
            host.projection("obs")["messages"].as_u64() >= Some(target as u64)
        });
    }

    /// Sends a request of the JetStream API until it succeeds.
    fn request(&self, subject: &str) {
        run(async {
            let client = self.cluster.jetstream().await.client();
            nats::eventually(subject, LIMIT, async || {
                let answer = client.request(format!("$JS.API.{subject}"), "".into()).await;
                answer
                    .is_ok_and(|answer| String::from_utf8_lossy(&answer.payload).contains("\"success\":true"))
            })
            .await;
        });
    }

    /// The number of the server that leads the stream, or its consumer.
    fn leader(&self, of_consumer: bool) -> usize {
        let mut leader = None;
        run(async {
            let context = self.cluster.jetstream().await;
            nats::eventually("a leader", LIMIT, async || {
                let Ok(stream) = context.get_stream(STREAM).await else {
                    return false;
                };
                let cluster = match of_consumer {
                    true => stream
                        .consumer_info(CONSUMER)
                        .await
                        .ok()
                        .and_then(|info| info.cluster),
                    false => stream.cached_info().cluster.clone(),
                };
                leader = cluster.and_then(|cluster| cluster.leader);
                leader.is_some()
            })
            .await;
        });
        self.cluster.index_of(&leader.unwrap())
    }

    fn scale(&self, replicas: usize) {
        run(async {
            let context = self.cluster.jetstream().await;
            let config = stream::Config {
                num_replicas: replicas,
                ..config()
            };
            nats::eventually("the stream has other replicas", LIMIT, async || {
                context.update_stream(config.clone()).await.is_ok()
            })
            .await;
            self.cluster.wait_until_replicated(STREAM, replicas - 1).await;
        });
    }

    fn has_warning(&self, kind: &str) -> bool {
        let projection = self.host.projection("obs");
        let warnings = projection["warnings"].as_array().unwrap();
        warnings.iter().any(|warning| warning["kind"] == kind)
    }

    fn doctor(&self) -> String {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(["doctor", "--nats", &self.cluster.url(), "--data-dir"])
            .arg(self.dir.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Stops, and verifies that every stored message is one row.
    fn end(self) {
        self.flow();
        let count = self.publisher.end();
        wait_for_rows(&self.host, self.dir.path(), "obs_events", count);
        let projection = self.host.projection("obs");
        assert_eq!(
            (&projection["epoch"], &projection["missing"]),
            (&Value::from(1), &Value::from(0))
        );
        self.host.terminate();
        let counts = query(
            self.dir.path(),
            "SELECT count(*), count(DISTINCT json_extract(payload, '$.n')) FROM obs_events",
        );
        assert_eq!(counts, [format!("{count}|{count}")]);
        sound(self.dir.path());
    }
}

#[test]
fn leaders_that_step_down_in_full_flow_cost_no_message() {
    let cluster = shared();
    let scene = Scene::start(with_stream(&cluster, config()));
    for _ in 0..2 {
        scene.request(&format!("CONSUMER.LEADER.STEPDOWN.{STREAM}.{CONSUMER}"));
        scene.flow();
        scene.request(&format!("STREAM.LEADER.STEPDOWN.{STREAM}"));
        scene.flow();
    }
    scene.host.wait("the replicas are shown", LIMIT, |host| {
        let (_, metrics) = host.get("/metrics").unwrap();
        let lags = metrics.matches("lantern_source_replica_lag{").count();
        let replicas = host.projection("obs")["replicas"].as_array().map(Vec::len);
        replicas == Some(2) && lags == 2
    });
    scene.end();
}

#[test]
fn killed_leaders_cost_no_message() {
    let cluster = shared();
    let mut scene = Scene::start(with_stream(&cluster, config()));
    for of_consumer in [false, true] {
        let leader = scene.leader(of_consumer);
        scene.cluster.end(leader, Signal::KILL);
        scene.flow();
        scene.cluster.restart(leader);
        run(scene.cluster.wait_until_current(STREAM));
    }
    scene.end();
}

#[test]
fn a_leader_of_an_earlier_term_begins_no_epoch() {
    /// Longer than an election, and than the interval after which a leader without a quorum steps down.
    const FREEZE: Duration = Duration::from_secs(15);
    let cluster = shared();
    let scene = Scene::start(with_stream(&cluster, config()));
    let leader = scene.leader(false);
    let thaw_at = Instant::now() + FREEZE;
    scene.cluster.signal(leader, Signal::STOP);
    scene.flow();
    scene
        .host
        .wait("the freeze is long enough", LIMIT, |_| Instant::now() >= thaw_at);
    scene.cluster.signal(leader, Signal::CONT);
    run(scene.cluster.wait_until_current(STREAM));
    scene.end();
}

#[test]
fn a_cluster_without_a_quorum_is_reported_as_such_and_not_as_a_missing_stream() {
    let cluster = shared();
    let mut scene = Scene::start(with_stream(&cluster, config()));
    let first = scene.leader(true);
    let of_stream = scene.leader(false);
    let second = if of_stream == first {
        (first + 1) % 3
    } else {
        of_stream
    };
    for index in [first, second] {
        scene.cluster.end(index, Signal::KILL);
    }
    scene.host.wait("the reason", LIMIT, |host| {
        let (ok, detail) = host.check("projection:obs-events/obs").unwrap();
        !ok && detail.contains("the broker's cluster has no leader for")
            && detail.contains("a majority of the servers")
    });
    let state = scene.host.projection("obs")["state"].clone();
    assert_eq!(state, "retrying");
    for index in [first, second] {
        scene.cluster.restart(index);
    }
    run(scene.cluster.wait_until_current(STREAM));
    scene.end();
}

#[test]
fn a_stream_that_is_scaled_between_one_and_three_replicas_in_full_flow_loses_no_message() {
    let cluster = shared();
    let single = stream::Config {
        num_replicas: 1,
        ..config()
    };
    let scene = Scene::start(with_stream(&cluster, single));
    scene
        .host
        .wait("the warning", LIMIT, |_| scene.has_warning("single-replica"));
    assert!(scene.doctor().contains("OBS_EVENTS: one replica in a cluster"));
    scene.scale(3);
    assert!(scene.doctor().contains("OBS_EVENTS: 3 replica(s)"));
    scene.flow();
    scene
        .host
        .wait("no warning", LIMIT, |_| !scene.has_warning("single-replica"));
    scene.scale(1);
    scene.flow();
    scene
        .host
        .wait("the warning", LIMIT, |_| scene.has_warning("single-replica"));
    scene.end();
}
