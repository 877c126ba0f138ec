//! `cargo xtask test`: setup, then all checks and tests of this repository in stages.
//!
//! It requires a Rust toolchain and fetches other tools. The last line is always `N passed, N failed`, summed over all test
//! programs.
//!
//! The tests inherit environment variables: `LANTERN_REBUILD_SEED` and `LANTERN_REBUILD_ROUNDS` configure the property test
//! of rebuilds.

mod clock;
mod deny;
mod tally;

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    bench::with_environment,
    fuzz, languages, plugins, postgres, process,
    setup::{self, Tools},
    tidy, web,
    workspace::{Profile, Workspace},
};
use tally::Tally;

/// Options of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Continue after a failed stage
    #[arg(short, long)]
    keep_going: bool,
    /// Run only this stage after setup; can be repeated
    #[arg(long, value_name = "STAGE", value_parser = STAGES.map(|(name, _)| name))]
    only: Vec<String>,
}

type Run = fn(&mut Session) -> Result<Verdict>;

/// The stages, cheapest first, so that mistakes are found early.
const STAGES: [(&str, Run); 16] = [
    ("fmt", fmt),
    ("tidy", |session| {
        tidy::check(&session.workspace.root).map(|()| Verdict::Done)
    }),
    // Before all stages that build the host, because it embeds the page.
    ("web", |session| {
        let mut stage_tally = Tally::default();
        let outcome = web::check(&session.workspace, |line| stage_tally.print(line));
        session.tally.add(stage_tally);
        outcome?;
        require_tests(stage_tally.passed)
    }),
    ("clippy", clippy),
    ("deny", |session| deny::check(&session.workspace)),
    ("advisories", |session| deny::advisories(&session.workspace)),
    ("plugins", |session| {
        plugins::build(&session.workspace, Profile::Dev).map(|()| Verdict::Done)
    }),
    ("unit", |session| {
        require_tests(session.cargo_test("--lib --bins")?)
    }),
    ("postgres", |session| {
        let programs = match postgres::programs() {
            Ok(programs) => programs,
            Err(reason) => return Ok(Verdict::Skipped(reason)),
        };
        let server = match postgres::Server::start(&programs) {
            Ok(server) => server,
            Err(error) => {
                return Ok(Verdict::Skipped(format!(
                    "the server cannot be started: {error:#}"
                )));
            }
        };
        session
            .variables
            .push(("LANTERN_TEST_POSTGRES", server.address().into()));
        let variables = session.variables.len();
        let passed = server_tests(session);
        // The server ends with this stage.
        session.variables.truncate(variables - 1);
        require_tests(passed?)
    }),
    ("integration", |session| {
        let (name, path) = setup::older_server(&session.workspace)?;
        session.variables.push((name, path.into()));
        let passed = require_tests(session.cargo_test("--test *")?)?;
        full_disk(session, passed)
    }),
    // The optional feature selects other features of shared dependencies, so it has its own build. All other stages test the
    // host as it is released.
    ("oci", |session| {
        let mut command = process::cargo(&session.workspace.root);
        command.args([
            "test",
            "--locked",
            "--no-fail-fast",
            "--package",
            "lantern",
            "--lib",
            "--bins",
            "--features",
            "oci",
        ]);
        require_tests(session.run_tests(command)?)
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
        let mut stage_tally = Tally::default();
        let outcome = web::browser_tests(&session.workspace, &session.tools, |line| stage_tally.print(line));
        session.tally.add(stage_tally);
        outcome?;
        require_tests(stage_tally.passed)
    }),
];

/// The result of a stage that did not fail.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    /// The stage cannot run on this machine, with the reason. The summary repeats it.
    Skipped(String),
}

