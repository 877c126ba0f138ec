//! Erasures on a real database: what goes, what the ledger says of it, and what does not come back.

use super::*;
use crate::commit::{Commit, Entry, NewGap};
use crate::testing::{Scene, entry, note, order};
use lantern_model::batch::{Outcome, Row, Value};

fn query(value: &str) -> ForgetQuery {
    ForgetQuery {
        column: "id".into(),
        value: value.into(),
        tables: Vec::new(),
        plugin: None,
        dead_letters: true,
    }
}

/// Adds up totals by id.
fn sum(id: &str, total: i64) -> Outcome {
    let values = vec![Value::Text(id.into()), Value::Integer(total), Value::Null];
    Outcome::Rows(vec![Row { write: 1, values }])
}

fn stored(sequence: u64) -> StoredMessage {
    StoredMessage {
        stream: "ORDERS".into(),
        stream_created_ns: 1,
        published_ns: i64::try_from(sequence).unwrap() * 1_000_000,
        subject: "orders.new".into(),
    }
}

fn by_stream(sequence: u64) -> Erasure {
    Erasure {
        origin: None,
        sequence,
        stored: Some(stored(sequence)),
    }
}

#[track_caller]
fn sound(scene: &Scene) {
    let report = scene.checked();
    assert_eq!(report.problems, [], "{report:?}");
}

const DEAD_LETTERS: &str =
    "SELECT sequence, state, class, subject, headers, payload FROM _lantern_dead_letter ORDER BY sequence";
const COUNTS: &str =
    "SELECT messages, projected, skipped, dead, missing, rows, inserted FROM _lantern_ledger";

/// A batch with these messages, whose last one ends it.
fn batch(scene: &Scene, entries: Vec<Entry>, gaps: Vec<NewGap>) -> Commit {
    let mut commit = scene.batch(0, Vec::new());
    commit.through.sequence = entries.last().unwrap().delivery.sequence;
    commit.entries = entries;
    commit.gaps = gaps;
    commit
}

#[tokio::test]
async fn rows_go_with_their_message_and_the_ledger_counts_it_as_dead() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let mut both = order("ann", 1);
    if let (Outcome::Rows(rows), Outcome::Rows(more)) = (&mut both, note(7)) {
        rows.extend(more);
    }
    let outcomes = vec![order("bob", 1), both, Outcome::Skip, order("cat", 1)];
    scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    let survey = scene.store.survey_forget(query("ann")).await.unwrap();
    assert_eq!(survey.messages.len(), 1);
    assert_eq!((survey.rows["orders"], survey.rows["notes"]), (1, 1));
    assert_eq!(survey.tables_not_searched, ["notes"]);
    assert_eq!(survey.documents_not_searched, Vec::<String>::new());
    let found = &survey.messages[0];
    let erasure = Erasure {
        origin: Some(found.origin),
        sequence: found.sequence,
        stored: Some(stored(2)),
    };
    for repeated in [false, true] {
        let erased = scene.store.erase(vec![erasure.clone()]).await.unwrap();
        assert_eq!(erased.rows.values().sum::<u64>(), if repeated { 0 } else { 2 });
        assert_eq!(scene.query("SELECT id FROM orders ORDER BY id"), "bob; cat");
        assert_eq!(scene.query("SELECT count(*) FROM notes"), "0");
        assert_eq!(scene.query(DEAD_LETTERS), "2 forgotten forgotten  [] 0 bytes");
        assert_eq!(scene.query(COUNTS), "4 2 1 1 0 2 2");
        sound(&scene);
    }
    // Nothing but a time and a place is known of it.
    let outstanding = scene.store.outstanding_messages(None, 9).await.unwrap();
    assert_eq!((outstanding.len(), outstanding[0].sequence), (1, 2));
    scene.store.note_deleted(outstanding).await.unwrap();
    assert_eq!(scene.store.outstanding_messages(None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn a_message_that_was_not_read_yet_is_no_gap_when_it_is_erased() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    for sequence in [2, 5] {
        scene.store.erase(vec![by_stream(sequence)]).await.unwrap();
    }
    let gap = |first, last| NewGap {
        first,
        last,
        exact: true,
        reason: "gone".into(),
    };
    // The first one is still there, the second one is gone with its neighbour.
    let entries = [1, 2, 3, 6].map(|sequence| entry(sequence, order(&format!("o{sequence}"), 1)));
    let done = scene
        .store
        .commit(batch(&scene, entries.to_vec(), vec![gap(4, 5)]))
        .await
        .unwrap();
    assert_eq!((done.counts.missing, done.counts.dead, done.forgotten), (1, 2, 2));
    assert_eq!(scene.query("SELECT id FROM orders ORDER BY id"), "o1; o3; o6");
    assert_eq!(scene.query(COUNTS), "5 3 0 2 1 3 3");
    assert_eq!(
        scene.query("SELECT first_sequence, last_sequence FROM _lantern_gap"),
        "4 4"
    );
    assert_eq!(
        scene.query(DEAD_LETTERS),
        "2 forgotten forgotten  [] 0 bytes; 5 forgotten forgotten  [] 0 bytes"
    );
    sound(&scene);
    // Another message with the same sequence is another message.
    let mut other = entry(7, order("o7", 1));
    scene.store.erase(vec![by_stream(7)]).await.unwrap();
    other.delivery.published_ns += 1;
    let mut commit = batch(&scene, vec![other], Vec::new());
    commit.after = 6;
    assert_eq!(scene.store.commit(commit).await.unwrap().counts.projected, 1);
}

#[tokio::test]
async fn an_erased_value_is_rejected_in_older_messages_and_accepted_in_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene.store.refuse_value(query("ann"), 2_000_000).await.unwrap();
    let outcomes = vec![order("bob", 1), order("ann", 2), order("ann", 3)];
    let done = scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    assert_eq!((done.counts.projected, done.forgotten), (2, 1));
    assert_eq!(
        scene.query("SELECT id, _sequence FROM orders ORDER BY _sequence"),
        "bob 1; ann 3"
    );
    assert_eq!(scene.query(DEAD_LETTERS), "2 forgotten forgotten  [] 0 bytes");
    let outstanding = scene.store.outstanding_messages(None, 9).await.unwrap();
    assert_eq!(outstanding[0].sequence, 2);
    let stored = scene.query("SELECT hex(digest) FROM _lantern_forgotten_value");
    assert!(stored.len() == 64 && !stored.contains(&hex("ann")), "{stored}");
    sound(&scene);
}

