//! Tests the deep check: it compares rows and ledger with a new projection of the messages.

use lantern_lifecycle::{DeepParts, DeepReport, check_deep};

use super::*;

impl Scene {
    pub(super) async fn check_deep(&self, sample: Option<u64>) -> DeepReport {
        let broker = Broker::connect(lantern_broker::BrokerConfig::remote(self.server.url()))
            .await
            .unwrap();
        broker.link().wait_for(Link::is_connected).await.unwrap();
        let loader = Loader::new(lantern_plugin::EngineConfig::new(Compiler::InProcess), [0; 32]).unwrap();
        let parts = DeepParts {
            database: self.dir.path().join(lantern_store::DATABASE_FILE),
            components_dir: self.dir.path().join("components"),
            broker: broker.clone(),
            loader: Arc::new(loader),
        };
        let report = check_deep(&parts, sample).await.unwrap();
        broker.stop().await;
        report
    }

    fn harm(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.dir.path().join("lantern.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    /// Makes a change by hand, expects a problem with these words, and reverts the change.
    async fn finds(&self, harm: &str, mend: &str, words: &str) {
        self.harm(harm);
        let problems = self.check_deep(None).await.problems;
        assert!(
            problems.iter().any(|problem| problem.problem.contains(words)),
            "{harm}: {words:?} is not in {problems:?}"
        );
        self.harm(mend);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deep_check_finds_manual_changes_and_accepts_a_sound_database() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.publish(1..=300).await;
    scene.publish(["later 7", "rubbish"]).await;
    scene.wait_for_checkpoint(302).await;
    // Another version, which resolves one dead letter and handles the rest.
    scene.swap(b'e').await.unwrap();
    scene.project(303..=400).await;
    // While the host runs.
    let report = scene.check_deep(None).await;
    assert_eq!(report.problems, []);
    assert_eq!(report.unverified, Vec::<String>::new());
    assert_eq!((report.messages, report.rows), (400, 399));
    let sampled = scene.check_deep(Some(40)).await;
    assert_eq!(sampled.problems, []);
    assert!((30..=60).contains(&sampled.messages), "{sampled:?}");
    scene.close().await;

    let swap = "UPDATE evolved SET n = CASE n WHEN 10 THEN 11 ELSE 10 END WHERE n IN (10, 11)";
    for (harm, mend, words) in [
        (
            "UPDATE evolved SET n = n + 1 WHERE _sequence = 7",
            "UPDATE evolved SET n = n - 1 WHERE _sequence = 7",
            "row 0 of message 7: column n is 8, but the message produces 7",
        ),
        (swap, swap, "row 0 of message 10: column n is 11"),
        (
            "UPDATE evolved SET _row = 1 WHERE _sequence = 20",
            "UPDATE evolved SET _row = 0 WHERE _sequence = 20",
            "row 1 of message 20 is stored, but the message does not produce it",
        ),
        (
            "UPDATE evolved SET _sequence = 302 WHERE _sequence = 30",
            "UPDATE evolved SET _sequence = 30 WHERE _sequence = 302",
            "row 0 of message 30 is missing",
        ),
        (
            "UPDATE _lantern_ledger SET projected = projected - 1, skipped = skipped + 1 WHERE first_sequence = 303",
            "UPDATE _lantern_ledger SET projected = projected + 1, skipped = skipped - 1 WHERE first_sequence = 303",
            "the ledger counts 97 projected messages, but the messages give 98",
        ),
        (
            "UPDATE _lantern_ledger SET rows = rows - 1 WHERE first_sequence = 1",
            "UPDATE _lantern_ledger SET rows = rows + 1 WHERE first_sequence = 1",
            "rows, but the messages give",
        ),
    ] {
        scene.finds(harm, mend, words).await;
    }
    assert_eq!(scene.check_deep(None).await.problems, []);

    // The report lists data that cannot be compared.
    let context = scene.server.jetstream().await;
    let stream = context.get_stream("EVOLVE").await.unwrap();
    stream.purge().sequence(101).await.unwrap();
    let report = scene.check_deep(None).await;
    assert_eq!(report.problems, []);
    assert_eq!(report.messages, 300);
    assert!(
        report
            .unverified
            .iter()
            .any(|note| note.contains("100 messages no longer in the stream")),
        "{:?}",
        report.unverified
    );
    std::fs::remove_dir_all(scene.dir.path().join("components")).unwrap();
    let report = scene.check_deep(None).await;
    assert_eq!((report.messages, report.handled), (0, 400), "{report:?}");
    let [problem] = report.problems.as_slice() else {
        panic!("{report:?}")
    };
    assert!(
        problem
            .problem
            .contains("nothing was compared: none of 400 messages"),
        "{problem:?}"
    );
    assert!(
        report.unverified[0].contains("cannot be read"),
        "{:?}",
        report.unverified
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merging_tables_are_compared_if_the_whole_history_exists() {
    let mut scene = Scene::running(b'a', 10).await;
    scene.swap(b'j').await.unwrap();
    scene.project(11..=100).await;
    scene.close().await;
    let report = scene.check_deep(None).await;
    assert_eq!((report.problems, report.unverified), (vec![], vec![]));
    assert_eq!((report.messages, report.rows), (100, 102));
    scene
        .finds(
            "UPDATE totals SET total = total + 1 WHERE kind = 'even'",
            "UPDATE totals SET total = total - 1 WHERE kind = 'even'",
            "table totals: the row with the key ('even') has other values than the messages produce",
        )
        .await;
    scene
        .finds(
            "UPDATE totals SET kind = 'other' WHERE kind = 'odd'",
            "UPDATE totals SET kind = 'odd' WHERE kind = 'other'",
            "table totals: the row with the key ('odd') is missing",
        )
        .await;

    // If the history is incomplete, the check compares only the other tables.
    let sampled = scene.check_deep(Some(20)).await;
    assert_eq!(sampled.problems, []);
    assert!(
        sampled
            .unverified
            .iter()
            .any(|note| note.starts_with("totals, whose writes update")),
        "{:?}",
        sampled.unverified
    );
    let context = scene.server.jetstream().await;
    let stream = context.get_stream("EVOLVE").await.unwrap();
    stream.purge().sequence(50).await.unwrap();
    let purged = scene.check_deep(None).await;
    assert_eq!(purged.problems, []);
    assert!(
        purged
            .unverified
            .iter()
            .any(|note| note.starts_with("totals, whose writes update")),
        "{:?}",
        purged.unverified
    );
}
