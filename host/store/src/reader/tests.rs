//! Tests the reader with a real file: what it rejects, and what it limits. The API's tests cover the rest.

use std::time::Instant;

use super::*;
use lantern_model::batch::Timestamp;
use lantern_model::schema::TableName;

/// Ends a test that would not end; far longer than a read takes.
const LIMIT: Duration = Duration::from_secs(60);

fn database(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lantern.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection
        .execute_batch(concat!(
            include_str!("../../../../migrations/0001_host_tables.sql"),
            include_str!("../../../../migrations/0012_segments.sql"),
            include_str!("../../../../migrations/0013_search.sql")
        ))
        .unwrap();
    connection.execute_batch(sql).unwrap();
    (dir, path)
}

#[tokio::test]
async fn a_missing_file_or_other_file_is_rejected_and_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("lantern.db");
    assert!(matches!(
        Reader::open(&missing).await,
        Err(ReadError::Open { .. })
    ));
    assert!(!missing.exists());

    let text = dir.path().join("text");
    std::fs::write(&text, "not a database, ".repeat(1000)).unwrap();
    let error = Reader::open(&text).await.unwrap_err();
    assert!(matches!(error, ReadError::Open { .. }), "{error:?}");
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let (_dir, path) = database("");
    let reader = Reader::open(&path).await.unwrap();
    for sql in [
        "INSERT INTO _lantern_host VALUES ('a', 'b')",
        "DROP TABLE _lantern_host",
        "PRAGMA user_version = 7",
    ] {
        let refused = reader.fetch(sql, Vec::new(), 1, |_| Ok(())).await;
        assert!(matches!(refused, Err(ReadError::Sql(_))), "{sql}: {refused:?}");
    }
}

#[tokio::test]
async fn an_endless_read_is_interrupted_and_its_connection_reused() {
    let (_dir, path) = database("");
    let limits = ReadLimits {
        time: Duration::from_millis(200),
        connections: 1,
        ..ReadLimits::default()
    };
    let reader = Reader::open_with(&path, limits).await.unwrap();
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let error = reader
        .fetch(endless, Vec::new(), 1, |_| Ok(()))
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::TimeLimit { .. }), "{error:?}");

    // The first deadline has passed: the next read needs its own.
    assert!(reader.tables().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dropped_read_returns_its_connection() {
    let (_dir, path) = database("");
    let limits = ReadLimits {
        time: Duration::from_secs(1),
        connections: 1,
        ..ReadLimits::default()
    };
    let reader = Reader::open_with(&path, limits).await.unwrap();
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let read = reader.fetch(endless, Vec::new(), 1, |_| Ok(()));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), read)
            .await
            .is_err()
    );

    let began = Instant::now();
    while reader.tables().await.is_err() {
        assert!(began.elapsed() < LIMIT, "the connection did not come back");
    }
}

#[tokio::test]
async fn a_page_ends_by_its_bytes_and_the_next_one_continues() {
    let description = r#"{"doc":"","columns":[{"name":"body","type":"blob","nullable":false,"role":null,"unit":null,"doc":"","hints":{}}],"primary_key":[],"indexes":[],"retention_days":null,"hints":{}}"#;
    let (_dir, path) = database(&format!(
        "CREATE TABLE big (body BLOB NOT NULL, _origin INTEGER, _sequence INTEGER, _row INTEGER) STRICT;
         INSERT INTO _lantern_table (name, plugin, description, updates) VALUES ('big', 'p', '{description}', 0);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10)
         INSERT INTO big SELECT zeroblob(1000), 1, x, 0 FROM n;"
    ));
    let limits = ReadLimits {
        page_bytes: 2_500,
        ..ReadLimits::default()
    };
    let reader = Reader::open_with(&path, limits).await.unwrap();
    let big = TableName::parse("big").unwrap();
    let shape = reader.shape(&big).await.unwrap().unwrap();
    let (mut after, mut sequences) = (None, Vec::new());
    loop {
        let query = RowQuery {
            selection: Selection::default(),
            sort: Sort {
                column: None,
                descending: false,
            },
            columns: vec![0],
            limit: 100,
            after,
        };
        let page = reader.rows(&shape, &query).await.unwrap();
        assert!(page.items.len() <= 3, "{} rows of 1,000 bytes", page.items.len());
        sequences.extend(page.items.iter().map(|row| row.id.sequence));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(sequences, (1..=10).collect::<Vec<i64>>());
}

