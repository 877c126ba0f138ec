//! Tests version swaps.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_happens_between_two_batches_and_the_ledger_records_it() {
    let mut scene = Scene::running(b'a', 100).await;
    scene.swap(b'i').await.unwrap();
    scene.project(101..=200).await;
    assert_eq!(
        scene.query("SELECT note, min(n), max(n), count(*) FROM evolved GROUP BY note ORDER BY 2"),
        ["a|1|100|100", "i|101|200|100"]
    );
    assert_eq!(
        scene.query(
            "SELECT p.version, l.first_sequence, l.last_sequence, l.messages FROM _lantern_ledger l
             JOIN _lantern_plugin p ON p.id = l.plugin_version ORDER BY l.first_sequence"
        ),
        ["1.0.0|1|100|100", "1.0.1|101|200|100"]
    );
    let view = scene.show().await;
    assert_eq!(view.versions.len(), 2);
    assert_eq!(scene.status("evolve").unwrap().version, "1.0.1");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_changes_to_the_mirror_of_its_stream_continues() {
    let mut scene = Scene::start().await;
    let context = scene.server.jetstream().await;
    scene.swap(b'a').await.unwrap();
    scene.project(1..=100).await;
    let mirror = crate::nats::mirror("EVOLVE_MIRROR", "EVOLVE");
    context.create_stream(mirror).await.unwrap();
    nats::eventually("the mirror has caught up", LIMIT, async || {
        let mirror = context.get_stream("EVOLVE_MIRROR").await.unwrap();
        mirror.cached_info().state.last_sequence == 100
    })
    .await;
    scene.swap(b'm').await.unwrap();
    scene.project(101..=150).await;
    assert_eq!(
        scene.query("SELECT note, min(n), max(n), count(*) FROM evolved GROUP BY note ORDER BY 2"),
        ["a|1|100|100", "m|101|150|50"]
    );
    assert_eq!(
        scene.query("SELECT epoch, stream FROM _lantern_origin"),
        ["1|EVOLVE_MIRROR"]
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_neither_lose_nor_duplicate_rows() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    let publishing = scene.publish(1..=20_000);
    let swapping = async {
        for round in 0..40 {
            scene
                .swap(if round % 2 == 0 { b'i' } else { b'a' })
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(publishing, swapping);
    scene.wait_for_checkpoint(20_000).await;
    assert_eq!(
        scene.query("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM evolved"),
        ["20000|20000|1|20000"]
    );
    // Every row was created by the version that the ledger names for its sequence.
    assert_eq!(
        scene.query(
            "SELECT count(*) FROM evolved e JOIN _lantern_ledger l
             ON l.origin = e._origin AND e._sequence BETWEEN l.first_sequence AND l.last_sequence
             JOIN _lantern_plugin p ON p.id = l.plugin_version
             WHERE p.version <> CASE e.note WHEN 'a' THEN '1.0.0' ELSE '1.0.1' END"
        ),
        ["0"]
    );
    assert!(
        scene.query("SELECT count(*) FROM _lantern_ledger")[0]
            .parse::<u64>()
            .unwrap()
            > 2
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_adds_columns_and_a_rollback_keeps_them() {
    let mut scene = Scene::running(b'a', 3).await;
    scene.swap(b'b').await.unwrap();
    scene.project(4..=6).await;
    let back = scene.rollback().await;
    assert_eq!(back.version, "1.0.0");
    scene.project(7..=9).await;
    assert_eq!(
        scene.query("SELECT n, note, extra FROM evolved ORDER BY n"),
        [
            "1|a|null", "2|a|null", "3|a|null", "4|b|more", "5|b|more", "6|b|more", "7|a|null", "8|a|null",
            "9|a|null"
        ]
    );
    // A version built from the older one does not declare the column either.
    scene.swap(b'i').await.unwrap();
    scene.swap(b'b').await.unwrap();
    scene.project(10..=10).await;
    assert_eq!(scene.query("SELECT extra FROM evolved WHERE n = 10"), ["more"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_is_compared_with_its_tables_like_a_new_one() {
    let mut scene = Scene::start().await;
    let older = scene.swap(b'a').await.unwrap();
    let newer = scene.swap(b'b').await.unwrap();
    let refused = scene
        .lifecycle()
        .activate("evolving", Some(older.digest), &operator())
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, LifecycleError::Tables(reasons) if reasons[0].to_string().contains("column extra is not declared")),
        "{refused}"
    );
    let view = scene.show().await;
    assert_eq!(view.active, Some(newer.digest.to_string()));
    let back = scene.rollback().await;
    assert_eq!(back.digest, older.digest);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incompatible_version_is_rejected_with_a_reason_and_changes_nothing() {
    let mut scene = Scene::start().await;
    let first = scene.swap(b'a').await.unwrap();
    let refused = scene.swap(b'c').await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("column note is text and would become integer"),
        "{refused}"
    );
    assert!(refused.hint().unwrap().contains("lantern rebuild"));
    let junk = scene
        .lifecycle()
        .install(b"junk".to_vec(), &operator())
        .await
        .unwrap_err();
    assert!(matches!(junk, LifecycleError::Load(_)), "{junk}");
    let nobody = scene
        .lifecycle()
        .activate("nobody", None, &operator())
        .await
        .unwrap_err();
    assert!(matches!(nobody, LifecycleError::NoPlugin(_)), "{nobody}");
    scene.project(1..=5).await;
    let view = scene.show().await;
    assert_eq!(view.active, Some(first.digest.to_string()));
    assert_eq!(scene.query("SELECT DISTINCT note FROM evolved"), ["a"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_starts_and_ends_with_the_version_that_declares_it() {
    let mut scene = Scene::start().await;
    scene.publish_to("more.x", 1001..=1010).await;
    scene.swap(b'a').await.unwrap();
    scene.project(1..=10).await;
    assert!(scene.status("more").is_none());
    scene.swap(b'h').await.unwrap();
    scene
        .wait_for_result("both sources", "SELECT count(*) FROM evolved", "20")
        .await;
    scene.swap(b'i').await.unwrap();
    assert!(scene.status("more").is_none());
    scene.publish_to("more.x", 1011..=1012).await;
    scene.project(11..=12).await;
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["22"]);
    // The source resumes at its previous position.
    scene.swap(b'h').await.unwrap();
    scene
        .wait_for_result("the rest", "SELECT count(*) FROM evolved", "24")
        .await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_plugin_stays_paused_over_a_restart_and_resumes_at_its_checkpoint() {
    let mut scene = Scene::running(b'a', 10).await;
    scene.pause("maintenance").await;
    scene.wait_for_state(ProjectionState::Paused).await;
    let status = scene.status("evolve").unwrap();
    assert_eq!(status.paused.as_deref(), Some("maintenance"));
    assert_eq!(status.last_error, None, "a pause is not an error");
    scene.publish(11..=20).await;
    scene
        .wait("the lag of a paused source", |scene| {
            scene.status("evolve").unwrap().lag == Some(10)
        })
        .await;
    scene.close().await;
    scene.publish(21..=25).await;
    scene.open().await;
    scene.wait_for_state(ProjectionState::Paused).await;
    scene
        .wait("checkpoint and lag, without a session", |scene| {
            let status = scene.status("evolve").unwrap();
            (status.epoch, status.checkpoint, status.lag) == (1, 10, Some(15))
        })
        .await;
    assert_eq!(scene.status("evolve").unwrap().state, ProjectionState::Paused);
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["10"]);
    // A swap during a pause takes effect on resume.
    scene.swap(b'i').await.unwrap();
    scene.resume().await;
    scene.wait_for_checkpoint(25).await;
    assert_eq!(
        scene.query("SELECT note, count(*) FROM evolved GROUP BY note"),
        ["a|10", "i|15"]
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_plugin_keeps_or_drops_its_tables() {
    let mut scene = Scene::running(b'a', 10).await;
    assert!(scene.remove(false).await.dropped.is_empty());
    assert!(scene.status("evolve").is_none());
    scene.publish(11..=20).await;
    scene.swap(b'a').await.unwrap();
    scene.wait_for_checkpoint(20).await;
    assert_eq!(
        scene.query("SELECT count(*), count(DISTINCT n) FROM evolved"),
        ["20|20"]
    );
    let removed = scene.remove(true).await;
    assert_eq!(removed.dropped, ["evolved"]);
    assert_eq!(scene.query("SELECT count(*) FROM _lantern_ledger"), ["0"]);
    // Without any data, the host reads the stream again from the beginning.
    scene.swap(b'a').await.unwrap();
    scene.wait_for_checkpoint(20).await;
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["20"]);
    // The tables that a rebuild has replaced go too: the names of their indexes are those of the next tables.
    scene.swap(b'b').await.unwrap();
    let rebuilt = scene
        .rebuild(lantern_lifecycle::RebuildRequest {
            keep_old_s: 3_600,
            ..lantern_lifecycle::RebuildRequest::default()
        })
        .await
        .unwrap();
    assert_eq!(rebuilt.state, RebuildState::Done, "{rebuilt:?}");
    scene
        .lifecycle()
        .remove("evolving", true, &operator())
        .await
        .unwrap();
    assert_eq!(
        scene.query("SELECT name FROM sqlite_schema WHERE name LIKE 'evolved%'"),
        Vec::<String>::new()
    );
    scene.swap(b'b').await.unwrap();
    scene.wait_for_checkpoint(20).await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_version_is_replaced_within_a_batch() {
    let mut scene = Scene::start().await;
    let slow = scene.swap(b'n').await.unwrap();
    scene.wait_for_state(ProjectionState::Running).await;
    let lifecycle = scene.lifecycle();
    lifecycle.pause("evolving", "a test", &operator()).await.unwrap();
    scene.wait_for_state(ProjectionState::Paused).await;
    // One batch, for which the version needs 20 seconds of processor time.
    scene.publish((1..=1_000).map(|n| format!("later {n}"))).await;
    scene.lifecycle().resume("evolving", &operator()).await.unwrap();
    scene.wait_for_checkpoint(1).await;
    let fast = scene.swap(b'e').await.unwrap();
    scene.wait_for_checkpoint(1_000).await;
    let handled = |digest: &dyn std::fmt::Display| {
        let sql = format!(
            "SELECT coalesce(sum(l.messages), 0) FROM _lantern_ledger l JOIN _lantern_plugin p ON p.id = l.plugin_version
             WHERE p.digest = '{digest}'"
        );
        scene.query(&sql)[0].parse::<u64>().unwrap()
    };
    let (by_slow, by_fast) = (handled(&slow.digest), handled(&fast.digest));
    assert_eq!(by_slow + by_fast, 1_000);
    assert!(by_fast > 500, "{by_slow} and {by_fast}");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_installations_of_one_component_are_one_version() {
    let mut scene = Scene::start().await;
    let bytes = evolving::version(b'a');
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (lifecycle, bytes) = (scene.lifecycle().clone(), bytes.clone());
        sending.spawn(async move {
            let installed = lifecycle.install(bytes, &operator()).await?;
            lifecycle
                .activate("evolving", Some(installed.digest), &operator())
                .await
        });
    }
    for result in sending.join_all().await {
        result.unwrap();
    }
    scene.project(1..=10).await;
    assert_eq!(scene.query("SELECT count(*) FROM _lantern_plugin"), ["1"]);
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["10"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_reported_with_its_time_until_the_source_recovers() {
    let mut scene = Scene::running(b'a', 10).await;
    scene.server.kill();
    scene.wait_for_state(ProjectionState::Retrying).await;
    let status = scene.status("evolve").unwrap();
    assert!(
        status.last_error.is_some() && status.last_error_at_ms.is_some(),
        "{status:?}"
    );
    scene.server.restart();
    // No new message arrives: a source with nothing left to read counts as recovered.
    scene
        .wait("no error", |scene| {
            let status = scene.status("evolve").unwrap();
            status.state == ProjectionState::Running && status.last_error.is_none()
        })
        .await;
    assert_eq!(scene.status("evolve").unwrap().last_error_at_ms, None);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_a_plugin_apply_at_once_and_after_a_restart() {
    let mut scene = Scene::start().await;
    let set = async |scene: &Scene, path: &str, value: &str| {
        let changes = vec![(path.to_owned(), value.to_owned())];
        scene.lifecycle().set("evolving", changes, &operator()).await
    };
    set(&scene, "rollback.enabled", "false").await.unwrap();
    scene.swap(b'a').await.unwrap();
    set(&scene, "dead_letters.max", "10").await.unwrap();
    scene.publish((1..=30).map(|n| format!("later {n}"))).await;
    scene.wait_for_state(ProjectionState::Failed).await;
    let status = scene.status("evolve").unwrap();
    assert!(status.last_error_at_ms.is_some());
    let error = status.last_error.unwrap();
    assert!(
        error.contains("the limit is 10 (dead_letters.max, set for this plugin)"),
        "{error}"
    );
    scene.publish((31..=60).map(|n| format!("later {n}"))).await;
    scene
        .wait("the lag of a halted source", |scene| {
            let status = scene.status("evolve").unwrap();
            status.lag == Some(60 - status.checkpoint)
        })
        .await;
    set(&scene, "dead_letters.policy", "drop-oldest").await.unwrap();
    scene.wait_for_checkpoint(60).await;
    scene
        .wait("fewer than ten", |scene| {
            scene.status("evolve").unwrap().dead_letters < 10
        })
        .await;
    let refused = set(&scene, "limits.memory", "1").await.unwrap_err();
    assert!(refused.to_string().contains("limits.memory"), "{refused}");
    let refused = set(&scene, "colour", "red").await.unwrap_err();
    assert!(refused.to_string().contains("colour"), "{refused}");
    scene.close().await;
    scene.open().await;
    assert_eq!(scene.lifecycle().settings("evolving").dead_letters.max, Some(10));
    // Automatic rollback is disabled, so the version that rejects everything stays active.
    scene.swap(b'd').await.unwrap();
    scene.project(61..=160).await;
    scene.wait_until_quiet().await;
    assert_eq!(scene.status("evolve").unwrap().version, "1.2.0");
    scene.close().await;
    scene.sound();
}
