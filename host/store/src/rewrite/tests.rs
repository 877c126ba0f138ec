//! Tests that a reprojection keeps the invariants of the ledger after each batch, for random histories of a range.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::testing::{Scene, adoption, config_of, entry, first_epoch, orders};
use crate::{Activation, Commit, Mark, NewGap, OpenDeadLetterFilter};
use lantern_model::batch::{Rejection, RejectionClass, Row, Value};
use lantern_model::schema::{Manifest, OnConflict};

/// A small random generator, so that a seed reproduces a failure.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Only notes, without a key, so that `check` can count each row. The doc makes it another version.
fn notes(doc: &str) -> Manifest {
    let mut manifest = orders();
    manifest.tables.remove(0);
    let mut write = manifest.writes.remove(2);
    write.table = 0;
    manifest.writes = vec![write];
    manifest.doc = doc.to_owned();
    manifest
}

/// Some rows, some of them old enough to expire; or a skip, or a rejection.
fn outcome(dice: &mut Dice, mark: i64, now: Timestamp) -> Outcome {
    let row = |dice: &mut Dice| {
        let at = if dice.roll(4) == 0 { Timestamp(1) } else { now };
        Row {
            write: 0,
            values: vec![Value::Integer(mark), Value::Timestamp(at)],
        }
    };
    match dice.roll(6) {
        0 => Outcome::Skip,
        1 => Outcome::Reject(Rejection::new(RejectionClass::Malformed, "by the dice")),
        rows => Outcome::Rows((0..=rows % 2).map(|_| row(dice)).collect()),
    }
}

/// One row with one of a few keys, which is ignored if it repeats one; or a skip, or a rejection.
fn keyed_outcome(dice: &mut Dice, mark: i64, _: Timestamp) -> Outcome {
    let key = Value::Text(format!("key {}", dice.roll(8)));
    match dice.roll(6) {
        0 => Outcome::Skip,
        1 => Outcome::Reject(Rejection::new(RejectionClass::Malformed, "by the dice")),
        _ => Outcome::Rows(vec![Row {
            write: 0,
            values: vec![key, Value::Integer(mark), Value::Null],
        }]),
    }
}

/// Only orders, with a write that ignores a row whose key exists.
fn keyed(doc: &str) -> Manifest {
    let mut manifest = orders();
    manifest.tables.truncate(1);
    manifest.writes.truncate(1);
    manifest.writes[0].on_conflict = OnConflict::Ignore;
    manifest.doc = doc.to_owned();
    manifest
}

/// The table of a history, and the outcomes of its messages.
#[derive(Clone, Copy)]
struct Kind {
    manifest: fn(&str) -> Manifest,
    outcome: fn(&mut Dice, i64, Timestamp) -> Outcome,
}

const NOTES: Kind = Kind {
    manifest: notes,
    outcome,
};

const KEYED: Kind = Kind {
    manifest: keyed,
    outcome: keyed_outcome,
};

struct Past {
    kind: Kind,
    scene: Scene,
    bad: Adopted,
    good: Adopted,
    /// Sequences that were messages, and the version that handled them.
    handled: BTreeMap<u64, VersionId>,
    last: u64,
}

/// Batches of two versions, with holes, gaps, resolved and discarded dead letters and expired rows.
async fn past(dir: &std::path::Path, dice: &mut Dice, kind: Kind) -> Past {
    let Kind { manifest, outcome } = kind;
    let store = Store::open(config_of(dir).await).await.unwrap();
    let bad = store.plugins().adopt(adoption(manifest("bad"))).await.unwrap();
    let good = store
        .plugins()
        .activate(adoption(manifest("good")), Activation::Activate, None)
        .await
        .unwrap();
    let attached = store.sources().begin_epoch(first_epoch()).await.unwrap();
    let now = Timestamp::now();
    let mut handled = BTreeMap::new();
    let mut after = 0;
    for _ in 0..2 + dice.roll(5) {
        let plugin = if dice.roll(3) == 0 { &good } else { &bad };
        let (entries, gaps) = batch(after, dice, now, outcome);
        let sequence = entries.last().map_or(after, |last| last.delivery.sequence);
        handled.extend(
            entries
                .iter()
                .map(|entry| (entry.delivery.sequence, plugin.version)),
        );
        let commit = Commit {
            origin: attached.origin,
            stamp: attached.origin,
            plugin: plugin.clone(),
            after,
            through: Mark {
                sequence,
                ..Mark::BEGINNING
            },
            entries,
            gaps,
            durable: false,
        };
        store.commit(commit).await.unwrap();
        after = sequence;
    }
    let scene = Scene {
        store,
        plugin: good.clone(),
        attached,
    };
    dead_letters(&scene, &bad, dice, now, outcome).await;
    if dice.roll(2) == 0 {
        let table = good.manifest.tables[0].clone();
        scene.store.maintenance().expire(table, now).await.unwrap();
    }
    Past {
        kind,
        scene,
        bad,
        good,
        handled,
        last: after,
    }
}

