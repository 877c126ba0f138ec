//! Questions in SQL to a PostgreSQL server: what they may read, and their limits.

use std::time::Duration;

use super::*;
use crate::reader::{Reader, SqlAnswer, SqlError};
use crate::testing::new_server_database;

async fn scene() -> Option<(tempfile::TempDir, Scene, Reader)> {
    let server = new_server_database().await?;
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::at(dir.path(), orders(), Some(server)).await;
    let outcomes = (0..50)
        .map(|number| order(&format!("o{number}"), number))
        .collect();
    scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    let reader = Reader::open_at(scene.store.location(), crate::reader::ReadLimits::default())
        .await
        .unwrap();
    Some((dir, scene, reader))
}

async fn answer(reader: &Reader, question: &str) -> SqlAnswer {
    let answer = reader.sql(question, 20).await;
    answer.unwrap_or_else(|error| panic!("{question}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_reads_tables_of_plugins() {
    let Some((_dir, _scene, reader)) = scene().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let found = answer(
        &reader,
        "SELECT id, total, at FROM orders ORDER BY total DESC LIMIT 2;",
    )
    .await;
    assert_eq!(found.columns, ["id", "total", "at"]);
    let row = |id: &str, total| vec![Value::Text(id.into()), Value::Integer(total), Value::Null];
    assert_eq!(found.rows, [row("o49", 49), row("o48", 48)]);
    assert!(!found.truncated);
    let all = answer(&reader, "SELECT * FROM orders").await;
    assert_eq!((all.rows.len(), all.truncated), (20, true));
    let types = answer(
        &reader,
        "SELECT 1 = 1, 1.5, 2.0::float8, 'a', '\\x01ff'::bytea, to_timestamp(0) AT TIME ZONE 'UTC',
             '{\"a\": 1}'::jsonb, ARRAY[1, 2], sum(total), 'NaN'::float8 FROM orders",
    )
    .await;
    assert_eq!(
        types.rows,
        [[
            Value::Integer(1),
            Value::Real(1.5),
            Value::Real(2.0),
            Value::Text("a".into()),
            Value::Blob(vec![1, 255]),
            Value::Text("1970-01-01 00:00:00".into()),
            Value::Text("{\"a\": 1}".into()),
            Value::Text("{1,2}".into()),
            Value::Integer(1_225),
            Value::Text("NaN".into()),
        ]]
    );
    let grouped = answer(
        &reader,
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3)
         SELECT i, count(*) FILTER (WHERE total % 4 = i) FROM n, orders GROUP BY i ORDER BY i",
    )
    .await;
    assert_eq!(grouped.rows.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_reaches_nothing_else_and_changes_nothing() {
    let Some((_dir, scene, reader)) = scene().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    for question in [
        "SELECT * FROM _lantern_token",
        "SELECT * FROM lantern._lantern_token",
        "SELECT * FROM \"_lantern_audit\"",
        "TABLE _lantern_token",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_catalog.pg_shadow",
        "SELECT * FROM information_schema.tables",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT set_config('role', 'postgres', false)",
        "SELECT query_to_xml('SELECT * FROM lantern._lantern_token', true, true, '')",
        "SELECT table_to_xml('lantern._lantern_token', true, true, '')",
        "SELECT lo_create(7)",
        "SELECT nextval('orders__rowid__seq')",
        "SELECT 1; DELETE FROM orders",
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
        "SELECT * INTO copied FROM orders",
        "SELECT id FROM orders FOR UPDATE",
        "DELETE FROM orders",
        "DROP TABLE orders",
        "COPY orders TO '/tmp/orders'",
        "SELECT 1) AS q (c0) UNION SELECT name FROM (SELECT 1 AS name",
        "SELECT",
        "SELECT x FROM orders",
        "SELECT 1/0",
    ] {
        let refused = reader.sql(question, 20).await;
        assert!(
            matches!(refused, Err(SqlError::Refused(_))),
            "{question}: {refused:?}"
        );
    }
    assert_eq!(scene.query("SELECT count(*) FROM orders"), "50");
    assert_eq!(
        scene.query("SELECT count(*) FROM pg_class WHERE relname = 'copied'"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_bounded_in_time_and_bytes() {
    let Some((_dir, scene, reader)) = scene().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let refused = reader.sql(endless, 20).await;
    assert!(matches!(refused, Err(SqlError::TimeLimit { .. })), "{refused:?}");
    let doubled =
        "WITH RECURSIVE n (i, x) AS (SELECT 1, 'ab' UNION ALL SELECT i + 1, x || x FROM n WHERE i < 22)
         SELECT x FROM n ORDER BY i DESC";
    let refused = reader.sql(doubled, 20).await;
    assert!(matches!(refused, Err(SqlError::Refused(_))), "{refused:?}");
    let large = format!("{} LIMIT 20 OFFSET 2", doubled.replace("22", "20"));
    let answer = answer(&reader, &large).await;
    assert!(answer.rows.len() > 10, "{}", answer.rows.len());
    // A caller that is gone frees its place, and the server ends the statement.
    for _ in 0..5 {
        let question = reader.sql(endless, 20);
        drop(tokio::time::timeout(Duration::from_millis(30), question).await);
    }
    let running = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'lantern-sql'";
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while scene.query(running) != "0" {
        assert!(std::time::Instant::now() < deadline, "a statement continues");
        tokio::task::yield_now().await;
    }
}
