//! Tests calls into guests that trap, loop, exhaust memory or return invalid data. Each test checks the effect on the
//! other messages of the call.

use std::sync::Arc;
use std::time::Duration;

use lantern_model::batch::{Delivery, Outcome, REASON_BYTES_MAX, RejectionClass, Value};
use lantern_plugin::{Limits, NativeGuest, Projector};

use crate::support::{LONG, messages, outcome_kinds, plugin, quick, reason, word};

/// Projects good messages around one bad message: asserts that the bad one is rejected as `class` with `words` in the
/// reason, and that the others become rows.
#[track_caller]
fn check_alone(payload: &str, class: RejectionClass, words: &str) {
    let mut projector = plugin(quick()).projector();
    for position in [0, 7, 15] {
        let mut payloads = vec!["r"; 16];
        payloads[position] = payload;
        let projected = projector.project(0, &messages(&payloads), LONG);
        assert_eq!(projected.halted, None);
        assert_eq!(projected.outcomes.len(), 16);
        for (index, outcome) in projected.outcomes.iter().enumerate() {
            if index == position {
                let reason = reason(outcome, class);
                assert!(reason.contains(words), "{words:?} is not in {reason:?}");
            } else {
                assert_eq!(
                    word(outcome),
                    "rows",
                    "message {index}, {payload:?} at {position}"
                );
            }
        }
    }
}

#[test]
fn valid_messages_become_the_outcomes_of_the_plugin() {
    let mut projector = plugin(Limits::default()).projector();
    let projected = projector.project(0, &messages(&["rhello", "k", "jbecause", "r"]), LONG);
    assert_eq!(
        outcome_kinds(&projected.outcomes),
        ["rows", "skip", "invalid", "rows"]
    );
    assert_eq!(reason(&projected.outcomes[2], RejectionClass::Invalid), "because");
    let Outcome::Rows(rows) = &projected.outcomes[0] else {
        panic!("{:?}", projected.outcomes[0])
    };
    assert_eq!(rows[0].write, 0);
    assert_eq!(
        rows[0].values,
        [Value::Integer(1), Value::Text("hello".into()), Value::Null]
    );
    assert!(projected.faults.is_empty());
    assert!(projector.project(0, &[], LONG).outcomes.is_empty());
}

#[test]
fn a_plugin_receives_headers_and_sequences_only_if_its_source_has_them() {
    let mut projector = plugin(Limits::default()).projector();
    let mut seen = |source| {
        let projected = projector.project(source, &messages(&["k", "Q"]), LONG);
        let Outcome::Rows(rows) = &projected.outcomes[1] else {
            panic!("{:?}", projected.outcomes[1])
        };
        rows[0].values[..2].to_vec()
    };
    assert_eq!(
        seen(0),
        [Value::Integer(2), Value::Text("header".into())],
        "a stream that wants headers"
    );
    assert_eq!(
        seen(1),
        [Value::Integer(2), Value::Text("none".into())],
        "a stream that does not"
    );
    assert_eq!(
        seen(2),
        [Value::Integer(0), Value::Text("header".into())],
        "core NATS has no positions"
    );
}

#[test]
fn a_trap_rejects_only_its_message() {
    check_alone("T", RejectionClass::Trap, "unreachable");
}

#[test]
fn an_endless_loop_rejects_only_its_message() {
    check_alone("L", RejectionClass::Timeout, "did not end within 150 ms");
}

#[test]
fn endless_recursion_rejects_only_its_message() {
    check_alone("D", RejectionClass::Trap, "stack");
}

#[test]
fn exhausted_memory_rejects_only_its_message() {
    check_alone("M", RejectionClass::Memory, "the limit is 64 MiB");
}

#[test]
fn bulk_copies_are_interrupted() {
    check_alone("F", RejectionClass::Timeout, "did not end");
}

#[test]
fn a_trap_on_every_seventh_message_of_a_call_rejects_few_messages() {
    let mut projector = plugin(Limits::default()).projector();
    let projected = projector.project(0, &messages(&vec!["7"; 500]), LONG);
    // In a call with one message, no message is the seventh.
    assert_eq!(outcome_kinds(&projected.outcomes), vec!["rows"; 500]);
    let payloads: Vec<&str> = (1..=500)
        .map(|number| if number % 7 == 0 { "T" } else { "r" })
        .collect();
    let projected = projector.project(0, &messages(&payloads), LONG);
    for (outcome, payload) in projected.outcomes.iter().zip(&payloads) {
        assert_eq!(word(outcome), if *payload == "T" { "trap" } else { "rows" });
    }
    assert_eq!(projected.outcomes.len(), 500);
    let rejected: usize = projected.faults.iter().map(|fault| fault.rejected).sum();
    assert_eq!(rejected, 71);
    assert!(
        projected
            .faults
            .iter()
            .all(|fault| fault.class == RejectionClass::Trap && fault.messages > 0)
    );
}