/// Messages after a sequence, with holes, of which some are gaps.
fn batch(
    after: u64,
    dice: &mut Dice,
    now: Timestamp,
    outcome: fn(&mut Dice, i64, Timestamp) -> Outcome,
) -> (Vec<Entry>, Vec<NewGap>) {
    let (mut entries, mut gaps) = (Vec::new(), Vec::new());
    let mut sequence = after;
    for _ in 0..1 + dice.roll(6) {
        // A message of another source, or one that is gone.
        let hole = if dice.roll(4) == 0 { 1 + dice.roll(3) } else { 0 };
        if hole > 0 && dice.roll(2) == 0 {
            gaps.push(NewGap {
                first: sequence + 1,
                last: sequence + hole,
                exact: true,
                reason: "gone".into(),
            });
        }
        sequence += hole + 1;
        entries.push(entry(sequence, outcome(dice, 1, now)));
    }
    (entries, gaps)
}

async fn dead_letters(
    scene: &Scene,
    by: &Adopted,
    dice: &mut Dice,
    now: Timestamp,
    outcome: fn(&mut Dice, i64, Timestamp) -> Outcome,
) {
    let open = scene
        .store
        .reader()
        .open_dead_letters(OpenDeadLetterFilter::default(), 0, 100)
        .await;
    for dead_letter in open.unwrap() {
        match dice.roll(3) {
            0 => {
                let entry = Entry {
                    delivery: dead_letter.delivery,
                    outcome: outcome(dice, 2, now),
                };
                let retried = RetriedDeadLetter {
                    id: dead_letter.id,
                    origin: dead_letter.origin,
                    entry,
                };
                scene
                    .store
                    .dead_letters()
                    .record_retries(by.clone(), vec![retried])
                    .await
                    .unwrap();
            }
            1 => {
                let filter = OpenDeadLetterFilter {
                    id: Some(dead_letter.id),
                    ..OpenDeadLetterFilter::default()
                };
                scene.store.dead_letters().discard(filter, None).await.unwrap();
            }
            _ => {}
        }
    }
}

fn sound(scene: &Scene, what: &str) {
    let report = scene.checked();
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
}

/// Reprojects all ranges of the bad version, in batches of any size, and checks after each.
async fn again(past: &Past, gone: &BTreeSet<u64>, dice: &mut Dice, what: &str) {
    let digest = adoption((past.kind.manifest)("bad")).digest;
    let work = past
        .scene
        .store
        .reader()
        .version_work("orders", &digest)
        .await
        .unwrap();
    for span in work.spans {
        let there: Vec<u64> = past
            .handled
            .range(span.first..=span.last)
            .map(|(sequence, _)| *sequence)
            .filter(|sequence| !gone.contains(sequence))
            .collect();
        let mut first = span.first;
        let mut left = &there[..];
        while first <= span.last && !there.is_empty() {
            let batch;
            (batch, left) = left.split_at(left.len().min(1 + dice.roll(4) as usize));
            let through = match batch.last() {
                Some(&last) if !left.is_empty() => last,
                _ => span.last,
            };
            let now = Timestamp::now();
            let entries = batch
                .iter()
                .map(|&sequence| entry(sequence, (past.kind.outcome)(dice, 3, now)))
                .collect();
            let rewrite = Rewrite {
                origin: span.lineage.origin,
                bad: past.bad.version,
                first,
                through,
                entries,
                plugin: past.good.clone(),
            };
            past.scene
                .store
                .reprojections()
                .write(rewrite)
                .await
                .unwrap()
                .expect("the range");
            sound(&past.scene, what);
            rows_match_messages(past, what);
            first = through + 1;
        }
    }
}

