//! `cargo xtask test`: set-up, then everything that is checked about this repository, stage by stage.
//!
//! It needs only what a Rust toolchain brings; the rest it fetches. The last line is always
//! `N passed, N failed`, summed over all test programs.
//!
//! Environment variables reach the tests: `LANTERN_REBUILD_SEED` and `LANTERN_REBUILD_ROUNDS` choose other and longer runs of
//! the property test of rebuilds.

mod clock;
mod deny;
mod tally;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    bench::with_environment,
    fuzz, languages, plugins, process,
    setup::{self, Tools},
    tidy, web,
    workspace::{Profile, Workspace},
};
use tally::Tally;

/// What a developer may ask for.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Go on after a stage that failed
    #[arg(short, long)]
    keep_going: bool,
    /// Run only this stage (and set-up); may be given more than once
    #[arg(long, value_name = "STAGE", value_parser = STAGES.map(|(name, _)| name))]
    only: Vec<String>,
}

type Run = fn(&mut Session) -> Result<Verdict>;

/// The stages in the order of what they cost, so that a slip is found early.
const STAGES: [(&str, Run); 14] = [
    ("fmt", fmt),
    ("tidy", |session| {
        tidy::check(&session.workspace.root).map(|()| Verdict::Done)
    }),
    // Before everything that builds the host, which embeds the page.
    ("web", |session| {
        let mut here = Tally::default();
        let outcome = web::check(&session.workspace, |line| here.print(line));
        session.tally.add(here);
        outcome?;
        some(here.passed)
    }),
    ("clippy", clippy),
    ("deny", |session| deny::check(&session.workspace)),
    ("advisories", |session| deny::advisories(&session.workspace)),
    ("plugins", |session| {
        plugins::build(&session.workspace, Profile::Dev).map(|()| Verdict::Done)
    }),
    // With the host's feature, as clippy; the integration stage has the host as it is built without it.
    ("unit", |session| {
        some(session.cargo_test("--lib --bins --features lantern/oci")?)
    }),
    ("integration", |session| {
        session.older_server = Some(setup::older_server(&session.workspace)?);
        let passed = some(session.cargo_test("--test *")?)?;
        full_disk(session, passed)
    }),
    ("clock", clock::check),
    ("doc", |session| {
        Ok(if session.cargo_test("--doc")? > 0 {
            Verdict::Done
        } else {
            no_examples()
        })
    }),
    ("fuzz", |session| {
        let skipped = fuzz::check(&session.workspace)?;
        Ok(skipped.map_or(Verdict::Done, Verdict::Skipped))
    }),
    ("languages", |session| {
        languages::check(&session.workspace).map(|()| Verdict::Done)
    }),
    ("browser", |session| {
        let mut here = Tally::default();
        let outcome = web::drive(&session.workspace, &session.tools, |line| here.print(line));
        session.tally.add(here);
        outcome?;
        some(here.passed)
    }),
];

/// How a stage that did not fail ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    /// It could not be asked here, and why. It is shown again in the summary.
    Skipped(String),
}

