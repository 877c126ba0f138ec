//! Links libFuzzer into the program `fuzz`. `cargo xtask fuzz` builds the library (`fuzz/engine`) and names it in
//! `LANTERN_LIBFUZZER`; without that variable nothing is linked, and only the corpora run, as an ordinary test.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LANTERN_LIBFUZZER");
    if let Ok(library) = std::env::var("LANTERN_LIBFUZZER") {
        // libFuzzer has the program's `main`, so it comes last on the linker's command line.
        println!("cargo::rustc-link-arg-bin=fuzz={library}");
        println!("cargo::rustc-link-arg-bin=fuzz=-lstdc++");
    }
}