#[tokio::test]
async fn dead_letters_are_grouped_within_the_bytes_of_a_page() {
    let (_dir, path) = database(
        "INSERT INTO _lantern_plugin (id, name, version, digest, contract, loaded_at) VALUES (1, 'p', '1', '', '', 0);
         INSERT INTO _lantern_origin (id, plugin, source, epoch, begins_after, reason, began_at)
         VALUES (1, 'p', 's', 0, 0, '', 0);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000)
         INSERT INTO _lantern_dead_letter (origin, sequence, plugin_version, class, reason, subject, published_ns,
             headers, payload, attempts, state, first_at, last_at)
         SELECT 1, x, 1, 'malformed', CASE WHEN x <= 100 THEN 'many ' || hex(zeroblob(x)) ELSE 'one' END, '', 0,
             '[]', x'', 1, 'open', x, x FROM n;",
    );
    let of = async |page_bytes| {
        let limits = ReadLimits {
            page_bytes,
            ..ReadLimits::default()
        };
        let reader = Reader::open_with(&path, limits).await.unwrap();
        let (groups, exact) = reader
            .dead_letter_groups(&DeadLetterFilter::default())
            .await
            .unwrap();
        (groups[0].dead_letters, groups[0].reasons[0].clone(), exact)
    };
    let (dead_letters, first, exact) = of(1 << 20).await;
    assert_eq!((dead_letters, exact), (1_000, true));
    assert_eq!(
        (first.like.as_str(), first.dead_letters, first.last_at),
        ("one", 900, Timestamp(1_000).to_rfc3339())
    );
    // A repeated reason adds no bytes: all of "one", and the newest few of the others.
    let (dead_letters, first, exact) = of(1_000).await;
    assert_eq!((first.dead_letters, exact), (900, false));
    assert!((901..920).contains(&dead_letters), "{dead_letters}");
}

#[tokio::test]
async fn a_description_with_a_hostile_name_never_reaches_sql() {
    let description = r#"{"doc":"","columns":[{"name":"x\"; DROP TABLE _lantern_host; --","type":"text","nullable":false,"role":null,"unit":null,"doc":"","hints":{}}],"primary_key":[],"indexes":[],"retention_days":null,"hints":{}}"#;
    let (_dir, path) = database(&format!(
        "CREATE TABLE t (x TEXT) STRICT;
         INSERT INTO _lantern_table (name, plugin, description, updates) VALUES ('t', 'p', '{description}', 0);"
    ));
    let reader = Reader::open(&path).await.unwrap();
    let error = reader.shape(&TableName::parse("t").unwrap()).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
}

/// A table with one row whose text is long and repetitive, and its shape.
async fn long_text(limits: ReadLimits) -> (tempfile::TempDir, Reader, Shape) {
    let description = r#"{"doc":"","columns":[{"name":"note","type":"text","nullable":false,"role":null,"unit":null,"doc":"","hints":{}}],"primary_key":[],"indexes":[],"retention_days":null,"hints":{}}"#;
    let (dir, path) = database(&format!(
        "CREATE TABLE long (note TEXT NOT NULL, _origin INTEGER, _sequence INTEGER, _row INTEGER) STRICT;
         INSERT INTO _lantern_table (name, plugin, description, updates) VALUES ('long', 'p', '{description}', 0);
         INSERT INTO long SELECT replace(hex(zeroblob(3500000)), '0', 'a'), 1, 1, 0;"
    ));
    let reader = Reader::open_with(&path, limits).await.unwrap();
    let shape = reader
        .shape(&TableName::parse("long").unwrap())
        .await
        .unwrap()
        .unwrap();
    (dir, reader, shape)
}

/// Conditions that are quadratic for a search that compares at every position.
fn hostile(count: usize, test: impl Fn(String) -> Test) -> Selection {
    let condition = |number: usize| Condition {
        column: 0,
        test: test(format!("{}b", "a".repeat(1_000 - number))),
    };
    Selection {
        conditions: (0..count).map(condition).collect(),
        ..Selection::default()
    }
}

/// A query for the first selected row, which reads until it finds one. Counts would end early on a slow machine.
fn first_of(selection: Selection) -> RowQuery {
    RowQuery {
        selection,
        sort: Sort {
            column: None,
            descending: false,
        },
        columns: vec![0],
        limit: 1,
        after: None,
    }
}

