//! Exclusive background work: one task of a kind for each plugin, because two would only slow down both.

use std::sync::{Arc, PoisonError};

use super::{Inner, LifecycleError};

/// The permit for one kind of work for one plugin; dropping it releases it.
pub(super) struct Permit {
    inner: Arc<Inner>,
    task: String,
}

impl Inner {
    /// Acquires the permit, or returns a conflict if it is taken.
    pub(super) fn permit(self: &Arc<Self>, kind: &str, plugin: &str) -> Result<Permit, LifecycleError> {
        self.exclusive(format!("a {kind} of plugin {plugin}"))
    }

    /// Acquires the permit for work that concerns no single plugin.
    pub(super) fn exclusive(self: &Arc<Self>, task: String) -> Result<Permit, LifecycleError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(task.clone()) {
            return Err(LifecycleError::Conflict(format!("{task} is already running")));
        }
        drop(busy);
        Ok(Permit {
            inner: Arc::clone(self),
            task,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut busy = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.task);
    }
}
