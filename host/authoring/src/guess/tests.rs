//! The derived table for different samples.

use super::*;
use crate::sample;

fn of(text: &str) -> Guess {
    guess(
        &sample::split(text.as_bytes(), "x".to_owned()).unwrap().messages,
        "orders",
    )
}

/// `name: type role` for each column, with `?` after a nullable type.
fn columns(guess: &Guess) -> Vec<String> {
    let role = |role: &DeclaredRole| match role {
        DeclaredRole::None => String::new(),
        DeclaredRole::Time => " time".to_owned(),
        DeclaredRole::Entity => " entity".to_owned(),
        DeclaredRole::Facet => " facet".to_owned(),
        DeclaredRole::Measure(unit) => format!(" measure({unit})"),
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
fn an_identifier_of_something_else_is_no_key() {
    // Suricata: an alert, a TLS record and a flow of different connections. Zeek: the 16-bit number of a DNS query.
    let suricata =
        (0..3).map(|number| format!(r#"{{"event_type":"alert","flow_id":{number},"in_iface":"eth0"}}"#));
    let zeek =
        (0..2).map(|number| format!(r#"{{"uid":"C{number}","trans_id":{number},"query":"a.example"}}"#));
    for (lines, name) in [
        (suricata.collect::<Vec<_>>(), "flow_id"),
        (zeek.collect(), "trans_id"),
    ] {
        let guess = of(&lines.join("\n"));
        assert_eq!(guess.key, None, "{name}");
        let note = format!(
            "{name} is distinct in {} messages, which are too few",
            lines.len()
        );
        assert!(
            guess.notes.iter().any(|one| one.starts_with(&note)),
            "{:?}",
            guess.notes
        );
    }
    let many: Vec<String> = (0..50)
        .map(|number| format!(r#"{{"trip_id":"t{number}"}}"#))
        .collect();
    assert_eq!(of(&many.join("\n")).key.as_deref(), Some("trip_id"));
}

/// The row of a message as text, or why there is none.
fn row(guess: &Guess, message: &Delivery) -> Result<Vec<String>, String> {
    let values = guess.values(message)?;
    let values = values.iter().map(|(column, value)| match value {
        Value::Json(text) => format!("{column} json {text}"),
        value => format!("{column} {value}"),
    });
    Ok(values.collect())
}

#[test]
fn values_that_no_other_type_stores_are_json() {
    let text = r#"{"large":1e400,"lone":"\ud800","nul":"a\u0000b","late":"+12345-01-01T00:00:00Z"}"#;
    let sample = sample::split(text.as_bytes(), "x".to_owned()).unwrap();
    let guess = guess(&sample.messages, "odd");
    assert_eq!(
        columns(&guess)[..4],
        ["large: json", "lone: json", "nul: json", "late: text"]
    );
    assert_eq!(
        row(&guess, &sample.messages[0]).unwrap()[..4],
        [
            "large json 1e400",
            r#"lone json "\ud800""#,
            r#"nul json "a\u0000b""#,
            "late +12345-01-01T00:00:00Z"
        ]
    );
}

#[test]
fn a_message_that_repeats_a_field_is_not_a_row() {
    let text = "{\"a\":1}\n{\"a\":true,\"a\":2}\n";
    let sample = sample::split(text.as_bytes(), "x".to_owned()).unwrap();
    let some = guess(&sample.messages, "odd");
    assert_eq!(columns(&some)[..1], ["a: integer"], "the last value counts");
    assert!(row(&some, &sample.messages[0]).is_ok());
    let problem = row(&some, &sample.messages[1]).unwrap_err();
    assert!(
        problem.starts_with("the field \"a\" occurs more than once"),
        "{problem}"
    );

    // Without another message, the table stores the document as it is.
    let only = guess(&sample.messages[1..], "odd");
    assert_eq!(columns(&only), ["document: json", "stored_at: timestamp time"]);
    let document = &row(&only, &sample.messages[1]).unwrap()[0];
    assert_eq!(document, r#"document json {"a":true,"a":2}"#);
}

#[test]
fn json_that_no_column_stores_becomes_text() {
    let deep = format!("{{\"deep\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000));
    let sample = sample::split(format!("{deep}\n{{}}").as_bytes(), "x".to_owned()).unwrap();
    let some = guess(&sample.messages, "odd");
    assert_eq!(columns(&some)[..1], ["deep: json?"]);
    let problem = row(&some, &sample.messages[0]).unwrap_err();
    assert!(
        problem.contains("deep: a JSON document that is nested 2000 deep"),
        "{problem}"
    );

    let only = guess(&sample.messages[..1], "odd");
    assert_eq!(columns(&only), ["line: text", "stored_at: timestamp time"]);
    assert_eq!(
        row(&only, &sample.messages[0]).unwrap()[0],
        format!("line {deep}")
    );
}

#[test]
fn long_field_names_that_begin_alike_stay_valid_column_names() {
    let fields: Vec<String> = (0..200)
        .map(|number| format!(r#""{}{number}":1"#, "a".repeat(80)))
        .collect();
    let guess = of(&format!("{{{}}}", fields.join(",")));
    for column in &guess.columns {
        lantern_model::schema::ColumnName::parse(&column.name).unwrap();
    }
    assert_eq!(guess.columns.len(), 201);
}

#[test]
fn more_fields_than_columns_are_noted() {
    let fields: Vec<String> = (0..400).map(|number| format!(r#""f{number}":1"#)).collect();
    let guess = of(&format!("{{{}}}", fields.join(",")));
    assert_eq!(guess.columns.len(), 256);
    assert!(
        guess.notes[0].starts_with("the messages have 400 fields"),
        "{:?}",
        guess.notes
    );
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
