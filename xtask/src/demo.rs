//! `cargo xtask demo`: runs Lantern on real events of this machine.
//!
//! It builds the host, the plugins and the feeder, starts the host with an embedded broker and then the feeder, prints the
//! row counts every ten seconds, and stops first the feeder and then the host. The feeder (`xtask/feeder`) is a separate
//! program, because it needs an async runtime.

mod host;
mod status;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    plugins, process,
    setup::{self, Tools},
    web,
    workspace::{Profile, Workspace},
};
use host::Host;

/// Interval of the printed counts.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The feeder needs at most ten seconds to drain its outbox, and reports if it could not.
const FEEDER_STOPS_WITHIN: Duration = Duration::from_secs(15);

/// Options of `cargo xtask demo`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Listen address of the host; if the port is in use, a free port
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Directory of the database, the broker's files and the outbox, relative to the repository
    #[arg(long, default_value = "target/demo")]
    data_dir: PathBuf,
    /// Build without optimization: faster build, slower program
    #[arg(long)]
    dev: bool,
}

/// Why the demo ended.
#[derive(Debug)]
enum End {
    /// Ctrl-C, SIGTERM, or the time limit.
    Requested,
    /// One of the two programs exited unexpectedly.
    Exited(&'static str),
}

/// Runs the demo until it is stopped. Fails if the host does not start, if a program exits unexpectedly or does not stop
/// cleanly, and if a run with `--seconds` produced no row.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    // Before the programs start, so that Ctrl-C never leaves one running.
    let (stop, stopped) = mpsc::sync_channel(1);
    // On a second Ctrl-C the channel is full; the demo is already stopping.
    ctrlc::set_handler(move || stop.try_send(()).unwrap_or_default()).context("cannot listen for Ctrl-C")?;

    let profile = if options.dev {
        Profile::Dev
    } else {
        Profile::Release
    };
    let tools = setup::run(workspace)?;
    web::build_if_possible(workspace)?;
    build(workspace, profile)?;
    if stopped.try_recv().is_ok() {
        return Ok(());
    }

    println!("==> demo");
    let data_dir = workspace.root.join(&options.data_dir);
    // The host rejects a directory that other users can write to.
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private
        .create(&data_dir)
        .with_context(|| format!("cannot create {}", data_dir.display()))?;
    let mut host = Host::start(
        &host_command(workspace, profile, &tools, &data_dir, options)?,
        &data_dir,
    )?;
    let mut feeder = match Feeder::start(&workspace.program(profile, "lantern-demo-feeder"), &data_dir) {
        Ok(feeder) => feeder,
        Err(error) => {
            host.stop()?;
            return Err(error);
        }
    };
    print_addresses(workspace, &host, &data_dir, options);

    let end = watch(
        &mut host,
        &mut feeder,
        &stopped,
        options.seconds.map(Duration::from_secs),
    );
    stop_both(host, feeder, &end, options.seconds.is_some())
}

fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    if profile == Profile::Release && !workspace.program(profile, "lantern").is_file() {
        println!("==> building the host (the first build takes some minutes)");
    } else {
        println!("==> building the host");
    }
    plugins::build(workspace, profile)?;
    let mut command = process::cargo(&workspace.root);
    command
        .args(["build", "--locked", "--workspace", "--bin", "lantern-demo-feeder"])
        .args(profile.flag());
    process::run(&mut command)
}

fn host_command(
    workspace: &Workspace,
    profile: Profile,
    tools: &Tools,
    data_dir: &Path,
    options: &Options,
) -> Result<host::Start> {
    Ok(host::Start {
        program: workspace.program(profile, "lantern"),
        plugins: workspace.plugins(),
        nats_server: tools.nats_server.clone(),
        data_dir: data_dir.to_owned(),
        listen: free_address(options.listen)?,
    })
}

/// The requested address, or the same with port 0 if the port is in use.
fn free_address(requested: SocketAddr) -> Result<SocketAddr> {
    match TcpListener::bind(requested) {
        Ok(_) => Ok(requested),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            println!("    {requested} is in use, choosing another port");
            Ok(SocketAddr::new(requested.ip(), 0))
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {requested}")),
    }
}

fn print_addresses(workspace: &Workspace, host: &Host, data_dir: &Path, options: &Options) {
    println!();
    println!("    Lantern is running.");
    println!("      dashboard  {}", host.address());
    println!("      rows       {}/api/v1/projections", host.address());
    println!(
        "      database   {}",
        workspace.display(&data_dir.join("lantern.db"))
    );
    println!(
        "      operator   sign in with the token in {}",
        workspace.display(&data_dir.join("operator.token"))
    );
    println!("      log        {}", workspace.display(host.log()));
    match options.seconds {
        Some(seconds) => println!("      stops      after {seconds} s, or on Ctrl-C"),
        None => println!("      stop       with Ctrl-C"),
    }
    println!();
}

/// Prints the counts until the demo ends.
fn watch(host: &mut Host, feeder: &mut Feeder, stopped: &Receiver<()>, limit: Option<Duration>) -> End {
    let started = Instant::now();
    let mut next_report = started + REPORT_EVERY;
    loop {
        // Half a second is the delay of noticing that a program exited; nothing else waits for it.
        match stopped.recv_timeout(Duration::from_millis(500)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return End::Requested,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if host.has_exited() {
            return End::Exited("the host");
        }
        if feeder.has_exited() {
            return End::Exited("the feeder");
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            return End::Requested;
        }
        if Instant::now() >= next_report {
            next_report += REPORT_EVERY;
            match status::counts(host.address()) {
                Ok(counts) => println!("    {counts}"),
                Err(error) => println!("    cannot read the counts: {error:#}"),
            }
        }
    }
}

/// Stops the feeder, which drains its outbox, and then the host, which finishes its batches.
fn stop_both(host: Host, feeder: Feeder, end: &End, rows_required: bool) -> Result<()> {
    println!("    stopping");
    let feeder = feeder.stop();
    // After the last event, and before the host stops.
    let counts = status::settled(host.address(), Duration::from_secs(10));
    let host = host.stop();
    match &counts {
        Ok(counts) => println!("    {counts}"),
        Err(error) => println!("    cannot read the counts: {error:#}"),
    }
    if let End::Exited(who) = end {
        feeder.and(host)?;
        bail!("{who} exited unexpectedly");
    }
    feeder?;
    host?;
    if rows_required && counts?.rows() == 0 {
        bail!("no event became a row");
    }
    println!("    stopped; the database has all received events");
    Ok(())
}

/// The program that reads the events of this machine.
struct Feeder {
    child: Child,
}

impl Feeder {
    /// Starts the feeder, which reads the broker's address from a file of the host.
    fn start(program: &Path, data_dir: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .arg("--nats-url-file")
            .arg(data_dir.join("broker/nats.url"));
        command.arg("--outbox").arg(data_dir.join("outbox"));
        // It stops when this end of the pipe closes, even if this program is killed.
        command.arg("--until-stdin-closes").stdin(Stdio::piped());
        host::in_own_group(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child })
    }

    fn has_exited(&mut self) -> bool {
        host::has_exited(&mut self.child)
    }

    fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        host::wait(&mut self.child, "the feeder", FEEDER_STOPS_WITHIN)
    }
}

#[cfg(test)]
mod tests;
