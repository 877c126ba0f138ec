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
    reason = "a benchmark that cannot run should fail loudly; it shares its servers with the tests"
)]

mod amplification;
mod cpu;
mod dashboard;
mod events;
#[path = "../../tests/support/evolving.rs"]
mod evolving;
#[path = "../../tests/support/host.rs"]
mod host;
mod kill;
mod many_plugins;
mod native;
#[path = "../../tests/support/nats.rs"]
mod nats;
mod operator;
mod pipeline;
mod postgres;
mod process;
#[path = "../../tests/support/query.rs"]
mod query;
mod raw;
mod report;
mod seeds;
mod stranger;
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
    /// Messages per second for the figures of latency and of written bytes, which measure each rate.
    #[arg(long, default_values_t = [1_000, 10_000])]
    rate: Vec<u64>,
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
    /// Number of plugins of the host with many plugins.
    #[arg(long, default_value_t = 50)]
    plugins: usize,
    /// Number of clients that follow a table live.
    #[arg(long, default_value_t = 500)]
    followers: usize,
    /// Folder with the content of `windows-events.zip` as JSON lines; uses generated events if absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Markdown file whose table of figures gets the lines of this run.
    #[arg(long)]
    readme: Option<PathBuf>,
    /// `cargo bench` passes this flag.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Figure {
    /// Throughput from stream to table, compared with raw inserts, a native decoder and the loop of the predecessors.
    Throughput,
    /// Throughput and latency with the tables at a PostgreSQL server, compared with `COPY` and with inserts of JSON.
    Postgres,
    /// Time from publish to visible row.
    Latency,
    /// Bytes written to the disk for each stored byte.
    WriteAmplification,
    /// A host with many plugins: time from start to ready, CPU time and memory when idle.
    Plugins,
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
    /// A client without a token that tries to disturb ingestion, memory and liveness.
    Stranger,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let wanted = |figure| options.figures.is_empty() || options.figures.contains(&figure);
    if wanted(Figure::Throughput) {
        throughput(&options)?;
    }
    if wanted(Figure::Postgres) {
        postgres::measure(&options)?;
    }
    if wanted(Figure::Latency) {
        for rate in &options.rate {
            process::latency(*rate, options.seconds)?;
        }
    }
    if wanted(Figure::WriteAmplification) {
        for rate in &options.rate {
            amplification::measure(*rate, options.seconds)?;
        }
    }
    if wanted(Figure::Plugins) {
        many_plugins::measure(options.plugins)?;
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
    if wanted(Figure::Stranger) {
        stranger::stranger()?;
    }
    if wanted(Figure::Dashboard) {
        dashboard::questions(options.rows)?;
    }
    report::print()?;
    options.readme.as_deref().map_or(Ok(()), report::write)
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
    let count = events.messages.len();
    let (mut declared, mut raw, mut wasm, mut native) = Default::default();
    let mut sqlx = 0.0_f64;
    for round in 1..=options.rounds {
        // Interleave the variants, so that a slow phase of the machine affects all of them.
        let this = [
            best(&mut declared, raw::run_declared(&events)?),
            best(&mut raw, raw::run(&events)?),
            best(
                &mut wasm,
                pipeline::run(&server, count, pipeline::Decoder::Wasm, None)?,
            ),
            best(
                &mut native,
                pipeline::run(&server, count, pipeline::Decoder::Native, None)?,
            ),
        ];
        let through_sqlx = raw::run_sqlx(&events)?;
        sqlx = sqlx.max(through_sqlx);
        println!(
            "  round {round}: raw, declared schema {:.0}/s, raw {:.0}/s, sqlx {through_sqlx:.0}/s, lantern {:.0}/s, \
             decoder compiled in {:.0}/s",
            this[0], this[1], this[2], this[3]
        );
    }
    let seeds = seeds::run(&server, options.seed_events.min(events.messages.len()))?;
    println!("  raw: prepared statements on a raw connection");
    print_run("raw, only the declared schema", declared, declared);
    print_run("raw, the host's schema", raw, declared);
    print_run("lantern, stream to committed rows", wasm, declared);
    print_run("lantern, decoder compiled in", native, declared);
    print_pipeline("lantern", wasm);
    print_pipeline("decoder compiled in", native);
    println!(
        "  lantern against raw with the host's schema {:.2}; wasm against the decoder compiled in {:.2}",
        wasm.rate / raw.rate,
        wasm.rate / native.rate
    );
    println!(
        "  500-row statements through sqlx {sqlx:.0} rows/s, {:.2} of raw with the host's schema",
        sqlx / raw.rate
    );
    println!(
        "  the seeds' loop ({} events)           {seeds:>9.0} rows/s  lantern is {:.1} times as fast",
        options.seed_events,
        wasm.rate / seeds
    );
    report_throughput(declared, wasm, native, seeds);
    Ok(())
}

/// Prints how the CPU time per row is distributed, and how busy the cores were.
fn print_pipeline(name: &str, run: raw::Run) {
    let cpu = run.pipeline;
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    println!(
        "  {name}: us CPU/row {:.2} = writer {:.2} + checkpoints {:.2} + client and plugin {:.2} + broker {:.2}; \
         cores {:.0} % busy",
        cpu.total(),
        cpu.writer,
        cpu.checkpointer,
        cpu.others,
        cpu.broker,
        cpu.total() * run.rate / 1e6 / cores * 100.0
    );
}

fn report_throughput(declared: raw::Run, wasm: raw::Run, native: raw::Run, seeds: f64) {
    report::line(
        "stream to committed rows, against a program that writes only the declared columns and indexes through prepared \
         statements (`-- throughput`)",
        format!(
            "{} rows/s, {:.2} of {}",
            rounded(wasm.rate),
            wasm.rate / declared.rate,
            rounded(declared.rate)
        ),
    );
    report::line(
        "CPU time of the writer per row, and size of the database, against the same program",
        format!(
            "{:.2} µs, {:.2} of {:.2}; {:.0} bytes per row, {:.2} of {:.0}",
            wasm.cpu_per_row,
            wasm.cpu_per_row / declared.cpu_per_row,
            declared.cpu_per_row,
            wasm.bytes_per_row,
            wasm.bytes_per_row / declared.bytes_per_row,
            declared.bytes_per_row
        ),
    );
    report::line(
        "stream to committed rows, against the decoder compiled into the host",
        format!(
            "{:.2} of {} rows/s",
            wasm.rate / native.rate,
            rounded(native.rate)
        ),
    );
    report::line(
        "against a loop with one insert and one acknowledgement per message",
        format!("{:.1} times as fast", wasm.rate / seeds),
    );
}

/// A rate in thousands, with a separator: 107,000.
fn rounded(rate: f64) -> String {
    format!("{:.0},000", rate / 1e3)
}

/// Keeps the fastest run, and returns the rate of this one.
fn best(kept: &mut raw::Run, run: raw::Run) -> f64 {
    if run.rate > kept.rate {
        *kept = run;
    }
    run.rate
}

/// Prints a run, with each figure against `reference`.
fn print_run(name: &str, run: raw::Run, reference: raw::Run) {
    println!(
        "  {name:<34} {:>8.0} rows/s {:.2}; writer {:>5.2} us CPU/row {:.2}; {:>5.0} bytes/row {:.2}",
        run.rate,
        run.rate / reference.rate,
        run.cpu_per_row,
        run.cpu_per_row / reference.cpu_per_row,
        run.bytes_per_row,
        run.bytes_per_row / reference.bytes_per_row
    );
}
