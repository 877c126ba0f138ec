//! Tests erasure of a person's data: rows, dead letters and messages are deleted, nothing restores them, and the checks
//! pass.

use lantern_lifecycle::{ForgetRequest, RebuildRequest};
use lantern_model::results::forget::ForgetReport;
use lantern_plugin::Digest;
use lantern_store::OpenDeadLetterFilter;
use lantern_store::forget::ForgetQuery;

use super::*;

fn erase(column: &str, value: &str) -> ForgetRequest {
    ForgetRequest {
        query: Some(ForgetQuery {
            column: column.into(),
            value: value.into(),
            tables: Vec::new(),
            plugin: None,
            dead_letters: true,
        }),
        dry_run: false,
        vacuum: None,
    }
}

fn outstanding() -> ForgetRequest {
    ForgetRequest {
        query: None,
        dry_run: false,
        vacuum: None,
    }
}

impl Scene {
    async fn forget(&self, request: ForgetRequest) -> ForgetReport {
        let report = self.lifecycle().forget(request, &operator()).await.unwrap();
        described("ForgetReport", &report);
        report
    }

    /// Asserts that check and deep check find nothing.
    async fn clean(&self) {
        self.sound();
        let report = self.check_deep(None).await;
        assert_eq!(report.problems, []);
    }

