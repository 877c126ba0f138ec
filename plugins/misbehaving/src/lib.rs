//! A plugin that misbehaves as its messages request. The tests of the host publish a command, and verify that no other plugin
//! loses a message.
//!
//! It reads the stream `EVIL` on `evil.>` and has the tables `evil` (`n` integer, `note` text, both nullable) and
//! `evil_typed` (`must` integer, never null; `r` real and `j` JSON, nullable). The first word of a payload is the
//! command, the rest its argument:
//!
//! | payload | behaviour |
//! |---|---|
//! | `ok N [NOTE]` | one row in `evil` |
//! | `typed N [JSON]` | one row in `evil_typed` |
//! | `skip`, `reject [REASON]` | returns that outcome |
//! | `slow MS` | busy for about that many milliseconds, then one row |
//! | `trap`, `loop`, `recurse`, `grow` | traps; never returns; exhausts the stack; the memory |
//! | `copy` | copies 32 MiB back and forth and never returns |
//! | `poison` | one row, and from then on every call of this instance traps |
//! | `count7` | one row, but traps when it is the 7th, 14th, … message of a call |
//! | `counter` | one row with the number of the instance's messages: not a pure function |
//! | `short-answer`, `long-answer` | no outcome for this message; three outcomes, so that both together do not have the right number |
//! | `wrong-count`, `extra-value`, `wrong-type`, `null-in-not-null`, `unknown-write` | a row that violates the manifest |
//! | `half-wrong N` | a valid row and then an invalid one |
//! | `nan`, `infinity`, `nul-text`, `bad-json` | a row with a value that the contract rejects |
//! | `deep-json [DEPTH]` | JSON with that nesting depth, by default 100,000 |
//! | `too-many-rows [N]` | that many rows, by default 1,000,000 |
//! | `huge-text [MIB]` | a text of that size, by default 100 |
//! | `ansi` | rejects with 1 MiB of escape codes |
//! | `panic TEXT` | logs `panicked at TEXT` as an error, then traps |
//! | `log TEXT`, `log-flood [LINES]`, `log-huge` | logs it; 100,000 lines; 1 MiB in one line; then one row |

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

mod bindings;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bindings::lantern::projection::log::{Level, log};
use bindings::{
    ColumnType, Guest, Manifest, Message, Outcome, Rejection, RejectionClass, Row, Value, column, manifest,
    table, write,
};

#[cfg(target_arch = "wasm32")]
bindings::export!(Misbehaving with_types_in bindings);

/// The write of `evil`.
const EVIL: u32 = 0;
/// The write of `evil_typed`.
const TYPED: u32 = 1;

/// Colours the terminal, rings its bell and sets its title.
const ANSI: &str = "\u{1b}[31m\u{7}red\u{1b}]0;title\u{7}\r\n";

static POISONED: AtomicBool = AtomicBool::new(false);
static COUNTER: AtomicI64 = AtomicI64::new(0);

/// The plugin.
pub struct Misbehaving;

impl Guest for Misbehaving {
    fn describe() -> Manifest {
        let evil = vec![
            column("n", ColumnType::Integer, true),
            column("note", ColumnType::Text, true),
        ];
        let typed = vec![
            column("must", ColumnType::Integer, false),
            column("r", ColumnType::Real, true),
            column("j", ColumnType::Json, true),
        ];
        manifest(
            "misbehaving",
            vec![table("evil", evil), table("evil_typed", typed)],
            vec![
                write("evil", &["n", "note"]),
                write("evil_typed", &["must", "r", "j"]),
            ],
        )
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        if POISONED.load(Ordering::Relaxed) {
            trap();
        }
        let mut outcomes = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let text = String::from_utf8_lossy(&message.payload);
            let (word, argument) = text.split_once(' ').unwrap_or((&text, ""));
            COUNTER.fetch_add(1, Ordering::Relaxed);
            match word {
                "short-answer" => {}
                "long-answer" => outcomes.extend([Outcome::Skip, Outcome::Skip, Outcome::Skip]),
                "count7" if index % 7 == 6 => trap(),
                _ => outcomes.push(behave(word, argument)),
            }
        }
        outcomes
    }
}

