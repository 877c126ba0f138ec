//! The plugin directory: the host installs and activates a new or changed file, and pauses the plugin of a removed one.
//! It scans the directory instead of watching events, because file system events get lost, and loads a file only when
//! it has not changed for one interval, because files are written in pieces.
//!
//! A file may have a signature, `NAME.wasm.minisig`, which may arrive before or after it; a changed signature causes a
//! new check of the file.
//!
//! The database records what was done with each file, so that a restart does not undo a rollback.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::StartError;
use super::load_failures::{LoadFailure, LoadSubject};
use super::loading::run_parallel;
use super::pause::PauseChange;
use super::{Actor, Component, Inner, Lifecycle, LifecycleError, Requester};
use lantern_model::actor::HostPart;
use lantern_plugin::{Digest, Plugin};
use lantern_projection::LoadedVersion;
use lantern_store::{Activation, FileRecord, PLUGIN_DIRECTORY_LEASE, Pause, PausedBy};

use files::{FileFailure, FileStamps, LoadedFile, list_files, read_and_load};

/// The scan interval, which is also how long a file has to stay unchanged. Listing ten thousand files takes a few
/// milliseconds.
const SCAN_EVERY: Duration = Duration::from_millis(500);
/// After how many scans a missing file counts as removed: editors and copies remove a file for a moment.
const MISSING_SCANS: u32 = 4;

/// The remembered state of a file.
struct FileState {
    stamps: FileStamps,
    /// Whether the file was processed in this state.
    handled: bool,
    missing: u32,
}

impl Lifecycle {
    /// Number of completed scans of the plugin directory. A file that has not changed is processed after two scans.
    pub fn directory_scans(&self) -> watch::Receiver<u64> {
        self.inner.scans.subscribe()
    }
}

pub(super) struct Directory {
    inner: Arc<Inner>,
    seen: BTreeMap<String, FileState>,
    /// What was last done with each file.
    records: BTreeMap<String, FileRecord>,
    actor: Actor,
    /// Whether the last scan could read the directory.
    readable: bool,
}

