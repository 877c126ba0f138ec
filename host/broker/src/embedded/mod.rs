//! A `nats-server` of the host's own: found, configured, started, watched over and stopped here. Keeps everything in
//! one folder, among it `nats.url` while the server accepts connections, for other programs of the same user.
//!
//! It listens on 127.0.0.1 alone and requires a user and a random password, which is created at the first start. Only
//! the owner of the folder can read the files that hold it.

mod binary;
mod process;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{FlockOperation, flock};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::config::{EmbeddedConfig, Remote, Secret, SecretSource};
use super::link::ServerVersion;
use lantern_trust::private_files::{self, OWNER_ONLY, PrivateFileError};
use process::Child;

/// The one user of the server. It may do everything.
const USER: &str = "lantern";

/// Holds the password of [`USER`].
const PASSWORD_FILE: &str = "password";

/// Holds the address with user and password while the server accepts connections.
const URL_FILE: &str = "nats.url";

/// The file in a host's data directory that holds the address of its own broker, with user and password.
pub fn url_file(data_dir: &Path) -> PathBuf {
    data_dir.join("broker").join(URL_FILE)
}

/// The `nats-server` that a host would run, and its version: the one that is named, or the first that is found.
///
/// # Errors
/// [`EmbeddedError::NoBinary`] when there is none that is new enough.
pub async fn find_server(named: Option<&Path>) -> Result<(PathBuf, ServerVersion), EmbeddedError> {
    binary::find(named).await
}

/// How long a server may take to accept connections. It reads its streams' state before that.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may take to end by itself. It writes its consumers' state in that time.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the host's own broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There is no program to run.
    #[error("no nats-server found ({})", looked_at.join(", "))]
    NoBinary {
        /// Where it was looked for, and what was found there.
        looked_at: Vec<String>,
    },
    /// Something in the broker's folder cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that holds the password or the address cannot be used.
    #[error(transparent)]
    Private(#[from] PrivateFileError),
    /// Another host runs a broker in this folder.
    #[error("another host runs its broker in {}", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The configured port is taken.
    #[error("port {port} of 127.0.0.1 is in use")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// No port is free.
    #[error("no free port on 127.0.0.1")]
    NoPort(#[source] io::Error),
    /// The program cannot be started.
    #[error("cannot start {}", binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program ended, or did not accept connections in time.
    #[error("the broker does not start ({status}): {log}")]
    NotReady {
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
    },
}

impl EmbeddedError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoBinary { .. } => Some(
                "install nats-server 2.10 or later, or name one with broker.embedded.binary, \
                 or let Lantern use a broker that runs elsewhere with broker.url (--nats)",
            ),
            Self::PortInUse { .. } => {
                Some("choose another broker.embedded.port, or none to have a free one chosen")
            }
            Self::InUse { .. } => Some("stop the other host, or choose another data directory"),
            _ => None,
        }
    }
}

