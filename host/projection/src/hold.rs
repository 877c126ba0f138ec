//! Stops the commits of a plugin's live projections for a moment, without ending their sessions.
//!
//! A projection has a permit while it may change the database. When an operation wants to hold the commits, each
//! projection finishes its batches in flight, returns its permit, and waits until the operation has ended.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

/// The hold of one plugin. Cheap to clone.
#[derive(Clone)]
pub struct CommitHold {
    /// Projections share it; an operation takes it exclusively.
    permits: Arc<RwLock<()>>,
    /// The number of operations that wait for the hold, or have it.
    wanted: Arc<watch::Sender<u32>>,
}

impl Default for CommitHold {
    fn default() -> Self {
        Self {
            permits: Arc::default(),
            wanted: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// While it exists, no projection of the plugin commits.
pub struct CommitHoldGuard {
    _exclusive: OwnedRwLockWriteGuard<()>,
    _wish: Wish,
}

/// Counts an operation in [`CommitHold::wanted`].
struct Wish(Arc<watch::Sender<u32>>);

impl Wish {
    fn new(wanted: &Arc<watch::Sender<u32>>) -> Self {
        wanted.send_modify(|count| *count += 1);
        Self(Arc::clone(wanted))
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl CommitHold {
    /// Waits until all projections of the plugin have finished their batches in flight. Dropping the future ends the wish.
    pub async fn hold(&self) -> CommitHoldGuard {
        let wish = Wish::new(&self.wanted);
        CommitHoldGuard {
            _exclusive: Arc::clone(&self.permits).write_owned().await,
            _wish: wish,
        }
    }

    /// Waits while an operation holds the commits.
    pub(super) async fn permit(&self) -> CommitPermit {
        CommitPermit {
            shared: Some(Arc::clone(&self.permits).read_owned().await),
            wanted: self.wanted.subscribe(),
            hold: self.clone(),
        }
    }
}

/// The right of one projection to commit.
pub(super) struct CommitPermit {
    hold: CommitHold,
    wanted: watch::Receiver<u32>,
    shared: Option<OwnedRwLockReadGuard<()>>,
}

impl CommitPermit {
    /// Waits until an operation wants to hold the commits.
    pub(super) async fn wanted(&mut self) {
        // The sender is part of `hold`, so waiting cannot fail.
        drop(self.wanted.wait_for(|count| *count > 0).await);
    }

    /// Lets the operation hold the commits, and waits for its end. No batch may be in flight.
    pub(super) async fn give_way(&mut self) {
        self.shared = None;
        self.shared = Some(Arc::clone(&self.hold.permits).read_owned().await);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_operation_waits_for_the_permits_and_projections_wait_for_the_operation() {
        let hold = CommitHold::default();
        let [mut one, mut other] = [hold.permit().await, hold.permit().await];
        assert!(one.wanted().now_or_never().is_none());
        let mut waiting = Box::pin(hold.hold());
        assert!(waiting.as_mut().now_or_never().is_none());
        one.wanted().await;
        let mut first = Box::pin(one.give_way());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(
            waiting.as_mut().now_or_never().is_none(),
            "the other one may commit"
        );
        let mut second = Box::pin(other.give_way());
        assert!(second.as_mut().now_or_never().is_none());
        let held = waiting.await;
        assert!(first.as_mut().now_or_never().is_none());
        assert!(hold.permit().now_or_never().is_none(), "a new session waits, too");
        drop(held);
        first.await;
        second.await;
        assert!(one.wanted().now_or_never().is_none(), "the wish has ended");
    }

    #[tokio::test]
    async fn a_cancelled_operation_leaves_no_request() {
        let hold = CommitHold::default();
        let mut permit = hold.permit().await;
        assert!(hold.hold().now_or_never().is_none());
        assert!(permit.wanted().now_or_never().is_none());
        drop(permit);
        assert!(hold.hold().now_or_never().is_some());
    }
}
