//! Tests of segments with a real database.

use crate::sql::Connection;

use super::{OriginTable, Touched};
use crate::check::check;
use crate::testing::{Scene, note, order, orders};
use lantern_model::batch::{Outcome, Row, Timestamp, Value};
use lantern_model::schema::{
    ColumnName, ColumnType, DeclaredRole, Guard, Manifest, Merge, OnConflict, TableName, UpdateRule,
};

#[tokio::test]
async fn a_batch_stores_the_summaries_of_the_segments_that_it_completes() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let first = "0 1023 0 0 1022";
    let all = "0 1023 0 0 1022; 1 1024 0 1023 2046; 2 1024 0 2047 3070";
    // The last row of a segment completes nothing, the first row of the next one does.
    for (after, count, summaries) in [
        (0, 1_000, ""),
        (1_000, 23, ""),
        (1_023, 1, first),
        (1_024, 2_976, all),
        (4_000, 5, all),
    ] {
        let notes = (after..after + count).map(|n| note(n as i64)).collect();
        scene.store.commit(scene.batch(after, notes)).await.unwrap();
        assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
        assert_eq!(
            scene.query("SELECT segment, rows, untimed, time_min, time_max FROM _lantern_segment"),
            summaries
        );
        let notes = TableName::parse("notes").unwrap();
        let counted = scene.store.reader().row_estimate(&notes).await.unwrap();
        assert_eq!((counted.rows, counted.exact), (after + count, true));
    }
    assert_eq!(
        scene.query("SELECT origin, block, segment, first_sequence, last_sequence, rows FROM _lantern_segment_origin LIMIT 2"),
        "1 0 0 1 1023 1023; 1 0 1 1024 2047 1024"
    );
}

#[tokio::test]
async fn check_reports_each_part_of_a_summary_that_does_not_match_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), notes_with_facet()).await;
    let notes = (0..3_000).map(|n| note(n % 3)).collect();
    scene.store.commit(scene.batch(0, notes)).await.unwrap();
    assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
    let connection = Connection::open(scene.store.path().unwrap()).unwrap();
    for damage in [
        "UPDATE _lantern_segment SET rows = rows + 1 WHERE segment = 1",
        "UPDATE _lantern_segment SET time_max = time_max - 1 WHERE segment = 1",
        "DELETE FROM _lantern_segment WHERE segment = 0",
        "UPDATE _lantern_segment_origin SET last_sequence = last_sequence - 1 WHERE segment = 1",
        "UPDATE _lantern_segment_facet SET rows = rows + 1 WHERE segment = 1 AND value = 2",
        "INSERT INTO _lantern_segment SELECT id, 2, 952, 0, 0, 2 FROM _lantern_segments WHERE table_name = 'notes'",
        "INSERT INTO _lantern_segment_facet SELECT id, 'n', 7, 2, 1 FROM _lantern_segments WHERE table_name = 'notes'",
        "DELETE FROM notes WHERE rowid = 2000",
    ] {
        connection
            .execute_batch(&format!("SAVEPOINT damage; {damage}; RELEASE damage"))
            .unwrap();
        let problems = check(scene.store.path().unwrap()).unwrap().problems;
        assert!(
            problems
                .iter()
                .any(|problem| problem.problem.contains("table notes, segment")),
            "{damage}: {problems:?}"
        );
        let mut touched = Touched::default();
        touched.add("notes", 0..=3);
        touched.refresh(&connection).unwrap();
    }
}

/// The table `notes` with a facet, so that its summaries count values.
fn notes_with_facet() -> Manifest {
    let mut manifest = orders();
    manifest.tables[1].columns[0].role = DeclaredRole::Facet;
    manifest
}

/// Whatever happens to the rows, each summary equals a recount: batches with rows that the database rejects, which are
/// then written message by message, expired rows, and a reopened database.
#[tokio::test]
async fn summaries_equal_a_recount_after_random_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::of(dir.path(), notes_with_facet()).await;
    let day = 24 * 60 * 60 * 1_000_000;
    let (mut random, mut after) = (9_u64, 0);
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut refused, mut expired) = (0, 0);
    for round in 0..80 {
        match next(5) {
            0 => {
                let table = scene.plugin.manifest.tables[1].clone();
                let now = Timestamp(day + next(5) as i64);
                expired += scene.store.maintenance().expire(table, now).await.unwrap();
            }
            1 if round % 4 == 0 => {
                scene.store.close().await;
                scene = Scene::of(dir.path(), notes_with_facet()).await;
            }
            _ => {
                let count = [next(3_000), next(40)][next(2) as usize];
                let outcomes = (0..count)
                    .map(|_| match next(400) {
                        0 => order(&format!("o{}", next(20)), 1),
                        1 => Outcome::Skip,
                        value => note((value % 7) as i64),
                    })
                    .collect();
                let committed = scene.store.commit(scene.batch(after, outcomes)).await.unwrap();
                refused += committed.refused.len();
                after += count;
            }
        }
        assert_eq!(
            check(scene.store.path().unwrap()).unwrap().problems,
            [],
            "round {round}"
        );
    }
    assert!(refused > 0 && expired > 0, "{refused} refused, {expired} expired");
}

