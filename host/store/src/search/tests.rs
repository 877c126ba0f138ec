//! An index finds the same rows as a comparison of all rows, after random changes and at any position.

mod world;

use std::ops::ControlFlow;

use super::indexed_word;
use super::words::for_each_word;
use crate::check;
use crate::forget::Erasure;
use crate::testing::Random;
use crate::{DATABASE_FILE, IndexerState, OriginId};
use lantern_model::batch::{Timestamp, Value};
use world::{World, manifest};

#[tokio::test]
async fn an_index_finds_the_rows_that_a_comparison_of_all_rows_finds() {
    for seed in 1..=2 {
        let mut world = World::new().await;
        let mut random = Random(seed);
        world.set_enabled(true).await;
        for _ in 0..40 {
            match random.below(6) {
                0 | 1 => world.add_random(&mut random, 60).await,
                2 => {
                    let count = 1 + random.below(30);
                    world.add_random(&mut random, count).await;
                }
                3 => delete_some(&world, &mut random).await,
                _ => {
                    for _ in 0..random.below(5) {
                        world.step().await;
                    }
                }
            }
            world.check(&mut random).await;
        }
        world.index_all().await;
        world.check(&mut random).await;
        assert_eq!(problems(&world), [""; 0]);
    }
}

/// What a check of the database reports about full-text indexes.
fn problems(world: &World) -> Vec<String> {
    let problems = check::check(world.scene.store.path().unwrap()).unwrap().problems;
    let of_search = problems.into_iter().map(|problem| problem.problem);
    of_search
        .filter(|problem| problem.contains("full-text") || problem.contains("_lantern_search"))
        .collect()
}

#[tokio::test]
async fn a_check_reports_an_index_that_differs_from_its_rows() {
    let mut world = World::new().await;
    world.set_enabled(true).await;
    world
        .add(
            (0..50)
                .map(|number| row(&format!("id {number}"), "ordinary"))
                .collect(),
        )
        .await;
    world.index_all().await;
    assert_eq!(problems(&world), [""; 0]);
    for (sql, expected) in [
        (
            "DELETE FROM _lantern_search_1 WHERE rowid = 7",
            "1 row without an entry",
        ),
        (
            "INSERT INTO _lantern_search_1 (rowid, words) VALUES (7, 'id'), (70, 'id')",
            "1 row that no longer exist",
        ),
        (
            "DROP TRIGGER _lantern_search_1_deleted",
            "1 missing trigger, so that it misses changes of rows",
        ),
        (
            "UPDATE _lantern_search_1_data SET block = x'0011' WHERE id > 10",
            "_lantern_search_1",
        ),
    ] {
        let connection = rusqlite::Connection::open(world.scene.store.path().unwrap()).unwrap();
        connection.execute_batch(sql).unwrap();
        let found = problems(&world);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{sql}: {found:?}"
        );
    }
    // The first step that reads the damaged part takes the index out of use, and the following ones build another one.
    for number in 0..20 {
        world.add(vec![row(&format!("last {number}"), "ordinary")]).await;
        world.index_all().await;
    }
    assert_eq!(problems(&world), [""; 0]);
    assert_eq!(behind(&world).await, 0);
}

/// Deletes rows by retention, or erases the newest messages, whose row numbers are used again.
async fn delete_some(world: &World, random: &mut Random) {
    if random.one_in(2) {
        let table = manifest().tables[0].clone();
        let day = 24 * 60 * 60 * 1_000_000;
        let now = Timestamp(day + random.below(1 + world.sequence as i64 / 2) * 1_000_000);
        world.scene.store.maintenance().expire(table, now).await.unwrap();
        return;
    }
    let first = world.sequence.saturating_sub(3) + 1;
    let erased = (first..=world.sequence).map(|sequence| Erasure {
        origin: Some(OriginId(world.scene.attached.origin.0)),
        sequence,
        stored: None,
    });
    world.scene.store.erase(erased.collect()).await.unwrap();
}

fn row(id: &str, note: &str) -> [Value; 4] {
    [
        Value::Text(id.into()),
        Value::Text(note.into()),
        Value::Null,
        Value::Timestamp(Timestamp(1)),
    ]
}

async fn behind(world: &World) -> u64 {
    let shape = world.shape("lines").await;
    world
        .reader
        .search_progress(&shape)
        .await
        .unwrap()
        .unwrap()
        .rows_behind
}

#[tokio::test]
async fn the_progress_of_an_index_is_reported_and_survives_a_restart() {
    let mut world = World::new().await;
    let shape = world.shape("lines").await;
    assert_eq!(world.reader.search_progress(&shape).await.unwrap(), None);
    world
        .add((0..100).map(|number| row(&number.to_string(), "x")).collect())
        .await;
    world.set_enabled(true).await;
    assert_eq!(behind(&world).await, 100);
    while behind(&world).await == 100 {
        assert!(world.step().await);
    }
    let before = behind(&world).await;
    assert!(before < 100, "{before}");
    // Another host continues where this one stopped.
    world.state = IndexerState::default();
    world.index_all().await;
    assert_eq!(behind(&world).await, 0);
    world.set_enabled(false).await;
    assert_eq!(world.reader.search_progress(&shape).await.unwrap(), None);
    world.index_all().await;
    assert_eq!(
        world
            .scene
            .query("SELECT count(*) FROM sqlite_schema WHERE name GLOB '_lantern_search_[0-9]*'"),
        "0"
    );
}

