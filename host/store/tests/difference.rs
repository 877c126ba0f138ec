//! Compares the differences that are reported between two versions with what the store does with them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, but clippy does not take a test's helpers for tests"
)]

use std::sync::Arc;

use lantern_model::batch::Timestamp;
use lantern_model::schema::difference::differences;
use lantern_model::schema::{
    ColumnType, DeclaredRole, Difference, Effect, Manifest, ManifestDescription, Merge, Origin, RawColumn,
    RawGuard, RawIndex, RawManifest, RawOnConflict, RawSource, RawTable, RawWrite,
};
use lantern_store::{AdoptError, Adoption, Store, StoreConfig};

fn column(name: &str, column_type: ColumnType, nullable: bool) -> RawColumn {
    RawColumn {
        name: name.into(),
        column_type,
        nullable,
        role: DeclaredRole::None,
        doc: String::new(),
        hints: Vec::new(),
    }
}

fn first() -> RawManifest {
    RawManifest {
        name: "orders".into(),
        version: "1.0.0".into(),
        doc: String::new(),
        sources: vec![RawSource {
            name: "orders".into(),
            origin: Origin::JetStream {
                stream: "ORDERS".into(),
                subjects: vec!["orders.a".into(), "orders.b".into()],
            },
            wants_headers: false,
        }],
        tables: vec![
            RawTable {
                name: "orders".into(),
                columns: vec![
                    column("id", ColumnType::Text, false),
                    column("total", ColumnType::Integer, true),
                    column("at", ColumnType::Timestamp, true),
                ],
                primary_key: vec!["id".into()],
                indexes: vec![
                    RawIndex {
                        columns: vec!["total".into()],
                        unique: false,
                    },
                    RawIndex {
                        columns: vec!["at".into(), "total".into()],
                        unique: true,
                    },
                ],
                ..RawTable::default()
            },
            RawTable {
                name: "notes".into(),
                columns: vec![column("n", ColumnType::Integer, true)],
                ..RawTable::default()
            },
        ],
        writes: vec![
            RawWrite {
                table: "orders".into(),
                columns: vec!["id".into(), "total".into(), "at".into()],
                on_conflict: update(Merge::Add),
            },
            RawWrite {
                table: "notes".into(),
                columns: vec!["n".into()],
                on_conflict: RawOnConflict::Fail,
            },
        ],
    }
}

fn update(merge: Merge) -> RawOnConflict {
    RawOnConflict::Update {
        key: vec!["id".into()],
        merges: vec![("total".into(), merge)],
        guard: RawGuard::Newer("at".into()),
    }
}

fn checked(raw: RawManifest) -> Manifest {
    Manifest::check(raw).expect("a good manifest")
}

type Change = fn(&mut RawManifest);

