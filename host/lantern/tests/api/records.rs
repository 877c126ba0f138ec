//! Lists of the ledger, gaps and dead letters.

use super::*;

#[tokio::test]
async fn records_are_filtered_and_paged() {
    let database = Database::new();
    let writer = database.writer();
    for id in 1..=5_i64 {
        writer
            .execute(
                "INSERT INTO _lantern_dead_letter (id, origin, sequence, plugin_version, class, reason, subject, published_ns,
                  headers, payload, attempts, state, first_at, last_at) VALUES
                 (?1, ?2, ?1, 1, ?3, 'because', 'a.b', 1700000000123456789, '[[\"h\",\"v\"],[\"h\",\"w\"]]', ?4,
                  1, 'open', 0, 1000000)",
                rusqlite::params![
                    id,
                    1 + id % 2,
                    if id < 4 { "malformed" } else { "trap" },
                    if id == 1 { b"{\"a\":1}".to_vec() } else { vec![0xff, 0x00] },
                ],
            )
            .unwrap();
    }
    writer
        .execute_batch(
            "INSERT INTO _lantern_gap VALUES (1, 1, 7, 9, 1, 'purged', 0);
             INSERT INTO _lantern_ledger VALUES (1, 1, 1, 1, 6, 6, 4, 1, 1, 0, 4, 4, 0, 1000000, 2, 1);
             INSERT INTO _lantern_ledger VALUES (2, 2, 1, 1, 2, 2, 2, 0, 0, 0, 2, 2, 0, 0, 2, 0);",
        )
        .unwrap();
    let api = router(database.state().await);
    let ids = async |query: &str| -> Vec<i64> {
        let list = get_json(&api, &format!("/api/v1/dead-letters?{query}")).await;
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(ids("").await, [5, 4, 3, 2, 1]);
    assert_eq!(ids("plugin=things").await, [4, 2]);
    assert_eq!(ids("plugin=other&source=input&class=malformed").await, [3, 1]);
    assert_eq!(ids("state=resolved").await, [] as [i64; 0]);

    let first = get_json(&api, "/api/v1/dead-letters?limit=4").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let last = get_json(&api, &format!("/api/v1/dead-letters?limit=4&cursor={cursor}")).await;
    assert_eq!(last["next_cursor"], Value::Null);
    let letter = &last["items"][0];
    assert_eq!(letter["payload_text"], "{\"a\":1}");
    assert_eq!(letter["payload_base64"], "eyJhIjoxfQ==");
    assert_eq!(letter["headers"], serde_json::json!([["h", "v"], ["h", "w"]]));
    assert_eq!(letter["published"], "2023-11-14T22:13:20.123456Z");
    assert_eq!(letter["digest"], "sha256:aa");
    assert_eq!(first["items"][0]["payload_text"], Value::Null);
    assert_eq!(first["items"][0]["payload_base64"], "/wA=");

    let gaps = get_json(&api, "/api/v1/gaps?plugin=things").await;
    assert_eq!(
        (&gaps["items"][0]["first_sequence"], &gaps["items"][0]["exact"]),
        (&7.into(), &true.into())
    );
    let ledger = get_json(&api, "/api/v1/ledger?source=events").await;
    assert_eq!(ledger["items"].as_array().unwrap().len(), 1);
    assert_eq!(ledger["items"][0]["skipped"], 1);
    assert_eq!(ledger["items"][0]["last_at"], "1970-01-01T00:00:01.000000Z");
}
