//! The tables at a PostgreSQL server: the pipeline against two programs that write the same rows into the same table, and the
//! time from publish to visible row. `cargo xtask bench` starts the server.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use lantern_store::{Engine, Server};
use tokio_postgres::{Client, NoTls};

use crate::events::{self, Events, runtime};
use crate::host::{Host, plugin_folder};
use crate::nats::NatsServer;
use crate::process::latencies_of;
use crate::raw::{self, Row, Run};
use crate::{Options, best, native, pipeline, report, rounded};

/// The variable with the address of the server.
const ADDRESS: &str = "LANTERN_TEST_POSTGRES";
/// Rows of a transaction with `COPY`: those of a full transaction of the host.
const COPIED_ROWS: usize = 8_192;
/// Rows of a transaction with JSON.
const JSON_ROWS: usize = 1_000;
const COLUMNS: &str =
    "\"_origin\", \"_sequence\", \"_row\", pc_id, at, kind, source, event_record_id, payload";

/// Measures throughput and latency.
pub fn measure(options: &Options) -> anyhow::Result<()> {
    let Ok(address) = std::env::var(ADDRESS) else {
        println!("postgres: skipped, because there is no PostgreSQL server");
        return Ok(());
    };
    throughput(options, &address)?;
    for synchronous in ["normal", "full"] {
        latency(&address, synchronous, options.seconds)?;
    }
    Ok(())
}

fn throughput(options: &Options, address: &str) -> anyhow::Result<()> {
    let events = events::load(options.data.as_deref(), options.events)?;
    let count = events.messages.len();
    println!(
        "postgres: {count} events of {} bytes on average, from {}",
        events.mean_bytes(),
        events.origin
    );
    let server = NatsServer::start();
    events::publish(&server, &events)?;
    let rows = raw::decode(&events)?;
    let (mut copied, mut json, mut lantern) = Default::default();
    for round in 1..=options.rounds {
        let this = [
            best(&mut copied, raw(address, &rows, COPIED_ROWS, Way::Copy)?),
            best(&mut json, raw(address, &rows, JSON_ROWS, Way::Json)?),
            best(&mut lantern, through_lantern(&server, address, &events)?),
        ];
        println!(
            "  round {round}: COPY {:.0}/s, JSON {:.0}/s, lantern {:.0}/s",
            this[0], this[1], this[2]
        );
    }
    let cpu = lantern.pipeline;
    println!(
        "  lantern against COPY {:.2}, against JSON {:.2}; us CPU/row of the host: writer {:.2}, client and plugin {:.2}, \
         broker {:.2}",
        lantern.rate / copied.rate,
        lantern.rate / json.rate,
        cpu.writer,
        cpu.others,
        cpu.broker
    );
    report::line(
        "stream to rows of PostgreSQL, against binary `COPY` straight into the same table (`-- postgres`)",
        format!(
            "{} rows/s, {:.2} of {}",
            rounded(lantern.rate),
            lantern.rate / copied.rate,
            rounded(copied.rate)
        ),
    );
    report::line(
        "the same against `INSERT … SELECT FROM jsonb_populate_recordset` in batches of 1,000",
        format!("{:.1} times as fast", lantern.rate / json.rate),
    );
    Ok(())
}

fn through_lantern(server: &NatsServer, address: &str, events: &Events) -> anyhow::Result<Run> {
    let database: Server = runtime()?.block_on(new_database(address))?.parse()?;
    let count = events.messages.len();
    pipeline::run(server, count, pipeline::Decoder::Wasm, Some(database))
}

#[derive(Clone, Copy)]
enum Way {
    Copy,
    Json,
}

/// Writes the rows in transactions of `size` rows, into a table with the columns and indexes that the host creates.
fn raw(address: &str, rows: &[Row], size: usize, way: Way) -> anyhow::Result<Run> {
    runtime()?.block_on(async {
        let address = new_database(address).await?;
        let client = connect(&address).await?;
        let (schema, _) = native::statements(Engine::Postgres)?;
        client.batch_execute("SET synchronous_commit = off").await?;
        for statement in schema {
            client.batch_execute(&statement).await?;
        }
        let began = Instant::now();
        let mut sequence = 0;
        for rows in rows.chunks(size) {
            client.batch_execute("BEGIN").await?;
            match way {
                Way::Copy => copy(&client, sequence, rows).await?,
                Way::Json => insert_json(&client, sequence, rows).await?,
            }
            client.batch_execute("COMMIT").await?;
            sequence += rows.len() as i64;
        }
        Ok(Run {
            rate: rows.len() as f64 / began.elapsed().as_secs_f64(),
            ..Run::default()
        })
    })
}

