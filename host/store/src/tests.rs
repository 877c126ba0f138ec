//! The store against a real file: what is promised of a commit, seen from outside.

use std::fs;
use std::time::Duration;

use super::check::check;
use super::testing::{Scene, adoption, entry, first_epoch, note, order, orders};
use super::*;
use lantern_model::batch::{Outcome, Rejection, RejectionClass, Row, Timestamp, Value};
use lantern_model::schema::{ColumnType, Manifest};

fn sound(store: &Store) {
    let report = check(store.path()).expect("check");
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
    let attached = scene.store.attach("orders", "orders").await.unwrap().unwrap();
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
async fn a_row_that_the_database_refuses_costs_only_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let both = Outcome::Rows(vec![
        Row {
            write: 2,
            values: vec![Value::Integer(9), Value::Null],
        },
        Row {
            write: 0,
            values: vec![Value::Text("a".into()), Value::Null, Value::Null],
        },
    ]);
    let committed = scene
        .store
        .commit(scene.batch(0, vec![order("a", 1), both, order("b", 2)]))
        .await
        .expect("commit");
    assert_eq!(committed.counts.dead, 1);
    assert_eq!(committed.refused.len(), 1);
    assert_eq!(committed.refused[0].0, 2);
    assert_eq!(scene.query("SELECT id FROM orders ORDER BY id"), "a; b");
    assert_eq!(
        scene.query("SELECT count(*) FROM notes"),
        "0",
        "half a message is stored"
    );
    assert_eq!(
        scene.query("SELECT sequence, class FROM _lantern_dead_letter"),
        "2 constraint"
    );
    sound(&scene.store);
}

#[tokio::test]
async fn a_sum_that_overflows_is_a_dead_letter_and_not_a_rounded_number() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let add = |total, at| {
        let values = vec![
            Value::Text("a".into()),
            Value::Integer(total),
            Value::Timestamp(Timestamp(at)),
        ];
        Outcome::Rows(vec![Row { write: 1, values }])
    };
    let committed = scene
        .store
        .commit(scene.batch(0, vec![add(i64::MAX - 1, 1), add(1, 2), add(1, 3), add(5, 2)]))
        .await
        .expect("commit");
    // `at` has no merge rule, so it stays 1: every later one is newer.
    assert_eq!(committed.counts.dead, 2);
    assert_eq!(
        scene.query("SELECT total, at, _sequence FROM orders"),
        format!("{} 1 2", i64::MAX)
    );
    sound(&scene.store);
}

#[tokio::test]
async fn rows_are_counted_as_inserted_updated_or_already_present() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let add = |id: &str, total, at| {
        let values = vec![
            Value::Text(id.into()),
            Value::Integer(total),
            Value::Timestamp(Timestamp(at)),
        ];
        Row { write: 1, values }
    };
    // "a" is inserted with time 5 and updated by 6, but not by the older 5 and 4; "b" is inserted.
    let rows = [
        vec![add("a", 1, 5)],
        vec![add("a", 1, 6), add("a", 1, 5)],
        vec![add("a", 1, 4), add("b", 1, 1)],
    ];
    let outcomes = rows.map(Outcome::Rows).to_vec();
    let committed = scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    let expected = RowEffects {
        inserted: 2,
        updated: 1,
        present: 2,
    };
    assert_eq!(committed.effects[1], expected);
    assert_eq!(
        committed.effects[0],
        RowEffects::default(),
        "another write of the same table"
    );
    let counts = committed.counts;
    assert_eq!(
        (counts.rows, counts.inserted, counts.updated, counts.present()),
        (5, 2, 1, 2)
    );

    // A message that the database refuses counts none of its rows; the rest of its batch counts once.
    let refused = Outcome::Rows(vec![
        add("c", 1, 1),
        Row {
            write: 0,
            values: vec![Value::Text("a".into()), Value::Null, Value::Null],
        },
    ]);
    let outcomes = vec![Outcome::Rows(vec![add("b", 1, 2)]), refused];
    let committed = scene.store.commit(scene.batch(3, outcomes)).await.unwrap();
    let counts = committed.counts;
    assert_eq!(
        (counts.dead, counts.rows, counts.inserted, counts.updated),
        (1, 1, 0, 1)
    );
    assert_eq!(
        scene.query("SELECT rows, changed, inserted, updated FROM _lantern_ledger"),
        "6 4 2 2"
    );
    let attached = scene.store.attach("orders", "orders").await.unwrap().unwrap();
    assert_eq!((attached.counts.inserted, attached.counts.updated), (2, 2));
    sound(&scene.store);
}

