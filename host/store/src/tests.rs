//! Tests the store with a real file: the guarantees of a commit, observed from outside.

mod checks;
mod effects;
mod engine_reads;
mod engines;
mod failures;
mod names;
mod portions;
mod questions;
mod reads;
mod sources;
mod tls;

use std::fs;
use std::time::Duration;

use super::testing::{Scene, adoption, entry, first_epoch, note, order, orders};
use super::*;
use crate::check::check;
use crate::testing::config_of;
use lantern_model::batch::{Outcome, Rejection, RejectionClass, Row, Timestamp, Value};
use lantern_model::schema::{ColumnType, Manifest};

fn sound(store: &Store) {
    let report = crate::testing::checked(store);
    assert_eq!(report.problems, []);
}

#[tokio::test]
async fn a_batch_takes_effect_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let rejection = Rejection::new(RejectionClass::Malformed, "no id");
    let outcomes = vec![order("a", 1), Outcome::Skip, Outcome::Reject(rejection), note(5)];
    let committed = scene
        .store
        .commit(scene.batch(0, outcomes))
        .await
        .expect("commit");
    let expected = Counts {
        messages: 4,
        projected: 2,
        skipped: 1,
        dead: 1,
        missing: 0,
        rows: 2,
        changed: 2,
        inserted: 2,
        updated: 0,
    };
    assert_eq!(committed.counts, expected);
    assert_eq!(
        scene.query("SELECT _origin, _sequence, _row, id, total FROM orders"),
        "1 1 0 a 1"
    );
    assert_eq!(scene.query("SELECT _sequence, n FROM notes"), "4 5");
    assert_eq!(
        scene.query("SELECT sequence, class, reason, subject, headers, payload FROM _lantern_dead_letter"),
        "3 malformed no id orders.new [[\"Nats-Msg-Id\",\"3\"]] 9 bytes"
    );
    let attached = scene
        .store
        .sources()
        .attach("orders", "orders")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            attached.checkpoint.sequence,
            attached.counts,
            attached.dead_letters
        ),
        (4, expected, 1)
    );
    sound(&scene.store);
}

#[tokio::test]
async fn a_batch_cannot_take_effect_twice_or_out_of_order() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, vec![note(1)]))
        .await
        .expect("first");
    for after in [0, 2] {
        let refused = scene
            .store
            .commit(scene.batch(after, vec![note(1)]))
            .await
            .expect_err("stale");
        assert_eq!(
            refused,
            CommitError::Stale {
                expected: after,
                found: Some(1)
            }
        );
    }
    assert_eq!(scene.query("SELECT count(*) FROM notes"), "1");
    sound(&scene.store);
}

#[tokio::test]
async fn each_waiting_batch_gets_its_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let mut answers = Vec::new();
    for after in 0..50 {
        answers.push(
            scene
                .store
                .begin_commit(scene.batch(after, vec![note(1)]))
                .await
                .expect("handed over"),
        );
    }
    for answer in answers {
        answer.await.expect("answered").expect("committed");
    }
    assert_eq!(scene.query("SELECT count(*), max(_sequence) FROM notes"), "50 50");
    sound(&scene.store);
}

#[tokio::test]
async fn a_deleted_database_is_detected_before_a_commit_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, vec![note(1)]))
        .await
        .expect("commit");
    for file in ["lantern.db", "lantern.db-wal", "lantern.db-shm"] {
        fs::remove_file(dir.path().join(file)).unwrap();
    }
    let refused = scene
        .store
        .commit(scene.batch(1, vec![note(2)]))
        .await
        .expect_err("into the void");
    // The new file is empty, so the source has to begin again: the broker still has the messages.
    assert_eq!(
        refused,
        CommitError::Stale {
            expected: 1,
            found: None
        }
    );
    assert_eq!(
        scene.store.sources().attach("orders", "orders").await.unwrap(),
        None
    );
    scene
        .store
        .plugins()
        .adopt(adoption(orders()))
        .await
        .expect("adopt again");
    scene
        .store
        .sources()
        .begin_epoch(first_epoch())
        .await
        .expect("begin again");
    scene
        .store
        .commit(scene.batch(0, vec![note(1), note(2)]))
        .await
        .expect("all again");
    assert_eq!(*scene.store.health().borrow(), Health::Healthy);
    sound(&scene.store);
}

#[tokio::test]
async fn another_process_that_holds_the_lock_delays_but_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let other = rusqlite::Connection::open(scene.store.path().unwrap()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = scene
        .store
        .begin_commit(scene.batch(0, vec![note(1)]))
        .await
        .unwrap();
    let mut health = scene.store.health();
    tokio::time::timeout(
        Duration::from_secs(20),
        health.wait_for(|health| *health != Health::Healthy),
    )
    .await
    .expect("reported as unavailable")
    .expect("alive");
    other.execute_batch("ROLLBACK").unwrap();
    answer.await.unwrap().expect("committed in the end");
    assert_eq!(*scene.store.health().borrow(), Health::Healthy);
    sound(&scene.store);
}

