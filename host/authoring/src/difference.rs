//! Renders the differences between expected and actual outcomes: only the columns that differ, each with both values.

use serde_json::Value as Tree;

/// Longest value that is rendered completely.
const VALUE_CHARACTERS_MAX: usize = 200;

/// The lines; none if both are equal. Each side is an outcome, or a list of outcomes for a file with many messages.
pub fn lines(expected: &Tree, actual: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    match (expected, actual) {
        (Tree::Array(expected), Tree::Array(actual)) => {
            if expected.len() != actual.len() {
                lines.push(format!(
                    "expected {} outcomes, got {}",
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
            lines.push("the rejection differs".to_owned());
            for key in ["class", "reason"] {
                value(key, &expected["reject"][key], &actual["reject"][key], lines);
            }
        }
        _ => {
            lines.push(format!("expected: {}", describe(expected)));
            lines.push(format!("  actual: {}", describe(actual)));
        }
    }
}

/// Describes an outcome in a phrase.
pub fn describe(outcome: &Tree) -> String {
    if let Some(rows) = outcome["rows"].as_array() {
        let s = if rows.len() == 1 { "" } else { "s" };
        return match rows.as_slice() {
            [row] => format!("row of {}: {}", text(&row["table"]), shorten(&row["values"])),
            _ => format!("{} row{s}", rows.len()),
        };
    }
    match &outcome["reject"] {
        Tree::Object(reject) => format!(
            "rejected as {}: {}",
            reject.get("class").map(text).unwrap_or_default(),
            reject.get("reason").map(text).unwrap_or_default()
        ),
        _ if outcome == "skip" => "skipped".to_owned(),
        _ => shorten(outcome),
    }
}

fn rows(expected: &[Tree], actual: &[Tree], lines: &mut Vec<String>) {
    if expected.len() != actual.len() {
        lines.push(format!("expected {} rows, got {}", expected.len(), actual.len()));
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
                        "  {column}  expected {}, got no such column",
                        shorten(&expected)
                    ));
                }
                (None, Some(actual)) => {
                    lines.push(format!("  {column}  unexpected column: {}", shorten(&actual)));
                }
                (None, None) => {}
            }
        }
    }
    for row in actual.iter().skip(expected.len()) {
        lines.push(format!(
            "unexpected row of {}: {}",
            text(&row["table"]),
            shorten(&row["values"])
        ));
    }
    for row in expected.iter().skip(actual.len()) {
        lines.push(format!(
            "missing row of {}: {}",
            text(&row["table"]),
            shorten(&row["values"])
        ));
    }
}

fn value(name: &str, expected: &Tree, actual: &Tree, lines: &mut Vec<String>) {
    if expected != actual {
        lines.push(format!("  {name}  expected {}", shorten(expected)));
        lines.push(format!(
            "  {:width$}    actual {}",
            "",
            shorten(actual),
            width = name.chars().count()
        ));
    }
}

fn text(value: &Tree) -> &str {
    value.as_str().unwrap_or("?")
}

fn shorten(value: &Tree) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
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
    fn only_differences_are_rendered() {
        check(&json!("skip"), &json!("skip"), &[]);
        check(&row(json!({"a": 1})), &row(json!({"a": 1})), &[]);
        check(
            &row(json!({"a": 1, "b": "x", "gone": true})),
            &row(json!({"a": 2, "b": "x", "fresh": null})),
            &[
                "row 1 of t",
                "  a  expected 1",
                "       actual 2",
                "  fresh  unexpected column: null",
                "  gone  expected true, got no such column",
            ],
        );
        check(
            &row(json!({"a": 1})),
            &json!({"reject": {"class": "malformed", "reason": "a: no"}}),
            &[
                "expected: row of t: {\"a\":1}",
                "  actual: rejected as malformed: a: no",
            ],
        );
        check(
            &json!({"reject": {"class": "malformed", "reason": "x"}}),
            &json!({"reject": {"class": "malformed", "reason": "y"}}),
            &[
                "the rejection differs",
                "  reason  expected \"x\"",
                "            actual \"y\"",
            ],
        );
        check(
            &json!(["skip", "skip"]),
            &json!(["skip", {"rows": []}, "skip"]),
            &[
                "expected 2 outcomes, got 3",
                "message 2: expected: skipped",
                "  actual: 0 rows",
            ],
        );
    }
}