/// The table `notes` with the key (n, at) and a text column `tag`.
fn tagged_notes(tag: DeclaredRole, on_conflict: OnConflict) -> Manifest {
    let mut manifest = orders();
    let table = &mut manifest.tables[1];
    for column in &mut table.columns {
        column.nullable = false;
    }
    table.primary_key = table.columns.iter().map(|column| column.name.clone()).collect();
    let mut column = table.columns[0].clone();
    column.name = ColumnName::parse("tag").unwrap();
    column.column_type = ColumnType::Text;
    column.role = tag;
    table.columns.push(column);
    manifest.writes[2].columns.push(2);
    manifest.writes[2].on_conflict = on_conflict;
    manifest
}

/// Replaces the tag of a stored row.
fn update_tag(manifest: &Manifest) -> OnConflict {
    OnConflict::Update(UpdateRule {
        key: manifest.tables[1].primary_key.clone(),
        merges: vec![(ColumnName::parse("tag").unwrap(), Merge::Replace)],
        guard: Guard::Always,
    })
}

fn tagged(n: i64, at: i64, tag: &str) -> Outcome {
    let at = Value::Timestamp(Timestamp(at));
    let values = vec![Value::Integer(n), at, Value::Text(tag.into())];
    Outcome::Rows(vec![Row { write: 2, values }])
}

/// The origin of a row is found after the change, so the index on the origin columns exists.
#[tokio::test]
async fn a_version_that_begins_to_update_rows_replaces_segments_by_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), tagged_notes(DeclaredRole::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, n, "old")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    assert_eq!(scene.query("SELECT sum(rows) FROM _lantern_segment"), "2047");
    scene.store.close().await;

    let mut updating = tagged_notes(DeclaredRole::Facet, OnConflict::Ignore);
    updating.writes[2].on_conflict = update_tag(&updating);
    let scene = Scene::of(dir.path(), updating).await;
    let rows = (1_000..5_000).map(|n| tagged(n, n, "new")).collect();
    scene.store.commit(scene.batch(3_000, rows)).await.unwrap();
    assert_eq!(
        scene.query("SELECT tag, count(*) FROM notes GROUP BY tag"),
        "new 4000; old 1000"
    );
    assert_eq!(
        scene.query("SELECT count(*) FROM _lantern_segments WHERE table_name = 'notes'"),
        "0"
    );
    let plan = scene.query("EXPLAIN QUERY PLAN SELECT 1 FROM notes WHERE _origin = 1 AND _sequence = 7");
    assert!(plan.contains("USING COVERING INDEX"), "{plan}");
    assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
}

#[tokio::test]
async fn a_version_that_changes_facets_counts_the_stored_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut after = 0;
    for (role, counts) in [
        (DeclaredRole::None, ""),
        (DeclaredRole::Facet, "even 1536; odd 1535"),
        (DeclaredRole::None, ""),
        (DeclaredRole::Facet, "even 3584; odd 3583"),
    ] {
        let scene = Scene::of(dir.path(), tagged_notes(role, OnConflict::Ignore)).await;
        let rows = (after..after + 2_000)
            .map(|n| tagged(n, n, if n % 2 == 0 { "even" } else { "odd" }))
            .collect();
        scene.store.commit(scene.batch(after as u64, rows)).await.unwrap();
        after += 2_000;
        assert_eq!(
            scene.query("SELECT value, sum(rows) FROM _lantern_segment_facet GROUP BY value"),
            counts
        );
        assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
        scene.store.close().await;
    }
}

/// When the newest rows expire, the next ones get their row numbers, in a segment that had a summary.
#[tokio::test]
async fn a_segment_becomes_the_newest_again_when_the_rows_after_it_are_gone() {
    let day = 24 * 60 * 60 * 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), tagged_notes(DeclaredRole::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, 2 * day - n, "a")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    scene.expire_all(1, Timestamp(3 * day - 499)).await;
    assert_eq!(scene.query("SELECT max(rowid), count(*) FROM notes"), "500 500");
    assert_eq!(scene.query("SELECT segment FROM _lantern_segment"), "");

    let rows = (0..100).map(|n| tagged(n, 3 * day, "b")).collect();
    scene.store.commit(scene.batch(3_000, rows)).await.unwrap();
    assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
    let rows = (0..2_000).map(|n| tagged(n, 4 * day, "c")).collect();
    scene.store.commit(scene.batch(3_100, rows)).await.unwrap();
    assert_eq!(
        scene.query("SELECT segment, rows FROM _lantern_segment"),
        "0 1023; 1 1024"
    );
    assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
}