impl Directory {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            seen: BTreeMap::new(),
            records: BTreeMap::new(),
            actor: Actor::Host(HostPart::PluginDirectory),
            readable: true,
        }
    }

    fn requester(&self) -> Requester {
        Requester::from(&self.actor)
    }

    fn path(&self) -> &Path {
        &self.inner.parts.config.plugin_dir
    }

    /// The first scan. It assumes that all files are complete.
    pub(super) async fn scan_at_start(&mut self) -> Result<(), StartError> {
        for record in self.inner.parts.store.reader().plugin_files().await? {
            self.records.insert(record.file.clone(), record);
        }
        let found = list_files(self.path()).map_err(|source| StartError::Directory {
            dir: self.path().to_owned(),
            source,
        })?;
        if found.is_empty() && self.inner.running.len() == 0 {
            let dir = self.path().display().to_string();
            tracing::warn!(
                dir,
                "no plugins (*.wasm) in the plugin directory; the host projects nothing"
            );
        }
        let files: Vec<String> = found.keys().cloned().collect();
        let mut loaded = self.load_files(&files).await;
        for (file, stamps) in found {
            let seen = FileState {
                stamps,
                handled: true,
                missing: 0,
            };
            self.seen.insert(file.clone(), seen);
            match loaded.remove(&file) {
                Some(LoadedFile::Known) | None => {}
                Some(LoadedFile::NewSignature(component)) => self.apply_new_signature(&file, component).await,
                Some(LoadedFile::Plugin(plugin)) => self.activate(&file, plugin).await,
                Some(LoadedFile::Failed(failure)) => self.record_failure(&file, failure).await,
            }
        }
        let gone: Vec<String> = self
            .records
            .keys()
            .filter(|file| !self.seen.contains_key(*file))
            .cloned()
            .collect();
        for file in gone {
            self.pause_removed(&file).await;
        }
        Ok(())
    }

    /// The digests of active versions that do not run because their stored components are missing or damaged. A file
    /// with these bytes restores them.
    async fn missing_components(&self) -> BTreeSet<String> {
        let installations = match self.inner.installations().await {
            Ok(installations) => installations,
            Err(error) => {
                tracing::warn!(%error, "failed to read the installed plugins");
                return BTreeSet::new();
            }
        };
        let missing_components = installations.iter().filter_map(|installation| {
            let active = installation.active.and_then(|id| installation.version(id))?;
            let runs = self.inner.running.version(&installation.plugin).is_some();
            let digest: Digest = active.digest.parse().ok()?;
            (!runs && self.inner.components.get(digest).is_err()).then(|| active.digest.clone())
        });
        missing_components.collect()
    }

    /// The digest that was last installed from a file, unless it has to be installed again.
    fn known_digest(&self, file: &str, missing_components: &BTreeSet<String>) -> Option<String> {
        let record = self.records.get(file)?;
        (!missing_components.contains(&record.digest)).then(|| record.digest.clone())
    }

    /// Loads files in parallel, because loading takes most of the time of the first start.
    async fn load_files(&self, files: &[String]) -> BTreeMap<String, LoadedFile> {
        let inner = Arc::clone(&self.inner);
        let missing_components = self.missing_components().await;
        let known: Vec<(String, Option<String>)> = files
            .iter()
            .map(|file| (file.clone(), self.known_digest(file, &missing_components)))
            .collect();
        let taken = run_parallel(known, move |(file, known)| {
            let taken = read_and_load(&inner, &file, known.as_deref());
            (file, taken)
        });
        taken.await.into_iter().collect()
    }

    /// Scans the directory until the host stops.
    pub(super) async fn watch(mut self) {
        let stop = self.inner.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SCAN_EVERY) => {}
            }
            // Of several hosts one reads its directory.
            if self.inner.runs_here(PLUGIN_DIRECTORY_LEASE) {
                self.scan().await;
            }
            self.inner.scans.send_modify(|scans| *scans += 1);
        }
    }

    async fn scan(&mut self) {
        let path = self.path().to_owned();
        let listed = tokio::task::spawn_blocking(move || list_files(&path)).await;
        let found = match listed {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.record_unreadable(&error.to_string()),
            Err(error) => return self.record_unreadable(&error.to_string()),
        };
        if !self.readable {
            self.readable = true;
            self.inner.clear_load_failure(&LoadSubject::PluginDirectory);
            tracing::info!("the plugin directory is readable again");
        }
        let mut ready = Vec::new();
        for (file, stamps) in &found {
            match self.seen.get_mut(file) {
                Some(seen) if seen.stamps == *stamps => {
                    seen.missing = 0;
                    if !seen.handled {
                        seen.handled = true;
                        ready.push(file.clone());
                    }
                }
                _ => {
                    let seen = FileState {
                        stamps: *stamps,
                        handled: false,
                        missing: 0,
                    };
                    self.seen.insert(file.clone(), seen);
                }
            }
        }
        for file in ready {
            self.load_file(&file).await;
        }
        let mut gone = Vec::new();
        for (file, seen) in &mut self.seen {
            if !found.contains_key(file) {
                seen.missing += 1;
                if seen.missing >= MISSING_SCANS {
                    gone.push(file.clone());
                }
            }
        }
        for file in gone {
            self.seen.remove(&file);
            self.pause_removed(&file).await;
        }
    }

    async fn load_file(&mut self, file: &str) {
        let known = self.known_digest(file, &self.missing_components().await);
        let (inner, name) = (Arc::clone(&self.inner), file.to_owned());
        let taken = {
            // Compile one component at a time in the whole host.
            let _permit = self.inner.compiling.acquire().await.ok();
            tokio::task::spawn_blocking(move || read_and_load(&inner, &name, known.as_deref())).await
        };
        match taken {
            Ok(LoadedFile::Known) => {
                self.inner.clear_load_failure(&failure_subject(file));
                self.resume_returned(file).await;
            }
            Ok(LoadedFile::NewSignature(component)) => self.apply_new_signature(file, component).await,
            Ok(LoadedFile::Plugin(plugin)) => self.activate(file, plugin).await,
            Ok(LoadedFile::Failed(failure)) => self.record_failure(file, failure).await,
            Err(error) => {
                let reason = format!("the host panicked while it loaded the file: {error}");
                self.record_failure(file, FileFailure::new(reason)).await;
            }
        }
    }

    /// Activates a file's plugin. If the file held another plugin before, that plugin is paused.
    async fn activate(&mut self, file: &str, (plugin, component): (Arc<Plugin>, Component)) {
        let name = plugin.manifest().name.to_string();
        let other = self.records.values().find(|record| {
            record.plugin == name && record.file != file && self.seen.contains_key(&record.file)
        });
        if let Some(other) = other {
            let reason = format!(
                "another file, {}, already holds a plugin named {name}",
                other.file
            );
            return self.record_failure(file, FileFailure::new(reason)).await;
        }
        if let Some(before) = self.records.get(file)
            && before.plugin != name
        {
            let before = before.plugin.clone();
            self.pause_plugin(&before, format!("its file {file} now holds another plugin"))
                .await;
        }
        let digest = plugin.digest();
        match self.store_and_activate(file, plugin, component).await {
            Ok(()) => {
                let record = FileRecord {
                    file: file.to_owned(),
                    digest: digest.to_string(),
                    plugin: name,
                };
                if let Err(error) = self.inner.parts.store.plugins().record_file(record.clone()).await {
                    tracing::warn!(file, %error, "failed to record the installation of a file; the next start checks it again");
                }
                self.records.insert(file.to_owned(), record);
                self.inner.clear_load_failure(&failure_subject(file));
            }
            Err(error) => {
                self.retry_if_temporary(file, &error);
                self.record_failure(file, FileFailure::from_error(error)).await;
            }
        }
    }

    /// Processes the file again at the next scan if the error is temporary: the database may recover, and a rebuild
    /// end.
    fn retry_if_temporary(&mut self, file: &str, error: &LifecycleError) {
        let passes = matches!(
            error,
            LifecycleError::Unavailable(_) | LifecycleError::Conflict(_)
        );
        if passes && let Some(seen) = self.seen.get_mut(file) {
            seen.handled = false;
        }
    }

    async fn store_and_activate(
        &self,
        file: &str,
        plugin: Arc<Plugin>,
        component: Component,
    ) -> Result<(), LifecycleError> {
        let came_from = format!("file {file}");
        self.inner
            .store_component(&plugin, component, &came_from, &self.requester())
            .await?;
        let name = plugin.manifest().name.to_string();
        self.inner
            .activate_version(
                Arc::new(LoadedVersion::new(plugin)),
                Activation::Activate,
                &self.requester(),
            )
            .await?;
        self.resume_if_paused_by_directory(&name).await
    }

    /// The bytes are unchanged, but their signature is new: stores it, and activates a version that was rejected
    /// without it.
    async fn apply_new_signature(&mut self, file: &str, component: Component) {
        let Some(record) = self.records.get(file) else {
            return;
        };
        match self.store_new_signature(&record.plugin, component).await {
            Ok(()) => {
                self.inner.clear_load_failure(&failure_subject(file));
                self.resume_returned(file).await;
            }
            // The plugin was removed; a new signature does not restore it.
            Err(LifecycleError::NoPlugin(_)) => {}
            Err(error) => {
                self.retry_if_temporary(file, &error);
                self.record_failure(file, FileFailure::from_error(error)).await;
            }
        }
    }

    async fn store_new_signature(&self, plugin: &str, component: Component) -> Result<(), LifecycleError> {
        let installation = self.inner.installation(plugin).await?;
        let digest = Digest::of(&component.bytes);
        let inner = Arc::clone(&self.inner);
        let kept = tokio::task::spawn_blocking(move || {
            inner.store_signature(digest, &component)?;
            Ok::<_, io::Error>(inner.check_signature(&component))
        });
        let unkept =
            |error: String| LifecycleError::Unavailable(format!("failed to store its signature: {error}"));
        let kept = kept.await.map_err(|error| unkept(error.to_string()))?;
        kept.map_err(|error| unkept(error.to_string()))??;
        let active = installation.active.and_then(|id| installation.version(id));
        let is_active = active.is_some_and(|active| active.digest == digest.to_string());
        if is_active && self.inner.running.version(plugin).is_none() {
            let version = self.inner.load_version(plugin, digest).await?;
            self.inner
                .activate_version(version, Activation::Activate, &self.requester())
                .await?;
        }
        Ok(())
    }

    /// Resumes the plugin of a file that returned with the same bytes.
    async fn resume_returned(&self, file: &str) {
        if let Some(record) = self.records.get(file)
            && let Err(error) = self.resume_if_paused_by_directory(&record.plugin).await
        {
            tracing::warn!(file, %error, "failed to resume a plugin whose file returned");
        }
    }

    /// Resumes a plugin only if the directory paused it.
    async fn resume_if_paused_by_directory(&self, plugin: &str) -> Result<(), LifecycleError> {
        let decide = |present: Option<&Pause>| match present {
            Some(pause) if pause.by == PausedBy::PluginDirectory => PauseChange::Resume,
            _ => PauseChange::Keep,
        };
        match self.inner.change_pause(plugin, &self.requester(), decide).await {
            // The plugin was removed; the same bytes do not restore it.
            Err(LifecycleError::NoPlugin(_)) => Ok(()),
            changed => changed,
        }
    }

    /// Pauses the plugin of a removed file.
    async fn pause_removed(&mut self, file: &str) {
        self.inner.clear_load_failure(&failure_subject(file));
        // Of several hosts, another one may have the file.
        if self.inner.parts.leases.is_some() {
            return;
        }
        let Some(record) = self.records.get(file) else {
            return;
        };
        let plugin = record.plugin.clone();
        if let Err(LifecycleError::NoPlugin(_)) = self.inner.installation(&plugin).await {
            self.delete_record(file).await;
            return;
        }
        self.pause_plugin(
            &plugin,
            format!("its file {file} was removed from the plugin directory"),
        )
        .await;
    }

    /// Deletes the record of a file whose plugin was removed too. If the file returns, it is new.
    async fn delete_record(&mut self, file: &str) {
        if let Err(error) = self.inner.parts.store.plugins().forget_file(file).await {
            tracing::warn!(file, %error, "failed to delete the record of a removed file; will retry on next start");
            return;
        }
        self.records.remove(file);
    }

    async fn pause_plugin(&self, plugin: &str, reason: String) {
        if let Err(error) = self.pause_unless_paused(plugin, reason).await {
            tracing::warn!(plugin, %error, "failed to pause a plugin whose file was removed");
        }
    }

    async fn pause_unless_paused(&self, plugin: &str, reason: String) -> Result<(), LifecycleError> {
        let decide = |present: Option<&Pause>| match present {
            // Keep an existing pause and its reason.
            Some(_) => PauseChange::Keep,
            None => PauseChange::Pause(Pause {
                by: PausedBy::PluginDirectory,
                reason,
            }),
        };
        match self.inner.change_pause(plugin, &self.requester(), decide).await {
            // A removed plugin needs no pause.
            Err(LifecycleError::NoPlugin(_)) => Ok(()),
            changed => changed,
        }
    }

    async fn record_failure(&self, file: &str, failure: FileFailure) {
        let recorded = LoadFailure {
            subject: failure_subject(file),
            reason: failure.reason,
            blocks_messages: false,
            unsigned: failure.unsigned.is_some(),
        };
        // Log a repeated failure once.
        if !self.inner.load_failures().contains(&recorded) {
            tracing::error!(file, reason = recorded.reason, "failed to load a plugin");
            if recorded.unsigned {
                let detail = format!("file {file}: {}", recorded.reason);
                self.inner
                    .audit_rejection(&self.actor, None, failure.unsigned, &detail)
                    .await;
            }
        }
        self.inner.record_load_failure(recorded);
    }

    /// Records that the directory cannot be read. Running plugins continue.
    fn record_unreadable(&mut self, error: &str) {
        if self.readable {
            tracing::warn!(
                error,
                "cannot read the plugin directory; running plugins continue"
            );
        }
        self.readable = false;
        self.inner.record_load_failure(LoadFailure {
            subject: LoadSubject::PluginDirectory,
            reason: format!("{} cannot be read: {error}", self.path().display()),
            blocks_messages: false,
            unsigned: false,
        });
    }
}

fn failure_subject(file: &str) -> LoadSubject {
    LoadSubject::File(file.to_owned())
}
