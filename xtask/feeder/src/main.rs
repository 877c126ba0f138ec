//! Feeds the demo with real events of the machine it runs on.
//!
//! What must not be lost (boot, logins, packages, processes, executions, audit) goes through the outbox into
//! JetStream; samples and heartbeats, of which the next one is as good, go over core NATS. Events carry an id made
//! from what they are, so a second run brings no row twice. Nothing is made up, and what cannot be read here is
//! said once and left out. Command lines and environments are not read: secrets stand in them.

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
use message::Audit;

/// How often it is looked for new and ended processes. What lives shorter is not seen.
const PROCESSES_EVERY: Duration = Duration::from_millis(500);
const PERFORMANCE_EVERY: Duration = Duration::from_secs(1);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
const COMMANDS_EVERY: Duration = Duration::from_secs(30);
/// How long the outbox may take at the end to hand over what lies in it.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Feeds a Lantern host with real events of this machine
#[derive(Parser)]
struct Arguments {
    /// The broker
    #[arg(long, value_name = "URL", required_unless_present = "nats_url_file")]
    nats: Option<String>,
    /// A file with the broker's address, as the host writes it
    #[arg(long, value_name = "FILE", conflicts_with = "nats")]
    nats_url_file: Option<PathBuf>,
    /// Where events wait until the broker has them
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
    let machine = Machine::look();
    let delivery = Delivery::open(&url(&arguments)?, &arguments.outbox).await?;
    println!("    feeder: events of {} as {}", machine.hostname, machine.pc_id);
    delivery.put(&[Audit::of("demo.start", Some(&machine.pc_id)).message()?])?;

    let fed = tokio::select! {
        fed = feed(&machine, &delivery) => fed.map(|()| "the last source ended"),
        why = stopped(&arguments) => why,
    };
    delivery.put(&[Audit::of("demo.stop", Some(&machine.pc_id)).message()?])?;
    let drained = delivery.close(DRAIN_WITHIN).await;
    println!("    feeder: stops, because {}", fed?);
    let waiting = drained?;
    if waiting > 0 {
        println!("    feeder: {waiting} events wait in the outbox for the next run");
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
        (None, None) => anyhow::bail!("neither --nats nor --nats-url-file is given"),
    }
}

/// All sources at once. It ends only with an error: each source goes on for ever.
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
            Err(gap) => println!("    feeder: left out: {gap}"),
        }
        // Between two sources the others have their turn.
        tokio::task::yield_now().await;
    }
    std::future::pending().await
}

async fn feed_processes(machine: &Machine, delivery: &Delivery) -> Result<()> {
    let Some(mut processes) = said_once(processes::Processes::new(), "processes") else {
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
    let Some(mut performance) = said_once(performance::Performance::new(), "performance") else {
        return std::future::pending().await;
    };
    let mut ticks = every(PERFORMANCE_EVERY);
    // The rates of the first sample would be over no time at all.
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
        delivery.publish(machine.heartbeat().message(machine)?).await?;
    }
}

async fn feed_commands(machine: &Machine, delivery: &Delivery) -> Result<()> {
    let mut ticks = every(COMMANDS_EVERY);
    loop {
        ticks.tick().await;
        for command in commands::COMMANDS {
            let execution = command.begin(&machine.pc_id);
            let audit = Audit::of("command.run", Some(command.manifest_id));
            delivery.put(&[audit.message()?, execution.started().message(machine)?])?;
            let result = execution.run().await;
            delivery.put(&[result.message(machine)?])?;
        }
    }
}

/// A missed tick is not made up for: two samples at once would say nothing.
fn every(period: Duration) -> time::Interval {
    let mut ticks = time::interval(period);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    ticks
}

fn said_once<T>(source: Result<T>, name: &str) -> Option<T> {
    source
        .map_err(|error| println!("    feeder: left out: {name}: {error:#}"))
        .ok()
}

/// Waits for a reason to stop and says it.
async fn stopped(arguments: &Arguments) -> Result<&'static str> {
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = unix::signal(unix::SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "of Ctrl-C",
        _ = terminate.recv() => "it was told to",
        () = after(arguments.seconds) => "the time is over",
        () = end_of_stdin(arguments.until_stdin_closes) => "the demo ends",
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
    // A thread of its own: the runtime would wait at its end for a read that never returns.
    std::thread::spawn(move || {
        // An error of standard input ends it as well: there will be no other sign.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(ended);
    });
    // The sender is only ever dropped, which is the sign.
    let _ = end.await;
}
