//! What the compiler says of mistakes in a plugin: each file of `mistakes/` has one, and beside it stands the message that
//! its author reads. `TRYBUILD=overwrite cargo test -p lantern-sdk --test mistakes` writes the messages anew.

#[test]
fn each_mistake_is_named_where_it_is() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
