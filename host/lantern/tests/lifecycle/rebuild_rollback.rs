//! The replaced tables of a rebuild: a rollback to them, and their removal.

use lantern_lifecycle::RebuildRequest;

use super::rebuild_loss::{by, state};
use super::*;

/// Returns a request with the version that has this letter; the replaced tables are kept.
fn keeping(letter: u8) -> RebuildRequest {
    RebuildRequest {
        keep_old_s: 3_600,
        ..by(letter)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_restores_the_replaced_tables_and_reads_later_messages_again() {
    let mut scene = Scene::start().await;
    scene.swap(b'j').await.unwrap();
    let text = |n: u64| {
        if n.is_multiple_of(10) {
            format!("never {n}")
        } else {
            n.to_string()
        }
    };
    scene.publish((1..=100).map(text)).await;
    scene.wait_for_checkpoint(100).await;
    let before = state(&scene);
    scene.install_only(b'c').await;
    let request = RebuildRequest {
        drop_undeclared: true,
        ..keeping(b'c')
    };
    let done = scene.rebuilt(request).await;
    assert!(done.previous_until.is_some());
    assert_eq!(scene.query("SELECT name FROM _lantern_table"), ["evolved"]);
    scene.pause("a test").await;
    let back = scene.rollback().await;
    assert_eq!((back.version.as_str(), back.restored), ("1.7.0", Some(1)));
    assert_eq!(state(&scene), before);
    scene.resume().await;
    scene.wait_until_swept().await;

    // The same again, with messages that arrive in between.
    let done = scene.rebuild(keeping(b'f')).await;
    assert!(matches!(done, Err(LifecycleError::NoVersion { .. })), "{done:?}");
    scene.install_only(b'f').await;
    scene.rebuilt(keeping(b'f')).await;
    scene.publish((101..=120).map(text)).await;
    scene.wait_for_checkpoint(120).await;
    assert_eq!(scene.query("SELECT min(n) FROM evolved"), ["1001"]);
    let back = scene.rollback().await;
    assert_eq!((back.version.as_str(), back.restored), ("1.7.0", Some(2)));
    scene.wait_for_rows(108).await;
    assert_eq!(
        scene.query("SELECT count(*), count(DISTINCT n), max(n), min(note), max(note) FROM evolved"),
        ["108|108|119|j|j"]
    );
    assert_eq!(
        scene.query("SELECT kind, total FROM totals ORDER BY kind"),
        ["even|2880", "odd|3600"]
    );
    scene.wait_until_swept().await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_that_would_lose_messages_is_rejected() {
    let mut scene = Scene::running(b'a', 100).await;
    scene.install_only(b'f').await;
    scene.rebuilt(keeping(b'f')).await;
    scene.publish(101..=110).await;
    scene.wait_for_rows(110).await;
    scene.stream("EVOLVE").await.purge().sequence(106).await.unwrap();
    let before = state(&scene);
    let refused = scene
        .lifecycle()
        .rollback("evolving", &operator())
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("handled 10 messages since, and stream EVOLVE still holds 5"),
        "{refused}"
    );
    assert_eq!(state(&scene), before);
    scene.publish(111..=115).await;
    scene.wait_for_rows(115).await;
    // Once another version is active, a rollback returns to the version before it.
    scene.swap(b'i').await.unwrap();
    let back = scene.rollback().await;
    assert_eq!((back.version.as_str(), back.restored), ("1.4.0", None));
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_tables_are_removed_when_they_expire() {
    let mut scene = Scene::running(b'a', 10).await;
    let kept = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'evolved#1#old'";
    let done = scene
        .rebuild(RebuildRequest {
            keep_old_s: 2,
            ..RebuildRequest::default()
        })
        .await
        .unwrap();
    assert_eq!(done.state, RebuildState::Done, "{done:?}");
    assert_eq!(scene.query(kept), ["evolved#1#old"]);
    scene
        .wait("the sweep", |scene| {
            scene.lifecycle().remove_old_tables();
            scene.query(kept).is_empty()
        })
        .await;
    scene.wait_until_swept().await;
    scene.close().await;
    scene.sound();
}
