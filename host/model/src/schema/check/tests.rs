//! Each kind of problem, one change at a time to a good manifest.

use crate::schema::{
    ColumnName, ColumnType, DeclaredRole, Manifest, Merge, Origin, RawColumn, RawGuard, RawIndex,
    RawManifest, RawOnConflict, RawSource, RawTable, RawWrite,
};

pub(in crate::schema) fn column(name: &str, column_type: ColumnType, nullable: bool) -> RawColumn {
    RawColumn {
        name: name.into(),
        column_type,
        nullable,
        role: DeclaredRole::None,
        doc: String::new(),
        hints: Vec::new(),
    }
}

pub(in crate::schema) fn good() -> RawManifest {
    RawManifest {
        name: "orders".into(),
        version: "1.0.0".into(),
        doc: String::new(),
        sources: vec![RawSource {
            name: "orders".into(),
            origin: Origin::JetStream {
                stream: "ORDERS".into(),
                subjects: vec!["orders.>".into()],
            },
            wants_headers: false,
        }],
        tables: vec![RawTable {
            name: "orders".into(),
            columns: vec![
                column("id", ColumnType::Text, false),
                column("total", ColumnType::Integer, true),
                column("at", ColumnType::Timestamp, true),
            ],
            primary_key: vec!["id".into()],
            indexes: vec![RawIndex {
                columns: vec!["at".into()],
                unique: false,
            }],
            ..RawTable::default()
        }],
        writes: vec![RawWrite {
            table: "orders".into(),
            columns: vec!["id".into(), "total".into(), "at".into()],
            on_conflict: RawOnConflict::Update {
                key: vec!["id".into()],
                merges: vec![("total".into(), Merge::Add)],
                guard: RawGuard::Newer("at".into()),
            },
        }],
    }
}

#[track_caller]
fn rejected(change: impl FnOnce(&mut RawManifest), words: &str) {
    let mut manifest = good();
    change(&mut manifest);
    let problems = Manifest::check(manifest).expect_err("it should be rejected");
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(
        all.iter().any(|problem| problem.contains(words)),
        "{words:?} is not in {all:?}"
    );
}

#[test]
fn a_good_manifest_passes() {
    let manifest = Manifest::check(good()).expect("good");
    assert_eq!(manifest.writes[0].columns, [0, 1, 2]);
    assert!(manifest.tables[0].has_key(&[ColumnName::parse("id").unwrap()]));
}

#[test]
fn problems_of_the_plugin_and_its_sources_are_reported() {
    rejected(|m| m.name = "../x".into(), "plugin name");
    rejected(|m| m.version = "one".into(), "semver");
    rejected(|m| m.sources.clear(), "no source");
    rejected(
        |m| m.sources.push(m.sources[0].clone()),
        "source orders is declared twice",
    );
    rejected(
        |m| {
            m.sources[0].origin = Origin::JetStream {
                stream: "a b".into(),
                subjects: vec![],
            }
        },
        "not a stream name",
    );
    for subject in ["a..b", "a.>.b", "a b", "", "a*.b"] {
        rejected(
            |m| {
                m.sources[0].origin = Origin::Core {
                    subjects: vec![subject.into()],
                }
            },
            "is not a subject",
        );
    }
    let core = |subjects: [&str; 2]| Origin::Core {
        subjects: subjects.map(str::to_owned).into(),
    };
    let stream = |subjects: [&str; 2]| Origin::JetStream {
        stream: "S".into(),
        subjects: subjects.map(str::to_owned).into(),
    };
    for subjects in [["zeek.>", "zeek.a"], ["a.b", "a.*"], ["a", "a"]] {
        rejected(
            |m| m.sources[0].origin = core(subjects),
            "overlap; keep one of them",
        );
        rejected(
            |m| m.sources[0].origin = stream(subjects),
            "overlap; keep one of them",
        );
    }
    let crossing = ["a.*.c", "a.b.*"];
    rejected(
        |m| m.sources[0].origin = core(crossing),
        "overlap; keep one of them",
    );
    let mut manifest = good();
    manifest.sources[0].origin = stream(crossing);
    Manifest::check(manifest).expect("the broker accepts it");
    rejected(
        |m| m.sources[0].origin = Origin::Core { subjects: vec![] },
        "at least one subject",
    );
}

#[test]
fn problems_of_tables_are_reported() {
    rejected(
        |m| m.tables.push(m.tables[0].clone()),
        "table orders is declared twice",
    );
    rejected(|m| m.tables[0].name = "sqlite_master".into(), "reserved");
    rejected(|m| m.tables[0].columns.clear(), "no columns");
    rejected(
        |m| m.tables[0].columns[1].name = "id".into(),
        "column id is declared twice",
    );
    rejected(
        |m| m.tables[0].columns[1].role = DeclaredRole::Time,
        "role time but is a integer",
    );
    rejected(
        |m| m.tables[0].columns[0].nullable = true,
        "in the primary key but nullable",
    );
    rejected(
        |m| m.tables[0].retention_days = Some(3),
        "no column has the role time",
    );
    rejected(
        |m| m.tables[0].indexes[0].columns = vec!["nope".into()],
        "\"nope\", which is not a column",
    );
}

