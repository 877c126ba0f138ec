//! What is counted of a table: the values of its facets, and rows over time. What an index answers and what all rows
//! answer has to be the same, and what SQLite says when it is asked in the plainest way.

use serde_json::json;

use super::tables::{DAY, MINUTE, Visit, hundred};
use super::*;

#[tokio::test]
async fn facets_count_values_and_leave_out_their_own_choice() {
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

/// With few values each is a stretch of an index, with many all rows of the range are looked at: the counts are the same.
#[tokio::test]
async fn facets_of_a_range_are_right_with_few_values_and_with_many() {
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
async fn rows_over_time_add_up() {
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
    // The same by the way that knows no index for it.
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
