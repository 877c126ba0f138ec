//! Measures the dashboard against the real program: queries on a table of millions of rows during ingestion, and the
//! cost of live table followers to ingestion.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::{Connection, params};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::events::runtime;
use crate::host::{Host, plugin_folder};
use crate::nats::NatsServer;
use crate::process::{Latencies, measured, publish_evenly, resident};
use crate::report;

/// Messages per second published during the measurement.
const RATE: u64 = 2_000;
/// Number of requests for each query.
const ASKED: usize = 100;
/// Number of days that the rows span.
const DAYS: i64 = 30;
const DAY_US: i64 = 86_400_000_000;
/// Maximum time for indexing the words of the table.
const INDEX_TIME: Duration = Duration::from_secs(3_600);

/// The queries. The placeholders `from` and `to` stand for a time and the time one day later.
const QUESTIONS: [(&str, &str); 14] = [
    ("first page", "/rows?limit=100&integers=text"),
    (
        "filter by facet",
        "/rows?limit=100&integers=text&filter=kind=kind-3",
    ),
    (
        "filter by a rare value",
        "/rows?limit=100&integers=text&filter=kind=rare",
    ),
    (
        "one machine, two kinds",
        "/rows?limit=100&filter=pc_id=pc-77&filter=kind=kind-1&filter=kind=kind-2",
    ),
    ("jump to a time", "/rows?limit=100&to={from}"),
    ("histogram of a day", "/histogram?buckets=60&from={from}&to={to}"),
    (
        "histogram of a day by kind",
        "/histogram?buckets=60&by=kind&from={from}&to={to}",
    ),
    (
        "facets of a day",
        "/facets?columns=kind,source&from={from}&to={to}",
    ),
    ("facets of all rows", "/facets?columns=kind,source"),
    ("and a column without counts", "/facets?columns=pc_id"),
    (
        "search: two frequent words",
        "/rows?limit=100&integers=text&search=agent+observed",
    ),
    (
        "search: two words, 1 in 1,000",
        "/rows?limit=100&integers=text&search=alpha7+beta7",
    ),
    (
        "search: one word, 1 in 100,000",
        "/rows?limit=100&integers=text&search=gamma7",
    ),
    (
        "search: frequent, of a day",
        "/rows?limit=100&integers=text&search=alpha3+payload.n:1*&from={from}&to={to}",
    ),
];

