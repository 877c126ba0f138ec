//! Tests canary runs: the report, and that nothing else changes.

use lantern_lifecycle::CanaryRequest;
use lantern_model::results::canary::CanaryReport;
use lantern_plugin::Digest;

use super::*;

impl Scene {
    async fn install(&self, letter: u8) -> Digest {
        let bytes = evolving::version(letter);
        self.lifecycle().install(bytes, &operator()).await.unwrap().digest
    }

    async fn canary(
        &self,
        candidate: Digest,
        request: CanaryRequest,
    ) -> Result<CanaryReport, LifecycleError> {
        self.lifecycle()
            .canary("evolving", candidate, request, &operator())
            .await
    }

    async fn wait_for_consumers(&self, stream: &str, count: usize) {
        let context = self.server.jetstream().await;
        nats::eventually("the consumers of the canary", LIMIT, async || {
            let mut stream = context.get_stream(stream).await.unwrap();
            stream.info().await.unwrap().state.consumer_count == count
        })
        .await;
    }

    /// Returns everything that a canary must not modify.
    async fn untouched(&self) -> (Vec<String>, Vec<(String, u64, u64)>) {
        let mut database = Vec::new();
        for table in self.query(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
        ) {
            database.push(table.clone());
            let mut rows = self.query(&format!("SELECT * FROM \"{table}\""));
            rows.sort();
            database.extend(rows);
        }
        let mut consumers = Vec::new();
        let context = self.server.jetstream().await;
        for stream in ["EVOLVE", "EVOLVE_MORE"] {
            let stream = context.get_stream(stream).await.unwrap();
            let mut all = stream.consumers();
            while let Some(info) = futures_util::StreamExt::next(&mut all).await {
                let info = info.unwrap();
                let delivered = info.delivered.stream_sequence;
                consumers.push((info.name, delivered, info.ack_floor.stream_sequence));
            }
        }
        (database, consumers)
    }
}

fn last(messages: u64) -> CanaryRequest {
    CanaryRequest {
        messages: Some(messages),
        live: None,
    }
}

fn live(milliseconds: u64) -> CanaryRequest {
    CanaryRequest {
        messages: None,
        live: Some(Duration::from_millis(milliseconds)),
    }
}

