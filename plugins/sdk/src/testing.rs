//! Tests from files: a message in `fixtures/`, and what must become of it in `NAME.expected.json` beside it. A new file
//! is a new test. It runs the plugin natively; `lantern plugin test` does the same with the component, and what the rows
//! do in a database is the host's to test.

mod fixture;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Shown, json};

use crate::native::{self, Manifest, Outcome, Row, Value};
use crate::{Message, Plugin, Timestamp};
use fixture::Case;

/// The environment variable that makes [`check_fixtures`] write the expectations instead of comparing them.
pub const BLESS: &str = "LANTERN_BLESS";

/// The sequence of a fixture's message.
pub const SEQUENCE: u64 = 1;

/// When a fixture's message was published: 2026-01-01T00:00:00Z.
pub const PUBLISHED: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Handles every fixture in `folder` and compares the outcome with its expectation.
///
/// The files of a source lie in `folder/SOURCE/`, or in `folder/` itself when the plugin has one source. Each is a test:
///
/// | file | what is in it |
/// | --- | --- |
/// | `NAME.message.json` | one message with what belongs to it: `{"subject": …, "headers": {"Name": "value"}, "published": …, "sequence": …, "payload": …}`; all but the payload may be left out |
/// | `NAME.messages.jsonl` | many of those, one on each line |
/// | `NAME.jsonl` | many payloads, one on each line |
/// | `NAME.json`, `NAME.txt`, any other | one payload, to the byte |
///
/// A `payload` that is a JSON string is the text itself; any other JSON is the document as it is written; bytes that
/// are no text are given as `payload_base64`. Without a subject it is the source's first one, with `fixture` in place of
/// `*` and `>`; sequences count from [`SEQUENCE`], times from [`PUBLISHED`], a second apart. Hidden files and `*.md` are
/// left out.
///
/// The expectation says `"skip"`, or `{"reject": …}`, or `{"rows": […]}` with the values by column; times stand there as
/// RFC 3339, JSON as text, bytes in hex. For a file of many messages it is a list of those.
///
/// With `LANTERN_BLESS=1` in the environment the expectations are written, to be read in the diff.
///
/// ```no_run
/// # use lantern_sdk::prelude::*;
/// # lantern_sdk::export!(MyPlugin);
/// # struct MyPlugin;
/// # impl Plugin for MyPlugin {
/// #     const SOURCES: Sources<Self> = &[];
/// #     const WRITES: Writes = &[];
/// # }
/// #[test]
/// fn fixtures() {
///     lantern_sdk::testing::check_fixtures::<MyPlugin>("fixtures");
/// }
/// ```
///
/// # Panics
///
/// When an outcome is not as expected, when the folder holds no fixture, or when it cannot be read.
#[expect(
    clippy::panic,
    reason = "it is the body of a test, and a test fails by a panic"
)]
pub fn check_fixtures<P: Plugin>(folder: impl AsRef<Path>) {
    let bless = std::env::var_os(BLESS).is_some_and(|value| value == "1");
    match run::<P>(folder.as_ref(), bless) {
        Ok(problems) if problems.is_empty() => {}
        Ok(problems) => panic!(
            "{}\n\n{BLESS}=1 accepts what is there now.",
            problems.join("\n\n")
        ),
        Err(error) => panic!(
            "cannot use the fixtures in {}: {error}",
            folder.as_ref().display()
        ),
    }
}

/// What does not agree; with `bless` the expectations are written first.
fn run<P: Plugin>(folder: &Path, bless: bool) -> io::Result<Vec<String>> {
    let manifest = native::describe::<P>();
    let mut problems = Vec::new();
    let mut count = 0;
    for (index, source) in P::SOURCES.iter().enumerate() {
        let subject = subject(source.subjects());
        for path in files(folder, source.name(), P::SOURCES.len() == 1)? {
            count += 1;
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            let case = Case::read(&path, &subject).map_err(named)?;
            let messages: Vec<Message<'_>> = case
                .messages
                .iter()
                .map(|sent| sent.message(source.wants_headers))
                .collect();
            let mut outcomes: Vec<Shown> = native::project::<P>(index, &messages)
                .iter()
                .map(|outcome| render(&manifest, outcome))
                .collect();
            let actual = match case.is_list {
                true => Shown::Array(outcomes),
                false => outcomes.remove(0),
            };
            problems.extend(compare(&case.expected, &actual, bless)?);
        }
    }
    if count == 0 {
        problems.push("there is no fixture".to_owned());
    }
    Ok(problems)
}

