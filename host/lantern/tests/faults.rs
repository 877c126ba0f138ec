//! Runs a seeded nemesis against the real program and a real broker or cluster: it kills, freezes and restarts processes,
//! lets leaders step down, fills the disk, deletes, restores and changes databases and streams, swaps, rolls back and rebuilds plugins, and publishes
//! messages that no plugin can decode. At the end the test compares the database with a journal of the acknowledged
//! publishes.
//!
//! `cargo xtask faults --minutes N --seed S --setup SETUP` runs it longer; the seed (`LANTERN_SEED`) determines the schedule.

#![allow(clippy::too_many_lines, reason = "a scenario is one sequence of steps")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "clippy.toml allows them in tests, but clippy does not take a test's helpers for tests"
)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/evolving.rs"]
mod evolving;
#[path = "support/host.rs"]
mod host;
#[path = "support/nats.rs"]
mod nats;

#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/journal.rs"]
mod journal;
#[path = "faults/plan.rs"]
mod plan;
#[path = "faults/raw.rs"]
mod raw;
#[path = "faults/servers.rs"]
mod servers;
#[path = "faults/settle.rs"]
mod settle;
#[path = "faults/setup.rs"]
mod setup;
#[path = "faults/stream_actions.rs"]
mod stream_actions;
#[path = "faults/streams.rs"]
mod streams;
#[path = "faults/verdict.rs"]
mod verdict;
#[path = "faults/world.rs"]
mod world;

use std::time::{Duration, Instant};

use plan::{Action, Plan};
use setup::Setup;
use world::World;

/// Default duration of the nemesis in minutes: short enough for every test run.
const MINUTES_DEFAULT: f64 = 0.5;

/// Seed of `cargo xtask test`, the same in every run; `cargo xtask faults` chooses others.
const SEED_DEFAULT: u64 = 11;

/// Extra time for the host before this process exits; otherwise a host that never prints its first line would block it
/// forever.
const GRACE: Duration = Duration::from_secs(420);

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let parsed = text.parse().ok();
    assert!(parsed.is_some(), "{name}={text} is not a number");
    parsed
}

/// Runs the nemesis for as long as the environment says.
fn torment(setup: Setup) {
    let minutes = from_environment("LANTERN_FAULTS_MINUTES").unwrap_or(MINUTES_DEFAULT);
    let time = Duration::from_secs_f64(minutes * 60.0);
    let seed = from_environment("LANTERN_SEED").unwrap_or(SEED_DEFAULT);
    println!("LANTERN_SEED={seed} {setup:?}");
    // Builds plugins first, which may wait for another build.
    let mut world = World::new(setup, minutes);
    let began = Instant::now();
    std::thread::spawn(move || {
        std::thread::sleep(time + GRACE);
        eprintln!("stuck: no end {GRACE:?} after the time was over; LANTERN_SEED={seed} {setup:?}");
        std::process::exit(101);
    });
    let mut actions = 0;
    for action in Plan::new(seed, setup, world.can_fill_disk()) {
        if began.elapsed() >= time {
            break;
        }
        println!("{:7.1} s  {action:?}", began.elapsed().as_secs_f64());
        if action != Action::Settle {
            actions += 1;
        }
        world.act(&action);
    }
    let counts = world.finish();
    println!("seed {seed}, {setup:?}, {actions} actions: {counts}");
}

#[test]
fn no_message_is_lost_or_stored_twice_on_one_broker() {
    torment(Setup::Single);
}

#[test]
fn no_message_is_lost_or_stored_twice_on_streams_that_delete_acknowledged_messages() {
    torment(Setup::Retention);
}

#[test]
fn no_message_is_lost_or_stored_twice_on_a_cluster() {
    torment(Setup::Cluster);
}
