//! `lantern plugin dev`: builds on each save, swaps into a host, and shows rows, dead letters and the plugin's log as
//! they come. This file is the loop; the host that it starts is in `own`, what is shown in `news`.

mod news;
mod own;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value as Tree;

use super::{build_and_load, heard, listen, time};
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, mutter, print};
use lantern_authoring::fixture;
use lantern_authoring::project::Project;
use lantern_authoring::watch::Watch;
use lantern_model::schema::Manifest;
use lantern_plugin::{Plugin, Speed};
use lantern_telemetry::GuestLine;

use news::News;
use own::Own;

/// How often it is looked for rows and dead letters.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is typed after `lantern plugin dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The project.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The host that each version is installed in; without it and --data-dir one is started, with a broker of its own,
    /// and thrown away at the end.
    #[command(flatten)]
    host: HostArgs,
    /// The nats-server that the started host runs [default: the one on PATH].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "data_dir"])]
    nats_server: Option<PathBuf>,
    /// Build as for `plugin build`, which takes longer.
    #[arg(long)]
    full: bool,
}

/// Everything that the loop has.
struct Dev<'a> {
    args: &'a DevArgs,
    project: Project,
    log: Receiver<GuestLine>,
    stopping: Arc<AtomicBool>,
    own: Option<Own>,
    /// What the version that runs says of itself; one that reads something else needs other streams.
    manifest: Option<Arc<Manifest>>,
    /// Fixtures that were sent, by name and content.
    sent: HashSet<(String, Vec<u8>)>,
    news: Option<News>,
}

pub fn run(args: &DevArgs) -> Result<ExitCode, Failure> {
    // The host's own warnings are about what this command does to it.
    let log = listen("error")?;
    let project = Project::open(&args.path)?;
    let watch = Watch::over(project.dir()).map_err(Failure::new)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopping);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))
        .map_err(|error| Failure::new(anyhow::Error::new(error)))?;
    let mut dev = Dev {
        args,
        project,
        log,
        stopping,
        own: None,
        manifest: None,
        sent: HashSet::new(),
        news: None,
    };
    let ended = dev.go_on(&watch);
    if let Some(own) = dev.own.take() {
        own.stop();
    }
    ended.map(|()| ExitCode::SUCCESS)
}

