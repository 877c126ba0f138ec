//! The health gate of a new version: dead letters that it retries first, and the automatic rollback.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_retries_dead_letters_first() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    let messages = (1..=41).map(|n| match n {
        n if n > 37 => format!("never {n}"),
        n => format!("later {n}"),
    });
    scene.publish(messages).await;
    scene.publish(100..=109).await;
    scene.wait_for_checkpoint(51).await;
    assert_eq!(scene.status("evolve").unwrap().dead_letters, 41);
    let healed = scene.swap(b'e').await.unwrap().retried;
    assert_eq!(
        (healed.tried, healed.resolved, healed.effects.inserted),
        (41, 37, 37)
    );
    scene
        .wait("the count", |scene| {
            scene.status("evolve").unwrap().dead_letters == 4
        })
        .await;
    assert_eq!(scene.query("SELECT count(*), min(n) FROM evolved"), ["47|1"]);
    assert_eq!(
        scene.query(
            "SELECT state, attempts, count(*) FROM _lantern_dead_letter GROUP BY state, attempts ORDER BY 1"
        ),
        ["open|2|4", "resolved|2|37"]
    );
    assert_eq!(
        scene.query("SELECT messages, projected, skipped, dead, rows FROM _lantern_ledger"),
        ["51|47|0|4|47"]
    );
    let filter = lantern_store::OpenDeadLetterFilter {
        class: Some("malformed".into()),
        ..Default::default()
    };
    let again = scene
        .lifecycle()
        .retry_dead_letters(filter.clone(), &operator())
        .await
        .unwrap();
    assert_eq!((again.tried, again.resolved), (4, 0));
    assert_eq!(scene.discard(filter).await, 4);
    scene
        .wait("the count", |scene| {
            scene.status("evolve").unwrap().dead_letters == 0
        })
        .await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_whose_consumer_the_broker_rejects_is_rolled_back() {
    let mut scene = Scene::start().await;
    // The stream of the second source allows one consumer, and another program holds it.
    let context = scene.server.jetstream().await;
    context.delete_stream("EVOLVE_MORE").await.unwrap();
    let stream = context
        .create_stream(async_nats::jetstream::stream::Config {
            max_consumers: 1,
            ..crate::nats::stream("EVOLVE_MORE", "more.>")
        })
        .await
        .unwrap();
    stream
        .create_consumer(async_nats::jetstream::consumer::pull::Config {
            durable_name: Some("another".into()),
            ..Default::default()
        })
        .await
        .unwrap();
    scene.swap(b'a').await.unwrap();
    scene.project(1..=10).await;
    scene.swap(b'h').await.unwrap();
    scene
        .wait("the version before runs", |scene| {
            scene.status("more").is_none() && !scene.lifecycle().load_failures().is_empty()
        })
        .await;
    let refusals = scene.lifecycle().load_failures();
    assert!(
        refusals[0].reason.contains("it cannot read source more") && refusals[0].reason.contains("(10026)"),
        "{refusals:?}"
    );
    scene.project(11..=20).await;
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["20"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_rejects_more_is_rolled_back_without_loss() {
    let mut scene = Scene::running(b'a', 100).await;
    for bad in [b'd', b'g'] {
        let bad = scene.swap(bad).await.unwrap();
        let from = scene.status("evolve").unwrap().checkpoint;
        scene.publish(from + 1..=from + 100).await;
        scene
            .wait("the old version", |scene| {
                scene.status("evolve").unwrap().version == "1.0.0"
            })
            .await;
        scene.wait_for_checkpoint(from + 100).await;
        scene
            .wait("all rows", |scene| {
                scene.query("SELECT count(*) FROM evolved") == [(from + 100).to_string()]
            })
            .await;
        scene
            .wait("the failure is reported", |scene| {
                let refusals = scene.lifecycle().load_failures();
                refusals
                    .iter()
                    .any(|refusal| refusal.reason.contains("rolled back to 1.0.0"))
            })
            .await;
        let view = scene.show().await;
        let version = view
            .versions
            .iter()
            .find(|version| version.digest == bad.digest.to_string());
        let failed = version.unwrap().failed.clone().unwrap();
        assert!(failed.contains("messages were rejected"), "{failed}");
    }
    scene.close().await;
    let recorded = scene.query(
        "SELECT actor || ' ' || detail FROM _lantern_audit WHERE action = 'plugin.rollback' ORDER BY id",
    );
    assert!(
        recorded.len() == 2
            && recorded[0]
                .starts_with("(automatic rollback) version 1.2.0 was rolled back to 1.0.0 automatically"),
        "{recorded:?}"
    );
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_settings_does_not_end_the_health_gate() {
    let mut scene = Scene::running(b'a', 100).await;
    scene.swap(b'd').await.unwrap();
    let changes = vec![("dead_letters.max".to_owned(), "500".to_owned())];
    scene
        .lifecycle()
        .set("evolving", changes, &operator())
        .await
        .unwrap();
    scene.publish(101..=200).await;
    scene
        .wait("the old version", |scene| {
            scene.status("evolve").unwrap().version == "1.0.0"
        })
        .await;
    scene.wait_for_checkpoint(200).await;
    scene
        .wait_for_result("all rows", "SELECT count(*) FROM evolved", "200")
        .await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_was_rolled_back_is_watched_again() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.publish(1..=100).await;
    scene.wait_for_checkpoint(100).await;
    let mut last = 100;
    let mut bad = None;
    for round in 1..=2 {
        let activated = match bad {
            None => scene.swap(b'd').await,
            Some(digest) => {
                scene
                    .lifecycle()
                    .activate("evolving", Some(digest), &operator())
                    .await
            }
        };
        bad = Some(activated.unwrap().digest);
        // The messages of the first round do not count in the second.
        scene.publish(last + 1..=last + 40).await;
        scene.wait_for_checkpoint(last + 40).await;
        assert_eq!(scene.status("evolve").unwrap().version, "1.2.0", "round {round}");
        scene.publish(last + 41..=last + 3_000).await;
        last += 3_000;
        scene
            .wait("the old version", |scene| {
                scene.status("evolve").unwrap().version == "1.0.0"
            })
            .await;
        scene.wait_for_checkpoint(last).await;
        // Including those that the version rejected while it was rolled back.
        scene
            .wait("all rows", |scene| {
                scene.query("SELECT count(*) FROM evolved") == [last.to_string()]
            })
            .await;
        scene.wait_until_quiet().await;
    }
    scene
        .wait("no open dead letter in the status", |scene| {
            scene.status("evolve").unwrap().dead_letters == 0
        })
        .await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_counts_open_dead_letters_correctly_after_retries_under_load() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    let publishing = scene.publish((1..=20_000).map(|n| format!("later {n}")));
    let retrying = async {
        for _ in 0..40 {
            let filter = lantern_store::OpenDeadLetterFilter {
                id: Some(1),
                ..Default::default()
            };
            scene
                .lifecycle()
                .retry_dead_letters(filter, &operator())
                .await
                .unwrap();
        }
    };
    tokio::join!(publishing, retrying);
    let open = |scene: &Scene| {
        scene.query("SELECT count(*) FROM _lantern_dead_letter WHERE state = 'open'")[0]
            .parse::<u64>()
            .unwrap()
    };
    // The source halts at the limit of open dead letters.
    scene.wait_for_state(ProjectionState::Failed).await;
    assert_eq!(scene.status("evolve").unwrap().dead_letters, open(&scene));
    // Resolved while the source is paused.
    scene
        .lifecycle()
        .pause("evolving", "maintenance", &operator())
        .await
        .unwrap();
    scene.wait_for_state(ProjectionState::Paused).await;
    scene
        .lifecycle()
        .discard_dead_letters(lantern_store::OpenDeadLetterFilter::default(), &operator())
        .await
        .unwrap();
    assert_eq!(open(&scene), 0);
    scene
        .wait("the count of a paused source", |scene| {
            scene.status("evolve").unwrap().dead_letters == 0
        })
        .await;
    scene.close().await;
    scene.sound();
}
