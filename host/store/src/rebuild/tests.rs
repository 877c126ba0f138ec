//! The comparison at the end of a rebuild, while rows change.

use std::sync::Arc;

use super::*;
use crate::commit::Commit;
use crate::testing::{Scene, adoption, first_epoch, order, orders};
use crate::{NewEpoch, Verification, VerifyRequest};

const ROWS: u64 = 700;

/// A rebuild whose new tables have all rows of those in use.
struct Rebuilt {
    scene: Scene,
    id: RebuildId,
    request: VerifyRequest,
    _dir: tempfile::TempDir,
}

impl Rebuilt {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::open(dir.path()).await;
        let outcomes = || {
            (1..=ROWS)
                .map(|n| order(&format!("id {n}"), 1))
                .collect::<Vec<_>>()
        };
        scene.store.commit(scene.batch(0, outcomes())).await.unwrap();
        let rebuilds = scene.store.rebuilds();
        let id = rebuilds
            .begin(adoption(orders()), "{}".to_owned(), None)
            .await
            .unwrap();
        let plugin = rebuilds.adopt(id, adoption(orders())).await.unwrap();
        let epoch = NewEpoch {
            plugin: id.name_of("orders"),
            ..first_epoch()
        };
        let rebuilt = scene.store.sources().begin_epoch(epoch).await.unwrap();
        let commit = Commit {
            origin: rebuilt.origin,
            plugin,
            ..scene.batch(0, outcomes())
        };
        scene.store.commit(commit).await.unwrap();
        let request = VerifyRequest {
            id,
            digest: adoption(orders()).digest,
            scopes: vec![ReplayRange {
                source: "orders".to_owned(),
                origin: scene.attached.origin,
                after: 0,
            }],
            available: vec![None],
            drop_undeclared: false,
            keep_old_s: 0,
        };
        Self {
            scene,
            id,
            request,
            _dir: dir,
        }
    }

    /// A comparison that has read every row.
    async fn compared(&self) -> Comparison {
        let rebuilds = self.scene.store.rebuilds();
        let (scopes, digest) = (self.request.scopes.clone(), self.request.digest.clone());
        let begun = rebuilds.begin_comparison(self.id, Arc::new(orders()), scopes, digest);
        let mut comparison = begun.await.unwrap();
        while !comparison.has_read_all() {
            comparison = rebuilds.continue_comparison(comparison).await.unwrap();
        }
        comparison
    }

    async fn verify(&self, comparison: Comparison) -> Verification {
        let request = self.request.clone();
        self.scene
            .store
            .rebuilds()
            .verify(comparison, request)
            .await
            .unwrap()
    }

    async fn finish(&self, verified: Verification) -> bool {
        let rebuilds = self.scene.store.rebuilds();
        let finished = rebuilds.finish(adoption(orders()), self.request.clone(), verified, None);
        finished.await.unwrap()
    }

    async fn change(&self, sql: &str) {
        self.scene.change(sql).await;
    }
}

#[tokio::test]
async fn equal_tables_are_swapped() {
    let rebuilt = Rebuilt::new().await;
    let verified = rebuilt.verify(rebuilt.compared().await).await;
    assert_eq!((&verified.losses, &verified.differences), (&vec![], &vec![]));
    assert!(!verified.lacks_sums);
    assert_eq!(verified.outcome.row_count, ROWS);
    assert!(rebuilt.finish(verified).await);
    let scene = &rebuilt.scene;
    assert_eq!(scene.query("SELECT count(*), sum(total) FROM orders"), "700 700");
    // Nothing is recorded any more, and the table can be written.
    scene
        .store
        .commit(scene.batch(ROWS, vec![order("new", 1)]))
        .await
        .unwrap();
}

