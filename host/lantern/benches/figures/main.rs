//! The figures that Lantern promises, measured side by side in one run, with their ratios. `cargo xtask bench` runs
//! it; `cargo xtask bench -- --help` tells what can be chosen.
//!
//! Each part prints what it did and with how much; nothing is asserted, because a slow machine is not a defect.

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

/// What can be chosen.
#[derive(Parser)]
#[command(about = "Measures Lantern's figures side by side")]
struct Options {
    /// Which figures; all when none is named.
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// Events in the stream for the throughput figures.
    #[arg(long, default_value_t = 300_000)]
    events: usize,
    /// Events for the loop that acknowledges and commits each one, which is slow.
    #[arg(long, default_value_t = 20_000)]
    seed_events: usize,
    /// Rounds of each side; the best is taken, since the machine has other work.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages a second for the latency figure, and for how many seconds.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Seconds of the latency figure.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Rounds of killing the host; the broker is killed in a third as many.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Swaps under load.
    #[arg(long, default_value_t = 1_000)]
    swaps: usize,
    /// Rows that are rebuilt.
    #[arg(long, default_value_t = 1_000_000)]
    rebuilt: u64,
    /// Rows of the table that the dashboard's questions are asked of.
    #[arg(long, default_value_t = 10_000_000)]
    rows: i64,
    /// Those who follow a table live.
    #[arg(long, default_value_t = 500)]
    followers: usize,
    /// A folder with `windows-events.zip`'s content as JSON lines; generated events are used without it.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The figures.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Figure {
    /// Stream to table against raw inserts, a compiled-in decoder and the seeds' loop.
    Throughput,
    /// Publish to visible row.
    Latency,
    /// Start to ready, and resident memory idle and at full rate.
    Process,
    /// Kill -9 of host and broker under load.
    Kill,
    /// Swaps of a plugin's versions under load.
    Swaps,
    /// A rebuild beside the live path.
    Rebuild,
    /// Guests that misbehave beside one that works.
    Hostile,
    /// What the dashboard asks of a table of millions of rows; it takes minutes and gigabytes.
    Dashboard,
    /// Those who follow a table live, and what they cost the messages.
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
        // Interleaved, so that a slow minute of the machine hits all sides.
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
