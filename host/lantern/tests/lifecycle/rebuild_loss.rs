//! Tests that a rebuild either reproduces everything in the ledger, or fails before it changes anything.

use lantern_lifecycle::RebuildRequest;
use lantern_store::OpenDeadLetterFilter;

use super::*;

/// Returns everything that a rebuild could damage, as text.
pub(super) fn state(scene: &Scene) -> Vec<String> {
    let tables = scene.query("SELECT name FROM _lantern_table ORDER BY name");
    let own = tables.iter().flat_map(|table| {
        let rows = scene.query(&format!(
            "SELECT * FROM \"{table}\" ORDER BY _origin, _sequence, _row"
        ));
        std::iter::once(table.clone()).chain(rows).collect::<Vec<_>>()
    });
    let hosts = [
        "SELECT origin, first_sequence, last_sequence, messages, projected, skipped, dead, missing, rows, changed
         FROM _lantern_ledger ORDER BY origin, first_sequence",
        "SELECT origin, sequence, published_ns FROM _lantern_checkpoint ORDER BY origin",
        "SELECT origin, first_sequence, last_sequence FROM _lantern_gap ORDER BY origin, first_sequence",
        "SELECT origin, sequence, state, reason FROM _lantern_dead_letter ORDER BY origin, sequence",
    ];
    own.chain(hosts.iter().flat_map(|sql| scene.query(sql))).collect()
}

fn digest(letter: u8) -> String {
    lantern_plugin::Digest::of(&evolving::version(letter)).to_string()
}

/// Returns a request with the version that has this letter.
pub(super) fn by(letter: u8) -> RebuildRequest {
    RebuildRequest {
        digest: Some(digest(letter)),
        ..RebuildRequest::default()
    }
}

fn carry_over() -> RebuildRequest {
    RebuildRequest {
        carry_over: true,
        ..RebuildRequest::default()
    }
}

fn from(sequence: u64) -> RebuildRequest {
    RebuildRequest {
        from_sequence: Some(sequence),
        ..RebuildRequest::default()
    }
}

impl Scene {
    /// Asserts that the rebuild is rejected with all of these words and changes nothing.
    async fn refuses(&self, request: RebuildRequest, words: &[&str]) {
        let before = state(self);
        let refused = self.rebuild(request.clone()).await.unwrap_err().to_string();
        for words in words {
            assert!(
                refused.contains(words),
                "{request:?}: {words:?} is not in {refused:?}"
            );
        }
        assert_eq!(state(self), before, "{request:?}: {refused}");
        assert_eq!(
            self.query("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND instr(name, '#') > 0"),
            ["0"]
        );
    }

    pub(super) async fn stream(&self, name: &str) -> async_nats::jetstream::stream::Stream {
        self.server.jetstream().await.get_stream(name).await.unwrap()
    }

