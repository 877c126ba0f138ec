//! Tests counts of a table: facet values and rows over time. Results from an index, results from a full scan and
//! results of a plain SQLite query must agree.

use serde_json::json;

use super::visits::{DAY, MINUTE, Visit, Visits, hundred};
use super::*;

#[tokio::test]
async fn facets_ignore_the_filter_on_their_own_column() {
    let visits = hundred().await;
    let facets = visits
        .ask("/facets?columns=kind,ok&limit=2&filter=kind=k1&filter=pc=alpha")
        .await;
    let facet = &facets["facets"][0];
    assert_eq!(
        (&facet["column"], &facet["more"], &facet["exact"]),
        (&"kind".into(), &true.into(), &true.into())
    );
    assert_eq!(facet["values"].as_array().unwrap().len(), 2);
    let writer = visits.database.writer();
    let count = |condition: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM visits WHERE {condition}");
        writer.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(facet["nulls"], count("kind IS NULL AND pc = 'alpha'"));
    for value in facet["values"].as_array().unwrap() {
        let kind = value["value"].as_str().unwrap();
        assert_eq!(
            value["count"],
            count(&format!("kind = '{kind}' AND pc = 'alpha'"))
        );
    }
    let ok = &facets["facets"][1];
    assert_eq!(ok["nulls"], count("ok IS NULL AND kind = 'k1' AND pc = 'alpha'"));
    assert!(
        ok["values"]
            .as_array()
            .unwrap()
            .iter()
            .all(|value| value["value"].is_boolean())
    );
}

