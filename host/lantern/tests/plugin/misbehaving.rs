//! Tests the repository's own misbehaving guests, built from Rust like an author's plugin: `plugins/misbehaving`, one
//! component that behaves as its messages request, and examples that fail during loading.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lantern_model::batch::{Outcome, RejectionClass, Value};
use lantern_plugin::{Digest, Limits, LoadError, Plugin, Target, build, encode};

use crate::support::{LONG, loader, messages, quick, reason, word};

const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/misbehaving");

/// Returns the output of `lantern plugin build plugins/misbehaving`; built once for all tests.
fn component() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("misbehaving.wasm");
        let built = build(Path::new(CRATE), Some(&out), Target::Bare)
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
        assert_eq!(built.path, out);
        let bytes = std::fs::read(&out).unwrap();
        assert_eq!(built.plugin.digest(), Digest::of(&bytes));
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no other file remains"
        );
        bytes
    })
}

fn plugin(limits: Limits) -> Arc<Plugin> {
    loader(limits).load(component()).unwrap()
}

/// Returns one of the examples as a component.
fn example(name: &str) -> Vec<u8> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--examples",
            "--target",
            "wasm32-unknown-unknown",
            "--profile",
            "plugin",
        ]);
        let output = cargo
            .arg("--message-format=json")
            .current_dir(CRATE)
            .output()
            .expect("cargo runs");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut words = report.split('"');
        let file = words
            .find(|word| word.ends_with("/unsteady_describe.wasm"))
            .expect("cargo names the file");
        Path::new(file).parent().unwrap().to_owned()
    });
    encode(&std::fs::read(folder.join(format!("{name}.wasm"))).unwrap()).unwrap()
}

/// Projects messages around one bad message: asserts that it is rejected as `class`, and that the others become rows.
#[track_caller]
fn check_alone(projector: &mut lantern_plugin::Projector, payload: &str, class: RejectionClass, words: &str) {
    let payloads = ["ok 1", "ok 2", payload, "ok 4"];
    let projected = projector.project(0, &messages(&payloads), LONG);
    assert_eq!(projected.outcomes.len(), 4, "{payload:?}: {:?}", projected.halted);
    for (outcome, sent) in projected.outcomes.iter().zip(payloads) {
        if sent == payload {
            let reason = reason(outcome, class);
            assert!(
                reason.contains(words),
                "{payload:?}: {words:?} is not in {reason:?}"
            );
        } else {
            assert_eq!(word(outcome), "rows", "{sent:?} next to {payload:?}");
        }
    }
}

#[test]
fn a_trap_has_the_panic_message_even_if_the_log_drops_its_line() {
    let limits = Limits {
        log_lines_per_second: 0,
        ..quick()
    };
    let mut projector = plugin(limits).projector();
    check_alone(&mut projector, "panic", RejectionClass::Trap, "panicked at");
}

#[test]
fn each_bad_message_has_its_class_and_affects_no_other() {
    let mut projector = plugin(quick()).projector();
    let mut check = |payload, class, words| check_alone(&mut projector, payload, class, words);
    check("trap", RejectionClass::Trap, "unreachable");
    check("loop", RejectionClass::Timeout, "did not end");
    check("copy", RejectionClass::Memory, "the limit is 64 MiB");
    check("recurse", RejectionClass::Trap, "stack");
    check("grow", RejectionClass::Memory, "the limit is 64 MiB");
    check("short-answer", RejectionClass::Output, "0 outcomes");
    check("long-answer", RejectionClass::Output, "3 outcomes");
    check("wrong-count", RejectionClass::Output, "values");
    check("extra-value", RejectionClass::Output, "values");
    check("wrong-type", RejectionClass::Output, "column");
    check("null-in-not-null", RejectionClass::Output, "column must: null");
    check("unknown-write", RejectionClass::Output, "write");
    check("half-wrong 3", RejectionClass::Output, "row 2 of 2");
    check("nan", RejectionClass::Output, "not finite");
    check("infinity", RejectionClass::Output, "not finite");
    check("nul-text", RejectionClass::Output, "NUL");
    check("bad-json", RejectionClass::Output, "not a JSON document");
    check("too-many-rows 20000", RejectionClass::Output, "20000 rows");
    check("huge-text 20", RejectionClass::Output, "bytes of values");
    check("reject no", RejectionClass::Malformed, "no");
}