/// The second version of `orders`.
fn changed(change: fn(&mut Manifest)) -> crate::Adoption {
    let mut manifest = orders();
    manifest.version = semver::Version::new(2, 0, 0);
    change(&mut manifest);
    adoption(manifest)
}

#[tokio::test]
async fn additions_to_a_table_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, vec![order("a", 1)]))
        .await
        .expect("commit");
    let more = changed(|manifest| {
        let mut column = manifest.tables[0].columns[1].clone();
        column.name = lantern_model::schema::ColumnName::parse("tax").unwrap();
        manifest.tables[0].columns.push(column);
        let columns = vec![lantern_model::schema::ColumnName::parse("tax").unwrap()];
        manifest.tables[0].indexes.push(lantern_model::schema::Index {
            columns,
            unique: false,
        });
    });
    let adopted = scene
        .store
        .plugins()
        .adopt(more)
        .await
        .expect("a nullable column and an index");
    assert_ne!(adopted.version, scene.plugin.version);
    assert_eq!(scene.query("SELECT id, tax FROM orders"), "a null");
    sound(&scene.store);
}

#[tokio::test]
async fn other_changes_of_a_table_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    for (change, words) in [
        (
            changed(|m| m.tables[0].columns[1].column_type = ColumnType::Text),
            "would become text",
        ),
        (
            changed(|m| drop(m.tables[0].columns.remove(1))),
            "column total is not declared any more",
        ),
        (
            changed(|m| m.tables[0].columns[1].nullable = false),
            "would become not nullable",
        ),
        (
            changed(|m| m.tables[0].primary_key.clear()),
            "the primary key is (id) and would become ()",
        ),
        (
            changed(|m| m.name = lantern_model::schema::PluginName::parse("thief").unwrap()),
            "belongs to plugin orders",
        ),
    ] {
        let refused = scene.store.plugins().adopt(change).await.expect_err(words);
        assert!(
            refused.to_string().contains(words),
            "{words:?} is not in {refused}"
        );
    }
    sound(&scene.store);
}

#[tokio::test]
async fn expired_rows_are_removed_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    const DAY_US: i64 = 86_400_000_000;
    scene
        .store
        .commit(scene.batch(0, vec![note(1), note(2), note(2 * DAY_US)]))
        .await
        .expect("commit");
    let table = scene.plugin.manifest.tables[1].clone();
    let removed = scene
        .store
        .maintenance()
        .expire(table, Timestamp(2 * DAY_US))
        .await
        .expect("expire");
    assert_eq!(removed, 2);
    assert_eq!(scene.query("SELECT n FROM notes"), (2 * DAY_US).to_string());
    sound(&scene.store);
}

#[tokio::test]
async fn closing_waits_for_sent_batches() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let answer = scene
        .store
        .begin_commit(scene.batch(0, vec![note(1)]))
        .await
        .unwrap();
    scene.store.close().await;
    answer.await.expect("answered").expect("committed");
    let again = Scene::open(dir.path()).await;
    assert_eq!(again.attached.checkpoint.sequence, 1);
}

#[test]
fn a_stored_pause_is_attributed_by_the_text_that_the_watcher_wrote() {
    let connection = crate::sql::Connection::open_in_memory().unwrap();
    let (old, new): (Vec<_>, Vec<_>) = super::migrations::MIGRATIONS
        .iter()
        .partition(|migration| migration.version < 11);
    for migration in old {
        connection.execute_batch(migration.sql.as_str()).unwrap();
    }
    connection
        .execute_batch(
            "INSERT INTO _lantern_installation (plugin, paused, changed_at) VALUES
             ('a', 'its file a.wasm was removed from the plugin directory', 0), ('b', 'maintenance (by me)', 0),
             ('c', NULL, 0)",
        )
        .unwrap();
    for migration in new {
        connection.execute_batch(migration.sql.as_str()).unwrap();
    }
    let paused_by: Vec<Option<PausedBy>> = installation::installations(&connection)
        .unwrap()
        .into_iter()
        .map(|installation| installation.paused.map(|pause| pause.by))
        .collect();
    assert_eq!(
        paused_by,
        [Some(PausedBy::PluginDirectory), Some(PausedBy::Operator), None]
    );
}

#[tokio::test]
async fn the_name_of_the_data_directory_is_not_interpreted() {
    let parent = tempfile::tempdir().unwrap();
    for name in [
        "a b",
        "c?mode=memory",
        "d#e",
        "f%20g",
        "h'i\"j",
        "k\nl",
        ":memory:",
        "file:x",
    ] {
        let dir = parent.path().join(name);
        fs::create_dir(&dir).unwrap();
        let scene = Scene::open(&dir).await;
        let commit = scene.batch(0, vec![order("a", 1)]);
        scene.store.commit(commit).await.expect(name);
        assert!(dir.join(DATABASE_FILE).is_file(), "{name}");
        sound(&scene.store);
        scene.store.close().await;
    }
    let found = fs::read_dir(parent.path()).unwrap().count();
    assert_eq!(found, 8, "a name was interpreted as a path to another folder");
}
