//! Property test with random histories, losses and rebuilds: the result matches the ledger, or the rebuild is rejected
//! before it changes anything. `LANTERN_REBUILD_SEED` and `LANTERN_REBUILD_ROUNDS` select other runs.

use std::collections::{BTreeMap, BTreeSet};

use lantern_lifecycle::RebuildRequest;

use super::rebuild_loss::{by, state};
use super::*;

/// Default number of rounds.
const ROUNDS: u64 = 12;

/// SplitMix64: small, and the same on every platform.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.next(chances) == 0
    }
}

/// Returns the number in an environment variable.
pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns the row (`n` and `note`) that a version projects from the message with this text.
fn row_of(letter: u8, text: &str) -> Option<(i64, String)> {
    let (word, number) = text.split_once(' ').unwrap_or(("", text));
    let n: i64 = number.parse().unwrap();
    let n = if matches!(letter, b'f' | b'k') {
        n + 1_000
    } else {
        n
    };
    let known = word.is_empty() || (word == "later" && matches!(letter, b'e' | b'k'));
    let note = if letter == b'c' {
        n.to_string()
    } else {
        char::from(letter).to_string()
    };
    known.then_some((n, note))
}

/// A history, and the changes made to it.
struct Model {
    texts: Vec<String>,
    /// The version that handled each message.
    handled: Vec<u8>,
    deleted: BTreeSet<u64>,
    first: u64,
}

impl Model {
    fn rows(&self, handled: &[u8]) -> Vec<String> {
        let mut rows = BTreeMap::new();
        for ((sequence, text), letter) in (1_u64..).zip(&self.texts).zip(handled) {
            if let Some((n, note)) = row_of(*letter, text) {
                rows.insert(sequence, format!("{sequence}|{n}|{note}"));
            }
        }
        rows.into_values().collect()
    }

