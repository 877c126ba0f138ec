//! Pauses. A pause takes effect at once, also during a longer operation on the same plugin: it has its own order, and
//! a version that is assigned later is paused too.

use super::{Inner, LifecycleError, Requester};
use lantern_store::Pause;

/// A change of a plugin's pause.
pub(super) enum PauseChange {
    /// Leaves it as it is.
    Keep,
    Pause(Pause),
    Resume,
}

impl Inner {
    /// Pauses or resumes a plugin, as `decide` says about its present pause.
    pub(super) async fn change_pause(
        &self,
        plugin: &str,
        by: &Requester,
        decide: impl FnOnce(Option<&Pause>) -> PauseChange,
    ) -> Result<(), LifecycleError> {
        // The database and the running plugins have to see two changes in the same order.
        self.require_here(plugin)?;
        let _lane = self.pauses.enter(plugin).await;
        let installation = self.installation(plugin).await?;
        let pause = match decide(installation.paused.as_ref()) {
            PauseChange::Keep => return Ok(()),
            PauseChange::Pause(pause) => Some(pause),
            PauseChange::Resume => None,
        };
        let reason = pause.as_ref().map(|pause| pause.reason.clone());
        let action = match reason {
            Some(_) => "plugin.pause",
            None => "plugin.resume",
        };
        let mark = by.mark(action, plugin, None, reason.clone().unwrap_or_default());
        self.parts.store.plugins().set_paused(plugin, pause, mark).await?;
        self.running.set_paused(plugin, reason.clone()).await?;
        match reason {
            Some(reason) => tracing::warn!(plugin, reason, %by, "paused a plugin"),
            None => tracing::info!(plugin, %by, "resumed a plugin"),
        }
        Ok(())
    }
}