#[tokio::test]
async fn rows_that_change_after_they_were_read_are_noticed_before_the_swap() {
    for (change, difference) in [
        (
            "UPDATE orders SET total = 2 WHERE id = 'id 300'",
            "table orders, column total: total 701 before, 700 after",
        ),
        (
            "UPDATE \"orders#1\" SET total = NULL WHERE id = 'id 1'",
            "table orders, column total: total 700 before, 699 after",
        ),
        (
            "DELETE FROM orders WHERE id = 'id 700'",
            "table orders: 699 rows before, 700 after",
        ),
        ("DELETE FROM orders", "table orders: 0 rows before, 700 after"),
        (
            "UPDATE orders SET id = 'x' || id WHERE id < 'id 5'; DELETE FROM orders WHERE id = 'xid 4'",
            "table orders: 699 rows before, 700 after",
        ),
        (
            "INSERT INTO \"orders#1\" (_origin, _sequence, _row, id, total) VALUES (1, 9999, 0, 'new', 1)",
            "table orders: 700 rows before, 701 after",
        ),
    ] {
        let rebuilt = Rebuilt::new().await;
        let comparison = rebuilt.compared().await;
        rebuilt.change(change).await;
        let verified = rebuilt.verify(comparison).await;
        assert_eq!(verified.differences, [difference], "{change}");
        // Changes that cancel each other out are no difference, but every one was read.
        let comparison = rebuilt.compared().await;
        assert_eq!(
            rebuilt.verify(comparison).await.differences,
            [difference],
            "{change}"
        );
    }
}

#[tokio::test]
async fn rows_that_change_after_the_verification_prevent_the_swap() {
    for change in [
        "UPDATE orders SET total = total WHERE id = 'id 300'",
        "UPDATE \"orders#1\" SET total = total WHERE id = 'id 300'",
        "DELETE FROM orders",
    ] {
        let rebuilt = Rebuilt::new().await;
        let verified = rebuilt.verify(rebuilt.compared().await).await;
        rebuilt.change(change).await;
        assert!(!rebuilt.finish(verified).await, "{change}");
        assert_eq!(
            rebuilt.scene.query("SELECT state FROM _lantern_rebuild"),
            "running"
        );
    }
    // A change before the verification does not.
    let rebuilt = Rebuilt::new().await;
    let comparison = rebuilt.compared().await;
    rebuilt.change("UPDATE orders SET total = total").await;
    assert!(rebuilt.finish(rebuilt.verify(comparison).await).await);
}

#[tokio::test]
async fn a_comparison_ends_when_the_writer_reopens_the_database() {
    let rebuilt = Rebuilt::new().await;
    let comparison = rebuilt.compared().await;
    let verified = rebuilt.verify(rebuilt.compared().await).await;
    let failed = rebuilt
        .scene
        .store
        .call(|_| Err::<(), _>(crate::sql::Error::NoRows));
    failed.await.unwrap_err();
    let ended = rebuilt
        .scene
        .store
        .rebuilds()
        .continue_comparison(comparison)
        .await;
    assert!(ended.unwrap_err().to_string().contains("was reopened"));
    assert!(!rebuilt.finish(verified).await);
    // It can begin again.
    let verified = rebuilt.verify(rebuilt.compared().await).await;
    assert!(rebuilt.finish(verified).await);
}

#[tokio::test]
async fn a_plugin_is_installed_again_before_the_tables_of_its_rebuild_are_removed() {
    let mut rebuilt = Rebuilt::new().await;
    rebuilt.request.keep_old_s = 3_600;
    let verified = rebuilt.verify(rebuilt.compared().await).await;
    assert!(rebuilt.finish(verified).await);
    let plugins = rebuilt.scene.store.plugins();
    plugins.remove("orders", true, Vec::new(), None).await.unwrap();
    // The replaced table still exists, with its indexes.
    plugins.adopt(adoption(orders())).await.unwrap();
    let rebuilds = rebuilt.scene.store.rebuilds();
    let again = rebuilds.begin(adoption(orders()), "{}".to_owned(), None).await;
    assert!(again.unwrap().0 > rebuilt.id.0, "its tables have other names");
    while rebuilds.sweep().await.unwrap() {}
}
