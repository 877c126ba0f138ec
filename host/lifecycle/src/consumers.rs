//! The durable consumers of removed plugins and ended rebuilds. The host deletes them on the broker, because an
//! interest stream keeps every message that an abandoned consumer has not acknowledged. It stores a failed deletion in
//! the database and repeats it when the broker is reachable.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::lanes::Lane;
use super::{Inner, Lifecycle, LifecycleError};
use lantern_broker::{BrokerError, OpenError, TakeOver};
use lantern_model::results::plugins::{ConsumerLeft, ConsumerTakenOver, TakeOverOutcome};
use lantern_projection::consumer_names;
use lantern_store::AbandonedConsumer;

/// How often the host repeats a deletion that the broker refused. It notices a new connection at once.
const RETRY_EVERY: Duration = Duration::from_secs(60);

/// The result of removing a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The dropped tables.
    pub dropped: Vec<String>,
    /// Its consumers that are still on the broker. The host deletes them as soon as it can.
    pub consumers_left: Vec<ConsumerLeft>,
}

impl Inner {
    pub(super) fn consumer_names(&self, plugin: &str, source: &str) -> [String; 2] {
        consumer_names(&self.parts.config.projections.consumer_prefix, plugin, source)
    }

    /// All durable consumers that a plugin may have on the broker: of each source that ever read a stream, live and
    /// rebuilding.
    pub(super) async fn consumers_of(&self, plugin: &str) -> Result<Vec<AbandonedConsumer>, LifecycleError> {
        let streams = self.parts.store.reader().streams_read_by(plugin).await?;
        let consumers = streams.into_iter().flat_map(|(source, stream)| {
            self.consumer_names(plugin, &source)
                .map(|consumer| AbandonedConsumer {
                    stream: stream.clone(),
                    consumer,
                    plugin: plugin.to_owned(),
                })
        });
        Ok(consumers.collect())
    }

    /// Deletes the abandoned consumers of one plugin and returns those that could not be deleted. The lane keeps the
    /// plugin from starting to read through a consumer that is being deleted. `away` is why the broker did not answer
    /// an earlier request; no other request is sent then.
    pub(super) async fn delete_abandoned(
        &self,
        lane: &Lane,
        away: &mut Option<String>,
    ) -> Result<Vec<AbandonedLeft>, LifecycleError> {
        let store = &self.parts.store;
        let mut left = Vec::new();
        let mut abandoned = store.reader().abandoned_consumers().await?;
        abandoned.retain(|one| one.plugin == lane.plugin());
        if abandoned.is_empty() {
            return Ok(left);
        }
        let installed = self.installations().await?;
        let installed = installed.iter().any(|it| it.plugin == lane.plugin());
        for one in abandoned {
            let reason = match self.need(installed, &one) {
                Need::Reads => None,
                Need::Unknown(reason) => Some(reason.to_owned()),
                Need::None => self.delete_unless_away(&one, away).await,
            };
            match reason {
                None => store.consumers().forget(one).await?,
                Some(reason) => left.push(AbandonedLeft {
                    consumer: one,
                    reason,
                }),
            }
        }
        Ok(left)
    }

    /// Deletes a consumer, unless the broker is away. Returns why it could not be deleted.
    async fn delete_unless_away(&self, one: &AbandonedConsumer, away: &mut Option<String>) -> Option<String> {
        if away.is_some() {
            return away.clone();
        }
        match self.delete_consumer(&one.stream, &one.consumer).await {
            Ok(()) => {
                tracing::info!(
                    stream = one.stream,
                    consumer = one.consumer,
                    plugin = one.plugin,
                    "deleted a consumer that is no longer needed"
                );
                None
            }
            Err(error) => {
                if error.is_retryable() {
                    *away = Some(error.to_string());
                }
                Some(error.to_string())
            }
        }
    }

    /// Deletes one of this host's consumers on the broker.
    pub(super) async fn delete_consumer(&self, stream: &str, consumer: &str) -> Result<(), BrokerError> {
        let owner = &self.parts.config.projections.owner;
        self.parts.broker.delete_consumer(stream, consumer, owner).await
    }

    fn need(&self, installed: bool, one: &AbandonedConsumer) -> Need {
        if self.rebuilds.of(&one.plugin).is_some() {
            return Need::Unknown("a rebuild of the plugin is running");
        }
        match self.running.manifest(&one.plugin) {
            Some(manifest) => {
                let reads = manifest.sources.iter().any(|source| {
                    let [live, _] = self.consumer_names(&one.plugin, source.name.as_str());
                    source.origin.stream() == Some(one.stream.as_str()) && live == one.consumer
                });
                if reads { Need::Reads } else { Need::None }
            }
            None if installed => Need::Unknown("the plugin is installed again and cannot be loaded"),
            None => Need::None,
        }
    }

