//! Tests table queries: any filter in any order with pagination, and a single row with its history. Hostile values are
//! returned unchanged and never interpreted in a query.

use lantern_model::batch::Timestamp;
use serde_json::json;

use super::visits::{DAY, MINUTE, Visit, Visits, encoded, hundred};
use super::*;

/// Returns the same order, computed by SQLite alone: nulls last, ties by row number.
fn expected(visits: &Visits, column: &str, direction: &str, condition: &str) -> Vec<i64> {
    let sql = format!(
        "SELECT _rowid_ FROM visits WHERE {condition}
         ORDER BY {column} IS NULL, {column} {direction}, _rowid_ {direction}"
    );
    let writer = visits.database.writer();
    let mut statement = writer.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn pages_of_any_order_contain_every_row_once_with_ties_and_nulls() {
    let visits = hundred().await;
    for (query, condition) in [
        ("", "1"),
        ("filter=kind=k1", "kind = 'k1'"),
        ("filter=kind=k1&filter=kind=k3", "kind IN ('k1', 'k3')"),
        ("filter=kind:null&filter=kind=k2", "kind IS NULL OR kind = 'k2'"),
        (
            "filter=pc=alpha&filter=kind!=k1",
            "pc = 'alpha' AND kind IS NOT 'k1'",
        ),
        ("filter=bytes%3E%3D3&filter=bytes%3C7", "bytes >= 3 AND bytes < 7"),
    ] {
        for column in ["at", "kind", "ok", "bytes", "load", "note", "pc"] {
            for (sort, direction) in [(column.to_owned(), "ASC"), (format!("-{column}"), "DESC")] {
                let found = visits.walk(&format!("{query}&sort={sort}")).await;
                assert_eq!(
                    found,
                    expected(&visits, column, direction, condition),
                    "{query} {sort}"
                );
            }
        }
    }
    // By arrival if requested; otherwise by time, newest first.
    assert_eq!(visits.walk("order=asc").await, (1..=100).collect::<Vec<_>>());
    assert_eq!(visits.walk("").await, expected(&visits, "at", "DESC", "1"));
    let thing = get_json(&visits.api, "/api/v1/tables/things/rows").await;
    assert_eq!(thing["items"], json!([]));
}

#[tokio::test]
async fn each_filter_selects_the_matching_rows() {
    let visits = Visits::new().await;
    let text = |note: &str| Visit {
        pc: "a",
        at: Some(DAY),
        note: Some(note.to_owned()),
        ..Visit::default()
    };
    visits.add(&[
        text("100% of A_b"),
        text("100 of Axb"),
        text("ADMIN\\admin"),
        text("Straße Ä"),
        Visit {
            pc: "b",
            extra: Some(r#"{"k":"100%"}"#.into()),
            body: Some(vec![0, 255]),
            ..Visit::default()
        },
        Visit {
            pc: "c",
            bytes: Some(i64::MAX),
            load: Some(-0.5),
            ok: Some(false),
            at: Some(DAY + MINUTE),
            ..Visit::default()
        },
        text("a\u{202e}b <img src=x onerror=alert(1)>"),
        text("' OR 1=1 --"),
    ]);
    for (filter, expected) in [
        ("note~100%", vec![1]),
        ("note~a_B", vec![1]),
        ("note~\\", vec![3]),
        ("note~admin\\ADMIN", vec![3]),
        ("note!~100", vec![3, 4, 5, 6, 7, 8]),
        ("note^=100", vec![1, 2]),
        ("note^=a", vec![7]),
        ("note^=A", vec![3]),
        ("note=' OR 1=1 --", vec![8]),
        ("note~' or 1=1", vec![8]),
        ("note~\u{202e}", vec![7]),
        ("note~<IMG", vec![7]),
        ("note~ä", vec![]),
        ("note:null", vec![5, 6]),
        ("note:set", vec![1, 2, 3, 4, 7, 8]),
        ("note!=100 of Axb", vec![1, 3, 4, 5, 6, 7, 8]),
        ("bytes=9223372036854775807", vec![6]),
        ("bytes>=9223372036854775807", vec![6]),
        ("load<0", vec![6]),
        ("ok=false", vec![6]),
        ("ok!=false", vec![1, 2, 3, 4, 5, 7, 8]),
        ("body=AP8=", vec![5]),
        ("extra~100%", vec![5]),
        ("at=2026-11-20T00:01:00Z", vec![6]),
        ("at>=2026-11-20T02:01:00%2B02:00", vec![6]),
        ("pc=b", vec![5]),
        ("pc=", vec![]),
    ] {
        let filter = filter.replace("%2B", "+");
        let found = visits
            .rows(&format!("order=asc&filter={}", encoded(&filter)))
            .await;
        assert_eq!(found, expected, "{filter}");
        let count = visits.ask(&format!("/count?filter={}", encoded(&filter))).await;
        assert_eq!(count, json!({"count": expected.len(), "exact": true}), "{filter}");
    }
    for (rest, expected) in [
        ("search=100%25", vec![1, 2, 5]),
        ("search=100%25+-a", vec![5]),
        ("search=%22of+a%22", vec![1]),
        ("search=note:100", vec![1, 2]),
        ("search=extra.k:100", vec![5]),
        ("search=k", vec![]),
        ("search=adm%2A", vec![3]),
        ("search=aDMIN", vec![3]),
        ("search=", (1..=8).collect()),
        ("from=2026-11-20T00:01:00Z", vec![6]),
        ("to=2026-11-20T00:01:00Z", vec![1, 2, 3, 4, 7, 8]),
        (
            "from=2026-11-20T00:00:00Z&to=2026-11-20T00:00:00.000001Z&search=admin",
            vec![3],
        ),
    ] {
        assert_eq!(
            visits.rows(&format!("order=asc&{rest}")).await,
            expected,
            "{rest}"
        );
    }
}

#[tokio::test]
async fn a_relative_time_counts_back_from_now() {
    let visits = Visits::new().await;
    let now = Timestamp::now().0;
    let ago = |days: i64| Visit {
        pc: "a",
        at: Some(now - days * 24 * 60 * MINUTE),
        ..Visit::default()
    };
    visits.add(&[ago(9), ago(5), ago(0), ago(-5)]);
    for (query, expected) in [
        ("filter=at%3Cnow-1w", vec![1]),
        ("filter=at%3E%3Dnow-1w", vec![2, 3, 4]),
        ("filter=at%3C%3Dnow-7d&filter=at%3Enow-10d", vec![1]),
        ("filter=at%3Enow-1h", vec![3, 4]),
        ("from=now-1w&to=now-1h", vec![2]),
        ("from=now-10d&to=now", vec![1, 2, 3]),
    ] {
        let found = visits.rows(&format!("order=asc&{query}")).await;
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn stored_values_are_returned_exactly() {
    let visits = Visits::new().await;
    let large = format!("[\"{}\"]", "é".repeat(1 << 19));
    let strange = "<img src=x onerror=alert(1)> \u{202e}\u{200f}rtl \u{1b}[31m \"'`";
    visits.add(&[Visit {
        pc: "a",
        kind: Some(strange.to_owned()),
        bytes: Some(i64::MAX),
        extra: Some(large.clone()),
        ..Visit::default()
    }]);
    let page = visits.ask("/rows?integers=text").await;
    let row = &page["items"][0];
    assert_eq!(row["bytes"], "9223372036854775807");
    assert_eq!(row["kind"], strange);
    assert_eq!(row["extra"][0].as_str().unwrap().len(), 1 << 20);
    assert_eq!(
        [&row["_id"], &row["_origin"], &row["_sequence"], &row["_row"]],
        ["1:1:0", "1", "1", "0"]
    );
    let (_, body) = get(&visits.api, "/api/v1/tables/visits/rows?columns=bytes").await;
    assert!(
        body.contains(
            "\"bytes\":9223372036854775807,\"_id\":\"1:1:0\",\"_origin\":1,\"_sequence\":1,\"_row\":0}"
        ),
        "{body}"
    );
    assert!(!body.contains("kind"), "{body}");
    let facets = visits.ask("/facets?columns=kind,bytes&integers=text").await;
    assert_eq!(
        facets["facets"][0]["values"],
        json!([{"value": strange, "count": 1}])
    );
    assert_eq!(facets["facets"][1]["values"][0]["value"], "9223372036854775807");
    let histogram = visits.ask("/histogram?by=kind").await;
    assert_eq!(histogram["buckets"], json!([]), "no row has a time");
}

#[tokio::test]
async fn invalid_parameters_are_named() {
    let visits = hundred().await;
    let first = visits.ask("/rows?limit=5&filter=kind=k1").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let tampered = format!("{}{}", &cursor[..cursor.len() - 4], "AAAA");
    let over = "&filter=kind=a".repeat(51);
    let long = "x".repeat(1_025);
    for (rest, words) in [
        ("/rows?filter=nothing=1", "no column \\\"nothing\\\""),
        ("/rows?filter=_origin=1", "no column \\\"_origin\\\""),
        ("/rows?filter=bytes", "expected one of = !="),
        ("/rows?filter=bytes=x", "not a 64-bit integer"),
        ("/rows?filter=bytes=9223372036854775808", "not a 64-bit integer"),
        ("/rows?filter=bytes~1", "only text and json can be searched"),
        ("/rows?filter=load=NaN", "not a finite number"),
        ("/rows?filter=ok=1", "not true or false"),
        ("/rows?filter=ok%3C1", "has no order"),
        ("/rows?filter=body=%21", "not base64"),
        ("/rows?filter=at=yesterday", "must be a time in RFC 3339"),
        ("/rows?filter=note=%00", "must not contain NUL"),
        ("/rows?filter=1=1;drop", "no column"),
        ("/rows?search=a%00", "search: text must not contain NUL"),
        ("/rows?search=%25", "search: the text contains no word"),
        (&format!("/rows?search={long}"), "search: the text exceeds"),
        (&format!("/rows?a=1{over}"), "unknown parameter \\\"a\\\""),
        (&format!("/rows?limit=1{over}"), "at most 50 filters"),
        ("/rows?from=x", "from must be a time in RFC 3339"),
        ("/rows?from=now&to=now-1h", "from must be before to"),
        ("/rows?sort=nothing", "sort: table visits has no column"),
        ("/rows?sort=extra", "sort: json has no order"),
        ("/rows?sort=at&order=asc", "sort and order"),
        ("/rows?columns=at,nothing", "columns: table visits has no column"),
        ("/rows?integers=hex", "integers must be one of text, number"),
        (&format!("/rows?cursor={cursor}"), "cursor"),
        (&format!("/rows?filter=kind=k2&cursor={cursor}"), "cursor"),
        (&format!("/rows?filter=kind=k1&sort=at&cursor={cursor}"), "cursor"),
        (&format!("/rows?filter=kind=k1&cursor={tampered}"), "cursor"),
        ("/rows/1", "the form ORIGIN:SEQUENCE:ROW"),
        ("/rows/1:1:0?limit=1", "unknown parameter"),
        ("/facets", "columns is required"),
        ("/facets?columns=extra", "columns: extra has the type json"),
        (
            "/facets?columns=kind&limit=0",
            "limit must be an integer from 1 to 1000",
        ),
        (
            "/histogram?buckets=1001",
            "buckets must be an integer from 1 to 1000",
        ),
        ("/histogram?by=body", "by: body has the type blob"),
        ("/count?limit=1", "unknown parameter"),
    ] {
        refused(
            &visits.api,
            &format!("/api/v1/tables/visits{rest}"),
            StatusCode::BAD_REQUEST,
            &words.replace("\\\"", "\""),
        )
        .await;
    }
    refused(
        &visits.api,
        "/api/v1/tables/visits/rows/1:999:0",
        StatusCode::NOT_FOUND,
        "no row 1:999:0",
    )
    .await;
    refused(
        &visits.api,
        "/api/v1/tables/absent/facets?columns=a",
        StatusCode::NOT_FOUND,
        "no table absent",
    )
    .await;
}

#[tokio::test]
async fn a_row_has_one_identity_in_sql_api_export_and_trace() {
    let visits = hundred().await;
    let sql = "SELECT _origin || ':' || _sequence || ':' || _row FROM visits WHERE _sequence = 42";
    let id: String = visits
        .database
        .writer()
        .query_row(sql, [], |row| row.get(0))
        .unwrap();
    let page = visits.ask("/rows?limit=1000&order=asc").await;
    let listed = &page["items"][41];
    assert_eq!(listed["_id"], id);
    let numbers = ["_origin", "_sequence", "_row"].map(|name| listed[name].to_string());
    assert_eq!(numbers.join(":"), id);
    assert_eq!(visits.ask(&format!("/rows/{id}")).await["row"], *listed);
    let (_, csv) = get(
        &visits.api,
        "/api/v1/tables/visits/export?format=csv&columns=pc&order=asc",
    )
    .await;
    assert!(csv.lines().nth(42).unwrap().ends_with(&format!(",{id}")), "{csv}");
    let trace = get_json(&visits.api, &format!("/api/v1/trace?table=visits&key={id}")).await;
    assert_eq!(trace["id"], id);
}

#[tokio::test]
async fn a_row_has_its_message_version_and_neighbours() {
    let visits = hundred().await;
    let detail = visits.ask("/rows/1:50:0").await;
    assert_eq!(detail["row"]["_id"], "1:50:0");
    assert_eq!(detail["origin"]["source"], "events");
    assert_eq!(detail["origin"]["sequence"], 50);
    assert_eq!(detail["message"], Value::Null);
    assert!(detail["message_missing"].is_string(), "{detail}");
    let (before, after) = (&detail["neighbours"]["before"], &detail["neighbours"]["after"]);
    let entity = &detail["row"]["pc"];
    let mut times = Vec::new();
    for row in before
        .as_array()
        .unwrap()
        .iter()
        .chain([&detail["row"]])
        .chain(after.as_array().unwrap())
    {
        assert_eq!(&row["pc"], entity);
        times.push((
            row["at"].as_str().unwrap().to_owned(),
            row["_sequence"].as_i64().unwrap(),
        ));
    }
    assert_eq!(times.len(), 11);
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn a_table_lists_the_roles_of_its_columns() {
    let visits = Visits::new().await;
    let table = visits.ask("").await;
    assert_eq!(table["time_column"], "at");
    assert_eq!(table["entity_columns"], json!(["pc"]));
    assert_eq!(table["facet_columns"], json!(["kind", "ok"]));
    assert_eq!(
        table["measure_columns"],
        json!([{"name": "bytes", "unit": "By"}, {"name": "load", "unit": null}])
    );
    assert_eq!(table["newest"], Value::Null);
    visits.add(&[Visit {
        pc: "a",
        at: Some(Timestamp(DAY).0),
        ..Visit::default()
    }]);
    assert_eq!(visits.ask("").await["newest"], "2026-11-20T00:00:00.000000Z");
    let all = get_json(&visits.api, "/api/v1/tables").await;
    assert_eq!(all[1], visits.ask("").await);
}

#[tokio::test]
async fn info_needs_no_token() {
    let scene = scene::Scene::near().await;
    let info = get_json(&scene.api, "/api/v1/info").await;
    assert_eq!(
        (&info["name"], &info["needs_token"], &info["sql"]),
        (&"lantern".into(), &false.into(), &false.into())
    );
    assert_eq!(info["started"], "2023-11-14T22:13:20.000000Z");
    let config = lantern_http::Config {
        hosts: vec!["lantern.example".to_owned()],
        ..lantern_http::Config::loopback()
    };
    let scene = scene::Scene::at(config).await;
    let (_, body) = scene
        .call(
            "GET",
            "/api/v1/info",
            &[("host", "lantern.example")],
            Body::empty(),
        )
        .await;
    assert!(body.contains("\"needs_token\":true"), "{body}");
}

#[tokio::test]
async fn long_texts_are_paged_by_their_rendered_size_and_are_no_facets() {
    let visits = Visits::new().await;
    // A control character takes six bytes in JSON.
    let rows: Vec<Visit> = (0..6)
        .map(|number| Visit {
            pc: "a",
            kind: Some("k".repeat(if number < 3 { 1 } else { 2_000 })),
            note: Some("\u{1}".repeat(1_000_000)),
            ..Visit::default()
        })
        .collect();
    visits.add(&rows);
    let (status, body) = get(&visits.api, "/api/v1/tables/visits/rows?order=asc").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.len() < 15 << 20, "{}", body.len());
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["items"][0]["note"], "\u{1}".repeat(1_000_000));
    // Each page continues where the previous one ended, even when the sort value is too long for a cursor.
    assert_eq!(visits.walk("order=asc&columns=note").await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(visits.walk("sort=note&columns=pc").await.len(), 6);
    assert_eq!(visits.walk("sort=kind&columns=pc").await, [1, 2, 3, 4, 5, 6]);
    let facets = visits.ask("/facets?columns=kind,pc").await;
    let kinds = &facets["facets"][0];
    assert_eq!(kinds["values"], json!([{"value": "k", "count": 3}]));
    assert_eq!(facets["facets"][1]["values"], json!([{"value": "a", "count": 6}]));
}

#[tokio::test]
async fn one_client_does_not_keep_all_readers_busy() {
    let visits = Visits::new().await;
    let long = Visit {
        pc: "a",
        note: Some("a".repeat(7_000_000)),
        ..Visit::default()
    };
    visits.add(&[long]);
    let state = visits.database.state().await;
    let name = lantern_model::schema::TokenName::parse("other").unwrap();
    let token = state
        .access
        .create(
            name,
            lantern_http::Role::Viewer,
            &lantern_model::actor::Actor::Local,
            None,
            None,
        )
        .await
        .unwrap();
    let api = router(state);
    // Together these queries exceed the time budget of all readers.
    let filters = format!("&filter=note!~{}b", "a".repeat(500)).repeat(50);
    let slow = format!("/api/v1/tables/visits/rows?limit=1{filters}");
    let asking: Vec<_> = (0..12)
        .map(|_| {
            let (api, slow) = (api.clone(), slow.clone());
            tokio::spawn(async move { get(&api, &slow).await.0 })
        })
        .collect();
    // Another client gets a response meanwhile; the first client's queries do not block it.
    for _ in 0..50 {
        let request = Request::get("/api/v1/tables/visits/rows?limit=1&columns=pc")
            .header("host", "localhost:7070")
            .header("authorization", format!("Bearer {}", token.as_str()));
        let (response, _) = send(&api, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    for answer in asking {
        answer.await.unwrap();
    }
}
