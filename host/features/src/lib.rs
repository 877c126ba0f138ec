//! No code: the manifest of this crate selects features of dependencies, so that all commands compile them once.
