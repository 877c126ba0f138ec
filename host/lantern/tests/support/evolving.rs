//! The test plugin with many versions: it is built once, and a letter in its bytes selects the version. See
//! `plugins/evolving`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

const MARKER: &[u8] = b"evolving-letter:a";

/// Returns the version of the plugin with this letter.
pub fn version(letter: u8) -> Vec<u8> {
    let mut bytes = built().to_vec();
    let at = bytes
        .windows(MARKER.len())
        .position(|window| window == MARKER)
        .unwrap();
    bytes[at + MARKER.len() - 1] = letter;
    bytes
}

fn built() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build("evolving"))
}

/// Builds a plugin of this repository that is not part of the demo.
pub fn build(name: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plugin.wasm");
    let built = Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(["plugin", "build"])
        // Use the real clock even if the test replaces it, because cargo compares file times.
        .env_remove("LD_PRELOAD")
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../plugins")
                .join(name),
        )
        .arg("--out")
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::read(&file).unwrap()
}