/// The migration removes the summaries that earlier versions stored for the newest segments.
#[tokio::test]
async fn a_database_of_an_earlier_version_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), tagged_notes(DeclaredRole::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, n, "a")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    let path = scene.store.path().unwrap().to_owned();
    scene.store.close().await;
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE _lantern_segment_open (segments INTEGER NOT NULL, segment INTEGER NOT NULL, \"column\" TEXT NOT NULL,
                 value ANY NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY (segments, segment, \"column\", value)
             ) WITHOUT ROWID, STRICT;
             INSERT INTO _lantern_segment SELECT id, 2, 953, 0, 2047, 2999 FROM _lantern_segments;
             INSERT INTO _lantern_segment_origin SELECT id, 1, 0, 2, 2048, 3000, 953 FROM _lantern_segments;
             INSERT INTO _lantern_segment_open SELECT id, 2, 'tag', 'a', 953 FROM _lantern_segments;
             DELETE FROM _sqlx_migrations WHERE version >= 14",
        )
        .unwrap();
    drop(connection);

    let scene = Scene::of(dir.path(), tagged_notes(DeclaredRole::Facet, OnConflict::Ignore)).await;
    assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
    let rows = (3_000..4_000).map(|n| tagged(n, n, "b")).collect();
    scene.store.commit(scene.batch(3_000, rows)).await.unwrap();
    assert_eq!(
        scene.query("SELECT segment, rows FROM _lantern_segment"),
        "0 1023; 1 1024; 2 1024"
    );
    assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
}

/// Both write the rows to a new file. Row numbers stay, because a table with segments has an index.
#[tokio::test]
async fn summaries_describe_a_compacted_file_and_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), tagged_notes(DeclaredRole::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, n % 5, "a")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    scene.expire_all(1, Timestamp(24 * 60 * 60 * 1_000_000 + 2)).await;
    assert_eq!(scene.query("SELECT count(*) FROM notes"), "1800");

    let connection = Connection::open(scene.store.path().unwrap()).unwrap();
    connection.execute_batch("VACUUM").unwrap();
    assert_eq!(check(scene.store.path().unwrap()).unwrap().problems, []);
    let copy = dir.path().join("copy.db");
    connection
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    assert_eq!(check(&copy).unwrap().problems, []);
}

/// With segments and with an index: no statement that finds rows by origin reads the whole table.
#[tokio::test]
async fn statements_that_find_rows_by_origin_search_segments_or_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), tagged_notes(DeclaredRole::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, n, "a")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    let connection = Connection::open(scene.store.path().unwrap()).unwrap();
    for (name, access) in [
        ("notes", "SEARCH t USING INTEGER PRIMARY KEY"),
        ("orders", "SEARCH t USING INDEX"),
    ] {
        let table = OriginTable::find(&connection, name).unwrap();
        assert_eq!(table.set.is_some(), name == "notes");
        let statements = [
            format!("SELECT t.* {}", table.rows("1", "5", "2000")),
            format!("SELECT {}", table.last_row("1")),
            table
                .sequence_before("1", "2000", 10)
                .unwrap_or_else(|| "SELECT 1".to_owned()),
        ];
        for sql in &statements {
            let plan = scene.query(&format!("EXPLAIN QUERY PLAN {sql}"));
            for part in plan.split("; ") {
                assert!(
                    !part.contains("SCAN t") && !part.contains("SCAN n"),
                    "{sql}: {plan}"
                );
                assert!(!part.contains("SCAN _lantern_segment"), "{sql}: {plan}");
            }
        }
        let plan = scene.query(&format!("EXPLAIN QUERY PLAN {}", statements[0]));
        assert!(plan.contains(access), "{plan}");
    }
    let notes = OriginTable::find(&connection, "notes").unwrap();
    let origin = scene.attached.origin;
    assert_eq!(notes.count(&connection, origin, 5, 2_000).unwrap(), 1_996);
    // The last rows are in the newest segment, which has no summary.
    assert_eq!(notes.count(&connection, origin, 2_000, 2_990).unwrap(), 991);
    assert_eq!(notes.count(&connection, origin, 2_990, 9_000).unwrap(), 11);
    assert_eq!(scene.query(&format!("SELECT {}", notes.last_row("1"))), "3000");
    assert_eq!(
        scene.query(&format!("SELECT t._sequence {}", notes.rows("1", "2999", "9000"))),
        "2999; 3000"
    );
    assert_eq!(notes.origins(&connection).unwrap(), [origin.0]);
    let mut touched = Touched::default();
    assert_eq!(
        notes
            .delete(&connection, origin, (5, 2_000), &mut touched)
            .unwrap(),
        1_996
    );
    touched.refresh(&connection).unwrap();
    assert_eq!(notes.count(&connection, origin, 1, 3_000).unwrap(), 1_004);
}
