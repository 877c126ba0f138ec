//! A plugin that is built once and has many versions: tests overwrite the letter after its marker, which creates a component with
//! another digest. It reads `EVOLVE`; a message is a number, or a word and a number.
//!
//! | letter | version | behaviour |
//! | --- | --- | --- |
//! | `a` | 1.0.0 | a row (n, note) for a number, rejects `later N` |
//! | `b` | 1.1.0 | as `a`, with a new column `extra` and an index on `n` |
//! | `c` | 2.0.0 | as `a`, but `note` is an integer: an incompatible table |
//! | `d` | 1.2.0 | rejects everything |
//! | `e` | 1.3.0 | as `a`, and accepts `later N` |
//! | `f` | 1.4.0 | as `a`, but with n + 1000 |
//! | `g` | 1.5.0 | traps on everything |
//! | `h` | 1.6.0 | also reads a second stream, `EVOLVE_MORE` |
//! | `i` | 1.0.1 | as `a` |
//! | `j` | 1.7.0 | as `a`, and adds n to a second table, `totals` (kind, total), by `even` and `odd` |
//! | `k` | 1.8.0 | as `e`, but with n + 1000 |
//! | `l` | 2.1.0 | as `a`, with a new column `size` that is not nullable |
//! | `m` | 1.9.0 | as `a`, but reads `EVOLVE_MIRROR` instead of `EVOLVE` |
//! | `n` | 1.10.0 | as `e`, but takes about twenty milliseconds for each `later N` |
//! | `s` | 1.14.0 | as `a`, but does not end for `later N` |
//! | `q` | 1.12.0 | as `s`, but reads the core NATS subjects `core.>` |
//! | `r` | 1.13.0 | as `e`, but reads the core NATS subjects `core.>` |
//! | `o` | 1.0.0 | as `a`, but is another plugin, `twin`, which reads `EVOLVE_MORE` into the table `twins` |
//! | `p` | 1.11.0 | as `a`, but the name of its table has more than 48 characters |

#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "the generated exports pass addresses")
)]

#[path = "../../misbehaving/src/bindings.rs"]
mod bindings;

use std::hint::black_box;

use bindings::{
    Column, ColumnType, Guard, Guest, Index, Manifest, Merge, MergeRule, Message, OnConflict, Origin,
    Outcome, Rejection, RejectionClass, Row, Source, StreamSource, Table, UpdateRule, Value, Write, column,
    table, write,
};

#[cfg(target_arch = "wasm32")]
bindings::export!(Evolving with_types_in bindings);

/// Tests find these bytes, and overwrite the last one.
static MARKER: [u8; 16] = *b"evolving-letter:";
static LETTER: [u8; 17] = *b"evolving-letter:a";

/// The plugin.
pub struct Evolving;

fn version_letter() -> u8 {
    let letter = black_box(&LETTER);
    // Hidden from the compiler, because the bytes change after compilation.
    if letter.starts_with(black_box(&MARKER)) {
        letter[16]
    } else {
        b'a'
    }
}

fn columns() -> Vec<Column> {
    let note = if version_letter() == b'c' {
        ColumnType::Integer
    } else {
        ColumnType::Text
    };
    let mut columns = vec![
        column("n", ColumnType::Integer, false),
        column("note", note, true),
    ];
    if version_letter() == b'b' {
        columns.push(column("extra", ColumnType::Text, true));
    }
    if version_letter() == b'l' {
        columns.push(column("size", ColumnType::Integer, false));
    }
    columns
}

/// The table of the rows with a number.
fn main_table() -> &'static str {
    match version_letter() {
        b'o' => "twins",
        b'p' => "evolved_under_a_name_that_not_every_database_can_hold",
        _ => "evolved",
    }
}

fn source(name: &str, stream: &str, subject: &str) -> Source {
    Source {
        name: name.into(),
        origin: Origin::Jetstream(StreamSource {
            stream_name: stream.into(),
            subjects: vec![subject.into()],
        }),
        wants_headers: false,
    }
}

fn core_source() -> Source {
    Source {
        name: "core".into(),
        origin: Origin::Core(vec!["core.>".into()]),
        wants_headers: false,
    }
}

