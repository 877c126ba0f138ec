//! Feeds the demo with real events of this machine.
//!
//! Events that must not be lost (boot, logins, packages, processes, executions, audit) go through the outbox into JetStream.
//! Samples and heartbeats, which are superseded by the next one, go over core NATS. Event ids are derived from their content,
//! so a second run creates no duplicate rows. Unavailable sources are reported once and skipped. Command lines and
//! environments are not read, because they may contain secrets.

mod commands;
mod delivery;
mod history;
mod machine;
mod message;
mod performance;
mod processes;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::{signal::unix, sync::oneshot, time};

use delivery::Delivery;
use machine::Machine;
use message::{Audit, Heartbeat};

/// Poll interval for started and ended processes. Shorter-lived processes are missed.
const PROCESSES_EVERY: Duration = Duration::from_millis(500);
const PERFORMANCE_EVERY: Duration = Duration::from_secs(1);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
const COMMANDS_EVERY: Duration = Duration::from_secs(30);
/// Time limit for draining the outbox at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Feeds a Lantern host with real events of this machine
#[derive(Parser)]
struct Arguments {
    /// Address of the broker
    #[arg(long, value_name = "URL", required_unless_present = "nats_url_file")]
    nats: Option<String>,
    /// File with the address of the broker, written by the host
    #[arg(long, value_name = "FILE", conflicts_with = "nats")]
    nats_url_file: Option<PathBuf>,
    /// Directory of the outbox
    #[arg(long, value_name = "DIR")]
    outbox: PathBuf,
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop when standard input ends
    #[arg(long)]
    until_stdin_closes: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: feeder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let machine = Machine::current();
    let delivery = Delivery::open(&url(&arguments)?, &arguments.outbox).await?;
    println!(
        "    feeder: sending events of {} as {}",
        machine.hostname, machine.pc_id
    );
    delivery.put(&[Audit::of("demo.start", Some(&machine.pc_id)).message()?])?;

    let fed = tokio::select! {
        fed = feed(&machine, &delivery) => fed.map(|()| "all sources ended"),
        reason = stop_reason(&arguments) => reason,
    };
    delivery.put(&[Audit::of("demo.stop", Some(&machine.pc_id)).message()?])?;
    let drained = delivery.close(DRAIN_WITHIN).await;
    println!("    feeder: stopping: {}", fed?);
    let waiting = drained?;
    if waiting > 0 {
        println!("    feeder: {waiting} events remain in the outbox for the next run");
    }
    Ok(())
}

fn url(arguments: &Arguments) -> Result<String> {
    match (&arguments.nats, &arguments.nats_url_file) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the broker's address from {}", file.display()))?;
            Ok(text.trim().to_owned())
        }
        (None, None) => anyhow::bail!("--nats or --nats-url-file is required"),
    }
}

/// Runs all sources concurrently. It returns only on an error, because no source ends.
async fn feed(machine: &Machine, delivery: &Delivery) -> Result<()> {
    tokio::try_join!(
        feed_history(machine, delivery),
        feed_processes(machine, delivery),
        feed_performance(machine, delivery),
        feed_heartbeats(machine, delivery),
        feed_commands(machine, delivery),
    )?;
    Ok(())
}

async fn feed_history(machine: &Machine, delivery: &Delivery) -> Result<()> {
    for event in history::read() {
        match event {
            Ok(events) => {
                let messages: Vec<_> = events
                    .iter()
                    .map(|event| event.message(machine))
                    .collect::<Result<_>>()?;
                delivery.put(&messages)?;
            }
            Err(unavailable) => println!("    feeder: skipped: {unavailable}"),
        }
        // Lets the other sources run.
        tokio::task::yield_now().await;
    }
    std::future::pending().await
}

async fn feed_processes(machine: &Machine, delivery: &Delivery) -> Result<()> {
    let Some(mut processes) = report_unavailable(processes::Processes::new(), "processes") else {
        return std::future::pending().await;
    };
    let mut ticks = every(PROCESSES_EVERY);
    loop {
        ticks.tick().await;
        let events = tokio::task::block_in_place(|| processes.changes());
        let messages: Vec<_> = events
            .iter()
            .map(|event| event.message(machine))
            .collect::<Result<_>>()?;
        delivery.put(&messages)?;
    }
}

async fn feed_performance(machine: &Machine, delivery: &Delivery) -> Result<()> {
    let Some(mut performance) = report_unavailable(performance::Performance::new(), "performance") else {
        return std::future::pending().await;
    };
    let mut ticks = every(PERFORMANCE_EVERY);
    // Skips the first sample, whose rates would have no time span.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let sample = tokio::task::block_in_place(|| performance.sample(&machine.pc_id));
        delivery.publish(sample.message(machine)?).await?;
    }
}

async fn feed_heartbeats(machine: &Machine, delivery: &Delivery) -> Result<()> {
    let mut ticks = every(HEARTBEAT_EVERY);
    loop {
        ticks.tick().await;
        delivery.publish(Heartbeat::of(machine).message(machine)?).await?;
    }
}

async fn feed_commands(machine: &Machine, delivery: &Delivery) -> Result<()> {
    let mut ticks = every(COMMANDS_EVERY);
    loop {
        ticks.tick().await;
        for command in commands::COMMANDS {
            let execution = command.prepare(&machine.pc_id);
            let audit = Audit::of("command.run", Some(command.manifest_id));
            delivery.put(&[audit.message()?, execution.started().message(machine)?])?;
            let result = execution.run().await;
            delivery.put(&[result.message(machine)?])?;
        }
    }
}

/// An interval that skips missed ticks, because two samples at once are useless.
fn every(period: Duration) -> time::Interval {
    let mut ticks = time::interval(period);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    ticks
}

fn report_unavailable<T>(source: Result<T>, name: &str) -> Option<T> {
    source
        .map_err(|error| println!("    feeder: skipped: {name}: {error:#}"))
        .ok()
}

/// Waits for a reason to stop.
async fn stop_reason(arguments: &Arguments) -> Result<&'static str> {
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = unix::signal(unix::SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        () = after(arguments.seconds) => "time limit",
        () = end_of_stdin(arguments.until_stdin_closes) => "end of the demo",
    })
}

async fn after(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

async fn end_of_stdin(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (ended, end) = oneshot::channel::<()>();
    // A separate thread, because the runtime would wait on shutdown for a read that never returns.
    std::thread::spawn(move || {
        // An error of standard input also means that the demo has ended.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(ended);
    });
    // The sender sends nothing; dropping it is the signal.
    let _ = end.await;
}
