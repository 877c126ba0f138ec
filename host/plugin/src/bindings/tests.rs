//! Several contract versions in one host.

use std::time::Duration;

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::super::compile::CompileError;
use super::super::{Compiler, EngineConfig, LoadError, Loader, OutlineError, encode};
use super::Contract;
use lantern_model::batch::{Delivery, Outcome, Value};

#[path = "../../../lantern/tests/plugin/guest.rs"]
mod guest;

/// A plugin of the test-only version.
fn second() -> Vec<u8> {
    let mut module = wat::parse_str(include_str!("v0_2_test.wat")).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("v0_2_test.wit", include_str!("v0_2_test.wit"))
        .unwrap();
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    encode(&module).unwrap()
}

fn loader() -> Loader {
    Loader::new(EngineConfig::new(Compiler::InProcess), [1; 32]).unwrap()
}

fn deliveries(payloads: &[&str]) -> Vec<Delivery> {
    (1..)
        .zip(payloads)
        .map(|(sequence, payload)| Delivery {
            subject: "a.b".into(),
            sequence,
            published_ns: 1,
            headers: Vec::new(),
            payload: payload.as_bytes().to_vec().into(),
        })
        .collect()
}

#[test]
fn plugins_of_two_contract_versions_run_together() {
    let loader = loader();
    let first = loader
        .load(&guest::component(&guest::Variant::default()))
        .unwrap();
    let second = loader.load(&second()).unwrap();
    assert_eq!(first.facts().contract, Contract::V0_1);
    assert_eq!(second.facts().contract, Contract::V0_2Test);
    assert_eq!(second.manifest().name.to_string(), "second");
    assert_eq!(second.manifest().tables[0].columns[0].name.to_string(), "n");

    let (mut old, mut new) = (first.projector(), second.projector());
    for _ in 0..3 {
        let outcomes = old
            .project(0, &deliveries(&["r"]), Duration::from_secs(60))
            .outcomes;
        assert!(matches!(&outcomes[..], [Outcome::Rows(_)]), "{outcomes:?}");
        let outcomes = new
            .project(0, &deliveries(&["x", "", "y"]), Duration::from_secs(60))
            .outcomes;
        let [Outcome::Rows(one), Outcome::Reject(two), Outcome::Rows(three)] = &outcomes[..] else {
            panic!("{outcomes:?}")
        };
        assert_eq!(
            (&one[0].values[..], &three[0].values[..]),
            (&[Value::Integer(1)][..], &[Value::Integer(3)][..])
        );
        assert_eq!(two.reason, "nothing in it");
    }
}

/// A component with only exports of these names.
fn exporting(names: &[&str]) -> Vec<u8> {
    let exports: String = names
        .iter()
        .map(|name| format!("(export \"{name}\" (instance $nothing))"))
        .collect();
    wat::parse_str(format!("(component (instance $nothing) {exports})")).unwrap()
}

#[test]
fn the_version_is_derived_from_the_exports_and_an_unknown_one_is_rejected() {
    let rejected = |names: &[&str]| match loader().load(&exporting(names)) {
        Err(LoadError::Outline(error)) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was loaded"),
    };
    let error = rejected(&["lantern:projection/projector@0.9.0"]);
    assert_eq!(
        error.to_string(),
        "the component uses lantern:projection/projector@0.9.0, and this host supports lantern:projection@0.1.0, \
         lantern:projection@0.2.0-test"
    );
    assert!(
        error.hint().is_some_and(|hint| hint.contains("newer host")),
        "{:?}",
        error.hint()
    );

    let error = rejected(&[
        "lantern:projection/projector@0.1.0",
        "lantern:projection/projector@0.2.0-test",
    ]);
    assert!(matches!(error, OutlineError::SeveralContracts { .. }), "{error}");

    // A known version is not sufficient: the functions must match it.
    let found = loader().load(&exporting(&["lantern:projection/projector@0.2.0-test"]));
    let differs = matches!(
        found,
        Err(LoadError::Contract {
            contract: Contract::V0_2Test,
            ..
        } | LoadError::Compile(CompileError::Refused(_)))
    );
    assert!(differs, "{:?}", found.err());
}
