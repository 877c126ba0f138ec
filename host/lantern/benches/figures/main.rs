//! Benchmarks that measure Lantern's published figures in one run and print their ratios. Run them with `cargo xtask
//! bench`; `cargo xtask bench -- --help` lists the options.
//!
//! Each benchmark prints its parameters and results. It asserts nothing, because a slow machine is not a defect.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    dead_code,
    reason = "a benchmark that cannot run should say so loudly; it shares its servers with the tests"
)]

mod dashboard;
mod events;
#[path = "../../tests/support/evolving.rs"]
mod evolving;
#[path = "../../tests/support/host.rs"]
mod host;
mod kill;
mod native;
#[path = "../../tests/support/nats.rs"]
mod nats;
mod operator;
mod pipeline;
mod process;
mod raw;
mod seeds;
#[path = "../../tests/support/torture.rs"]
mod torture;

use std::path::PathBuf;

use clap::Parser;

/// Command-line options.
#[derive(Parser)]
#[command(about = "Measures Lantern's figures side by side")]
struct Options {
    /// Figures to measure; all if none is given.
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// Events in the stream for the throughput figures.
    #[arg(long, default_value_t = 300_000)]
    events: usize,
    /// Events for the loop that acknowledges and commits each event, which is slow.
    #[arg(long, default_value_t = 20_000)]
    seed_events: usize,
    /// Rounds per variant; the best round counts, because other processes disturb the machine.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages per second for the latency figure.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Duration of the latency figure in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Number of times to kill the host; the broker is killed a third as often.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Number of version swaps under load.
    #[arg(long, default_value_t = 1_000)]
    swaps: usize,
    /// Number of rows to rebuild.
    #[arg(long, default_value_t = 1_000_000)]
    rebuilt: u64,
    /// Rows of the table for the dashboard queries.
    #[arg(long, default_value_t = 10_000_000)]
    rows: i64,
    /// Number of clients that follow a table live.
    #[arg(long, default_value_t = 500)]
    followers: usize,
    /// Folder with the content of `windows-events.zip` as JSON lines; uses generated events if absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// `cargo bench` passes this flag.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Figure {
    /// Throughput from stream to table, compared with raw inserts, a native decoder and the loop of the predecessors.
    Throughput,
    /// Time from publish to visible row.
    Latency,
    /// Time from start to ready, and resident memory when idle and at full rate.
    Process,
    /// SIGKILL of host and broker under load.
    Kill,
    /// Swaps between plugin versions under load.
    Swaps,
    /// A rebuild during live ingestion.
    Rebuild,
    /// Misbehaving guests next to a well-behaved one.
    Hostile,
    /// Dashboard queries on a table of millions of rows; takes minutes and gigabytes.
    Dashboard,
    /// Clients that follow a table live, and their cost to ingestion.
    Followers,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let wanted = |figure| options.figures.is_empty() || options.figures.contains(&figure);
    if wanted(Figure::Throughput) {
        throughput(&options)?;
    }
    if wanted(Figure::Latency) {
        process::latency(options.rate, options.seconds)?;
    }
    if wanted(Figure::Process) {
        process::start_and_memory(options.events)?;
    }
    if wanted(Figure::Kill) {
        kill::host(options.kills);
        kill::rebuilding(options.kills);
        kill::broker(options.kills.div_ceil(3));
    }
    if wanted(Figure::Swaps) {
        operator::swaps(options.swaps)?;
    }
    if wanted(Figure::Rebuild) {
        operator::rebuild(options.rebuilt)?;
    }
    if wanted(Figure::Hostile) {
        operator::hostile()?;
    }
    if wanted(Figure::Followers) {
        dashboard::followers(options.followers)?;
    }
    if wanted(Figure::Dashboard) {
        dashboard::questions(options.rows)?;
    }
    Ok(())
}

fn throughput(options: &Options) -> anyhow::Result<()> {
    let events = events::load(options.data.as_deref(), options.events)?;
    println!(
        "throughput: {} events of {} bytes on average, from {}",
        events.messages.len(),
        events.mean_bytes(),
        events.origin
    );
    let server = nats::NatsServer::start();
    events::publish(&server, &events)?;
    let mut best = Best::default();
    for round in 1..=options.rounds {
        // Interleave the variants, so that a slow phase of the machine affects all of them.
        let raw = raw::run(&events)?;
        let sqlx = raw::run_sqlx(&events)?;
        let wasm = pipeline::run(&server, events.messages.len(), pipeline::Side::Wasm)?;
        let native = pipeline::run(&server, events.messages.len(), pipeline::Side::Native)?;
        println!(
            "  round {round}: raw {raw:.0}/s, sqlx {sqlx:.0}/s, lantern {wasm:.0}/s, decoder compiled in {native:.0}/s"
        );
        best.keep(raw, sqlx, wasm, native);
    }
    let seeds = seeds::run(&server, options.seed_events.min(events.messages.len()))?;
    println!(
        "  prepared statements on a raw connection   {:>9.0} rows/s",
        best.raw
    );
    println!(
        "  500-row statements through sqlx           {:>9.0} rows/s  {:.2} of raw",
        best.sqlx,
        best.sqlx / best.raw
    );
    println!(
        "  lantern, stream to committed rows         {:>9.0} rows/s  {:.2} of raw",
        best.wasm,
        best.wasm / best.raw
    );
    println!(
        "  the same, decoder compiled into the host  {:>9.0} rows/s  wasm has {:.2} of it",
        best.native,
        best.wasm / best.native
    );
    println!(
        "  the seeds' loop ({} events)           {seeds:>9.0} rows/s  lantern is {:.1} times as fast",
        options.seed_events,
        best.wasm / seeds
    );
    Ok(())
}

#[derive(Default)]
struct Best {
    raw: f64,
    sqlx: f64,
    wasm: f64,
    native: f64,
}

impl Best {
    fn keep(&mut self, raw: f64, sqlx: f64, wasm: f64, native: f64) {
        self.raw = self.raw.max(raw);
        self.sqlx = self.sqlx.max(sqlx);
        self.wasm = self.wasm.max(wasm);
        self.native = self.native.max(native);
    }
}
