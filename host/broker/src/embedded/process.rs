//! The server's process: it dies with the host however the host ends, and a later host finds it where that failed.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use lantern_model::batch::clean_text;

pub(super) const CONFIG_FILE: &str = "nats.conf";
pub(super) const LOG_FILE: &str = "nats.log";
pub(super) const PID_FILE: &str = "pid";

/// A running server. Dropping it kills the server.
pub(super) struct Child {
    pid: Pid,
    ended: watch::Receiver<Option<String>>,
}

/// Starts `binary` with the configuration in `dir`.
///
/// The kernel's parent-death signal refers to the parent *thread*, and the runtime's threads come and go. So a
/// dedicated thread starts the server and waits for its end.
pub(super) fn spawn(binary: &Path, dir: &Path) -> io::Result<Child> {
    let mut command = Command::new(binary);
    command
        .arg("-c")
        .arg(dir.join(CONFIG_FILE))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C in the terminal must reach only the host, which stops the server after everything is stored.
        .process_group(0);
    die_with_parent(&mut command);
    let (ended_sender, ended) = watch::channel(None);
    let (pid_sender, pid_receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("nats-server".to_owned())
        .spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    // The receiver waits below, so it exists.
                    let _ = pid_sender.send(Err(error));
                    return;
                }
            };
            let _ = pid_sender.send(Ok(child.id()));
            let status = child.wait().map_or_else(|error| error.to_string(), describe);
            ended_sender.send_replace(Some(status));
        })?;
    let id = pid_receiver.recv().map_err(io::Error::other)??;
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    Ok(Child {
        pid: pid.ok_or_else(|| io::Error::other("the process has no id"))?,
        ended,
    })
}

/// Makes the kernel terminate the child when the thread that started it dies, which happens when the host ends for any
/// reason.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "the standard library has no safe way to run prctl between fork and exec"
)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. This is one bare system call, which
    // takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)
        });
    }
}

/// On other systems, the next host terminates what this one left behind.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

impl Child {
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The exit status, if it has exited.
    pub(super) fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Waits until it exits, and returns the exit status.
    pub(super) async fn wait(&mut self) -> String {
        match self.ended.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_default(),
            Err(_) => "unknown".to_owned(),
        }
    }

    /// Terminates it, and kills it after `limit`.
    pub(super) async fn end(&mut self, limit: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(limit, self.wait()).await.is_err() {
            warn!("the embedded broker did not exit in time; killing it");
            self.kill();
            self.wait().await;
        }
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // Not after its exit: the process id may have been reused.
        if self.ended().is_none()
            && let Err(error) = kill_process(self.pid, signal)
            && error != rustix::io::Errno::SRCH
        {
            warn!(%error, "failed to signal the embedded broker");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Terminates a server that an earlier host left behind in `dir`.
pub(super) async fn end_leftover(dir: &Path) {
    let Some(pid) = leftover(dir) else { return };
    warn!(
        pid = pid.as_raw_nonzero().get(),
        "terminating the broker that an earlier host left behind"
    );
    for (signal, limit) in [
        (Signal::TERM, Duration::from_secs(3)),
        (Signal::KILL, Duration::from_secs(2)),
    ] {
        if let Err(error) = kill_process(pid, signal) {
            warn!(%error, "failed to signal the leftover broker");
        }
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if test_kill_process(pid).is_err() || !is_ours(pid, dir) {
                return remove_pid_file(dir);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn leftover(dir: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(dir.join(PID_FILE)).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    is_ours(pid, dir).then_some(pid)
}

/// Whether the process is a server with the configuration in `dir`: the process id may have been reused.
#[cfg(target_os = "linux")]
fn is_ours(pid: Pid, dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;

    let Ok(command_line) = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else {
        return false;
    };
    let config = dir.join(CONFIG_FILE);
    let arguments: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    arguments
        .windows(2)
        .any(|pair| pair[0] == b"-c" && pair[1] == config.as_os_str().as_bytes())
}

/// Without a way to identify a process, none is touched; starting then fails because the port is in use.
#[cfg(not(target_os = "linux"))]
fn is_ours(_: Pid, _: &Path) -> bool {
    false
}

pub(super) fn remove_pid_file(dir: &Path) {
    if let Err(error) = std::fs::remove_file(dir.join(PID_FILE))
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, "failed to remove the broker's pid file");
    }
}

/// The last lines of the server's log.
pub(super) fn log_tail(dir: &Path) -> String {
    let read = || {
        let mut log = std::fs::File::open(dir.join(LOG_FILE))?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(2_000)))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            clean_text(&lines[lines.len().saturating_sub(3)..].join(" | "), 1_000)
        }
        Err(error) => format!("no log: {error}"),
    }
}
