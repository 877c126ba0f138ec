//! The host as a child: starting it, waiting until it is ready, stopping it.

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

/// Compiling five plugins on a slow machine, and a broker that recovers its streams.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The host promises five seconds; the rest is for a machine that is busy.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// With what the host is started.
#[derive(Debug)]
pub struct Start {
    /// `lantern` itself.
    pub program: PathBuf,
    /// The folder with the plugins.
    pub plugins: PathBuf,
    /// The broker that it starts.
    pub nats_server: PathBuf,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Where it listens; port 0 lets it choose.
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
    /// Starts it and waits until it has said its address. What it logs goes to `DATA_DIR/lantern.log`.
    ///
    /// Fails with the end of that log when it ends or is not ready within a minute.
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
                let end = match wait_after_term(&mut child) {
                    Ok(()) => String::from("the host ended cleanly"),
                    Err(end) => format!("{end:#}"),
                };
                bail!(
                    "the host did not come up: {error:#}; {end}. Its log ends with\n{}",
                    tail(&log)
                )
            }
        }
    }

    /// Where it is served, as `http://127.0.0.1:8080`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The file that it logs to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        has_ended(&mut self.child)
    }

    /// Asks it to drain and waits for it. Fails, with the end of its log, unless it exits with 0 in time.
    pub fn stop(mut self) -> Result<()> {
        wait_after_term(&mut self.child)
            .with_context(|| format!("the host's log ends with\n{}", tail(&self.log)))
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

/// Reads the host's standard output for a line with its address, and keeps on reading after it, so that the host
/// never waits for a reader.
fn wait_for_address(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.take().context("the host has no output")?;
    // One address is all that is ever sent.
    let (found, address) = mpsc::sync_channel(1);
    thread::spawn(move || read_output(stdout, |address| found.try_send(address).unwrap_or_default()));
    match address.recv_timeout(READY_WITHIN) {
        Ok(address) => Ok(address),
        Err(RecvTimeoutError::Disconnected) => bail!("it ended before it was ready"),
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

/// `http://HOST:PORT` of a line, without what follows it.
fn address_in(line: &str) -> Option<String> {
    let at = line.find("http://")?;
    let rest = &line[at + "http://".len()..];
    let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || ".:-[]".contains(letter)));
    let authority = rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ':', '-']);
    (!authority.is_empty()).then(|| format!("http://{authority}"))
}

/// Ctrl-C in a terminal reaches the whole group; these programs are stopped in order instead.
pub fn in_own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Whether a child has ended; one that cannot be asked counts as gone.
pub fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn wait_after_term(child: &mut Child) -> Result<()> {
    if child
        .try_wait()
        .context("cannot ask for the host's state")?
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

/// Waits for the end of a child that was told to stop, and kills it when it does not. Fails unless it exits with 0.
pub fn wait(child: &mut Child, name: &str, limit: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("cannot wait for {name}"))?
        {
            if !status.success() {
                bail!("{name} ended with {status}");
            }
            return Ok(());
        }
        if started.elapsed() >= limit {
            child.kill().with_context(|| format!("cannot kill {name}"))?;
            child.wait().with_context(|| format!("cannot wait for {name}"))?;
            bail!("{name} did not stop within {} s and was killed", limit.as_secs());
        }
        // The standard library has no wait with a limit.
        thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a file, for a person.
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
    fn a_host_is_started_and_drained() {
        let folder = tempfile::tempdir().unwrap();
        let text = "trap 'echo drained >&2; exit 0' TERM; echo $LANTERN__STREAMS__CREATE \"$@\" >&2\n\
                    echo ready at http://127.0.0.1:7/; while :; do sleep 0.02; done";
        let mut host = Host::start(&script(folder.path(), text), folder.path()).unwrap();
        assert_eq!(host.address(), "http://127.0.0.1:7");
        assert!(!host.has_ended());
        let log = host.log().to_owned();
        host.stop().unwrap();
        let log = fs::read_to_string(log).unwrap();
        assert!(log.starts_with("true serve --data-dir "), "{log}");
        assert!(log.ends_with("drained\n"), "{log}");
    }

    #[test]
    fn a_host_that_ends_early_is_told_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let error = Host::start(
            &script(folder.path(), "echo the port is in use >&2; exit 3"),
            folder.path(),
        );
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("the port is in use"), "{error}");
    }

    #[test]
    fn an_end_that_is_no_success_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = "trap 'exit 4' TERM; echo http://127.0.0.1:7; while :; do sleep 0.02; done";
        let host = Host::start(&script(folder.path(), text), folder.path()).unwrap();
        let error = format!("{:#}", host.stop().unwrap_err());
        assert!(error.contains("ended with"), "{error}");
    }
}
