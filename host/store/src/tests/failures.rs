//! A statement that fails, for example because a table was dropped by hand, does not make the database unavailable; an
//! unavailable database is available again after the next success.

use super::names::other;
use super::*;
use crate::sql::Error;

/// A connection of another program.
fn change(scene: &Scene, sql: &str) {
    let connection = rusqlite::Connection::open(scene.store.path().unwrap()).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// Waits until the health of the database is this.
async fn wait_for_health(scene: &Scene, what: impl Fn(&Health) -> bool) {
    let mut health = scene.store.health();
    let found = tokio::time::timeout(Duration::from_secs(30), health.wait_for(what)).await;
    drop(found.expect("the health of the database").unwrap());
}

fn is_unavailable(health: &Health, because: &str) -> bool {
    matches!(health, Health::Unavailable(reason) if reason.contains(because))
}

#[tokio::test]
async fn a_statement_that_fails_does_not_make_the_database_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let mut health = scene.store.health();
    health.mark_unchanged();
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
    scene
        .store
        .commit(scene.batch(0, vec![order("a", 1)]))
        .await
        .unwrap();
    assert!(!health.has_changed().unwrap(), "{health:?}");
    sound(&scene.store);
}

#[tokio::test]
async fn a_batch_whose_table_is_missing_does_not_stop_other_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let plugin = scene
        .store
        .plugins()
        .adopt(adoption(other(0, "others")))
        .await
        .unwrap();
    let mut origins = Vec::new();
    for source in ["a", "b"] {
        let epoch = NewEpoch {
            plugin: "other-0".into(),
            source: source.into(),
            ..first_epoch()
        };
        origins.push(scene.store.sources().begin_epoch(epoch).await.unwrap().origin);
    }
    change(&scene, "DROP TABLE orders");
    let mut health = scene.store.health();
    health.mark_unchanged();
    let of_other = |id: &str, origin| Commit {
        origin,
        stamp: origin,
        plugin: plugin.clone(),
        ..scene.batch(0, vec![order(id, 1)])
    };
    let batches = [
        of_other("a", origins[0]),
        scene.batch(0, vec![order("x", 1)]),
        of_other("b", origins[1]),
    ];
    // The writer takes all three into one transaction.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let blocked = scene.store.call(move |_| {
        released.recv().unwrap();
        Ok(())
    });
    let commits = async {
        let mut answers = Vec::new();
        for commit in batches {
            answers.push(scene.store.begin_commit(commit).await.unwrap());
        }
        release.send(()).unwrap();
        let mut results = Vec::new();
        for answer in answers {
            results.push(answer.await.unwrap());
        }
        results
    };
    let (blocked, results) = tokio::join!(blocked, commits);
    blocked.unwrap();
    assert!(
        matches!(
            results.as_slice(),
            [Ok(_), Err(CommitError::Failed(reason)), Ok(_)] if reason.contains("orders")
        ),
        "{results:?}"
    );
    assert!(!health.has_changed().unwrap(), "{health:?}");
    assert_eq!(scene.query("SELECT id FROM others ORDER BY id"), "a; b");
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
        wait_for_health(&scene, |health| is_unavailable(health, "")).await;
        // It writes nothing, so the writer tries a separate write.
        scene.store.call(|_| Ok(())).await.unwrap();
        wait_for_health(&scene, |health| *health == Health::Healthy).await;
    }
    let failed = scene.store.call(move |_| Err::<(), _>(full())).await;
    assert!(failed.is_err());
    change(
        &scene,
        "CREATE TRIGGER t BEFORE INSERT ON _lantern_host BEGIN SELECT raise(ABORT, 'rejected'); END",
    );
    scene.store.call(|_| Ok(())).await.unwrap();
    wait_for_health(&scene, |health| is_unavailable(health, "rejected")).await;
}
