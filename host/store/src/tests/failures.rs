//! A statement that fails, for example because a table was dropped by hand, does not make the database unavailable; an
//! unavailable database is available again after the next success.

use super::*;
use crate::sql::Error;

/// A connection of another program.
fn change(scene: &Scene, sql: &str) {
    let connection = rusqlite::Connection::open(scene.store.path().unwrap()).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_statement_that_fails_does_not_make_the_database_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let failed = scene
        .store
        .call(|connection| connection.execute_batch("INSERT INTO nothing VALUES (1)"))
        .await;
    assert!(
        matches!(&failed, Err(CommitError::Failed(reason)) if reason.contains("nothing")),
        "{failed:?}"
    );
    let rejected = scene
        .store
        .call_catalog(|connection| Ok(connection.execute_batch("CREATE TABLE")?))
        .await;
    assert!(matches!(rejected, Err(AdoptError::Refused(_))), "{rejected:?}");
    assert_eq!(*scene.store.health().borrow(), Health::Healthy);
    scene
        .store
        .commit(scene.batch(0, vec![order("a", 1)]))
        .await
        .unwrap();
    sound(&scene.store);
}

#[tokio::test]
async fn a_batch_whose_table_is_missing_does_not_stop_other_sources() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let other = NewEpoch {
        source: "others".into(),
        stream: Some("OTHERS".into()),
        ..first_epoch()
    };
    let other = scene.store.sources().begin_epoch(other).await.unwrap();
    change(&scene, "DROP TABLE notes");
    // The writer takes all three into one transaction.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let blocked = scene.store.call(move |_| {
        released.recv().unwrap();
        Ok(())
    });
    let batches = async {
        let mut answers = Vec::new();
        for (outcome, origin) in [
            (order("a", 1), scene.attached.origin),
            (note(1), other.origin),
            (order("b", 1), other.origin),
        ] {
            let commit = Commit {
                origin,
                stamp: origin,
                ..scene.batch(0, vec![outcome])
            };
            answers.push(scene.store.begin_commit(commit).await.unwrap());
        }
        release.send(()).unwrap();
        let mut results = Vec::new();
        for answer in answers {
            results.push(answer.await.unwrap());
        }
        results
    };
    let (blocked, results) = tokio::join!(blocked, batches);
    blocked.unwrap();
    assert!(
        matches!(
            results.as_slice(),
            [Ok(_), Err(CommitError::Failed(reason)), Ok(_)] if reason.contains("notes")
        ),
        "{results:?}"
    );
    assert_eq!(*scene.store.health().borrow(), Health::Healthy);
    assert_eq!(scene.query("SELECT id FROM orders ORDER BY id"), "a; b");
}

#[tokio::test]
async fn an_unavailable_database_is_available_again_without_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let full = || {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        Error::from(rusqlite::Error::SqliteFailure(code, None))
    };
    for _ in 0..2 {
        let failed = scene.store.call(move |_| Err::<(), _>(full())).await;
        assert!(matches!(failed, Err(CommitError::Unavailable(_))), "{failed:?}");
        assert!(matches!(*scene.store.health().borrow(), Health::Unavailable(_)));
        // It writes nothing, so the writer tries a write of its own.
        scene.store.call(|_| Ok(())).await.unwrap();
        assert_eq!(*scene.store.health().borrow(), Health::Healthy);
    }
    let failed = scene.store.call(move |_| Err::<(), _>(full())).await;
    assert!(failed.is_err());
    change(
        &scene,
        "CREATE TRIGGER t BEFORE INSERT ON _lantern_host BEGIN SELECT raise(ABORT, 'rejected'); END",
    );
    scene.store.call(|_| Ok(())).await.unwrap();
    assert!(matches!(*scene.store.health().borrow(), Health::Unavailable(_)));
}
