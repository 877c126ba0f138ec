//! Both engines store the same rows from the same batches and answer the same queries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::reader::{RowQuery, Selection, Sort};
use crate::testing::{Random, end_sessions, new_server_database, plugin_of};
use lantern_model::schema::{
    ColumnType, DeclaredRole, Manifest, Merge, RawColumn, RawGuard, RawOnConflict, RawTable, RawWrite,
    TableName,
};

/// The columns of each table: every type and role.
fn columns() -> Vec<RawColumn> {
    let column = |name: &str, column_type, role| RawColumn {
        name: name.into(),
        column_type,
        nullable: name != "id",
        role,
        doc: String::new(),
        hints: Vec::new(),
    };
    vec![
        column("id", ColumnType::Text, DeclaredRole::Entity),
        column("at", ColumnType::Timestamp, DeclaredRole::Time),
        column("kind", ColumnType::Text, DeclaredRole::Facet),
        column("replaced", ColumnType::Json, DeclaredRole::None),
        column("kept", ColumnType::Blob, DeclaredRole::None),
        column("filled", ColumnType::Text, DeclaredRole::None),
        column("whole", ColumnType::Integer, DeclaredRole::None),
        column("real", ColumnType::Real, DeclaredRole::None),
        column("least", ColumnType::Integer, DeclaredRole::None),
        column("greatest", ColumnType::Text, DeclaredRole::None),
    ]
}

/// A table for each kind of write: inserted once, ignored if present, and merged in every way.
fn every_write() -> Manifest {
    let names: Vec<String> = columns().iter().map(|column| column.name.clone()).collect();
    let table = |name: &str, key: &[&str]| RawTable {
        name: name.into(),
        columns: columns(),
        primary_key: key.iter().map(|name| (*name).to_owned()).collect(),
        ..RawTable::default()
    };
    let write = |table: &str, on_conflict| RawWrite {
        table: table.into(),
        columns: names.clone(),
        on_conflict,
    };
    let merges = [
        ("replaced", Merge::Replace),
        ("kept", Merge::Keep),
        ("filled", Merge::Fill),
        ("whole", Merge::Add),
        ("real", Merge::Add),
        ("least", Merge::Min),
        ("greatest", Merge::Max),
    ];
    plugin_of(
        vec![
            table("added", &[]),
            table("ignored", &["id"]),
            table("merged", &["id"]),
        ],
        vec![
            write("added", RawOnConflict::Fail),
            write("ignored", RawOnConflict::Ignore),
            write(
                "merged",
                RawOnConflict::Update {
                    key: vec!["id".into()],
                    merges: merges.map(|(name, merge)| (name.to_owned(), merge)).to_vec(),
                    guard: RawGuard::Always,
                },
            ),
        ],
    )
}

