//! Tells the tests whether the dashboard was built (`cfg(dashboard_built)`), so that those that need it are ignored with a
//! reason where it was not.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(dashboard_built)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../web/dist");
    if Path::new("../../web/dist/page/index.html").is_file() {
        println!("cargo::rustc-cfg=dashboard_built");
    }
}