    /// Deletes the consumers left by earlier runs, and later those whose deletion failed.
    pub(super) fn watch_abandoned(self: &Arc<Self>) {
        let (inner, stop) = (Arc::clone(self), self.stop.child_token());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = inner.keep_deleting() => {}
            }
        });
    }

    /// Deletes the abandoned consumers of all plugins. Returns whether none is left.
    async fn delete_all_abandoned(&self) -> Result<bool, LifecycleError> {
        let abandoned = self.parts.store.reader().abandoned_consumers().await?;
        let plugins: BTreeSet<String> = abandoned.into_iter().map(|one| one.plugin).collect();
        let (mut away, mut done) = (None, true);
        for plugin in plugins {
            let lane = self.operations.enter(&plugin).await;
            done &= self.delete_abandoned(&lane, &mut away).await?.is_empty();
        }
        Ok(done)
    }

    async fn keep_deleting(&self) {
        let mut link = self.parts.broker.link();
        loop {
            let done = match self.delete_all_abandoned().await {
                Ok(done) => done,
                Err(error) => {
                    tracing::debug!(%error, "failed to read which consumers have to be deleted; will retry");
                    false
                }
            };
            if done {
                self.abandoned.notified().await;
                continue;
            }
            tokio::select! {
                () = self.abandoned.notified() => {}
                () = tokio::time::sleep(RETRY_EVERY) => {}
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// A consumer that could not be deleted.
pub(super) struct AbandonedLeft {
    pub(super) consumer: AbandonedConsumer,
    pub(super) reason: String,
}

/// Whether something reads through a consumer.
enum Need {
    None,
    Reads,
    /// Unknown for now.
    Unknown(&'static str),
}

impl Lifecycle {
    /// Makes this host the owner of a plugin's consumers that another host left behind. A plugin that halted because of
    /// the other owner continues.
    ///
    /// # Errors
    /// [`LifecycleError::NoPlugin`]; [`LifecycleError::Conflict`] when another host reads through a consumer, or the
    /// plugin reads no stream; [`LifecycleError::Unavailable`].
    pub async fn take_over(&self, plugin: &str) -> Result<Vec<ConsumerTakenOver>, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let plugin = plugin.to_owned();
        self.detached(async move { inner.take_over(&plugin).await }).await
    }
}

impl Inner {
    async fn take_over(&self, plugin: &str) -> Result<Vec<ConsumerTakenOver>, LifecycleError> {
        self.require_here(plugin)?;
        self.installation(plugin).await?;
        let manifest = self.running.manifest(plugin);
        let manifest =
            manifest.ok_or_else(|| LifecycleError::Conflict(format!("plugin {plugin} is not running")))?;
        let mut taken = Vec::new();
        for source in &manifest.sources {
            let Some(stream) = source.origin.stream() else {
                continue;
            };
            let [live, rebuild] = self.consumer_names(plugin, source.name.as_str());
            taken.push(self.take_over_one(stream, live).await?);
            // The other host may have left a rebuild behind; usually there is none.
            let rebuild = self.take_over_one(stream, rebuild).await?;
            taken.extend(Some(rebuild).filter(|one| one.outcome != TakeOverOutcome::Absent));
        }
        if taken.is_empty() {
            return Err(LifecycleError::Conflict(format!(
                "plugin {plugin} reads no stream, and core NATS has no consumers"
            )));
        }
        // Make its projections retry at once.
        self.running.notify(plugin);
        Ok(taken)
    }

    async fn take_over_one(
        &self,
        stream: &str,
        consumer: String,
    ) -> Result<ConsumerTakenOver, LifecycleError> {
        let owner = &self.parts.config.projections.owner;
        let result = self.parts.broker.take_over(stream, &consumer, owner).await;
        let (outcome, before) = match result.map_err(|error| match error {
            OpenError::Taken { .. } => LifecycleError::Conflict(format!("{error}; stop that host first")),
            OpenError::Broker(error) => error.into(),
            _ => LifecycleError::Unavailable(error.to_string()),
        })? {
            TakeOver::Absent => (TakeOverOutcome::Absent, None),
            TakeOver::Own => (TakeOverOutcome::Own, Some(owner.clone())),
            TakeOver::Taken(before) => (TakeOverOutcome::TakenOver, before),
        };
        Ok(ConsumerTakenOver {
            stream: stream.to_owned(),
            consumer,
            outcome,
            before,
        })
    }
}