impl Random {
    fn row(&mut self) -> Row {
        let maybe = |random: &mut Self, value: Value| match random.below(4) {
            0 => Value::Null,
            _ => value,
        };
        let number = self.below(1_000);
        let whole = match self.below(40) {
            // Two of them are out of range, and so is the message that adds the second.
            0 => i64::MAX / 2 + 2,
            _ => number,
        };
        let values = vec![
            Value::Text(format!("{}", self.below(30))),
            Value::Timestamp(Timestamp(1_000_000 * self.below(100_000))),
            Value::Text(["a", "ä", "B", ""][self.below(4) as usize].to_owned()),
            Value::Json(format!("{{\"n\": {number}, \"n\": 1e400}}")),
            Value::Blob(vec![0, number as u8]),
            Value::Text(format!("text {number}")),
            Value::Integer(whole),
            // Sums of quarters are exact in any order.
            Value::Real(number as f64 / 4.0),
            Value::Integer(-number),
            Value::Text(format!("{number}")),
        ];
        let (id, others) = values.split_first().expect("an id");
        let others: Vec<Value> = others.iter().map(|value| maybe(self, value.clone())).collect();
        Row {
            write: self.below(3) as u32,
            values: std::iter::once(id.clone()).chain(others).collect(),
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(10) {
            0 => Outcome::Skip,
            1 => Outcome::Reject(Rejection::new(RejectionClass::Malformed, "no event")),
            _ => Outcome::Rows((0..=self.below(3)).map(|_| self.row()).collect()),
        }
    }
}

const DUMPS: [&str; 6] = [
    "SELECT _origin, _sequence, _row, id, at, kind, replaced, kept, filled, whole, real, least, greatest FROM added ORDER BY 2, 3",
    "SELECT _origin, _sequence, _row, id, at, kind, replaced, kept, filled, whole, real, least, greatest FROM ignored ORDER BY id",
    "SELECT _origin, _sequence, _row, id, at, kind, replaced, kept, filled, whole, real, least, greatest FROM merged ORDER BY id",
    "SELECT first_sequence, last_sequence, messages, projected, skipped, dead, rows, changed, inserted, updated FROM _lantern_ledger",
    "SELECT sequence, class, subject, headers, attempts, state FROM _lantern_dead_letter ORDER BY sequence",
    "SELECT sequence, published_ns FROM _lantern_checkpoint",
];

/// All pages of a table in both orders of a column.
async fn pages(scene: &Scene, table: &str, column: Option<usize>) -> Vec<(String, Vec<Value>)> {
    let reader = scene.store.reader();
    let shape = reader
        .shape(&TableName::parse(table).unwrap())
        .await
        .unwrap()
        .unwrap();
    let mut found = Vec::new();
    for descending in [false, true] {
        let mut after = None;
        loop {
            let query = RowQuery {
                selection: Selection::default(),
                sort: Sort { column, descending },
                columns: (0..shape.columns.len()).collect(),
                limit: 17,
                after: after.take(),
            };
            let page = reader.rows(&shape, &query).await.unwrap();
            found.extend(page.items.into_iter().map(|row| (row.id.to_string(), row.values)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_store_the_same_rows_and_return_the_same_pages() {
    let Some(server) = new_server_database().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let (file_dir, server_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = Scene::at(file_dir.path(), every_write(), None).await;
    let server = Scene::at(server_dir.path(), every_write(), Some(server)).await;
    let mut random = Random(7);
    let mut through = 0;
    for round in 0..60 {
        let outcomes: Vec<Outcome> = (0..=random.below(60)).map(|_| random.outcome()).collect();
        let in_file = file
            .store
            .commit(file.batch(through, outcomes.clone()))
            .await
            .unwrap();
        let at_server = server
            .store
            .commit(server.batch(through, outcomes.clone()))
            .await
            .unwrap();
        assert_eq!(in_file.counts, at_server.counts, "round {round}");
        assert_eq!(in_file.effects, at_server.effects, "round {round}");
        let refused =
            |refused: &[(u64, String)]| -> BTreeSet<u64> { refused.iter().map(|(at, _)| *at).collect() };
        assert_eq!(
            refused(&in_file.refused),
            refused(&at_server.refused),
            "round {round}"
        );
        through += outcomes.len() as u64;
    }
    for dump in DUMPS {
        assert_eq!(file.query(dump), server.query(dump), "{dump}");
    }
    for table in ["added", "ignored", "merged"] {
        for column in [None, Some(0), Some(1), Some(2), Some(7)] {
            let in_file = pages(&file, table, column).await;
            // The order by arrival is that of the file, not of the messages, where rows are copied.
            let (mut in_file, mut at_server) = (in_file, pages(&server, table, column).await);
            if column.is_none() {
                in_file.sort_by(|one, other| one.0.cmp(&other.0));
                at_server.sort_by(|one, other| one.0.cmp(&other.0));
            }
            assert_eq!(in_file.len(), at_server.len(), "{table} {column:?}");
            assert_eq!(in_file, at_server, "{table} {column:?}");
        }
    }
    let again = file.batch(0, vec![Outcome::Skip]);
    assert!(matches!(
        file.store.commit(again).await,
        Err(CommitError::Stale { .. })
    ));
    let again = server.batch(0, vec![Outcome::Skip]);
    assert!(matches!(
        server.store.commit(again).await,
        Err(CommitError::Stale { .. })
    ));
    file.store.close().await;
    server.store.close().await;
}

/// Commits a batch, and repeats it unless the stored checkpoint shows that it has taken effect, as a session does.
async fn commit_once(scene: &Scene, after: u64, outcomes: &[Outcome]) {
    for _ in 0..100 {
        match scene.store.commit(scene.batch(after, outcomes.to_vec())).await {
            Ok(_) => return,
            Err(CommitError::Stale { found, .. }) => {
                assert_eq!(found, Some(after + outcomes.len() as u64));
                return;
            }
            Err(error) => assert!(matches!(error, CommitError::Unavailable(_)), "{error}"),
        }
    }
    panic!("the server rejects the batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_take_effect_once_although_the_sessions_of_the_server_end() {
    let Some(server) = new_server_database().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let (file_dir, server_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = Scene::at(file_dir.path(), every_write(), None).await;
    let scene = Scene::at(server_dir.path(), every_write(), Some(server)).await;
    let ended = Arc::new(AtomicBool::new(false));
    let ender = tokio::spawn(end_sessions(
        scene.query("SELECT current_database()"),
        Arc::clone(&ended),
    ));
    let mut random = Random(11);
    let mut through = 0;
    for _ in 0..80 {
        let outcomes: Vec<Outcome> = (0..=random.below(40)).map(|_| random.outcome()).collect();
        commit_once(&file, through, &outcomes).await;
        commit_once(&scene, through, &outcomes).await;
        through += outcomes.len() as u64;
    }
    ended.store(true, Ordering::Relaxed);
    assert!(ender.await.unwrap() > 0, "no session was ended");
    for dump in DUMPS {
        assert_eq!(file.query(dump), scene.query(dump), "{dump}");
    }
}
