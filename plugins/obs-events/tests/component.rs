//! The result of a build: a component of this contract that imports only the log of the host, which also receives panic messages.
//! The test is not in the SDK, because the SDK's examples would then be built with the encoder.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use wit_component::{ComponentEncoder, DecodedWasm};

/// Builds a module of this workspace like `lantern plugin build`, and encodes it.
fn component(arguments: &[&str], file: &str) -> Vec<u8> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let status = Command::new(env!("CARGO"))
        .current_dir(&workspace)
        .args([
            "build",
            "--quiet",
            "--target",
            "wasm32-unknown-unknown",
            "--profile",
            "plugin",
            "--package",
        ])
        .args(arguments)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{arguments:?} does not build: {status}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
    let module = std::fs::read(target.join("wasm32-unknown-unknown/plugin").join(file))
        .expect("cargo built the module");
    let mut encoder = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .expect("the module contains its contract");
    let component = encoder.encode().expect("the module is encoded as a component");
    println!(
        "{file}: {} bytes of core module, {} bytes of component",
        module.len(),
        component.len()
    );
    component
}

/// The names of the imports and exports of a component.
fn surface(component: &[u8]) -> (Vec<String>, Vec<String>) {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component).expect("it decodes") else {
        panic!("not a component");
    };
    let world = &resolve.worlds[world];
    let imports = world
        .imports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    let exports = world
        .exports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    (imports, exports)
}

const PROJECTOR: &str = "lantern:projection/projector@0.1.0";
const LOG: &str = "lantern:projection/log@0.1.0";

#[test]
fn a_plugin_imports_only_the_log() {
    for (arguments, file) in [
        (&["obs-events"][..], "obs_events.wasm"),
        (&["lantern-sdk", "--example", "logging"], "examples/logging.wasm"),
    ] {
        let (imports, exports) = surface(&component(arguments, file));
        assert_eq!(imports, [LOG], "{file}");
        assert_eq!(exports, [PROJECTOR], "{file}");
    }
}
