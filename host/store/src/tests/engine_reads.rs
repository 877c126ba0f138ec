//! Both engines answer every query of a reader alike.

mod world;

use super::*;
use crate::provenance::RowKey;
use crate::reader::{
    Aggregate, Comparison, Condition, DeadLetterFilter, RowQuery, SearchQuery, Selection, SeriesQuery, Sort,
    SourceFilter, Test,
};
use lantern_model::identity::RowIdentity;
use lantern_model::results::records::{DeadLetter, LedgerRange};
use lantern_model::schema::TableName;
use world::{AT, BODY, Both, DAY, EXTRA, ID, KIND, NOTE, OK, REAL, WHOLE, shape_of};

fn one_of(column: usize, values: &[Value], null: bool) -> Condition {
    let values = values.to_vec();
    Condition {
        column,
        test: Test::OneOf { values, null },
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// Selections with every test and type of column.
fn selections() -> Vec<Selection> {
    let with = |conditions: Vec<Condition>| Selection {
        conditions,
        ..Selection::default()
    };
    let test = |column, test| with(vec![Condition { column, test }]);
    let mut selections = vec![
        Selection::default(),
        with(vec![one_of(KIND, &[text("a")], false)]),
        with(vec![one_of(KIND, &[text("ä"), text("")], false)]),
        with(vec![one_of(KIND, &[text("B")], true)]),
        with(vec![
            one_of(ID, &[text("id 7")], false),
            one_of(OK, &[Value::Boolean(true)], false),
        ]),
        with(vec![one_of(
            WHOLE,
            &[Value::Integer(3), Value::Integer(-9)],
            false,
        )]),
        test(KIND, Test::Not(text("a"))),
        test(REAL, Test::Compare(Comparison::AtLeast, Value::Real(60.25))),
        test(WHOLE, Test::Compare(Comparison::Less, Value::Integer(-100))),
        test(NOTE, Test::Compare(Comparison::Greater, text("Z"))),
        test(NOTE, Test::Contains("DISK".into())),
        test(NOTE, Test::Contains("ärger".into())),
        test(NOTE, Test::Lacks("full".into())),
        test(NOTE, Test::BeginsWith("D".into())),
        test(BODY, Test::Set),
        test(EXTRA, Test::Contains("\\u0000".into())),
    ];
    let range = Selection {
        from: Some(Timestamp(20_000 * DAY + DAY / 2)),
        to: Some(Timestamp(20_001 * DAY)),
        ..Selection::default()
    };
    selections.push(Selection {
        conditions: vec![one_of(KIND, &[text("a"), text("B")], false)],
        ..range.clone()
    });
    selections.push(Selection {
        to: None,
        ..range.clone()
    });
    selections.push(range);
    selections
}

const SEARCHES: [&str; 22] = [
    "disk",
    "disk full",
    "\"disk full\"",
    "disk -full",
    "-disk",
    "dis*",
    "full*",
    "strasse",
    "straße ß",
    "i\u{307}stanbul",
    "k",
    "éte\u{301}",
    "日本語",
    "ärger",
    "note:disk",
    "extra:disk",
    "extra.a:disk",
    "extra.a.b.c:true",
    "extra.b:\"full ärger\"",
    "-extra.a:full disk",
    "1 50",
    "u0041 -null",
];

async fn compare_rows(both: &Both, table: &str, selection: &Selection) {
    for column in [None, Some(AT), Some(KIND), Some(REAL), Some(NOTE), Some(WHOLE)] {
        for descending in [false, true] {
            let what = format!("rows by {column:?} {descending} of {selection:?}");
            both.same_in(table, &what, async |reader, shape| {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let query = RowQuery {
                        selection: selection.clone(),
                        sort: Sort { column, descending },
                        columns: (0..shape.columns.len()).collect(),
                        limit: 400,
                        after: after.take(),
                    };
                    let page = reader.rows(shape, &query).await.unwrap();
                    found.extend(page.items.into_iter().map(|row| (row.id.to_string(), row.values)));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                if column.is_none() {
                    found.sort_by(|one, other| one.0.cmp(&other.0));
                }
                found
            })
            .await;
        }
    }
}

async fn compare_statistics(both: &Both, table: &str, selection: &Selection) {
    let what = |kind: &str| format!("{kind} of {selection:?}");
    both.same_in(table, &what("count"), async |reader, shape| {
        reader.count(shape, selection).await.unwrap()
    })
    .await;
    both.same_in(table, &what("range"), async |reader, shape| {
        reader.range(shape, selection).await.unwrap()
    })
    .await;
    for column in [ID, KIND, OK, WHOLE, REAL, NOTE] {
        both.same_in(table, &what(&format!("facet {column}")), async |reader, shape| {
            reader.facet(shape, selection, column, 7).await.unwrap()
        })
        .await;
    }
    for by in [None, Some(KIND), Some(OK), Some(WHOLE)] {
        both.same_in(
            table,
            &what(&format!("histogram by {by:?}")),
            async |reader, shape| {
                let mut histogram = reader.histogram(shape, selection, 60, by).await.unwrap();
                for bucket in &mut histogram.counts {
                    bucket.by.sort_by_key(|(value, _)| format!("{value:?}"));
                }
                histogram
            },
        )
        .await;
    }
}

async fn compare_series(both: &Both, table: &str, selection: &Selection) {
    for aggregate in [
        Aggregate::Average,
        Aggregate::Minimum,
        Aggregate::Maximum,
        Aggregate::Sum,
        Aggregate::Count,
        Aggregate::Percentile(50),
        Aggregate::Percentile(99),
    ] {
        for (measures, by) in [
            (vec![], None),
            (vec![WHOLE, REAL], Some(KIND)),
            (vec![REAL], Some(OK)),
        ] {
            let query = SeriesQuery {
                selection: selection.clone(),
                measures,
                aggregate,
                by,
                buckets: 30,
            };
            both.same_in(table, &format!("{query:?}"), async |reader, shape| {
                reader.series(shape, &query).await.unwrap()
            })
            .await;
        }
    }
}

async fn searched(both: &Both, search: &str) -> Selection {
    let shape = shape_of(&both.readers[0], "visits").await;
    Selection {
        search: Some(SearchQuery::parse(search, |name| shape.searchable(name)).unwrap()),
        ..Selection::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_answer_queries_of_tables_alike() {
    let Some(both) = Both::open(32).await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    for table in ["visits", "latest"] {
        for (number, selection) in selections().into_iter().enumerate() {
            compare_rows(&both, table, &selection).await;
            compare_statistics(&both, table, &selection).await;
            if number % 4 == 0 {
                compare_series(&both, table, &selection).await;
            }
        }
        both.same_in(table, "newest", async |reader, shape| {
            reader.newest(shape).await.unwrap()
        })
        .await;
    }
    both.same("tables", async |reader| reader.tables().await.unwrap())
        .await;
    for table in ["visits", "latest"] {
        let name = TableName::parse(table).unwrap();
        both.same("rows of a table", async |reader| {
            reader.row_estimate(&name).await.unwrap()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_find_the_same_rows_by_search_with_and_without_an_index() {
    let Some(both) = Both::open(12).await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    for is_indexed in [false, true] {
        if is_indexed {
            both.index_all().await;
        }
        for table in ["visits", "latest"] {
            for search in SEARCHES {
                let selection = searched(&both, search).await;
                compare_rows(&both, table, &selection).await;
                compare_statistics(&both, table, &selection).await;
            }
            let selection = Selection {
                conditions: vec![one_of(KIND, &[text("a"), text("B")], false)],
                from: Some(Timestamp(20_000 * DAY + DAY / 2)),
                ..searched(&both, "disk -ärger").await
            };
            compare_rows(&both, table, &selection).await;
            compare_series(&both, table, &selection).await;
            both.same_in(table, "progress", async |reader, shape| {
                reader.search_progress(shape).await.unwrap()
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_answer_queries_of_records_alike() {
    let Some(both) = Both::open(32).await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    for reason in [
        None,
        Some("no*"),
        Some("100% [x]?"),
        Some("a*b"),
        Some("a?b"),
        Some("[a]*"),
    ] {
        let filter = DeadLetterFilter {
            reason: reason.map(str::to_owned),
            state: Some("open".into()),
            ..DeadLetterFilter::default()
        };
        let letters = both
            .same(&format!("dead letters {reason:?}"), async |reader| {
                let page = reader.dead_letters(&filter, 20, None).await.unwrap();
                let dead_letters = page.items.into_iter().map(|dead_letter| DeadLetter {
                    first_at: String::new(),
                    last_at: String::new(),
                    ..dead_letter
                });
                (dead_letters.collect::<Vec<_>>(), page.next)
            })
            .await;
        assert_eq!(
            letters.0.is_empty(),
            matches!(reason, Some("a?b" | "[a]*")),
            "{reason:?}"
        );
        both.same("reasons", async |reader| {
            let (groups, exact) = reader.dead_letter_groups(&filter).await.unwrap();
            let reasons = groups.into_iter().flat_map(|group| group.reasons);
            let reasons = reasons.map(|reason| (reason.like, reason.dead_letters));
            (reasons.collect::<Vec<_>>(), exact)
        })
        .await;
    }
    let source = SourceFilter::default();
    both.same("ledger", async |reader| {
        let ranges = reader.ledger(&source, 10, None).await.unwrap().items;
        let range = |range: LedgerRange| (range.last_sequence, range.messages, range.present);
        ranges.into_iter().map(range).collect::<Vec<_>>()
    })
    .await;
    both.same("gaps", async |reader| {
        reader.gaps(&source, 10, None).await.unwrap()
    })
    .await;
    both.same("tokens", async |reader| reader.tokens().await.unwrap())
        .await;
    both.same("audit", async |reader| {
        let filter = crate::reader::AuditFilter::default();
        reader.audit(&filter, 10, None).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_return_rows_by_arrival_and_trace_them_alike() {
    let Some(both) = Both::open(32).await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    for table in ["visits", "latest"] {
        let places = both
            .same_in(table, "places", async |reader, shape| {
                reader.places(shape).await.unwrap()
            })
            .await;
        let (&origin, &last) = places.iter().next().unwrap();
        let before = both
            .same_in(table, "place before", async |reader, shape| {
                reader.place_before(shape, origin, last, 25).await.unwrap()
            })
            .await;
        both.same_in(table, "arrivals", async |reader, shape| {
            let rows = reader.arrivals(shape, origin, before, last, 20).await.unwrap();
            let count = reader
                .arrivals_between(shape, origin, before, last, 1_000)
                .await
                .unwrap();
            let rows = rows.into_iter().map(|row| (row.id, row.values));
            (rows.collect::<Vec<_>>(), count)
        })
        .await;
        let id = RowIdentity {
            origin,
            sequence: last.0,
            row: last.1,
        };
        both.same_in(table, "row", async |reader, shape| {
            let row = reader.row(shape, id).await.unwrap().unwrap();
            (row.id, row.values)
        })
        .await;
        for key in [RowKey::Identity(id), RowKey::Values(vec!["id 7".into()])] {
            both.same("trace", async |reader| {
                format!("{:?}", reader.trace_row(table, key.clone()).await)
            })
            .await;
        }
    }
    let digest = both.scenes[0].query("SELECT digest FROM _lantern_plugin");
    both.same("work of a version", async |reader| {
        let work = reader.version_work("orders", &digest).await.unwrap();
        let spans = work
            .spans
            .into_iter()
            .map(|span| (span.first, span.last, span.counts));
        (spans.collect::<Vec<_>>(), work.resolved)
    })
    .await;
    both.same("rows of a range", async |reader| {
        let range = reader.count_rows_of_range("orders", OriginId(1), 20, 700).await;
        range.unwrap()
    })
    .await;
}
