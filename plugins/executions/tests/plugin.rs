//! The manifest of the plugin, and its outcome for each fixture.

use executions::Executions;
use lantern_sdk::declare::Merge;
use lantern_sdk::native::{self, Guard, MergeRule, OnConflict, Origin, StreamSource, UpdateRule};

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<Executions>("fixtures");
}

#[test]
fn two_streams_fill_one_table() {
    let manifest = native::describe::<Executions>();
    let stream = |stream_name: &str, subject: &str| {
        Origin::Jetstream(StreamSource {
            stream_name: stream_name.to_owned(),
            subjects: vec![subject.to_owned()],
        })
    };
    let origins: Vec<_> = manifest
        .sources
        .iter()
        .map(|source| source.origin.clone())
        .collect();
    assert_eq!(
        origins,
        [
            stream("EVENTS", "events.started.>"),
            stream("RESULTS", "results.>")
        ]
    );
    let [table] = manifest.tables.as_slice() else {
        panic!("one table: {:?}", manifest.tables)
    };
    assert_eq!(
        (table.name.as_str(), table.primary_key.as_slice()),
        ("execution_results", &["result_id".to_owned()][..])
    );
    assert!(manifest.writes.iter().all(|write| write.table == table.name));
}

#[test]
fn a_start_adds_only_what_a_result_does_not_contain() {
    let manifest = native::describe::<Executions>();
    let fill = |column: &str| MergeRule {
        column: column.to_owned(),
        merge: Merge::Fill,
    };
    assert_eq!(
        manifest.writes[0].on_conflict,
        OnConflict::Update(UpdateRule {
            key: vec!["result_id".to_owned()],
            merges: vec![fill("exec_id"), fill("job_id"), fill("version")],
            guard: Guard::WhileNull("version".to_owned()),
        })
    );
    for column in ["exit_code", "stdout", "stderr", "finished_at"] {
        assert!(
            !manifest.writes[0].columns.iter().any(|brought| brought == column),
            "{column} is unknown at the start"
        );
    }
}

#[test]
fn a_result_completes_a_row_once_and_keeps_the_start_values() {
    let manifest = native::describe::<Executions>();
    let rule = |column: &str, merge| MergeRule {
        column: column.to_owned(),
        merge,
    };
    assert_eq!(
        manifest.writes[1].on_conflict,
        OnConflict::Update(UpdateRule {
            key: vec!["result_id".to_owned()],
            merges: vec![
                rule("exit_code", Merge::Replace),
                rule("stdout", Merge::Replace),
                rule("stderr", Merge::Replace),
                rule("finished_at", Merge::Replace),
                rule("recorded_at", Merge::Replace),
                rule("exec_id", Merge::Fill),
                rule("job_id", Merge::Fill),
            ],
            guard: Guard::WhileNull("finished_at".to_owned()),
        })
    );
    assert!(!manifest.writes[1].columns.contains(&"version".to_owned()));
}
