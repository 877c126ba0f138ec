//! Tests the watched directory: files that appear, change, grow in pieces, and disappear.

use std::fs;

use super::*;

impl Scene {
    pub(super) fn file(&self, name: &str) -> std::path::PathBuf {
        self.plugin_dir.path().join(name)
    }

    /// Places a file atomically, by renaming.
    pub(super) fn place(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file("place.tmp"), bytes).unwrap();
        fs::rename(self.file("place.tmp"), self.file(name)).unwrap();
    }

    pub(super) async fn wait_for_version(&self, version: &str) {
        self.wait(version, |scene| {
            scene
                .status("evolve")
                .is_some_and(|status| status.version == version)
        })
        .await;
    }

    async fn wait_for_load_failure(&self, word: &str) {
        self.wait(word, |scene| {
            scene
                .lifecycle()
                .load_failures()
                .iter()
                .any(|refusal| refusal.reason.contains(word))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_runs_and_a_changed_one_is_activated() {
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    scene.project(1..=10).await;
    scene.place("evolving.wasm", &evolving::version(b'i'));
    scene.wait_for_version("1.0.1").await;
    scene.project(11..=20).await;
    assert_eq!(
        scene.query("SELECT note, count(*) FROM evolved GROUP BY note"),
        ["a|10", "i|10"]
    );
    // A rollback stays in effect until the file changes.
    scene.rollback().await;
    scene.close().await;
    scene.open().await;
    scene.wait_for_version("1.0.0").await;
    scene.wait_for_scans(2).await;
    assert_eq!(scene.status("evolve").unwrap().version, "1.0.0");
    scene.place("evolving.wasm", &evolving::version(b'e'));
    scene.wait_for_version("1.3.0").await;
    scene.close().await;
    assert_eq!(
        scene.query("SELECT actor, action, plugin, outcome, detail FROM _lantern_audit ORDER BY id"),
        ["1.0.0", "1.0.1", "1.3.0"]
            .map(|version| [
                format!(
                    "(plugin directory)|plugin.install|evolving|done|version {version}, file evolving.wasm"
                ),
                format!("(plugin directory)|plugin.activate|evolving|done|version {version} is active"),
            ])
            .concat()
    );
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_overwritten_in_pieces_is_loaded_only_when_complete() {
    use std::io::Write as _;
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    let bytes = evolving::version(b'i');
    let mut scans = scene.lifecycle().directory_scans();
    let mut file = fs::File::create(scene.file("evolving.wasm")).unwrap();
    // Each scan but the last sees another part of the file.
    for piece in bytes.chunks(bytes.len() / 6 + 1) {
        assert_eq!(scene.status("evolve").unwrap().version, "1.0.0");
        assert!(scene.lifecycle().load_failures().is_empty());
        file.write_all(piece).unwrap();
        file.sync_all().unwrap();
        scans.mark_unchanged();
        let scanned = tokio::time::timeout(LIMIT, scans.changed()).await;
        scanned.expect("the plugin directory is not scanned").unwrap();
    }
    drop(file);
    scene.wait_for_version("1.0.1").await;
    assert!(
        scene.lifecycle().load_failures().is_empty(),
        "{:?}",
        scene.lifecycle().load_failures()
    );
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_files_are_reported_and_running_plugins_continue() {
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    scene.place("evolving.wasm", b"junk");
    scene
        .wait_for_load_failure("does not begin with the WebAssembly magic number")
        .await;
    scene.project(1..=5).await;
    scene.place("evolving.wasm", &evolving::version(b'c'));
    scene.wait_for_load_failure("would become integer").await;
    scene.place("other.wasm", &evolving::version(b'i'));
    scene
        .wait_for_load_failure("already holds a plugin named evolving")
        .await;
    for name in [".evolving.wasm.swp", "evolving.wasm~", "4913", ".hidden.wasm"] {
        fs::write(scene.file(name), b"junk").unwrap();
    }
    fs::create_dir(scene.file("folder.wasm")).unwrap();
    scene.wait_for_load_failure("it is not a regular file").await;
    fs::remove_dir(scene.file("folder.wasm")).unwrap();
    fs::remove_file(scene.file("other.wasm")).unwrap();
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_no_failure().await;
    assert_eq!(scene.status("evolve").unwrap().version, "1.0.0");
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_file_pauses_its_plugin_and_a_deleted_directory_does_not() {
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    scene.project(1..=5).await;
    fs::remove_file(scene.file("evolving.wasm")).unwrap();
    scene.wait_for_state(ProjectionState::Paused).await;
    scene.publish(6..=10).await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_checkpoint(10).await;
    let aside = scene.plugin_dir.path().with_extension("aside");
    fs::rename(scene.plugin_dir.path(), &aside).unwrap();
    scene.wait_for_load_failure("cannot be read").await;
    scene.project(11..=15).await;
    fs::rename(&aside, scene.plugin_dir.path()).unwrap();
    scene.wait_for_no_failure().await;
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["15"]);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_file_does_not_resume_a_plugin_that_an_operator_paused() {
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    // The actor of the pause decides, not the text of the reason.
    let reason = "its file evolving.wasm was removed by me";
    scene.pause(reason).await;
    scene.wait_for_state(ProjectionState::Paused).await;
    // The failure of another file shows that the watcher has processed the removal and the return.
    scene.place("junk.wasm", b"junk");
    let failed = |scene: &Scene| !scene.lifecycle().load_failures().is_empty();
    scene.wait("the junk is rejected", failed).await;
    fs::remove_file(scene.file("evolving.wasm")).unwrap();
    fs::remove_file(scene.file("junk.wasm")).unwrap();
    scene.wait_for_no_failure().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.place("junk.wasm", b"junk");
    scene.wait("the junk is rejected again", failed).await;
    let view = scene.show().await;
    assert_eq!(view.paused.as_deref(), Some(reason));
    assert_eq!(scene.status("evolve").unwrap().state, ProjectionState::Paused);
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_files_do_not_delay_a_plugin() {
    let mut scene = Scene::start().await;
    for number in 0..10_000 {
        fs::write(scene.file(&format!("junk-{number}.wasm")), b"junk").unwrap();
    }
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    scene.project(1..=5).await;
    // The number of remembered load failures is bounded.
    assert!(scene.lifecycle().load_failures().len() <= 1_000);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_a_removed_plugin_does_not_install_it_again() {
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    scene.remove(false).await;
    scene.close().await;
    scene.open().await;
    scene.wait_for_scans(2).await;
    assert!(scene.lifecycle().list().await.unwrap().is_empty());
    // Another version is installed, and so is the same file after it was removed and placed again.
    fs::remove_file(scene.file("evolving.wasm")).unwrap();
    scene
        .wait_for_result(
            "the file is forgotten",
            "SELECT count(*) FROM _lantern_plugin_file",
            "0",
        )
        .await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_appears_during_a_rebuild_waits_for_its_end() {
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    scene.project(1..=3_000).await;
    // The rebuild would take five minutes: longer than any machine needs to detect and compile the file.
    let slow = lantern_lifecycle::RebuildRequest {
        rate: Some(10),
        ..Default::default()
    };
    let rebuild = scene
        .lifecycle()
        .rebuild("evolving", slow, &operator())
        .await
        .unwrap();
    scene.place("evolving.wasm", &evolving::version(b'i'));
    scene.wait_for_load_failure("wait for it or cancel it").await;
    scene
        .lifecycle()
        .cancel_rebuild(rebuild, &operator())
        .await
        .unwrap();
    scene.wait_for_version("1.0.1").await;
    scene.wait_for_no_failure().await;
    scene.close().await;
    scene.sound();
}

/// Kubernetes mounts a ConfigMap as links through a folder `..data`, which is itself a link that an update replaces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_behind_links_is_swapped_when_a_link_changes() {
    let mut scene = Scene::start().await;
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, scene.file("new-link")).unwrap();
        fs::rename(scene.file("new-link"), scene.file(name)).unwrap();
    };
    for (folder, letter) in [("..1", b'a'), ("..2", b'i')] {
        fs::create_dir(scene.file(folder)).unwrap();
        fs::write(
            scene.file(folder).join("evolving.wasm"),
            evolving::version(letter),
        )
        .unwrap();
    }
    link("..1", "..data");
    link("..data/evolving.wasm", "evolving.wasm");
    scene.wait_for_version("1.0.0").await;
    link("..2", "..data");
    scene.wait_for_version("1.0.1").await;
    scene.project(1..=5).await;
    assert_eq!(scene.query("SELECT DISTINCT note FROM evolved"), ["i"]);
    scene.close().await;
    scene.sound();
}
