//! The thread that makes guests interruptible: it advances the engine's epoch while a call runs, and sleeps without
//! wakeups while none does. It ends with the last user of its engine.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::EngineWeak;

/// The precision of deadlines. A hundred wakeups a second, only while guests run, cost nothing noticeable; a finer
/// precision would not help, because the shortest deadline is 50 ms.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Owns the ticking thread.
pub(super) struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<ClockState>,
    changed: Condvar,
}

#[derive(Default)]
struct ClockState {
    calls: usize,
    stopped: bool,
}

impl Clock {
    /// Starts the thread. It holds a weak reference to the engine, so it never keeps one alive.
    pub fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let ticking = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("lantern-epoch".into())
            .spawn(move || ticking.tick(&engine))?;
        Ok(Self { shared })
    }

    /// Keeps the epoch advancing until the guard is dropped.
    pub fn call(&self) -> Running<'_> {
        let mut state = self.shared.state();
        state.calls += 1;
        if state.calls == 1 {
            self.shared.changed.notify_one();
        }
        Running { shared: &self.shared }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, engine: &EngineWeak) {
        loop {
            let mut state = self.state();
            while state.calls == 0 && !state.stopped {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped {
                return;
            }
            drop(state);
            std::thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }
}

/// A running call.
pub(super) struct Running<'a> {
    shared: &'a Shared,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.state().calls -= 1;
    }
}
