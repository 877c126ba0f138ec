//! Rows of a table: values, pages during writes, and rejected requests.

use super::*;

#[tokio::test]
async fn values_are_returned_exactly_as_stored() {
    let database = Database::new();
    let depth = 10_000;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let documents = [
        r#"{"n":123456789012345678901234567890.50, "twice":1,"twice":2,"e":1e400}"#,
        deep.as_str(),
        r#""\ud800 lone""#,
    ];
    let texts = [
        "'; DROP TABLE things; --",
        "\"quoted\" <script>alert(1)</script> \u{feff}\u{202e}rtl\u{200b}",
        "line\nline\ttab \u{1b}[31m",
    ];
    let writer = database.writer();
    let numbers = [i64::MAX, i64::MIN, 9_007_199_254_740_993];
    for index in 0..3 {
        writer
            .execute(
                "INSERT INTO things VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, 0)",
                rusqlite::params![
                    numbers[index],
                    1_700_000_000_123_456_i64,
                    index as i64 % 2,
                    [0.1, 1e-300, f64::MAX][index],
                    texts[index],
                    [0_u8, 255, index as u8],
                    documents[index],
                    index as i64 + 1,
                ],
            )
            .unwrap();
    }
    writer
        .execute(
            "INSERT INTO things (id, _origin, _sequence, _row) VALUES (0, 99, 4, 0)",
            [],
        )
        .unwrap();

    let api = router(database.state().await);
    let (status, body) = get(&api, "/api/v1/tables/things/rows?order=asc&limit=1000").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    for exact in documents {
        assert!(
            body.contains(&format!("\"extra\":{exact}")),
            "{:.100} is not there to the byte",
            exact
        );
    }
    for exact in [
        "\"id\":9223372036854775807",
        "\"id\":-9223372036854775808",
        "\"id\":9007199254740993",
    ] {
        assert!(body.contains(exact), "{exact}");
    }
    let used: Vec<f64> = body
        .split("\"used\":")
        .skip(1)
        .filter_map(|rest| rest.split([',', '}']).next().unwrap().parse().ok())
        .collect();
    // By id: the second, null, the third, the first.
    assert_eq!(used, [1e-300, f64::MAX, 0.1]);
    assert!(body.contains("\"body\":\"AP8A\""));

    // The id equals the row number here, so ascending order starts with the smallest id. Remove the documents, because
    // a client's parser need not accept ten thousand nested brackets.
    let mut plain = body.clone();
    for document in documents {
        plain = plain.replace(document, "null");
    }
    let page: Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(page["next_cursor"], Value::Null);
    let item = &page["items"][0];
    assert_eq!(item["at"], "2023-11-14T22:13:20.123456Z");
    assert_eq!(item["ok"], true);
    assert_eq!(item["order"], texts[1]);
    assert_eq!(item["_id"], "1:2:0");
    let bare = &page["items"][1];
    assert_eq!(bare["at"], Value::Null);
    assert_eq!(bare["_sequence"], 4);
}

#[tokio::test]
async fn tables_are_described() {
    let database = Database::new();
    let writer = database.writer();
    insert(&writer, 1, 10_500);
    let tables = get_json(&router(database.state().await), "/api/v1/tables").await;
    assert_eq!(tables.as_array().unwrap().len(), 1);
    let table = &tables[0];
    assert_eq!(table["name"], "things");
    assert_eq!(table["plugin"], "things");
    assert_eq!(table["primary_key"][0], "id");
    assert_eq!(table["columns"][3]["unit"], "By");
    assert_eq!(table["columns"][3]["role"], "measure");
    assert_eq!(table["row_count"], 10_500);
    assert_eq!(table["row_count_exact"], false);
    writer.execute("DELETE FROM things WHERE id > 3", []).unwrap();
    let tables = get_json(&router(database.state().await), "/api/v1/tables").await;
    assert_eq!(tables[0]["row_count"], 3);
    assert_eq!(tables[0]["row_count_exact"], true);
}

fn insert(writer: &rusqlite::Connection, first: i64, last: i64) {
    writer
        .execute(
            "WITH RECURSIVE n(x) AS (SELECT ?1 UNION ALL SELECT x + 1 FROM n WHERE x < ?2)
             INSERT INTO things (id, _origin, _sequence, _row) SELECT x, 1, x, 0 FROM n",
            [first, last],
        )
        .unwrap();
}