async fn copy(client: &Client, after: i64, rows: &[Row]) -> anyhow::Result<()> {
    let statement = format!("COPY obs_events ({COLUMNS}) FROM STDIN (FORMAT binary)");
    let sink = client.copy_in::<_, Bytes>(&statement).await?;
    let mut sink = std::pin::pin!(sink);
    let mut out = BytesMut::with_capacity(80 * 1024);
    out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for (sequence, row) in (after + 1..).zip(rows) {
        out.put_i16(9);
        for number in [1, sequence, 0] {
            put(&mut out, &number.to_be_bytes())?;
        }
        put(&mut out, row.pc_id.as_bytes())?;
        put(&mut out, &row.at.to_be_bytes())?;
        put(&mut out, row.kind.as_bytes())?;
        put(&mut out, row.source.as_bytes())?;
        match &row.event_record_id {
            Some(id) => put(&mut out, id.as_bytes())?,
            None => out.put_i32(-1),
        }
        put(&mut out, row.payload.as_bytes())?;
        if out.len() >= 64 * 1024 {
            sink.send(out.split().freeze()).await?;
        }
    }
    out.put_i16(-1);
    sink.send(out.freeze()).await?;
    sink.finish().await?;
    Ok(())
}

fn put(out: &mut BytesMut, value: &[u8]) -> anyhow::Result<()> {
    out.put_i32(i32::try_from(value.len())?);
    out.put_slice(value);
    Ok(())
}

async fn insert_json(client: &Client, after: i64, rows: &[Row]) -> anyhow::Result<()> {
    let rows = (after + 1..).zip(rows).map(|(sequence, row)| {
        serde_json::json!({
            "_origin": 1, "_sequence": sequence, "_row": 0, "pc_id": row.pc_id, "at": row.at, "kind": row.kind,
            "source": row.source, "event_record_id": row.event_record_id, "payload": row.payload,
        })
    });
    let text = serde_json::Value::from(rows.collect::<Vec<_>>()).to_string();
    let insert = format!(
        "INSERT INTO obs_events ({COLUMNS})
         SELECT {COLUMNS} FROM jsonb_populate_recordset(NULL::obs_events, ($1::text)::jsonb)"
    );
    client.execute(&insert, &[&text]).await?;
    Ok(())
}

async fn connect(address: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Creates a database. Returns its address.
async fn new_database(address: &str) -> anyhow::Result<String> {
    let client = connect(address).await?;
    let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
    client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    // The server writes what the runs before have changed, so that this one does not pay for it.
    client.batch_execute("CHECKPOINT").await?;
    let (server, _) = address.rsplit_once('/').context("an address with a database")?;
    Ok(format!("{server}/{name}"))
}

/// Measures the time from publish to visible row with a separate host.
fn latency(address: &str, synchronous: &str, seconds: u64) -> anyhow::Result<()> {
    let rate = 1_000;
    let server = NatsServer::start();
    let folder = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir()?;
    let address = runtime()?.block_on(new_database(address))?;
    let mut command = Host::command(dir.path(), &server.url(), folder.path());
    command
        .env("LANTERN__STORE__URL", &address)
        .env("LANTERN__STORE__SYNCHRONOUS", synchronous);
    let host = Host::spawn(command);
    let count = rate * seconds;
    let latencies = latencies_of(
        &server,
        &host,
        rate,
        count,
        |_| Ok(()),
        move || runtime()?.block_on(watch(&address, count)),
    )?;
    let commit = if synchronous == "full" { "on" } else { "off" };
    println!(
        "  publish to visible row at {rate}/s for {seconds} s, synchronous_commit {commit}: p50 {:.2} ms, p99 {:.2} ms, \
         max {:.1} ms",
        latencies.at(0.5),
        latencies.at(0.99),
        latencies.at(1.0)
    );
    report::line(
        &format!("publish to visible row of PostgreSQL at {rate}/s, synchronous_commit {commit}, p50 / p99"),
        format!("{:.1} / {:.1} ms", latencies.at(0.5), latencies.at(0.99)),
    );
    Ok(())
}

/// Returns the time when each of the `count` rows became visible.
async fn watch(address: &str, count: u64) -> anyhow::Result<Vec<Instant>> {
    let client = connect(address).await?;
    let statement = client
        .prepare("SELECT _sequence FROM lantern.obs_events WHERE _origin = 1 ORDER BY _sequence DESC LIMIT 1")
        .await?;
    let mut seen = Vec::with_capacity(usize::try_from(count)?);
    let deadline = Instant::now() + Duration::from_secs(300);
    while (seen.len() as u64) < count && Instant::now() < deadline {
        let row = client.query_opt(&statement, &[]).await?;
        let last = row.map_or(Ok(0_i64), |row| row.try_get(0))?;
        let now = Instant::now();
        while (seen.len() as i64) < last {
            seen.push(now);
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok(seen)
}
