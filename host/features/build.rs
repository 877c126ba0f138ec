//! Does nothing. Cargo ignores build dependencies, and their features, of a package without a build script.

fn main() {}
