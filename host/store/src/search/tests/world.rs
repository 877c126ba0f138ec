//! A store with indexed tables, random changes and searches, and the comparison of all rows.

use super::super::{SearchQuery, SearchedText};
use crate::reader::{Condition, Reader, RowPosition, RowQuery, Selection, Shape, Sort, Test};
use crate::testing::{Random, Scene, plugin_of};
use crate::{IndexerState, IndexingStep};
use lantern_model::batch::{Outcome, Row, Timestamp, Value};
use lantern_model::schema::{
    ColumnType, DeclaredRole, Manifest, Merge, RawColumn, RawGuard, RawOnConflict, RawTable, RawWrite,
    TableName,
};

/// A table `lines` that only grows, and a table `states` whose rows are updated, with the same columns.
pub(super) fn manifest() -> Manifest {
    let column = |name: &str, column_type, nullable, role| RawColumn {
        name: name.into(),
        column_type,
        nullable,
        role,
        doc: String::new(),
        hints: Vec::new(),
    };
    let columns = || {
        vec![
            column("id", ColumnType::Text, false, DeclaredRole::Facet),
            column("note", ColumnType::Text, true, DeclaredRole::None),
            column("payload", ColumnType::Json, true, DeclaredRole::None),
            column("at", ColumnType::Timestamp, false, DeclaredRole::Time),
        ]
    };
    plugin_of(
        vec![
            RawTable {
                name: "lines".into(),
                columns: columns(),
                retention_days: Some(1),
                ..RawTable::default()
            },
            RawTable {
                name: "states".into(),
                columns: columns(),
                primary_key: vec!["id".into()],
                ..RawTable::default()
            },
        ],
        writes(),
    )
}

fn writes() -> Vec<RawWrite> {
    let names = ["id", "note", "payload", "at"].map(str::to_owned).to_vec();
    vec![
        RawWrite {
            table: "lines".into(),
            columns: names.clone(),
            on_conflict: RawOnConflict::Fail,
        },
        RawWrite {
            table: "states".into(),
            columns: names,
            on_conflict: RawOnConflict::Update {
                key: vec!["id".into()],
                merges: ["note", "payload", "at"]
                    .map(|name| (name.into(), Merge::Replace))
                    .to_vec(),
                guard: RawGuard::Always,
            },
        },
    ]
}

impl Random {
    /// A word; those with small numbers are frequent.
    pub(super) fn word(&mut self) -> String {
        let limit = 1 + self.below(40);
        format!("word{}", self.below(limit))
    }

    pub(super) fn text(&mut self) -> String {
        (0..1 + self.below(5))
            .map(|_| self.word())
            .collect::<Vec<_>>()
            .join(if self.one_in(2) { "-" } else { " " })
    }