/// The files with messages of one source, in the order of their names.
fn files(folder: &Path, source: &str, only_source: bool) -> io::Result<Vec<PathBuf>> {
    let own_folder = folder.join(source);
    let folders = [
        Some(own_folder.as_path()).filter(|own| own.is_dir()),
        Some(folder).filter(|_| only_source),
    ];
    let mut files = Vec::new();
    for folder in folders.into_iter().flatten() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let other = name.starts_with('.') || name.ends_with(".md") || name.ends_with(".expected.json");
            if path.is_file() && !other {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn subject(subjects: &[&str]) -> String {
    let first = subjects.first().copied().unwrap_or("fixture");
    let tokens = first.split('.').map(|token| {
        if token == "*" || token == ">" {
            "fixture"
        } else {
            token
        }
    });
    tokens.collect::<Vec<_>>().join(".")
}

fn compare(path: &Path, actual: &Shown, bless: bool) -> io::Result<Option<String>> {
    let text = format!("{actual:#}\n");
    if bless {
        fs::write(path, &text)?;
    }
    let expected: Shown = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(format!(
                "{} is missing; there is now:\n{text}",
                path.display()
            )));
        }
        Err(error) => return Err(error),
    };
    if expected == *actual {
        return Ok(None);
    }
    Ok(Some(format!(
        "{} expects:\n{expected:#}\nthere is now:\n{text}",
        path.display()
    )))
}

/// An outcome as the expectation files have it.
fn render(manifest: &Manifest, outcome: &Outcome) -> Shown {
    match outcome {
        Outcome::Skip => json!("skip"),
        Outcome::Reject(rejection) => {
            json!({ "reject": { "class": rejection.class.as_str(), "reason": rejection.reason } })
        }
        Outcome::Rows(rows) => {
            let rows: Vec<Shown> = rows.iter().map(|row| render_row(manifest, row)).collect();
            json!({ "rows": rows })
        }
    }
}

fn render_row(manifest: &Manifest, row: &Row) -> Shown {
    let write = &manifest.writes[row.write as usize];
    let values: Map<String, Shown> = write
        .columns
        .iter()
        .cloned()
        .zip(row.values.iter().map(render_value))
        .collect();
    json!({ "write": row.write, "table": write.table, "values": values })
}

fn render_value(value: &Value) -> Shown {
    match value {
        Value::Null => Shown::Null,
        Value::Boolean(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::Real(value) => json!(value),
        Value::Text(text) | Value::Json(text) => json!(text),
        Value::Blob(bytes) => Shown::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        Value::Timestamp(micros) => json!(Timestamp::from_micros(*micros).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    crate::export!(Lengths);

    /// Writes the lengths of payloads; skips empty ones.
    struct Lengths;

    impl Plugin for Lengths {
        const SOURCES: Sources<Self> = &[Source::stream("lengths", "L", &["l.*.x.>"], length)];
        const WRITES: Writes = &[Length::WRITE];
    }

    /// A length.
    #[derive(Table, Row)]
    #[table(name = "lengths")]
    struct Length {
        subject: String,
        #[column(time)]
        published: Timestamp,
        #[column(measure = "By")]
        bytes: u32,
        body: Vec<u8>,
    }

    fn length(message: &Message<'_>, rows: &mut Rows<Lengths>) -> Result {
        let bytes = u32::try_from(message.payload.len()).map_err(Rejection::invalid)?;
        if bytes > 0 {
            let body = message.payload.to_vec();
            rows.put(Length {
                subject: message.subject.to_owned(),
                published: message.published,
                bytes,
                body,
            });
        }
        Ok(())
    }

    /// A folder of its own, removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lantern-sdk-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("lengths")).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_blessed_agrees_and_what_was_changed_does_not() {
        let scratch = Scratch::new("blessed");
        assert_eq!(
            run::<Lengths>(&scratch.0, false).unwrap(),
            ["there is no fixture"]
        );
        fs::write(scratch.0.join("two.json"), "hi").unwrap();
        fs::write(scratch.0.join("lengths/none.json"), "").unwrap();

        assert_eq!(
            run::<Lengths>(&scratch.0, false).unwrap().len(),
            2,
            "both expectations are missing"
        );
        assert_eq!(run::<Lengths>(&scratch.0, true).unwrap(), Vec::<String>::new());
        assert_eq!(run::<Lengths>(&scratch.0, false).unwrap(), Vec::<String>::new());
        let expected: Shown =
            serde_json::from_str(&fs::read_to_string(scratch.0.join("two.expected.json")).unwrap()).unwrap();
        let values = json!({
            "subject": "l.fixture.x.fixture",
            "published": "2026-01-01T00:00:00.000000Z",
            "bytes": 2,
            "body": "6869",
        });
        assert_eq!(
            expected,
            json!({ "rows": [{ "write": 0, "table": "lengths", "values": values }] })
        );
        assert_eq!(
            fs::read_to_string(scratch.0.join("lengths/none.expected.json")).unwrap(),
            "\"skip\"\n"
        );

        fs::write(scratch.0.join("two.json"), "ho!").unwrap();
        let problems = run::<Lengths>(&scratch.0, false).unwrap();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("two.expected.json expects:"),
            "{}",
            problems[0]
        );
    }
}
