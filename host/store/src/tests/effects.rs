//! The effects of rows: inserted, updated, already present, or rejected by the database.

use super::*;

/// A row that adds a total to the order `id`, if it is newer.
fn added(id: &str, total: i64, at: i64) -> Row {
    let values = vec![
        Value::Text(id.into()),
        Value::Integer(total),
        Value::Timestamp(Timestamp(at)),
    ];
    Row { write: 1, values }
}

#[tokio::test]
async fn a_rejected_row_makes_only_its_message_a_dead_letter() {
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
    let add = |total, at| Outcome::Rows(vec![added("a", total, at)]);
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
    // "a" is inserted with time 5 and updated by 6, but not by the older 5 and 4; "b" is inserted.
    let rows = [
        vec![added("a", 1, 5)],
        vec![added("a", 1, 6), added("a", 1, 5)],
        vec![added("a", 1, 4), added("b", 1, 1)],
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

    // A message that the database rejects counts none of its rows; the rest of its batch counts once.
    let refused = Outcome::Rows(vec![
        added("c", 1, 1),
        Row {
            write: 0,
            values: vec![Value::Text("a".into()), Value::Null, Value::Null],
        },
    ]);
    let outcomes = vec![Outcome::Rows(vec![added("b", 1, 2)]), refused];
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
    let attached = scene
        .store
        .sources()
        .attach("orders", "orders")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((attached.counts.inserted, attached.counts.updated), (2, 2));
    sound(&scene.store);
}

#[tokio::test]
async fn a_sum_out_of_range_is_a_dead_letter_and_never_stores_infinity() {
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
async fn a_sum_below_the_smallest_integer_is_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let add = |total, at| Outcome::Rows(vec![added("a", total, at)]);
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
async fn a_rejected_row_does_not_affect_other_batches_of_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let twice = || {
        let row = Row {
            write: 0,
            values: vec![Value::Text("a".into()), Value::Null, Value::Null],
        };
        Outcome::Rows(vec![row])
    };
    // While another process holds the lock, all of them wait, and go into one transaction.
    let other = rusqlite::Connection::open(scene.store.path().unwrap()).unwrap();
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
