//! What differs between what was expected of messages and what became of them, in lines for people: only the columns
//! that differ, each with both values.

use serde_json::Value as Tree;

/// Longest value that is shown whole.
const SHOWN_CHARACTERS: usize = 200;

/// The lines; none when both are equal. Each side is an outcome, or a list of them for a file with many messages.
pub fn lines(expected: &Tree, actual: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    match (expected, actual) {
        (Tree::Array(expected), Tree::Array(actual)) => {
            if expected.len() != actual.len() {
                lines.push(format!(
                    "{} outcomes are expected, and there are {} messages",
                    expected.len(),
                    actual.len()
                ));
            }
            for (number, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                let before = lines.len();
                outcome(expected, actual, &mut lines);
                if let Some(first) = lines.get_mut(before) {
                    *first = format!("message {}: {first}", number + 1);
                }
            }
        }
        _ => outcome(expected, actual, &mut lines),
    }
    lines
}

fn outcome(expected: &Tree, actual: &Tree, lines: &mut Vec<String>) {
    if expected == actual {
        return;
    }
    match (expected["rows"].as_array(), actual["rows"].as_array()) {
        (Some(expected), Some(actual)) => rows(expected, actual, lines),
        _ if expected["reject"].is_object() && actual["reject"].is_object() => {
            lines.push("it is rejected, with other words".to_owned());
            for key in ["class", "reason"] {
                value(key, &expected["reject"][key], &actual["reject"][key], lines);
            }
        }
        _ => {
            lines.push(format!("expected: {}", words(expected)));
            lines.push(format!("     now: {}", words(actual)));
        }
    }
}

/// An outcome in a phrase.
pub fn words(outcome: &Tree) -> String {
    if let Some(rows) = outcome["rows"].as_array() {
        let s = if rows.len() == 1 { "" } else { "s" };
        return match rows.as_slice() {
            [row] => format!("a row of {}: {}", text(&row["table"]), shown(&row["values"])),
            _ => format!("{} row{s}", rows.len()),
        };
    }
    match &outcome["reject"] {
        Tree::Object(reject) => format!(
            "rejected as {}: {}",
            reject.get("class").map(text).unwrap_or_default(),
            reject.get("reason").map(text).unwrap_or_default()
        ),
        _ if outcome == "skip" => "skipped: no row".to_owned(),
        _ => shown(outcome),
    }
}

fn rows(expected: &[Tree], actual: &[Tree], lines: &mut Vec<String>) {
    if expected.len() != actual.len() {
        lines.push(format!(
            "{} rows are expected, and there are {}",
            expected.len(),
            actual.len()
        ));
    }
    for (number, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        if expected == actual {
            continue;
        }
        lines.push(format!("row {} of {}", number + 1, text(&actual["table"])));
        for key in ["table", "write"] {
            value(key, &expected[key], &actual[key], lines);
        }
        let mut columns: Vec<&String> = [&expected["values"], &actual["values"]]
            .into_iter()
            .filter_map(Tree::as_object)
            .flat_map(serde_json::Map::keys)
            .collect();
        columns.sort();
        columns.dedup();
        for column in columns {
            let side = |row: &Tree| row["values"].get(column).cloned();
            match (side(expected), side(actual)) {
                (Some(expected), Some(actual)) => value(column, &expected, &actual, lines),
                (Some(expected), None) => {
                    lines.push(format!(
                        "  {column}  expected {}, and there is no such column",
                        shown(&expected)
                    ));
                }
                (None, Some(actual)) => {
                    lines.push(format!("  {column}  is new: {}", shown(&actual)));
                }
                (None, None) => {}
            }
        }
    }
    for row in actual.iter().skip(expected.len()) {
        lines.push(format!(
            "row too many, of {}: {}",
            text(&row["table"]),
            shown(&row["values"])
        ));
    }
    for row in expected.iter().skip(actual.len()) {
        lines.push(format!(
            "row missing, of {}: {}",
            text(&row["table"]),
            shown(&row["values"])
        ));
    }
}

fn value(name: &str, expected: &Tree, actual: &Tree, lines: &mut Vec<String>) {
    if expected != actual {
        lines.push(format!("  {name}  expected {}", shown(expected)));
        lines.push(format!(
            "  {:width$}       now {}",
            "",
            shown(actual),
            width = name.chars().count()
        ));
    }
}

fn text(value: &Tree) -> &str {
    value.as_str().unwrap_or("?")
}

fn shown(value: &Tree) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(expected: &Tree, actual: &Tree, lines_expected: &[&str]) {
        assert_eq!(lines(expected, actual), lines_expected);
    }

    fn row(values: Tree) -> Tree {
        json!({"rows": [{"write": 0, "table": "t", "values": values}]})
    }

    #[test]
    fn only_what_differs_is_told() {
        check(&json!("skip"), &json!("skip"), &[]);
        check(&row(json!({"a": 1})), &row(json!({"a": 1})), &[]);
        check(
            &row(json!({"a": 1, "b": "x", "gone": true})),
            &row(json!({"a": 2, "b": "x", "fresh": null})),
            &[
                "row 1 of t",
                "  a  expected 1",
                "          now 2",
                "  fresh  is new: null",
                "  gone  expected true, and there is no such column",
            ],
        );
        check(
            &row(json!({"a": 1})),
            &json!({"reject": {"class": "malformed", "reason": "a: no"}}),
            &[
                "expected: a row of t: {\"a\":1}",
                "     now: rejected as malformed: a: no",
            ],
        );
        check(
            &json!({"reject": {"class": "malformed", "reason": "x"}}),
            &json!({"reject": {"class": "malformed", "reason": "y"}}),
            &[
                "it is rejected, with other words",
                "  reason  expected \"x\"",
                "               now \"y\"",
            ],
        );
        check(
            &json!(["skip", "skip"]),
            &json!(["skip", {"rows": []}, "skip"]),
            &[
                "2 outcomes are expected, and there are 3 messages",
                "message 2: expected: skipped: no row",
                "     now: 0 rows",
            ],
        );
    }
}
