//! The numeric limits of one running guest, and the deadline of a call. The limits of its answers are in `answer`.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use super::clock::TICK;

/// Core instances, tables and memories of one component. A Rust plugin has four instances and one memory; a component of
/// many linked libraries (Python) has a few dozen instances.
pub(super) const INSTANCES_MAX: usize = 128;
pub(super) const TABLES_MAX: usize = 64;
pub(super) const MEMORIES_MAX: usize = 8;
/// Elements of all tables together, eight bytes each.
pub(super) const TABLE_ELEMENTS_MAX: usize = 200_000;
/// The contract has no resources; the limit leaves room for a language's runtime and for WASI's streams.
pub(super) const HANDLES_MAX: usize = 1_000;
/// How often a running call checks its deadline and whether it was interrupted.
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// How much more wall-clock time than processor time a call may take while other work occupies the processor.
const STARVATION_FACTOR: u32 = 5;

/// The deadline of a call. Processor time decides, so that a busy machine does not turn good messages into dead letters;
/// wall-clock time is only the upper bound.
pub(super) struct Deadline {
    processor: Duration,
    clock: Instant,
}

impl Deadline {
    pub fn after(time: Duration) -> Self {
        Self {
            processor: processor_time() + time,
            clock: Instant::now() + time * STARVATION_FACTOR,
        }
    }

    /// Whether the call may continue, and for how many ticks until the next check.
    pub fn check(&self) -> UpdateDeadline {
        match self.processor.checked_sub(processor_time()) {
            Some(left) if !left.is_zero() && Instant::now() < self.clock => {
                UpdateDeadline::Continue(ticks_until_check(left))
            }
            _ => UpdateDeadline::Interrupt,
        }
    }
}

/// The number of ticks until the next check of a call that may take `left` longer.
pub(super) fn ticks_until_check(left: Duration) -> u64 {
    ticks(left.min(CHECK_EVERY))
}

/// A number of ticks that takes at least `time`: the first tick may come at once.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).map_or(u64::MAX, |ticks| ticks.saturating_add(1))
}

/// Processor time of the calling thread. A guest runs on the thread that calls it.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_shorter_than_its_time() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(TICK), 2);
        assert_eq!(ticks(TICK + Duration::from_nanos(1)), 3);
        assert_eq!(ticks(Duration::from_secs(1)), 101);
        assert_eq!(
            ticks_until_check(TICK + Duration::from_nanos(1)),
            3,
            "a short time is not rounded up to the interval of checks"
        );
        assert_eq!(ticks_until_check(Duration::from_secs(1)), 6);
    }

    #[test]
    fn processor_time_decides_before_wall_clock_time() {
        let waiting = Deadline::after(Duration::from_secs(60));
        assert!(matches!(waiting.check(), UpdateDeadline::Continue(_)));
        let over = Deadline::after(Duration::ZERO);
        assert!(matches!(over.check(), UpdateDeadline::Interrupt));
    }
}
