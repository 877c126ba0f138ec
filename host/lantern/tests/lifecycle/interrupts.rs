//! Tests that a version which does not finish its messages is replaced, paused and removed at once.

use super::*;

/// Starts version `a`, then `s`, and publishes messages that `s` never finishes within its time of one minute. Returns
/// when the broker has delivered them.
async fn with_endless_calls() -> Scene {
    let scene = Scene::start().await;
    let time = vec![("limits.message_time".to_owned(), "1m".to_owned())];
    scene
        .lifecycle()
        .set("evolving", time, &operator())
        .await
        .unwrap();
    scene.swap(b'a').await.unwrap();
    scene.publish(1..=10).await;
    scene.wait_for_checkpoint(10).await;
    scene.swap(b's').await.unwrap();
    scene.publish(11..=20).await;
    scene.wait_for_checkpoint(20).await;
    // The first message is an endless one: a part of the batch that ends before it would be committed by `s`.
    let endless = (21..=120).map(|n| match n % 2 {
        1 => format!("later {n}"),
        _ => n.to_string(),
    });
    scene.publish(endless).await;
    let context = scene.server.jetstream().await;
    nats::eventually("the messages are delivered", LIMIT, async || {
        let stream = context.get_stream("EVOLVE").await.unwrap();
        let mut consumer: async_nats::jetstream::consumer::PullConsumer =
            stream.get_consumer("lantern-evolving-evolve").await.unwrap();
        let info = consumer.info().await.unwrap();
        info.num_pending == 0 && info.num_ack_pending > 0
    })
    .await;
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_interrupts_an_endless_call_and_loses_nothing() {
    let mut scene = with_endless_calls().await;
    let back = scene.lifecycle().rollback("evolving", &operator()).await.unwrap();
    assert_eq!(back.version, "1.0.0");
    assert_eq!(
        scene.status("evolve").unwrap().version,
        "1.0.0",
        "the answer comes after the switch"
    );
    scene.wait_for_checkpoint(120).await;
    // The version before rejects these messages quickly; none became a dead letter of the other version.
    assert_eq!(
        scene.query(
            "SELECT p.version, l.first_sequence, l.last_sequence, l.messages, l.dead FROM _lantern_ledger l
             JOIN _lantern_plugin p ON p.id = l.plugin_version ORDER BY l.first_sequence"
        ),
        ["1.0.0|1|10|10|0", "1.14.0|11|20|10|0", "1.0.0|21|120|100|50"]
    );
    assert_eq!(
        scene.query("SELECT count(*), count(DISTINCT n) FROM evolved"),
        ["70|70"]
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_interrupts_an_endless_call_and_another_version_handles_its_messages() {
    let mut scene = with_endless_calls().await;
    scene
        .lifecycle()
        .pause("evolving", "it does not end", &operator())
        .await
        .unwrap();
    scene.wait_for_state(ProjectionState::Paused).await;
    assert_eq!(scene.status("evolve").unwrap().checkpoint, 20);
    scene.swap(b'e').await.unwrap();
    scene.lifecycle().resume("evolving", &operator()).await.unwrap();
    scene.wait_for_checkpoint(120).await;
    assert_eq!(
        scene.query("SELECT note, count(*), count(DISTINCT n) FROM evolved GROUP BY note ORDER BY 1"),
        ["a|10|10", "e|100|100", "s|10|10"]
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_does_not_wait_for_the_messages_of_a_slow_version() {
    let mut scene = Scene::start().await;
    scene.swap(b'n').await.unwrap();
    // Each takes twenty milliseconds.
    scene.publish((1..=2_000).map(|n| format!("later {n}"))).await;
    scene.wait_for_checkpoint(1).await;
    scene
        .lifecycle()
        .remove("evolving", false, &operator())
        .await
        .unwrap();
    let handled: u64 = scene.query("SELECT count(*) FROM evolved")[0].parse().unwrap();
    assert!(
        handled < 900,
        "{handled} messages were handled before the removal"
    );
    scene.swap(b'e').await.unwrap();
    scene.wait_for_checkpoint(2_000).await;
    assert_eq!(
        scene.query("SELECT count(*), count(DISTINCT n) FROM evolved"),
        ["2000|2000"]
    );
    scene.close().await;
    scene.sound();
}

/// Messages of core NATS exist only in the memory of the host: an interruption keeps them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_call_loses_no_message_of_core_nats() {
    let mut scene = Scene::start().await;
    scene.swap(b'q').await.unwrap();
    scene
        .wait("the subscription", |scene| {
            scene
                .status("core")
                .is_some_and(|status| status.state == ProjectionState::Running)
        })
        .await;
    let client = async_nats::connect(scene.server.url()).await.unwrap();
    let publish = async |payload: String| client.publish("core.x", payload.into()).await.unwrap();
    publish("1".to_owned()).await;
    for n in 2..=100 {
        publish(format!("later {n}")).await;
    }
    client.flush().await.unwrap();
    // The calls for the others have begun, and each would take its whole time.
    scene
        .wait("the first dead letter", |scene| {
            scene.status("core").is_some_and(|status| status.dead_letters > 0)
        })
        .await;
    scene.swap(b'r').await.unwrap();
    let rejected = scene.query("SELECT count(*) FROM _lantern_dead_letter")[0]
        .parse::<u64>()
        .unwrap();
    assert!(
        rejected < 50,
        "{rejected} messages were rejected before the switch"
    );
    scene
        .wait("all rows", |scene| {
            scene.query("SELECT count(*), count(DISTINCT n) FROM evolved") == ["100|100"]
        })
        .await;
    assert_eq!(scene.query("SELECT count(*) FROM _lantern_gap"), ["0"]);
    scene.close().await;
    scene.sound();
}
