//! Nothing: the build of the dependency leaves `libfuzzer.a`, which `cargo xtask fuzz` links.
