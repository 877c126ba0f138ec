//! Long work beside the projections, one of a kind at a time for each plugin: a second one would only make both slow.

use std::sync::{Arc, PoisonError};

use super::{Inner, LifecycleError};

/// The right to do one kind of work for one plugin; it ends when this is dropped.
pub(super) struct Turn {
    inner: Arc<Inner>,
    what: String,
}

impl Inner {
    /// Takes the turn, or says that it is taken.
    pub(super) fn turn(self: &Arc<Self>, kind: &str, plugin: &str) -> Result<Turn, LifecycleError> {
        self.exclusive(format!("a {kind} of plugin {plugin}"))
    }

    /// The same for work that concerns no single plugin.
    pub(super) fn exclusive(self: &Arc<Self>, what: String) -> Result<Turn, LifecycleError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(what.clone()) {
            return Err(LifecycleError::Conflict(format!("{what} is running already")));
        }
        drop(busy);
        Ok(Turn {
            inner: Arc::clone(self),
            what,
        })
    }

    /// Whether the work of this name is running.
    pub(super) fn is_busy_with(&self, what: &str) -> bool {
        self.busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(what)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.what);
    }
}