/// The running server. Dropping it ends the server as well, but only [`Embedded::stop`] waits for that.
pub(super) struct Embedded {
    url: String,
    password: Secret,
    stopping: CancellationToken,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// What is needed to start the server, again and again.
struct Plan {
    binary: PathBuf,
    dir: PathBuf,
    url: String,
    /// With user and password.
    full_url: String,
    address: SocketAddr,
    /// Held as long as the server may run: two servers on one store would ruin it.
    _lock: std::fs::File,
}

impl Embedded {
    /// Starts the server and returns when it accepts connections.
    pub(super) async fn start(config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let (binary, version) = binary::find(config.binary.as_deref()).await?;
        let dir = prepare(&config.dir)?;
        let lock = lock(&dir)?;
        process::end_leftover(&dir).await;
        let password = password(&dir)?;
        let mut attempt = 0;
        let (plan, child) = loop {
            let port = choose_port(&dir, config.port)?;
            let lock = lock.try_clone().map_err(file("lock", &dir))?;
            let plan = Plan::write(&binary, &dir, port, &password, lock)?;
            match plan.start().await {
                Ok(child) => break (plan, child),
                // Somebody was quicker with the port that we have found to be free.
                Err(EmbeddedError::NotReady { .. })
                    if config.port.is_none() && attempt < 3 && taken(port) =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        info!(url = plan.url, %version, binary = %binary.display(), "started the embedded broker");
        let url = plan.url.clone();
        let stopping = CancellationToken::new();
        let supervisor = Mutex::new(Some(tokio::spawn(supervise(plan, child, stopping.clone()))));
        Ok(Self {
            url,
            password: Secret::new(password),
            stopping,
            supervisor,
        })
    }

    /// Where it accepts connections.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How to connect to it.
    pub(super) fn remote(&self) -> Remote {
        Remote {
            urls: vec![self.url.clone()],
            user: Some(USER.to_owned()),
            password: Some(SecretSource::Inline(self.password.clone())),
            ..Remote::default()
        }
    }

    /// Ends the server, in order if it does so in time.
    pub(super) async fn stop(&self) {
        self.stopping.cancel();
        let supervisor = self
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(supervisor) = supervisor
            && let Err(error) = supervisor.await
        {
            error!(%error, "the supervision of the embedded broker has failed");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Plan {
    fn write(
        binary: &Path,
        dir: &Path,
        port: u16,
        password: &str,
        lock: std::fs::File,
    ) -> Result<Self, EmbeddedError> {
        let plan = Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            url: format!("nats://127.0.0.1:{port}"),
            full_url: format!("nats://{USER}:{password}@127.0.0.1:{port}"),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            _lock: lock,
        };
        write(&dir.join("port"), &port.to_string())?;
        write(
            &dir.join(process::CONFIG_FILE),
            &configuration(dir, port, password),
        )?;
        Ok(plan)
    }

    /// Starts the server once and waits until it accepts connections.
    async fn start(&self) -> Result<Child, EmbeddedError> {
        let mut child = process::spawn(&self.binary, &self.dir).map_err(|source| EmbeddedError::Spawn {
            binary: self.binary.clone(),
            source,
        })?;
        write(&self.dir.join(process::PID_FILE), &child.pid().to_string())?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = child.ended() {
                return Err(self.not_ready(status));
            }
            if accepts(self.address).await {
                write(&self.dir.join(URL_FILE), &format!("{}\n", self.full_url))?;
                return Ok(child);
            }
            if Instant::now() >= deadline {
                child.kill();
                child.wait().await;
                return Err(self.not_ready(format!("nothing after {} s", START_TIMEOUT.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn not_ready(&self, status: String) -> EmbeddedError {
        EmbeddedError::NotReady {
            status,
            log: process::log_tail(&self.dir),
        }
    }

    fn forget_url(&self) {
        if let Err(error) = std::fs::remove_file(self.dir.join(URL_FILE))
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "cannot remove nats.url");
        }
    }
}

/// Starts the server again whenever it ends, until it is to stop.
async fn supervise(plan: Plan, mut child: Child, stop: CancellationToken) {
    let mut pause = Duration::from_millis(100);
    loop {
        let started = Instant::now();
        tokio::select! {
            status = child.wait() => {
                plan.forget_url();
                error!(status, log = process::log_tail(&plan.dir), "the embedded broker has died; starting it again");
            }
            () = stop.cancelled() => {
                plan.forget_url();
                child.end(STOP_TIMEOUT).await;
                process::forget_pid(&plan.dir);
                return;
            }
        }
        if started.elapsed() > Duration::from_secs(60) {
            pause = Duration::from_millis(100);
        }
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return process::forget_pid(&plan.dir),
            }
            pause = (pause * 2).min(Duration::from_secs(10));
            tokio::select! {
                started = plan.start() => match started {
                    Ok(child) => break child,
                    Err(error) => error!(error = &error as &dyn std::error::Error, "cannot start the embedded broker"),
                },
                () = stop.cancelled() => return process::forget_pid(&plan.dir),
            }
        };
        info!(url = plan.url, "the embedded broker runs again");
    }
}

/// The server's configuration file.
fn configuration(dir: &Path, port: u16, password: &str) -> String {
    let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
    format!(
        "# Written by Lantern at each start; changes are lost.\n\
         listen: \"127.0.0.1:{port}\"\n\
         server_name: lantern\n\
         authorization {{\n  user: \"{USER}\"\n  password: \"{password}\"\n}}\n\
         log_file: {log}\n\
         logfile_size_limit: 8MB\n\
         logfile_max_num: 3\n\
         max_payload: 8MB\n\
         jetstream {{\n  store_dir: {store}\n  sync_interval: {SYNC_INTERVAL}\n}}\n",
        log = quoted(dir.join(process::LOG_FILE)),
        store = quoted(dir.join("jetstream")),
    )
}

/// How often the server flushes its streams to disk. `always` would be the safe choice: a power cut now costs up to
/// a second of messages that publishers believe stored. But this server flushes for each message, not for each group:
/// measured with 300-byte messages and 1,000 unacknowledged ones, it takes 716 a second with `always`, 90,000 with
/// `1s`, and no more than that with its default of two minutes. Who needs more runs a broker of three servers.
const SYNC_INTERVAL: &str = "1s";

fn prepare(dir: &Path) -> Result<PathBuf, EmbeddedError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(file("create", dir))?;
    // A folder of an earlier version may be open to others, and the server writes its streams and its log into it.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(file("set the mode of", dir))?;
    // The server resolves relative paths by itself, and the check for a leftover compares them.
    std::fs::canonicalize(dir).map_err(file("resolve", dir))
}

/// The password of [`USER`], created at the first start and kept. Letters, digits, `-` and `_`: it needs no quoting,
/// neither in the configuration nor in an address.
fn password(dir: &Path) -> Result<String, EmbeddedError> {
    let secret = private_files::keep_secret(&dir.join(PASSWORD_FILE))?;
    Ok(URL_SAFE_NO_PAD.encode(secret))
}

fn lock(dir: &Path) -> Result<std::fs::File, EmbeddedError> {
    let path = dir.join("lock");
    let lock = std::fs::File::create(&path).map_err(file("create", &path))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        if error == rustix::io::Errno::WOULDBLOCK {
            return EmbeddedError::InUse { dir: dir.to_owned() };
        }
        EmbeddedError::File {
            what: "lock",
            path,
            source: error.into(),
        }
    })?;
    Ok(lock)
}

/// The configured port, else the one of last time, else one that is free.
fn choose_port(dir: &Path, configured: Option<u16>) -> Result<u16, EmbeddedError> {
    if let Some(port) = configured {
        return if taken(port) {
            Err(EmbeddedError::PortInUse { port })
        } else {
            Ok(port)
        };
    }
    let last = std::fs::read_to_string(dir.join("port"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(port) = last.filter(|port| *port != 0 && !taken(*port)) {
        return Ok(port);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(EmbeddedError::NoPort)?;
    Ok(listener.local_addr().map_err(EmbeddedError::NoPort)?.port())
}

/// Whether somebody listens on the port. (The standard library binds with `SO_REUSEADDR`, so that connections of
/// before which are still being closed are not in the way.)
fn taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}

/// Whether a NATS server greets at `address`.
async fn accepts(address: SocketAddr) -> bool {
    let greeting = async {
        let mut greeting = [0; 5];
        TcpStream::connect(address)
            .await?
            .read_exact(&mut greeting)
            .await?;
        Ok::<_, io::Error>(&greeting == b"INFO ")
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(1), greeting).await,
        Ok(Ok(true))
    )
}

/// Writes a small file so that a reader sees all of it or the one before, and other users see none of it.
fn write(path: &Path, text: &str) -> Result<(), EmbeddedError> {
    Ok(private_files::write(path, text, OWNER_ONLY)?)
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    move |source| EmbeddedError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_quotes_and_spaces_do_not_break_the_configuration() {
        let text = configuration(Path::new("/data/my \"streams\""), 4222, "pass-word_1");
        assert!(
            text.contains(r#"store_dir: "/data/my \"streams\"/jetstream""#),
            "{text}"
        );
        assert!(text.contains("127.0.0.1:4222"));
        assert!(text.contains("  password: \"pass-word_1\"\n"), "{text}");
    }

    #[test]
    fn a_port_is_kept_while_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let first = choose_port(dir.path(), None).unwrap();
        write(&dir.path().join("port"), &first.to_string()).unwrap();
        assert_eq!(choose_port(dir.path(), None).unwrap(), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(choose_port(dir.path(), None).unwrap(), first);
        assert!(matches!(
            choose_port(dir.path(), Some(first)),
            Err(EmbeddedError::PortInUse { .. })
        ));
    }

    #[test]
    fn a_folder_has_one_broker() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(EmbeddedError::InUse { .. })));
        drop(held);
        lock(dir.path()).unwrap();
    }
}