#[tokio::test]
async fn the_invariants_hold_after_each_batch() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let dir = tempfile::tempdir().unwrap();
        let past = past(dir.path(), &mut dice, NOTES).await;
        let what = format!("seed {seed}");
        sound(&past.scene, &what);
        // The front of the stream was trimmed, and some messages were deleted individually.
        let trimmed = dice.roll(past.last);
        let gone: BTreeSet<u64> = past
            .handled
            .keys()
            .copied()
            .filter(|&sequence| (sequence <= trimmed && seed % 2 == 0) || (seed % 3 > 0 && dice.roll(5) == 0))
            .collect();
        again(&past, &gone, &mut dice, &what).await;
        let bad = past.bad.version.0;
        for (sequence, version) in &past.handled {
            let made = past.scene.query(&format!(
                "SELECT plugin_version FROM _lantern_ledger
                 WHERE first_sequence <= {sequence} AND last_sequence >= {sequence}"
            ));
            let again = version.0 == bad && !gone.contains(sequence);
            if again {
                assert_eq!(made, past.good.version.0.to_string(), "{what}, {sequence}");
            }
            let rows = past.scene.query(&format!(
                "SELECT DISTINCT n FROM notes WHERE _sequence = {sequence}"
            ));
            assert!(
                rows.is_empty() || (rows == "3") == again,
                "{what}, {sequence}: {rows}"
            );
        }
        // A second run finds nothing to do.
        let rows = past.scene.query("SELECT count(*) FROM notes");
        again(&past, &gone, &mut dice, &what).await;
        assert_eq!(past.scene.query("SELECT count(*) FROM notes"), rows, "{what}");
        resolved_again(&past, &mut dice, &what).await;
        past.scene.store.close().await;
    }
}

/// Where each projected message produced one row, the ledger counts as many rows as projected messages in each range.
fn rows_match_messages(past: &Past, what: &str) {
    if past.good.manifest.writes[0].on_conflict == OnConflict::Ignore {
        let wrong =
            "SELECT first_sequence, projected, rows, changed FROM _lantern_ledger WHERE rows <> projected";
        assert_eq!(past.scene.query(wrong), "", "{what}");
    }
}

#[tokio::test]
async fn ignored_rows_are_counted_with_their_messages() {
    for seed in 0..30 {
        let mut dice = Dice(seed);
        let dir = tempfile::tempdir().unwrap();
        let past = past(dir.path(), &mut dice, KEYED).await;
        let what = format!("seed {seed}");
        rows_match_messages(&past, &what);
        let gone: BTreeSet<u64> = past
            .handled
            .keys()
            .copied()
            .filter(|_| seed % 2 == 0 && dice.roll(5) == 0)
            .collect();
        again(&past, &gone, &mut dice, &what).await;
        resolved_again(&past, &mut dice, &what).await;
        rows_match_messages(&past, &what);
        past.scene.store.close().await;
    }
}

/// Dead letters that the bad version resolved are reprojected.
async fn resolved_again(past: &Past, dice: &mut Dice, what: &str) {
    let (store, bad) = (&past.scene.store, past.bad.version);
    let dead_letters = store
        .reader()
        .dead_letters_resolved_by(bad, 0, 100)
        .await
        .unwrap();
    for dead_letter in dead_letters {
        let outcome = (past.kind.outcome)(dice, 4, Timestamp::now());
        let retried = RetriedDeadLetter {
            id: dead_letter.id,
            origin: dead_letter.origin,
            entry: Entry {
                delivery: dead_letter.delivery,
                outcome,
            },
        };
        let done = store
            .reprojections()
            .write_dead_letters(past.good.clone(), bad, vec![retried])
            .await
            .unwrap();
        assert_eq!(done.messages, 1, "{what}");
        sound(&past.scene, what);
    }
    assert!(
        store
            .reader()
            .dead_letters_resolved_by(bad, 0, 100)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_range_that_changed_or_belongs_to_the_active_version_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    let past = past(dir.path(), &mut dice, NOTES).await;
    let digest = adoption(notes("bad")).digest;
    let work = past
        .scene
        .store
        .reader()
        .version_work("orders", &digest)
        .await
        .unwrap();
    let span = work.spans[0].clone();
    let rewrite = |first, through| Rewrite {
        origin: span.lineage.origin,
        bad: past.bad.version,
        first,
        through,
        entries: Vec::new(),
        plugin: past.good.clone(),
    };
    let store = &past.scene.store;
    for (first, through) in [(span.first + 1, span.last), (span.first, span.last + 1)] {
        assert_eq!(
            store
                .reprojections()
                .write(rewrite(first, through))
                .await
                .unwrap(),
            None
        );
    }
    store
        .plugins()
        .activate(adoption(notes("bad")), Activation::Activate, None)
        .await
        .unwrap();
    assert_eq!(
        store
            .reprojections()
            .write(rewrite(span.first, span.last))
            .await
            .unwrap(),
        None
    );
    past.scene.store.close().await;
}