/// Measures the queries on a table of `rows` rows.
pub fn questions(rows: i64) -> anyhow::Result<()> {
    let server = NatsServer::start();
    let folder = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir()?;
    let start = || {
        let host = Host::start(dir.path(), &server.url(), folder.path());
        host.wait("running", Duration::from_secs(300), |host| {
            host.projection("obs")["state"] == "running"
        });
        host
    };
    start().terminate();
    let began = Instant::now();
    let newest = fill(&dir.path().join("lantern.db"), rows)?;
    let filled = began.elapsed();
    let began = Instant::now();
    let host = start();
    println!(
        "dashboard: {rows} rows over {DAYS} days (written in {:.0} s, host ready in {:.1} s), {RATE} messages/s come in",
        filled.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    index(&host, &dir.path().join("lantern.db"), rows)?;
    let publishing = std::thread::spawn({
        let url = server.url();
        move || runtime()?.block_on(publish_evenly(&url, RATE, RATE * 60))
    });
    let mut measured = Vec::new();
    for (name, question) in QUESTIONS {
        let mut took = Vec::with_capacity(ASKED);
        for turn in 0..ASKED {
            let from = newest - DAY_US * DAYS + DAY_US * (1 + (turn as i64 * 7) % (DAYS - 2));
            let path = format!("/api/v1/tables/obs_events{question}")
                .replace("{from}", &time(from)?)
                .replace("{to}", &time(from + DAY_US)?);
            let began = Instant::now();
            let (status, body) = host.get(&path)?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
            anyhow::ensure!(status == 200, "{path}: {body}");
        }
        let took = Latencies::new(took);
        println!(
            "  {name:<30} p50 {:>7.1} ms   p95 {:>7.1} ms",
            took.at(0.5),
            took.at(0.95)
        );
        measured.push(format!("{name} {:.0} ms", took.at(0.95)));
    }
    report::line(
        &format!(
            "a table of {rows} rows with {RATE} live messages/s, p95 of {ASKED} requests (`-- dashboard`)"
        ),
        measured.join("; "),
    );
    publishing
        .join()
        .map_err(|_| anyhow::anyhow!("the publisher panicked"))??;
    Ok(())
}

/// Waits until the full-text index contains all rows, and prints its size.
fn index(host: &Host, database: &Path, rows: i64) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (status, body) = host.get("/api/v1/tables/obs_events")?;
        anyhow::ensure!(status == 200, "{body}");
        let table: serde_json::Value = serde_json::from_str(&body)?;
        anyhow::ensure!(table["search"]["enabled"] == true, "{body}");
        if table["search"]["rows_behind"] == 0 {
            break;
        }
        anyhow::ensure!(began.elapsed() < INDEX_TIME, "the index is not complete: {body}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = began.elapsed().as_secs_f64();
    let bytes: f64 = Connection::open(database)?.query_row(
        "SELECT sum(pgsize) FROM dbstat WHERE name GLOB '_lantern_search_[0-9]*'",
        [],
        |row| row.get(0),
    )?;
    println!(
        "  full-text index: {:.0} rows/s while nothing else is written, {:.0} MB, {:.0} bytes per row",
        rows as f64 / took,
        bytes / 1e6,
        bytes / rows as f64
    );
    Ok(())
}

fn time(us: i64) -> anyhow::Result<String> {
    let time = chrono::DateTime::from_timestamp_micros(us).context("a time out of range")?;
    Ok(time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

/// Inserts rows directly into the database of a stopped host. Creates the indexes afterwards, which is faster. Returns
/// the time of the newest row.
fn fill(database: &Path, rows: i64) -> anyhow::Result<i64> {
    let connection = Connection::open(database)?;
    connection
        .execute_batch("PRAGMA synchronous = off; PRAGMA cache_size = -500000; PRAGMA temp_store = file;")?;
    let indexes: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'obs_events' AND type = 'index' AND sql <> ''")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, _) in &indexes {
        connection.execute_batch(&format!("DROP INDEX \"{name}\""))?;
    }
    let newest = chrono::Utc::now().timestamp_micros();
    let step = DAYS * DAY_US / rows;
    for first in (1..=rows).step_by(1_000_000) {
        connection.execute(
            "WITH RECURSIVE n(i) AS (VALUES (?1) UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
             INSERT INTO obs_events (_origin, _sequence, _row, pc_id, at, kind, source, event_record_id, payload)
             SELECT 1, 1000000000 + i, 0, 'pc-' || abs(random() % 500), ?3 - (?4 - i) * ?5, iif(i % 100000 = 0, 'rare', 'kind-' || abs(random() % 8)),
                 'source-' || (i % 5), i, '{\"n\":' || i || ',\"text\":\"what an agent has observed\",\"words\":\"alpha' || abs(random() % 20) ||
                 ' beta' || abs(random() % 50) || ' gamma' || abs(random() % 100000) || '\"}' FROM n",
            params![first, (first + 999_999).min(rows), newest, rows, step],
        )?;
    }
    for (_, sql) in &indexes {
        connection.execute_batch(sql)?;
    }
    summarize(&connection)?;
    connection.execute("INSERT INTO _lantern_searched VALUES ('obs_events')", [])?;
    Ok(newest)
}

/// Stores the summaries of the table's segments, which the host maintains for rows that it writes.
fn summarize(connection: &Connection) -> anyhow::Result<()> {
    let id: i64 = connection.query_row(
        "SELECT id FROM _lantern_segments WHERE table_name = 'obs_events'",
        [],
        |row| row.get(0),
    )?;
    let newest: i64 =
        connection.query_row("SELECT max(rowid) >> 10 FROM obs_events", [], |row| row.get(0))?;
    connection.execute_batch(&format!(
        "BEGIN;
         DELETE FROM _lantern_segment; DELETE FROM _lantern_segment_origin; DELETE FROM _lantern_segment_facet;
         INSERT INTO _lantern_segment
             SELECT {id}, rowid >> 10, count(*), 0, min(at), max(at) FROM obs_events
             WHERE rowid >> 10 < {newest} GROUP BY 2;
         INSERT INTO _lantern_segment_origin
             SELECT {id}, _origin, _sequence >> 17, rowid >> 10, min(_sequence), max(_sequence), count(*)
             FROM obs_events WHERE rowid >> 10 < {newest} GROUP BY 2, 3, 4;"
    ))?;
    for column in ["kind", "source"] {
        connection.execute_batch(&format!(
            "INSERT INTO _lantern_segment_facet
                 SELECT {id}, '{column}', {column}, rowid >> 10, count(*) FROM obs_events
                 WHERE rowid >> 10 < {newest} GROUP BY 3, 4;"
        ))?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// Measures how much `clients` followers of a table slow ingestion; a tenth of them never read. Alternates between runs
/// with and without followers, because results vary from run to run.
pub fn followers(clients: usize) -> anyhow::Result<()> {
    const SECONDS: u64 = 15;
    const ROUNDS: usize = 5;
    println!(
        "followers: {clients} follow a table at {RATE} messages/s, {} of them never read; they stand for other machines \
         and have the lowest priority",
        clients.div_ceil(10)
    );
    let mut p99 = [Vec::new(), Vec::new()];
    for round in 1..=ROUNDS {
        let alone = measured(RATE, SECONDS, |_| Ok(()))?;
        let (mut before, mut after) = (0.0, 0.0);
        let followed = measured(RATE, SECONDS, |host| {
            before = resident(host.pid())?.all;
            Ok(Followers {
                _stop: follow(&host.url(), clients)?,
                pid: host.pid(),
                after: &mut after,
            })
        })?;
        println!(
            "  round {round}: publish to visible row p50 / p99 {:.2} / {:.2} ms alone, {:.2} / {:.2} ms with them; \
             memory {before:.0} MiB before them, {after:.0} MiB at the end",
            alone.at(0.5),
            alone.at(0.99),
            followed.at(0.5),
            followed.at(0.99)
        );
        p99[0].push(alone.at(0.99));
        p99[1].push(followed.at(0.99));
    }
    let [alone, followed] = p99.map(|all| Latencies::new(all).at(0.5));
    println!(
        "  p99, median of {ROUNDS} rounds: {alone:.2} ms alone, {followed:.2} ms with them ({:.2})",
        followed / alone
    );
    report::line(
        &format!(
            "{clients} followers of a table at {RATE} messages/s, a tenth of which never read: publish to visible row p99 \
             without and with them, medians of {ROUNDS} rounds (`-- followers`)"
        ),
        format!("{alone:.1} and {followed:.1} ms"),
    );
    Ok(())
}

/// Starts the followers; they stop when the returned sender is dropped.
fn follow(url: &str, clients: usize) -> anyhow::Result<tokio::sync::oneshot::Sender<()>> {
    let address = url.trim_start_matches("http://").to_owned();
    let (up, ready) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        // The threads that the runtime starts inherit the priority.
        rustix::process::setpriority_process(None, 19)?;
        runtime()?.block_on(async {
            let mut silent = Vec::new();
            for client in 0..clients {
                let mut stream = TcpStream::connect(&address).await?;
                let question =
                    format!("GET /api/v1/tables/obs_events/tail HTTP/1.1\r\nHost: {address}\r\n\r\n");
                stream.write_all(question.as_bytes()).await?;
                if client % 10 == 0 {
                    silent.push(stream);
                } else {
                    tokio::spawn(async move {
                        let mut part = vec![0; 64 << 10];
                        while stream.read(&mut part).await.is_ok_and(|read| read > 0) {}
                    });
                }
            }
            up.send(())?;
            drop(stopped.await);
            anyhow::Ok(())
        })
    });
    ready.recv().context("the followers did not come up")?;
    Ok(stop)
}

/// Records the memory of the host on drop and then stops the followers.
struct Followers<'a> {
    _stop: tokio::sync::oneshot::Sender<()>,
    pid: u32,
    after: &'a mut f64,
}

impl Drop for Followers<'_> {
    fn drop(&mut self) {
        if let Ok(memory) = resident(self.pid) {
            *self.after = memory.all;
        }
    }
}
