//! `lantern plugin dev`: builds on each save, activates the build in a host, and shows new rows, dead letters and log lines.
//! This file is the loop; `host` is the temporary host, `changes` finds new rows and dead letters.

mod changes;
mod host;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value as Tree;

use super::{build_and_load, drain_log, subscribe_to_log, time};
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print, print_error};
use lantern_authoring::fixture;
use lantern_authoring::project::Project;
use lantern_authoring::watch::Watch;
use lantern_model::schema::Manifest;
use lantern_plugin::{Plugin, Speed};
use lantern_telemetry::GuestLine;

use changes::ChangeFeed;
use host::DevHost;

/// Interval of the query for new rows and dead letters.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Arguments of `lantern plugin dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Directory of the project.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Without --host and --data-dir, the command starts a temporary host with an embedded broker, and deletes it at the end.
    #[command(flatten)]
    host: HostArgs,
    /// Path of the nats-server for the temporary host [default: from PATH].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "data_dir"])]
    nats_server: Option<PathBuf>,
    /// Optimize builds like `plugin build`, which takes longer.
    #[arg(long)]
    full: bool,
}

/// State of the loop.
struct Dev<'a> {
    args: &'a DevArgs,
    project: Project,
    log: Receiver<GuestLine>,
    stopping: Arc<AtomicBool>,
    host: Option<DevHost>,
    /// Manifest of the active version; a version with other sources needs other streams.
    manifest: Option<Arc<Manifest>>,
    /// Published fixtures, by name and content.
    published: HashSet<(String, Vec<u8>)>,
    changes: Option<ChangeFeed>,
}

pub fn run(args: &DevArgs) -> Result<ExitCode, Failure> {
    // Warnings of the temporary host are caused by this command.
    let log = subscribe_to_log("error")?;
    let project = Project::open(&args.path)?;
    let watch = Watch::start(project.dir()).map_err(Failure::new)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopping);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))
        .map_err(|error| Failure::new(anyhow::Error::new(error)))?;
    let mut dev = Dev {
        args,
        project,
        log,
        stopping,
        host: None,
        manifest: None,
        published: HashSet::new(),
        changes: None,
    };
    let result = dev.run(&watch);
    if let Some(host) = dev.host.take() {
        host.stop();
    }
    result.map(|()| ExitCode::SUCCESS)
}

