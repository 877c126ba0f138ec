//! Results of a PostgreSQL server are received in portions.

use std::time::{Duration, Instant};

use super::*;
use crate::read_error::ReadError;
use crate::sql::Connection;
use crate::testing::new_server_database;

/// A result of 4 GB.
const LARGE: &str = "SELECT repeat('x', 200000) FROM generate_series(1, 20000)";

async fn scene() -> Option<(tempfile::TempDir, Scene)> {
    let server = new_server_database().await?;
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::at(dir.path(), orders(), Some(server)).await;
    Some((dir, scene))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_may_run_while_the_rows_of_another_one_are_read() {
    let Some((_dir, scene)) = scene().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let sums = scene
        .store
        .reader()
        .snapshot(|connection: &Connection| {
            let mut numbers = connection.prepare("SELECT generate_series(1, 5000)::int8")?;
            let mut rows = numbers.query([])?;
            let (mut sum, mut others) = (0, 0);
            while let Some(row) = rows.next()? {
                let number: i64 = row.get(0)?;
                sum += number;
                if number % 1_000 == 1 {
                    others += connection.query_row("SELECT ?1 + 1", [number], |row| row.get::<_, i64>(0))?;
                }
            }
            Ok::<_, ReadError>((sum, others))
        })
        .await
        .unwrap();
    assert_eq!(sums, (12_502_500, 10_010));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_not_needed_any_more_is_not_received() {
    let Some((_dir, scene)) = scene().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let reader = scene.store.reader();
    let began = Instant::now();
    for _ in 0..3 {
        let length = reader.snapshot(|connection: &Connection| {
            let mut statement = connection.prepare(LARGE)?;
            let mut rows = statement.query([])?;
            let first: String = match rows.next()? {
                Some(row) => row.get(0)?,
                None => String::new(),
            };
            Ok::<_, ReadError>(first.len())
        });
        assert_eq!(length.await.unwrap(), 200_000);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let running = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT repeat%'";
    while scene.query(running) != "0" {
        assert!(began.elapsed() < Duration::from_secs(40), "a statement continues");
        tokio::task::yield_now().await;
    }
    // Later reads use other sessions.
    assert!(!reader.tables().await.unwrap().is_empty());
}
