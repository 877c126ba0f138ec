//! Tests of segments with a real database.

use rusqlite::Connection;

use super::Touched;
use crate::check::check;
use crate::testing::{Scene, note, order, orders};
use lantern_model::batch::{Outcome, Timestamp};
use lantern_model::schema::{Manifest, Role};

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
