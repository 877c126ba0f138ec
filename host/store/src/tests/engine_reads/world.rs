//! A store of each engine with the same random messages.

use std::fmt::Debug;
use std::time::Duration;

use crate::reader::{ReadLimits, Reader, Shape};
use crate::testing::{Random, Scene, new_server_database, plugin_of};
use crate::{IndexerState, IndexingStep};
use lantern_model::batch::{Outcome, Rejection, RejectionClass, Row, Timestamp, Value};
use lantern_model::schema::{
    ColumnType, DeclaredRole, Manifest, Merge, RawColumn, RawGuard, RawOnConflict, RawTable, RawWrite,
    TableName,
};

pub(super) const DAY: i64 = 86_400_000_000;

pub(super) const ID: usize = 0;
pub(super) const AT: usize = 1;
pub(super) const KIND: usize = 2;
pub(super) const OK: usize = 3;
pub(super) const WHOLE: usize = 4;
pub(super) const REAL: usize = 5;
pub(super) const NOTE: usize = 6;
pub(super) const BODY: usize = 7;
pub(super) const EXTRA: usize = 8;

fn columns() -> Vec<RawColumn> {
    let column = |name: &str, column_type, role| RawColumn {
        name: name.into(),
        column_type,
        nullable: name != "id",
        role,
        doc: String::new(),
        hints: Vec::new(),
    };
    vec![
        column("id", ColumnType::Text, DeclaredRole::Entity),
        column("at", ColumnType::Timestamp, DeclaredRole::Time),
        column("kind", ColumnType::Text, DeclaredRole::Facet),
        column("ok", ColumnType::Boolean, DeclaredRole::Facet),
        column("whole", ColumnType::Integer, DeclaredRole::Measure("By".into())),
        column("real", ColumnType::Real, DeclaredRole::Measure("By".into())),
        column("note", ColumnType::Text, DeclaredRole::None),
        column("body", ColumnType::Blob, DeclaredRole::None),
        column("extra", ColumnType::Json, DeclaredRole::None),
    ]
}

/// A table `visits` that only grows, and a table `latest` whose rows are replaced.
fn manifest() -> Manifest {
    let names: Vec<String> = columns().iter().map(|column| column.name.clone()).collect();
    let replaced = names[1..].iter().map(|name| (name.clone(), Merge::Replace));
    let on_conflict = RawOnConflict::Update {
        key: vec!["id".into()],
        merges: replaced.collect(),
        guard: RawGuard::Always,
    };
    let table = |name: &str, key: &[&str]| RawTable {
        name: name.into(),
        columns: columns(),
        primary_key: key.iter().map(|name| (*name).to_owned()).collect(),
        ..RawTable::default()
    };
    let write = |table: &str, on_conflict| RawWrite {
        table: table.into(),
        columns: names.clone(),
        on_conflict,
    };
    plugin_of(
        vec![table("visits", &[]), table("latest", &["id"])],
        vec![write("visits", RawOnConflict::Fail), write("latest", on_conflict)],
    )
}

const NOTES: [&str; 10] = [
    "Disk full",
    "the disk is full",
    "DISK-FULL: sda1",
    "Straße, ẞ und ß",
    "İstanbul i\u{307}x",
    "e\u{301}te\u{301} K 日本語 テキスト",
    "100% _x_ [a]? *",
    "",
    "diskless\nfuller",
    "Ärger ärger \u{1F600}",
];

const DOCUMENTS: [&str; 9] = [
    r#"{"a": {"b": ["Disk full", 1.50, {"c": true}]}, "n": null}"#,
    r#"{"a": "disk", "a": "full", "x": 1e400}"#,
    r#"{"disk": "other", "b": {"a": "disk\nfull \u00c4rger"}}"#,
    r#"["disk", ["full"], "\ud800 \u0000 \ud83d\ude00 K"]"#,
    r#""disk \"full\" \\u0041""#,
    r#"{"a\"b": {"c": "disk"}, "": "empty name"}"#,
    "12",
    r#"{"disk": "other full", "note": ["full disk", 1.50, true], "x": "a* disk"}"#,
    r#"{ "full" : {"disk":"" , "z":"DISKS, full"} ,"list":["disk" , "full" ]}"#,
];

