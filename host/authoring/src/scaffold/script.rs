//! Projects in JavaScript and Python: templates filled in with the derived table, and the contract.

use super::Names;
use crate::guess::{Column, Content, Guess, Shape};
use crate::sdk;
use lantern_model::schema::DeclaredRole;

/// Names and texts of the files of a template.
type Template = &'static [(&'static str, &'static str)];

macro_rules! template {
    ($folder:literal, $($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../../../plugins/templates/", $folder, "/", $name)))),*]
    };
}

const JAVASCRIPT: Template = template!(
    "js",
    ".gitignore",
    "README.md",
    "lantern.js",
    "package.json",
    "plugin.js"
);
const PYTHON: Template = template!(
    "python",
    ".gitignore",
    "README.md",
    "lantern.py",
    "plugin.py",
    "pyproject.toml"
);

/// A project in JavaScript.
pub(super) fn javascript(names: &Names, guess: &Guess) -> Vec<(String, String)> {
    let columns = lines(guess, |column| {
        let settings = settings(column, ": ", ("{ ", " }"), "true");
        format!("    {}: {}({settings}),", column.name, type_of(column))
    });
    let row = lines(guess, |column| {
        format!("    {}: {},", column.name, javascript_value(column, guess))
    });
    let key = guess.key.as_ref().map(|key| {
        [
            (
                "{ doc: \"{{doc}}\" }",
                format!("{{ doc: \"{{{{doc}}}}\", primaryKey: [\"{key}\"] }}"),
            ),
            (
                "write(rowsOf)",
                "write(rowsOf, { onConflict: \"ignore\" })".to_owned(),
            ),
        ]
    });
    let remove = (guess.shape == Shape::Text).then_some("  const event = message.json();\n");
    fill_template(JAVASCRIPT, names, &columns, &row, key, remove)
}

/// A project in Python.
pub(super) fn python(names: &Names, guess: &Guess) -> Vec<(String, String)> {
    let columns = lines(guess, |column| {
        let settings = settings(column, "=", ("", ""), "True");
        format!("        \"{}\": {}({settings}),", column.name, type_of(column))
    });
    let row = lines(guess, |column| {
        format!("        \"{}\": {},", column.name, python_value(column, guess))
    });
    let key = guess.key.as_ref().map(|key| {
        [
            (
                "    doc=\"{{doc}}\",\n)\none",
                format!("    doc=\"{{{{doc}}}}\",\n    primary_key=[\"{key}\"],\n)\none"),
            ),
            (
                "rows_of.write()",
                "rows_of.write(on_conflict=\"ignore\")".to_owned(),
            ),
        ]
    });
    let remove = (guess.shape == Shape::Text).then_some("    event = message.json()\n");
    fill_template(PYTHON, names, &columns, &row, key, remove)
}

fn lines(guess: &Guess, line: impl Fn(&Column) -> String) -> String {
    guess.columns.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn fill_template(
    template: Template,
    names: &Names,
    columns: &str,
    row: &str,
    key: Option<[(&str, String); 2]>,
    remove: Option<&str>,
) -> Vec<(String, String)> {
    let subjects: Vec<String> = names
        .subjects
        .iter()
        .map(|subject| format!("{subject:?}"))
        .collect();
    let doc = format!("Messages of the stream {} as rows.", names.stream);
    let mut files: Vec<(String, String)> = template
        .iter()
        .map(|(name, text)| {
            let mut text = (*text).to_owned();
            for (from, to) in key.iter().flatten() {
                text = text.replace(from, to);
            }
            if let Some(remove) = remove {
                text = text.replace(remove, "");
            }
            for (from, to) in [
                ("\"{{subject}}\"", subjects.join(", ").as_str()),
                ("{{columns}}", columns),
                ("{{row}}", row),
                ("{{name}}", &names.plugin),
                ("{{table}}", &names.table),
                ("{{stream}}", &names.stream),
                ("{{doc}}", &doc),
            ] {
                text = text.replace(from, to);
            }
            ((*name).to_owned(), text)
        })
        .collect();
    files.extend(sdk::contract().map(|(name, text)| (format!("wit/{name}"), text.to_owned())));
    files
}

fn type_of(column: &Column) -> &'static str {
    column.column_type.as_str()
}

/// The settings of a column except its type, in the syntax of the language.
fn settings(column: &Column, is: &str, (open, close): (&str, &str), yes: &str) -> String {
    let mut settings = Vec::new();
    if column.nullable {
        settings.push(format!("nullable{is}{yes}"));
    }
    let role = match &column.role {
        DeclaredRole::None => None,
        DeclaredRole::Time => Some("time"),
        DeclaredRole::Entity => Some("entity"),
        DeclaredRole::Facet => Some("facet"),
        DeclaredRole::Measure(_) => Some("measure"),
    };
    settings.extend(role.map(|role| format!("role{is}\"{role}\"")));
    if let DeclaredRole::Measure(unit) = &column.role
        && !unit.is_empty()
    {
        settings.push(format!("unit{is}{unit:?}"));
    }
    match settings.is_empty() {
        true => String::new(),
        false => format!("{open}{}{close}", settings.join(", ")),
    }
}

fn javascript_value(column: &Column, guess: &Guess) -> String {
    match &column.content {
        Content::Field(field) if *field == column.name => format!("event.{field}"),
        Content::Field(field) => format!("event[{field:?}]"),
        Content::Payload if guess.shape == Shape::Text => "message.text().trim()".to_owned(),
        Content::Payload => "event".to_owned(),
        Content::Published => "message.published".to_owned(),
    }
}

fn python_value(column: &Column, guess: &Guess) -> String {
    match &column.content {
        Content::Field(field) if column.nullable => format!("event.get({field:?})"),
        Content::Field(field) => format!("event[{field:?}]"),
        Content::Payload if guess.shape == Shape::Text => "message.text().strip()".to_owned(),
        Content::Payload => "event".to_owned(),
        Content::Published => "message.published".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guess::guess;
    use crate::sample;

    fn names() -> Names {
        Names {
            plugin: "door-log".to_owned(),
            table: "door_log".to_owned(),
            stream: "DOORS".to_owned(),
            subjects: vec!["door.a".to_owned(), "door.b".to_owned()],
        }
    }

    #[track_caller]
    fn check(files: &[(String, String)], file: &str, expected: &[&str]) {
        for (name, text) in files {
            assert!(
                !text.contains("{{"),
                "{name} has an unfilled placeholder:\n{text}"
            );
        }
        let (_, text) = files.iter().find(|(name, _)| name == file).unwrap();
        for line in expected {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(
            files
                .iter()
                .any(|(name, _)| name.starts_with("wit/") && name.ends_with(".wit"))
        );
    }

    #[test]
    fn templates_are_filled_in() {
        let text = "{\"id\":\"a\",\"at\":\"2026-05-28T10:41:00Z\",\"doorNo\":1,\"took_ms\":2,\"by\":null}\n{\"id\":\"b\",\"at\":\"2026-05-28T10:41:00Z\",\"doorNo\":1,\"took_ms\":2}";
        let guess = guess(
            &sample::split(text.as_bytes(), "x".to_owned()).unwrap().messages,
            "things",
        );
        check(
            &javascript(&names(), &guess),
            "plugin.js",
            &[
                "    at: timestamp({ role: \"time\" }),",
                "    took_ms: integer({ role: \"measure\", unit: \"ms\" }),",
                "    door_no: event[\"doorNo\"],",
                "primaryKey: [\"id\"]",
                "onConflict: \"ignore\"",
                "\"DOORS\", [\"door.a\", \"door.b\"]",
            ],
        );
        check(
            &python(&names(), &guess),
            "plugin.py",
            &[
                "        \"at\": timestamp(role=\"time\"),",
                "        \"by\": event.get(\"by\"),",
                "primary_key=[\"id\"]",
                "on_conflict=\"ignore\"",
            ],
        );
    }

    #[test]
    fn text_is_not_read_as_json() {
        let guess = guess(
            &sample::split(b"a line\n", "x".to_owned()).unwrap().messages,
            "things",
        );
        let files = javascript(&names(), &guess);
        check(
            &files,
            "plugin.js",
            &["line: message.text().trim()", "stored_at: message.published"],
        );
        assert!(
            files
                .iter()
                .all(|(name, text)| name != "plugin.js" || !text.contains("const event"))
        );
    }
}
