//! Tests that commands report names of plugins that do not exist, and print names that the next command accepts.

use super::*;

#[test]
fn a_plugin_that_does_not_exist_is_an_error_and_settings_alone_are_no_installation() {
    let scene = Scene::start();
    scene.done("plugin install a.wasm --activate");
    assert_contains(&scene.done("gaps --plugin evolving"), &["no gaps"]);
    assert_contains(
        &scene.done("dead-letters list --plugin evolving"),
        &["no matching dead letters"],
    );
    for command in ["gaps --plugin nope", "dead-letters list --plugin nope"] {
        assert_contains(&scene.fails(command, 1), &["nope"]);
    }
    assert_contains(&scene.done("audit --action nope"), &["no matching audit entries"]);
    assert_contains(
        &scene.done("plugin set nope limits.memory=64MiB"),
        &["settings of nope", "plugin nope is not installed"],
    );
    assert_contains(&scene.done("plugin list"), &["not installed"]);
    assert_contains(
        &scene.done("plugin remove nope --keep-tables"),
        &["removed the settings of nope, which was not installed"],
    );
}

#[test]
fn a_canary_names_the_command_that_activates_its_version() {
    let scene = Scene::start();
    scene.done("plugin install a.wasm --activate");
    scene.publish(&["1", "2", "3"]);
    scene.wait_for_checkpoint(3);
    let compatible = scene.done("plugin install f.wasm --canary 10");
    assert_contains(
        &compatible,
        &[
            "to activate: lantern plugin activate evolving@",
            "(table, source, sequence: active -> candidate)",
        ],
    );
    let incompatible = scene.done("plugin install c.wasm --canary 10");
    assert_contains(
        &incompatible,
        &["activation requires a rebuild: lantern rebuild evolving@"],
    );
    assert!(!incompatible.contains("plugin activate"), "{incompatible}");
}
