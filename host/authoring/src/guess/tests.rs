//! The derived table for different samples.

use super::*;
use crate::sample;

fn of(text: &str) -> Guess {
    guess(&sample::split(text.as_bytes(), "x".to_owned()).unwrap().messages)
}

/// `name: type role` for each column, with `?` after a nullable type.
fn columns(guess: &Guess) -> Vec<String> {
    let role = |role: &Role| match role {
        Role::None => String::new(),
        Role::Time => " time".to_owned(),
        Role::Entity => " entity".to_owned(),
        Role::Facet => " facet".to_owned(),
        Role::Measure(unit) => format!(" measure({unit})"),
    };
    let columns = guess.columns.iter().map(|column| {
        let null = if column.nullable { "?" } else { "" };
        format!(
            "{}: {}{null}{}",
            column.name,
            column.column_type,
            role(&column.role)
        )
    });
    columns.collect()
}

#[test]
fn types_roles_and_key_are_derived() {
    let guess = of(concat!(
        r#"{"orderId":"a","customer":"x","placedAt":"2026-05-28T10:41:00Z","total_cents":100,"weight":1,"gift":true,"items":[1],"note":null,"status":"new"}"#,
        "\n",
        r#"{"orderId":"b","customer":"x","placedAt":"2026-05-28T12:41:00+02:00","total_cents":250,"weight":1.5,"gift":false,"items":[],"status":"paid","huge":18446744073709551615}"#,
    ));
    assert_eq!(
        columns(&guess),
        [
            "order_id: text",
            "customer: text entity",
            "placed_at: timestamp time",
            "total_cents: integer measure()",
            "weight: real measure()",
            "gift: boolean",
            "items: json",
            "note: json?",
            "status: text facet",
            "huge: json?",
        ]
    );
    assert_eq!(guess.key.as_deref(), Some("order_id"));
    assert_eq!(
        guess.columns[7].reason,
        "always null; missing in 1 and null in 1 of 2"
    );
}

#[test]
fn a_missing_time_or_key_is_noted() {
    let guess = of(r#"{"duration_ms": 3, "stored_at": "noon"}"#);
    assert_eq!(
        columns(&guess),
        [
            "duration_ms: integer measure(ms)",
            "stored_at: text",
            "stored_at_2: timestamp time"
        ]
    );
    assert_eq!(guess.key, None);
    assert!(
        guess
            .notes
            .iter()
            .any(|note| note.contains("one message does not show")),
        "{:?}",
        guess.notes
    );
    assert!(
        guess.notes.iter().any(|note| note.contains("duplicate event")),
        "{:?}",
        guess.notes
    );
}

#[test]
fn a_field_with_few_values_is_a_facet() {
    let lines: Vec<String> = (0..20)
        .map(|number| {
            format!(
                r#"{{"shop":"s{}","text":"t{number}","seq_id":{}}}"#,
                number % 3,
                number / 2
            )
        })
        .collect();
    let guess = of(&lines.join("\n"));
    assert_eq!(
        columns(&guess),
        [
            "shop: text facet",
            "text: text",
            "seq_id: integer",
            "stored_at: timestamp time"
        ]
    );
    assert_eq!(guess.key, None, "each seq_id occurs twice");
}

#[test]
fn other_payloads_become_one_column() {
    assert_eq!(
        columns(&of("[1,2]")),
        ["document: json", "stored_at: timestamp time"]
    );
    assert_eq!(
        columns(&of("<34>1 x\n")),
        ["line: text", "stored_at: timestamp time"]
    );
}

#[test]
fn field_names_become_column_names() {
    for (field, name) in [
        ("pcId", "pc_id"),
        ("PC-ID", "pc_id"),
        ("@timestamp", "timestamp"),
        ("4xx", "field_4xx"),
        ("größe", "gr_e"),
        ("", "field_"),
        ("HTTPStatus", "httpstatus"),
        ("a.b", "a_b"),
    ] {
        assert_eq!(column_name(field), name, "{field}");
    }
    assert_eq!(
        columns(&of(r#"{"a-b":1,"a_b":2,"a.b":3}"#))[..3],
        ["a_b: integer", "a_b_2: integer", "a_b_3: integer"]
    );
}
