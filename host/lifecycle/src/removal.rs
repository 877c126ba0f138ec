//! Removal of a plugin: ends its projections, removes it from the database and deletes its consumers on the broker.

use super::consumers::{AbandonedLeft, Removal};
use super::lanes::Lane;
use super::{Inner, LifecycleError, Requester};
use lantern_model::results::plugins::ConsumerLeft;
use lantern_store::AuditMark;

impl Inner {
    pub(super) async fn remove(
        &self,
        plugin: &str,
        drop_tables: bool,
        by: &Requester,
    ) -> Result<Removal, LifecycleError> {
        let lane = self.enter(plugin).await?;
        self.installation(plugin).await?;
        self.check_no_rebuild(plugin)?;
        let mark = by.mark("plugin.remove", plugin, None, String::new());
        let dropped = self.remove_stored(&lane, drop_tables, mark).await?;
        self.clear_plugin_failure(plugin);
        tracing::warn!(plugin, tables = ?dropped, %by, "removed a plugin");
        let left = self.delete_abandoned(&lane, &mut None).await?;
        if !left.is_empty() {
            self.abandoned.notify_one();
        }
        let consumers_left = left
            .into_iter()
            .map(|AbandonedLeft { consumer, reason }| ConsumerLeft {
                stream: consumer.stream,
                consumer: consumer.consumer,
                reason,
            })
            .collect();
        Ok(Removal {
            dropped,
            consumers_left,
        })
    }

    /// Ends the projections, then removes the plugin from the database. If that fails, the projections run again.
    /// Returns the names of the dropped tables.
    async fn remove_stored(
        &self,
        lane: &Lane,
        drop_tables: bool,
        mark: Option<AuditMark>,
    ) -> Result<Vec<String>, LifecycleError> {
        let plugin = lane.plugin();
        let consumers = self.consumers_of(plugin).await?;
        // A concurrent pause would otherwise apply to a plugin that is no longer installed.
        let _pauses = self.pauses.enter(plugin).await;
        let version = self.running.version(plugin);
        self.running.suspend(lane).await?;
        let store = &self.parts.store;
        match store.plugins().remove(plugin, drop_tables, consumers, mark).await {
            Ok(dropped) => {
                self.running.remove(lane).await?;
                Ok(dropped)
            }
            Err(error) => {
                if let Some(version) = version {
                    self.running
                        .assign(lane, version, self.settings_of(plugin))
                        .await?;
                }
                Err(error.into())
            }
        }
    }
}