/// A table with merging writes.
fn totals() -> (Table, Write) {
    let columns = vec![
        column("kind", ColumnType::Text, false),
        column("total", ColumnType::Integer, true),
    ];
    let mut totals = table("totals", columns);
    totals.primary_key = vec!["kind".into()];
    let rule = UpdateRule {
        key: vec!["kind".into()],
        merges: vec![MergeRule {
            column: "total".into(),
            merge: Merge::Add,
        }],
        guard: Guard::Always,
    };
    let add = Write {
        on_conflict: OnConflict::Update(rule),
        ..write("totals", &["kind", "total"])
    };
    (totals, add)
}

impl Guest for Evolving {
    fn describe() -> Manifest {
        let version = match version_letter() {
            b'b' => "1.1.0",
            b'c' => "2.0.0",
            b'd' => "1.2.0",
            b'e' => "1.3.0",
            b'f' => "1.4.0",
            b'g' => "1.5.0",
            b'h' => "1.6.0",
            b'i' => "1.0.1",
            b'j' => "1.7.0",
            b'k' => "1.8.0",
            b'l' => "2.1.0",
            b'm' => "1.9.0",
            b'n' => "1.10.0",
            b'p' => "1.11.0",
            b's' => "1.14.0",
            b'q' => "1.12.0",
            b'r' => "1.13.0",
            _ => "1.0.0",
        };
        let columns = columns();
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut evolved = table(main_table(), columns);
        if version_letter() == b'b' {
            evolved.indexes.push(Index {
                columns: vec!["n".into()],
                unique: false,
            });
        }
        let mut sources = vec![match version_letter() {
            b'm' => source("evolve", "EVOLVE_MIRROR", "evolve.>"),
            b'o' => source("more", "EVOLVE_MORE", "more.>"),
            b'q' | b'r' => core_source(),
            _ => source("evolve", "EVOLVE", "evolve.>"),
        }];
        if version_letter() == b'h' {
            sources.push(source("more", "EVOLVE_MORE", "more.>"));
        }
        let mut tables = vec![evolved];
        let mut writes = vec![write(main_table(), &names)];
        if version_letter() == b'j' {
            let (totals, add) = totals();
            tables.push(totals);
            writes.push(add);
        }
        Manifest {
            name: if version_letter() == b'o' {
                "twin"
            } else {
                "evolving"
            }
            .into(),
            version: version.into(),
            doc: "One plugin in many versions.".into(),
            sources,
            tables,
            writes,
        }
    }

    fn project(_source: u32, messages: Vec<Message>) -> Vec<Outcome> {
        messages.iter().map(|message| one(&message.payload)).collect()
    }
}

fn one(payload: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(payload);
    let (word, number) = match text.split_once(' ') {
        Some((word, number)) => (word, number),
        None => ("", &*text),
    };
    let reject = |reason: &str| {
        Outcome::Reject(Rejection {
            class: RejectionClass::Malformed,
            reason: reason.to_owned(),
        })
    };
    let Ok(n) = number.parse::<i64>() else {
        return reject("it is no number");
    };
    match (version_letter(), word) {
        (b'd', _) => reject("this version knows nothing"),
        (b'g', _) => trap(),
        (b'j', "") => Outcome::Rows(vec![row(n), total(n)]),
        (b'n', "later") => {
            work();
            Outcome::Rows(vec![row(n)])
        }
        (b's' | b'q', "later") => loop {
            work();
        },
        (b'e' | b'k' | b'r', "" | "later") | (_, "") => Outcome::Rows(vec![row(n)]),
        (_, word) => reject(&format!("what is {word}?")),
    }
}

/// Uses the processor for about twenty milliseconds: a generator of random numbers, whose steps cannot be combined.
fn work() {
    let mut number = black_box(1_u64);
    for _ in 0..10_000_000 {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
    }
    black_box(number);
}

fn row(n: i64) -> Row {
    let n = if matches!(version_letter(), b'f' | b'k') {
        n + 1_000
    } else {
        n
    };
    let note = match version_letter() {
        b'c' => Value::Integer(n),
        letter => Value::Text(char::from(letter).to_string()),
    };
    let mut values = vec![Value::Integer(n), note];
    if version_letter() == b'b' {
        values.push(Value::Text("more".into()));
    }
    if version_letter() == b'l' {
        values.push(Value::Integer(1));
    }
    Row { write: 0, values }
}

fn total(n: i64) -> Row {
    let kind = if n % 2 == 0 { "even" } else { "odd" };
    Row {
        write: 1,
        values: vec![Value::Text(kind.into()), Value::Integer(n)],
    }
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}