#[test]
fn problems_of_writes_are_reported() {
    rejected(|m| m.writes[0].table = "users".into(), "declares no such table");
    rejected(|m| m.writes[0].columns.truncate(0), "names no columns");
    rejected(
        |m| m.writes[0].columns = vec!["total".into(), "at".into()],
        "leaves out column id",
    );
}

#[test]
fn a_manifest_is_bounded_as_a_whole_and_in_its_parts() {
    let hint = |bytes: usize| ("key".to_owned(), "x".repeat(bytes));
    rejected(
        |m| m.tables[0].hints = vec![hint(5_000)],
        "the hint \"key\" of table orders",
    );
    rejected(
        |m| m.tables[0].columns[1].hints = vec![hint(5_000)],
        "of table orders, column total",
    );
    rejected(
        |m| m.tables[0].hints = vec![hint(1); 65],
        "65 hints of table orders are more than 64",
    );
    rejected(
        |m| m.tables[0].columns[1].role = DeclaredRole::Measure("x".repeat(65)),
        "the unit of table orders, column total",
    );
    rejected(
        |m| m.tables[0].columns[1].hints = vec![hint(4_000); 70],
        "bytes, and the limit is 262144",
    );
    let table = |number: usize| RawTable {
        name: format!("t{number}"),
        columns: (0..256)
            .map(|number| column(&format!("c{number}"), ColumnType::Text, true))
            .collect(),
        ..RawTable::default()
    };
    rejected(
        |m| m.tables = (0..63).map(table).collect(),
        "bytes, and the limit is 262144",
    );
    let mut large = good();
    large.tables[0].columns[1].hints = vec![hint(4_000); 50];
    Manifest::check(large).expect("within all limits");
}

#[test]
fn internal_core_subjects_are_found() {
    for (subject, expected) in [
        (">", true),
        ("*.>", true),
        ("*.a", true),
        ("$JS.>", true),
        ("$JS.API.>", true),
        ("_INBOX.>", true),
        ("$SYS.ACCOUNT.*.CONNECT", true),
        ("*", false),
        ("orders.>", false),
        ("orders.*.closed", false),
        ("$KV.bucket.>", false),
    ] {
        let mut manifest = good();
        manifest.sources[0].origin = Origin::Core {
            subjects: vec![subject.into()],
        };
        let manifest = Manifest::check(manifest).expect("good");
        let found = manifest.internal_subject();
        assert_eq!(found.map(|(_, subject)| subject), expected.then_some(subject));
    }
    assert_eq!(Manifest::check(good()).expect("good").internal_subject(), None);
}

#[test]
fn text_with_terminal_control_characters_is_rejected() {
    for hostile in [
        "a\u{1b}[31m",
        "a\u{9b}2J",
        "a\u{7f}",
        "a\0",
        "a\rb",
        "a\u{202e}b",
        "a\u{2066}b",
    ] {
        rejected(
            |m| m.doc = hostile.into(),
            "the doc of the plugin has a control character",
        );
        rejected(
            |m| m.tables[0].doc = hostile.into(),
            "the doc of table orders has",
        );
        rejected(
            |m| m.tables[0].columns[0].doc = hostile.into(),
            "the doc of table orders, column id has",
        );
        rejected(
            |m| m.tables[0].columns[1].role = DeclaredRole::Measure(hostile.into()),
            "the unit of table orders, column total has",
        );
        rejected(
            |m| m.tables[0].hints.push((hostile.into(), "x".into())),
            "a hint of table orders has",
        );
        rejected(
            |m| m.tables[0].columns[0].hints.push(("x".into(), hostile.into())),
            "a hint of table orders, column id has",
        );
    }
    let mut manifest = good();
    manifest.doc = "two lines\n\tof Grüße".into();
    Manifest::check(manifest).expect("line ends and tabs are good in a doc");
}

#[test]
fn update_rules_are_checked_against_keys_and_types() {
    fn update(m: &mut RawManifest) -> (&mut Vec<String>, &mut Vec<(String, Merge)>, &mut RawGuard) {
        match &mut m.writes[0].on_conflict {
            RawOnConflict::Update { key, merges, guard } => (key, merges, guard),
            _ => unreachable!(),
        }
    }
    rejected(
        |m| *update(m).0 = vec!["total".into()],
        "neither the primary key nor a unique index",
    );
    rejected(|m| update(m).1.push(("at".into(), Merge::Add)), "not a number");
    rejected(
        |m| update(m).1.push(("id".into(), Merge::Replace)),
        "part of the key",
    );
    rejected(
        |m| *update(m).2 = RawGuard::WhileNull("nope".into()),
        "the guard names \"nope\"",
    );
    rejected(
        |m| m.writes[0].columns = vec!["id".into(), "total".into()],
        "the guard compares at",
    );
    rejected(
        |m| m.writes[0].columns = vec!["id".into(), "at".into()],
        "column total has a merge rule",
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let mut manifest = good();
    manifest.name = "A".into();
    manifest.version = "x".into();
    manifest.tables[0].columns[1].name = "No".into();
    let problems = Manifest::check(manifest).expect_err("bad");
    assert!(problems.len() >= 3, "{problems:?}");
}
