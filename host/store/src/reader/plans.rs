//! Tests that queries use their indexes. There are no statistics, so SQLite's plan for a table of ten million rows is
//! the one for an empty table: these assertions hold for both.

use super::rows::{Key, RowPosition, RowQuery, Sort, plan_of};
use super::selection::{Condition, Selection, Test};
use super::shape::Shape;
use super::*;
use super::{buckets, facets};
use lantern_model::batch::{Timestamp, Value};
use lantern_model::schema::TableName;

const SCHEMA: &str =
    "CREATE TABLE visits (_origin INTEGER NOT NULL, _sequence INTEGER NOT NULL, _row INTEGER NOT NULL,
         pc TEXT NOT NULL, at INTEGER NOT NULL, kind TEXT, note TEXT) STRICT;
     CREATE UNIQUE INDEX visits__origin ON visits (_origin, _sequence, _row);
     CREATE INDEX visits__at ON visits (at);
     CREATE INDEX visits__pc ON visits (pc, at);
     CREATE INDEX visits__kind ON visits (kind, at);";

const DESCRIPTION: &str = r#"{"doc":"","columns":[
    {"name":"pc","type":"text","nullable":false,"role":"entity","unit":null,"doc":"","hints":{}},
    {"name":"at","type":"timestamp","nullable":false,"role":"time","unit":null,"doc":"","hints":{}},
    {"name":"kind","type":"text","nullable":true,"role":"facet","unit":null,"doc":"","hints":{}},
    {"name":"note","type":"text","nullable":true,"role":null,"unit":null,"doc":"","hints":{}}],
    "primary_key":[],"indexes":[],"retention_days":null,"hints":{}}"#;

fn one_of(column: usize, values: &[&str]) -> Condition {
    Condition {
        column,
        test: Test::OneOf {
            values: values
                .iter()
                .map(|value| Value::Text((*value).to_owned()))
                .collect(),
            null: false,
        },
    }
}

/// A database with the table, and the table's shape. The caller keeps the directory.
async fn visits() -> (tempfile::TempDir, crate::sql::Connection, Shape) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lantern.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(concat!(
            include_str!("../../../../migrations/0001_host_tables.sql"),
            include_str!("../../../../migrations/0012_segments.sql"),
            include_str!("../../../../migrations/0013_search.sql")
        ))
        .unwrap();
    text::register(connection.sqlite().unwrap(), Arc::default()).unwrap();
    search_function::register(connection.sqlite().unwrap(), Arc::default()).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection
        .execute(
            "INSERT INTO _lantern_table (name, plugin, description, updates) VALUES ('visits', 'p', ?1, 0)",
            [DESCRIPTION],
        )
        .unwrap();
    let reader = Reader::open(&path).await.unwrap();
    let shape = reader
        .shape(&TableName::parse("visits").unwrap())
        .await
        .unwrap()
        .unwrap();
    (dir, connection, shape)
}

/// Checks the plans of the first page and of the next one.
fn check_page(
    connection: &crate::sql::Connection,
    shape: &Shape,
    what: &str,
    selection: &Selection,
    sort: Option<usize>,
    expected: &str,
) {
    for after in [None, Some(9)] {
        let key = sort.map_or(Key::Null, |_| Key::Integer(7));
        let query = RowQuery {
            selection: selection.clone(),
            sort: Sort {
                column: sort,
                descending: true,
            },
            columns: (0..4).collect(),
            limit: 100,
            after: after.map(|row| RowPosition {
                key: key.clone(),
                row,
            }),
        };
        let (sql, values) = plan_of(shape, &query);
        let plan = explained(connection, &sql, values);
        println!("{what}: {plan}");
        let arrives = sort.is_none() && after.is_some();
        assert!(arrives || plan.contains(expected), "{what}, {after:?}: {plan}");
        let merges = what == "two values of a facet";
        assert!(
            merges || !plan.contains("TEMP B-TREE"),
            "{what}, {after:?}: {plan}"
        );
    }
}

#[tokio::test]
async fn a_page_follows_an_index_and_sorts_nothing() {
    let (_dir, connection, shape) = visits().await;
    let (pc, at, kind, note) = (0, 1, 2, 3);
    let search = Condition {
        column: note,
        test: Test::Contains("x".to_owned()),
    };
    let by_time = Some(at);
    for (what, conditions, from, sort, expected) in [
        ("the first page", vec![], None, by_time, "visits__at"),
        (
            "a jump to a time",
            vec![],
            Some(Timestamp(5)),
            by_time,
            "visits__at (at>?",
        ),
        (
            "one value of a facet",
            vec![one_of(kind, &["a"])],
            None,
            by_time,
            "visits__kind (kind=?",
        ),
        (
            "two values of a facet",
            vec![one_of(kind, &["a", "b"])],
            None,
            by_time,
            "visits__kind (kind=?",
        ),
        (
            "an entity and a facet in a range",
            vec![one_of(kind, &["a"]), one_of(pc, &["b"])],
            Some(Timestamp(5)),
            by_time,
            "visits__pc (pc=? AND at>?",
        ),
        ("a text", vec![search], None, by_time, "visits__at"),
        ("by arrival", vec![one_of(kind, &["a"])], None, None, "SCAN t"),
    ] {
        let selection = Selection {
            conditions,
            from,
            ..Selection::default()
        };
        check_page(&connection, &shape, what, &selection, sort, expected);
    }
}

#[tokio::test]
async fn counting_over_time_follows_ranges_of_an_index() {
    let (_dir, connection, shape) = visits().await;
    let (at, kind) = (1, 2);
    let day = Selection {
        from: Some(Timestamp(0)),
        to: Some(Timestamp(10_000)),
        ..Selection::default()
    };
    let of_kind = Selection {
        conditions: vec![one_of(kind, &["a"])],
        ..day.clone()
    };
    for (what, (sql, values), expected) in [
        (
            "a histogram",
            buckets::plan_of(&shape, &day, at),
            "visits__at (at>? AND at<?)",
        ),
        (
            "a histogram of one kind",
            buckets::plan_of(&shape, &of_kind, at),
            "visits__kind (kind=? AND at>? AND at<?)",
        ),
        (
            "a facet in a range",
            facets::plan_of(&shape, &day, kind),
            "visits__kind (kind=? AND at>? AND at<?)",
        ),
    ] {
        let plan = explained(&connection, &sql, values);
        println!("{what}: {plan}");
        assert!(plan.contains(expected), "{what}: {plan}");
        assert!(!plan.contains("SCAN t "), "{what}: {plan}");
    }
}

/// SQLite's plan for a statement.
fn explained(connection: &crate::sql::Connection, sql: &str, values: Vec<Value>) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let values = values.iter().map(|value| match value {
        Value::Text(text) => rusqlite::types::Value::Text(text.clone()),
        Value::Integer(number) => rusqlite::types::Value::Integer(*number),
        other => panic!("{other:?}"),
    });
    let steps: Vec<String> = statement
        .query_map(crate::sql::from_iter(values), |row| row.get(3))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    steps.join("; ")
}
