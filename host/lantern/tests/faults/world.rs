//! The host, broker and publisher of a run, and the implementation of each fault.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::stream::Stream as Handle;
use rustix::process::{Pid, Signal, kill_process};

use super::disk::SmallDisk;
use super::evolving;
use super::host::{Host, plugin_folder};
use super::journal::{Journal, Publisher, context};
use super::plan::Action;
use super::servers::Servers;
use super::setup::Setup;
use super::streams::Stream;
use super::verdict::Fate;

/// Longer than any operation takes on a busy machine with two cores; beyond it the host is stuck.
pub const LIMIT: Duration = Duration::from_secs(120);

pub const PLUGINS: [&str; 3] = ["obs-events", "evolving", "misbehaving"];
const LETTERS: [u8; 5] = [b'a', b'd', b'e', b'g', b'i'];
const DATABASE: [&str; 3] = ["lantern.db", "lantern.db-wal", "lantern.db-shm"];

/// The state of a run. The field order is the drop order: processes before their disk.
pub struct World {
    pub host: Option<Host>,
    pub publisher: Publisher,
    pub broker: Servers,
    pub setup: Setup,
    pub journal: Journal,
    plugins: tempfile::TempDir,
    /// Versions to swap to, copies, and the host's log.
    folder: tempfile::TempDir,
    pub data: PathBuf,
    /// The id of the newest message in the copy of the broker's store.
    pub broker_copy: Option<u64>,
    disk: Option<SmallDisk>,
}

impl World {
    pub fn new(setup: Setup, minutes: f64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugins = plugin_folder(&["obs-events"]);
        fs::write(
            plugins.path().join("misbehaving.wasm"),
            evolving::build("misbehaving"),
        )
        .unwrap();
        fs::write(plugins.path().join("evolving.wasm"), evolving::version(b'a')).unwrap();
        for letter in LETTERS {
            let file = folder.path().join(format!("{}.wasm", char::from(letter)));
            fs::write(file, evolving::version(letter)).unwrap();
        }
        let disk = SmallDisk::mount(folder.path().join("disk"), 128 + (16.0 * minutes) as u64);
        if disk.is_none() {
            println!("no full disks in this run: this user may not mount a small disk");
        }
        let data = match &disk {
            Some(disk) => disk.0.join("data"),
            None => folder.path().join("data"),
        };
        let broker = Servers::start(setup);
        let journal = Journal::default();
        let mut world = Self {
            host: None,
            publisher: Publisher::start(broker.url(), journal.clone()),
            broker,
            setup,
            journal,
            plugins,
            folder,
            data,
            broker_copy: None,
            disk,
        };
        for stream in Stream::ALL {
            world.create(stream);
        }
        world.start_host();
        for stream in Stream::ALL {
            world.wait_for_consumer(stream);
        }
        world.publisher.resume();
        world
    }

    pub fn can_fill_disk(&self) -> bool {
        self.disk.is_some()
    }

    fn start_host(&mut self) {
        let mut command = Host::command(&self.data, &self.broker.url(), self.plugins.path());
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        command.stderr(log);
        if self.disk.is_some() {
            // Otherwise the reserve file occupies a part of the small disk.
            command.env("LANTERN__STORE__RESERVE_SIZE", "0");
        }
        if self.setup != Setup::Single {
            // The host would create a stream with another configuration. Two observations of a cluster are ten seconds
            // apart by default.
            command.env("LANTERN__STREAMS__CREATE", "false");
            command.env("LANTERN__STREAMS__CONFIRM_AFTER", "3s");
        }
        self.host = Some(Host::spawn(command));
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("host.log")
    }

    pub fn end_host(&mut self, kill: bool) {
        let Some(mut host) = self.host.take() else {
            return;
        };
        if let Some(status) = host.ended() {
            panic!("the host ended unexpectedly: {status}");
        }
        if kill {
            host.kill();
        } else {
            let status = host.terminate();
            assert!(status.success(), "the host ended with {status}");
        }
    }

