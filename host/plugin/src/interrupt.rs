//! The interruption of a projector from another thread: its running call ends within a few ticks of the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Interrupts one projector. Cheap to clone; cannot be undone.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends the running call of the projector, and prevents later ones. No message is rejected because of it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the projector was interrupted.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
