//! The embedded `nats-server`: finds, configures, starts, supervises and stops it. Keeps everything in one directory,
//! including `nats.url` while the server accepts connections, for other programs of the same user.
//!
//! The server listens on 127.0.0.1 only and requires a user and a random password, which is created at the first start.
//! Only the owner of the directory can read the files that contain it.

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
use lantern_trust::private_files::{self, PrivateFileError};
use process::Child;

/// The only user of the server, with all permissions.
const USER: &str = "lantern";

/// Contains the password of [`USER`].
const PASSWORD_FILE: &str = "password";

/// Contains the address with user and password while the server accepts connections.
const URL_FILE: &str = "nats.url";

/// The file in a data directory with the address of the embedded broker, including user and password.
pub fn url_file(data_dir: &Path) -> PathBuf {
    data_dir.join("broker").join(URL_FILE)
}

/// The `nats-server` that a host would run, and its version: the named one, or the first that is found.
///
/// # Errors
/// [`EmbeddedError::NoBinary`] when none is recent enough.
pub async fn find_server(named: Option<&Path>) -> Result<(PathBuf, ServerVersion), EmbeddedError> {
    binary::find(named).await
}

/// How long a server may take to accept connections. It first reads the state of its streams.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may take to exit after a signal. It writes the state of its consumers in that time.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the embedded broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No usable program was found.
    #[error("no nats-server found ({})", candidates.join(", "))]
    NoBinary {
        /// The examined candidates, with the reason for each rejection.
        candidates: Vec<String>,
    },
    /// A file in the broker's directory cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// The attempted operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file with the password or the address cannot be used.
    #[error(transparent)]
    Private(#[from] PrivateFileError),
    /// Another host runs a broker in this directory.
    #[error("another host runs its broker in {}", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The configured port is in use.
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
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The program exited, or did not accept connections in time.
    #[error("the broker does not start ({status}): {log}")]
    NotReady {
        /// The exit status.
        status: String,
        /// The last lines of its log.
        log: String,
    },
}

impl EmbeddedError {
    /// A remedy for the operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoBinary { .. } => Some(
                "install nats-server 2.10 or later, or name one with broker.embedded.binary, \
                 or let Lantern use a broker that runs elsewhere with broker.url (--nats)",
            ),
            Self::PortInUse { .. } => {
                Some("choose another broker.embedded.port, or omit it to use a free port")
            }
            Self::InUse { .. } => Some("stop the other host, or choose another data directory"),
            _ => None,
        }
    }
}

/// The running server. Dropping it also stops the server, but only [`Embedded::stop`] waits for that.
pub(super) struct Embedded {
    url: String,
    password: Secret,
    stopping: CancellationToken,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// Everything needed to start the server repeatedly.
struct Plan {
    binary: PathBuf,
    dir: PathBuf,
    url: String,
    /// With user and password.
    full_url: String,
    address: SocketAddr,
    /// Held while the server may run: two servers would corrupt one store.
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
                // Another process bound the free port first.
                Err(EmbeddedError::NotReady { .. })
                    if config.port.is_none() && attempt < 3 && is_in_use(port) =>
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

    /// The address of the server.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The connection settings of the server.
    pub(super) fn remote(&self) -> Remote {
        Remote {
            urls: vec![self.url.clone()],
            user: Some(USER.to_owned()),
            password: Some(SecretSource::Inline(self.password.clone())),
            ..Remote::default()
        }
    }

    /// Stops the server, gracefully if it exits in time.
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
            error!(%error, "the supervisor of the embedded broker failed");
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
                return Err(self.not_ready(format!("no connection after {} s", START_TIMEOUT.as_secs())));
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

    fn remove_url_file(&self) {
        if let Err(error) = std::fs::remove_file(self.dir.join(URL_FILE))
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "failed to remove nats.url");
        }
    }
}

/// Restarts the server whenever it exits, until `stop` is cancelled.
async fn supervise(plan: Plan, mut child: Child, stop: CancellationToken) {
    let mut pause = Duration::from_millis(100);
    loop {
        let started = Instant::now();
        tokio::select! {
            status = child.wait() => {
                plan.remove_url_file();
                error!(status, log = process::log_tail(&plan.dir), "the embedded broker exited unexpectedly; restarting it");
            }
            () = stop.cancelled() => {
                plan.remove_url_file();
                child.end(STOP_TIMEOUT).await;
                process::remove_pid_file(&plan.dir);
                return;
            }
        }
        if started.elapsed() > Duration::from_secs(60) {
            pause = Duration::from_millis(100);
        }
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return process::remove_pid_file(&plan.dir),
            }
            pause = (pause * 2).min(Duration::from_secs(10));
            tokio::select! {
                started = plan.start() => match started {
                    Ok(child) => break child,
                    Err(error) => error!(error = &error as &dyn std::error::Error, "failed to start the embedded broker"),
                },
                () = stop.cancelled() => return process::remove_pid_file(&plan.dir),
            }
        };
        info!(url = plan.url, "restarted the embedded broker");
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

/// How often the server flushes its streams to disk. `always` would be the safe choice: a power cut now costs up to a
/// second of confirmed messages. But this server flushes for each message, not for each group: measured with 300-byte
/// messages and 1,000 unacknowledged ones, it stores 716 a second with `always`, 90,000 with `1s`, and no more with its
/// default of two minutes. Higher durability requires a cluster of three servers.
pub const SYNC_INTERVAL: &str = "1s";

fn prepare(dir: &Path) -> Result<PathBuf, EmbeddedError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(file("create", dir))?;
    // The directory of an earlier version may be open to others, and the server writes its streams and its log into it.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(file("set the mode of", dir))?;
    // The server resolves relative paths itself, and the check for a leftover process compares paths.
    std::fs::canonicalize(dir).map_err(file("resolve", dir))
}

/// The password of [`USER`], created at the first start and kept. Letters, digits, `-` and `_` need no quoting in the
/// configuration or in an address.
fn password(dir: &Path) -> Result<String, EmbeddedError> {
    let secret = private_files::load_or_create_secret(&dir.join(PASSWORD_FILE))?;
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

/// The configured port, else the previous one, else a free one.
fn choose_port(dir: &Path, configured: Option<u16>) -> Result<u16, EmbeddedError> {
    if let Some(port) = configured {
        return if is_in_use(port) {
            Err(EmbeddedError::PortInUse { port })
        } else {
            Ok(port)
        };
    }
    let last = std::fs::read_to_string(dir.join("port"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(port) = last.filter(|port| *port != 0 && !is_in_use(*port)) {
        return Ok(port);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(EmbeddedError::NoPort)?;
    Ok(listener.local_addr().map_err(EmbeddedError::NoPort)?.port())
}

/// Whether the port is in use. (The standard library binds with `SO_REUSEADDR`, so earlier connections that are still
/// closing do not interfere.)
fn is_in_use(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}

/// Whether a NATS server sends its greeting at `address`.
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

/// Replaces a small file atomically, readable only by its owner.
fn write(path: &Path, text: &str) -> Result<(), EmbeddedError> {
    Ok(private_files::write(path, text)?)
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
    fn a_directory_has_one_broker() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(EmbeddedError::InUse { .. })));
        drop(held);
        lock(dir.path()).unwrap();
    }
}
