//! The order of operations on one plugin: one at a time, in the order of arrival. Operations on different plugins do
//! not wait for each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// One lane for each plugin with an operation in progress.
#[derive(Default)]
pub(super) struct Lanes {
    by_plugin: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// The right to operate on one plugin; dropping it admits the next operation.
pub(super) struct Lane {
    plugin: String,
    _guard: OwnedMutexGuard<()>,
}

impl Lanes {
    /// Waits until the earlier operations on the plugin have ended.
    pub(super) async fn enter(&self, plugin: &str) -> Lane {
        let lane = self.lane(plugin);
        Lane {
            plugin: plugin.to_owned(),
            _guard: lane.lock_owned().await,
        }
    }

    fn lane(&self, plugin: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut by_plugin = self.by_plugin.lock().unwrap_or_else(PoisonError::into_inner);
        by_plugin.retain(|_, lane| lane.strong_count() > 0);
        if let Some(lane) = by_plugin.get(plugin).and_then(Weak::upgrade) {
            return lane;
        }
        let lane = Arc::default();
        by_plugin.insert(plugin.to_owned(), Arc::downgrade(&lane));
        lane
    }
}

impl Lane {
    /// The plugin.
    pub(super) fn plugin(&self) -> &str {
        &self.plugin
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn operations_on_one_plugin_are_ordered_and_others_do_not_wait() {
        let lanes = Lanes::default();
        let first = lanes.enter("things").await;
        let mut second = Box::pin(lanes.enter("things"));
        let mut third = Box::pin(lanes.enter("things"));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        assert_eq!(lanes.enter("others").await.plugin(), "others");
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        drop(second.await);
        drop(third.await);
        lanes.lane("others");
        assert_eq!(
            lanes.by_plugin.lock().unwrap().len(),
            1,
            "ended lanes are removed"
        );
    }
}
