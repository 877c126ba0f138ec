//! Tests of `lantern check` with real databases.

use super::*;
use crate::testing::server_of;

/// Two epochs that each read messages 1 to `count`; `same_times` gives those of the second one the same times.
async fn read_in_two_epochs(dir: &std::path::Path, count: i64, same_times: bool) -> check::Report {
    let mut scene = Scene::open(dir).await;
    for time in [0, if same_times { 0 } else { 1_000 }] {
        let mut batch = scene.batch(0, (1..=count).map(note).collect());
        for entry in &mut batch.entries {
            entry.delivery.published_ns += time;
        }
        batch.through.published_ns += time;
        scene.store.commit(batch).await.expect("commit");
        scene.attached = scene
            .store
            .sources()
            .begin_epoch(first_epoch())
            .await
            .expect("epoch");
    }
    scene.checked()
}

#[tokio::test]
async fn messages_read_in_two_epochs_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let report = read_in_two_epochs(dir.path(), 5, true).await;
    assert_eq!(report.problems.len(), 1, "{report:?}");
    let problem = report.problems[0].to_string();
    assert!(problem.contains("epochs 1 and 2: message 5"), "{problem}");
    assert!(problem.contains("5 messages have rows in both"), "{problem}");
    assert!(problem.contains("--drop-tables"), "{problem}");
}

#[tokio::test]
async fn equal_rows_of_two_epochs_are_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let report = read_in_two_epochs(dir.path(), 5, false).await;
    assert!(report.problems.is_empty(), "{report:?}");
    let likely = "5 messages have the same rows in both";
    assert!(
        report.unverified.iter().any(|note| note.contains(likely)),
        "{report:?}"
    );
}

#[tokio::test]
async fn several_rows_of_one_message_count_as_one_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut notes = orders();
    notes.tables.remove(0);
    let mut write = notes.writes.remove(2);
    write.table = 0;
    notes.writes = vec![write];
    let mut scene = Scene::of(dir.path(), notes).await;
    let row = |n| Row {
        write: 0,
        values: vec![Value::Integer(n), Value::Null],
    };
    for time in [0, 1_000] {
        let mut batch = scene.batch(0, (1..=4).map(|n| Outcome::Rows(vec![row(n), row(n)])).collect());
        for entry in &mut batch.entries {
            entry.delivery.published_ns += time;
        }
        batch.through.published_ns += time;
        scene.store.commit(batch).await.expect("commit");
        let next = scene.store.sources().begin_epoch(first_epoch());
        scene.attached = next.await.expect("epoch");
    }
    let report = scene.checked();
    let likely = "4 messages have the same rows in both";
    assert!(
        report.unverified.iter().any(|note| note.contains(likely)),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_dead_letter_in_two_epochs_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::open(dir.path()).await;
    let reject = || Outcome::Reject(Rejection::new(RejectionClass::Malformed, "it is no order"));
    for last in [3, 4] {
        // The anchors are at 1 and at the end; the dead letter is between them.
        let mut outcomes: Vec<Outcome> = (1..=last).map(|n| note(n * last)).collect();
        outcomes[1] = reject();
        let mut batch = scene.batch(0, outcomes);
        batch.entries[0].delivery.published_ns += last;
        scene.store.commit(batch).await.expect("commit");
        scene.attached = scene
            .store
            .sources()
            .begin_epoch(first_epoch())
            .await
            .expect("epoch");
    }
    let report = scene.checked();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(report.problems[0].problem.contains("message 2"), "{report:?}");
}

/// Changes of the database, and what the check reports.
const MANUAL_CHANGES: [(&str, &str); 14] = [
    (
        "DELETE FROM notes WHERE n = 2",
        "orders: 1 row is missing (tables 2: notes 2, orders 0, ledger 3); remedy: lantern rebuild orders",
    ),
    (
        "INSERT INTO notes VALUES (1, 3, 1, 8, 8)",
        "orders: 1 row is too many (tables 4",
    ),
    (
        "UPDATE _lantern_checkpoint SET sequence = 9",
        "the ledger ends at 4, the checkpoint is 9",
    ),
    ("UPDATE _lantern_ledger SET skipped = 5", "do not add up"),
    (
        "DELETE FROM _lantern_dead_letter",
        "0 dead letters in the table, 1 in the ledger",
    ),
    (
        "UPDATE notes SET _sequence = 77 WHERE n = 2",
        "messages that the ledger does not know",
    ),
    (
        "UPDATE notes SET _sequence = 4 WHERE n = 2",
        "1 row from messages that are open dead letters",
    ),
    (
        "UPDATE _lantern_ledger SET first_sequence = 2",
        "hole between 0 and 2",
    ),
    (
        "UPDATE _lantern_ledger SET updated = 1",
        "the ledger's rows of messages 1 to 4 do not add up",
    ),
    (
        "UPDATE _lantern_ledger SET inserted = inserted - 1, updated = updated + 1",
        "orders: 1 row is too many (tables 3: notes 3, orders 0, ledger 2)",
    ),
    (
        "DROP INDEX \"orders#origin\"",
        "orders: table orders has no unique index (_origin, _sequence, _row)",
    ),
    (
        "DROP INDEX \"notes#at#index\"",
        "orders: table notes has no index (at); remedy: start the host, which creates it",
    ),
    ("DROP TABLE notes", "orders: table notes is missing"),
    (
        "INSERT INTO _lantern_gap VALUES (1, 1, 2, 3, 1, 'x', 0)",
        "gaps of 2 messages recorded, 0 in the ledger",
    ),
];