/// With few values the query reads index ranges; with many it scans all rows of the range. The counts must agree.
#[tokio::test]
async fn facets_of_a_range_are_exact_with_few_and_many_values() {
    let visits = hundred().await;
    for many in [false, true] {
        if many {
            let others: Vec<Visit> = (0..600)
                .map(|number| Visit {
                    pc: "delta",
                    at: Some(DAY + number % 30 * MINUTE),
                    kind: (number % 3 > 0).then(|| format!("other-{number}")),
                    ..Visit::default()
                })
                .collect();
            visits.add(&others);
        }
        let facets = visits
            .ask("/facets?columns=kind&limit=3&from=2026-11-20T00:02:00Z&to=2026-11-20T00:11:00Z")
            .await;
        let facet = &facets["facets"][0];
        let range = format!("at >= {} AND at < {}", DAY + 2 * MINUTE, DAY + 11 * MINUTE);
        let writer = visits.database.writer();
        let mut expected = writer
            .prepare(&format!(
                "SELECT kind, count(*) FROM visits WHERE {range} AND kind IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3"
            ))
            .unwrap();
        let expected: Vec<Value> = expected
            .query_map([], |row| {
                Ok(json!({"value": row.get::<_, String>(0)?, "count": row.get::<_, i64>(1)?}))
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(facet["values"], json!(expected), "many: {many}");
        assert_eq!(expected.len(), 3);
        let nulls: i64 = writer
            .query_row(
                &format!("SELECT count(*) FROM visits WHERE {range} AND kind IS NULL"),
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert!(nulls > 0);
        assert_eq!(facet["nulls"], nulls);
        assert_eq!(
            (&facet["more"], &facet["exact"]),
            (&json!(true), &json!(true)),
            "{facet}"
        );
    }
}

#[tokio::test]
async fn an_outlier_does_not_stretch_the_histogram() {
    let visits = Visits::new().await;
    // Go's zero time, both ends of the storable range, and values beyond it that an earlier version stored.
    let outliers = [
        Timestamp::parse_rfc3339("0001-01-01T00:00:00Z").unwrap().0,
        Timestamp::MIN.0,
        Timestamp::MAX.0,
        Timestamp::MIN.0 - 1,
        Timestamp::MAX.0 + 1,
        i64::MAX,
        i64::MIN,
    ];
    let at = |at| Visit {
        pc: "alpha",
        at: Some(at),
        kind: Some("k".to_owned()),
        ..Visit::default()
    };
    let ordinary = (0..50).map(|number| DAY + number * 1_000_000);
    visits.add(&ordinary.chain(outliers).map(at).collect::<Vec<_>>());
    let histogram = visits.ask("/histogram?buckets=32&by=kind").await;
    assert_eq!(histogram["from"], "2026-11-20T00:00:00.000000Z");
    assert_eq!(histogram["to"], "2026-11-20T00:00:49.000001Z");
    assert_eq!(histogram["earlier"], 4);
    assert_eq!(histogram["later"], 3);
    let buckets = histogram["buckets"].as_array().unwrap();
    let filled = buckets.iter().filter(|bucket| bucket["count"] != 0).count();
    assert_eq!((buckets.len(), filled), (25, 25), "{histogram}");
    let narrow = visits.ask("/histogram?buckets=32&filter=kind=none").await;
    assert_eq!((&narrow["earlier"], &narrow["later"]), (&json!(0), &json!(0)));

    // The full valid range: no bucket starts before it.
    let all = visits
        .ask("/histogram?buckets=60&from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:59.999999Z")
        .await;
    assert_eq!(all["buckets"][0]["start"], "0000-01-01T00:00:00.000000Z");
    assert_eq!(all["buckets"][0]["count"], 2, "{all}");

    let rows = visits.ask("/rows?limit=100&columns=at").await;
    let times: Vec<&Value> = rows["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["at"])
        .collect();
    assert_eq!(times.len(), 57);
    assert_eq!(times.iter().filter(|time| time.is_null()).count(), 4);
    assert!(times.contains(&&json!("9999-12-31T23:59:59.999999Z")));
    let about = visits.ask("").await;
    assert_eq!(about["newest"], "9999-12-31T23:59:59.999999Z");
}

#[tokio::test]
async fn a_number_without_a_json_form_is_null() {
    let database = Database::new();
    let writer = database.writer();
    for (id, used) in [(1, f64::INFINITY), (2, f64::NEG_INFINITY), (3, 1.5)] {
        let sql = "INSERT INTO things (id, at, used, _origin, _sequence, _row) VALUES (?1, ?1, ?2, 1, ?1, 0)";
        writer.execute(sql, rusqlite::params![id, used]).unwrap();
    }
    let api = router(database.state().await);
    let path_of = |path: &str| format!("/api/v1/tables/things{path}");
    for path in [
        "/rows",
        "/rows?sort=used&limit=1",
        "/rows?sort=-used&limit=1",
        "/export?format=csv",
        "/export?format=jsonl",
        "/facets?columns=used",
        "/series?measures=used&op=sum",
        "/series?measures=used&op=avg",
        "/histogram?by=used",
    ] {
        let (status, text) = get(&api, &path_of(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        assert!(!text.to_lowercase().contains("inf"), "{path}: {text}");
    }
    let rows = get_json(&api, &path_of("/rows?sort=used")).await;
    let used: Vec<&Value> = rows["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["used"])
        .collect();
    assert_eq!(used, [&json!(null), &json!(1.5), &json!(null)]);
    let facets = get_json(&api, &path_of("/facets?columns=used")).await;
    assert_eq!(facets["facets"][0]["nulls"], 2, "{facets}");
}

#[tokio::test]
async fn buckets_add_up_to_the_row_count() {
    let visits = hundred().await;
    let whole = visits.ask("/histogram?buckets=10&by=kind").await;
    assert_eq!(whole["from"], "2026-11-20T00:00:00.000000Z");
    assert_eq!(whole["to"], "2026-11-20T00:24:00.000001Z");
    assert_eq!(whole["bucket_ms"], 300_000);
    let buckets = whole["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 5);
    let sum: i64 = buckets
        .iter()
        .map(|bucket| bucket["count"].as_i64().unwrap())
        .sum();
    assert_eq!(sum, 90);
    let of = |value: &str| -> i64 {
        buckets
            .iter()
            .map(|bucket| bucket["by"][value].as_i64().unwrap_or_default())
            .sum()
    };
    let writer = visits.database.writer();
    for kind in ["k0", "k1", "k2", "k3", "k4"] {
        let sql = "SELECT count(*) FROM visits WHERE at IS NOT NULL AND kind = ?1";
        assert_eq!(
            of(kind),
            writer.query_row(sql, [kind], |row| row.get::<_, i64>(0)).unwrap(),
            "{kind}"
        );
    }
    // The same counts from the code path without an index.
    let narrow = visits.ask("/histogram?buckets=10&by=kind&filter=pc:set").await;
    assert_eq!(narrow["buckets"], whole["buckets"]);
    let part = visits
        .ask("/histogram?buckets=60&from=2026-11-20T00:02:30Z&to=2026-11-20T00:04:00Z&filter=kind=k1&filter=kind=k2")
        .await;
    let sum: i64 = part["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| bucket["count"].as_i64().unwrap())
        .sum();
    let sql = "SELECT count(*) FROM visits WHERE at >= ?1 AND at < ?2 AND kind IN ('k1', 'k2')";
    let range = [DAY + MINUTE * 5 / 2, DAY + MINUTE * 4];
    assert_eq!(
        sum,
        writer.query_row(sql, range, |row| row.get::<_, i64>(0)).unwrap()
    );
    assert!(part["buckets"][0].get("by").is_none());
}
