//! Loading: from the bytes of a component to a version that can run. A component is checked, compiled and tested before
//! anything of it is stored.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Component, Inner, LifecycleError, Requester, adoption};
use lantern_model::schema::ManifestDescription;
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Digest, DigestError, Plugin};
use lantern_projection::LoadedVersion;
use lantern_store::{Installation, NewVersion};
use lantern_trust::signature::Verdict;

impl Inner {
    /// Returns a version ready to run: already loaded, or loaded from the stored component.
    pub(super) async fn load_version(
        self: &Arc<Self>,
        plugin: &str,
        digest: Digest,
    ) -> Result<Arc<LoadedVersion>, LifecycleError> {
        if let Some(warm) = self.running.warm(plugin, digest) {
            return Ok(warm);
        }
        self.receive_component(digest).await?;
        let inner = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || inner.components.get(digest)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                return Err(LifecycleError::Unavailable(format!(
                    "the component {digest} of plugin {plugin} cannot be read: {error}"
                )));
            }
            Err(error) => return Err(LifecycleError::Unavailable(error.to_string())),
        };
        let (loaded, _) = self.load(bytes.into()).await?;
        Ok(Arc::new(LoadedVersion::new(loaded)))
    }

    /// Takes a component that another host of the database has installed, unless this host has it.
    pub(super) async fn receive_component(self: &Arc<Self>, digest: Digest) -> Result<(), LifecycleError> {
        if self.parts.leases.is_none() || self.components.contains(digest) {
            return Ok(());
        }
        let reader = self.parts.store.reader();
        let Some((bytes, signature)) = reader.shared_component(&digest.to_string()).await? else {
            return Ok(());
        };
        let inner = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            if let Some(signature) = signature {
                inner.components.put_signature(digest, &signature)?;
            }
            inner.components.put(digest, &bytes)
        });
        let kept = kept.await.map_err(|error| error.to_string());
        kept.and_then(|kept| kept.map_err(|error| error.to_string()))
            .map_err(|error| LifecycleError::Unavailable(format!("failed to store a component: {error}")))
    }

    /// Loads and stores a component that an operator sent.
    pub(super) async fn check_and_store(
        self: &Arc<Self>,
        component: Component,
        by: &Requester,
    ) -> Result<Arc<Plugin>, LifecycleError> {
        let (plugin, component) = self.load(component).await?;
        self.store_component(&plugin, component, &format!("sent by {by}"), by)
            .await?;
        Ok(plugin)
    }

    /// Stores a loaded component and registers its version.
    pub(super) async fn store_component(
        self: &Arc<Self>,
        plugin: &Plugin,
        component: Component,
        came_from: &str,
        by: &Requester,
    ) -> Result<(), LifecycleError> {
        let component_bytes = component.bytes.len() as u64;
        let digest = plugin.digest();
        if self.parts.leases.is_some() {
            let (bytes, signature) = (component.bytes.clone(), component.signature.clone());
            let plugins = self.parts.store.plugins();
            plugins
                .share_component(&digest.to_string(), bytes, signature)
                .await?;
        }
        let inner = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            inner.components.put(digest, &component.bytes)?;
            inner.store_signature(digest, &component)
        });
        let kept = kept.await;
        let failed = match kept {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failed {
            return Err(LifecycleError::Unavailable(format!(
                "failed to store the component: {error}"
            )));
        }
        let arrival = NewVersion {
            adoption: adoption(plugin),
            component_bytes,
            came_from: came_from.to_owned(),
            description: ManifestDescription::from(&**plugin.manifest()),
        };
        let name = plugin.manifest().name.as_str();
        let detail = format!("version {}, {came_from}", plugin.manifest().version);
        let mark = by.mark("plugin.install", name, Some(digest), detail);
        Ok(self.parts.store.plugins().install(arrival, mark).await?)
    }

    /// Compiles and tests a component on a blocking thread, one at a time.
    pub(super) async fn load(
        self: &Arc<Self>,
        component: Component,
    ) -> Result<(Arc<Plugin>, Component), LifecycleError> {
        // The semaphore is never closed; without a permit, compilation would merely be unbounded.
        let _permit = self.compiling.acquire().await.ok();
        let inner = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let plugin = inner.load_blocking(&component)?;
            Ok((plugin, component))
        });
        match work.await {
            Ok(loaded) => loaded,
            Err(error) => Err(LifecycleError::Unavailable(format!(
                "the host panicked while it loaded the component: {error}"
            ))),
        }
    }

    /// Checks a component's signature, compiles and tests it, then applies the operator's settings for the plugin that
    /// it declares to be. Blocks.
    pub(super) fn load_blocking(&self, component: &Component) -> Result<Arc<Plugin>, LifecycleError> {
        let verdict = self.check_signature(component)?;
        // The plugin's name is needed to look up its permissions. WASI is empty here, and nothing subscribes.
        let trial = PluginSettings {
            wasi: true,
            internal_subjects: true,
            ..PluginSettings::default()
        };
        let plugin = self.load_new_or_installed(&component.bytes, &trial)?;
        let name = plugin.manifest().name.to_string();
        if let Verdict::Faulty(fault) = verdict {
            let (digest, reason) = (plugin.digest(), fault.to_string());
            tracing::warn!(plugin = name, %digest, reason, "loading a plugin without a valid signature");
        }
        plugin
            .with_settings(&self.settings_of(&name))
            .map_err(|source| LifecycleError::Settings { plugin: name, source })
    }

    /// Loads a component. One that is already installed may declare what a new version must not.
    fn load_new_or_installed(
        &self,
        bytes: &[u8],
        settings: &PluginSettings,
    ) -> Result<Arc<Plugin>, LifecycleError> {
        let loader = &self.parts.loader;
        if !self.components.contains(Digest::of(bytes)) {
            return loader.load_with(bytes, settings).map_err(LifecycleError::Load);
        }
        let plugin = loader
            .load_installed(bytes, settings)
            .map_err(LifecycleError::Load)?;
        for problem in plugin.manifest().portability_problems() {
            let (plugin, digest) = (&plugin.manifest().name, plugin.digest());
            tracing::warn!(
                %plugin,
                %digest,
                %problem,
                "this installed version is not portable: it keeps running, but this host accepts no new version with this declaration"
            );
        }
        Ok(plugin)
    }

    /// Loads a stored component. Blocks.
    pub(super) fn load_stored(&self, digest: &str) -> Result<Arc<Plugin>, LifecycleError> {
        let unreadable =
            |error: String| LifecycleError::Unavailable(format!("its component cannot be read: {error}"));
        let digest: Digest = digest
            .parse()
            .map_err(|error: DigestError| unreadable(error.to_string()))?;
        let bytes = self.components.get(digest);
        let bytes = bytes.map_err(|error| unreadable(error.to_string()))?;
        self.load_blocking(&bytes.into())
    }

    /// Removes components that no plugin references.
    pub(super) fn sweep(&self, installations: &[Installation]) {
        let kept: Vec<Digest> = installations
            .iter()
            .flat_map(|installation| &installation.versions)
            .filter_map(|version| version.digest.parse().ok())
            .collect();
        if let Err(error) = self.components.sweep(&kept) {
            tracing::warn!(%error, "failed to remove unused components");
        }
    }
}

/// Runs blocking work on many items, as many at a time as there are processors. Returns the results in any order.
pub(super) async fn run_parallel<T: Send + 'static, U: Send + 'static>(
    items: Vec<T>,
    work: impl Fn(T) -> U + Clone + Send + 'static,
) -> Vec<U> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut items = items.into_iter();
    let mut working = JoinSet::new();
    let mut done = Vec::new();
    loop {
        while working.len() < processors
            && let Some(item) = items.next()
        {
            let work = work.clone();
            working.spawn_blocking(move || work(item));
        }
        match working.join_next().await {
            Some(Ok(result)) => done.push(result),
            Some(Err(error)) => tracing::error!(%error, "the host panicked while it loaded a plugin"),
            None => return done,
        }
    }
}