/// Those that only a file allows, or whose remedy is in SQLite.
const CHANGES_OF_A_FILE: [(&str, &str); 2] = [
    (
        "PRAGMA foreign_keys = OFF; UPDATE _lantern_ledger SET plugin_version = 77",
        "broken reference: _lantern_ledger row 1 refers to a missing row of _lantern_plugin",
    ),
    (
        "DROP INDEX _lantern_gap_origin",
        "index _lantern_gap_origin is missing; remedy: stop the host and run in SQLite: CREATE INDEX",
    ),
];

/// Those of a server whose report differs.
const CHANGES_OF_A_SERVER: [(&str, &str); 2] = [
    (
        "DROP INDEX _lantern_gap_origin",
        "index _lantern_gap_origin is missing",
    ),
    ("DROP VIEW lantern_trigger", "view lantern_trigger is missing"),
];

#[tokio::test]
async fn check_finds_manual_changes() {
    let of_engine = match server_of(std::path::Path::new("any")).await {
        Some(_) => CHANGES_OF_A_SERVER,
        None => CHANGES_OF_A_FILE,
    };
    for (harm, words) in MANUAL_CHANGES.into_iter().chain(of_engine) {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::open(dir.path()).await;
        let dead = Outcome::Reject(Rejection::new(RejectionClass::Invalid, "x"));
        scene
            .store
            .commit(scene.batch(0, vec![note(1), note(2), note(3), dead]))
            .await
            .expect("commit");
        sound(&scene.store);
        scene.change(harm).await;
        let problems = scene.checked().problems;
        assert!(
            problems.iter().any(|problem| problem.to_string().contains(words)),
            "{harm}: {problems:?}"
        );
    }
}

#[tokio::test]
async fn check_reports_what_it_cannot_verify() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let all = || {
        let report = scene.checked();
        [report.unverified_values(), report.unverified].concat()
    };
    // The files of a server are another note.
    let of_engine = usize::from(scene.store.path().is_none());
    assert_eq!(all().len() - of_engine, 1, "only the merging table: {:?}", all());
    let outcomes = vec![note(1), Outcome::Skip, order("a", 1)];
    scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    let table = scene.plugin.manifest.tables[1].clone();
    scene
        .store
        .maintenance()
        .expire(table, Timestamp::now())
        .await
        .unwrap();
    let report = scene.checked();
    assert_eq!(report.problems, []);
    for words in [
        "the values in the tables",
        "the rows of orders are made of",
        "1 skipped message:",
        "1 expired row:",
    ] {
        assert!(
            all().iter().any(|note| note.contains(words)),
            "{words}: {:?}",
            all()
        );
    }
    let counts: Vec<_> = report
        .tables
        .iter()
        .map(|table| (table.table.as_str(), table.row_count, table.expired))
        .collect();
    assert_eq!(counts, [("notes", 0, 1), ("orders", 1, 0)]);

    // A row that was deleted from a table whose writes merge is detected by the number of rows.
    scene.change("DELETE FROM orders").await;
    let problems = scene.checked().problems;
    assert!(problems[0].problem.contains("1 row is missing"), "{problems:?}");
}

#[tokio::test]
async fn the_time_of_retention_is_stored_and_begins_at_the_newest_message() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let maintenance = scene.store.maintenance();
    let now = Timestamp::now();
    assert_eq!(maintenance.retention_time(now).await.unwrap(), now);
    for sql in [
        "INSERT INTO _lantern_origin (id, plugin, source, epoch, begins_after, reason, began_at)
         VALUES (90, 'p', 'core', 1, 0, 'the first', 0)",
        "INSERT INTO _lantern_checkpoint (origin, sequence, published_ns, committed_at) VALUES (90, 7, 5000, 0)",
    ] {
        scene.change(sql).await;
    }
    assert_eq!(maintenance.retention_time(now).await.unwrap(), Timestamp(5));
    for at in [Timestamp(9), Timestamp(3)] {
        maintenance.set_retention_time(at).await.unwrap();
        assert_eq!(maintenance.retention_time(now).await.unwrap(), at);
    }
}

#[tokio::test]
async fn check_rejects_a_database_of_another_version_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let connection = rusqlite::Connection::open(scene.store.path().unwrap()).unwrap();
    let known: i64 = connection
        .query_row("SELECT max(version) FROM _sqlx_migrations", [], |row| row.get(0))
        .unwrap();
    let set = |version: i64| {
        let sql = "UPDATE _sqlx_migrations SET version = ?1 WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
        connection.execute(sql, [version]).unwrap();
        check(scene.store.path().unwrap()).unwrap_err().to_string()
    };
    let newer = set(known + 1);
    let words = format!(
        "written by a newer Lantern (schema {}, this program knows {known})",
        known + 1
    );
    assert!(newer.contains(&words), "{newer}");
    let older = set(0);
    assert!(older.contains("written by an older Lantern (schema "), "{older}");
}

#[tokio::test]
async fn a_damaged_database_is_rejected_at_start() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, (0..500).map(note).collect()))
        .await
        .expect("commit");
    let path = scene.store.path().unwrap().to_owned();
    scene.store.close().await;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for page in 3..20 {
        file.write_all_at(&[0xff; 64], page * 4096 + 8).unwrap();
    }
    let refused = Store::open(StoreConfig::new(dir.path()))
        .await
        .err()
        .expect("it is damaged");
    assert!(
        matches!(refused, OpenError::Damaged { .. } | OpenError::Database { .. }),
        "{refused}"
    );
}