struct Session {
    workspace: Workspace,
    tools: Tools,
    /// The variable that names the older broker, and the broker.
    older_server: Option<(&'static str, PathBuf)>,
    tally: Tally,
}

/// Runs the stages and prints the summary. It prints its failure itself, because the closing line comes last.
pub fn run(workspace: Workspace, options: &Options) -> ExitCode {
    let started = Instant::now();
    let mut tally = Tally::default();
    let outcome = stages(workspace, options, &mut tally);
    println!("\nall stages: {}", shown(started.elapsed()));
    if let Err(error) = &outcome {
        println!("FAILED: {error:#}");
    }
    println!("{tally}");
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn stages(workspace: Workspace, options: &Options, tally: &mut Tally) -> Result<()> {
    let tools = setup::run(&workspace)?;
    let mut session = Session {
        workspace,
        tools,
        older_server: None,
        tally: Tally::default(),
    };
    let mut summary = Vec::new();
    let mut failed = Vec::new();
    for (name, run) in STAGES {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        println!("\n==> stage {name}");
        let started = Instant::now();
        let outcome = run(&mut session);
        let took = shown(started.elapsed());
        let line = match outcome {
            Ok(Verdict::Done) => format!("ok       {took:>8}  {name}"),
            Ok(Verdict::Skipped(reason)) => format!("SKIPPED  {took:>8}  {name}: {reason}"),
            Err(error) => {
                failed.push(name);
                format!("FAILED   {took:>8}  {name}: {error:#}")
            }
        };
        println!("<== {line}");
        summary.push(line);
        if !failed.is_empty() && !options.keep_going {
            break;
        }
    }
    *tally = session.tally;
    println!("\nsummary");
    for line in summary {
        println!("  {line}");
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => bail!("stage {}", names.join(", ")),
    }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} m {:02} s", seconds / 60, seconds % 60)
    }
}

/// Runs the test of a full disk, which has to mount one, where this process may mount.
fn full_disk(session: &mut Session, passed: Verdict) -> Result<Verdict> {
    let folder = session.workspace.cargo_target.join("tmp/small-disk");
    std::fs::create_dir_all(&folder)?;
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let mut mount = Command::new("mount");
    if !succeeds(mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&folder)) {
        return Ok(Verdict::Skipped(
            "all ran but the test of a full disk, which needs root to mount one".to_owned(),
        ));
    }
    if !succeeds(Command::new("umount").arg(&folder)) {
        bail!("cannot unmount {}", folder.display());
    }
    some(session.cargo_test("--test host -- --ignored --exact faults::a_full_disk_stops_the_acks_and_is_survived_without_a_restart")?)?;
    Ok(passed)
}

/// A pattern that matches nothing must not look like a success.
fn some(passed: u64) -> Result<Verdict> {
    if passed == 0 {
        bail!("no test was run");
    }
    Ok(Verdict::Done)
}

/// Documentation need not have examples that are programs.
fn no_examples() -> Verdict {
    Verdict::Skipped("the documentation has no example that can be run".to_owned())
}

fn fmt(session: &mut Session) -> Result<Verdict> {
    process::run(process::cargo(&session.workspace.root).args(["fmt", "--all", "--check"]))?;
    Ok(Verdict::Done)
}

fn clippy(session: &mut Session) -> Result<Verdict> {
    let mut command = process::cargo(&session.workspace.root);
    command.args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--features",
        "lantern/oci",
        "--",
        "-D",
        "warnings",
    ]);
    process::run(&mut command)?;
    Ok(Verdict::Done)
}

impl Session {
    /// Runs `cargo test --workspace` for `targets` (words, parted by spaces) and adds what it says to the tally.
    /// Answers how many tests passed; fails when one did not.
    fn cargo_test(&mut self, targets: &str) -> Result<u64> {
        let mut command = self.test_command();
        command.args(targets.split(' '));
        self.run_tests(command)
    }

    /// Runs a `cargo test` command to its end and adds its results to the tally. Returns how many tests passed.
    fn run_tests(&mut self, mut command: Command) -> Result<u64> {
        let mut here = Tally::default();
        let outcome = process::run_lines(&mut command, |line| here.print(line));
        self.tally.add(here);
        outcome?;
        Ok(here.passed)
    }

    fn test_command(&self) -> Command {
        let mut command = process::cargo(&self.workspace.root);
        command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
        with_environment(&mut command, &self.workspace, &self.tools);
        command.envs(self.older_server.clone());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_runs_no_test_fails() {
        assert!(some(0).is_err());
        assert_eq!(some(1).unwrap(), Verdict::Done);
    }

    #[test]
    fn times_are_shown_for_people() {
        assert_eq!(shown(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(shown(Duration::from_secs(61)), "1 m 01 s");
        assert_eq!(shown(Duration::from_secs(3_661)), "61 m 01 s");
    }
}
