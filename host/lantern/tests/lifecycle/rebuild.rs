//! Tests rebuilds, which fill new tables in the background.

use lantern_lifecycle::RebuildRequest;
use lantern_model::results::rebuild::Rebuild;
use lantern_store::RebuildId;

use super::*;

impl Scene {
    pub(super) async fn rebuild(&self, request: RebuildRequest) -> Result<Rebuild, LifecycleError> {
        let id = self.lifecycle().rebuild("evolving", request, &operator()).await?;
        self.wait_for_rebuild(id).await
    }

    /// Rebuilds the tables and expects that the new ones replace them.
    pub(super) async fn rebuilt(&self, request: RebuildRequest) -> Rebuild {
        let ended = self.rebuild(request).await.unwrap();
        assert_eq!(ended.state, RebuildState::Done, "{ended:?}");
        ended
    }

    /// Waits until the rebuild ends, in any state.
    pub(super) async fn wait_for_rebuild(&self, id: RebuildId) -> Result<Rebuild, LifecycleError> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let all = self.lifecycle().rebuilds().await?;
            let view = all.into_iter().find(|view| view.id == id.0).unwrap();
            described("Rebuild", &view);
            if view.state != RebuildState::Running {
                return Ok(view);
            }
            assert!(Instant::now() < deadline, "the rebuild does not end: {view:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a rebuild has stored messages.
    async fn wait_for_progress(&self) {
        self.wait("the progress of the rebuild", |scene| {
            let rebuilds = scene.lifecycle().active_rebuilds();
            rebuilds.iter().any(|(_, progress, _)| progress.messages > 0)
        })
        .await;
    }

    #[track_caller]
    pub(super) fn same_as(&self, before: &[String]) {
        let now = self.dump();
        let differs = now.iter().zip(before).find(|(now, before)| now != before);
        assert_eq!((now.len(), differs), (before.len(), None));
    }

    /// Returns every column of every row, including the host's own columns.
    pub(super) fn dump(&self) -> Vec<String> {
        self.query("SELECT * FROM evolved ORDER BY _origin, _sequence, _row")
    }

    pub(super) async fn wait_for_rows(&self, count: u64) {
        self.wait(&format!("{count} rows"), |scene| {
            scene.query("SELECT count(*) FROM evolved") == [count.to_string()]
        })
        .await;
    }

    /// Waits until no table, consumer or record of a rebuild remains.
    pub(super) async fn wait_until_swept(&self) {
        self.wait("no table of a rebuild", |scene| {
            scene
                .query("SELECT name FROM sqlite_schema WHERE type = 'table' AND instr(name, '#') > 0")
                .is_empty()
        })
        .await;
        assert_eq!(
            self.query("SELECT count(*) FROM _lantern_origin WHERE instr(plugin, '#') > 0"),
            ["0"]
        );
        let context = self.server.jetstream().await;
        let stream = context.get_stream("EVOLVE").await.unwrap();
        let deadline = Instant::now() + LIMIT;
        // The host deletes it right after the rebuild ends.
        while stream
            .get_consumer::<async_nats::jetstream::consumer::pull::Config>("lantern-evolving-evolve-rebuild")
            .await
            .is_ok()
        {
            assert!(Instant::now() < deadline, "the consumer is left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_with_the_same_version_yields_an_identical_table() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene
        .publish((1..=3_000).map(|n| {
            if n % 100 == 0 {
                format!("never {n}")
            } else {
                n.to_string()
            }
        }))
        .await;
    scene.wait_for_checkpoint(3_000).await;
    let (before, ledger) = (
        scene.dump(),
        scene.query("SELECT messages, projected, dead, rows FROM _lantern_ledger"),
    );
    scene.rebuilt(RebuildRequest::default()).await;
    scene.same_as(&before);
    assert_eq!(
        scene.query("SELECT messages, projected, dead, rows FROM _lantern_ledger"),
        ledger
    );
    assert_eq!(
        scene.query("SELECT count(*) FROM _lantern_dead_letter WHERE state = 'open'"),
        ["30"]
    );
    scene.publish(3_001..=3_010).await;
    scene.wait_for_rows(2_980).await;
    scene.wait_until_swept().await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_under_load_serves_the_old_table_until_the_new_one_is_ready() {
    let mut scene = Scene::running(b'a', 10_000).await;
    let rebuilding = async { scene.rebuild(RebuildRequest::default()).await.unwrap() };
    let publishing = async {
        for round in 0..20 {
            let first = 10_001 + round * 250;
            scene.publish(first..first + 250).await;
            assert!(
                scene.query("SELECT CASE WHEN count(*) >= 10000 THEN 1 ELSE 0 END FROM evolved") == ["1"]
            );
        }
    };
    let (done, ()) = tokio::join!(rebuilding, publishing);
    assert_eq!(done.state, RebuildState::Done, "{done:?}");
    scene.wait_for_rows(15_000).await;
    assert_eq!(
        scene.query("SELECT count(DISTINCT n), min(n), max(n) FROM evolved"),
        ["15000|1|15000"]
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_changes_the_declaration_of_a_table() {
    let mut scene = Scene::running(b'a', 100).await;
    let refused = scene.swap(b'c').await.unwrap_err();
    assert!(matches!(refused, LifecycleError::Tables(_)), "{refused}");
    let digest = lantern_plugin::Digest::of(&evolving::version(b'c')).to_string();
    let request = RebuildRequest {
        digest: Some(digest.clone()),
        ..RebuildRequest::default()
    };
    scene.rebuilt(request).await;
    assert_eq!(
        scene.query("SELECT count(*), count(CASE WHEN note = n THEN 1 END) FROM evolved"),
        ["100|100"]
    );
    if scene.database.is_none() {
        assert_eq!(
            scene.query("SELECT DISTINCT typeof(note) FROM evolved"),
            ["integer"]
        );
    }
    scene.publish(101..=110).await;
    scene.wait_for_rows(110).await;
    let view = scene.show().await;
    assert_eq!(view.active, Some(digest));
    // The way back is a rebuild as well; a plain rollback is rejected.
    let refused = scene
        .lifecycle()
        .rollback("evolving", &operator())
        .await
        .unwrap_err();
    assert!(matches!(refused, LifecycleError::Tables(_)), "{refused}");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_keeps_rows_whose_messages_are_gone() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene
        .publish((1..=1_000).map(|n| {
            if n % 10 == 0 {
                format!("never {n}")
            } else {
                n.to_string()
            }
        }))
        .await;
    scene.wait_for_checkpoint(1_000).await;
    let before = scene.dump();
    let stream = scene.server.jetstream().await.get_stream("EVOLVE").await.unwrap();
    stream.purge().sequence(401).await.unwrap();
    let refused = scene.rebuild(RebuildRequest::default()).await.unwrap_err();
    assert!(
        refused.to_string().contains("360 rows of table evolved"),
        "{refused}"
    );
    scene.same_as(&before);
    let request = RebuildRequest {
        carry_over: true,
        ..RebuildRequest::default()
    };
    scene.rebuilt(request).await;
    scene.same_as(&before);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_can_be_rebuilt_with_another_version() {
    let mut scene = Scene::running(b'a', 100).await;
    scene.swap(b'i').await.unwrap();
    let request = RebuildRequest {
        from_sequence: Some(51),
        ..RebuildRequest::default()
    };
    scene.rebuilt(request).await;
    assert_eq!(
        scene.query("SELECT note, min(n), max(n), count(*) FROM evolved GROUP BY note ORDER BY 2"),
        ["a|1|50|50", "i|51|100|50"]
    );
    assert_eq!(
        scene.query(
            "SELECT p.version, l.first_sequence, l.last_sequence, l.messages FROM _lantern_ledger l
             JOIN _lantern_plugin p ON p.id = l.plugin_version ORDER BY l.first_sequence"
        ),
        ["1.0.0|1|50|50", "1.0.1|51|100|50"]
    );
    let request = RebuildRequest {
        from_time: Some("yesterday".into()),
        ..RebuildRequest::default()
    };
    let refused = scene.rebuild(request).await.unwrap_err();
    assert!(refused.to_string().contains("not a valid time"), "{refused}");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_resumes_after_a_restart_and_can_be_cancelled() {
    let mut scene = Scene::running(b'a', 20_000).await;
    let before = scene.dump();
    let slow = RebuildRequest {
        rate: Some(5_000),
        ..RebuildRequest::default()
    };
    let id = scene
        .lifecycle()
        .rebuild("evolving", slow.clone(), &operator())
        .await
        .unwrap();
    let busy = scene
        .lifecycle()
        .rebuild("evolving", slow.clone(), &operator())
        .await
        .unwrap_err();
    assert!(busy.to_string().contains("is already running"), "{busy}");
    let busy = scene.swap(b'i').await.unwrap_err();
    assert!(busy.to_string().contains("wait for it or cancel it"), "{busy}");
    scene.wait_for_progress().await;
    scene.close().await;
    assert_ne!(scene.query("SELECT count(*) FROM \"evolved#1\""), ["0"]);
    scene.open().await;
    scene
        .wait_for_result("the end", "SELECT state FROM _lantern_rebuild", "done")
        .await;
    scene.same_as(&before);
    scene.wait_until_swept().await;
    let second = scene
        .lifecycle()
        .rebuild("evolving", slow, &operator())
        .await
        .unwrap();
    assert_ne!(second, id);
    scene.wait_for_progress().await;
    let all = scene.lifecycle().rebuilds().await.unwrap();
    assert!(all[0].progress.is_some(), "{all:?}");
    scene
        .lifecycle()
        .cancel_rebuild(second, &operator())
        .await
        .unwrap();
    scene.same_as(&before);
    scene.swap(b'i').await.unwrap();
    scene.publish(20_001..=20_010).await;
    scene.wait_for_rows(20_010).await;
    scene.wait_until_swept().await;
    scene.close().await;
    scene.sound();
}