    fn is_whole(&self) -> bool {
        self.first == 1 && self.deleted.is_empty()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_rebuild_yields_the_expected_tables_or_changes_nothing() {
    let seed = number("LANTERN_REBUILD_SEED").unwrap_or(1);
    let rounds = number("LANTERN_REBUILD_ROUNDS").unwrap_or(ROUNDS);
    let (mut done, mut refused) = (0, 0);
    for round in seed..seed + rounds {
        match one_round(&mut Random(round)).await {
            true => done += 1,
            false => refused += 1,
        }
        println!("seed {round}: {done} done, {refused} refused");
    }
}

/// Returns whether the rebuild was completed.
async fn one_round(random: &mut Random) -> bool {
    let mut scene = Scene::start().await;
    let mut model = history(&mut scene, random).await;
    damage(&scene, &mut model, random).await;
    let (letter, request) = request(&scene, random).await;
    let what = format!(
        "{request:?} by {}, first {}, deleted {:?}",
        char::from(letter),
        model.first,
        model.deleted
    );
    let before = state(&scene);
    let rows = "SELECT _sequence, n, note FROM evolved ORDER BY _sequence";
    assert_eq!(scene.query(rows), model.rows(&model.handled), "the model: {what}");

    let merges = !scene
        .query("SELECT 1 FROM _lantern_table WHERE name = 'totals'")
        .is_empty();
    let restart = random.one_in(3);
    let begun = match restart {
        false => scene.rebuild(request.clone()).await.map(|view| vec![view]),
        true => interrupted(&mut scene, request.clone()).await,
    };
    let end = begun
        .as_ref()
        .ok()
        .and_then(|views| views.first().map(|view| view.state));
    if end == Some(RebuildState::Done) {
        let from = request.from_sequence.unwrap_or(1).max(model.first);
        let older = model.handled.clone();
        for (sequence, handled) in (1_u64..).zip(&mut model.handled) {
            if sequence >= from {
                *handled = letter;
            }
        }
        assert_eq!(scene.query(rows), model.rows(&model.handled), "{what}");
        assert!(
            !model.deleted.iter().any(|sequence| *sequence >= from),
            "a deleted message was not noticed: {what}"
        );
        if letter == b'j' {
            assert!(
                from == 1 || !merges,
                "a merging table was rebuilt from a part: {what}"
            );
            let total = format!(
                "SELECT coalesce((SELECT sum(total) FROM totals), 0)
                     = coalesce((SELECT sum(n) FROM evolved WHERE _sequence >= {from}), 0)"
            );
            assert_eq!(scene.query(&total), ["1"], "{what}");
        }
        if request.keep_old_s > 0 && random.one_in(2) {
            roll_back(&scene, &mut model, older, random, &what).await;
            assert_eq!(
                scene.query(rows),
                model.rows(&model.handled),
                "after the rollback: {what}"
            );
        }
    } else {
        assert_eq!(state(&scene), before, "{what}: {begun:?}");
        let asks_nothing = !request.carry_over && request.from_sequence.is_none();
        // Versions that reject messages projected by another version leave rows of `totals` together with their dead
        // letters.
        let leaves = merges && letter != b'j' && !request.drop_undeclared;
        assert!(
            !(model.is_whole() && asks_nothing && !leaves),
            "refused without a reason: {what}: {begun:?}"
        );
    }
    scene.publish([format!("{}", model.texts.len() + 1)]).await;
    scene.wait_for_checkpoint(model.texts.len() as u64 + 1).await;
    scene.close().await;
    scene.sound();
    end == Some(RebuildState::Done)
}

/// Publishes more messages, then rolls back to the replaced tables.
async fn roll_back(scene: &Scene, model: &mut Model, older: Vec<u8>, random: &mut Random, what: &str) {
    let last = older[older.len() - 1];
    model.handled = older;
    let first = model.texts.len();
    for n in first as u64 + 1..=first as u64 + random.next(20) {
        model.texts.push(n.to_string());
        model.handled.push(last);
    }
    scene.publish(&model.texts[first..]).await;
    scene.wait_for_checkpoint(model.texts.len() as u64).await;
    let back = scene.lifecycle().rollback("evolving", &operator()).await;
    let back = back.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(back.restored.is_some(), "{what}");
    let (count, seen) = (model.rows(&model.handled).len(), "SELECT count(*) FROM evolved");
    scene
        .wait("the rows of the version before", |scene| {
            scene.query(seen) == [count.to_string()]
        })
        .await;
}

/// Publishes messages that one version after another handles.
async fn history(scene: &mut Scene, random: &mut Random) -> Model {
    let mut model = Model {
        texts: Vec::new(),
        handled: Vec::new(),
        deleted: BTreeSet::new(),
        first: 1,
    };
    let compatible: &[u8] = if random.one_in(3) { b"j" } else { b"aefik" };
    for _ in 0..=random.next(3) {
        let letter = compatible[random.next(compatible.len() as u64) as usize];
        scene.swap(letter).await.unwrap();
        let count = 20 + random.next(200);
        let first = model.texts.len();
        for n in first as u64 + 1..=first as u64 + count {
            // Only messages that no later version can project; a later version would otherwise retry and handle them.
            let text = if random.one_in(10) {
                format!("never {n}")
            } else {
                n.to_string()
            };
            model.texts.push(text);
            model.handled.push(letter);
        }
        scene.publish(&model.texts[first..]).await;
        scene.wait_for_checkpoint(model.texts.len() as u64).await;
    }
    if random.one_in(2) {
        let filter = lantern_store::OpenDeadLetterFilter::default();
        scene.discard(filter).await;
    }
    model
}

/// Deletes messages from the stream.
async fn damage(scene: &Scene, model: &mut Model, random: &mut Random) {
    let stream = scene.server.jetstream().await.get_stream("EVOLVE").await.unwrap();
    let count = model.texts.len() as u64;
    if random.one_in(2) {
        model.first = 1 + random.next(count);
        stream.purge().sequence(model.first).await.unwrap();
    }
    if random.one_in(3) && model.first < count {
        for _ in 0..=random.next(3) {
            // Neither the first nor the last message; deleting those would only move the ends of the stream.
            let sequence = model.first + 1 + random.next((count - model.first).max(2) - 1);
            if sequence < count && model.deleted.insert(sequence) {
                stream.delete_message(sequence).await.unwrap();
            }
        }
    }
}

async fn request(scene: &Scene, random: &mut Random) -> (u8, RebuildRequest) {
    let letters = b"acefijkl";
    let letter = letters[random.next(letters.len() as u64) as usize];
    scene
        .lifecycle()
        .install(evolving::version(letter), &operator())
        .await
        .unwrap();
    let count: u64 = scene.query("SELECT max(sequence) FROM _lantern_checkpoint")[0]
        .parse()
        .unwrap();
    let request = RebuildRequest {
        carry_over: random.one_in(2),
        from_sequence: random.one_in(3).then(|| 1 + random.next(count)),
        drop_undeclared: random.one_in(2),
        keep_old_s: if random.one_in(2) { 3_600 } else { 0 },
        ..by(letter)
    };
    (letter, request)
}

/// Runs a rebuild with restarts of the host in between.
async fn interrupted(
    scene: &mut Scene,
    request: RebuildRequest,
) -> Result<Vec<lantern_model::results::rebuild::Rebuild>, LifecycleError> {
    let slow = RebuildRequest {
        rate: Some(200),
        ..request
    };
    scene.lifecycle().rebuild("evolving", slow, &operator()).await?;
    scene.close().await;
    scene.open().await;
    scene
        .wait("the end of the rebuild", |scene| {
            scene
                .query("SELECT state FROM _lantern_rebuild WHERE state = 'running'")
                .is_empty()
        })
        .await;
    scene.wait_for_checkpoint(1).await;
    scene.lifecycle().rebuilds().await
}