/// Each change of the first version, the one difference that it makes, and its cost.
const CHANGES: &[(Change, &str, Effect)] = &[
    (
        |m| m.version = "1.1.0".into(),
        "plugin: version 1.0.0 becomes 1.1.0",
        Effect::None,
    ),
    (
        |m| m.doc = "More.".into(),
        "plugin: its doc changes",
        Effect::None,
    ),
    (
        |m| {
            m.sources.push(RawSource {
                name: "perf".into(),
                origin: Origin::Core {
                    subjects: vec!["perf.>".into()],
                },
                wants_headers: false,
            });
        },
        "source perf: is new: it reads core NATS (perf.>) from the beginning",
        Effect::Additive,
    ),
    (
        |m| {
            m.sources[0].origin = Origin::JetStream {
                stream: "SALES".into(),
                subjects: vec![],
            };
        },
        "source orders: read stream ORDERS (orders.a, orders.b) and would read stream SALES (all subjects)",
        Effect::Additive,
    ),
    (
        |m| {
            m.sources[0].origin = Origin::JetStream {
                stream: "ORDERS".into(),
                subjects: vec!["orders.>".into()],
            };
        },
        "source orders: read orders.a, orders.b and would read orders.>, from the next message on",
        Effect::None,
    ),
    (
        |m| m.sources[0].wants_headers = true,
        "source orders: would receive headers",
        Effect::None,
    ),
    (
        |m| {
            m.tables.push(RawTable {
                name: "more".into(),
                columns: vec![column("n", ColumnType::Integer, false)],
                ..RawTable::default()
            });
        },
        "table more: is new, with 1 columns",
        Effect::Additive,
    ),
    (
        |m| m.tables[0].columns.push(column("x", ColumnType::Json, true)),
        "table orders, column x: is new: json, null in existing rows",
        Effect::Additive,
    ),
    (
        |m| m.tables[1].columns[0].column_type = ColumnType::Text,
        "table notes, column n: is integer and would become text",
        Effect::NeedsRebuild,
    ),
    (
        |m| m.tables[1].columns[0].nullable = false,
        "table notes, column n: would become not nullable",
        Effect::NeedsRebuild,
    ),
    (
        |m| m.tables[0].columns[2].role = DeclaredRole::Time,
        "table orders, column at: its role was none and would be time",
        Effect::None,
    ),
    (
        |m| m.tables[0].columns[1].role = DeclaredRole::Measure("EUR".into()),
        "table orders, column total: its role was none and would be measure (EUR)",
        Effect::None,
    ),
    (
        |m| m.tables[0].columns[1].doc = "Cents.".into(),
        "table orders, column total: its doc changes",
        Effect::None,
    ),
    (
        |m| m.tables[0].columns[1].hints.push(("a".into(), "b".into())),
        "table orders, column total: its hints change",
        Effect::None,
    ),
    (
        |m| m.tables[0].doc = "Orders.".into(),
        "table orders: its doc changes",
        Effect::None,
    ),
    (
        |m| {
            m.tables[0].indexes.remove(0);
        },
        "table orders: the index (total) is no longer declared; it stays",
        Effect::None,
    ),
    (
        |m| {
            m.tables[0].indexes.remove(1);
        },
        "table orders: the unique index (at, total) is no longer declared",
        Effect::NeedsRebuild,
    ),
    (
        |m| {
            m.tables[1].indexes.push(RawIndex {
                columns: vec!["n".into()],
                unique: false,
            });
        },
        "table notes: the index (n) is new",
        Effect::Additive,
    ),
    (
        |m| {
            m.tables[1].indexes.push(RawIndex {
                columns: vec!["n".into()],
                unique: true,
            });
        },
        "table notes: the unique index (n) is new, and stored rows may violate it",
        Effect::NeedsRebuild,
    ),
    (
        |m| m.writes[0].on_conflict = update(Merge::Max),
        "writes into orders: the rule was: a row with the same id, when the new at is greater or the stored one is null: adds \
         to total; it would be: a row with the same id, when the new at is greater or the stored one is null: keeps the \
         greater of total",
        Effect::None,
    ),
    (
        |m| m.writes[0].columns.swap(1, 2),
        "writes into orders: wrote (id, total, at) and would write (id, at, total)",
        Effect::None,
    ),
    (
        |m| {
            m.writes.insert(
                0,
                RawWrite {
                    table: "orders".into(),
                    columns: vec!["id".into()],
                    on_conflict: RawOnConflict::Ignore,
                },
            );
        },
        "writes into orders: also (id) where an existing row stays unchanged",
        Effect::None,
    ),
    (
        |m| {
            m.writes.remove(1);
        },
        "writes into notes: no more (n) where a conflicting row makes the message a dead letter",
        Effect::None,
    ),
];

/// Changes that make several differences, and their total cost.
const LARGER_CHANGES: &[(Change, Effect)] = &[
    (
        |m| {
            m.tables.pop();
            m.writes.pop();
        },
        Effect::None,
    ),
    (
        |m| {
            m.tables[1]
                .columns
                .push(column("must", ColumnType::Integer, false));
            m.writes[1].columns.push("must".into());
        },
        Effect::NeedsRebuild,
    ),
    (
        |m| {
            m.tables[1].columns[0].nullable = false;
            m.tables[1].primary_key = vec!["n".into()];
        },
        Effect::NeedsRebuild,
    ),
    // Every possible addition at once.
    (
        |m| {
            m.version = "2.0.0".into();
            m.tables[0].columns[2].role = DeclaredRole::Time;
            m.tables[0].retention_days = Some(30);
            m.tables[0].columns.insert(0, column("x", ColumnType::Json, true));
            m.tables[0].indexes.push(RawIndex {
                columns: vec!["x".into()],
                unique: false,
            });
        },
        Effect::Additive,
    ),
];

fn changed(change: Change) -> Manifest {
    let mut raw = first();
    change(&mut raw);
    checked(raw)
}

