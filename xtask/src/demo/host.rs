//! The host as a child process: start, wait until ready, stop.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Enough to compile five plugins on a slow machine, and for the broker to recover its streams.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The host needs at most five seconds; the rest is for a busy machine.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// Start parameters of the host.
#[derive(Debug)]
pub struct Start {
    /// The program `lantern`.
    pub program: PathBuf,
    /// The plugin directory.
    pub plugins: PathBuf,
    /// The broker program.
    pub nats_server: PathBuf,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The listen address; with port 0 the host chooses a port.
    pub listen: SocketAddr,
}

/// A host that is ready.
#[derive(Debug)]
pub struct Host {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Host {
    /// Starts the host and waits until it prints its address. Its log goes to `DATA_DIR/lantern.log`.
    ///
    /// Fails with the end of that log if the host exits or is not ready within a minute.
    pub fn start(start: &Start, data_dir: &Path) -> Result<Self> {
        let log = data_dir.join("lantern.log");
        let out = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = command(start);
        in_own_group(&mut command);
        let mut child = command
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", start.program.display()))?;
        match wait_for_address(&mut child) {
            Ok(address) => Ok(Self { child, address, log }),
            Err(error) => {
                let end = match terminate(&mut child) {
                    Ok(()) => String::from("the host exited cleanly"),
                    Err(end) => format!("{end:#}"),
                };
                bail!(
                    "the host did not start: {error:#}; {end}. The end of its log:\n{}",
                    tail(&log)
                )
            }
        }
    }

    /// Its address, such as `http://127.0.0.1:8080`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has exited.
    pub fn has_exited(&mut self) -> bool {
        has_exited(&mut self.child)
    }

    /// Terminates the host and waits. Fails, with the end of its log, unless it exits with 0 in time.
    pub fn stop(mut self) -> Result<()> {
        terminate(&mut self.child).with_context(|| format!("the end of the host's log:\n{}", tail(&self.log)))
    }
}

fn command(start: &Start) -> Command {
    let mut command = Command::new(&start.program);
    command.arg("serve").arg("--data-dir").arg(&start.data_dir);
    command
        .arg("--plugin-dir")
        .arg(&start.plugins)
        .arg("--listen")
        .arg(start.listen.to_string());
    command.env("LANTERN__BROKER__EMBEDDED__BINARY", &start.nats_server);
    command.env("LANTERN__STREAMS__CREATE", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Reads the host's standard output until a line has its address. A thread reads the rest, so that the host never blocks.
fn wait_for_address(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.take().context("the host has no output")?;
    // Only one address is sent.
    let (sender, address) = mpsc::sync_channel(1);
    thread::spawn(move || read_output(stdout, |address| sender.try_send(address).unwrap_or_default()));
    match address.recv_timeout(READY_WITHIN) {
        Ok(address) => Ok(address),
        Err(RecvTimeoutError::Disconnected) => bail!("it exited before it was ready"),
        Err(RecvTimeoutError::Timeout) => bail!("it was not ready within {} s", READY_WITHIN.as_secs()),
    }
}

fn read_output(stdout: impl Read, each: impl Fn(String)) {
    for line in BufReader::new(stdout).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line);
        println!("    host: {line}");
        if let Some(address) = address_in(&line) {
            each(address);
        }
    }
}

/// The `http://HOST:PORT` in a line, without a path.
fn address_in(line: &str) -> Option<String> {
    let at = line.find("http://")?;
    let rest = &line[at + "http://".len()..];
    let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || ".:-[]".contains(letter)));
    let authority = rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ':', '-']);
    (!authority.is_empty()).then(|| format!("http://{authority}"))
}

/// Ctrl-C in a terminal signals the whole process group; these programs are stopped in order instead.
pub fn in_own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Whether a child process has exited, or its state is unknown.
pub fn has_exited(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn terminate(child: &mut Child) -> Result<()> {
    if child
        .try_wait()
        .context("cannot read the host's state")?
        .is_none()
    {
        let id = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let id = id.context("the host has no process id")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM).context("cannot stop the host")?;
    }
    wait(child, "the host", STOPS_WITHIN)
}

/// Waits for a terminating child process, and kills it at the limit. Fails unless it exits with 0.
pub fn wait(child: &mut Child, name: &str, limit: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("cannot wait for {name}"))?
        {
            if !status.success() {
                bail!("{name} exited with {status}");
            }
            return Ok(());
        }
        if started.elapsed() >= limit {
            child.kill().with_context(|| format!("cannot kill {name}"))?;
            child.wait().with_context(|| format!("cannot wait for {name}"))?;
            bail!("{name} did not stop within {} s and was killed", limit.as_secs());
        }
        // The standard library has no wait with a time limit.
        thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a log file.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(15);
    lines[from..]
        .iter()
        .map(|line| format!("    | {line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_line() {
        #[track_caller]
        fn check(line: &str, expected: Option<&str>) {
            assert_eq!(address_in(line).as_deref(), expected);
        }
        check("ready: http://127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check(
            "ready, see http://127.0.0.1:8080/livez.",
            Some("http://127.0.0.1:8080"),
        );
        check("\"http://[::1]:9000\" is served", Some("http://[::1]:9000"));
        check("see http://127.0.0.1:80.", Some("http://127.0.0.1:80"));
        check("nothing here", None);
        check("http://", None);
    }

    fn script(folder: &Path, text: &str) -> Start {
        let program = folder.join("lantern");
        crate::process::write_script(&program, text);
        Start {
            program,
            plugins: folder.join("plugins"),
            nats_server: folder.join("nats-server"),
            data_dir: folder.to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
        }
    }

    #[test]
    fn a_host_is_started_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let text = "trap 'echo drained >&2; exit 0' TERM; echo $LANTERN__STREAMS__CREATE \"$@\" >&2\n\
                    echo ready at http://127.0.0.1:7/; while :; do sleep 0.02; done";
        let mut host = Host::start(&script(folder.path(), text), folder.path()).unwrap();
        assert_eq!(host.address(), "http://127.0.0.1:7");
        assert!(!host.has_exited());
        let log = host.log().to_owned();
        host.stop().unwrap();
        let log = fs::read_to_string(log).unwrap();
        assert!(log.starts_with("true serve --data-dir "), "{log}");
        assert!(log.ends_with("drained\n"), "{log}");
    }

    #[test]
    fn a_failed_start_is_reported_with_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let error = Host::start(
            &script(folder.path(), "echo the port is in use >&2; exit 3"),
            folder.path(),
        );
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("the port is in use"), "{error}");
    }

    #[test]
    fn a_failing_exit_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = "trap 'exit 4' TERM; echo http://127.0.0.1:7; while :; do sleep 0.02; done";
        let host = Host::start(&script(folder.path(), text), folder.path()).unwrap();
        let error = format!("{:#}", host.stop().unwrap_err());
        assert!(error.contains("exited with"), "{error}");
    }
}
