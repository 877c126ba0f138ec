//! The output of `inspect` for a plugin with all features.

use super::*;
use lantern_model::schema::{
    ColumnType, DeclaredRole, Manifest, Merge, Origin, RawColumn, RawGuard, RawIndex, RawManifest,
    RawOnConflict, RawSource, RawTable, RawWrite,
};

fn column(name: &str, column_type: ColumnType, nullable: bool, role: DeclaredRole, doc: &str) -> RawColumn {
    RawColumn {
        name: name.into(),
        column_type,
        nullable,
        role,
        doc: doc.into(),
        hints: Vec::new(),
    }
}

fn sources() -> Vec<RawSource> {
    vec![
        RawSource {
            name: "started".into(),
            origin: Origin::JetStream {
                stream: "EVENTS".into(),
                subjects: vec!["events.started.>".into()],
            },
            wants_headers: false,
        },
        RawSource {
            name: "perf".into(),
            origin: Origin::Core {
                subjects: vec!["perf.>".into()],
            },
            wants_headers: true,
        },
    ]
}

fn table() -> RawTable {
    use ColumnType::{Integer, Text, Timestamp};
    let memory = DeclaredRole::Measure("By".into());
    RawTable {
        name: "execution_results".into(),
        doc: "One row a run.".into(),
        columns: vec![
            column("result_id", Text, false, DeclaredRole::Entity, ""),
            column(
                "started_at",
                Timestamp,
                true,
                DeclaredRole::Time,
                "When it began.",
            ),
            column("exit_code", Integer, true, DeclaredRole::Facet, ""),
            column("memory", Integer, true, memory, ""),
        ],
        primary_key: vec!["result_id".into()],
        indexes: vec![RawIndex {
            columns: vec!["started_at".into()],
            unique: false,
        }],
        retention_days: Some(90),
        hints: Vec::new(),
    }
}

fn manifest() -> Manifest {
    let raw = RawManifest {
        name: "executions".into(),
        version: "0.1.0".into(),
        doc: "Runs of jobs.".into(),
        sources: sources(),
        tables: vec![table()],
        writes: vec![
            RawWrite {
                table: "execution_results".into(),
                columns: vec!["result_id".into(), "started_at".into()],
                on_conflict: RawOnConflict::Ignore,
            },
            RawWrite {
                table: "execution_results".into(),
                columns: vec![
                    "result_id".into(),
                    "exit_code".into(),
                    "memory".into(),
                    "started_at".into(),
                ],
                on_conflict: RawOnConflict::Update {
                    key: vec!["result_id".into()],
                    merges: vec![
                        ("exit_code".into(), Merge::Replace),
                        ("memory".into(), Merge::Max),
                        ("started_at".into(), Merge::Fill),
                    ],
                    guard: RawGuard::WhileNull("exit_code".into()),
                },
            },
        ],
    };
    Manifest::check(raw).unwrap()
}

#[test]
fn a_plugin_is_rendered_with_sources_tables_and_writes() {
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
fn wasi_imports_are_summarised_with_the_setting_that_allows_them() {
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
