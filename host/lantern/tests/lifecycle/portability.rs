//! Tests versions whose declarations not every database can hold: the host accepts no new one, and runs those that an
//! earlier release installed.

use super::*;
use lantern_model::status::ProjectionWarningKind;
use lantern_plugin::Digest;

const TABLE: &str = "evolved_under_a_name_that_not_every_database_can_hold";

impl Scene {
    async fn wait_for_long_named_rows(&self, count: u64) {
        self.wait(&format!("{count} rows"), |scene| {
            scene.query(&format!("SELECT count(*) FROM {TABLE}")) == [count.to_string()]
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_portable_runs_only_if_it_is_installed_already() {
    let mut scene = Scene::start().await;
    let component = evolving::version(b'p');
    let LifecycleError::Load(rejected) = scene.swap(b'p').await.unwrap_err() else {
        panic!("another error than expected")
    };
    let rejected = rejected.to_string();
    assert!(
        rejected.contains(&format!("table name \"{TABLE}\" is longer than 48 characters")),
        "{rejected}"
    );
    // Earlier releases accepted and stored it.
    let stored = format!("{}.wasm", Digest::of(&component).hex());
    std::fs::write(scene.dir.path().join("components").join(stored), &component).unwrap();
    scene.swap(b'p').await.unwrap();
    scene.publish(1..=10).await;
    scene.wait_for_long_named_rows(10).await;
    scene.close().await;
    scene.open().await;
    scene.publish(11..=20).await;
    scene.wait_for_long_named_rows(20).await;
    scene
        .wait("the warning", |scene| {
            let status = scene.status("evolve").unwrap();
            let warning = status
                .warnings
                .iter()
                .find(|warning| warning.kind == ProjectionWarningKind::NotPortable);
            warning.is_some_and(|warning| warning.detail.contains(TABLE) && !warning.not_ready)
        })
        .await;
    scene.swap(b'a').await.unwrap();
    scene
        .wait("no warning", |scene| {
            scene.status("evolve").unwrap().warnings.is_empty()
        })
        .await;
    scene.lifecycle().rollback("evolving", &operator()).await.unwrap();
    scene.publish(21..=30).await;
    scene.wait_for_long_named_rows(30).await;
    scene.sound();
    scene.close().await;
}
