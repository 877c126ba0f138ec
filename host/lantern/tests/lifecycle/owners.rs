//! Tests that operations do not wait for each other without need, and that an operation does its work once.

use super::*;

/// The number of dead letters that were tried only by the version that rejected them.
fn untried(scene: &Scene) -> u64 {
    let count = scene.query("SELECT count(*) FROM _lantern_dead_letter WHERE attempts = 1");
    count[0].parse().unwrap()
}

impl Scene {
    async fn paused(&self, plugin: &str) -> Option<String> {
        self.lifecycle().show(plugin).await.unwrap().paused
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_pauses_do_not_wait_for_a_retry_of_dead_letters() {
    const DEAD_LETTERS: u64 = 250;
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    let twin = scene
        .lifecycle()
        .install_and_activate(evolving::version(b'o'), &operator())
        .await
        .unwrap();
    assert_eq!(twin.plugin, "twin");
    scene
        .publish((1..=DEAD_LETTERS).map(|n| format!("later {n}")))
        .await;
    scene.wait_for_checkpoint(DEAD_LETTERS).await;
    let slow = scene
        .lifecycle()
        .install(evolving::version(b'n'), &operator())
        .await
        .unwrap();
    let lifecycle = scene.lifecycle().clone();
    let activating = tokio::spawn(async move {
        lifecycle
            .activate("evolving", Some(slow.digest), &operator())
            .await
    });
    scene
        .wait("the activation is in the database", |scene| {
            scene.query(
                "SELECT p.version FROM _lantern_installation i JOIN _lantern_plugin p ON p.id = i.active
                 WHERE i.plugin = 'evolving'",
            ) == ["1.10.0"]
        })
        .await;
    // All of these end before the retry does.
    for plugin in ["evolving", "twin"] {
        scene
            .lifecycle()
            .pause(plugin, "maintenance", &operator())
            .await
            .unwrap();
        assert_eq!(scene.paused(plugin).await.as_deref(), Some("maintenance"));
    }
    assert_eq!(scene.lifecycle().list().await.unwrap().len(), 2);
    scene
        .wait("both are paused", |scene| {
            let paused = |source| {
                scene
                    .status(source)
                    .is_some_and(|it| it.state == ProjectionState::Paused)
            };
            paused("evolve") && paused("more")
        })
        .await;
    scene.lifecycle().resume("twin", &operator()).await.unwrap();
    assert_eq!(scene.paused("twin").await, None);
    let changes = vec![("dead_letters.max".to_owned(), "500".to_owned())];
    scene.lifecycle().set("twin", changes, &operator()).await.unwrap();
    let remaining = untried(&scene);
    assert!(remaining > 0, "these operations waited for the retry");

    // The version that was activated during the pause is paused, and the rest is retried in the background.
    activating.await.unwrap().unwrap();
    assert_eq!(scene.paused("evolving").await.as_deref(), Some("maintenance"));
    scene
        .wait("all dead letters are resolved", |scene| {
            scene.query("SELECT count(*) FROM evolved") == [DEAD_LETTERS.to_string()]
        })
        .await;
    scene.publish(1_001..=1_010).await;
    scene
        .wait("the lag of the paused plugin", |scene| {
            scene.status("evolve").unwrap().lag == Some(10)
        })
        .await;
    scene.resume().await;
    scene.wait_for_checkpoint(DEAD_LETTERS + 10).await;
    assert_eq!(scene.status("evolve").unwrap().version, "1.10.0");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retry_of_a_version_ends_when_another_one_is_active() {
    let mut scene = Scene::start().await;
    let changes = vec![("rollback.enabled".to_owned(), "false".to_owned())];
    scene
        .lifecycle()
        .set("evolving", changes, &operator())
        .await
        .unwrap();
    scene.swap(b'a').await.unwrap();
    scene.publish((1..=250).map(|n| format!("later {n}"))).await;
    scene.wait_for_checkpoint(250).await;
    // Compiled before, because the retry in the background would end meanwhile.
    let next = scene
        .lifecycle()
        .install(evolving::version(b'i'), &operator())
        .await
        .unwrap();
    let slow = scene.swap(b'n').await.unwrap();
    assert!(slow.retried.tried < 250, "{:?}", slow.retried);
    // This version rejects the rest.
    let next = scene
        .lifecycle()
        .activate("evolving", Some(next.digest), &operator())
        .await
        .unwrap();
    assert_eq!(next.retried.resolved, 0);
    scene.wait_until_quiet().await;
    let open = scene.query("SELECT count(*) FROM _lantern_dead_letter WHERE state = 'open'");
    assert_ne!(open, ["0"], "the replaced version retried the rest");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_survives_activations() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    scene.pause("maintenance").await;
    let swapped = scene.swap(b'i').await.unwrap();
    assert_eq!(swapped.state, VersionState::Paused);
    scene.wait_for_state(ProjectionState::Paused).await;
    scene.close().await;
    scene.open().await;
    scene.wait_for_state(ProjectionState::Paused).await;
    // A removed plugin leaves no pause behind.
    scene.remove(true).await;
    scene.publish(1..=10).await;
    assert_eq!(scene.swap(b'a').await.unwrap().state, VersionState::Active);
    scene.wait_for_checkpoint(10).await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_with_activation_loads_the_component_once() {
    let mut scene = Scene::start().await;
    scene.swap(b'a').await.unwrap();
    let loader = Arc::clone(&scene.running.as_ref().unwrap().loader);
    let counters = || (loader.counters(), scene.lifecycle().installation_lookups());
    let (before, lookups) = counters();
    let installed = scene
        .lifecycle()
        .install_and_activate(evolving::version(b'b'), &operator())
        .await
        .unwrap();
    let (after, lookups_after) = counters();
    assert_eq!(after.loads - before.loads, 1);
    assert_eq!(after.compilations - before.compilations, 1);
    assert_eq!(lookups_after - lookups, 1);
    assert_eq!(installed.state, VersionState::Active);
    let added: Vec<&str> = installed
        .differences
        .iter()
        .map(|difference| difference.change.as_str())
        .collect();
    assert!(added.iter().any(|words| words.contains("extra")), "{added:?}");
    let view = scene.show().await;
    assert_eq!(view.active, Some(installed.digest.to_string()));
    assert_eq!(view.previous, installed.from);

    // The same component again is loaded from the cache and changes nothing.
    let again = scene
        .lifecycle()
        .install_and_activate(evolving::version(b'b'), &operator())
        .await
        .unwrap();
    assert_eq!(again.from, Some(installed.digest.to_string()));
    let (last, _) = counters();
    assert_eq!(
        (last.loads - after.loads, last.compilations),
        (1, after.compilations)
    );
    drop(loader);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_cannot_be_activated_stays_installed() {
    let mut scene = Scene::start().await;
    let first = scene.swap(b'a').await.unwrap();
    let error = scene
        .lifecycle()
        .install_and_activate(evolving::version(b'c'), &operator())
        .await
        .unwrap_err();
    let InstallError::NotActivated { version, source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(version, "2.0.0");
    assert!(matches!(source, LifecycleError::Tables(_)), "{source}");
    let view = scene.show().await;
    assert_eq!(view.active, Some(first.digest.to_string()));
    assert_eq!(view.versions.len(), 2);
    let error = scene
        .lifecycle()
        .install_and_activate(b"junk".to_vec(), &operator())
        .await
        .unwrap_err();
    assert!(
        matches!(error, InstallError::NotInstalled(LifecycleError::Load(_))),
        "{error}"
    );
    scene.close().await;
    scene.sound();
}
