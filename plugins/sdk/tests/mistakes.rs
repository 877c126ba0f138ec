//! Compiler errors for mistakes in a plugin: each file of `mistakes/` has one mistake, with the expected error in a `.stderr` file.
//! `TRYBUILD=overwrite cargo test -p lantern-sdk --test mistakes` updates the errors.

#[test]
fn each_mistake_is_reported_at_its_place() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