/// Runs the command of a message.
fn behave(word: &str, argument: &str) -> Outcome {
    match word {
        "ok" | "count7" => ok(argument),
        "typed" => typed(argument),
        "skip" => Outcome::Skip,
        "reject" => reject(argument.to_owned()),
        "slow" => slow(argument),
        "trap" => trap(),
        "panic" => {
            log(Level::Error, &format!("panicked at {argument}"));
            trap()
        }
        "loop" => spin(),
        "recurse" => evil(Value::Integer(recurse(argument.len() as i64)), Value::Null),
        "grow" => grow(),
        "copy" => copy(),
        "poison" => {
            POISONED.store(true, Ordering::Relaxed);
            evil(Value::Null, Value::Text("poisoned".into()))
        }
        "counter" => evil(Value::Integer(COUNTER.load(Ordering::Relaxed)), Value::Null),
        "wrong-count" => row(EVIL, vec![Value::Integer(1)]),
        "extra-value" => row(EVIL, vec![Value::Integer(1), Value::Null, Value::Null]),
        "wrong-type" => evil(Value::Text("1".into()), Value::Null),
        "null-in-not-null" => row(TYPED, vec![Value::Null, Value::Null, Value::Null]),
        "unknown-write" => row(99, vec![Value::Integer(1), Value::Null]),
        "half-wrong" => half_wrong(argument),
        "nan" => row(TYPED, vec![Value::Integer(1), Value::Real(f64::NAN), Value::Null]),
        "infinity" => row(
            TYPED,
            vec![Value::Integer(1), Value::Real(f64::INFINITY), Value::Null],
        ),
        "nul-text" => evil(Value::Null, Value::Text("before\0after".into())),
        "bad-json" => json("{\"a\":"),
        "deep-json" => {
            let depth = number(argument, 100_000);
            json(&("[".repeat(depth) + &"]".repeat(depth)))
        }
        "too-many-rows" => too_many_rows(number(argument, 1_000_000)),
        "huge-text" => evil(Value::Null, Value::Text("x".repeat(number(argument, 100) << 20))),
        "ansi" => reject(ANSI.repeat((1 << 20) / ANSI.len() + 1)),
        "log" | "log-flood" | "log-huge" => talk(word, argument),
        _ => Outcome::Reject(Rejection {
            class: RejectionClass::Unsupported,
            reason: format!(
                "`{}` is no known misbehaviour",
                word.chars().take(40).collect::<String>()
            ),
        }),
    }
}

fn row(write: u32, values: Vec<Value>) -> Outcome {
    Outcome::Rows(vec![Row { write, values }])
}

fn evil(n: Value, note: Value) -> Outcome {
    row(EVIL, vec![n, note])
}

fn json(text: &str) -> Outcome {
    row(
        TYPED,
        vec![Value::Integer(1), Value::Null, Value::Json(text.into())],
    )
}

fn reject(reason: String) -> Outcome {
    Outcome::Reject(Rejection {
        class: RejectionClass::Malformed,
        reason,
    })
}

fn number(argument: &str, default: usize) -> usize {
    argument.trim().parse().unwrap_or(default)
}

fn ok(argument: &str) -> Outcome {
    let (n, note) = argument.split_once(' ').unwrap_or((argument, ""));
    let n = n.parse().map_or(Value::Null, Value::Integer);
    let note = if note.is_empty() {
        Value::Null
    } else {
        Value::Text(note.into())
    };
    evil(n, note)
}

fn typed(argument: &str) -> Outcome {
    let (must, json) = argument.split_once(' ').unwrap_or((argument, ""));
    let must = must.parse().map_or(Value::Null, Value::Integer);
    let json = if json.is_empty() {
        Value::Null
    } else {
        Value::Json(json.into())
    };
    row(TYPED, vec![must, Value::Null, json])
}