#[test]
fn copies_of_half_of_the_memory_are_interrupted() {
    let limits = Limits {
        memory_bytes: 128 << 20,
        ..quick()
    };
    check_alone(
        &mut plugin(limits).projector(),
        "copy",
        RejectionClass::Timeout,
        "did not end",
    );
}

#[test]
fn a_million_rows_and_a_text_of_a_hundred_mebibytes_end_as_dead_letters() {
    let mut projector = plugin(Limits::default()).projector();
    for payload in ["too-many-rows", "huge-text"] {
        let projected = projector.project(0, &messages(&["ok 1", payload, "ok 3"]), LONG);
        let [first, bad, last] = projected.outcomes.as_slice() else {
            panic!("{:?}", projected.outcomes.len())
        };
        assert_eq!((word(first), word(last)), ("rows", "rows"));
        assert!(matches!(bad, Outcome::Reject(_)), "{payload:?}");
    }
}

#[test]
fn a_corrupted_instance_is_replaced() {
    let mut projector = plugin(Limits::default()).projector();
    for _ in 0..3 {
        let projected = projector.project(0, &messages(&["poison", "ok 2"]), LONG);
        assert!(
            projected.outcomes.iter().all(|outcome| word(outcome) == "rows"),
            "{:?}",
            projected.outcomes
        );
    }
}

#[test]
fn a_message_that_fails_only_in_a_group_is_not_rejected() {
    let mut projector = plugin(Limits::default()).projector();
    let projected = projector.project(0, &messages(&["count7"; 300]), LONG);
    assert_eq!(projected.outcomes.len(), 300);
    assert!(projected.outcomes.iter().all(|outcome| word(outcome) == "rows"));
}

#[test]
fn deep_json_and_many_log_lines_are_harmless() {
    let plugin = plugin(Limits {
        message_time: Duration::from_secs(10),
        ..Limits::default()
    });
    let payloads = ["deep-json", "log-flood", "log-huge", "log hello", "ansi", "skip"];
    let projected = plugin.projector().project(0, &messages(&payloads), LONG);
    let words: Vec<_> = projected.outcomes.iter().map(word).collect();
    assert_eq!(words[1..], ["rows", "rows", "rows", words[4], "skip"]);
    assert!(
        plugin.log_lines_dropped() > 90_000,
        "{}",
        plugin.log_lines_dropped()
    );
    let Outcome::Reject(rejection) = &projected.outcomes[4] else {
        panic!("{:?}", projected.outcomes[4])
    };
    assert!(!rejection.reason.chars().any(char::is_control));
}

#[test]
fn integers_become_reals_only_if_exact() {
    let mut projector = plugin(Limits::default()).projector();
    let projected = projector.project(0, &messages(&["typed 7 {\"a\":1}"]), LONG);
    let Outcome::Rows(rows) = &projected.outcomes[0] else {
        panic!("{:?}", projected.outcomes)
    };
    assert_eq!(rows[0].values[0], Value::Integer(7));
}

#[track_caller]
fn refused(name: &str, expected: &str) -> LoadError {
    let limits = Limits {
        describe_time: Duration::from_millis(150),
        ..Limits::default()
    };
    let Err(error) = loader(limits).load(&example(name)) else {
        panic!("{name} was loaded")
    };
    assert!(
        error.to_string().contains(expected),
        "{expected:?} is not in {error}"
    );
    error
}

#[test]
fn faults_at_loading_are_reported_at_loading() {
    refused("loop_in_start", "could not start: it did not end");
    refused("trap_in_start", "could not start:");
    refused("loop_in_describe", "could not describe itself: it did not end");
    refused("trap_in_describe", "could not describe itself:");
    refused("unsteady_describe", "describes itself differently");
    assert!(matches!(
        refused("bad_table_name", "not valid"),
        LoadError::Manifest(_)
    ));
    assert!(matches!(
        refused("two_tables_same_name", "not valid"),
        LoadError::Manifest(_)
    ));
    // Another module checks which plugin owns a table.
    assert!(
        loader(Limits::default())
            .load(&example("steals_obs_events"))
            .is_ok()
    );
}
