//! Tests of segments with a real database.

use rusqlite::Connection;

use super::{OriginTable, Touched};
use crate::check::check;
use crate::testing::{Scene, note, order, orders};
use lantern_model::batch::{Outcome, Row, Timestamp, Value};
use lantern_model::schema::{ColumnName, ColumnType, Guard, Manifest, Merge, OnConflict, Role, UpdateRule};

#[tokio::test]
async fn a_batch_adds_to_the_summaries_of_its_segments() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    for (after, count) in [(0, 1_000), (1_000, 3_000), (4_000, 5)] {
        let notes = (after..after + count).map(|n| note(n as i64)).collect();
        scene.store.commit(scene.batch(after, notes)).await.unwrap();
        assert_eq!(check(scene.store.path()).unwrap().problems, []);
    }
    assert_eq!(
        scene.query("SELECT segment, rows, untimed, time_min, time_max FROM _lantern_segment"),
        "0 1023 0 0 1022; 1 1024 0 1023 2046; 2 1024 0 2047 3070; 3 934 0 3071 4004"
    );
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
    assert_eq!(check(scene.store.path()).unwrap().problems, []);
    let connection = Connection::open(scene.store.path()).unwrap();
    for damage in [
        "UPDATE _lantern_segment SET rows = rows + 1 WHERE segment = 1",
        "UPDATE _lantern_segment SET time_max = time_max - 1 WHERE segment = 1",
        "DELETE FROM _lantern_segment WHERE segment = 0",
        "UPDATE _lantern_segment_origin SET last_sequence = last_sequence - 1 WHERE segment = 1",
        "UPDATE _lantern_segment_facet SET rows = rows + 1 WHERE segment = 1 AND value = 2",
        "UPDATE _lantern_segment_open SET value = 7 WHERE value = 2",
        "DELETE FROM notes WHERE rowid = 2000",
    ] {
        connection
            .execute_batch(&format!("SAVEPOINT damage; {damage}; RELEASE damage"))
            .unwrap();
        let problems = check(scene.store.path()).unwrap().problems;
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
    manifest.tables[1].columns[0].role = Role::Facet;
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
    for round in 0..60 {
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
                let count = next(3_000);
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
        assert_eq!(check(scene.store.path()).unwrap().problems, [], "round {round}");
    }
    assert!(refused > 0 && expired > 0, "{refused} refused, {expired} expired");
}

/// The table `notes` with the key (n, at) and a text column `tag`.
fn tagged_notes(tag: Role, on_conflict: OnConflict) -> Manifest {
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
    let scene = Scene::of(dir.path(), tagged_notes(Role::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, n, "old")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    assert_eq!(scene.query("SELECT sum(rows) FROM _lantern_segment"), "3000");
    scene.store.close().await;

    let mut updating = tagged_notes(Role::Facet, OnConflict::Ignore);
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
    assert_eq!(check(scene.store.path()).unwrap().problems, []);
}

#[tokio::test]
async fn a_version_that_changes_facets_counts_the_stored_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut after = 0;
    for (role, counts) in [
        (Role::None, ""),
        (Role::Facet, "even 2000; odd 2000"),
        (Role::None, ""),
        (Role::Facet, "even 4000; odd 4000"),
    ] {
        let scene = Scene::of(dir.path(), tagged_notes(role, OnConflict::Ignore)).await;
        let rows = (after..after + 2_000)
            .map(|n| tagged(n, n, if n % 2 == 0 { "even" } else { "odd" }))
            .collect();
        scene.store.commit(scene.batch(after as u64, rows)).await.unwrap();
        after += 2_000;
        let both = "SELECT value, rows FROM _lantern_segment_open UNION ALL SELECT value, rows FROM _lantern_segment_facet";
        assert_eq!(
            scene.query(&format!("SELECT value, sum(rows) FROM ({both}) GROUP BY value")),
            counts
        );
        assert_eq!(check(scene.store.path()).unwrap().problems, []);
        scene.store.close().await;
    }
}

/// When the newest rows expire, the next ones get their row numbers, in a segment that was closed.
#[tokio::test]
async fn a_closed_segment_opens_again_when_the_rows_after_it_are_gone() {
    let day = 24 * 60 * 60 * 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), tagged_notes(Role::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, 2 * day - n, "a")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    scene.expire_all(1, Timestamp(3 * day - 499)).await;
    assert_eq!(scene.query("SELECT max(rowid), count(*) FROM notes"), "500 500");

    let rows = (0..100).map(|n| tagged(n, 3 * day, "b")).collect();
    scene.store.commit(scene.batch(3_000, rows)).await.unwrap();
    assert_eq!(scene.query("SELECT segment, rows FROM _lantern_segment"), "0 600");
    assert_eq!(check(scene.store.path()).unwrap().problems, []);
    let rows = (0..2_000).map(|n| tagged(n, 4 * day, "c")).collect();
    scene.store.commit(scene.batch(3_100, rows)).await.unwrap();
    assert_eq!(check(scene.store.path()).unwrap().problems, []);
}

/// Both write the rows to a new file. Row numbers stay, because a table with segments has an index.
#[tokio::test]
async fn summaries_describe_a_compacted_file_and_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::of(dir.path(), tagged_notes(Role::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, n % 5, "a")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    scene.expire_all(1, Timestamp(24 * 60 * 60 * 1_000_000 + 2)).await;
    assert_eq!(scene.query("SELECT count(*) FROM notes"), "1800");

    let connection = Connection::open(scene.store.path()).unwrap();
    connection.execute_batch("VACUUM").unwrap();
    assert_eq!(check(scene.store.path()).unwrap().problems, []);
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
    let scene = Scene::of(dir.path(), tagged_notes(Role::Facet, OnConflict::Ignore)).await;
    let rows = (0..3_000).map(|n| tagged(n, n, "a")).collect();
    scene.store.commit(scene.batch(0, rows)).await.unwrap();
    let connection = Connection::open(scene.store.path()).unwrap();
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
