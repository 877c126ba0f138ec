//! `cargo xtask demo`: Lantern on real events of the machine it runs on.
//!
//! It builds the host, the plugins and the feeder, starts the host with a broker of its own and then the feeder,
//! shows every ten seconds how many rows there are, and stops both in the order of the data. The events are read
//! by the feeder (`xtask/feeder`), which this program only starts: it brings an async runtime, this one does not.

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

/// How often the counts are printed.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The feeder needs at most ten seconds to hand over what lies in its outbox, and says when it could not.
const FEEDER_STOPS_WITHIN: Duration = Duration::from_secs(15);

/// What a user may ask for.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Stop by itself after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Where the host listens; when the port is taken, any free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the database, the broker's files and the outbox are; from the root of the repository on
    #[arg(long, default_value = "target/demo")]
    data_dir: PathBuf,
    /// Build without optimization: ready sooner, runs slower
    #[arg(long)]
    dev: bool,
}

/// Why the demo ends.
#[derive(Debug)]
enum End {
    /// Ctrl-C, SIGTERM, or the time is over.
    Wanted,
    /// One of the two programs has ended by itself.
    Lost(&'static str),
}

/// Runs the demo until it is stopped. Fails when the host does not come up, when one of the programs ends by
/// itself, when one does not stop cleanly, and when a run with `--seconds` brought no row.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    // Before anything is started, so that a Ctrl-C never leaves a program behind.
    let (stop, stopped) = mpsc::sync_channel(1);
    // A second Ctrl-C finds the channel full, and stopping is under way already.
    ctrlc::set_handler(move || stop.try_send(()).unwrap_or_default()).context("cannot listen for Ctrl-C")?;

    let profile = if options.dev {
        Profile::Dev
    } else {
        Profile::Release
    };
    let tools = setup::run(workspace)?;
    web::build_where_possible(workspace)?;
    build(workspace, profile)?;
    if stopped.try_recv().is_ok() {
        return Ok(());
    }

    println!("==> demo");
    let data_dir = workspace.root.join(&options.data_dir);
    // The host refuses a directory that others can write to.
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private
        .create(&data_dir)
        .with_context(|| format!("cannot make {}", data_dir.display()))?;
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
    greet(workspace, &host, &data_dir, options);

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
        println!(
            "==> building the host (the first time, this takes some minutes: a WebAssembly compiler, SQLite)"
        );
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
        listen: free(options.listen)?,
    })
}

/// The wished address, or the same with any port when somebody listens there.
fn free(wished: SocketAddr) -> Result<SocketAddr> {
    match TcpListener::bind(wished) {
        Ok(_) => Ok(wished),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            println!("    {wished} is taken, using another port");
            Ok(SocketAddr::new(wished.ip(), 0))
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {wished}")),
    }
}

fn greet(workspace: &Workspace, host: &Host, data_dir: &Path, options: &Options) {
    println!();
    println!("    Lantern runs.");
    println!("      dashboard  {}", host.address());
    println!("      rows       {}/api/v1/projections", host.address());
    println!(
        "      database   {}",
        workspace.shown(&data_dir.join("lantern.db"))
    );
    println!(
        "      to change  sign in there with the token in {}",
        workspace.shown(&data_dir.join("operator.token"))
    );
    println!("      host's log {}", workspace.shown(host.log()));
    match options.seconds {
        Some(seconds) => println!("      it stops   by itself after {seconds} s, or with Ctrl-C"),
        None => println!("      stop it    with Ctrl-C; it first finishes what it has begun"),
    }
    println!();
}

/// Shows the counts until something ends the demo.
fn watch(host: &mut Host, feeder: &mut Feeder, stopped: &Receiver<()>, limit: Option<Duration>) -> End {
    let started = Instant::now();
    let mut next_report = started + REPORT_EVERY;
    loop {
        // Half a second is how late the end of a program is noticed; nothing else waits for it.
        match stopped.recv_timeout(Duration::from_millis(500)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return End::Wanted,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if host.has_ended() {
            return End::Lost("the host");
        }
        if feeder.has_ended() {
            return End::Lost("the feeder");
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            return End::Wanted;
        }
        if Instant::now() >= next_report {
            next_report += REPORT_EVERY;
            match status::counts(host.address()) {
                Ok(counts) => println!("    {counts}"),
                Err(error) => println!("    the host does not say its counts: {error:#}"),
            }
        }
    }
}

/// First the feeder, which still hands over its outbox, then the host, which finishes its batches.
fn stop_both(host: Host, feeder: Feeder, end: &End, rows_wanted: bool) -> Result<()> {
    println!("    stopping");
    let feeder = feeder.stop();
    // After the last event and before the host is gone.
    let counts = status::settled(host.address(), Duration::from_secs(10));
    let host = host.stop();
    match &counts {
        Ok(counts) => println!("    {counts}"),
        Err(error) => println!("    the host does not say its counts: {error:#}"),
    }
    if let End::Lost(who) = end {
        feeder.and(host)?;
        bail!("{who} has ended by itself");
    }
    feeder?;
    host?;
    if rows_wanted && counts?.rows() == 0 {
        bail!("no event became a row");
    }
    println!("    stopped; what came in is in the database");
    Ok(())
}

/// The program that reads this machine's events.
struct Feeder {
    child: Child,
}

impl Feeder {
    /// It connects to the broker whose address the host has written down.
    fn start(program: &Path, data_dir: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .arg("--nats-url-file")
            .arg(data_dir.join("broker/nats.url"));
        command.arg("--outbox").arg(data_dir.join("outbox"));
        // It stops when this end of the pipe closes: on purpose, or because this program is gone.
        command.arg("--until-stdin-closes").stdin(Stdio::piped());
        host::in_own_group(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child })
    }

    fn has_ended(&mut self) -> bool {
        host::has_ended(&mut self.child)
    }

    fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        host::wait(&mut self.child, "the feeder", FEEDER_STOPS_WITHIN)
    }
}

#[cfg(test)]
mod tests;