#[test]
fn each_change_is_one_described_difference() {
    for (change, words, effect) in CHANGES {
        let found = checked(first()).differences(&changed(*change));
        let [one] = found.as_slice() else {
            panic!("{found:?} where {words:?} was expected")
        };
        assert_eq!(one.to_string(), *words);
        assert_eq!(one.effect, *effect, "{words}");
    }
}

#[test]
fn a_version_does_not_differ_from_itself() {
    assert_eq!(checked(first()).differences(&checked(first())), []);
    let reordered = |m: &mut RawManifest| {
        m.writes.swap(0, 1);
        m.tables.swap(0, 1);
        if let Origin::JetStream { subjects, .. } = &mut m.sources[0].origin {
            subjects.reverse();
        }
        // Keeping a column is the default.
        m.writes[1].on_conflict = match update(Merge::Add) {
            RawOnConflict::Update {
                key,
                mut merges,
                guard,
            } => {
                merges.push(("at".into(), Merge::Keep));
                RawOnConflict::Update { key, merges, guard }
            }
            other => other,
        };
    };
    assert_eq!(checked(first()).differences(&changed(reordered)), []);
}

#[test]
fn a_change_of_retention_names_the_affected_rows() {
    let kept = |days| {
        let mut raw = first();
        raw.tables[0].columns[2].role = DeclaredRole::Time;
        raw.tables[0].retention_days = days;
        checked(raw)
    };
    for (old, new, words) in [
        (None, Some(7), "rows older than 7 days would be removed"),
        (Some(7), None, "rows would be kept forever"),
        (Some(7), Some(30), "rows were kept for 7 days and would be for 30"),
    ] {
        let found = kept(old).differences(&kept(new));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].change.as_str(), found[0].effect), (words, Effect::None));
    }
}

#[test]
fn the_combined_effect_is_the_strongest_one() {
    assert_eq!(Effect::of(&[]), Effect::None);
    for (change, effect) in LARGER_CHANGES {
        let found = checked(first()).differences(&changed(*change));
        assert!(found.len() > 1, "{found:?}");
        assert_eq!(Effect::of(&found), *effect, "{found:?}");
    }
}

#[test]
fn stored_descriptions_are_compared() {
    let (old, new) = (checked(first()), changed(LARGER_CHANGES[3].0));
    let through_json = |manifest: &Manifest| -> ManifestDescription {
        let json = serde_json::to_string(&ManifestDescription::from(manifest)).unwrap();
        serde_json::from_str(&json).unwrap()
    };
    let found = differences(&through_json(&old), &through_json(&new));
    assert_eq!(found, old.differences(&new));
    let json = serde_json::to_value(&found[0]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"place": "plugin", "change": "version 1.0.0 becomes 2.0.0", "effect": "none"})
    );
    assert_eq!(
        serde_json::to_value(Effect::NeedsRebuild).unwrap(),
        "needs-rebuild"
    );
}

/// Adopts two versions in a new database; returns the store's objections to the second one.
async fn rejections(old: &Manifest, new: &Manifest) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path()))
        .await
        .expect("the store opens");
    let adopt = |manifest: &Manifest, digest: &str| {
        store.plugins().adopt(Adoption {
            manifest: Arc::new(manifest.clone()),
            digest: digest.into(),
            contract: "test".into(),
            at: Timestamp(0),
        })
    };
    adopt(old, "old").await.expect("the first version is adopted");
    let answer = adopt(new, "new").await;
    let refusals = match answer {
        Ok(_) => Vec::new(),
        Err(AdoptError::Refused(words)) => words.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    };
    store.close().await;
    refusals
}

#[track_caller]
fn check_agreement(found: &[Difference], refusals: &[String]) {
    let dear: Vec<&Difference> = found
        .iter()
        .filter(|difference| difference.effect == Effect::NeedsRebuild)
        .collect();
    assert_eq!(dear.len(), refusals.len(), "{dear:?} is not {refusals:?}");
}

/// The reverse direction: a rollback is a swap like any other.
#[tokio::test]
async fn the_store_rejects_exactly_the_changes_that_need_a_rebuild() {
    let changes = CHANGES.iter().map(|(change, _, _)| *change);
    for change in changes.chain(LARGER_CHANGES.iter().map(|(change, _)| *change)) {
        let (old, new) = (checked(first()), changed(change));
        check_agreement(&old.differences(&new), &rejections(&old, &new).await);
        check_agreement(&new.differences(&old), &rejections(&new, &old).await);
    }
}