/// Returns the counts: same, changed, only old, only new.
fn numbers(report: &CanaryReport) -> [u64; 4] {
    let table = &report.tables[0];
    assert_eq!(table.table, "evolved");
    [table.same, table.changed, table.only_old, table.only_new]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_reports_differences_and_changes_nothing() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.publish(1..=995).await;
    scene.publish((996..=1_000).map(|n| format!("later {n}"))).await;
    scene.wait_for_checkpoint(1_000).await;
    let wrong = scene.install(b'f').await;
    let context = scene.server.jetstream().await;
    nats::eventually(
        "the acknowledgement that follows the checkpoint",
        LIMIT,
        async || {
            let stream = context.get_stream("EVOLVE").await.unwrap();
            let consumer = stream.consumer_info("lantern-evolving-evolve").await;
            consumer.unwrap().ack_floor.stream_sequence == 1_000
        },
    )
    .await;
    let before = scene.untouched().await;
    let report = scene.canary(wrong, last(600)).await.unwrap();
    assert!(report.partial.is_empty(), "{:?}", report.partial);
    described("CanaryReport", &report);
    assert_eq!(numbers(&report), [0, 595, 0, 0]);
    let example = &report.tables[0].examples[0];
    assert_eq!((example.source.as_str(), example.sequence), ("evolve", 401));
    let n = |row: &Option<RowView>| column(row.as_ref().unwrap(), "n").as_i64();
    assert_eq!((n(&example.old), n(&example.new)), (Some(401), Some(1_401)));
    assert_eq!(report.tables[0].examples.len(), 10);
    let old = report.old.as_ref().unwrap();
    assert_eq!((old.messages, old.projected, old.rejected), (600, 595, 5));
    assert_eq!(old.rejects[0].class, "malformed");
    assert_eq!(old.rejects[0].examples[0].sequence, 996);
    assert!(old.memory_peak_bytes > 0 && old.decode_ms > 0.0);
    assert_eq!(report.sources[0].first_sequence, Some(401));
    assert_eq!(report.sources[0].last_sequence, Some(1_000));
    assert!(!report.needs_rebuild);
    assert!(
        serde_json::to_string(&report)
            .unwrap()
            .contains("\"effect\":\"none\"")
    );
    assert_eq!(scene.untouched().await, before);

    let same = scene.install(b'i').await;
    let report = scene.canary(same, last(10)).await.unwrap();
    assert_eq!(numbers(&report), [0, 5, 0, 0], "the note is another");
    let first = scene.install(b'a').await;
    let report = scene.canary(first, last(100_000)).await.unwrap();
    assert_eq!(numbers(&report), [995, 0, 0, 0]);
    assert!(report.tables[0].examples.is_empty());
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_reports_rejections_traps_and_required_rebuilds() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.publish(1..=20).await;
    scene.publish((21..=25).map(|n| format!("later {n}"))).await;
    scene.wait_for_checkpoint(25).await;
    let nothing = scene.install(b'd').await;
    let report = scene.canary(nothing, last(25)).await.unwrap();
    assert_eq!(numbers(&report), [0, 0, 20, 0]);
    assert_eq!((report.new.rejected, report.new.projected), (25, 0));
    assert_eq!(report.new.rejects[0].rejected, 25);
    let reason = &report.new.rejects[0].examples[0].reason;
    assert!(reason.contains("this version knows nothing"), "{reason}");
    let traps = scene.install(b'g').await;
    let report = scene.canary(traps, last(25)).await.unwrap();
    assert_eq!(report.new.rejects[0].class, "trap");
    assert!(report.new.faults > 0);
    let more = scene.install(b'e').await;
    let report = scene.canary(more, last(25)).await.unwrap();
    assert_eq!(numbers(&report), [0, 20, 0, 5]);
    let other = scene.install(b'c').await;
    let report = scene.canary(other, last(25)).await.unwrap();
    assert!(report.needs_rebuild, "{:?}", report.differences);
    assert_eq!(report.new.projected, 20, "its tables are fresh, so they fit");
    // The live version is unaffected, and its dead letters are the same.
    assert_eq!(scene.query("SELECT count(*) FROM _lantern_dead_letter"), ["5"]);
    assert_eq!(scene.status("evolve").unwrap().version, "1.0.0");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_canary_reads_new_messages_with_or_without_a_baseline() {
    let mut scene = Scene::start().await;
    scene.publish(1..=10).await;
    let first = scene.install(b'h').await;
    let report = scene.canary(first, last(100)).await.unwrap();
    assert_eq!(report.old, None);
    assert_eq!(numbers(&report), [0, 0, 0, 10]);
    assert_eq!(report.tables[0].examples.len(), 10);
    scene.swap(b'a').await.unwrap();
    scene.wait_for_checkpoint(10).await;
    let publishing = async {
        // The candidate reads both streams, one of them in addition to the active version.
        scene.wait_for_consumers("EVOLVE", 2).await;
        scene.wait_for_consumers("EVOLVE_MORE", 1).await;
        scene.publish(11..=15).await;
        scene.publish_to("more.x", 1..=3).await;
    };
    let (report, ()) = tokio::join!(scene.canary(first, live(4_000)), publishing);
    let report = report.unwrap();
    assert!(report.partial.is_empty(), "{:?}", report.partial);
    assert_eq!(numbers(&report), [0, 5, 0, 3]);
    let read: Vec<(&str, u64, bool)> = report
        .sources
        .iter()
        .map(|source| (source.source.as_str(), source.messages, source.old))
        .collect();
    assert_eq!(read, [("evolve", 5, true), ("more", 3, false)]);
    scene.wait_for_checkpoint(15).await;
    assert_eq!(scene.query("SELECT DISTINCT note FROM evolved"), ["a"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_is_bounded_exclusive_and_ends_with_the_host() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    let other = scene.install(b'f').await;
    for request in [
        CanaryRequest::default(),
        last(0),
        last(100_001),
        live(0),
        live(24 * 3_600_000),
    ] {
        let refused = scene.canary(other, request).await.unwrap_err();
        assert!(matches!(refused, LifecycleError::BadSettings(_)), "{refused}");
    }
    let unknown = scene.canary(Digest::of(b"?"), last(1)).await.unwrap_err();
    assert!(matches!(unknown, LifecycleError::NoVersion { .. }), "{unknown}");
    let lifecycle = scene.lifecycle().clone();
    let long = tokio::spawn(async move {
        lifecycle
            .canary("evolving", other, live(300_000), &operator())
            .await
    });
    let folder = scene.dir.path().join("scratch");
    let files = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    scene.wait("two scratch databases", |_| files() == 2).await;
    let second = scene.canary(other, last(1)).await.unwrap_err();
    assert!(second.to_string().contains("is already running"), "{second}");
    scene.lifecycle().stop().await;
    let ended = long.await.unwrap().unwrap_err();
    assert!(ended.to_string().contains("the host is stopping"), "{ended}");
    scene.wait("they are gone", |_| files() == 0).await;
    // The next start removes the files of a killed host.
    scene.close().await;
    std::fs::write(folder.join("left.db"), b"x").unwrap();
    scene.open().await;
    assert!(!folder.exists());
    scene.close().await;
    scene.sound();
}