#[tokio::test]
async fn a_sum_out_of_range_costs_only_its_message_and_never_stores_infinity() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = orders();
    manifest.tables[0].columns[1].column_type = ColumnType::Real;
    let scene = Scene::of(dir.path(), manifest).await;
    let add = |total: f64, at| {
        let values = vec![
            Value::Text("a".into()),
            Value::Real(total),
            Value::Timestamp(Timestamp(at)),
        ];
        Outcome::Rows(vec![Row { write: 1, values }])
    };
    let sums = [
        (f64::MAX, 1),
        (f64::MAX, 2),
        (-f64::MAX, 3),
        (f64::MAX, 4),
        (1.5, 5),
    ];
    let outcomes = sums.map(|(total, at)| add(total, at)).to_vec();
    let committed = scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    assert_eq!(committed.counts.dead, 1);
    assert_eq!(committed.refused[0].0, 2);
    assert!(
        committed.refused[0]
            .1
            .contains("a sum is outside the range of its column"),
        "{:?}",
        committed.refused
    );
    assert_eq!(
        scene.query("SELECT total = 1.7976931348623157e308, _sequence FROM orders"),
        "1 5"
    );
    sound(&scene.store);
}

#[tokio::test]
async fn a_whole_number_below_the_smallest_is_no_sum() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let add = |total, at| {
        let values = vec![
            Value::Text("a".into()),
            Value::Integer(total),
            Value::Timestamp(Timestamp(at)),
        ];
        Outcome::Rows(vec![Row { write: 1, values }])
    };
    // As doubles, all of these sums are -2^63, which is the smallest whole number.
    let outcomes = vec![add(i64::MIN, 1), add(-1, 2), add(-1_000, 3)];
    let committed = scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    assert_eq!(committed.counts.dead, 2);
    assert_eq!(
        scene.query("SELECT total, _sequence FROM orders"),
        format!("{} 1", i64::MIN)
    );
    sound(&scene.store);
}

