//! A table with segments and a table with indexes that contain the same rows return the same answers.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use crate::sql::Connection;

use super::super::rows::pager;
use super::super::snapshot::Snapshot;
use super::super::{
    Aggregate, Comparison, Condition, ReadLimits, Reader, RowPage, RowQuery, SearchQuery, Selection,
    SeriesQuery, Shape, Sort, Test,
};
use crate::segments::{self, SEGMENT_BITS, Touched};
use crate::testing::Random;
use lantern_model::batch::{Timestamp, Value};
use lantern_model::schema::TableName;

const COLUMNS: &str = "_origin INTEGER NOT NULL, _sequence INTEGER NOT NULL, _row INTEGER NOT NULL,
     pc TEXT NOT NULL, at INTEGER, kind TEXT, level INTEGER, score REAL, size INTEGER, note TEXT";

const DESCRIPTION: &str = r#"{"doc":"","columns":[
    {"name":"pc","type":"text","nullable":false,"role":"entity","unit":null,"doc":"","hints":{}},
    {"name":"at","type":"timestamp","nullable":true,"role":"time","unit":null,"doc":"","hints":{}},
    {"name":"kind","type":"text","nullable":true,"role":"facet","unit":null,"doc":"","hints":{}},
    {"name":"level","type":"integer","nullable":true,"role":"facet","unit":null,"doc":"","hints":{}},
    {"name":"score","type":"real","nullable":true,"role":"facet","unit":null,"doc":"","hints":{}},
    {"name":"size","type":"integer","nullable":true,"role":"measure","unit":null,"doc":"","hints":{}},
    {"name":"note","type":"text","nullable":true,"role":null,"unit":null,"doc":"","hints":{}}],
    "primary_key":[],"indexes":[],"retention_days":null,"hints":{}}"#;

const PC: usize = 0;
const AT: usize = 1;
const KIND: usize = 2;
const LEVEL: usize = 3;
const SCORE: usize = 4;
const SIZE: usize = 5;
const NOTE: usize = 6;

const ROWS: i64 = 20_000;
const SECOND: i64 = 1_000_000;

impl Random {
    fn any<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(i64::try_from(of.len()).unwrap())).unwrap()].clone()
    }
}

/// How the times of rows relate to the order in which they were stored.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    Ordered,
    AlmostOrdered,
    Unordered,
}

fn long() -> String {
    "long ".repeat(300)
}

fn create(path: &PathBuf, arrival: Arrival, random: &mut Random) {
    let mut connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    connection
        .execute_batch(&format!(
            "{}{}{}{}
             CREATE TABLE plain ({COLUMNS}) STRICT;
             CREATE TABLE segmented ({COLUMNS}) STRICT;",
            include_str!("../../../../../migrations/0001_host_tables.sql"),
            include_str!("../../../../../migrations/0012_segments.sql"),
            include_str!("../../../../../migrations/0013_search.sql"),
            include_str!("../../../../../migrations/0014_open_segment.sql"),
        ))
        .unwrap();
    insert_rows(&mut connection, arrival, random);
    // Some segments have few rows, and some none.
    connection
        .execute_batch(
            "DELETE FROM plain WHERE _rowid_ >> 10 IN (3, 7) OR (_rowid_ >> 10 = 5 AND _rowid_ % 100 > 0);
             INSERT INTO segmented (_rowid_, _origin, _sequence, _row, pc, at, kind, level, score, size, note)
                 SELECT _rowid_, _origin, _sequence, _row, pc, at, kind, level, score, size, note FROM plain;
             CREATE INDEX plain__at ON plain (at);
             CREATE INDEX plain__pc ON plain (pc, at);
             CREATE INDEX plain__kind ON plain (kind, at);
             CREATE INDEX plain__level ON plain (level, at);
             CREATE INDEX plain__score ON plain (score, at);
             CREATE INDEX segmented__at ON segmented (at);
             CREATE INDEX segmented__pc ON segmented (pc, at);",
        )
        .unwrap();
    for table in ["plain", "segmented"] {
        connection
            .execute(
                "INSERT INTO _lantern_table (name, plugin, description, updates) VALUES (?1, 'p', ?2, 0)",
                [table, DESCRIPTION],
            )
            .unwrap();
    }
    summarize(&connection);
}