/// Returns the ids of all pages, in the order received.
async fn walk(api: &Router, order: &str, after_page: impl Fn(usize)) -> Vec<i64> {
    let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = get_json(
            api,
            &format!("/api/v1/tables/things/rows?order={order}&limit=137{cursor}"),
        )
        .await;
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["id"].as_i64().unwrap()));
        pages += 1;
        after_page(pages);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test]
async fn paging_during_writes_neither_loses_nor_repeats_rows() {
    let database = Database::new();
    let writer = database.writer();
    insert(&writer, 1, 10_000);
    let api = router(database.state().await);
    let next_id = std::cell::Cell::new(10_001);
    let write_more = |_| {
        insert(&writer, next_id.get(), next_id.get() + 49);
        next_id.set(next_id.get() + 50);
    };
    let newest_first = walk(&api, "desc", write_more).await;
    assert_eq!(newest_first, (1..=10_000).rev().collect::<Vec<_>>());

    let written_before = next_id.get() - 1;
    assert!(written_before > 10_000, "nothing was written in between");
    let oldest_first = walk(&api, "asc", |page| {
        if page < 20 {
            write_more(page);
        }
    })
    .await;
    assert_eq!(oldest_first, (1..next_id.get()).collect::<Vec<_>>());
}

#[tokio::test]
async fn invalid_names_are_rejected() {
    let database = Database::new();
    let api = router(database.state().await);
    for name in [
        "..%2fx",
        "%2e%2e%2f",
        "..%5c",
        "%2fetc%2fpasswd",
        "a%00b",
        "CON",
        "Things",
        "%d1%82hings",
        "things%20",
        "things%22",
        "sqlite_master",
        "_lantern_checkpoint",
        "lantern_x",
        "things;drop",
        "%27",
        "%ff%fe",
    ] {
        refused(
            &api,
            &format!("/api/v1/tables/{name}/rows"),
            StatusCode::BAD_REQUEST,
            "",
        )
        .await;
    }
    let long = "a".repeat(300);
    refused(
        &api,
        &format!("/api/v1/tables/{long}/rows"),
        StatusCode::BAD_REQUEST,
        "longer than",
    )
    .await;
    refused(
        &api,
        "/api/v1/tables/absent/rows",
        StatusCode::NOT_FOUND,
        "no table absent",
    )
    .await;
    refused(&api, "/api/v1/tables/../things/rows", StatusCode::NOT_FOUND, "").await;
}

#[tokio::test]
async fn invalid_queries_are_rejected_with_a_hint() {
    let database = Database::new();
    let api = router(database.state().await);
    let rows = "/api/v1/tables/things/rows";
    let gaps_cursor = "Z2FwcyAx";
    for (path, words) in [
        (
            format!("{rows}?limit=-1"),
            "limit must be an integer from 1 to 1000",
        ),
        (format!("{rows}?limit=0"), "limit must"),
        (format!("{rows}?limit=1001"), "limit must"),
        (format!("{rows}?limit=1%20OR%201=1"), "limit must"),
        (format!("{rows}?limit=1&limit=2"), "more than once"),
        (format!("{rows}?order=id;drop"), "order must be one of asc, desc"),
        (format!("{rows}?cursor=AAAA"), "cursor"),
        (format!("{rows}?cursor={gaps_cursor}"), "cursor"),
        (format!("{rows}?where=1"), "unknown parameter \"where\""),
        (format!("{rows}?%00=1"), "unknown parameter"),
        (
            "/api/v1/dead-letters?state='%20OR%201=1--".into(),
            "state must be one of open, resolved, discarded",
        ),
        (
            "/api/v1/dead-letters?class=x".into(),
            "class must be one of malformed",
        ),
        ("/api/v1/dead-letters?plugin=a'b".into(), "plugin name"),
        ("/api/v1/gaps?source=a%00".into(), "source name"),
        ("/api/v1/tables?x=1".into(), "unknown parameter"),
    ] {
        refused(&api, &path, StatusCode::BAD_REQUEST, words).await;
    }
    assert!(get_json(&api, &format!("/api/v1/gaps?cursor={gaps_cursor}")).await["items"].is_array());
}

#[tokio::test]
async fn a_missing_table_is_an_internal_error_without_details() {
    let database = Database::new();
    database.writer().execute_batch("DROP TABLE things").unwrap();
    let api = router(database.state().await);
    refused(
        &api,
        "/api/v1/tables/things/rows",
        StatusCode::INTERNAL_SERVER_ERROR,
        "log",
    )
    .await;
}