#[tokio::test]
async fn gaps_and_ranges_are_merged_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    for (after, first) in [(0, 1), (10, 11), (20, 21)] {
        let mut batch = scene.batch(after, vec![]);
        batch.gaps = vec![Gap {
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
    batch.gaps = vec![Gap {
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
async fn a_new_epoch_keeps_the_old_rows_and_counts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, vec![note(1), note(2)]))
        .await
        .expect("commit");
    let again = NewEpoch {
        reason: "the stream was created anew".into(),
        ..first_epoch()
    };
    scene.attached = scene.store.begin_epoch(again).await.expect("epoch");
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

/// Two epochs that each read messages 1 to `count`; whether those of the second one have the same times.
async fn read_in_two_epochs(dir: &std::path::Path, count: i64, same_times: bool) -> check::Report {
    let mut scene = Scene::open(dir).await;
    for time in [0, if same_times { 0 } else { 1_000 }] {
        let mut batch = scene.batch(0, (1..=count).map(note).collect());
        for entry in &mut batch.entries {
            entry.delivery.published_ns += time;
        }
        batch.through.published_ns += time;
        scene.store.commit(batch).await.expect("commit");
        scene.attached = scene.store.begin_epoch(first_epoch()).await.expect("epoch");
    }
    check::check(scene.store.path()).expect("checked")
}

#[tokio::test]
async fn messages_that_two_epochs_have_read_are_a_problem() {
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
async fn a_dead_letter_that_two_epochs_have_is_a_problem() {
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
        scene.attached = scene.store.begin_epoch(first_epoch()).await.expect("epoch");
    }
    let report = check::check(scene.store.path()).expect("checked");
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(report.problems[0].problem.contains("message 2"), "{report:?}");
}

#[tokio::test]
async fn anchors_are_kept_with_the_checkpoint_and_survive_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let sequences = async |store: &Store| {
        let attached = store.attach("orders", "orders").await.unwrap().unwrap();
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
    gap.gaps = vec![Gap {
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
    let store = Store::open(Config::new(dir.path())).await.expect("open");
    assert_eq!(sequences(&store).await, [3, 1]);
}

#[tokio::test]
async fn a_decision_about_a_stream_survives_a_restart_and_holds_for_that_stream() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let origin = scene.attached.origin;
    let decide = async |store: &Store| store.accept("orders", "orders", Accepted::Same).await.unwrap();
    assert_eq!(decide(&scene.store).await, None, "nothing was asked");
    scene.store.ask(origin, Some(77)).await.unwrap();
    assert_eq!(decide(&scene.store).await, Some(77));
    scene.store.close().await;
    let store = Store::open(Config::new(dir.path())).await.expect("open");
    let attached = store.attach("orders", "orders").await.unwrap().unwrap();
    assert_eq!(
        attached.question,
        Some(Question {
            stream_created_ns: 77,
            accepted: Some(Accepted::Same)
        })
    );
    // Another stream is another question.
    store.ask(origin, Some(78)).await.unwrap();
    let asked = store.attach("orders", "orders").await.unwrap().unwrap().question;
    assert_eq!(asked.unwrap().accepted, None);
    store.recognise(origin, "ORDERS_2", 78).await.unwrap();
    let attached = store.attach("orders", "orders").await.unwrap().unwrap();
    assert_eq!(attached.question, None);
    assert_eq!(
        (attached.stream.as_deref(), attached.stream_created_ns),
        (Some("ORDERS_2"), Some(78))
    );
}

#[tokio::test]
async fn batches_that_wait_together_are_answered_each() {
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
async fn a_deleted_database_is_noticed_before_anything_is_answered() {
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
    // The new file knows nothing, so the source has to begin again: the broker still has the messages.
    assert_eq!(
        refused,
        CommitError::Stale {
            expected: 1,
            found: None
        }
    );
    assert_eq!(scene.store.attach("orders", "orders").await.unwrap(), None);
    scene.store.adopt(adoption(orders())).await.expect("adopt again");
    scene.store.begin_epoch(first_epoch()).await.expect("begin again");
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
    let other = rusqlite::Connection::open(scene.store.path()).unwrap();
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
    .expect("it says so")
    .expect("alive");
    other.execute_batch("ROLLBACK").unwrap();
    answer.await.unwrap().expect("committed in the end");
    assert_eq!(*scene.store.health().borrow(), Health::Healthy);
    sound(&scene.store);
}

#[tokio::test]
async fn a_refused_row_takes_nothing_from_the_batches_of_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let twice = || {
        let row = Row {
            write: 0,
            values: vec![Value::Text("a".into()), Value::Null, Value::Null],
        };
        Outcome::Rows(vec![row])
    };
    // While another process holds the lock, all of them come to wait, and go into one transaction.
    let other = rusqlite::Connection::open(scene.store.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut answers = Vec::new();
    for (after, outcomes) in [
        (0, vec![order("a", 1), note(2)]),
        (2, vec![twice(), order("b", 1)]),
        (4, vec![order("c", 1), twice()]),
        (6, vec![note(7)]),
    ] {
        answers.push(
            scene
                .store
                .begin_commit(scene.batch(after, outcomes))
                .await
                .unwrap(),
        );
    }
    other.execute_batch("ROLLBACK").unwrap();
    let mut refused = Vec::new();
    for answer in answers {
        refused.push(answer.await.unwrap().expect("committed").refused.len());
    }
    assert_eq!(refused, [0, 1, 1, 0]);
    assert_eq!(scene.query("SELECT id FROM orders ORDER BY id"), "a; b; c");
    assert_eq!(
        scene.query("SELECT messages, projected, dead FROM _lantern_ledger"),
        "7 5 2"
    );
    sound(&scene.store);
}

#[tokio::test]
async fn additions_to_a_table_are_made_and_other_changes_refused() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, vec![order("a", 1)]))
        .await
        .expect("commit");
    let changed = |change: fn(&mut Manifest)| {
        let mut manifest = orders();
        manifest.version = semver::Version::new(2, 0, 0);
        change(&mut manifest);
        adoption(manifest)
    };
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
        .adopt(more)
        .await
        .expect("a nullable column and an index");
    assert_ne!(adopted.version, scene.plugin.version);
    assert_eq!(scene.query("SELECT id, tax FROM orders"), "a null");
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
        let refused = scene.store.adopt(change).await.expect_err(words);
        assert!(
            refused.to_string().contains(words),
            "{words:?} is not in {refused}"
        );
    }
    sound(&scene.store);
}

#[tokio::test]
async fn old_rows_of_a_table_with_retention_go_and_are_counted() {
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
        .expire(table, Timestamp(2 * DAY_US))
        .await
        .expect("expire");
    assert_eq!(removed, 2);
    assert_eq!(scene.query("SELECT n FROM notes"), (2 * DAY_US).to_string());
    sound(&scene.store);
}

#[tokio::test]
async fn check_finds_what_was_done_by_hand() {
    for (harm, words) in [
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
            "PRAGMA foreign_keys = OFF; UPDATE _lantern_ledger SET plugin_version = 77",
            "broken reference: _lantern_ledger row 1 refers to a missing row of _lantern_plugin",
        ),
        (
            "DROP INDEX orders__origin",
            "orders: table orders has no unique index (_origin, _sequence, _row)",
        ),
        (
            "DROP INDEX notes__at__index",
            "orders: table notes has no index (at); remedy: start the host, which creates it",
        ),
        (
            "DROP INDEX _lantern_gap_origin",
            "index _lantern_gap_origin is missing; remedy: stop the host and run in SQLite: CREATE INDEX",
        ),
        ("DROP TABLE notes", "orders: table notes is missing"),
        (
            "INSERT INTO _lantern_gap VALUES (1, 1, 2, 3, 1, 'x', 0)",
            "gaps of 2 messages recorded, 0 in the ledger",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::open(dir.path()).await;
        let dead = Outcome::Reject(Rejection::new(RejectionClass::Invalid, "x"));
        scene
            .store
            .commit(scene.batch(0, vec![note(1), note(2), note(3), dead]))
            .await
            .expect("commit");
        sound(&scene.store);
        rusqlite::Connection::open(scene.store.path())
            .unwrap()
            .execute_batch(harm)
            .unwrap();
        let problems = check(scene.store.path()).expect("check").problems;
        assert!(
            problems.iter().any(|problem| problem.to_string().contains(words)),
            "{harm}: {problems:?}"
        );
    }
}

#[tokio::test]
async fn check_names_what_it_cannot_verify() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let all = || {
        let report = check(scene.store.path()).unwrap();
        [report.unverified_values(), report.unverified].concat()
    };
    assert_eq!(all().len(), 1, "only the merging table: {:?}", all());
    let outcomes = vec![note(1), Outcome::Skip, order("a", 1)];
    scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    let table = scene.plugin.manifest.tables[1].clone();
    scene.store.expire(table, Timestamp::now()).await.unwrap();
    let report = check(scene.store.path()).unwrap();
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
        .map(|table| (table.table.as_str(), table.rows, table.expired))
        .collect();
    assert_eq!(counts, [("notes", 0, 1), ("orders", 1, 0)]);

    // A row deleted from a table whose writes merge is missed by its number.
    let connection = rusqlite::Connection::open(scene.store.path()).unwrap();
    connection.execute("DELETE FROM orders", []).unwrap();
    let problems = check(scene.store.path()).unwrap().problems;
    assert!(problems[0].problem.contains("1 row is missing"), "{problems:?}");
}

#[tokio::test]
async fn check_refuses_a_database_of_another_version_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let connection = rusqlite::Connection::open(scene.store.path()).unwrap();
    let known: i64 = connection
        .query_row("SELECT max(version) FROM _sqlx_migrations", [], |row| row.get(0))
        .unwrap();
    let set = |version: i64| {
        let sql = "UPDATE _sqlx_migrations SET version = ?1 WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
        connection.execute(sql, [version]).unwrap();
        check(scene.store.path()).unwrap_err().to_string()
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
async fn a_damaged_database_is_refused_at_start() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, (0..500).map(note).collect()))
        .await
        .expect("commit");
    let path = scene.store.path().to_owned();
    scene.store.close().await;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for page in 3..20 {
        file.write_all_at(&[0xff; 64], page * 4096 + 8).unwrap();
    }
    let refused = Store::open(Config::new(dir.path()))
        .await
        .err()
        .expect("it is damaged");
    assert!(
        matches!(refused, OpenError::Damaged { .. } | OpenError::Database { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn closing_waits_for_what_was_handed_over() {
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
