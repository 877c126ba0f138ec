//! Tests streaming responses: table tails, whole-table exports, metrics over time.

use std::time::Duration;

use futures_util::StreamExt as _;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::visits::{DAY, MINUTE, Visit, Visits};
use super::*;

/// The event stream of one client.
struct Listening {
    stream: axum::body::BodyDataStream,
    text: String,
}

struct Event {
    kind: String,
    id: Option<String>,
    data: Value,
}

impl Listening {
    async fn begin(visits: &Visits, query: &str, last: Option<&str>) -> Self {
        let mut request =
            Request::get(format!("/api/v1/tables/visits/tail?{query}")).header("host", "localhost:7070");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = visits.api.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut listening = Self {
            stream: response.into_body().into_data_stream(),
            text: String::new(),
        };
        // The client receives all later rows once the greeting has arrived.
        listening.part().await;
        listening
    }

    async fn part(&mut self) -> String {
        loop {
            if let Some((part, rest)) = self.text.split_once("\n\n") {
                let (part, rest) = (part.to_owned(), rest.to_owned());
                self.text = rest;
                return part;
            }
            let more = tokio::time::timeout(Duration::from_secs(20), self.stream.next()).await;
            let more = more.expect("an event in time").expect("more events").unwrap();
            self.text.push_str(str::from_utf8(&more).unwrap());
        }
    }

    async fn event(&mut self) -> Event {
        let part = self.part().await;
        let field = |name: &str| {
            part.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::to_owned)
        };
        Event {
            kind: field("event: ").unwrap_or_else(|| panic!("no event in {part:?}")),
            id: field("id: "),
            data: serde_json::from_str(&field("data: ").unwrap()).unwrap(),
        }
    }

    /// Collects the notes of at least `count` rows, and the id to resume from.
    async fn notes(&mut self, count: usize) -> (Vec<String>, String) {
        let (mut notes, mut last) = (Vec::new(), String::new());
        while notes.len() < count {
            let event = self.event().await;
            assert_eq!(event.kind, "rows", "{}", event.data);
            let items = event.data["items"].as_array().unwrap();
            notes.extend(items.iter().map(|item| item["note"].as_str().unwrap().to_owned()));
            last = event.id.unwrap_or(last);
        }
        (notes, last)
    }
}

/// Processor time so far.
fn cpu_time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap()
}

fn noted(notes: impl IntoIterator<Item = String>) -> Vec<Visit> {
    let visit = |note| Visit {
        pc: "a",
        at: Some(DAY),
        note: Some(note),
        ..Visit::default()
    };
    notes.into_iter().map(visit).collect()
}

fn numbers(first: usize, last: usize) -> Vec<String> {
    (first..=last).map(|number| format!("n{number}")).collect()
}

#[tokio::test]
async fn a_tail_sends_new_rows_and_resumes_without_loss() {
    let visits = Visits::new().await;
    visits.add(&noted(numbers(1, 3)));
    let mut all = Listening::begin(&visits, "", None).await;
    let mut some = Listening::begin(&visits, "filter=note^=n1&columns=note&integers=text", None).await;
    visits.add(&noted(numbers(4, 19)));
    visits.database.wake().await;
    let (notes, last) = all.notes(16).await;
    assert_eq!(notes, numbers(4, 19), "only what came since");
    assert_eq!(some.notes(10).await.0, numbers(10, 19));
    drop(all);
    visits.add(&noted(numbers(20, 900)));
    visits.database.wake().await;
    let mut back = Listening::begin(&visits, "", Some(&last)).await;
    visits.add(&noted(["newest".to_owned()]));
    visits.database.wake().await;
    let (notes, _) = back.notes(882).await;
    let expected: Vec<String> = numbers(20, 900)
        .into_iter()
        .chain(["newest".to_owned()])
        .collect();
    assert_eq!(notes, expected);
    // The parameter works the same way; a header takes precedence over it.
    let mut again = Listening::begin(&visits, &format!("after={last}"), None).await;
    assert_eq!(again.notes(1).await.0[0], "n20");
    // The tail sends a row again when a later message changes it.
    visits
        .database
        .writer()
        .execute(
            "UPDATE visits SET note = 'changed', _sequence = 5000 WHERE note = 'n1'",
            [],
        )
        .unwrap();
    visits.database.wake().await;
    assert_eq!(back.notes(1).await.0, ["changed"]);
}