impl Dev<'_> {
    fn go_on(&mut self, watch: &Watch) -> Result<(), Failure> {
        self.version()?;
        while !self.stops() {
            let changed = watch.wait(LOOK_EVERY);
            if let Some(first) = changed.first() {
                print(&format!("\n{} changed\n", first.display()))?;
                match &self.manifest {
                    // What the component is made of is as it was.
                    Some(manifest) if changed.iter().all(|file| file.starts_with(fixture::FOLDER)) => {
                        let manifest = Arc::clone(manifest);
                        self.send_fixtures(&manifest)?;
                    }
                    _ => self.version()?,
                }
            }
            self.look()?;
        }
        print("\nstopped\n")
    }

    fn stops(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Builds, and swaps what was built in. What goes wrong is told, and the version before it goes on. Only a host that
    /// cannot be started ends the loop.
    fn version(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let speed = if self.args.full { Speed::Full } else { Speed::Quick };
        let built = build_and_load(&self.project, speed);
        if self.stops() {
            return Ok(());
        }
        let (component, loaded) = match built {
            Ok(built) => built,
            Err(failure) => return self.failed(&failure),
        };
        let built_at = Instant::now();
        let plugin = &loaded.plugin;
        print(&format!(
            "{} {} built in {}\n",
            plugin.manifest().name,
            plugin.manifest().version,
            time(built_at - began)
        ))?;
        let client = self.host(plugin.manifest())?;
        let news = match self.take_over(&client, plugin, component.component, loaded.wasi) {
            Ok(news) => news,
            Err(failure) => return self.failed(&failure),
        };
        let shown = self.news.insert(news);
        shown.built_at(built_at);
        self.manifest = Some(Arc::clone(plugin.manifest()));
        if self.own.is_none() {
            print(&format!("it runs in {} and waits for messages\n", client.url()))?;
        }
        self.send_fixtures(plugin.manifest())
    }

    fn failed(&self, failure: &Failure) -> Result<(), Failure> {
        mutter(format_args!("{}", failure.render()));
        match self.news.is_some() {
            true => print("the version before it goes on\n"),
            false => print("waiting for a change\n"),
        }
    }

    /// The host to install in: the one that is named, or one of our own, which begins anew when the plugin reads something
    /// else than before.
    fn host(&mut self, manifest: &Manifest) -> Result<Client, Failure> {
        if self.args.host.is_named() {
            return Client::open(&self.args.host);
        }
        let before = self.manifest.as_ref().map(|manifest| &manifest.sources);
        if self.own.is_some() && before.is_some_and(|before| *before != manifest.sources) {
            print("it reads something else than before: a new host is started\n")?;
            if let Some(own) = self.own.take() {
                own.stop();
            }
        }
        let own = match self.own.take() {
            Some(own) => own,
            None => {
                self.sent.clear();
                self.news = None;
                let own = Own::start(self.args.nats_server.as_deref())?;
                own.make_streams(manifest)?;
                print(&own.greeting(manifest))?;
                own
            }
        };
        self.own.insert(own).client()
    }

    /// Has the host run this version. A host of our own throws the tables away first: what is shown then is what this
    /// version makes of all messages, and its tables may be others than before.
    fn take_over(
        &self,
        client: &Client,
        plugin: &Arc<Plugin>,
        component: Vec<u8>,
        wasi: bool,
    ) -> Result<News, Failure> {
        let manifest = plugin.manifest();
        let name = &manifest.name;
        let news = match self.own.is_some() {
            true => {
                if self.news.is_some() {
                    let _: Tree = client.delete(&format!("/api/v1/plugins/{name}?tables=drop"))?;
                }
                News::from_the_beginning(manifest)
            }
            false => News::from_now_on(manifest, client)?,
        };
        if wasi && self.own.is_some() {
            let settings = serde_json::json!({"wasi": true});
            let _: Tree = client.put_json(&format!("/api/v1/plugins/{name}/settings"), &settings)?;
        }
        let taken: Tree = client.post_component("/api/v1/plugins?activate=true", component.into())?;
        match taken["state"].as_str() {
            Some("active") => Ok(news),
            state => Err(Failure::new(anyhow::anyhow!(
                "the host has taken it, and it is {}",
                state.unwrap_or("not active")
            ))
            .hint(format!(
                "its tables are others than before: lantern rebuild {name}"
            ))),
        }
    }

    /// Sends fixtures that the host's own broker does not have yet. One that cannot be read is told, and waited for.
    fn send_fixtures(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        if let Err(failure) = self.try_to_send_fixtures(manifest) {
            mutter(format_args!("{}", failure.render()));
        }
        Ok(())
    }

    fn try_to_send_fixtures(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        let Some(own) = &self.own else { return Ok(()) };
        let folder = self.project.dir().join(fixture::FOLDER);
        let mut messages = 0;
        for fixture in fixture::read(&folder, manifest)? {
            let content = std::fs::read(&fixture.file).unwrap_or_default();
            if self.sent.insert((fixture.name.clone(), content)) {
                own.send(&manifest.sources[fixture.source], &fixture.messages)?;
                messages += fixture.messages.len();
            }
        }
        match messages {
            0 => Ok(()),
            _ => print(&format!(
                "{} of {} sent\n",
                super::count(messages, "message"),
                shown(&folder)
            )),
        }
    }

    fn look(&mut self) -> Result<(), Failure> {
        if let Some(news) = &mut self.news {
            let client = match &self.own {
                Some(own) => own.client()?,
                None => Client::open(&self.args.host)?,
            };
            news.tell(&client)?;
        }
        for line in heard(&self.log) {
            print(&format!("{line}\n"))?;
        }
        Ok(())
    }
}

fn shown(folder: &Path) -> String {
    folder.strip_prefix(".").unwrap_or(folder).display().to_string()
}
