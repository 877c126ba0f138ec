//! Tests the trace of rows to their messages, and reprocessing after a bad version.

use lantern_model::results::work::{Reprojected, Trace};
use lantern_plugin::Digest;
use lantern_store::RowKey;

use super::*;

impl Scene {
    async fn trace(&self, table: &str, words: &[&str]) -> Result<Trace, LifecycleError> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        self.lifecycle().trace(table, RowKey::parse(&words)).await
    }

    async fn reproject(&self, digest: Digest) -> Result<Reprojected, LifecycleError> {
        self.lifecycle().reproject("evolving", digest, &operator()).await
    }

    /// Returns version, first and last sequence, messages and dead letters of each range.
    fn ledger(&self) -> Vec<String> {
        self.query(
            "SELECT p.version, l.first_sequence, l.last_sequence, l.messages, l.dead FROM _lantern_ledger l
             JOIN _lantern_plugin p ON p.id = l.plugin_version ORDER BY l.origin, l.first_sequence",
        )
    }

    fn rows(&self) -> Vec<String> {
        self.query("SELECT _sequence, n, note FROM evolved ORDER BY _sequence")
    }

    async fn purge(&self, keep_from: u64) {
        let context = self.server.jetstream().await;
        let stream = context.get_stream("EVOLVE").await.unwrap();
        stream.purge().sequence(keep_from).await.unwrap();
    }
}