#[tokio::test]
async fn a_tail_reports_rows_that_it_omits() {
    let visits = Visits::new().await;
    visits.add(&noted(["first".to_owned()]));
    let mut listening = Listening::begin(&visits, "", None).await;
    visits.add(&noted(["second".to_owned()]));
    visits.database.wake().await;
    let (_, last) = listening.notes(1).await;
    visits.add(&noted(numbers(1, 8_000)));
    visits.database.wake().await;
    let gap = listening.event().await;
    assert_eq!(gap.kind, "omitted");
    let skipped = gap.data["rows_omitted"].as_u64().unwrap();
    assert!(skipped >= 6_000, "{skipped}");
    let (notes, _) = listening.notes(8_000 - skipped as usize).await;
    assert_eq!(notes.last().unwrap(), "n8000");

    let mut back = Listening::begin(&visits, "", Some(&last)).await;
    let gap = back.event().await;
    assert_eq!(
        (gap.kind.as_str(), &gap.data),
        ("omitted", &json!({"rows_omitted": 3_000}))
    );
    let (notes, _) = back.notes(5_000).await;
    assert_eq!(notes, numbers(3_001, 8_000));
}

#[tokio::test]
async fn a_tail_rejects_invalid_parameters() {
    let visits = Visits::new().await;
    for (query, words) in [
        ("after=AAAA", "after"),
        ("filter=nothing=1", "no column"),
        ("limit=1", "unknown parameter"),
    ] {
        let path = format!("/api/v1/tables/visits/tail?{query}");
        refused(&visits.api, &path, StatusCode::BAD_REQUEST, words).await;
    }
}

#[tokio::test]
async fn a_tail_sends_the_rows_that_a_read_finds() {
    let visits = Visits::new().await;
    let mut listening = Vec::new();
    let selections = [
        "filter=kind=k1&filter=kind=k2",
        "filter=kind!=k1",
        "filter=kind:null&filter=kind=k2",
        "filter=bytes%3E%3D3&filter=bytes%3C7",
        "filter=load%3C0.5",
        "filter=ok=true",
        "filter=note~%C3%A4",
        "filter=note!~AB",
        "filter=note^=Ab",
        "filter=note:set",
        "filter=extra~1",
        "search=a%25B",
        "from=2026-11-20T00:05:00Z&to=2026-11-20T00:20:00Z",
    ];
    for selection in selections {
        listening.push(Listening::begin(&visits, selection, None).await);
    }
    let notes = ["ab", "AB", "Abc", "a%b", "ä", "Ä", "a_b", ""];
    let rows: Vec<Visit> = (0..60_i64)
        .map(|number| Visit {
            pc: "a",
            at: (number % 7 != 0).then_some(DAY + number * MINUTE / 2),
            kind: (number % 5 != 0).then(|| format!("k{}", number % 3)),
            ok: (number % 4 != 0).then_some(number % 2 == 0),
            bytes: (number % 6 != 0).then_some(number % 9),
            load: (number % 8 != 0).then_some(number as f64 / 50.0),
            note: (number % 3 != 0).then(|| notes[number as usize % 8].to_owned()),
            extra: (number % 11 != 0).then(|| format!("{{\"n\":\n{number}}}")),
            ..Visit::default()
        })
        .collect();
    visits.add(&rows);
    visits.database.wake().await;
    for (listening, selection) in listening.iter_mut().zip(selections) {
        let expected = visits.rows(&format!("order=asc&{selection}")).await;
        assert!(!expected.is_empty(), "{selection}");
        let mut received: Vec<i64> = Vec::new();
        while received.len() < expected.len() {
            let event = listening.event().await;
            let items = event.data["items"].as_array().unwrap();
            received.extend(items.iter().map(|item| item["_sequence"].as_i64().unwrap()));
        }
        assert_eq!(received, expected, "{selection}");
    }
}

