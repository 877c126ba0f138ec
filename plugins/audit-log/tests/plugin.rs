//! What the plugin declares, and what it answers to each payload in `fixtures/`.

#![allow(clippy::expect_used, clippy::panic, reason = "all of this file is a test")]

use audit_log::AuditLog;
use lantern_sdk::native::{self, OnConflict, Outcome, Value};
use lantern_sdk::{Message, RejectionClass, Timestamp};

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<AuditLog>("fixtures");
}

/// The values of the key's columns for a message.
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
fn a_message_is_recorded_once_and_a_new_stream_loses_none() {
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
            "{} could be null, and null never collides",
            column.name
        );
    }
    assert_eq!(key(42, 1_000), key(42, 1_000), "a redelivery");
    assert_ne!(key(42, 1_000), key(43, 1_000), "the next message");
    assert_ne!(
        key(42, 1_000),
        key(42, 2_000),
        "the same number in a stream that was made anew"
    );
}

#[test]
fn a_sequence_that_no_column_holds_is_refused() {
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
