//! Tests WASI where it is allowed: every interface exists, contains no data, and never blocks.

use std::sync::Arc;
use std::time::Duration;

use lantern_model::batch::{Outcome, RejectionClass, Value};
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Limits, LoadError, Plugin};

use crate::guest::{Variant, component};
use crate::support::{LONG, loader, messages, outcome_kinds, quick, reason, word};

fn bytes() -> Vec<u8> {
    component(&Variant {
        wasi: true,
        ..Variant::default()
    })
}

fn allowed() -> PluginSettings {
    PluginSettings {
        wasi: true,
        ..PluginSettings::default()
    }
}

fn plugin(limits: Limits) -> Arc<Plugin> {
    loader(limits)
        .load_with(&bytes(), &allowed())
        .expect("the guest loads")
}

/// Returns the first value of each row that these messages become.
#[track_caller]
fn numbers(plugin: &Arc<Plugin>, payloads: &[&str]) -> Vec<i64> {
    let projected = plugin.projector().project(0, &messages(payloads), LONG);
    assert_eq!(projected.outcomes.len(), payloads.len(), "{:?}", projected.halted);
    projected
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Rows(rows) => match rows[0].values[0] {
                Value::Integer(number) => number,
                ref other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn wasi_is_rejected_unless_allowed() {
    let loader = loader(Limits::default());
    let Err(error) = loader.load(&bytes()) else {
        panic!("it was loaded")
    };
    assert!(matches!(error, LoadError::Outline(_)), "{error:?}");
    assert!(
        error.to_string().contains("wasi:clocks/wall-clock@0.2.0"),
        "{error}"
    );
    let hint = error.hint().expect("there is something to do");
    assert!(hint.contains("`lantern plugin set NAME wasi=true`"), "{hint}");

    let plugin = loader.load_with(&bytes(), &allowed()).unwrap();
    assert!(
        plugin
            .facts()
            .imports
            .iter()
            .any(|import| import.starts_with("wasi:sockets/"))
    );
    assert!(
        matches!(
            plugin.with_settings(&PluginSettings::default()),
            Err(LoadError::Outline(_))
        ),
        "it cannot be taken away from a plugin that needs it"
    );
    assert!(plugin.with_settings(&allowed()).is_ok());
}

#[test]
fn interfaces_that_are_not_provided_are_rejected() {
    let http = wat::parse_str(
        "(component (import \"wasi:cli/exit@0.2.0\" (instance)) (import \"wasi:http/types@0.2.0\" (instance))
         (instance $p) (export \"lantern:projection/projector@0.1.0\" (instance $p)))",
    )
    .unwrap();
    let Err(error) = loader(Limits::default()).load_with(&http, &allowed()) else {
        panic!("it was loaded")
    };
    assert!(
        error.to_string().contains("imports wasi:http/types@0.2.0;"),
        "{error}"
    );
}

#[test]
fn the_provided_wasi_is_empty() {
    // Cargo gives this process an environment, arguments and a directory; the guest sees none of them.
    assert!(std::env::vars().count() > 0);
    let plugin = plugin(Limits::default());
    assert_eq!(numbers(&plugin, &["e"]), [0]);
    // result: error, closed
    assert_eq!(numbers(&plugin, &["i"]), [11], "standard input");
    // result: error, access-denied
    assert_eq!(numbers(&plugin, &["c"]), [11], "a socket");
}

#[test]
fn a_replay_yields_the_same_rows() {
    let plugin = plugin(Limits::default());
    assert_eq!(numbers(&plugin, &["t", "w", "t"])[..1], [0], "1970");
    let first = numbers(&plugin, &["u", "u", "t"]);
    assert_ne!(first[0], first[1], "two random numbers of a call differ");
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(numbers(&plugin, &["u", "u", "t"]), first);
    // A reused instance behaves like a new one.
    let mut projector = plugin.projector();
    let mut call = || {
        let projected = projector.project(0, &messages(&["u", "t"]), LONG);
        projected
            .outcomes
            .iter()
            .map(|o| format!("{o:?}"))
            .collect::<Vec<_>>()
    };
    let (one, other) = (call(), call());
    assert_eq!(one, other);
}

#[test]
fn a_sleep_returns_at_once_and_polling_the_clock_ends_in_time() {
    let mut projector = plugin(quick()).projector();
    // A real sleep would exceed the time of the message.
    let projected = projector.project(0, &messages(&["s", "r"]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows", "rows"]);
    let projected = projector.project(0, &messages(&["r", "z", "r"]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows", "timeout", "rows"]);
    let reason = reason(&projected.outcomes[1], RejectionClass::Timeout);
    assert!(reason.contains("did not end within 150 ms"), "{reason}");
    let projected = projector.project(0, &messages(&["r", "0", "r"]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows", "output", "rows"]);
}

#[test]
fn a_call_from_a_blocking_thread_of_a_runtime_yields_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcomes = runtime.block_on(async {
        tokio::task::spawn_blocking(|| {
            let projected = plugin(quick())
                .projector()
                .project(0, &messages(&["phello\n", "s"]), LONG);
            outcome_kinds(&projected.outcomes)
        })
        .await
        .unwrap()
    });
    assert_eq!(outcomes, ["rows", "rows"]);
}

#[test]
fn printed_lines_are_logged_and_excess_lines_dropped() {
    let plugin = plugin(quick());
    let projected = plugin
        .projector()
        .project(0, &messages(&["phello\n", "yflood\n", "yno end", "r"]), LONG);
    assert_eq!(
        outcome_kinds(&projected.outcomes),
        ["rows", "timeout", "timeout", "rows"]
    );
    assert!(plugin.log_lines_dropped() > 100, "{}", plugin.log_lines_dropped());
}

#[test]
fn exit_and_endless_handles_reject_only_their_message() {
    let mut projector = plugin(Limits::default()).projector();
    let projected = projector.project(0, &messages(&["r", "x", "r", "h", "r"]), LONG);
    let found: Vec<_> = projected.outcomes.iter().map(word).collect();
    assert_eq!([found[0], found[2], found[4]], ["rows"; 3], "{found:?}");
    let exit = reason(&projected.outcomes[1], RejectionClass::Trap);
    assert!(exit.contains("wasi:cli/exit"), "{exit}");
    let Outcome::Reject(handles) = &projected.outcomes[3] else {
        panic!("{:?}", projected.outcomes[3])
    };
    assert!(handles.reason.contains("handle"), "{}", handles.reason);
}

#[test]
fn the_limits_apply_with_wasi() {
    let mut projector = plugin(quick()).projector();
    let projected = projector.project(0, &messages(&["r", "L", "M", "T", "r"]), LONG);
    assert_eq!(
        outcome_kinds(&projected.outcomes),
        ["rows", "timeout", "memory", "trap", "rows"]
    );
}