#[tokio::test]
async fn an_export_contains_all_selected_rows() {
    let visits = Visits::new().await;
    visits.add(&noted(numbers(1, 1_700)));
    let formula = Visit {
        pc: "=1+1",
        note: Some("a,\"b\"\r\nc".to_owned()),
        bytes: Some(-5),
        kind: Some("@x".to_owned()),
        extra: Some("{\"a\":1}".to_owned()),
        ..Visit::default()
    };
    visits.add(&[formula]);
    let (_, csv) = get(
        &visits.api,
        "/api/v1/tables/visits/export?format=csv&columns=pc,note&order=asc",
    )
    .await;
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines[0], "pc,note,_id");
    assert_eq!(lines[1_700], "a,n1700,1:1700:0");
    assert!(
        csv.ends_with("\r\n'=1+1,\"a,\"\"b\"\"\r\nc\",1:1701:0\r\n"),
        "{}",
        &csv[csv.len() - 60..]
    );
    let (_, one) = get(
        &visits.api,
        "/api/v1/tables/visits/export?format=csv&filter=bytes:set",
    )
    .await;
    assert_eq!(
        one,
        "pc,at,kind,ok,bytes,load,note,body,extra,_id\r\n'=1+1,,'@x,,-5,,\"a,\"\"b\"\"\r\nc\",,\"{\"\"a\"\":1}\",1:1701:0\r\n"
    );
    let (_, lines) = get(
        &visits.api,
        "/api/v1/tables/visits/export?format=jsonl&sort=-at&filter=note~N9&integers=text",
    )
    .await;
    let all: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sql = "SELECT count(*) FROM visits WHERE note LIKE '%n9%'";
    let count: i64 = visits
        .database
        .writer()
        .query_row(sql, [], |row| row.get(0))
        .unwrap();
    assert_eq!(all.len() as i64, count);
    assert_eq!(
        all[0]["_id"],
        format!("1:{}:0", all[0]["_sequence"].as_str().unwrap())
    );
    assert_eq!(all[0]["_origin"], "1");
    let request = Request::get("/api/v1/tables/visits/export?format=csv&filter=pc=none")
        .header("host", "localhost:7070")
        .body(Body::empty())
        .unwrap();
    let (response, body) = send(&visits.api, request).await;
    assert_eq!(
        response.headers()["content-disposition"],
        "attachment; filename=\"visits.csv\""
    );
    assert_eq!(body, "pc,at,kind,ok,bytes,load,note,body,extra,_id\r\n");
    for (query, words) in [
        ("", "format is required"),
        ("format=xls", "format must be one of"),
        ("format=csv&limit=1", "unknown parameter"),
    ] {
        let path = format!("/api/v1/tables/visits/export?{query}");
        refused(&visits.api, &path, StatusCode::BAD_REQUEST, words).await;
    }
}

#[tokio::test]
async fn series_contain_the_named_aggregate() {
    let visits = Visits::new().await;
    let rows: Vec<Visit> = (1..=200_i64)
        .map(|number| Visit {
            pc: "a",
            at: Some(DAY + (number - 1) / 100 * MINUTE),
            kind: Some(["even", "odd"][number as usize % 2].to_owned()),
            bytes: Some(number),
            load: (number % 2 == 0).then_some(0.5),
            ..Visit::default()
        })
        .collect();
    visits.add(&rows);
    let range = "from=2026-11-20T00:00:00Z&to=2026-11-20T00:03:00Z&buckets=3";
    for (op, expected) in [
        ("avg", json!([50.5, 150.5, null])),
        ("min", json!([1.0, 101.0, null])),
        ("max", json!([100.0, 200.0, null])),
        ("sum", json!([5050.0, 15050.0, 0.0])),
        ("count", json!([100.0, 100.0, 0.0])),
        ("p50", json!([50.0, 150.0, null])),
        ("p95", json!([95.0, 195.0, null])),
        ("p99", json!([99.0, 199.0, null])),
    ] {
        let series = visits
            .ask(&format!("/series?measures=bytes&op={op}&{range}"))
            .await;
        assert_eq!(
            (&series["bucket_ms"], &series["exact"], &series["more"]),
            (&60_000.into(), &true.into(), &false.into())
        );
        let points = series["series"][0]["points"].as_array().unwrap();
        let values: Vec<&Value> = points.iter().map(|point| &point[1]).collect();
        assert_eq!(json!(values), expected, "{op}");
        assert_eq!(points[1][0], (DAY + MINUTE) / 1_000);
    }
    let by = visits
        .ask(&format!("/series?measures=bytes,load&op=count&by=kind&{range}"))
        .await;
    let lines = by["series"].as_array().unwrap();
    let line = |measure: &str, key: &str| {
        let found = lines
            .iter()
            .find(|line| line["measure"] == measure && line["key"] == key);
        found.unwrap()["points"][0][1].clone()
    };
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (line("bytes", "odd"), line("load", "odd"), line("load", "even")),
        (json!(50.0), json!(0.0), json!(50.0))
    );
    let rows = visits.ask(&format!("/series?op=count&{range}")).await;
    assert_eq!(rows["series"][0]["measure"], "rows");
    for (query, words) in [
        ("", "measures is required"),
        ("measures=note", "measures: note has the type text"),
        ("measures=bytes&op=mode", "op must be one of"),
        ("measures=bytes&by=extra", "by: extra has the type json"),
        ("measures=bytes&buckets=0", "buckets must"),
    ] {
        let path = format!("/api/v1/tables/visits/series?{query}");
        refused(&visits.api, &path, StatusCode::BAD_REQUEST, words).await;
    }
}

