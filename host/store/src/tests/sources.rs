//! Tests of epochs, anchors and questions about streams.

use super::*;

#[tokio::test]
async fn gaps_and_ranges_are_merged_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    for (after, first) in [(0, 1), (10, 11), (20, 21)] {
        let mut batch = scene.batch(after, vec![]);
        batch.gaps = vec![NewGap {
            first,
            last: first + 8,
            exact: true,
            reason: "trimmed".into(),
        }];
        batch.entries = vec![entry(first + 9, note(1))];
        batch.through.sequence = first + 9;
        scene.store.commit(batch).await.expect("commit");
    }
    let mut batch = scene.batch(30, vec![]);
    batch.gaps = vec![NewGap {
        first: 31,
        last: 40,
        exact: true,
        reason: "purged".into(),
    }];
    batch.through = Mark {
        sequence: 40,
        published_ns: 0,
        payload_sha256: None,
    };
    scene.store.commit(batch).await.expect("a gap alone");
    assert_eq!(
        scene.query("SELECT first_sequence, last_sequence, messages, missing FROM _lantern_ledger"),
        "1 40 3 37"
    );
    sound(&scene.store);
}

#[tokio::test]
async fn a_new_epoch_keeps_the_old_rows_and_starts_its_counts_at_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, vec![note(1), note(2)]))
        .await
        .expect("commit");
    let again = NewEpoch {
        reason: "the stream was recreated".into(),
        ..first_epoch()
    };
    scene.attached = scene.store.sources().begin_epoch(again).await.expect("epoch");
    assert_eq!((scene.attached.epoch, scene.attached.checkpoint.sequence), (2, 0));
    scene
        .store
        .commit(scene.batch(0, vec![note(3)]))
        .await
        .expect("commit");
    assert_eq!(
        scene.query("SELECT _origin, _sequence, n FROM notes"),
        "1 1 1; 1 2 2; 2 1 3"
    );
    sound(&scene.store);
}

#[tokio::test]
async fn anchors_are_kept_with_the_checkpoint_and_survive_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let sequences = async |store: &Store| {
        let attached = store.sources().attach("orders", "orders").await.unwrap().unwrap();
        let sequences = attached.anchors.iter().map(|anchor| anchor.sequence);
        sequences.collect::<Vec<u64>>()
    };
    scene
        .store
        .commit(scene.batch(0, vec![note(1), note(2), note(3)]))
        .await
        .expect("commit");
    assert_eq!(sequences(&scene.store).await, [3, 1]);
    let mut gap = scene.batch(3, vec![]);
    gap.gaps = vec![NewGap {
        first: 4,
        last: 9,
        exact: true,
        reason: "purged".into(),
    }];
    gap.through = Mark {
        sequence: 9,
        published_ns: 7,
        payload_sha256: None,
    };
    scene.store.commit(gap).await.expect("commit");
    assert_eq!(sequences(&scene.store).await, [3, 1]);
    scene.store.close().await;
    let store = Store::open(config_of(dir.path()).await).await.expect("open");
    assert_eq!(sequences(&store).await, [3, 1]);
}

#[tokio::test]
async fn a_decision_survives_a_restart_and_applies_only_to_its_stream() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let origin = scene.attached.origin;
    let decide = async |store: &Store| {
        store
            .sources()
            .answer_question("orders", "orders", Accepted::Same, None)
            .await
            .unwrap()
    };
    assert_eq!(decide(&scene.store).await, None, "nothing was asked");
    scene
        .store
        .sources()
        .set_question(origin, Some(77))
        .await
        .unwrap();
    assert_eq!(decide(&scene.store).await, Some(77));
    scene.store.close().await;
    let store = Store::open(config_of(dir.path()).await).await.expect("open");
    let attached = store.sources().attach("orders", "orders").await.unwrap().unwrap();
    assert_eq!(
        attached.question,
        Some(Question {
            stream_created_ns: 77,
            accepted: Some(Accepted::Same)
        })
    );
    // Another stream is another question.
    store.sources().set_question(origin, Some(78)).await.unwrap();
    let asked = store
        .sources()
        .attach("orders", "orders")
        .await
        .unwrap()
        .unwrap()
        .question;
    assert_eq!(asked.unwrap().accepted, None);
    store.sources().set_stream(origin, "ORDERS_2", 78).await.unwrap();
    let attached = store.sources().attach("orders", "orders").await.unwrap().unwrap();
    assert_eq!(attached.question, None);
    assert_eq!(
        (attached.stream.as_deref(), attached.stream_created_ns),
        (Some("ORDERS_2"), Some(78))
    );
}
