//! The manifest of the plugin, and its outcome for each fixture.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use audit_log::AuditLog;
use lantern_sdk::native::{self, OnConflict, Outcome, Value};
use lantern_sdk::{Message, RejectionClass, Timestamp};

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<AuditLog>("fixtures");
}

/// The values of the key columns for a message.
fn key(sequence: u64, published: i64) -> Vec<Value> {
    let payload = br#"{"actor":"a","action":"b","payload":{},"occurred_at":"2026-05-20T12:00:00Z"}"#;
    let published = Timestamp::from_micros(published);
    let message = Message {
        sequence,
        published,
        payload,
        ..Message::default()
    };
    let outcomes = native::project::<AuditLog>(0, &[message]);
    let Outcome::Rows(rows) = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    let manifest = native::describe::<AuditLog>();
    let unique = manifest.tables[0]
        .indexes
        .iter()
        .find(|index| index.unique)
        .expect("a unique index");
    let place = |name: &String| {
        manifest.writes[0]
            .columns
            .iter()
            .position(|column| column == name)
            .expect("it is brought")
    };
    unique
        .columns
        .iter()
        .map(|column| rows[0].values[place(column)].clone())
        .collect()
}

#[test]
fn messages_are_stored_once_including_those_of_a_recreated_stream() {
    let manifest = native::describe::<AuditLog>();
    assert_eq!(manifest.writes[0].on_conflict, OnConflict::Ignore);
    let unique = manifest.tables[0]
        .indexes
        .iter()
        .find(|index| index.unique)
        .expect("a unique index");
    for column in manifest.tables[0]
        .columns
        .iter()
        .filter(|column| unique.columns.contains(&column.name))
    {
        assert!(
            !column.nullable,
            "{} is nullable, and null never conflicts",
            column.name
        );
    }
    assert_eq!(key(42, 1_000), key(42, 1_000), "a redelivery");
    assert_ne!(key(42, 1_000), key(43, 1_000), "the next message");
    assert_ne!(
        key(42, 1_000),
        key(42, 2_000),
        "the same sequence in a recreated stream"
    );
}

#[test]
fn a_sequence_out_of_range_is_rejected() {
    let payload = br#"{"actor":"a","action":"b","payload":{},"occurred_at":"2026-05-20T12:00:00Z"}"#;
    let outcomes = native::project::<AuditLog>(
        0,
        &[Message {
            sequence: u64::MAX,
            payload,
            ..Message::default()
        }],
    );
    let Outcome::Reject(rejection) = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(rejection.class, RejectionClass::Invalid);
}
