//! The host's state of one running guest, kept in its store: current resource use, the deadline of the call, and what
//! the guest was denied or logged.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{ResourceLimiter, Result, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::config::Limits;
use super::interrupt::Interrupt;
use super::limits::{
    Deadline, HANDLES_MAX, INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX, ticks_until_check,
};
use super::log::{LogGate, LogLine};
use super::wasi::Wasi;

/// What the host keeps for one instance.
pub(super) struct GuestState {
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    denied: Option<String>,
    last_error: Option<String>,
    deadline: Deadline,
    interrupt: Interrupt,
    log: Arc<LogGate>,
    wasi: Option<Box<Wasi>>,
}

impl GuestState {
    /// Creates a store that limits everything that is instantiated in it.
    pub fn store(
        engine: &wasmtime::Engine,
        limits: &Limits,
        log: &Arc<LogGate>,
        interrupt: &Interrupt,
    ) -> Store<Self> {
        let state = Self {
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes,
            table_elements: 0,
            denied: None,
            last_error: None,
            deadline: Deadline::after(Duration::ZERO),
            interrupt: interrupt.clone(),
            log: Arc::clone(log),
            wasi: None,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.answer_bytes());
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|store: StoreContextMut<'_, Self>| Ok(store.data().check()));
        store
    }

    /// Starts the time of a call.
    pub fn begin_call(store: &mut Store<Self>, time: Duration) {
        let state = store.data_mut();
        state.deadline = Deadline::after(time);
        state.denied = None;
        state.last_error = None;
        if let Some(wasi) = &state.wasi {
            wasi.begin_call();
        }
        store.set_epoch_deadline(ticks_until_check(time));
    }

    /// Whether the call may continue.
    fn check(&self) -> UpdateDeadline {
        if self.interrupt.is_set() {
            UpdateDeadline::Interrupt
        } else {
            self.deadline.check()
        }
    }

    /// Current linear memory of the guest.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// A description of the resource that the guest was denied since the call began.
    pub fn denied(&self) -> Option<&str> {
        self.denied.as_deref()
    }

    /// A permit to log one line, unless the guest has reached its limit for this second.
    pub fn log_line(&self) -> Option<LogLine<'_>> {
        self.log.admit()
    }

    /// Records an error that the guest logged, for the description of a trap that may follow.
    pub fn record_error(&mut self, text: String) {
        self.last_error = Some(text);
    }

    /// The last error that the guest logged since the call began. Before a trap it is usually a panic message.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

impl WasiView for GuestState {
    /// WASI state is created at the first use, which only happens where WASI is linked.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi
            .get_or_insert_with(|| Box::new(Wasi::new(&self.log)))
            .view()
    }
}

impl ResourceLimiter for GuestState {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.memory_bytes_max {
            self.denied = Some(format!(
                "it requested {} MiB of memory, and the limit is {} MiB",
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
            self.denied = Some(format!(
                "it requested tables of {total} elements, and the limit is {TABLE_ELEMENTS_MAX}"
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