#[tokio::test]
async fn without_its_key_an_erased_value_comes_back_through_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene.store.refuse_value(query("ann"), 2_000_000).await.unwrap();
    scene.store.remove_fact(screen::KEY_FACT).await.unwrap();
    let missing = "the key of the erased values (`forget_key`) is missing in the database";
    let refused = scene
        .store
        .commit(scene.batch(0, vec![order("bob", 1), order("ann", 2)]))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(missing), "{refused}");
    // A new key would leave the former value unprotected.
    let refused = scene
        .store
        .refuse_value(query("cat"), 9_000_000)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(missing), "{refused}");
    assert_eq!(scene.query("SELECT count(*) FROM orders"), "0");
    assert_eq!(
        scene.query("SELECT count(*) FROM _lantern_host WHERE key = 'forget_key'"),
        "0"
    );
    assert_eq!(scene.query("SELECT count(*) FROM _lantern_forgotten_value"), "1");
    // The value holds for no message of this time.
    let mut newer = entry(1, order("ann", 3));
    newer.delivery.published_ns = 3_000_000;
    scene
        .store
        .commit(batch(&scene, vec![newer], Vec::new()))
        .await
        .unwrap();
    assert_eq!(scene.query("SELECT id, total FROM orders"), "ann 3");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

#[tokio::test]
async fn merged_rows_are_removed_from_the_ledger_of_any_range() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let outcomes = vec![sum("ann", 1), sum("bob", 1), sum("ann", 2)];
    scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
    sound(&scene);
    let survey = scene.store.survey_forget(query("ann")).await.unwrap();
    assert!(survey.matches[0].merges);
    let erasures = survey.messages.iter().map(|found| Erasure {
        origin: Some(found.origin),
        sequence: found.sequence,
        stored: None,
    });
    scene.store.erase(erasures.collect()).await.unwrap();
    assert_eq!(scene.query("SELECT id FROM orders"), "bob");
    sound(&scene);
}

#[tokio::test]
async fn a_value_that_fits_no_table_is_rejected_and_not_displayed() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let of = |column: &str, tables: &[&str]| ForgetQuery {
        column: column.into(),
        tables: tables.iter().map(|&table| table.to_owned()).collect(),
        ..query("secret")
    };
    for (query, words) in [
        (
            of("nothing", &[]),
            "no table has a column nothing; tables: notes (n, at), orders (id, total, at)",
        ),
        (
            of("id", &["notes"]),
            "no table has a column id; tables: notes (n, at)",
        ),
        (of("id", &["other"]), "there is no table other"),
        (
            of("total", &[]),
            "the value is not of the type of column total (integer)",
        ),
    ] {
        let error = scene.store.survey_forget(query).await.unwrap_err().to_string();
        assert_eq!(error, words);
    }
}

#[tokio::test]
async fn the_survey_lists_documents_that_it_does_not_search() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = crate::testing::orders();
    manifest.tables[1].columns[0].column_type = lantern_model::schema::ColumnType::Json;
    let scene = Scene::of(dir.path(), manifest).await;
    let mut query = query("ann");
    let survey = scene.store.survey_forget(query.clone()).await.unwrap();
    assert_eq!(survey.documents_not_searched, ["notes.n"]);
    // What the operator excludes is not listed.
    query.tables = vec!["orders".into()];
    let survey = scene.store.survey_forget(query).await.unwrap();
    assert_eq!(survey.documents_not_searched, Vec::<String>::new());
    assert_eq!(survey.tables_not_searched, Vec::<String>::new());
}
