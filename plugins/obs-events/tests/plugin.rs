//! The manifest of the plugin, and its outcome for each fixture.

use lantern_sdk::native::{self, ColumnType, Index, OnConflict, Outcome, Role, Value};
use lantern_sdk::{Message, RejectionClass};
use obs_events::ObsEvents;

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<ObsEvents>("fixtures");
}

#[test]
fn the_table_matches_the_endpoint_management_system() {
    let manifest = native::describe::<ObsEvents>();
    assert_eq!(
        (manifest.name.as_str(), manifest.version.as_str()),
        ("obs-events", env!("CARGO_PKG_VERSION"))
    );
    let [table] = manifest.tables.as_slice() else {
        panic!("one table: {:?}", manifest.tables)
    };
    assert_eq!(table.name, "obs_events");
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.column_type, c.nullable, c.role.clone()))
        .collect();
    assert_eq!(
        columns,
        [
            ("pc_id", ColumnType::Text, false, Role::Entity),
            ("at", ColumnType::Timestamp, false, Role::Time),
            ("kind", ColumnType::Text, false, Role::Facet),
            ("source", ColumnType::Text, false, Role::Facet),
            ("event_record_id", ColumnType::Text, true, Role::None),
            ("payload", ColumnType::Json, false, Role::None),
        ]
    );
    let index = |columns: &[&str], unique| Index {
        columns: columns.iter().map(|&c| c.to_owned()).collect(),
        unique,
    };
    assert_eq!(
        table.indexes,
        [
            index(&["pc_id", "source", "event_record_id"], true),
            index(&["at"], false),
            index(&["pc_id", "at"], false)
        ]
    );
    assert!(table.primary_key.is_empty() && table.retention_days.is_none());
}

#[test]
fn repeated_events_are_ignored() {
    let manifest = native::describe::<ObsEvents>();
    assert_eq!(manifest.writes.len(), 1);
    assert_eq!(manifest.writes[0].on_conflict, OnConflict::Ignore);
    let names: Vec<_> = manifest.tables[0]
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    assert_eq!(manifest.writes[0].columns, names);
}

#[test]
fn an_invalid_message_does_not_affect_others() {
    let good = br#"{"pc_id":"a","at":"2026-05-28T10:41:00Z","kind":"k","source":"s","payload":1}"#;
    let message = |payload| Message {
        payload,
        ..Message::default()
    };
    let outcomes = native::project::<ObsEvents>(0, &[message(good), message(b"not json"), message(good)]);
    let [
        Outcome::Rows(first),
        Outcome::Reject(second),
        Outcome::Rows(third),
    ] = outcomes.as_slice()
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!(first, third);
    assert_eq!(first[0].values[5], Value::Json("1".to_owned()));
    assert_eq!(second.class, RejectionClass::Malformed);
}

#[test]
fn a_payload_of_any_depth_is_accepted_or_rejected() {
    for depth in [100, 10_000, 1_000_000] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let payload = format!(
            r#"{{"pc_id":"a","at":"2026-05-28T10:41:00Z","kind":"k","source":"s","payload":{nested}}}"#
        );
        let message = Message {
            payload: payload.as_bytes(),
            ..Message::default()
        };
        let outcomes = native::project::<ObsEvents>(0, &[message]);
        let Outcome::Rows(rows) = &outcomes[0] else {
            panic!("depth {depth}: {outcomes:?}")
        };
        assert_eq!(rows[0].values[5], Value::Json(nested));
    }
}
