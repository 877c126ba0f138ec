//! The bounds of one running guest, all in one place: memory, tables, processor time and lines of log. The bounds
//! of its answers are in `answer`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, Result, Store, StoreContextMut, UpdateDeadline};

use super::clock::TICK;
use super::config::Limits;
use super::wasi::Wasi;
use lantern_model::batch::clean_text;

/// Core instances, tables and memories of one component. A Rust plugin has four instances and one memory; one made of
/// many linked libraries (Python) a few dozen instances.
const INSTANCES_MAX: usize = 128;
const TABLES_MAX: usize = 64;
const MEMORIES_MAX: usize = 8;
/// Elements of all tables together, eight bytes each.
const TABLE_ELEMENTS_MAX: usize = 200_000;
/// The contract has no resources; the limit leaves room for a language's runtime and for WASI's streams.
pub(super) const HANDLES_MAX: usize = 1_000;
/// Longest line of a guest that is logged.
pub(super) const LOG_LINE_BYTES_MAX: usize = 4 * 1024;
/// What is kept of a line that the guest logged as an error, for the words of a trap.
pub(super) const ERROR_BYTES_MAX: usize = 600;
/// How much longer than its processor time a call may take by the clock, when other work keeps the processor.
const STARVATION_FACTOR: u32 = 5;

/// What the host keeps for one instance while it lives.
pub(super) struct GuestState {
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    refused: Option<String>,
    last_error: Option<String>,
    deadline: Deadline,
    log: Arc<LogGate>,
    wasi: Option<Box<Wasi>>,
}

impl GuestState {
    /// Makes a store that bounds whatever is instantiated in it.
    pub fn store(engine: &wasmtime::Engine, limits: &Limits, log: &Arc<LogGate>) -> Store<Self> {
        let state = Self {
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes,
            table_elements: 0,
            refused: None,
            last_error: None,
            deadline: Deadline::after(Duration::ZERO),
            log: Arc::clone(log),
            wasi: None,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.answer_bytes());
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|store: StoreContextMut<'_, Self>| Ok(store.data().deadline.verdict()));
        store
    }

    /// Starts the time of a call.
    pub fn start(store: &mut Store<Self>, time: Duration) {
        let state = store.data_mut();
        state.deadline = Deadline::after(time);
        state.refused = None;
        state.last_error = None;
        if let Some(wasi) = &state.wasi {
            wasi.begin_call();
        }
        store.set_epoch_deadline(ticks(time));
    }

    /// Linear memory that the guest has now.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// What the guest was refused since the call began, in words.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// A permit to log one line, unless the guest has had its share of this second.
    pub fn log_line(&self) -> Option<LogLine<'_>> {
        self.log.admit()
    }

    /// Keeps what the guest has logged as an error, for the words of a trap that may follow.
    pub fn note_error(&mut self, text: String) {
        self.last_error = Some(text);
    }

    /// The last line that the guest has logged as an error since the call began. Before a trap it is mostly the words
    /// of a panic.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The guest's WASI. Only where it is linked does anybody ask for it.
    pub fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(&self.log)))
    }
}

impl ResourceLimiter for GuestState {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.memory_bytes_max {
            self.refused = Some(format!(
                "it wanted {} MiB of memory and may have {} MiB",
                total.div_ceil(1 << 20),
                self.memory_bytes_max >> 20
            ));
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let total = self
            .table_elements
            .saturating_add(desired.saturating_sub(current));
        if total > TABLE_ELEMENTS_MAX {
            self.refused = Some(format!(
                "it wanted tables of {total} elements and may have {TABLE_ELEMENTS_MAX}"
            ));
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

/// When a call has had its time. Processor time decides, so that a busy machine does not make dead letters of good
/// messages; the clock only has the last word.
struct Deadline {
    processor: Duration,
    clock: Instant,
}

impl Deadline {
    fn after(time: Duration) -> Self {
        Self {
            processor: processor_time() + time,
            clock: Instant::now() + time * STARVATION_FACTOR,
        }
    }

    fn verdict(&self) -> UpdateDeadline {
        match self.processor.checked_sub(processor_time()) {
            Some(left) if !left.is_zero() && Instant::now() < self.clock => {
                UpdateDeadline::Continue(ticks(left))
            }
            _ => UpdateDeadline::Interrupt,
        }
    }
}

/// Ticks that are not shorter than `time`: the first may come at once.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).map_or(u64::MAX, |ticks| ticks.saturating_add(1))
}

/// Processor time of the calling thread. A guest runs on the thread that calls it.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// One plugin's way into the host's log; all its instances share it.
pub(super) struct LogGate {
    plugin: String,
    lines_per_second: u32,
    window: Mutex<Window>,
    dropped: AtomicU64,
}

struct Window {
    start: Instant,
    lines: u32,
}

impl LogGate {
    pub fn new(plugin: String, lines_per_second: u32) -> Self {
        let window = Mutex::new(Window {
            start: Instant::now(),
            lines: 0,
        });
        Self {
            plugin,
            lines_per_second,
            window,
            dropped: AtomicU64::new(0),
        }
    }

    /// Lines dropped since the plugin was loaded.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A permit to log one line, unless the plugin has had its share of this second.
    pub fn admit(&self) -> Option<LogLine<'_>> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(window.start) >= Duration::from_secs(1) {
            *window = Window { start: now, lines: 0 };
        }
        if window.lines < self.lines_per_second {
            window.lines += 1;
            Some(LogLine { plugin: &self.plugin })
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// The contract's levels.
#[derive(Clone, Copy, Debug)]
pub(super) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// The right to one line in the log.
pub(super) struct LogLine<'a> {
    plugin: &'a str,
}

impl LogLine<'_> {
    pub fn write(self, level: LogLevel, text: &str) {
        let (plugin, text) = (self.plugin, clean_text(text, LOG_LINE_BYTES_MAX));
        match level {
            LogLevel::Debug => tracing::debug!(target: "lantern::guest", plugin, "{text}"),
            LogLevel::Info => tracing::info!(target: "lantern::guest", plugin, "{text}"),
            LogLevel::Warn => tracing::warn!(target: "lantern::guest", plugin, "{text}"),
            LogLevel::Error => tracing::error!(target: "lantern::guest", plugin, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_log_lines_is_counted_and_dropped() {
        let gate = LogGate::new("flood".into(), 3);
        let admitted = (0..1_000).filter(|_| gate.admit().is_some()).count();
        // A second may begin anew while the loop runs on a busy machine.
        assert!((3..=6).contains(&admitted), "{admitted} lines were admitted");
        assert_eq!(gate.dropped(), 1_000 - admitted as u64);
    }

    #[test]
    fn a_deadline_is_never_shorter_than_its_time() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(TICK), 2);
        assert_eq!(ticks(TICK + Duration::from_nanos(1)), 3);
        assert_eq!(ticks(Duration::from_secs(1)), 101);
    }

    #[test]
    fn processor_time_decides_before_the_clock() {
        let waiting = Deadline::after(Duration::from_secs(60));
        assert!(matches!(waiting.verdict(), UpdateDeadline::Continue(_)));
        let over = Deadline::after(Duration::ZERO);
        assert!(matches!(over.verdict(), UpdateDeadline::Interrupt));
    }
}
