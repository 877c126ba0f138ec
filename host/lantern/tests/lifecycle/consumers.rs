//! Tests the durable consumers of plugins: the host deletes them with their plugin, even if the broker is unreachable
//! at that time. Also tests holes in what a consumer delivers.

use async_nats::jetstream::stream::RetentionPolicy;
use futures_util::TryStreamExt as _;

use super::*;

/// A host that has projected ten messages of a stream with interest retention: every message is kept until every consumer
/// has acknowledged it.
async fn interested() -> Scene {
    let scene = Scene::start().await;
    let context = scene.server.jetstream().await;
    context.delete_stream("EVOLVE").await.unwrap();
    let config = async_nats::jetstream::stream::Config {
        retention: RetentionPolicy::Interest,
        ..crate::nats::stream("EVOLVE", "evolve.>")
    };
    context.create_stream(config).await.unwrap();
    scene.swap(b'a').await.unwrap();
    // Until the consumer exists, the stream keeps no messages for it.
    scene.wait_for_state(ProjectionState::Running).await;
    scene.project(1..=10).await;
    scene
}

async fn consumers(scene: &Scene) -> Vec<String> {
    let context = scene.server.jetstream().await;
    let mut found = Vec::new();
    // A server that has just started may not answer the first request.
    nats::eventually("the stream answers", LIMIT, async || {
        let Ok(stream) = context.get_stream("EVOLVE").await else {
            return false;
        };
        let names: Result<Vec<String>, _> = stream.consumer_names().try_collect().await;
        names.map(|names| found = names).is_ok()
    })
    .await;
    found
}

async fn no_consumers(scene: &Scene) {
    nats::eventually("no consumer is left", LIMIT, async || {
        consumers(scene).await.is_empty()
    })
    .await;
}

fn noted(scene: &Scene) -> Vec<String> {
    scene.query("SELECT stream || ' ' || consumer FROM _lantern_abandoned_consumer ORDER BY consumer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_plugin_releases_the_messages_of_an_interest_stream() {
    let mut scene = interested().await;
    assert_eq!(consumers(&scene).await, ["lantern-evolving-evolve"]);
    let removed = scene.remove(true).await;
    assert_eq!(removed.consumers_left, []);
    assert!(consumers(&scene).await.is_empty());
    assert!(noted(&scene).is_empty());
    scene.publish(11..=20).await;
    let mut stream = scene.server.jetstream().await.get_stream("EVOLVE").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_deletion_of_a_consumer_is_repeated_also_after_a_restart() {
    let mut scene = interested().await;
    scene.server.kill();
    scene.wait_for_state(ProjectionState::Retrying).await;
    let removed = scene.remove(false).await;
    let left: Vec<&str> = removed
        .consumers_left
        .iter()
        .map(|left| left.consumer.as_str())
        .collect();
    assert_eq!(
        left,
        ["lantern-evolving-evolve", "lantern-evolving-evolve-rebuild"]
    );
    assert!(
        removed.consumers_left[0].reason.contains("not connected"),
        "{removed:?}"
    );
    assert_eq!(noted(&scene).len(), 2);
    // The same host deletes it once the broker is back.
    scene.server.restart();
    no_consumers(&scene).await;
    scene
        .wait("nothing is left to be deleted", |scene| noted(scene).is_empty())
        .await;

    // So does the next host, which knows the consumer only from the database.
    scene.swap(b'a').await.unwrap();
    scene.wait_for_state(ProjectionState::Running).await;
    assert_eq!(consumers(&scene).await.len(), 1);
    scene.server.kill();
    scene.wait_for_state(ProjectionState::Retrying).await;
    scene.remove(false).await;
    scene.close().await;
    scene.server.restart();
    assert_eq!(consumers(&scene).await.len(), 1);
    scene.open().await;
    no_consumers(&scene).await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reinstalled_plugin_keeps_its_consumer() {
    let mut scene = interested().await;
    scene.server.kill();
    scene.wait_for_state(ProjectionState::Retrying).await;
    scene.remove(false).await;
    scene.swap(b'a').await.unwrap();
    scene.server.restart();
    // The rebuild's consumer does not exist, and the live consumer is in use again.
    scene
        .wait("nothing is left to be deleted", |scene| noted(scene).is_empty())
        .await;
    assert_eq!(consumers(&scene).await, ["lantern-evolving-evolve"]);
    scene.publish(11..=20).await;
    scene
        .wait_for_result("all rows", "SELECT count(*) FROM evolved", "20")
        .await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_subject_that_was_added_to_the_stream_are_no_gaps() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.publish(1..=10).await;
    scene.wait_for_checkpoint(10).await;
    let context = scene.server.jetstream().await;
    let update = async |subjects: &[&str]| {
        let config = async_nats::jetstream::stream::Config {
            name: "EVOLVE".into(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            ..Default::default()
        };
        context.update_stream(config).await.unwrap();
    };
    update(&["evolve.>", "other.>"]).await;
    for n in 11..=20 {
        scene.publish_to("other.x", [n]).await;
        scene.publish([n]).await;
    }
    scene.wait_for_checkpoint(30).await;
    assert_eq!(scene.query("SELECT count(*) FROM _lantern_gap"), ["0"]);
    // They stay in the stream when the subject is removed, also for a host that starts afterwards.
    scene.close().await;
    scene.publish_to("other.x", [31]).await;
    update(&["evolve.>"]).await;
    scene.publish([32]).await;
    scene.open().await;
    scene.wait_for_checkpoint(32).await;
    assert_eq!(scene.query("SELECT count(*) FROM _lantern_gap"), ["0"]);
    // Messages that the stream no longer holds are a gap, also without a new session.
    scene.publish([33]).await;
    scene.wait_for_checkpoint(33).await;
    scene.close().await;
    scene.publish([34, 35, 36]).await;
    context
        .get_stream("EVOLVE")
        .await
        .unwrap()
        .delete_message(35)
        .await
        .unwrap();
    scene.open().await;
    scene.wait_for_checkpoint(36).await;
    assert_eq!(
        scene.query("SELECT first_sequence, last_sequence FROM _lantern_gap"),
        ["35|35"]
    );
    scene.close().await;
    scene.sound();
}