#[tokio::test]
async fn erased_words_are_no_longer_in_the_file() {
    let mut world = World::new().await;
    world.set_enabled(true).await;
    for number in 0..30 {
        let rows = (0..40)
            .map(|row_number| row(&format!("{number} {row_number}"), "ordinary"))
            .collect();
        world.add(rows).await;
        world.index_all().await;
    }
    world.add(vec![row("secret", "zebrafish")]).await;
    world.index_all().await;
    world
        .add(
            (0..50)
                .map(|number| row(&format!("later {number}"), "ordinary"))
                .collect(),
        )
        .await;
    world.index_all().await;
    let contains = |world: &World| {
        let path = world
            .scene
            .store
            .path()
            .unwrap()
            .parent()
            .unwrap()
            .join(DATABASE_FILE);
        let bytes = std::fs::read(path).unwrap();
        memchr::memmem::find(&bytes, b"zebrafish").is_some()
    };
    world.reader.close().await;
    assert!(world.scene.store.scrub(false).await.unwrap());
    assert!(contains(&world));
    let erasure = Erasure {
        origin: Some(world.scene.attached.origin),
        sequence: 30 * 40 + 1,
        stored: None,
    };
    world.scene.store.erase(vec![erasure]).await.unwrap();
    world.scene.store.search().purge().await.unwrap();
    assert!(world.scene.store.scrub(true).await.unwrap());
    assert!(!contains(&world));
    assert_eq!(
        world
            .scene
            .query("SELECT count(*) FROM _lantern_search_1('ordinary')"),
        "1250"
    );
}

/// Erasures in several transactions, between which the background job works on the index.
#[tokio::test]
async fn erased_words_are_no_longer_in_the_file_although_merges_were_in_progress() {
    let mut world = World::new().await;
    world.set_enabled(true).await;
    for batch in 0..40 {
        let word = |number: i32| format!("zebra{batch:02}x{number:02}{}", "y".repeat(40));
        let rows = (0..40).map(|number| row(&format!("{batch} {number}"), &word(number)));
        world.add(rows.collect()).await;
        world.index_all().await;
    }
    // The last 20 rows of each batch, from the last batch on.
    for batch in (0..40_u64).rev() {
        let erasures = (21..=40).map(|number| Erasure {
            origin: Some(world.scene.attached.origin),
            sequence: batch * 40 + number,
            stored: None,
        });
        world.scene.store.erase(erasures.collect()).await.unwrap();
        for _ in 0..batch % 4 {
            let step = world.scene.store.search().step(&mut world.state).await;
            step.unwrap();
        }
    }
    world.scene.store.search().purge().await.unwrap();
    world.reader.close().await;
    assert!(world.scene.store.scrub(true).await.unwrap());
    let path = world
        .scene
        .store
        .path()
        .unwrap()
        .parent()
        .unwrap()
        .join(DATABASE_FILE);
    let bytes = std::fs::read(path).unwrap();
    let mut left = Vec::new();
    for batch in 0..40 {
        for number in 0..40 {
            let word = format!("zebra{batch:02}x{number:02}");
            if number >= 20 && memchr::memmem::find(&bytes, word.as_bytes()).is_some() {
                left.push(word);
            }
        }
    }
    assert_eq!(left, [""; 0]);
    let kept = format!(
        "SELECT count(*) FROM _lantern_search_1('zebra07x03{}')",
        "y".repeat(40)
    );
    assert_eq!(world.scene.query(&kept), "1");
}

#[test]
fn fts5_divides_indexed_words_only_at_spaces() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE VIRTUAL TABLE f USING fts5(words, content='', contentless_delete=1, detail=none, tokenize='ascii');
             CREATE VIRTUAL TABLE v USING fts5vocab(f, 'row');",
        )
        .unwrap();
    let mut random = Random(7);
    let letters: Vec<char> = ('\0'..='\u{250}')
        .chain("é̀ßẞİıΣς日本ー٣½ⅷ🙂\u{200d}\u{feff}".chars())
        .collect();
    for round in 0..2_000 {
        let text: String = (0..20)
            .map(|_| letters[random.below(letters.len() as i64) as usize])
            .collect();
        let mut words = Vec::new();
        let all = for_each_word(&text, |word| {
            words.push(indexed_word(word).to_owned());
            ControlFlow::<()>::Continue(())
        });
        assert!(all.is_continue());
        words.sort_unstable();
        words.dedup();
        connection
            .execute("INSERT INTO f (rowid, words) VALUES (1, ?1)", [words.join(" ")])
            .unwrap();
        let found: Vec<String> = connection
            .prepare("SELECT term FROM v ORDER BY term")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(found, words, "{round}: {text:?}");
        for word in &words {
            let count: i64 = connection
                .query_row(
                    "SELECT count(*) FROM f WHERE f MATCH ?1",
                    [format!("\"{word}\"")],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(count, 1, "{word:?}");
        }
        connection
            .execute("INSERT INTO f (f) VALUES ('delete-all')", [])
            .unwrap();
    }
}