struct Session {
    workspace: Workspace,
    tools: Tools,
    /// Environment variables for the tests, such as the path of an older broker.
    variables: Vec<(&'static str, OsString)>,
    tally: Tally,
}

/// Runs the stages and prints the summary. It also prints the failure, because the tally must be the last line.
pub fn run(workspace: Workspace, options: &Options) -> ExitCode {
    let started = Instant::now();
    let mut tally = Tally::default();
    let outcome = stages(workspace, options, &mut tally);
    println!("\nall stages: {}", format_duration(started.elapsed()));
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
        variables: Vec::new(),
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
        let took = format_duration(started.elapsed());
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

fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} m {:02} s", seconds / 60, seconds % 60)
    }
}

/// Runs the test of a full disk, if this process can mount a file system.
fn full_disk(session: &mut Session, passed: Verdict) -> Result<Verdict> {
    let folder = session.workspace.cargo_target.join("tmp/small-disk");
    std::fs::create_dir_all(&folder)?;
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let mut mount = Command::new("mount");
    if !succeeds(mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&folder)) {
        return Ok(Verdict::Skipped(
            "all tests ran except that of a full disk, which requires root to mount one".to_owned(),
        ));
    }
    if !succeeds(Command::new("umount").arg(&folder)) {
        bail!("cannot unmount {}", folder.display());
    }
    require_tests(session.cargo_test("--test host -- --ignored --exact faults::a_full_disk_stops_acknowledgements_until_space_is_available")?)?;
    Ok(passed)
}

/// Fails if no test ran: a filter that matches nothing must not look like a success.
fn require_tests(passed: u64) -> Result<Verdict> {
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(Verdict::Done)
}

/// Documentation examples are optional.
fn no_examples() -> Verdict {
    Verdict::Skipped("the documentation has no runnable example".to_owned())
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
    /// Runs `cargo test --workspace` for `targets` (separated by spaces) and adds the result to the tally. Returns the number
    /// of passed tests.
    fn cargo_test(&mut self, targets: &str) -> Result<u64> {
        let mut command = self.test_command();
        command.args(targets.split(' '));
        self.run_tests(command)
    }

    /// Runs a `cargo test` command and adds the result to the tally. Returns the number of passed tests.
    fn run_tests(&mut self, mut command: Command) -> Result<u64> {
        let mut stage_tally = Tally::default();
        let outcome = process::run_lines(&mut command, |line| stage_tally.print(line));
        self.tally.add(stage_tally);
        outcome?;
        Ok(stage_tally.passed)
    }

    fn test_command(&self) -> Command {
        let mut command = process::cargo(&self.workspace.root);
        command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
        with_environment(&mut command, &self.workspace, &self.tools);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Tests of the store that also run with the tables of their scenes at the server.
const SERVER_SCENES: &str =
    "tests::effects tests::sources tests::checks rebuild::tests rewrite::tests forget::tests";
/// Those of them that need a file.
const FILE_SCENES: [&str; 5] = [
    "a_damaged_database_is_rejected_at_start",
    "check_rejects_a_database_of_another_version_and_names_it",
    "a_rejected_row_does_not_affect_other_batches_of_its_transaction",
    "a_comparison_ends_when_the_writer_reopens_the_database",
    "an_erased_value_is_rejected_in_older_messages_and_accepted_in_newer_ones",
];

/// Runs the tests that need a server.
fn server_tests(session: &mut Session) -> Result<u64> {
    let mut passed =
        session.cargo_test("--lib -- tests::engine tests::portions tests::questions tests::tls")?;
    passed += session.cargo_test("--test host -- engines::")?;
    session.variables.push(("LANTERN_TEST_SCENES", "postgres".into()));
    let skipped: String = FILE_SCENES.iter().map(|name| format!(" --skip {name}")).collect();
    passed += session.cargo_test(&format!("--lib -- {SERVER_SCENES}{skipped}"))?;
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_runs_no_test_fails() {
        assert!(require_tests(0).is_err());
        assert_eq!(require_tests(1).unwrap(), Verdict::Done);
    }

    #[test]
    fn durations_are_formatted() {
        assert_eq!(format_duration(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(format_duration(Duration::from_secs(61)), "1 m 01 s");
        assert_eq!(format_duration(Duration::from_secs(3_661)), "61 m 01 s");
    }
}