fn expected(rows: impl IntoIterator<Item = (u64, u64, char)>) -> Vec<String> {
    rows.into_iter()
        .map(|(sequence, n, note)| format!("{sequence}|{n}|{note}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprojection_yields_the_tables_without_the_replaced_version() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.publish(1..=100).await;
    scene.publish((101..=105).map(|n| format!("later {n}"))).await;
    scene.wait_for_checkpoint(105).await;
    // The bad version resolves the dead letters in its own way, and then runs for a while.
    let bad = scene.swap(b'k').await.unwrap();
    assert_eq!(bad.retried.resolved, 5);
    scene.publish(106..=700).await;
    scene.publish(["rubbish"]).await;
    scene.wait_for_checkpoint(701).await;
    scene.swap(b'e').await.unwrap();
    scene.project(702..=800).await;
    let written = scene.lifecycle().work_of("evolving", bad.digest).await.unwrap();
    assert_eq!((written.version.as_str(), written.resolved), ("1.8.0", 5));
    described("VersionWork", &written);
    let range = &written.ranges[0];
    assert_eq!((range.first_sequence, range.last_sequence), (106, 701));
    assert_eq!((range.messages, range.dead, range.row_count), (596, 1, 595));
    assert_eq!(range.row_count_by_table["evolved"], 595);

    let done = scene.reproject(bad.digest).await.unwrap();
    assert_eq!(done.partial, None);
    described("Reprojected", &done);
    assert_eq!(
        (done.messages, done.former_dead_letters, done.messages_gone),
        (601, 5, 0)
    );
    assert_eq!((done.rows_removed, done.inserted), (600, 600));
    let clean = (1..=100)
        .map(|n| (n, n, 'a'))
        .chain((101..=700).map(|n| (n, n, 'e')))
        .chain((702..=800).map(|n| (n, n, 'e')));
    assert_eq!(scene.rows(), expected(clean));
    assert_eq!(scene.ledger(), ["1.0.0|1|105|105|0", "1.3.0|106|800|695|1"]);
    let traced = scene.trace("evolved", &["1:103:0"]).await.unwrap();
    assert_eq!(
        (traced.version.as_deref(), traced.was_dead_letter),
        (Some("1.3.0"), true)
    );
    described("Trace", &traced);
    // Nothing is left to reprocess, and ingestion continues at its position.
    let again = scene.reproject(bad.digest).await.unwrap();
    assert_eq!((again.messages, again.messages_gone), (0, 0));
    scene.project(801..=810).await;
    assert_eq!(scene.ledger()[1], "1.3.0|106|810|705|1");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_reprojection_is_completed_while_messages_arrive() {
    let mut scene = Scene::running(b'a', 50).await;
    let bad = scene.swap(b'f').await.unwrap();
    scene.project(51..=4_000).await;
    scene.rollback().await;
    // Interrupted midway: finished work is kept, and the rest still names the bad version.
    let lifecycle = scene.lifecycle().clone();
    let digest = bad.digest;
    let cut = tokio::spawn(async move { lifecycle.reproject("evolving", digest, &operator()).await });
    scene
        .wait_for_result(
            "some rows are right",
            "SELECT count(*) > 500 FROM evolved WHERE n = _sequence",
            "1",
        )
        .await;
    scene.lifecycle().stop().await;
    let cut = cut.await.unwrap().unwrap();
    assert_eq!(cut.partial.as_deref(), Some("the host is stopping"));
    scene.close().await;
    scene.sound();
    let ledger = scene.ledger();
    assert_eq!(ledger.len(), 2, "{ledger:?}");
    assert!(ledger[1].starts_with("1.4.0|"), "{ledger:?}");

    scene.open().await;
    let publishing = scene.publish(4_001..=6_000);
    let (done, ()) = tokio::join!(scene.reproject(digest), publishing);
    let done = done.unwrap();
    assert_eq!(done.partial, None);
    assert_eq!(cut.messages + done.messages, 3_950);
    scene.wait_for_checkpoint(6_000).await;
    assert_eq!(scene.rows(), expected((1..=6_000).map(|n| (n, n, 'a'))));
    assert_eq!(scene.ledger(), ["1.0.0|1|6000|6000|0"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_names_version_and_message_or_why_it_is_missing() {
    let mut scene = Scene::running(b'a', 20).await;
    let bad = scene.swap(b'f').await.unwrap();
    scene.project(21..=60).await;
    scene.rollback().await;
    let trace = scene.trace("evolved", &["1:30:0"]).await.unwrap();
    assert_eq!((trace.version.as_deref(), trace.sequence), (Some("1.4.0"), 30));
    assert_eq!(trace.digest, Some(bad.digest.to_string()));
    assert_eq!(
        (trace.source.as_str(), trace.stream.as_deref()),
        ("evolve", Some("EVOLVE"))
    );
    assert_eq!((trace.note, column(&trace.row, "n")), (None, 1030.into()));
    let message = trace.message.unwrap();
    assert_eq!(
        (message.subject.as_str(), message.payload_text.as_deref()),
        ("evolve.x", Some("30"))
    );
    assert_eq!(message.found_in, "stream");
    let nowhere = scene.trace("evolved", &["1:99:0"]).await.unwrap_err();
    assert!(matches!(nowhere, LifecycleError::NotFound(_)), "{nowhere}");
    let nowhere = scene.trace("nothing", &["1"]).await.unwrap_err();
    assert!(
        nowhere.to_string().contains("there is no table nothing"),
        "{nowhere}"
    );
    let keyless = scene.trace("evolved", &["30"]).await.unwrap_err();
    assert!(keyless.to_string().contains("ORIGIN:SEQUENCE:ROW"), "{keyless}");

    // Rows whose messages the stream has dropped remain, with their version.
    scene.purge(41).await;
    let gone = scene.trace("evolved", &["1:30:0"]).await.unwrap();
    assert_eq!(gone.message, None);
    assert!(
        gone.message_missing
            .unwrap()
            .contains("no longer in stream EVOLVE")
    );
    let done = scene.reproject(bad.digest).await.unwrap();
    assert_eq!((done.messages, done.messages_gone), (20, 20));
    let clean = (1..=20)
        .map(|n| (n, n, 'a'))
        .chain((21..=40).map(|n| (n, n + 1_000, 'f')))
        .chain((41..=60).map(|n| (n, n, 'a')));
    assert_eq!(scene.rows(), expected(clean));
    assert_eq!(
        scene.ledger(),
        ["1.0.0|1|20|20|0", "1.4.0|21|40|20|0", "1.0.0|41|60|20|0"]
    );
    let again = scene.reproject(bad.digest).await.unwrap();
    assert_eq!((again.messages, again.messages_gone), (0, 20));
    assert!(
        again.notes[0].contains("no longer in the stream"),
        "{:?}",
        again.notes
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reprojected_message_that_is_rejected_becomes_a_dead_letter_and_can_be_retried() {
    let mut scene = Scene::start().await;
    let good = scene.swap(b'e').await.unwrap();
    scene.publish(1..=10).await;
    scene.publish((11..=20).map(|n| format!("later {n}"))).await;
    scene.wait_for_checkpoint(20).await;
    scene.swap(b'a').await.unwrap();
    let done = scene.reproject(good.digest).await.unwrap();
    assert_eq!((done.rows_removed, done.inserted), (20, 10));
    assert_eq!(done.dead, 10);
    assert_eq!(scene.ledger(), ["1.0.0|1|20|20|10"]);
    scene
        .wait("the status knows", |scene| {
            scene.status("evolve").unwrap().dead_letters == 10
        })
        .await;
    let healed = scene.swap(b'e').await.unwrap();
    assert_eq!(healed.retried.resolved, 10);
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["20"]);
    let trace = scene.trace("evolved", &["1:15:0"]).await.unwrap();
    assert_eq!(
        (trace.version.as_deref(), trace.was_dead_letter),
        (Some("1.3.0"), true)
    );
    scene.purge(21).await;
    let kept = scene
        .trace("evolved", &["1:15:0"])
        .await
        .unwrap()
        .message
        .unwrap();
    assert_eq!(
        (kept.found_in.as_str(), kept.payload_text.as_deref()),
        ("dead-letter", Some("later 15"))
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_of_a_merged_row_has_a_note_and_merged_rows_are_not_reprojected() {
    let mut scene = Scene::start().await;
    let sums = scene.swap(b'j').await.unwrap();
    scene.project(1..=10).await;
    let trace = scene.trace("totals", &["even"]).await.unwrap();
    assert_eq!(trace.id.to_string(), "1:10:1");
    assert_eq!(column(&trace.row, "total"), 30);
    assert!(trace.note.unwrap().contains("last message"));
    let refused = scene.trace("totals", &["even", "odd"]).await.unwrap_err();
    assert!(refused.to_string().contains("its keys are (kind)"), "{refused}");
    let active = scene.reproject(sums.digest).await.unwrap_err();
    assert!(active.to_string().contains("is active"), "{active}");
    scene.swap(b'i').await.unwrap();
    let merged = scene.reproject(sums.digest).await.unwrap_err();
    assert!(
        merged.to_string().contains("writes into totals merge rows"),
        "{merged}"
    );
    let unknown = scene.reproject(Digest::of(b"?")).await.unwrap_err();
    assert!(matches!(unknown, LifecycleError::NoVersion { .. }), "{unknown}");
    assert_eq!(scene.ledger(), ["1.7.0|1|10|10|0"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_reprojection_erasure_and_rebuild_ignore_a_changed_creation_time() {
    let mut scene = Scene::start().await;
    let first = scene.swap(b'f').await.unwrap();
    scene.project(1..=20).await;
    scene.swap(b'a').await.unwrap();
    scene.project(21..=30).await;
    // As after a restart of a cluster that changes the creation time of a stream, before the next session has stored the
    // new time.
    let database = rusqlite::Connection::open(scene.dir.path().join("lantern.db")).unwrap();
    database.busy_timeout(LIMIT).unwrap();
    let sql = "UPDATE _lantern_origin SET stream_created_ns = stream_created_ns - 1";
    assert_eq!(database.execute(sql, []).unwrap(), 1);
    let traced = scene.trace("evolved", &["1:5:0"]).await.unwrap();
    assert_eq!(traced.message_missing, None);
    let done = scene.reproject(first.digest).await.unwrap();
    assert_eq!(
        (done.messages, done.messages_gone, &done.partial),
        (20, 0, &None),
        "{done:?}"
    );
    assert_eq!(scene.rows(), expected((1..=30).map(|n| (n, n, 'a'))));
    let request = lantern_lifecycle::ForgetRequest {
        query: Some(lantern_store::forget::ForgetQuery {
            column: "n".into(),
            value: "7".into(),
            tables: Vec::new(),
            plugin: None,
            dead_letters: true,
        }),
        dry_run: false,
        vacuum: None,
    };
    let erased = scene.lifecycle().forget(request, &operator()).await.unwrap();
    assert_eq!(
        (
            erased.streams[0].messages_deleted,
            erased.streams[0].messages_gone
        ),
        (1, 0),
        "{erased:?}"
    );
    let rebuilt = scene.rebuild(lantern_lifecycle::RebuildRequest::default()).await;
    assert_eq!(rebuilt.unwrap().state, RebuildState::Done);
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["29"]);
    scene.close().await;
    scene.sound();
}