    /// Runs an operator command and prints its errors; a rejected command is part of the run.
    pub fn operate(&self, arguments: &[&str]) -> bool {
        let output = Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("LANTERN__DATA_DIR", &self.data)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            println!(
                "           lantern {}: {}",
                arguments.join(" "),
                error.lines().next().unwrap_or("?")
            );
        }
        output.status.success()
    }

    /// Runs an operation on an existing stream; returns `None` if the broker does not respond.
    pub fn with_stream<T>(&self, stream: Stream, work: impl AsyncFnOnce(Handle) -> Option<T>) -> Option<T> {
        run(async {
            let context = context(&self.broker.url()).await?;
            let handle = context.get_stream(stream.name()).await.ok()?;
            work(handle).await
        })
    }

    /// Creates the stream. The host may have created it already.
    pub fn create(&self, stream: Stream) {
        self.until("the stream is created", || {
            run(async {
                let context = context(&self.broker.url()).await?;
                context.get_or_create_stream(self.setup.stream(stream)).await.ok()
            })
        });
    }

    /// Waits until the host has created its consumer, without which an interest stream stores no message.
    pub fn wait_for_consumer(&self, stream: Stream) {
        if self.setup.needs_consumer(stream) {
            self.until("an interest stream has its consumer", || {
                self.with_stream(stream, async |handle| {
                    handle.consumer_info(stream.consumer()).await.ok()
                })
            });
        }
    }

    /// Updates the fate of messages after an action of the nemesis.
    pub fn fate(&self, change: impl Fn(u64, Stream, u64, Fate) -> Fate) {
        for (&id, sent) in self.journal.entries().iter_mut() {
            if sent.fate != Fate::Unacknowledged {
                sent.fate = change(id, sent.stream, sent.sequence, sent.fate);
            }
        }
    }

    /// Messages that only the database held may be lost with it. A stream that deletes acknowledged messages may hold
    /// none of them.
    fn forget_database(&self) {
        self.fate(|_, stream, _, fate| match fate {
            Fate::Removed | Fate::Stored => Fate::Gone,
            Fate::InStream if self.setup.deletes_acknowledged(stream) => Fate::Gone,
            other => other,
        });
    }

    pub fn act(&mut self, action: &Action) {
        if let Some(status) = self.host.as_mut().and_then(Host::ended) {
            panic!("the host ended unexpectedly: {status}");
        }
        match action {
            Action::Rest(ms) => pause(*ms),
            Action::RestartHost {
                kill,
                down_ms,
                meanwhile,
            } => {
                self.end_host(*kill);
                if let Some(action) = meanwhile {
                    self.act(action);
                }
                pause(*down_ms);
                self.start_host();
            }
            Action::FreezeHost(ms) => self.freeze_host(*ms),
            Action::RestartBroker {
                server,
                kill,
                down_ms,
            } => {
                self.broker.end(*server, *kill);
                pause(*down_ms);
                self.broker.restart(*server);
            }
            Action::FreezeBroker { server, ms } => {
                self.broker.signal(*server, Signal::STOP);
                pause(*ms);
                self.broker.signal(*server, Signal::CONT);
            }
            Action::RollingRestart(stream) => {
                self.create(*stream);
                self.broker.restart_each(stream.name());
            }
            Action::FillDisk(ms) => {
                if let Some(disk) = &self.disk {
                    disk.fill();
                    pause(*ms);
                    disk.free();
                }
            }
            Action::CopyDatabase | Action::RestoreDatabase | Action::DeleteDatabase { .. } => {
                self.act_on_database(action);
            }
            Action::CopyBroker | Action::RevertBroker { .. } => self.act_on_store(action),
            Action::Purge { .. }
            | Action::DeleteMessage { .. }
            | Action::RecreateStream { .. }
            | Action::StepDown { .. }
            | Action::DeleteConsumer(_)
            | Action::ChangeConsumer(_) => self.act_on_stream(action),
            Action::Swap(letter) => {
                self.operate(&["plugin", "install", &format!("{letter}.wasm"), "--activate"]);
            }
            Action::Rollback => {
                self.operate(&["plugin", "rollback", "evolving"]);
            }
            Action::Rebuild { plugin, carry_over } => {
                let carry_over = if *carry_over { &["--carry-over"][..] } else { &[] };
                self.operate(&[&["rebuild", plugin, "--detach"][..], carry_over].concat());
            }
            Action::Pause { plugin, ms } => {
                self.operate(&["plugin", "pause", plugin]);
                pause(*ms);
                self.operate(&["plugin", "resume", plugin]);
            }
            Action::Undecodable(_) | Action::Malformed { .. } | Action::Hostile(_) => {
                self.publish_bad(action)
            }
            Action::Settle => println!("           {}", self.settle()),
        }
    }

    fn freeze_host(&self, ms: u64) {
        let pid = self
            .host
            .as_ref()
            .and_then(|host| Pid::from_raw(host.pid() as i32));
        let Some(pid) = pid else { return };
        kill_process(pid, Signal::STOP).unwrap();
        pause(ms);
        kill_process(pid, Signal::CONT).unwrap();
    }

    fn act_on_database(&mut self, action: &Action) {
        let copy = self.folder.path().join("copy.db");
        match action {
            Action::CopyDatabase => {
                let fresh = self.folder.path().join("fresh.db");
                drop(fs::remove_file(&fresh));
                let connection = rusqlite::Connection::open(self.data.join("lantern.db")).unwrap();
                connection.busy_timeout(Duration::from_secs(5)).unwrap();
                let copied = connection.execute("VACUUM INTO ?1", [fresh.to_str().unwrap()]);
                match copied {
                    Ok(_) => fs::rename(fresh, copy).unwrap(),
                    Err(error) => println!("           not copied: {error}"),
                }
            }
            Action::RestoreDatabase if copy.exists() => {
                self.end_host(true);
                self.delete_database();
                fs::copy(copy, self.data.join("lantern.db")).unwrap();
                self.start_host();
            }
            Action::DeleteDatabase { running: true } => self.delete_database(),
            Action::DeleteDatabase { running: false } => {
                self.end_host(true);
                self.delete_database();
                self.start_host();
            }
            _ => println!("           there is no copy"),
        }
    }

    fn delete_database(&self) {
        // A message that was stored, acknowledged and deleted from its stream before, and whose publisher learns later that
        // it was published, would count as one that is in its stream.
        self.publisher.pause();
        for file in DATABASE {
            drop(fs::remove_file(self.data.join(file)));
        }
        self.forget_database();
        self.publisher.resume();
    }

    fn act_on_store(&mut self, action: &Action) {
        let Some(store) = self.broker.store().map(|folder| folder.join("js")) else {
            return;
        };
        let copy = self.folder.path().join("js");
        match (action, self.broker_copy) {
            (Action::CopyBroker, _) => {
                self.publisher.pause();
                self.broker.end(0, false);
                drop(fs::remove_dir_all(&copy));
                copy_folder(&store, &copy);
                self.broker.restart(0);
                self.broker_copy = Some(self.journal.last());
                self.publisher.resume();
            }
            (Action::RevertBroker { settled }, Some(newest)) => {
                if *settled {
                    println!("           {}", self.settle());
                }
                self.publisher.pause();
                self.broker.end(0, false);
                fs::remove_dir_all(&store).unwrap();
                copy_folder(&copy, &store);
                self.broker.restart(0);
                let settled = *settled;
                self.fate(|id, _, _, fate| {
                    if id > newest {
                        without_removed(fate, settled)
                    } else {
                        fate
                    }
                });
                self.publisher.resume();
                // The host must detect the change before the next fault, because it cannot distinguish two stacked
                // changes of history.
                self.catch_up();
            }
            _ => println!("           there is no copy"),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("the end of the host's log:");
            println!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// Returns the fate of a message whose stream was deleted: it remains in the database if it was seen there.
pub fn without_removed(fate: Fate, seen: bool) -> Fate {
    match fate {
        Fate::InStream if seen => Fate::Stored,
        Fate::Removed | Fate::Stored if seen => fate,
        Fate::Stored => Fate::Stored,
        _ => Fate::Gone,
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}
