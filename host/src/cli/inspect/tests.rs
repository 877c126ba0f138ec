//! What `inspect` prints, for a plugin with everything in it.

use super::*;
use crate::schema::{
    Column, ColumnName, ColumnType, Guard, Index, Merge, OnConflict, Origin, PluginName, Role, Source,
    SourceName, Table, TableName, UpdateRule, Write,
};

fn name(text: &str) -> ColumnName {
    ColumnName::parse(text).unwrap()
}

fn column(at: &str, column_type: ColumnType, nullable: bool, role: Role, doc: &str) -> Column {
    Column {
        name: name(at),
        column_type,
        nullable,
        role,
        doc: doc.into(),
        hints: Vec::new(),
    }
}

fn manifest() -> Manifest {
    Manifest {
        name: PluginName::parse("executions").unwrap(),
        version: semver::Version::new(0, 1, 0),
        doc: "Runs of jobs.".into(),
        sources: vec![
            Source {
                name: SourceName::parse("started").unwrap(),
                origin: Origin::JetStream {
                    stream: "EVENTS".into(),
                    subjects: vec!["events.started.>".into()],
                },
                wants_headers: false,
            },
            Source {
                name: SourceName::parse("perf").unwrap(),
                origin: Origin::Core {
                    subjects: vec!["perf.>".into()],
                },
                wants_headers: true,
            },
        ],
        tables: vec![Table {
            name: TableName::parse("execution_results").unwrap(),
            doc: "One row a run.".into(),
            columns: vec![
                column("result_id", ColumnType::Text, false, Role::Entity, ""),
                column(
                    "started_at",
                    ColumnType::Timestamp,
                    true,
                    Role::Time,
                    "When it began.",
                ),
                column("exit_code", ColumnType::Integer, true, Role::Facet, ""),
                column(
                    "memory",
                    ColumnType::Integer,
                    true,
                    Role::Measure("By".into()),
                    "",
                ),
            ],
            primary_key: vec![name("result_id")],
            indexes: vec![Index {
                columns: vec![name("started_at")],
                unique: false,
            }],
            retention_days: Some(90),
            hints: Vec::new(),
        }],
        writes: vec![
            Write {
                table: 0,
                columns: vec![0, 1],
                on_conflict: OnConflict::Ignore,
            },
            Write {
                table: 0,
                columns: vec![0, 2, 3],
                on_conflict: OnConflict::Update(UpdateRule {
                    key: vec![name("result_id")],
                    merges: vec![
                        (name("exit_code"), Merge::Replace),
                        (name("memory"), Merge::Max),
                        (name("started_at"), Merge::Fill),
                    ],
                    guard: Guard::WhileNull(name("exit_code")),
                }),
            },
        ],
    }
}

#[test]
fn a_plugin_is_described_in_words() {
    let sizes = vec![
        Size {
            part: "component".into(),
            bytes: 130_000,
        },
        Size {
            part: "core module".into(),
            bytes: 124_928,
        },
    ];
    let inspection = Inspection::new(
        &manifest(),
        "lantern:projection@0.1.0".into(),
        "sha256:ab".into(),
        Vec::new(),
        false,
        sizes,
    );
    assert_eq!(inspection.render(), include_str!("inspect.golden.txt"));
    let json = serde_json::to_value(&inspection).unwrap();
    assert_eq!(json["tables"][0]["name"], "execution_results");
    assert_eq!(json["tables"][0]["columns"][3]["unit"], "By");
    assert_eq!(json["writes"][1]["rule"]["merges"]["memory"], "max");
}

#[test]
fn what_an_operator_has_to_allow_is_said_by_name() {
    let imports = [
        "lantern:projection/log@0.1.0",
        "wasi:io/poll@0.2.6",
        "wasi:cli/exit@0.2.6",
        "wasi:io/error@0.2.6",
    ];
    let inspection = Inspection::new(
        &manifest(),
        "lantern:projection@0.1.0".into(),
        "sha256:ab".into(),
        imports.map(str::to_owned).to_vec(),
        true,
        Vec::new(),
    );
    let text = inspection.render();
    assert!(
        text.contains("imports   lantern:projection/log@0.1.0, WASI (cli, io)\n"),
        "{text}"
    );
    assert!(
        text.ends_with("\n  lantern plugin set executions wasi=true\n"),
        "{text}"
    );
}