#[tokio::test]
async fn projections_have_a_history() {
    let database = Database::new();
    let state = database.state().await;
    let _running = add(&state.projections, running());
    let api = router(state);
    let history = get_json(&api, "/api/v1/projections/history").await;
    assert_eq!(history["interval_ms"], 10_000);
    assert!(history["projections"].is_array());
}

#[tokio::test]
async fn a_rare_text_is_found_over_several_pages() {
    let visits = Visits::new().await;
    let mut rows = noted(numbers(1, 9_000));
    rows[17].note = Some("needle".to_owned());
    rows[6_000].note = Some("Needle".to_owned());
    rows[6_001].at = None;
    rows[6_001].note = Some("needles".to_owned());
    visits.add(&rows);
    assert_eq!(visits.rows("search=needle*").await, [6_001, 18, 6_002]);
    assert_eq!(visits.rows("search=needle*&sort=at").await, [18, 6_001, 6_002]);
    assert_eq!(visits.rows("search=needle*&order=asc").await, [18, 6_001, 6_002]);
    let first = visits.ask("/rows?search=needle*&limit=1").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(
        visits.rows(&format!("search=needle*&cursor={cursor}")).await,
        [18, 6_002]
    );
}

#[tokio::test]
async fn expensive_filters_of_one_tail_do_not_delay_others() {
    let visits = Visits::new().await;
    visits.add(&noted(["first".to_owned()]));
    let mut listening = Listening::begin(&visits, "", None).await;
    visits.add(&noted(["second".to_owned()]));
    visits.database.wake().await;
    let (_, last) = listening.notes(1).await;
    visits.add(&noted(vec!["a".repeat(2_000_000); 4]));
    // The tail scans the full text for each filter.
    let filters: String = (0..20)
        .map(|number| format!("&filter=note!~{}b", "a".repeat(300 - number)))
        .collect();
    let mut hostile = Listening::begin(&visits, &filters[1..], Some(&last)).await;
    visits.database.wake().await;
    let done = std::cell::Cell::new(false);
    let first = async {
        let event = hostile.event().await;
        done.set(true);
        event
    };
    let others = async {
        while !done.get() {
            assert_eq!(get_json(&visits.api, "/api/v1/info").await["name"], "lantern");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // This thread serves all requests of the test.
    let (here, all) = (
        cpu_time(ClockId::ThreadCPUTime),
        cpu_time(ClockId::ProcessCPUTime),
    );
    let (event, ()) = tokio::join!(first, others);
    let here = cpu_time(ClockId::ThreadCPUTime) - here;
    let all = cpu_time(ClockId::ProcessCPUTime) - all;
    assert!(
        here < all / 2,
        "{here:?} of {all:?}: the scan is on the thread of the requests"
    );
    // The tail drops events that take too long and continues with later ones.
    let mut kinds = vec![event.kind];
    visits.add(&noted(["last".to_owned()]));
    visits.database.wake().await;
    loop {
        let event = hostile.event().await;
        if event.kind == "rows" && event.data["items"].to_string().contains("\"last\"") {
            break;
        }
        kinds.push(event.kind);
        assert!(kinds.len() < 20, "{kinds:?}");
    }
}

#[tokio::test]
async fn a_row_larger_than_an_event_is_omitted_and_counted() {
    let visits = Visits::new().await;
    visits.add(&noted(["first".to_owned()]));
    let mut listening = Listening::begin(&visits, "", None).await;
    let mut narrow = Listening::begin(&visits, "columns=pc", None).await;
    visits.add(&noted(["second".to_owned()]));
    visits.database.wake().await;
    let (_, last) = listening.notes(1).await;
    let rows = ["before".to_owned(), "x".repeat(200_000), "after".to_owned()];
    visits.add(&noted(rows));
    visits.database.wake().await;
    let mut back = Listening::begin(&visits, "", Some(&last)).await;
    for listening in [&mut listening, &mut back] {
        let (mut notes, mut skipped) = (Vec::new(), 0);
        while notes.len() < 2 || skipped < 1 {
            let event = listening.event().await;
            match event.kind.as_str() {
                "omitted" => skipped += event.data["rows_omitted"].as_u64().unwrap(),
                _ => {
                    let items = event.data["items"].as_array().unwrap();
                    notes.extend(items.iter().map(|item| item["note"].as_str().unwrap().to_owned()));
                }
            }
        }
        assert_eq!(
            (notes, skipped),
            (vec!["before".to_owned(), "after".to_owned()], 1)
        );
    }
    // The size limit applies to the selected columns, not to the row.
    let mut received = 0;
    while received < 4 {
        let event = narrow.event().await;
        assert_eq!(event.kind, "rows");
        received += event.data["items"].as_array().unwrap().len();
    }
}