fn insert_rows(connection: &mut Connection, arrival: Arrival, random: &mut Random) {
    let transaction = connection.begin().unwrap();
    for row in 1..=ROWS {
        let at = match arrival {
            Arrival::Ordered => row * SECOND,
            Arrival::AlmostOrdered => (row + random.below(1_500)) * SECOND,
            Arrival::Unordered => random.below(ROWS) * SECOND,
        };
        let kind = match random.below(12) {
            0 => None,
            1 if random.one_in(50) => Some(long()),
            2 if random.one_in(300) => Some("rare".to_owned()),
            // A kind that only some segments contain.
            3 if (row >> 11) % 3 == 0 => Some("at times".to_owned()),
            number => Some(format!("kind {}", number % 5)),
        };
        transaction
            .prepare_cached("INSERT INTO plain VALUES (1, ?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
            .unwrap()
            .execute(crate::sql::params![
                row,
                format!("pc {}", random.below(40)),
                (!random.one_in(40)).then_some(at),
                kind,
                // The same for long stretches of rows, so that some segments have one value.
                (row >> 12 != 2).then_some(row >> 11),
                (random.below(4) > 0).then(|| random.below(6) as f64 / 4.0),
                (!random.one_in(10)).then(|| random.below(1_000)),
                format!("note {}", random.below(500)),
            ])
            .unwrap();
    }
    transaction.commit().unwrap();
}

/// Stores the summaries of the table `segmented`.
fn summarize(connection: &Connection) {
    let description = serde_json::from_str(DESCRIPTION).unwrap();
    segments::begin(connection, "segmented", &description).unwrap();
    let mut touched = Touched::default();
    touched.add("segmented", 0..=ROWS >> SEGMENT_BITS);
    touched.refresh(connection).unwrap();
}

fn condition(random: &mut Random) -> Condition {
    let text = |text: &str| Value::Text(text.to_owned());
    let one_of = |column, values, null| Condition {
        column,
        test: Test::OneOf { values, null },
    };
    match random.below(12) {
        0..=3 => {
            let known = [
                "kind 0",
                "kind 1",
                "kind 4",
                "rare",
                "at times",
                "unknown",
                &long(),
            ]
            .map(text);
            let mut values = vec![random.any(&known)];
            if random.one_in(3) {
                values.push(random.any(&known));
                values.dedup();
            }
            one_of(KIND, values, random.one_in(6))
        }
        4 => one_of(KIND, Vec::new(), true),
        5 | 6 => one_of(LEVEL, vec![Value::Integer(random.below(10))], random.one_in(4)),
        7 => one_of(SCORE, vec![Value::Real(random.below(6) as f64 / 4.0)], false),
        8 => one_of(PC, vec![text(&format!("pc {}", random.below(40)))], false),
        9 => Condition {
            column: SIZE,
            test: Test::Compare(Comparison::Less, Value::Integer(random.below(1_000))),
        },
        10 => Condition {
            column: KIND,
            test: Test::Not(text("kind 1")),
        },
        _ => Condition {
            column: NOTE,
            test: Test::Contains(format!("{}", random.below(50))),
        },
    }
}

fn selection(random: &mut Random) -> Selection {
    let count = random.any(&[0, 1, 1, 1, 2, 3]);
    let mut conditions: Vec<Condition> = Vec::new();
    for _ in 0..count {
        let next = condition(random);
        // As the API: alternatives of a column are one condition.
        if conditions.iter().all(|known| known.column != next.column) {
            conditions.push(next);
        }
    }
    let mut times = [random.below(ROWS + 3_000), random.below(ROWS + 3_000)].map(|at| Timestamp(at * SECOND));
    times.sort_unstable();
    Selection {
        conditions,
        search: random
            .one_in(10)
            .then(|| SearchQuery::parse("\"note 3*\"", |_| None).unwrap()),
        from: (!random.one_in(3)).then_some(times[0]),
        to: (!random.one_in(3)).then_some(Timestamp(times[1].0 + 1)),
    }
}

fn describe(value: &impl Debug) -> String {
    format!("{value:?}")
}

/// The database of one test.
struct Scene {
    _dir: tempfile::TempDir,
    path: PathBuf,
    reader: Reader,
    plain: Shape,
    segmented: Shape,
    random: Random,
}

impl Scene {
    async fn new(arrival: Arrival, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lantern.db");
        let mut random = Random(seed);
        create(&path, arrival, &mut random);
        let limits = ReadLimits {
            time: Duration::from_secs(60),
            ..ReadLimits::default()
        };
        let reader = Reader::open_with(&path, limits).await.unwrap();
        let shape = async |name| {
            let name = TableName::parse(name).unwrap();
            reader.shape(&name).await.unwrap().unwrap()
        };
        let (plain, segmented) = (shape("plain").await, shape("segmented").await);
        assert!(segmented.is_segmented() && !plain.is_segmented());
        Self {
            _dir: dir,
            path,
            reader,
            plain,
            segmented,
            random,
        }
    }

    async fn compare_counts(&mut self) {
        let selection = selection(&mut self.random);
        let plain = self.reader.count(&self.plain, &selection).await.unwrap();
        let segmented = self.reader.count(&self.segmented, &selection).await.unwrap();
        match plain.exact {
            true => assert_eq!(segmented.rows, plain.rows, "{selection:?}"),
            false => assert!(segmented.rows >= plain.rows, "{selection:?}: {segmented:?}"),
        }
    }

    async fn compare_facets(&mut self) {
        let selection = selection(&mut self.random);
        let limit = u32::try_from(1 + self.random.below(10)).unwrap();
        for column in [PC, KIND, LEVEL, SCORE] {
            for selection in [selection.clone(), selection.without_choice_of(column)] {
                let facet = async |shape| {
                    let facet = self.reader.facet(shape, &selection, column, limit).await.unwrap();
                    describe(&(facet.values, facet.nulls, facet.more))
                };
                assert_eq!(
                    facet(&self.segmented).await,
                    facet(&self.plain).await,
                    "{column} {limit} {selection:?}"
                );
            }
        }
    }

    async fn compare_histograms(&mut self) {
        let selection = selection(&mut self.random);
        let count = u32::try_from(1 + self.random.below(80)).unwrap();
        let by = self
            .random
            .any(&[None, Some(KIND), Some(KIND), Some(LEVEL), Some(PC)]);
        let histogram = async |shape| {
            let mut histogram = self.reader.histogram(shape, &selection, count, by).await.unwrap();
            for bucket in &mut histogram.counts {
                bucket.by.sort_by_key(describe);
            }
            describe(&histogram)
        };
        assert_eq!(
            histogram(&self.segmented).await,
            histogram(&self.plain).await,
            "{count} {by:?} {selection:?}"
        );
    }

    async fn compare_series(&mut self) {
        let aggregates = [
            Aggregate::Count,
            Aggregate::Average,
            Aggregate::Sum,
            Aggregate::Percentile(95),
        ];
        let measures = self.random.any(&[vec![], vec![SIZE], vec![SIZE, LEVEL]]);
        let query = SeriesQuery {
            selection: selection(&mut self.random),
            aggregate: match measures.is_empty() {
                true => Aggregate::Count,
                false => self.random.any(&aggregates),
            },
            measures,
            by: self.random.any(&[None, Some(KIND), Some(LEVEL), Some(PC)]),
            buckets: u32::try_from(1 + self.random.below(80)).unwrap(),
        };
        let series = async |shape| {
            let series = self.reader.series(shape, &query).await.unwrap();
            describe(&(series.buckets, series.lines, series.more))
        };
        assert_eq!(
            series(&self.segmented).await,
            series(&self.plain).await,
            "{query:?}"
        );
    }

    fn row_query(&mut self) -> RowQuery {
        let column = self.random.any(&[
            None,
            Some(AT),
            Some(AT),
            Some(KIND),
            Some(PC),
            Some(SIZE),
            Some(SCORE),
        ]);
        RowQuery {
            selection: selection(&mut self.random),
            sort: Sort {
                column,
                descending: self.random.one_in(2),
            },
            columns: vec![PC, AT, KIND, SIZE],
            limit: u32::try_from(1 + self.random.below(900)).unwrap(),
            after: None,
        }
    }

    async fn compare_pages(&mut self) {
        let mut query = self.row_query();
        for _ in 0..10 {
            let page = async |shape| {
                let RowPage { items, next, .. } = self.reader.rows(shape, &query).await.unwrap();
                (describe(&items), next)
            };
            let (plain, segmented) = (page(&self.plain).await, page(&self.segmented).await);
            assert!(
                plain == segmented,
                "{query:?}\nplain: {plain:?}\nsegmented: {segmented:?}"
            );
            query.after = plain.1;
            if query.after.is_none() {
                break;
            }
        }
    }
}

async fn compare(arrival: Arrival, seed: u64) {
    let mut scene = Scene::new(arrival, seed).await;
    assert!(
        scene
            .plain
            .columns
            .iter()
            .filter(|column| column.column_type.is_sortable())
            .count()
            == 7
    );
    for _ in 0..40 {
        scene.compare_counts().await;
        scene.compare_facets().await;
        scene.compare_histograms().await;
        scene.compare_series().await;
        scene.compare_pages().await;
    }
}

#[tokio::test]
async fn segments_and_indexes_return_the_same_answers_for_rows_in_order() {
    compare(Arrival::Ordered, 1).await;
}

#[tokio::test]
async fn segments_and_indexes_return_the_same_answers_for_rows_about_in_order() {
    compare(Arrival::AlmostOrdered, 2).await;
}

#[tokio::test]
async fn segments_and_indexes_return_the_same_answers_for_rows_in_no_order() {
    compare(Arrival::Unordered, 3).await;
}

/// Reads all pages of a query. With no time, a page ends after the first segment.
fn read_all(scene: &Scene, query: &RowQuery, time: Duration) -> Option<(Vec<i64>, usize)> {
    let connection = Connection::open(&scene.path).unwrap();
    super::super::text::register(connection.sqlite().unwrap(), Default::default()).unwrap();
    super::super::search_function::register(connection.sqlite().unwrap(), Default::default()).unwrap();
    let mut query = query.clone();
    let (mut rows, mut pages) = (Vec::new(), 0);
    loop {
        let page = pager::page(
            &Snapshot::new(&connection, time, 8 << 20),
            &scene.segmented,
            &query,
        )
        .unwrap()?;
        rows.extend(page.items.iter().map(|row| row.rowid));
        pages += 1;
        assert!(pages < 1_000, "no end: {query:?}");
        query.after = page.next;
        if query.after.is_none() {
            return Some((rows, pages));
        }
    }
}

#[tokio::test]
async fn a_page_that_ends_early_is_continued_by_the_next_one() {
    let mut scene = Scene::new(Arrival::AlmostOrdered, 4).await;
    let (mut continued, mut compared) = (0, 0);
    while continued < 10 {
        let mut query = scene.row_query();
        query.limit += 300;
        let patient = read_all(&scene, &query, Duration::from_secs(600));
        let hasty = read_all(&scene, &query, Duration::ZERO);
        if let (Some((patient, few)), Some((hasty, many))) = (patient, hasty) {
            assert_eq!(hasty, patient, "{query:?}");
            continued += usize::from(many > few);
        }
        compared += 1;
        assert!(compared < 1_000, "only {continued} pages ended early");
    }
}