#[tokio::test]
async fn a_search_of_a_long_text_takes_linear_time() {
    let (_dir, reader, shape) = long_text(ReadLimits {
        // Far less than a quadratic search takes: 7 MB times 1,000 letters.
        time: Duration::from_secs(20),
        ..ReadLimits::default()
    })
    .await;
    let search = Selection {
        search: Some(SearchQuery::parse(&format!("{}*", "A".repeat(1_000)), |_| None).unwrap()),
        ..Selection::default()
    };
    for (selection, found) in [
        (hostile(1, Test::Lacks), 1),
        (hostile(1, Test::Contains), 0),
        (search, 1),
    ] {
        let page = reader.rows(&shape, &first_of(selection)).await.unwrap();
        assert_eq!(page.items.len(), found);
    }
}

#[tokio::test]
async fn a_search_is_interrupted_within_one_value_and_when_its_caller_is_gone() {
    let (_dir, reader, shape) = long_text(ReadLimits {
        connections: 1,
        ..ReadLimits::default()
    })
    .await;
    // Each condition reads all 7 MB, and only the last one decides. `text` tests how often a search checks the deadline.
    let selection = hostile(50, Test::Lacks);
    let query = first_of(selection.clone());
    let hasty = reader.with_time(Duration::from_millis(1));
    let error = hasty.rows(&shape, &query).await.unwrap_err();
    assert!(matches!(error, ReadError::TimeLimit { .. }), "{error:?}");
    assert_eq!(reader.tables().await.unwrap().len(), 1);

    let patient = reader.with_time(Duration::from_secs(600));
    let abandoned = tokio::time::timeout(Duration::from_millis(50), patient.rows(&shape, &query));
    assert!(abandoned.await.is_err());
    let began = Instant::now();
    while reader.tables().await.is_err() {
        assert!(began.elapsed() < LIMIT, "the connection is still in use");
    }
}

const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";

/// Runs an endless snapshot, and signals its start.
async fn endless(reader: &Reader, started: tokio::sync::oneshot::Sender<()>) -> Result<i64, ReadError> {
    reader
        .long_snapshot(move |connection| {
            started.send(()).unwrap();
            Ok(connection.query_row(ENDLESS, [], |row| row.get(0))?)
        })
        .await
}

#[tokio::test]
async fn releasing_the_pool_interrupts_a_snapshot_and_later_reads_work() {
    let (_dir, path) = database("");
    let reader = Reader::for_host(&Location::Sqlite(path.clone()));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let release = async {
        has_started.await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), reader.release()).await
    };
    let (read, released) = tokio::join!(endless(&reader, started), release);
    released.expect("in time");
    assert!(matches!(read, Err(ReadError::Busy)), "{read:?}");
    assert!(reader.tables().await.unwrap().is_empty());
}

#[tokio::test]
async fn long_snapshots_leave_connections_for_short_reads_and_end_with_their_callers() {
    let (_dir, path) = database("");
    let reader = Reader::for_host(&Location::Sqlite(path.clone()));
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..ReadLimits::HOST.long_reads {
        let (started, has_started) = tokio::sync::oneshot::channel();
        let reader = reader.clone();
        reads.spawn(async move { endless(&reader, started).await });
        has_started.await.unwrap();
    }
    assert!(reader.tables().await.unwrap().is_empty());
    reads.shutdown().await;
    let next = reader.long_snapshot(|_| Ok::<_, ReadError>(()));
    tokio::time::timeout(Duration::from_secs(10), next)
        .await
        .expect("a permit is free")
        .unwrap();
    // Every connection is free again.
    tokio::time::timeout(Duration::from_secs(10), reader.close())
        .await
        .expect("in time");
}

#[tokio::test]
async fn a_snapshot_does_not_see_later_commits() {
    let (_dir, path) = database("CREATE TABLE t (x INTEGER) STRICT; INSERT INTO t VALUES (1)");
    let reader = Reader::for_host(&Location::Sqlite(path.clone()));
    let writer = Connection::open(&path).unwrap();
    let counts = reader
        .snapshot(move |connection| {
            let count = || connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
            let before = count()?;
            writer.execute("INSERT INTO t VALUES (2)", [])?;
            Ok::<_, ReadError>((before, count()?))
        })
        .await
        .unwrap();
    assert_eq!(counts, (1, 1));
}