    pub(super) fn search(&mut self) -> String {
        let term = |random: &mut Self| {
            let sign = if random.one_in(6) { "-" } else { "" };
            let scope = ["", "", "", "note:", "payload.a:", "payload.b.c:"][random.below(6) as usize];
            let word = match random.below(6) {
                0 => format!("\"{} {}\"", random.word(), random.word()),
                1 => format!("word{}*", random.below(4)),
                _ => random.word(),
            };
            format!("{sign}{scope}{word}")
        };
        (0..1 + self.below(3))
            .map(|_| term(self))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

pub(super) struct World {
    _dir: tempfile::TempDir,
    pub(super) scene: Scene,
    pub(super) reader: Reader,
    pub(super) state: IndexerState,
    pub(super) sequence: u64,
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::of(dir.path(), manifest()).await;
        let reader = Reader::open(scene.store.path().unwrap()).await.unwrap();
        Self {
            _dir: dir,
            scene,
            reader,
            state: IndexerState::default(),
            sequence: 0,
        }
    }

    pub(super) async fn set_enabled(&self, on: bool) {
        for table in ["lines", "states"] {
            let table = TableName::parse(table).unwrap();
            self.scene
                .store
                .search()
                .set_enabled(&table, on, None)
                .await
                .unwrap();
        }
    }

    /// Stores one message with a row in each table.
    pub(super) async fn add(&mut self, rows: Vec<[Value; 4]>) {
        let outcomes = rows.into_iter().map(|values| {
            let row = |write| Row {
                write,
                values: values.to_vec(),
            };
            Outcome::Rows(vec![row(0), row(1)])
        });
        let outcomes: Vec<Outcome> = outcomes.collect();
        let count = outcomes.len() as u64;
        let batch = self.scene.batch(self.sequence, outcomes);
        let refused = self.scene.store.commit(batch).await.unwrap().refused;
        assert!(refused.is_empty(), "{refused:?}");
        self.sequence += count;
    }

    pub(super) async fn add_random(&mut self, random: &mut Random, count: i64) {
        let first = self.sequence as i64;
        let rows = (0..count).map(|number| {
            let payload = serde_json::json!({"a": random.text(), "b": {"c": random.below(9), "word0": [random.word()]}});
            [
                Value::Text(format!("id {}", random.below(200))),
                if random.one_in(9) { Value::Null } else { Value::Text(random.text()) },
                Value::Json(payload.to_string()),
                Value::Timestamp(Timestamp((first + number + random.below(40)) * 1_000_000)),
            ]
        });
        self.add(rows.collect()).await;
    }

    pub(super) async fn step(&mut self) -> bool {
        matches!(
            self.scene.store.search().step(&mut self.state).await.unwrap(),
            IndexingStep::Worked { .. }
        )
    }

    pub(super) async fn index_all(&mut self) {
        while self.step().await {}
    }

    pub(super) async fn shape(&self, table: &str) -> Shape {
        let name = TableName::parse(table).unwrap();
        self.reader.shape(&name).await.unwrap().unwrap()
    }

    /// The sequences of the rows that match, in pages.
    pub(super) async fn found(&self, table: &str, selection: &Selection, sort: Sort) -> Vec<i64> {
        let shape = self.shape(table).await;
        let (mut found, mut after): (Vec<i64>, Option<RowPosition>) = (Vec::new(), None);
        loop {
            let query = RowQuery {
                selection: selection.clone(),
                sort,
                columns: vec![0],
                limit: 7,
                after: after.clone(),
            };
            let page = self.reader.rows(&shape, &query).await.unwrap();
            found.extend(page.items.iter().map(|row| row.id.sequence));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    }

    /// The same from a comparison of all rows.
    pub(super) fn compared(&self, table: &str, selection: &Selection, order: &str) -> Vec<i64> {
        let search = selection.search.as_ref().unwrap();
        let connection = rusqlite::Connection::open(self.scene.store.path().unwrap()).unwrap();
        let ids = selection
            .conditions
            .first()
            .map(|condition| match &condition.test {
                Test::OneOf { values, .. } => values.clone(),
                _ => Vec::new(),
            });
        let mut statement = connection
            .prepare(&format!(
                "SELECT _sequence, at, id, note, payload FROM {table} ORDER BY {order}"
            ))
            .unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut found = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let at = Timestamp(row.get(1).unwrap());
            let texts = [2, 3, 4].map(|column| row.get::<_, Option<String>>(column).unwrap());
            let is_chosen = ids
                .as_ref()
                .is_none_or(|ids| ids.contains(&Value::Text(texts[0].clone().unwrap())));
            let searched = texts.iter().enumerate().filter_map(|(column, text)| {
                let (text, is_json) = (text.as_deref()?, column == 2);
                Some(SearchedText {
                    column,
                    text,
                    is_json,
                })
            });
            let in_range =
                selection.from.is_none_or(|from| at >= from) && selection.to.is_none_or(|to| at < to);
            if in_range && is_chosen && search.matches(searched, || false).unwrap() {
                found.push(row.get(0).unwrap());
            }
        }
        found
    }

    pub(super) async fn check(&self, random: &mut Random) {
        for table in ["lines", "states"] {
            let shape = self.shape(table).await;
            let text = random.search();
            let mut times = [0, 0].map(|_| Timestamp(random.below(self.sequence as i64 + 50) * 1_000_000));
            times.sort_unstable();
            let selection = Selection {
                search: Some(SearchQuery::parse(&text, |name| shape.searchable(name)).unwrap()),
                conditions: random
                    .one_in(5)
                    .then(|| Condition {
                        column: 0,
                        test: Test::OneOf {
                            values: (0..20)
                                .map(|number| Value::Text(format!("id {number}")))
                                .collect(),
                            null: false,
                        },
                    })
                    .into_iter()
                    .collect(),
                from: random.one_in(4).then_some(times[0]),
                to: random.one_in(4).then_some(times[1]),
            };
            self.check_counts(
                &shape,
                &selection,
                self.compared(table, &selection, "_rowid_").len() as u64,
            )
            .await;
            for (column, order) in [(Some(3), "at"), (None, "_rowid_"), (Some(0), "id")] {
                for (descending, word) in [(true, "DESC"), (false, "ASC")] {
                    let sort = Sort { column, descending };
                    let order = format!("{order} {word}, _rowid_ {word}");
                    let found = self.found(table, &selection, sort).await;
                    assert_eq!(
                        found,
                        self.compared(table, &selection, &order),
                        "{table}: {text} {selection:?} {order}"
                    );
                }
            }
        }
    }
}

impl World {
    pub(super) async fn check_counts(&self, shape: &Shape, selection: &Selection, expected: u64) {
        let count = self.reader.count(shape, selection).await.unwrap();
        assert_eq!((count.rows, count.exact), (expected, true), "{selection:?}");
        let histogram = self
            .reader
            .histogram(shape, selection, 10, Some(0))
            .await
            .unwrap();
        let rows: u64 = histogram.counts.iter().map(|bucket| bucket.rows).sum();
        assert_eq!(
            rows + histogram.earlier + histogram.later,
            expected,
            "{selection:?}"
        );
        let facet = self.reader.facet(shape, selection, 0, 1_000).await.unwrap();
        let without = Selection {
            conditions: Vec::new(),
            ..selection.clone()
        };
        if *selection == without {
            assert_eq!(
                facet.values.iter().map(|(_, rows)| rows).sum::<u64>(),
                expected,
                "{selection:?}"
            );
        }
    }
}
