//! Tests streams on a cluster of three servers, where the creation time does not identify a stream and the leader of an
//! earlier term may still respond for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use async_nats::jetstream::{Context, stream};

use super::*;
use crate::cluster_of_servers::Cluster;
use crate::nats::{binary, eventually, older_binary};

pub const STREAM: &str = "OBS_EVENTS";

pub fn config() -> stream::Config {
    stream::Config {
        num_replicas: 3,
        ..crate::nats::stream(STREAM, "obs.>")
    }
}

/// Returns the cluster that the tests of this binary share, because starting one takes long. The last test to end stops it.
pub fn shared() -> Arc<Mutex<Cluster>> {
    static SHARED: Mutex<Weak<Mutex<Cluster>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Mutex::new(run(Cluster::start(binary()))));
        *shared = Arc::downgrade(&started);
        started
    })
}

/// Waits for the cluster, with all servers running and a new stream.
pub fn with_stream(cluster: &Mutex<Cluster>, config: stream::Config) -> MutexGuard<'_, Cluster> {
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.revive();
    let others = config.num_replicas - 1;
    run(async {
        let context = cluster.jetstream().await;
        eventually("a new stream", LIMIT, async || {
            // An earlier test may have left one, and an election may be in progress.
            drop(context.delete_stream(STREAM).await);
            context.create_stream(config.clone()).await.is_ok()
        })
        .await;
        cluster.wait_until_replicated(STREAM, others).await;
    });
    cluster
}

/// Returns events without a unique key, so that a message that is read twice creates two rows.
pub fn events(first: usize, count: usize) -> Vec<(String, String)> {
    let plain = obs(first, count).into_iter();
    plain
        .map(|(subject, text)| (subject, text.replace("event_record_id", "id")))
        .collect()
}

/// Publishes each message until it is acknowledged. Servers leave and elections take seconds meanwhile, so a message
/// may arrive more than once; its id lets the stream deduplicate it.
async fn publish_to(cluster: &Cluster, messages: Vec<(String, String)>) {
    publish_until_stored(&cluster.jetstream().await, messages).await;
}

/// As [`publish_to`], over an existing connection.
pub async fn publish_until_stored(context: &Context, messages: Vec<(String, String)>) {
    let deadline = Instant::now() + LIMIT;
    for (subject, payload) in messages {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", payload.as_str());
        loop {
            let sent = context
                .publish_with_headers(subject.clone(), headers.clone(), payload.clone().into())
                .await;
            let stored = match sent {
                Ok(ack) => ack.await.is_ok(),
                Err(_) => false,
            };
            if stored {
                break;
            }
            assert!(Instant::now() < deadline, "the cluster does not take messages");
        }
    }
}

async fn created(cluster: &Cluster) -> i128 {
    let context = cluster.jetstream().await;
    let stream = context.get_stream(STREAM).await.unwrap();
    stream.cached_info().created.unix_timestamp_nanos()
}

/// A service creates its stream at each start, which changes nothing; then every server restarts.
fn rolling_restart_after_an_idempotent_create(cluster: &Mutex<Cluster>, creation_time_moves: bool) {
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = with_stream(cluster, config());
    let host = Host::start(dir.path(), &cluster.url(), plugins.path());
    run(publish_to(&cluster, events(1, 200)));
    wait_for_rows(&host, dir.path(), "obs_events", 200);
    let before = run(created(&cluster));
    run(async {
        let context = cluster.jetstream().await;
        context.create_stream(config()).await.unwrap();
        cluster.restart_each(STREAM).await;
    });
    let after = run(created(&cluster));
    assert_eq!(after != before, creation_time_moves, "{before} {after}");
    // While the host runs, and after a restart: both compare the histories.
    run(publish_to(&cluster, events(201, 1)));
    wait_for_rows(&host, dir.path(), "obs_events", 201);
    host.terminate();
    let host = Host::start(dir.path(), &cluster.url(), plugins.path());
    run(publish_to(&cluster, events(202, 1)));
    wait_for_rows(&host, dir.path(), "obs_events", 202);
    assert_eq!(host.projection("obs")["epoch"], 1);
    host.terminate();
    let counts = query(
        dir.path(),
        "SELECT count(*), count(DISTINCT json_extract(payload, '$.n')) FROM obs_events",
    );
    assert_eq!(counts, ["202|202"]);
    let stored = query(dir.path(), "SELECT stream_created_ns FROM _lantern_origin");
    assert_eq!(stored, [after.to_string()], "the new creation time is stored");
    sound(dir.path());
}

#[test]
fn a_changed_creation_time_begins_no_epoch() {
    let older = Mutex::new(run(Cluster::start(older_binary())));
    rolling_restart_after_an_idempotent_create(&older, true);
}

#[test]
fn a_rolling_restart_begins_no_epoch() {
    rolling_restart_after_an_idempotent_create(&shared(), false);
}

#[test]
fn a_stream_recreated_on_a_cluster_begins_an_epoch_after_a_second_observation() {
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let cluster = shared();
    let cluster = with_stream(&cluster, config());
    let command = || {
        let mut command = Host::command(dir.path(), &cluster.url(), plugins.path());
        command.env("LANTERN__STREAMS__CONFIRM_AFTER", "3s");
        command
    };
    let host = Host::spawn(command());
    run(publish_to(&cluster, events(1, 50)));
    wait_for_rows(&host, dir.path(), "obs_events", 50);
    host.terminate();
    run(async {
        let context = cluster.jetstream().await;
        context.delete_stream(STREAM).await.unwrap();
        context.create_stream(config()).await.unwrap();
        cluster.wait_until_current(STREAM).await;
        publish_to(&cluster, events(51, 60)).await;
    });
    let host = Host::spawn(command());
    host.wait("the first observation is reported", LIMIT, |host| {
        let projection = host.projection("obs");
        let reason = projection["last_error"].as_str().unwrap_or_default();
        projection["state"] == "retrying"
            && projection["epoch"] != 2
            && reason.contains("waiting for a second observation")
    });
    wait_for_rows(&host, dir.path(), "obs_events", 110);
    assert_eq!(host.projection("obs")["epoch"], 2);
    host.terminate();
    sound(dir.path());
}
