//! Tests from files: a message in `fixtures/`, and the expected outcome in `NAME.expected.json`. Each file is a test. They run the
//! plugin natively; `lantern plugin test` runs the same tests with the component.

mod fixture;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Rendered, json};

use crate::native::{self, Manifest, Outcome, Row, Value};
use crate::{Message, Plugin, Timestamp};
use fixture::Case;

/// The environment variable that makes [`check_fixtures`] write the expectations instead of comparing.
pub const BLESS: &str = "LANTERN_BLESS";

/// The default sequence of a fixture.
pub const SEQUENCE: u64 = 1;

/// The default publish time of a fixture: 2026-01-01T00:00:00Z.
pub const PUBLISHED: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Processes every fixture in `folder` and compares the outcomes with the expectations.
///
/// The fixtures of a source are in `folder/SOURCE/`, or in `folder/` if the plugin has one source:
///
/// | file | content |
/// | --- | --- |
/// | `NAME.message.json` | one message with metadata: `{"subject": …, "headers": {"Name": "value"}, "published": …, "sequence": …, "payload": …}`; all fields except the payload are optional |
/// | `NAME.messages.jsonl` | many of these, one per line |
/// | `NAME.jsonl` | many payloads, one per line |
/// | `NAME.json`, `NAME.txt`, any other | one payload, unchanged |
///
/// A `payload` that is a JSON string is the text of the string; other JSON is the document as written; `payload_base64` is for
/// binary payloads. The default subject is the first one of the source, with `fixture` in place of `*` and `>`. Sequences start at
/// [`SEQUENCE`], times at [`PUBLISHED`], a second apart. Hidden files and `*.md` are ignored.
///
/// The expectation is `"skip"`, `{"reject": …}`, or `{"rows": […]}` with the values by column: times in RFC 3339, JSON as text,
/// bytes in hex. For a file with many messages it is a list.
///
/// With `LANTERN_BLESS=1` in the environment, the expectations are written; review the diff.
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
/// If an outcome differs, if the folder has no fixture, or if it cannot be read.
#[expect(clippy::panic, reason = "tests fail by panicking")]
pub fn check_fixtures<P: Plugin>(folder: impl AsRef<Path>) {
    let bless = std::env::var_os(BLESS).is_some_and(|value| value == "1");
    match run::<P>(folder.as_ref(), bless) {
        Ok(problems) if problems.is_empty() => {}
        Ok(problems) => panic!("{}\n\n{BLESS}=1 accepts the new outcomes.", problems.join("\n\n")),
        Err(error) => panic!(
            "cannot use the fixtures in {}: {error}",
            folder.as_ref().display()
        ),
    }
}

/// Returns the differences; with `bless`, writes the expectations first.
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
            let mut outcomes: Vec<Rendered> = native::project::<P>(index, &messages)
                .iter()
                .map(|outcome| render(&manifest, outcome))
                .collect();
            let actual = match case.is_list {
                true => Rendered::Array(outcomes),
                false => outcomes.remove(0),
            };
            problems.extend(compare(&case.expected, &actual, bless)?);
        }
    }
    if count == 0 {
        problems.push("no fixtures".to_owned());
    }
    Ok(problems)
}

/// The fixtures of one source, sorted by name.
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

fn compare(path: &Path, actual: &Rendered, bless: bool) -> io::Result<Option<String>> {
    let text = format!("{actual:#}\n");
    if bless {
        fs::write(path, &text)?;
    }
    let expected: Rendered = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(format!(
                "{} does not exist; the outcome is:\n{text}",
                path.display()
            )));
        }
        Err(error) => return Err(error),
    };
    if expected == *actual {
        return Ok(None);
    }
    Ok(Some(format!(
        "{} expects:\n{expected:#}\nthe outcome is:\n{text}",
        path.display()
    )))
}

/// An outcome in the format of expectations.
fn render(manifest: &Manifest, outcome: &Outcome) -> Rendered {
    match outcome {
        Outcome::Skip => json!("skip"),
        Outcome::Reject(rejection) => {
            json!({ "reject": { "class": rejection.class.as_str(), "reason": rejection.reason } })
        }
        Outcome::Rows(rows) => {
            let rows: Vec<Rendered> = rows.iter().map(|row| render_row(manifest, row)).collect();
            json!({ "rows": rows })
        }
    }
}

fn render_row(manifest: &Manifest, row: &Row) -> Rendered {
    let write = &manifest.writes[row.write as usize];
    let values: Map<String, Rendered> = write
        .columns
        .iter()
        .cloned()
        .zip(row.values.iter().map(render_value))
        .collect();
    json!({ "write": row.write, "table": write.table, "values": values })
}

fn render_value(value: &Value) -> Rendered {
    match value {
        Value::Null => Rendered::Null,
        Value::Boolean(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::Real(value) => json!(value),
        Value::Text(text) | Value::Json(text) => json!(text),
        Value::Blob(bytes) => Rendered::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        Value::Timestamp(micros) => json!(Timestamp::from_micros(*micros).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    crate::export!(Lengths);

    /// Stores the lengths of payloads; skips empty ones.
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

    /// A temporary folder, removed when the test ends.
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
    fn blessed_fixtures_pass_and_changed_ones_fail() {
        let scratch = Scratch::new("blessed");
        assert_eq!(run::<Lengths>(&scratch.0, false).unwrap(), ["no fixtures"]);
        fs::write(scratch.0.join("two.json"), "hi").unwrap();
        fs::write(scratch.0.join("lengths/none.json"), "").unwrap();

        assert_eq!(
            run::<Lengths>(&scratch.0, false).unwrap().len(),
            2,
            "both expectations are missing"
        );
        assert_eq!(run::<Lengths>(&scratch.0, true).unwrap(), Vec::<String>::new());
        assert_eq!(run::<Lengths>(&scratch.0, false).unwrap(), Vec::<String>::new());
        let expected: Rendered =
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
