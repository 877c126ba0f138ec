//! A PostgreSQL server for tests and benchmarks, with a new data directory; also for those of `host/lantern/tests`. The programs come from the system's
//! packages: from PATH, or from the directory in which Debian keeps them.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The oldest supported major version.
const VERSION_MIN: u32 = 15;
/// How long the server may take to start on a busy machine.
const START_TIME: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops it and deletes its files.
pub struct Server {
    child: Child,
    programs: PathBuf,
    dir: PathBuf,
    port: u16,
}

/// The directory with `initdb` and `postgres`, or why there is none.
pub fn programs() -> Result<PathBuf, String> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = debian.flatten().map(|version| version.path().join("bin"));
    let mut found: Vec<(u32, PathBuf)> = std::env::split_paths(&on_path)
        .chain(debian)
        // On PATH are often links to the directory that has all programs.
        .filter_map(|folder| Some(folder.join("initdb").canonicalize().ok()?.parent()?.to_owned()))
        .filter(|folder| folder.join("pg_isready").is_file())
        .filter_map(|folder| Some((major_version(&folder)?, folder)))
        .collect();
    found.sort();
    match found.pop() {
        Some((version, folder)) if version >= VERSION_MIN => Ok(folder),
        Some((version, _)) => Err(format!("PostgreSQL {version} is older than {VERSION_MIN}")),
        None => Err("PostgreSQL is not installed (Debian: apt-get install postgresql)".to_owned()),
    }
}

/// The version that `postgres --version` prints, as in `postgres (PostgreSQL) 15.18`.
fn major_version(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split(") ").nth(1)?;
    number
        .split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// A program of the server. The server refuses to run as root; its packages create a user for it.
fn command(programs: &Path, program: &str) -> Command {
    let program = programs.join(program);
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

/// Whether a server waits for the disk, as it does by default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It waits.
    Waits,
    /// It does not, because its files are deleted after the tests.
    IsIgnored,
}

/// A new directory that belongs to the user of the server.
fn new_directory() -> Result<PathBuf> {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("lantern-postgres-{}-{number}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    if rustix::process::geteuid().is_root() {
        let owned = Command::new("chown").arg("postgres").arg(&dir).status()?;
        if !owned.success() {
            bail!("there is no user postgres who could run the server");
        }
    }
    Ok(dir)
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// A program fails, or the server does not answer in time.
    pub fn start(programs: &Path) -> Result<Self> {
        Self::start_with(programs, Disk::IsIgnored)
    }

    /// As [`Server::start`], with a choice whether it waits for the disk.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub fn start_with(programs: &Path, disk: Disk) -> Result<Self> {
        let dir = new_directory()?;
        let data = dir.join("data");
        let made = command(programs, "initdb")
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .arg("--pgdata")
            .arg(&data)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .status()
            .context("cannot start initdb")?;
        if !made.success() {
            bail!("initdb failed ({made})");
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = command(programs, "postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
            ])
            .args([
                "-c",
                if disk == Disk::Waits {
                    "fsync=on"
                } else {
                    "fsync=off"
                },
            ])
            .args(["-c", "log_min_messages=fatal", "-p", &port.to_string()])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start postgres")?;
        let mut server = Self {
            child,
            programs: programs.to_owned(),
            dir,
            port,
        };
        server.wait(&programs.join("pg_isready"))?;
        Ok(server)
    }

    fn wait(&mut self, ready: &Path) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < START_TIME {
            if let Some(status) = self.child.try_wait()? {
                bail!("postgres has ended ({status})");
            }
            let mut ready = Command::new(ready);
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if ready.status().context("cannot start pg_isready")?.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("postgres does not answer")
    }

    /// The address of a database of the server.
    pub fn address(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = command(&self.programs, "pg_ctl")
            .args(["stop", "--silent", "--mode=fast", "--pgdata"])
            .arg(self.dir.join("data"))
            .current_dir(&self.dir)
            .status();
        match stopped {
            Ok(status) if status.success() => drop(self.child.wait()),
            _ => println!("cannot stop the PostgreSQL server in {}", self.dir.display()),
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            println!("cannot remove {}: {error}", self.dir.display());
        }
    }
}
