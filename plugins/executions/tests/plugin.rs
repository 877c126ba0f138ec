//! The manifest of the plugin, and its outcome for each fixture.

use executions::Executions;
use lantern_sdk::declare::Merge;
use lantern_sdk::native::{self, Guard, OnConflict, Origin, StreamSource, UpdateRule};

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

/// The declared update of a write.
fn update(write: usize) -> Option<UpdateRule> {
    match native::describe::<Executions>()
        .writes
        .swap_remove(write)
        .on_conflict
    {
        OnConflict::Update(rule) => Some(rule),
        _ => None,
    }
}

fn columns_with(rule: &UpdateRule, merge: Merge) -> Vec<&str> {
    let with = rule.merges.iter().filter(|one| one.merge == merge);
    with.map(|one| one.column.as_str()).collect()
}

#[test]
fn start_and_result_set_their_columns_once_in_any_order() {
    let manifest = native::describe::<Executions>();
    let (start, result) = (update(0).unwrap(), update(1).unwrap());
    assert_eq!(start.guard, Guard::WhileNull("version".to_owned()));
    assert_eq!(result.guard, Guard::WhileNull("finished_at".to_owned()));
    let of_start = columns_with(&start, Merge::Replace);
    let of_result = columns_with(&result, Merge::Replace);
    assert!(of_start.iter().all(|column| !of_result.contains(column)));
    for (rule, write) in [(&start, 0), (&result, 1)] {
        assert_eq!(rule.key, ["result_id"]);
        assert_eq!(columns_with(rule, Merge::Max), ["recorded_at"]);
        assert_eq!(
            rule.merges.len(),
            columns_with(rule, Merge::Replace).len() + 1,
            "{rule:?}"
        );
        for column in manifest.writes[write].columns.iter().map(String::as_str) {
            let is_merged = of_start.contains(&column) || of_result.contains(&column);
            assert!(
                is_merged || ["result_id", "recorded_at"].contains(&column),
                "{column}"
            );
        }
    }
    // The columns of the guards belong to one of the two.
    assert!(!manifest.writes[0].columns.contains(&"finished_at".to_owned()));
    assert!(!manifest.writes[1].columns.contains(&"version".to_owned()));
    let of_both = ["request_id", "exec_id", "pc_id", "started_at", "job_id"];
    assert!(of_both.iter().all(|column| of_start.contains(column)));
}
