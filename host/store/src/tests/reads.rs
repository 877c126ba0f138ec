//! Tests that reads and the writer do not disturb each other.

use super::*;
use lantern_model::identity::RowIdentity;
use lantern_model::schema::TableName;

#[tokio::test]
async fn a_read_and_a_change_without_effect_do_not_count_as_commits() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let store = &scene.store;
    while matches!(
        store.maintenance().add_missing_index().await.unwrap(),
        IndexStep::Made { .. }
    ) {}
    // The writer answers before it counts: the second call begins after the first one has counted.
    assert!(!store.rebuilds().sweep().await.unwrap());
    let mut commits = store.commits();
    let before = *commits.borrow();
    assert_eq!(store.reader().installations().await.unwrap().len(), 1);
    store.reader().rebuilds().await.unwrap();
    store.sources().attach("orders", "orders").await.unwrap().unwrap();
    store.maintenance().add_missing_index().await.unwrap();
    assert!(!store.rebuilds().sweep().await.unwrap());
    assert_eq!(*commits.borrow(), before);
    store
        .plugins()
        .set_settings("orders", "{}".to_owned(), None)
        .await
        .unwrap();
    // The writer answers before it counts.
    let counted = tokio::time::timeout(
        Duration::from_secs(10),
        commits.wait_for(|count| *count == before + 1),
    );
    counted.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_wait_for_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let blocked = scene.store.call(move |_| {
        begun.send(()).unwrap();
        ends.recv().unwrap();
        Ok(())
    });
    let reading = async {
        has_begun.await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(10), scene.store.reader().installations());
        let installed = read.await;
        end.send(()).unwrap();
        installed
    };
    let (blocked, installed) = tokio::join!(blocked, reading);
    blocked.unwrap();
    assert_eq!(installed.expect("in time").unwrap().len(), 1);
}

#[tokio::test]
async fn attaching_sees_batches_whose_callers_have_gone_away() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    for after in 0..20 {
        let batch = scene.batch(after, vec![note(1)]);
        drop(scene.store.begin_commit(batch).await.expect("sent"));
    }
    let attached = scene.store.sources().attach("orders", "orders").await.unwrap();
    assert_eq!(attached.unwrap().checkpoint.sequence, 20);
}

#[tokio::test]
async fn a_row_is_found_by_its_identity_with_segments_and_with_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    // `notes` has segments, `orders` is updated and has an index.
    let outcomes = (1..=3_000).map(|n| match n {
        2_999 => order("a", 7),
        n => note(n),
    });
    scene
        .store
        .commit(scene.batch(0, outcomes.collect()))
        .await
        .unwrap();
    let reader = scene.store.reader();
    for (table, sequence, value) in [("notes", 2_500, 0), ("orders", 2_999, 1)] {
        let name = TableName::parse(table).unwrap();
        let shape = reader.shape(&name).await.unwrap().unwrap();
        let id = RowIdentity {
            origin: scene.attached.origin.0,
            sequence,
            row: 0,
        };
        let found = reader.row(&shape, id).await.unwrap().unwrap();
        assert_eq!(found.id, id);
        let expected = if table == "notes" { 2_500 } else { 7 };
        assert!(
            matches!(found.values[value], Value::Integer(number) if number == expected),
            "{table}"
        );
        for other in [
            RowIdentity { row: 1, ..id },
            RowIdentity { origin: 99, ..id },
            RowIdentity {
                sequence: 9_999,
                ..id
            },
        ] {
            assert!(
                reader.row(&shape, other).await.unwrap().is_none(),
                "{table} {other}"
            );
        }
    }
}