#[test]
fn a_call_does_not_see_the_damage_of_the_previous_one() {
    let mut projector = plugin(Limits::default()).projector();
    // A successful call corrupts the instance, so the next call fails although its messages are valid.
    for _ in 0..3 {
        let projected = projector.project(0, &messages(&["P", "r", "r"]), LONG);
        assert_eq!(outcome_kinds(&projected.outcomes), ["rows"; 3]);
    }
    let projected = projector.project(0, &messages(&["r"; 20]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows"; 20]);
    assert_eq!(projected.faults.len(), 1);
    assert_eq!(projected.faults[0].rejected, 0);
    for _ in 0..4 {
        let projected = projector.project(0, &messages(&["E"; 10]), LONG);
        assert_eq!(
            outcome_kinds(&projected.outcomes),
            ["rows"; 10],
            "every second call traps"
        );
    }
}

#[test]
fn rows_that_violate_the_declaration_reject_only_their_message() {
    check_alone(
        "N",
        RejectionClass::Output,
        "2 values, but its write has 3 columns",
    );
    check_alone("V", RejectionClass::Output, "column n");
    check_alone("0", RejectionClass::Output, "column n: null");
    check_alone("W", RejectionClass::Output, "write 9");
    check_alone("Z", RejectionClass::Output, "column j: not a JSON document");
    check_alone("rNUL\0", RejectionClass::Output, "column note: a NUL");
}

#[test]
fn an_answer_of_the_wrong_length_rejects_only_its_message() {
    check_alone("-", RejectionClass::Output, "0 outcomes for 1 messages");
    check_alone("+", RejectionClass::Output, "2 outcomes for 1 messages");
}

#[test]
fn an_unreadable_answer_rejects_only_its_message() {
    check_alone("U", RejectionClass::Output, "utf-8");
    check_alone("O", RejectionClass::Output, "out of bounds");
    check_alone("H", RejectionClass::Output, "bytes of values");
    check_alone("B", RejectionClass::Output, "20000 rows for one message");
}

#[test]
fn a_long_and_hostile_reason_is_truncated_and_cleaned() {
    let mut projector = plugin(Limits::default()).projector();
    let payload = format!("j\u{1b}[31m{}", "x".repeat(3 << 20));
    let projected = projector.project(0, &messages(&["r", &payload]), LONG);
    let reason = reason(&projected.outcomes[1], RejectionClass::Invalid);
    assert!(
        reason.len() <= REASON_BYTES_MAX && !reason.contains('\u{1b}'),
        "{} bytes",
        reason.len()
    );
}

#[test]
fn a_slow_plugin_completes_without_rejections() {
    let limits = Limits {
        message_time: Duration::from_secs(2),
        ..Limits::default()
    };
    let mut projector = plugin(limits).projector();
    let all = messages(&["w"; 40]);
    let mut done = 0;
    let mut rounds = 0;
    while done < all.len() {
        let projected = projector.project(0, &all[done..], Duration::from_millis(50));
        assert!(!projected.outcomes.is_empty(), "each round moves on");
        assert!(
            projected.outcomes.iter().all(|outcome| word(outcome) == "rows"),
            "{:?}",
            projected.faults
        );
        done += projected.outcomes.len();
        rounds += 1;
    }
    assert!(
        rounds > 1,
        "40 slow messages ended within the first budget of 50 ms"
    );
}

#[test]
fn excess_log_lines_are_dropped_and_counted() {
    let plugin = plugin(Limits {
        message_time: Duration::from_secs(20),
        ..Limits::default()
    });
    let mut projector = plugin.projector();
    let projected = projector.project(0, &messages(&["r", "Xflood", "r"]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows"; 3]);
    assert!(
        plugin.log_lines_dropped() > 900_000,
        "{} lines were dropped",
        plugin.log_lines_dropped()
    );
}

#[test]
fn an_interrupt_ends_the_running_call_and_rejects_no_message() {
    let limits = Limits {
        message_time: Duration::from_secs(60),
        ..Limits::default()
    };
    let mut projector = plugin(limits).projector();
    let interrupt = projector.interrupt();
    let projected = std::thread::scope(|scope| {
        let call = scope.spawn(|| projector.project(0, &messages(&["r", "L", "r"]), LONG));
        // The call does not end on its own: without the interrupt, it would end with a timeout.
        interrupt.set();
        call.join().unwrap()
    });
    assert!(!outcome_kinds(&projected.outcomes).contains(&"timeout"));
    assert_eq!((projected.halted, projected.faults), (None, Vec::new()));
    assert!(projector.project(0, &messages(&["r"]), LONG).outcomes.is_empty());
}

#[test]
fn a_panic_of_the_host_leaves_a_usable_projector() {
    // A panicking subscriber represents any bug in the host's own code during a guest call.
    struct Panics;
    impl tracing::Subscriber for Panics {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "lantern::guest"
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            panic!("a bug of the host");
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    let mut projector = plugin(Limits::default()).projector();
    let all = messages(&["r", "lboom", "r"]);
    let panicked = tracing::subscriber::with_default(Panics, || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| projector.project(0, &all, LONG))).is_err()
    });
    assert!(panicked, "the panic reaches the caller");
    let projected = projector.project(0, &all, LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows"; 3]);
    assert!(projected.faults.is_empty());
}

#[test]
fn an_exhausted_budget_ends_a_search_with_the_decided_messages() {
    let mut projector = plugin(quick()).projector();
    let mut payloads = vec!["r"; 64];
    payloads[3] = "L";
    payloads[40] = "T";
    let all = messages(&payloads);
    let (mut outcomes, mut rounds) = (Vec::new(), 0);
    while outcomes.len() < all.len() {
        let projected = projector.project(0, &all[outcomes.len()..], Duration::ZERO);
        assert!(!projected.outcomes.is_empty());
        outcomes.extend(projected.outcomes);
        rounds += 1;
    }
    let expected = payloads.iter().map(|payload| match *payload {
        "L" => "timeout",
        "T" => "trap",
        _ => "rows",
    });
    assert_eq!(outcome_kinds(&outcomes), expected.collect::<Vec<_>>());
    assert!(rounds > 2, "{rounds} rounds");
}

#[test]
fn a_message_larger_than_the_guests_memory_is_rejected() {
    let mut projector = plugin(Limits {
        memory_bytes: 4 << 20,
        ..Limits::default()
    })
    .projector();
    let big = format!("r{}", "x".repeat(6 << 20));
    let projected = projector.project(0, &messages(&["r", &big, "r"]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows", "memory", "rows"]);
}

#[test]
fn large_batches_and_payloads_keep_their_order() {
    let mut projector = plugin(Limits::default()).projector();
    let payloads: Vec<String> = (0..5_000)
        .map(|number| format!("r{}", "x".repeat(number)))
        .collect();
    let projected = projector.project(0, &messages(&payloads), LONG);
    assert_eq!(projected.outcomes.len(), 5_000);
    assert!(projected.faults.is_empty(), "{:?}", projected.faults);
    for (sequence, outcome) in (1..).zip(&projected.outcomes) {
        let Outcome::Rows(rows) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(rows[0].values[0], Value::Integer(sequence));
    }
    projector.release_instance();
    assert_eq!(
        outcome_kinds(&projector.project(0, &messages(&["r"]), LONG).outcomes),
        ["rows"]
    );
}

#[test]
fn a_missing_source_halts_without_rejecting_messages() {
    let projected = plugin(Limits::default())
        .projector()
        .project(9, &messages(&["r"]), LONG);
    assert!(projected.outcomes.is_empty());
    assert!(projected.halted.is_some());
}

#[test]
fn projectors_are_independent_and_can_move_between_threads() {
    let plugin = plugin(quick());
    let threads: Vec<_> = ["L", "r"]
        .map(|payload| {
            let mut projector = plugin.projector();
            std::thread::spawn(move || {
                outcome_kinds(&projector.project(0, &messages(&[payload]), LONG).outcomes)
            })
        })
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    assert_eq!(threads, [["timeout"], ["rows"]]);
}

#[test]
fn a_native_decoder_passes_the_same_checks() {
    struct Native;
    impl NativeGuest for Native {
        fn project(&mut self, _source: u32, messages: &[Delivery]) -> Vec<Outcome> {
            messages.iter().map(|_| Outcome::Rows(vec![])).collect()
        }
    }
    let manifest = Arc::clone(plugin(Limits::default()).manifest());
    let mut projector = Projector::native(manifest, Limits::default(), Box::new(Native));
    assert_eq!(
        outcome_kinds(&projector.project(0, &messages(&["r", "r"]), LONG).outcomes),
        ["skip", "skip"]
    );
}
