//! A temporary host with its database and its embedded broker in a temporary directory. It runs in this process, so that
//! the command can print the log of the plugin.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio_util::sync::CancellationToken;

use crate::app::{self, Started};
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, note};
use crate::config::{Flag, Sources, resolve, variable_name};
use lantern_authoring::live;
use lantern_broker::{Broker, BrokerConfig, ConnectError, url_file};
use lantern_model::batch::Delivery;
use lantern_model::schema::{Manifest, Source};

/// Timeout of the start, which includes the start of a broker.
const START_TIME: Duration = Duration::from_secs(30);

/// A temporary host. End it with [`DevHost::stop`].
pub struct DevHost {
    dir: PathBuf,
    started: Started,
    broker: Broker,
    stop: CancellationToken,
    runtime: tokio::runtime::Runtime,
    running: JoinHandle<anyhow::Result<()>>,
}

impl DevHost {
    pub fn start(nats_server: Option<&Path>) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("lantern-dev-{}", uuid::Uuid::now_v7().simple()));
        // The host requires an existing plugin directory.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join("plugins"))
            .with_context(|| format!("failed to create {}", dir.display()))?;
        let started = start_in(&dir, nats_server);
        if started.is_err() {
            remove(&dir);
        }
        started
    }

    /// Creates a client of the host.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::open(&HostArgs::of(&self.started.url, &self.dir))
    }

    /// Creates the streams that a plugin reads.
    pub fn create_streams(&self, manifest: &Manifest) -> Result<(), Failure> {
        for source in &manifest.sources {
            if let Some((stream, subjects)) = source.origin.replay() {
                let mut subjects = subjects.to_vec();
                if subjects.is_empty() {
                    subjects.push(format!("{}.>", stream.to_lowercase()));
                }
                let created = self
                    .runtime
                    .block_on(self.broker.ensure_stream(stream, &subjects));
                created.with_context(|| format!("failed to create the stream {stream}"))?;
            }
        }
        Ok(())
    }

    /// Publishes messages for a source.
    pub fn publish(&self, source: &Source, messages: &[Delivery]) -> Result<(), Failure> {
        let stored = source.origin.is_replayable();
        let sent = self.runtime.block_on(self.broker.send(messages, stored));
        sent.map_err(|error| {
            Failure::new(error)
                .hint("the source must read the subject of the fixture; see `subject` in NAME.message.json")
        })
    }

    /// Text with the address of the host, and the command that publishes messages.
    pub fn greeting(&self, manifest: &Manifest) -> String {
        let subject = manifest.sources.first().map(|source| {
            lantern_authoring::fixture::message(source.origin.subjects(), 0, bytes::Bytes::new()).subject
        });
        format!(
            "temporary host at {}, until Ctrl-C\n  to publish messages: lantern publish {} FILE --data-dir {}\n",
            self.started.url,
            subject.unwrap_or_default(),
            self.dir.display()
        )
    }

    /// Stops the host and its broker, and removes the directory.
    pub fn stop(self) {
        let Self {
            dir,
            broker,
            stop,
            runtime,
            running,
            ..
        } = self;
        runtime.block_on(broker.stop());
        stop.cancel();
        if let Ok(Err(error)) = running.join() {
            note(format_args!("the temporary host failed: {error:#}"));
        }
        runtime.shutdown_background();
        remove(&dir);
    }
}

fn start_in(dir: &Path, nats_server: Option<&Path>) -> Result<DevHost, Failure> {
    let flag = |setting, value: OsString| Flag {
        setting,
        name: "lantern plugin dev",
        value,
    };
    let mut flags = vec![
        flag("data_dir", dir.into()),
        flag("listen", "127.0.0.1:0".into()),
        flag("streams.create", "true".into()),
    ];
    if let Some(file) = nats_server {
        flags.push(flag("broker.embedded.binary", file.into()));
    }
    // Only the path of nats-server comes from the environment: other variables are settings of a real host.
    let binary = OsString::from(variable_name("broker.embedded.binary"));
    let sources = Sources {
        file: None,
        env: std::env::vars_os().filter(|(name, _)| *name == binary).collect(),
        flags,
    };
    let config = resolve(&sources).1?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("lantern")
        .build()
        .context("failed to start the runtime")?;
    let stop = CancellationToken::new();
    let (sender, receiver) = channel();
    let (handle, stopping) = (runtime.handle().clone(), stop.clone());
    let run_host = move || {
        handle.block_on(app::run_with(config, stopping, move |started| {
            drop(sender.send(started))
        }))
    };
    let running = std::thread::Builder::new()
        .name("host".to_owned())
        .spawn(run_host)
        .context("failed to start the thread of the host")?;
    let Ok(started) = receiver.recv_timeout(START_TIME) else {
        stop.cancel();
        let result = running.join().map_err(|_| anyhow!("the host panicked"))?;
        let error = result
            .err()
            .unwrap_or_else(|| anyhow!("timeout after {} s", START_TIME.as_secs()));
        return Err(start_failure(error.context("failed to start a temporary host")));
    };
    let url = std::fs::read_to_string(url_file(dir))
        .context("failed to read the address of the embedded broker")?;
    let broker = runtime.block_on(live::connect(BrokerConfig::remote(url.trim())))?;
    Ok(DevHost {
        dir: dir.to_owned(),
        started,
        broker,
        stop,
        runtime,
        running,
    })
}

fn start_failure(error: anyhow::Error) -> Failure {
    let embedded = error
        .downcast_ref::<ConnectError>()
        .is_some_and(|error| matches!(error, ConnectError::Embedded(_)));
    let failure = Failure::new(error);
    match embedded {
        true => failure.hint(
            "install nats-server 2.10 or later (https://nats.io/download), or give its path with --nats-server FILE, \
             or use a running host with --host URL",
        ),
        false => failure,
    }
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        note(format_args!("failed to remove {}: {error}", dir.display()));
    }
}
