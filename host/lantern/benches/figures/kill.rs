//! Kills the host with SIGKILL under load, repeatedly.

use std::time::Instant;

use crate::report;
use crate::torture::{self, Outcome};

pub fn host(rounds: usize) {
    let began = Instant::now();
    tell("host", rounds, began, &torture::kill_host(rounds));
}

pub fn rebuilding(rounds: usize) {
    let began = Instant::now();
    let (outcome, done) = torture::kill_rebuilding(rounds);
    tell("host in a rebuild", rounds, began, &outcome);
    println!("  {done} rebuilds have ended");
}

pub fn broker(rounds: usize) {
    let began = Instant::now();
    tell("broker", rounds, began, &torture::kill_broker(rounds));
}

fn tell(who: &str, rounds: usize, began: Instant, outcome: &Outcome) {
    report::line(
        &format!("kill -9 of the {who} under load, {rounds} rounds: lost, duplicated (`-- kill`)"),
        format!("{}, {}", outcome.lost, outcome.duplicated),
    );
    println!(
        "kill -9 of the {who}, {rounds} rounds in {:.0} s: {} published, {} lost, {} duplicated{}",
        began.elapsed().as_secs_f64(),
        outcome.published,
        outcome.lost,
        outcome.duplicated,
        if outcome.problems.is_empty() {
            String::new()
        } else {
            format!("; {}", outcome.problems)
        }
    );
}