    /// Returns the database files that contain a text.
    fn files_with(&self, text: &str) -> Vec<String> {
        let files = ["lantern.db", "lantern.db-wal"].into_iter();
        let holds = |file: &&str| {
            let bytes = std::fs::read(self.dir.path().join(file)).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        files.filter(holds).map(str::to_owned).collect()
    }

    async fn stored_messages(&self, stream: &str) -> u64 {
        let context = self.server.jetstream().await;
        let mut stream = context.get_stream(stream).await.unwrap();
        stream.info().await.unwrap().state.messages
    }

    fn sevens(&self) -> Vec<String> {
        self.query("SELECT _sequence FROM evolved WHERE n IN (7, 1007)")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_rows_and_messages_are_not_restored_by_rebuild_and_reprojection() {
    let mut scene = Scene::start().await;
    let first = scene.swap(b'a').await.unwrap().digest;
    scene.publish((1..=20).chain([7])).await;
    scene.wait_for_checkpoint(21).await;
    // A dry run lists everything and changes nothing.
    let before = rebuild_loss::state(&scene);
    let planned = scene
        .forget(ForgetRequest {
            dry_run: true,
            ..erase("n", "7")
        })
        .await;
    assert_eq!(
        (planned.messages, planned.streams[0].messages_deleted),
        (2, 2),
        "{planned:?}"
    );
    assert_eq!(
        (planned.tables[0].rows_matching, planned.tables[0].rows_removed),
        (2, 2)
    );
    assert_eq!(rebuild_loss::state(&scene), before);
    assert_eq!(scene.stored_messages("EVOLVE").await, 21);

    // The second message is the last one of the stream, and the checkpoint.
    let done = scene.forget(erase("n", "7")).await;
    assert_eq!((done.messages, done.tables[0].rows_removed), (2, 2), "{done:?}");
    assert_eq!(
        (done.streams[0].messages_deleted, done.streams[0].messages_left),
        (2, 0),
        "{done:?}"
    );
    assert!(done.log_emptied && done.vacuumed, "{done:?}");
    assert_eq!(scene.stored_messages("EVOLVE").await, 19);
    assert_eq!(scene.sevens(), Vec::<String>::new());
    scene.clean().await;

    scene.rebuilt(RebuildRequest::default()).await;
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["19"]);
    scene.clean().await;
    // Another version reprocesses the messages of the first one.
    scene.swap(b'f').await.unwrap();
    scene
        .lifecycle()
        .reproject("evolving", first, &operator())
        .await
        .unwrap();
    assert_eq!(scene.query("SELECT count(*) FROM evolved WHERE n > 1000"), ["19"]);
    assert_eq!(scene.sevens(), Vec::<String>::new());
    scene.clean().await;
    scene.rebuilt(RebuildRequest::default()).await;
    scene.clean().await;

    // A repeated erasure finds nothing. Later messages are projected.
    assert_eq!(scene.forget(erase("n", "7")).await.messages, 0);
    scene.publish([7]).await;
    scene.wait_for_checkpoint(22).await;
    assert_eq!(scene.sevens(), ["22"]);
    scene.close().await;
    scene.open().await;
    scene.publish([8]).await;
    scene.wait_for_checkpoint(23).await;
    scene.close().await;
    scene.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_contain_the_value_lose_their_content() {
    const WHO: &str = "ann@example.org";
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene
        .publish([format!("{WHO} 5"), "later 6".into(), format!("x{WHO} 1")])
        .await;
    scene
        .publish((4..=300).map(|n| format!("bob{n}@example.org {n}")))
        .await;
    scene.wait_for_checkpoint(300).await;
    assert!(!scene.files_with(WHO).is_empty());
    let done = scene.forget(erase("note", WHO)).await;
    assert_eq!((done.messages, done.dead_letters), (1, 1), "{done:?}");
    assert_eq!(
        scene.query("SELECT state, reason, subject, headers FROM _lantern_dead_letter WHERE sequence = 1"),
        ["forgotten|erased with `lantern forget`||[]"]
    );
    scene.clean().await;
    scene.forget(erase("note", &format!("x{WHO}"))).await;
    assert_eq!(scene.files_with(WHO), Vec::<String>::new());
    // A version that could decode them does not receive them.
    scene.swap(b'e').await.unwrap();
    scene
        .lifecycle()
        .retry_dead_letters(OpenDeadLetterFilter::default(), &operator())
        .await
        .unwrap();
    assert_eq!(scene.query("SELECT n FROM evolved"), ["6"]);
    assert_eq!(scene.stored_messages("EVOLVE").await, 298);
    scene.clean().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_a_stream_does_not_delete_are_reported_and_not_projected_again() {
    let mut scene = Scene::start().await;
    let context = scene.server.jetstream().await;
    context.delete_stream("EVOLVE").await.unwrap();
    let config = async_nats::jetstream::stream::Config {
        deny_delete: true,
        ..crate::nats::stream("EVOLVE", "evolve.>")
    };
    context.create_stream(config).await.unwrap();
    scene.swap(b'a').await.unwrap();
    scene.project(1..=10).await;
    let done = scene.forget(erase("n", "7")).await;
    let stream = &done.streams[0];
    assert_eq!(
        (stream.messages_deleted, stream.messages_left),
        (0, 1),
        "{done:?}"
    );
    assert!(
        stream.reason.is_some() && stream.remedy.as_ref().unwrap().contains("EVOLVE"),
        "{done:?}"
    );
    assert_eq!(scene.stored_messages("EVOLVE").await, 10);
    scene.clean().await;
    scene.rebuilt(RebuildRequest::default()).await;
    assert_eq!(scene.sevens(), Vec::<String>::new());
    scene.clean().await;
    // This holds even after the plugin is removed with all its data and installed again.
    scene.remove(true).await;
    scene.swap(b'a').await.unwrap();
    scene.wait_for_checkpoint(10).await;
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["9"]);
    assert_eq!(scene.sevens(), Vec::<String>::new());
    scene.clean().await;
    // Once the message is purged, nothing is outstanding.
    assert_eq!(scene.forget(outstanding()).await.streams[0].messages_left, 1);
    context
        .get_stream("EVOLVE")
        .await
        .unwrap()
        .purge()
        .sequence(8)
        .await
        .unwrap();
    assert_eq!(scene.forget(outstanding()).await.streams[0].messages_gone, 1);
    assert_eq!(scene.forget(outstanding()).await.streams, []);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_message_with_the_value_is_rejected_and_a_later_one_is_stored() {
    let mut scene = Scene::start().await;
    let first: Digest = scene.swap(b'a').await.unwrap().digest;
    scene.project(1..=10).await;
    scene.pause("a test").await;
    scene.wait_for_state(ProjectionState::Paused).await;
    scene.publish([7, 11]).await;
    assert_eq!(scene.forget(erase("n", "7")).await.messages, 1);
    scene.publish([7]).await;
    // The state after a crash: the erasure was not repeated, and the pending message in the stream is older than it.
    scene.close().await;
    scene.open().await;
    scene.resume().await;
    scene.wait_for_checkpoint(13).await;
    assert_eq!(scene.sevens(), ["13"]);
    scene.clean().await;
    let done = scene.forget(outstanding()).await;
    assert_eq!(done.streams[0].messages_deleted, 1, "{done:?}");
    scene.clean().await;
    scene.rebuilt(RebuildRequest::default()).await;
    assert_eq!(scene.sevens(), ["13"]);
    scene
        .lifecycle()
        .activate("evolving", Some(first), &operator())
        .await
        .unwrap();
    scene.clean().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_messages_do_not_restore_an_erased_merged_row() {
    const WHO: &str = "machine-of-ann";
    let mut scene = Scene::with_executions().await;
    let common = |n: u32| {
        let who = if n.is_multiple_of(2) { WHO } else { "other" };
        format!(
            r#""result_id":"r{n:03}","request_id":"q{n}","exec_id":"e","pc_id":"{who}","started_at":"2026-05-01T10:00:00Z","manifest_id":"m""#
        )
    };
    let starts = (1..=40).map(|n| format!(r#"{{{},"version":"1.0.0"}}"#, common(n)));
    scene.publish_to("events.started.p", starts).await;
    scene
        .wait("all starts", |scene| {
            scene
                .status("events")
                .is_some_and(|status| status.checkpoint == 40)
        })
        .await;
    // The rows refer to the results, which are handled last.
    let results = (1..=40).map(|n| {
        format!(
            r#"{{{},"exit_code":0,"stdout":"said {WHO}","stderr":"","finished_at":"2026-05-01T10:00:01Z"}}"#,
            common(n)
        )
    });
    scene.publish_to("results.p", results).await;
    let rows = |scene: &Scene, condition: &str| {
        scene.query(&format!(
            "SELECT count(*) FROM execution_results WHERE {condition}"
        ))
    };
    scene
        .wait("all executions", |scene| {
            let mut sources = ["events", "results"].iter();
            sources.all(|source| scene.status(source).is_some_and(|status| status.checkpoint == 40))
        })
        .await;
    // The tables kept for a rollback contain the value as well.
    let rebuild = RebuildRequest {
        accept_differences: true,
        keep_old_s: 86_400,
        ..RebuildRequest::default()
    };
    let run = async |scene: &Scene| {
        let id = scene
            .lifecycle()
            .rebuild("executions", rebuild.clone(), &operator())
            .await
            .unwrap();
        scene.wait_for_rebuild(id).await.unwrap()
    };
    assert_eq!(run(&scene).await.state, RebuildState::Done);
    let done = scene.forget(erase("pc_id", WHO)).await;
    assert_eq!(done.messages, 20, "{done:?}");
    assert_eq!(done.kept_tables, ["executions"]);
    assert!(done.notes[0].contains("merge messages"), "{done:?}");
    assert_eq!(rows(&scene, "true"), ["20"]);
    scene.clean().await;
    assert_eq!(
        scene.query("SELECT name FROM sqlite_schema WHERE instr(name, '#old') > 0"),
        Vec::<String>::new()
    );

    let rebuilt = run(&scene).await;
    assert_eq!(rebuilt.state, RebuildState::Done, "{rebuilt:?}");
    assert_eq!(rows(&scene, "true"), ["20"]);
    assert_eq!(rows(&scene, &format!("pc_id = '{WHO}'")), ["0"]);
    scene.sound();
    // The rebuild found the starts by the value; now they are deleted as well.
    let events = scene.stored_messages("EVENTS").await;
    let done = scene.forget(outstanding()).await;
    assert_eq!(done.streams[0].messages_deleted, 20, "{done:?}");
    assert_eq!(scene.stored_messages("EVENTS").await, events - 20);
    scene.clean().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merging_tables_are_rebuilt_without_the_erased_messages() {
    let mut scene = Scene::start().await;
    scene.swap(b'j').await.unwrap();
    scene.publish(1..=20).await;
    scene.wait_for_checkpoint(20).await;
    // The first message of the stream, then one in the middle.
    for (erased, totals) in [("1", ["even|110", "odd|99"]), ("9", ["even|110", "odd|90"])] {
        let done = scene.forget(erase("n", erased)).await;
        assert_eq!(done.streams[0].messages_deleted, 1, "{done:?}");
        let rebuilt = scene.rebuild(RebuildRequest::default()).await.unwrap();
        assert_eq!(rebuilt.state, RebuildState::Done, "{rebuilt:?}");
        assert_eq!(
            scene.query("SELECT kind, total FROM totals ORDER BY kind"),
            totals
        );
    }
    scene.close().await;
    scene.sound();
}