    pub(super) async fn install_only(&self, letter: u8) {
        let installed = self
            .lifecycle()
            .install(evolving::version(letter), &operator())
            .await;
        installed.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merging_table_is_not_rebuilt_from_a_part_of_its_messages() {
    let mut scene = Scene::running(b'j', 1_000).await;
    let totals = ["even|250500", "odd|250000"];
    assert_eq!(
        scene.query("SELECT kind, total FROM totals ORDER BY kind"),
        totals
    );
    // Without loss, the rebuild succeeds.
    scene.rebuilt(RebuildRequest::default()).await;
    assert_eq!(
        scene.query("SELECT kind, total FROM totals ORDER BY kind"),
        totals
    );
    // The content of a stream with max_msgs = 500.
    scene.stream("EVOLVE").await.purge().sequence(501).await.unwrap();
    let time = RebuildRequest {
        from_time: Some("2000-01-01T00:00:00Z".into()),
        ..RebuildRequest::default()
    };
    scene.wait_until_swept().await;
    for request in [RebuildRequest::default(), carry_over(), from(600), time] {
        scene
            .refuses(request, &["of 1000 messages", "totals", "nothing has changed"])
            .await;
    }
    assert_eq!(
        scene.query("SELECT kind, total FROM totals ORDER BY kind"),
        totals
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_would_reject_messages_needs_consent() {
    let mut scene = Scene::start().await;
    scene.swap(b'e').await.unwrap();
    scene.publish((1..=30).map(|n| n.to_string())).await;
    scene.publish((31..=40).map(|n| format!("later {n}"))).await;
    scene.publish(["never 41"]).await;
    scene.wait_for_checkpoint(41).await;
    scene
        .lifecycle()
        .install(evolving::version(b'a'), &operator())
        .await
        .unwrap();
    let before = state(&scene);
    let ended = scene.rebuild(by(b'a')).await.unwrap();
    assert_eq!(ended.state, RebuildState::Failed, "{ended:?}");
    let reason = format!("{ended:?}");
    assert!(
        reason.contains(
            "source evolve: 10 messages that were projected or skipped before would become dead letters"
        ),
        "{reason}"
    );
    assert_eq!(state(&scene), before);
    let consent = RebuildRequest {
        accept_differences: true,
        ..by(b'a')
    };
    let ended = scene.rebuild(consent).await.unwrap();
    assert_eq!(ended.state, RebuildState::Done, "{ended:?}");
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["30"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executions_keep_their_versions() {
    let mut scene = Scene::with_executions().await;
    let rows =
        |scene: &Scene| scene.query("SELECT result_id, version, exit_code FROM execution_results ORDER BY 1");
    for n in 1..=300 {
        let common = format!(
            r#""result_id":"r{n:03}","request_id":"q{n}","exec_id":"e","pc_id":"p","started_at":"2026-05-01T10:00:00Z","manifest_id":"m""#
        );
        scene
            .publish_to("events.started.p", [format!(r#"{{{common},"version":"1.0.0"}}"#)])
            .await;
        let result = format!(
            r#"{{{common},"exit_code":0,"stdout":"","stderr":"","finished_at":"2026-05-01T10:00:01Z"}}"#
        );
        scene.publish_to("results.p", [result]).await;
    }
    let complete: Vec<String> = (1..=300).map(|n| format!("r{n:03}|1.0.0|0")).collect();
    scene
        .wait("all executions", |scene| {
            let mut sources = ["events", "results"].iter();
            sources.all(|source| {
                scene
                    .status(source)
                    .is_some_and(|status| status.checkpoint == 300)
            })
        })
        .await;
    assert_eq!(rows(&scene), complete);
    let id = scene
        .lifecycle()
        .rebuild("executions", RebuildRequest::default(), &operator())
        .await
        .unwrap();
    let done = scene.wait_for_rebuild(id).await.unwrap();
    assert_eq!(done.state, RebuildState::Done, "{done:?}");
    assert_eq!(rows(&scene), complete);

    scene.stream("EVENTS").await.purge().await.unwrap();
    for request in [RebuildRequest::default(), carry_over()] {
        let refused = scene
            .lifecycle()
            .rebuild("executions", request, &operator())
            .await;
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("300 of 300 messages of source events (EVENTS)"),
            "{refused}"
        );
    }
    assert_eq!(rows(&scene), complete);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn individually_deleted_messages_are_detected() {
    let mut scene = Scene::running(b'a', 100).await;
    let before = scene.dump();
    scene.stream("EVOLVE").await.delete_message(50).await.unwrap();
    for request in [RebuildRequest::default(), carry_over(), from(50)] {
        scene.refuses(request, &["deleted", "--from"]).await;
    }
    let done = scene.rebuilt(from(51)).await;
    scene.same_as(&before);
    let outcome = done.outcome.unwrap();
    assert_eq!(
        (outcome.messages, outcome.rows_carried_over, outcome.rows_lost),
        (50, 50, 0)
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_carried_over_completely_or_not_at_all() {
    let mut scene = Scene::running(b'b', 1_000).await;
    scene.stream("EVOLVE").await.purge().sequence(501).await.unwrap();
    for (letter, words) in [
        // A new column that is not nullable.
        (
            b'l',
            ["500 rows of table evolved", "column size is new and not nullable"],
        ),
        // A column that is no longer declared and contains values.
        (
            b'a',
            ["500 rows of table evolved", "column extra has a value in 500"],
        ),
        // A column with another type.
        (b'c', ["500 rows of table evolved", "column note is text in 500"]),
    ] {
        scene.install_only(letter).await;
        let request = RebuildRequest {
            carry_over: true,
            ..by(letter)
        };
        scene.refuses(request, &words).await;
        let request = RebuildRequest {
            from_sequence: Some(700),
            ..by(letter)
        };
        scene
            .refuses(request, &[words[1].split(" in ").next().unwrap()])
            .await;
    }
    let before = scene.dump();
    scene.rebuilt(carry_over()).await;
    scene.same_as(&before);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_that_nothing_explains_keeps_the_tables_in_use() {
    let mut scene = Scene::running(b'a', 100).await;
    let connection = rusqlite::Connection::open(scene.dir.path().join("lantern.db")).unwrap();
    connection.busy_timeout(LIMIT).unwrap();
    connection
        .execute("UPDATE evolved SET note = 'changed' WHERE n = 5", [])
        .unwrap();
    let before = state(&scene);
    let failed = scene.rebuild(RebuildRequest::default()).await.unwrap();
    assert_eq!(failed.state, RebuildState::Failed, "{failed:?}");
    let reason = failed.reason.unwrap();
    for words in [
        "table evolved, column note: total 106 before, 100 after",
        "--accept-differences",
    ] {
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(state(&scene), before);
    scene.wait_until_swept().await;
    scene.publish(101..=110).await;
    scene.wait_for_rows(110).await;
    let request = RebuildRequest {
        accept_differences: true,
        ..RebuildRequest::default()
    };
    let done = scene.rebuilt(request).await;
    assert_eq!(done.outcome.unwrap().accepted.len(), 1);
    assert_eq!(scene.query("SELECT DISTINCT note FROM evolved"), ["a"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_dead_letter_stays_discarded() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.publish(["1", "never 2", "later 3", "never 4"]).await;
    scene.wait_for_checkpoint(4).await;
    let discarded =
        |scene: &Scene| scene.query("SELECT sequence, state FROM _lantern_dead_letter ORDER BY sequence");
    for sequence in [2, 3] {
        let id = scene.query(&format!(
            "SELECT id FROM _lantern_dead_letter WHERE sequence = {sequence}"
        ));
        let filter = OpenDeadLetterFilter {
            id: Some(id[0].parse().unwrap()),
            ..OpenDeadLetterFilter::default()
        };
        let count = scene.discard(filter).await;
        assert_eq!(count, 1);
    }
    assert_eq!(discarded(&scene), ["2|discarded", "3|discarded", "4|open"]);
    scene.rebuilt(RebuildRequest::default()).await;
    assert_eq!(discarded(&scene), ["2|discarded", "3|discarded", "4|open"]);
    // A version that can project one of them has resolved it.
    scene.install_only(b'e').await;
    scene.rebuilt(by(b'e')).await;
    assert_eq!(discarded(&scene), ["2|discarded", "3|resolved", "4|open"]);
    assert_eq!(scene.query("SELECT n FROM evolved ORDER BY n"), ["1", "3"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_the_version_does_not_declare_stays_until_it_is_dropped_on_request() {
    let mut scene = Scene::running(b'j', 100).await;
    let totals = scene.query("SELECT * FROM totals ORDER BY kind");
    scene.install_only(b'a').await;
    let done = scene.rebuilt(by(b'a')).await;
    assert_eq!(scene.query("SELECT * FROM totals ORDER BY kind"), totals);
    let changes = |view: &lantern_model::results::rebuild::Rebuild| -> Vec<String> {
        let tables = view.outcome.iter().flat_map(|outcome| &outcome.tables);
        tables
            .map(|table| {
                format!(
                    "{} {} {} {}",
                    table.table,
                    table.change.as_str(),
                    table.rows_before,
                    table.rows_after
                )
            })
            .collect()
    };
    assert_eq!(changes(&done), ["evolved rebuilt 100 100", "totals kept 2 2"]);
    scene.stream("EVOLVE").await.purge().sequence(31).await.unwrap();
    // Two ranges of the ledger; the rebuild keeps one of them.
    let request = RebuildRequest {
        drop_undeclared: true,
        from_sequence: Some(51),
        ..RebuildRequest::default()
    };
    let done = scene.rebuilt(request).await;
    assert_eq!(changes(&done), ["evolved rebuilt 100 100", "totals dropped 2 0"]);
    assert_eq!(done.outcome.unwrap().rows_lost, 2);
    scene.wait_until_swept().await;
    assert_eq!(scene.query("SELECT name FROM _lantern_table"), ["evolved"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_range_does_not_count_rows_of_a_dropped_table() {
    let mut scene = Scene::running(b'j', 60).await;
    scene.swap(b'i').await.unwrap();
    scene.project(61..=100).await;
    let request = RebuildRequest {
        drop_undeclared: true,
        ..from(61)
    };
    scene.rebuilt(request).await;
    assert_eq!(
        scene.query("SELECT note, count(*) FROM evolved GROUP BY note ORDER BY note"),
        ["i|40", "j|60"]
    );
    assert_eq!(
        scene.query("SELECT first_sequence, rows, changed FROM _lantern_ledger ORDER BY first_sequence"),
        ["1|60|60", "61|40|40"]
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_from_after_the_end_is_rejected() {
    let mut scene = Scene::running(b'a', 10).await;
    let later = RebuildRequest {
        from_time: Some("2100-01-01T00:00:00Z".into()),
        ..RebuildRequest::default()
    };
    for request in [from(11), from(999_999_999), later] {
        scene
            .refuses(request, &["nothing to rebuild", "ends at sequence 10"])
            .await;
    }
    let done = scene.rebuilt(from(10)).await;
    assert_eq!(done.outcome.unwrap().messages, 1);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_plugin_is_rebuilt_up_to_its_checkpoint_and_resumes_there() {
    let mut scene = Scene::running(b'j', 100).await;
    scene.pause("a test").await;
    scene.wait_for_state(ProjectionState::Paused).await;
    scene.publish(101..=200).await;
    let before = state(&scene);
    scene.rebuilt(RebuildRequest::default()).await;
    assert_eq!(state(&scene), before);
    scene.resume().await;
    scene.wait_for_rows(200).await;
    assert_eq!(
        scene.query("SELECT kind, total FROM totals ORDER BY kind"),
        ["even|10100", "odd|10000"]
    );
    scene.close().await;
    scene.sound();
}
