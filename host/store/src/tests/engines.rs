//! Both engines store the same rows from the same batches and answer the same queries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::reader::{RowQuery, Selection, Sort};
use crate::testing::{Random, end_sessions, new_server_database, plugin_of};
use lantern_model::schema::{
    ColumnType, DeclaredRole, Manifest, Merge, RawColumn, RawGuard, RawIndex, RawOnConflict, RawTable,
    RawWrite, TableName,
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

const MERGES: [(&str, Merge); 7] = [
    ("replaced", Merge::Replace),
    ("kept", Merge::Keep),
    ("filled", Merge::Fill),
    ("whole", Merge::Add),
    ("real", Merge::Add),
    ("least", Merge::Min),
    ("greatest", Merge::Max),
];

/// The rule that merges these columns of the row with the same id.
fn merged(merges: &[(&str, Merge)], guard: RawGuard) -> RawOnConflict {
    let merges = merges.iter().map(|(name, merge)| ((*name).to_owned(), *merge));
    RawOnConflict::Update {
        key: vec!["id".into()],
        merges: merges.collect(),
        guard,
    }
}

/// The tables by the name of their writes, of which several can be of one table, with their keys in addition to the id.
fn writes() -> Vec<(&'static str, RawOnConflict)> {
    let all = || merged(&MERGES, RawGuard::Always);
    let counted: Vec<_> = MERGES.into_iter().filter(|(name, _)| *name != "real").collect();
    vec![
        ("added", RawOnConflict::Fail),
        ("ignored", RawOnConflict::Ignore),
        ("merged", all()),
        // Every rule that combines rows of a batch.
        ("counted", merged(&counted, RawGuard::Always)),
        ("kept", merged(&[("kept", Merge::Keep)], RawGuard::Always)),
        ("newest", merged(&MERGES, RawGuard::Newer("at".into()))),
        (
            "once",
            merged(
                &[("at", Merge::Fill), ("whole", Merge::Add)],
                RawGuard::WhileNull("at".into()),
            ),
        ),
        // Several writes of one table, of which one rejects a message if its row is present.
        ("mixed", RawOnConflict::Ignore),
        ("mixed", merged(&counted, RawGuard::Always)),
        (
            "mixed",
            merged(&[("replaced", Merge::Replace)], RawGuard::Newer("whole".into())),
        ),
        ("mixed", RawOnConflict::Fail),
        // Two keys: rows with different ids depend on each other.
        ("double", RawOnConflict::Ignore),
        ("paired", merged(&[("filled", Merge::Replace)], RawGuard::Always)),
        ("strict", RawOnConflict::Fail),
    ]
}

/// A table for each kind of write.
fn every_write() -> Manifest {
    let names: Vec<String> = columns().iter().map(|column| column.name.clone()).collect();
    let mut tables: Vec<RawTable> = Vec::new();
    for (name, _) in writes() {
        if tables.iter().any(|table| table.name == name) {
            continue;
        }
        let second_key = RawIndex {
            columns: vec!["filled".into()],
            unique: true,
        };
        tables.push(RawTable {
            name: name.into(),
            columns: columns(),
            primary_key: Vec::from_iter((name != "added").then(|| "id".to_owned())),
            indexes: Vec::from_iter(["double", "paired"].contains(&name).then_some(second_key)),
            ..RawTable::default()
        });
    }
    let writes = writes().into_iter().map(|(table, on_conflict)| RawWrite {
        table: table.into(),
        columns: names.clone(),
        on_conflict,
    });
    plugin_of(tables, writes.collect())
}

impl Random {
    /// A write. Half of the rows have one of three, so that batches have many rows of a table.
    fn write(&mut self) -> usize {
        let count = writes().len() as i64;
        match self.below(6) {
            0 => 1,
            1 => 3,
            2 => 8,
            _ => self.below(count) as usize,
        }
    }

    fn row(&mut self) -> Row {
        let maybe = |random: &mut Self, value: Value| match random.below(4) {
            0 => Value::Null,
            _ => value,
        };
        let write = self.write();
        // Keys of the tables that reject a message if its row is present seldom repeat.
        let ids = match writes()[write].1 {
            RawOnConflict::Fail => 20_000,
            _ => 30,
        };
        let number = self.below(1_000);
        let whole = match self.below(40) {
            // Two of them are out of range, and so is the message that adds the second.
            0 => i64::MAX / 2 + 2,
            1..10 => -number,
            _ => number,
        };
        let values = vec![
            Value::Text(format!("{}", self.below(ids))),
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
            write: write as u32,
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

const RECORDS: [&str; 3] = [
    "SELECT first_sequence, last_sequence, messages, projected, skipped, dead, rows, changed, inserted, updated FROM _lantern_ledger",
    "SELECT sequence, class, subject, headers, attempts, state FROM _lantern_dead_letter ORDER BY sequence",
    "SELECT sequence, published_ns FROM _lantern_checkpoint",
];

/// Compares all rows and records of two databases.
fn assert_equal(one: &Scene, other: &Scene) {
    let columns: Vec<String> = columns().into_iter().map(|column| column.name).collect();
    let columns = columns.join(", ");
    let tables = one.plugin.manifest.tables.iter().map(|table| {
        format!(
            "SELECT _origin, _sequence, _row, {columns} FROM {} ORDER BY 2, 3, 4",
            table.name
        )
    });
    for dump in tables.chain(RECORDS.map(str::to_owned)) {
        assert_eq!(one.query(&dump), other.query(&dump), "{dump}");
    }
}

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
        let size = if round % 5 == 0 { 600 } else { 60 };
        let outcomes: Vec<Outcome> = (0..=random.below(size)).map(|_| random.outcome()).collect();
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
    assert_equal(&file, &server);
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
    assert_equal(&file, &scene);
}