impl Random {
    fn visit(&mut self) -> Vec<Value> {
        let number = self.below(500);
        let at = match self.below(60) {
            0 => -5 * DAY,
            1 => 4_000 * DAY,
            _ => 20_000 * DAY + self.below(3 * DAY),
        };
        let kinds = ["a", "ä", "B", "", "b c"];
        let all = [
            Value::Timestamp(Timestamp(at)),
            Value::Text(kinds[self.below(5) as usize].into()),
            Value::Boolean(self.one_in(3)),
            Value::Integer(number - 250),
            Value::Real(number as f64 / 4.0),
            Value::Text(NOTES[self.below(10) as usize].into()),
            Value::Blob(vec![0, number as u8]),
            Value::Json(DOCUMENTS[self.below(9) as usize].into()),
        ];
        let some = all.map(|value| if self.one_in(9) { Value::Null } else { value });
        std::iter::once(Value::Text(format!("id {}", self.below(40))))
            .chain(some)
            .collect()
    }

    fn message(&mut self) -> Outcome {
        match self.below(15) {
            0 => Outcome::Skip,
            1 => Outcome::Reject(Rejection::new(
                RejectionClass::Malformed,
                ["no \"id\"", "100% [x]?", "a*b"][self.below(3) as usize],
            )),
            _ => {
                let row = |values: Vec<Value>, write| Row { write, values };
                let values = self.visit();
                Outcome::Rows(vec![row(values.clone(), 0), row(values, 1)])
            }
        }
    }
}

/// A store of each engine with the same messages, and a reader of the API for each.
pub(super) struct Both {
    _dirs: [tempfile::TempDir; 2],
    pub(super) scenes: [Scene; 2],
    pub(super) readers: [Reader; 2],
}

impl Both {
    pub(super) async fn open(batches: u32) -> Option<Self> {
        let server = new_server_database().await?;
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let scenes = [
            Scene::at(dirs[0].path(), manifest(), None).await,
            Scene::at(dirs[1].path(), manifest(), Some(server)).await,
        ];
        let mut random = Random(5);
        let mut through = 0;
        for _ in 0..batches {
            let outcomes: Vec<Outcome> = (0..=random.below(80)).map(|_| random.message()).collect();
            for scene in &scenes {
                let committed = scene.store.commit(scene.batch(through, outcomes.clone())).await;
                assert!(committed.unwrap().refused.is_empty());
            }
            through += outcomes.len() as u64;
        }
        let [file, at_server] = [&scenes[0], &scenes[1]].map(|scene| scene.store.location());
        let limits = ReadLimits {
            // A machine under load needs more than the default.
            time: Duration::from_secs(20),
            ..ReadLimits::default()
        };
        let readers = [
            Reader::open_at(file, limits).await.unwrap(),
            Reader::open_at(at_server, limits).await.unwrap(),
        ];
        Some(Self {
            _dirs: dirs,
            scenes,
            readers,
        })
    }

    /// Compares the answers to a query. Returns that of SQLite.
    pub(super) async fn same<T: Debug>(&self, what: &str, query: impl AsyncFn(&Reader) -> T) -> T {
        let (file, server) = (query(&self.readers[0]).await, query(&self.readers[1]).await);
        assert_eq!(format!("{file:#?}"), format!("{server:#?}"), "{what}");
        file
    }

    /// The same for queries of a table.
    pub(super) async fn same_in<T: Debug>(
        &self,
        table: &str,
        what: &str,
        query: impl AsyncFn(&Reader, &Shape) -> T,
    ) -> T {
        let what = format!("{table}: {what}");
        self.same(&what, async |reader| {
            query(reader, &shape_of(reader, table).await).await
        })
        .await
    }

    pub(super) async fn index_all(&self) {
        for scene in &self.scenes {
            for table in ["visits", "latest"] {
                let table = TableName::parse(table).unwrap();
                scene
                    .store
                    .search()
                    .set_enabled(&table, true, None)
                    .await
                    .unwrap();
            }
            let mut state = IndexerState::default();
            while matches!(
                scene.store.search().step(&mut state).await.unwrap(),
                IndexingStep::Worked { .. }
            ) {}
        }
    }
}

pub(super) async fn shape_of(reader: &Reader, table: &str) -> Shape {
    let name = TableName::parse(table).unwrap();
    reader.shape(&name).await.unwrap().unwrap()
}