impl Dev<'_> {
    fn run(&mut self, watch: &Watch) -> Result<(), Failure> {
        self.build_and_activate()?;
        while !self.is_stopping() {
            let changed = watch.wait(POLL_EVERY);
            if let Some(first) = changed.first() {
                print(&format!("\n{} changed\n", first.display()))?;
                match &self.manifest {
                    // The component is unchanged.
                    Some(manifest) if changed.iter().all(|file| file.starts_with(fixture::FOLDER)) => {
                        let manifest = Arc::clone(manifest);
                        self.publish_fixtures(&manifest)?;
                    }
                    _ => self.build_and_activate()?,
                }
            }
            self.print_changes()?;
        }
        print("\nstopped\n")
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Builds a component and activates it. After a failure the previous version continues; only a failure to start the
    /// temporary host ends the loop.
    fn build_and_activate(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        let speed = if self.args.full { Speed::Full } else { Speed::Quick };
        let built = build_and_load(&self.project, speed);
        if self.is_stopping() {
            return Ok(());
        }
        let (component, loaded) = match built {
            Ok(built) => built,
            Err(failure) => return self.print_failure(&failure),
        };
        let built_at = Instant::now();
        let plugin = &loaded.plugin;
        print(&format!(
            "{} {} built in {}\n",
            plugin.manifest().name,
            plugin.manifest().version,
            time(built_at - start)
        ))?;
        let client = self.open_host(plugin.manifest())?;
        let changes = match self.activate(&client, plugin, component.component, loaded.wasi) {
            Ok(changes) => changes,
            Err(failure) => return self.print_failure(&failure),
        };
        self.changes.insert(changes).set_built_at(built_at);
        self.manifest = Some(Arc::clone(plugin.manifest()));
        if self.host.is_none() {
            print(&format!("active in {}, waiting for messages\n", client.url()))?;
        }
        self.publish_fixtures(plugin.manifest())
    }

    fn print_failure(&self, failure: &Failure) -> Result<(), Failure> {
        print_error(format_args!("{}", failure.render()));
        match self.changes.is_some() {
            true => print("the previous version stays active\n"),
            false => print("waiting for a change\n"),
        }
    }

    /// Opens the named host, or the temporary host, which restarts if the sources of the plugin have changed.
    fn open_host(&mut self, manifest: &Manifest) -> Result<Client, Failure> {
        if self.args.host.is_named() {
            return Client::open(&self.args.host);
        }
        let previous = self.manifest.as_ref().map(|manifest| &manifest.sources);
        if self.host.is_some() && previous.is_some_and(|previous| *previous != manifest.sources) {
            print("the sources have changed: restarting the temporary host\n")?;
            if let Some(host) = self.host.take() {
                host.stop();
            }
        }
        let host = match self.host.take() {
            Some(host) => host,
            None => {
                self.published.clear();
                self.changes = None;
                let host = DevHost::start(self.args.nats_server.as_deref())?;
                host.create_streams(manifest)?;
                print(&host.greeting(manifest))?;
                host
            }
        };
        self.host.insert(host).client()
    }

    /// Activates this version. In the temporary host, drops the tables first: the version then projects all messages again,
    /// also into tables with another schema.
    fn activate(
        &self,
        client: &Client,
        plugin: &Arc<Plugin>,
        component: Vec<u8>,
        wasi: bool,
    ) -> Result<ChangeFeed, Failure> {
        let manifest = plugin.manifest();
        let name = &manifest.name;
        let changes = match self.host.is_some() {
            true => {
                if self.changes.is_some() {
                    let _: Tree = client.delete(&format!("/api/v1/plugins/{name}?tables=drop"))?;
                }
                ChangeFeed::from_start(manifest)
            }
            false => ChangeFeed::from_now(manifest, client)?,
        };
        if wasi && self.host.is_some() {
            let settings = serde_json::json!({"wasi": true});
            let _: Tree = client.put_json(&format!("/api/v1/plugins/{name}/settings"), &settings)?;
        }
        let installed: Tree = client.post_component("/api/v1/plugins?activate=true", component.into())?;
        match installed["state"].as_str() {
            Some("active") => Ok(changes),
            state => Err(Failure::new(anyhow::anyhow!(
                "the host has installed the version, but it is {}",
                state.unwrap_or("not active")
            ))
            .hint(format!(
                "if its tables have changed, rebuild them: lantern rebuild {name}"
            ))),
        }
    }

    /// Publishes new fixtures to the broker of the temporary host. Prints a failure, because the author may be editing a file.
    fn publish_fixtures(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        if let Err(failure) = self.try_publish_fixtures(manifest) {
            print_error(format_args!("{}", failure.render()));
        }
        Ok(())
    }

    fn try_publish_fixtures(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        let Some(host) = &self.host else { return Ok(()) };
        let folder = self.project.dir().join(fixture::FOLDER);
        let mut messages = 0;
        for fixture in fixture::read(&folder, manifest)? {
            let content = std::fs::read(&fixture.file).unwrap_or_default();
            if self.published.insert((fixture.name.clone(), content)) {
                host.publish(&manifest.sources[fixture.source], &fixture.messages)?;
                messages += fixture.messages.len();
            }
        }
        match messages {
            0 => Ok(()),
            _ => print(&format!(
                "published {} of {}\n",
                super::count(messages, "message"),
                relative(&folder)
            )),
        }
    }

    fn print_changes(&mut self) -> Result<(), Failure> {
        if let Some(changes) = &mut self.changes {
            let client = match &self.host {
                Some(host) => host.client()?,
                None => Client::open(&self.args.host)?,
            };
            changes.print_new(&client)?;
        }
        for line in drain_log(&self.log) {
            print(&format!("{line}\n"))?;
        }
        Ok(())
    }
}

fn relative(folder: &Path) -> String {
    folder.strip_prefix(".").unwrap_or(folder).display().to_string()
}