fn half_wrong(argument: &str) -> Outcome {
    let good = Row {
        write: EVIL,
        values: vec![Value::Integer(number(argument, 0) as i64), Value::Null],
    };
    let wrong = Row {
        write: EVIL,
        values: vec![Value::Boolean(true), Value::Null],
    };
    Outcome::Rows(vec![good, wrong])
}

fn too_many_rows(count: usize) -> Outcome {
    let rows = (0..count as i64).map(|n| Row {
        write: EVIL,
        values: vec![Value::Integer(n), Value::Null],
    });
    Outcome::Rows(rows.collect())
}

/// Without a clock, a millisecond is approximated by a million iterations of about a nanosecond.
fn slow(argument: &str) -> Outcome {
    let milliseconds = number(argument, 1) as u64;
    for round in 0..milliseconds * 1_000_000 {
        black_box(round);
    }
    evil(Value::Integer(milliseconds as i64), Value::Text("slow".into()))
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

/// Not a tail call, and not convertible to a loop by the compiler.
fn recurse(depth: i64) -> i64 {
    if depth == i64::MAX {
        return depth;
    }
    recurse(depth + 1).wrapping_mul(3).rotate_left(7) ^ depth
}

/// Allocates and writes memory until none is left.
fn grow() -> ! {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(vec![1; 1 << 20]);
        black_box(&hoard);
    }
}

fn copy() -> ! {
    let mut memory = vec![1_u8; 64 << 20];
    loop {
        memory.copy_within(..32 << 20, 32 << 20);
        black_box(&mut memory).copy_within(32 << 20.., 0);
    }
}

fn talk(word: &str, argument: &str) -> Outcome {
    match word {
        "log-flood" => {
            for line in 0..number(argument, 100_000) {
                log(Level::Error, &format!("line {line} of a flood"));
            }
        }
        "log-huge" => log(Level::Error, &ANSI.repeat((1 << 20) / ANSI.len() + 1)),
        _ => log(Level::Info, argument),
    }
    evil(Value::Null, Value::Text(word.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(payloads: &[&str]) -> Vec<Outcome> {
        let message = |payload: &&str| Message {
            subject: "evil.x".into(),
            sequence: 1,
            published: 0,
            headers: Vec::new(),
            payload: payload.as_bytes().to_vec(),
        };
        Misbehaving::project(0, payloads.iter().map(message).collect())
    }

    #[test]
    fn valid_commands_return_valid_outcomes() {
        assert_eq!(
            project(&["ok 7", "ok 8 a note", "skip", "typed 1 {\"a\":1}"]),
            [
                evil(Value::Integer(7), Value::Null),
                evil(Value::Integer(8), Value::Text("a note".into())),
                Outcome::Skip,
                row(
                    TYPED,
                    vec![Value::Integer(1), Value::Null, Value::Json("{\"a\":1}".into())]
                ),
            ]
        );
    }

    #[test]
    fn misbehaviour_matches_the_table() {
        assert_eq!(project(&["short-answer", "ok 1"]).len(), 1);
        assert_eq!(project(&["long-answer", "ok 1"]).len(), 4);
        let Outcome::Rows(rows) = &project(&["too-many-rows 1000"])[0] else {
            panic!("no rows")
        };
        assert_eq!(rows.len(), 1000);
        let Outcome::Reject(rejection) = &project(&["ansi"])[0] else {
            panic!("no rejection")
        };
        assert!(rejection.reason.len() >= 1 << 20 && rejection.reason.contains('\u{1b}'));
        let Outcome::Reject(rejection) = &project(&["unheard-of"])[0] else {
            panic!("no rejection")
        };
        assert_eq!(rejection.class, RejectionClass::Unsupported);
        for (index, word) in ["count7"; 6].iter().enumerate() {
            assert!(
                matches!(&project(&[word])[0], Outcome::Rows(_)),
                "alone, as message {index}"
            );
        }
    }
}
