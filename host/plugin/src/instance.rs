//! One running instance of a plugin: a store, the guest in it, and the failures of its calls. An instance is never
//! called again after a failure.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::{Guest, Pre, Shape};
use super::config::Limits;
use super::engine::Engine;
use super::guest_state::GuestState;
use super::interrupt::Interrupt;
use super::log::LogGate;
use lantern_model::batch::{Delivery, Outcome, RejectionClass, clean_text};
use lantern_model::schema::RawManifest;

/// Longest description of a failure: one sentence and a few function names.
const REASON_BYTES_MAX: usize = 1_000;
/// Number of innermost functions that are named with a trap.
const FRAMES_NAMED: usize = 4;

/// A failed call, classified like a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallFailure {
    pub class: RejectionClass,
    pub reason: String,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// The guest failed on these messages.
    Failed(CallFailure),
    /// No instance is available. No message is at fault.
    NoInstance(String),
    /// The projector was interrupted. No message is at fault.
    Interrupted,
}

pub(super) struct Instance {
    store: Store<GuestState>,
    guest: Guest,
    initial_memory_bytes: usize,
}

impl Instance {
    /// Creates an instance within `time`. Its start function runs.
    pub fn new(
        engine: &Engine,
        pre: &Pre,
        limits: &Limits,
        log: &Arc<LogGate>,
        interrupt: &Interrupt,
        time: Duration,
    ) -> Result<Self, CallFailure> {
        let mut store = GuestState::store(&engine.wasmtime, limits, log, interrupt);
        let _running = engine.clock.call();
        GuestState::begin_call(&mut store, time);
        match pre.instantiate(&mut store) {
            Ok(guest) => {
                let initial_memory_bytes = store.data().memory_bytes();
                Ok(Self {
                    store,
                    guest,
                    initial_memory_bytes,
                })
            }
            Err(error) => Err(call_failure(&error, &store, time)),
        }
    }

    /// Calls the guest's `describe`.
    pub fn describe(&mut self, engine: &Engine, time: Duration) -> Result<RawManifest, CallFailure> {
        let _running = engine.clock.call();
        GuestState::begin_call(&mut self.store, time);
        self.guest
            .describe(&mut self.store)
            .map_err(|error| call_failure(&error, &self.store, time))
    }

    /// Calls the guest with messages. Returns one outcome for each.
    pub fn project(
        &mut self,
        engine: &Engine,
        source: u32,
        shape: Shape,
        messages: &[Delivery],
        time: Duration,
    ) -> Result<Vec<Outcome>, CallFailure> {
        let _running = engine.clock.call();
        GuestState::begin_call(&mut self.store, time);
        self.guest
            .project(&mut self.store, source, shape, messages)
            .map_err(|error| call_failure(&error, &self.store, time))
    }

    /// Current linear memory.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    /// Whether it has grown so much that a new one is preferable: linear memory never shrinks, and a leaking guest
    /// would otherwise reach its limit in the middle of a call.
    pub fn is_bloated(&self, limits: &Limits) -> bool {
        self.memory_bytes().saturating_sub(self.initial_memory_bytes) > limits.memory_bytes / 2
    }
}

fn call_failure(error: &wasmtime::Error, store: &Store<GuestState>, time: Duration) -> CallFailure {
    let (class, mut reason) = match (error.downcast_ref::<Trap>(), store.data().denied()) {
        (Some(Trap::Interrupt), _) => (
            RejectionClass::Timeout,
            format!("it did not end within {} ms", time.as_millis()),
        ),
        (_, Some(denied)) => (RejectionClass::Memory, denied.to_owned()),
        (Some(trap), None) => (
            RejectionClass::Trap,
            trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        ),
        (None, None) if error.is::<I32Exit>() => (RejectionClass::Trap, "it called wasi:cli/exit".to_owned()),
        // Everything else is an unreadable answer: text that is not UTF-8, a list outside the guest's memory, more data
        // than the host accepts.
        (None, None) => (RejectionClass::Output, error.root_cause().to_string()),
    };
    if let Some(functions) = error.downcast_ref::<WasmBacktrace>().and_then(function_names) {
        reason.push_str(", in ");
        reason.push_str(&functions);
    }
    // A panic logs its location before it traps.
    if let (RejectionClass::Trap, Some(logged)) = (class, store.data().last_error()) {
        reason = format!("{logged} ({reason})");
    }
    CallFailure {
        class,
        reason: clean_text(&reason, REASON_BYTES_MAX),
    }
}

/// The innermost functions of a backtrace, if the component has names.
fn function_names(backtrace: &WasmBacktrace) -> Option<String> {
    let names: Vec<String> = backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(FRAMES_NAMED)
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .collect();
    (!names.is_empty()).then(|| names.join(" < "))
}
