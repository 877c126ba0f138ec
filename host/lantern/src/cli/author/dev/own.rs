//! A host that is started to be thrown away, with its database and its broker in a temporary folder. It runs in this
//! process, so that what the plugin logs is heard, and nothing stays behind.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio_util::sync::CancellationToken;

use crate::app::{self, Up};
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, note};
use crate::config::{Flag, Sources, resolve, variable_name};
use lantern_authoring::live;
use lantern_broker::{Broker, BrokerConfig, ConnectError, url_file};
use lantern_model::batch::Delivery;
use lantern_model::schema::{Manifest, Source};

/// How long the host may take to answer. It starts a broker.
const START_TIME: Duration = Duration::from_secs(30);

/// The host. To be ended with [`Own::stop`].
pub struct Own {
    dir: PathBuf,
    up: Up,
    broker: Broker,
    stop: CancellationToken,
    runtime: tokio::runtime::Runtime,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Own {
    pub fn start(nats_server: Option<&Path>) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("lantern-dev-{}", uuid::Uuid::now_v7().simple()));
        // A host expects the directory of its plugins to be there; this one is sent them.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join("plugins"))
            .with_context(|| format!("make {}", dir.display()))?;
        let started = start_in(&dir, nats_server);
        if started.is_err() {
            clear(&dir);
        }
        started
    }

    /// Where the API is.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::open(&HostArgs::of(&self.up.url, &self.dir))
    }

    /// Makes the streams that a plugin reads.
    pub fn make_streams(&self, manifest: &Manifest) -> Result<(), Failure> {
        for source in &manifest.sources {
            if let Some((stream, subjects)) = source.origin.replay() {
                let mut subjects = subjects.to_vec();
                if subjects.is_empty() {
                    subjects.push(format!("{}.>", stream.to_lowercase()));
                }
                let made = self
                    .runtime
                    .block_on(self.broker.ensure_stream(stream, &subjects));
                made.with_context(|| format!("make the stream {stream}"))?;
            }
        }
        Ok(())
    }

    /// Sends messages for a source.
    pub fn send(&self, source: &Source, messages: &[Delivery]) -> Result<(), Failure> {
        let stored = source.origin.is_replayable();
        let sent = self.runtime.block_on(self.broker.send(messages, stored));
        sent.map_err(|error| {
            Failure::new(error).hint(
                "a fixture's subject has to be one that its source reads; see `subject` in NAME.message.json",
            )
        })
    }

    /// What one can do with it.
    pub fn greeting(&self, manifest: &Manifest) -> String {
        let subject = manifest.sources.first().map(|source| {
            lantern_authoring::fixture::message(source.origin.subjects(), 0, bytes::Bytes::new()).subject
        });
        format!(
            "a host is up until Ctrl-C: {}\n  send more: lantern publish {} FILE --data-dir {}\n",
            self.up.url,
            subject.unwrap_or_default(),
            self.dir.display()
        )
    }

    /// Ends the host and its broker, and removes the folder.
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
            note(format_args!("the host did not end in order: {error:#}"));
        }
        runtime.shutdown_background();
        clear(&dir);
    }
}

fn start_in(dir: &Path, nats_server: Option<&Path>) -> Result<Own, Failure> {
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
    // Of the environment only where the broker's program is: what is set for a real host is not for this one.
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
        .context("cannot start the runtime")?;
    let stop = CancellationToken::new();
    let (sender, receiver) = channel();
    let (handle, stopping) = (runtime.handle().clone(), stop.clone());
    let host = move || {
        handle.block_on(app::run_and_tell(config, stopping, move |up| {
            drop(sender.send(up))
        }))
    };
    let running = std::thread::Builder::new()
        .name("host".to_owned())
        .spawn(host)
        .context("start a thread for the host")?;
    let Ok(up) = receiver.recv_timeout(START_TIME) else {
        stop.cancel();
        let why = running.join().map_err(|_| anyhow!("the host has panicked"))?;
        let why = why
            .err()
            .unwrap_or_else(|| anyhow!("it did not answer within {} s", START_TIME.as_secs()));
        return Err(hinted(why.context("cannot start a host to try the plugin in")));
    };
    let url = std::fs::read_to_string(url_file(dir)).context("read the address of the host's broker")?;
    let broker = runtime.block_on(live::connect(BrokerConfig::remote(url.trim())))?;
    Ok(Own {
        dir: dir.to_owned(),
        up,
        broker,
        stop,
        runtime,
        running,
    })
}

fn hinted(error: anyhow::Error) -> Failure {
    let embedded = error
        .downcast_ref::<ConnectError>()
        .is_some_and(|error| matches!(error, ConnectError::Embedded(_)));
    let failure = Failure::new(error);
    match embedded {
        true => failure.hint(
            "install nats-server 2.10 or later (https://nats.io/download), or name one with --nats-server FILE; \
             or use a host that runs: --host URL",
        ),
        false => failure,
    }
}

fn clear(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        note(format_args!("{} could not be removed: {error}", dir.display()));
    }
}
