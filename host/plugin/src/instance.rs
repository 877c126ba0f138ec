//! One running instance of a plugin: a store, the guest in it, and what can go wrong in a call. An instance that went wrong
//! is never called again.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::{Guest, Pre, Shape};
use super::config::Limits;
use super::engine::Engine;
use super::limits::{GuestState, LogGate};
use lantern_model::batch::{Delivery, Outcome, RejectionClass, clean_text};
use lantern_model::schema::RawManifest;

/// Words of a fault: one sentence and a few function names.
const WORDS_BYTES_MAX: usize = 1_000;
/// The innermost functions that are named with a trap.
const FRAMES_NAMED: usize = 4;

/// What went wrong in a call, by the classes of rejections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upset {
    pub class: RejectionClass,
    pub words: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// The guest went wrong on these messages.
    Upset(Upset),
    /// There is no instance to ask. No message is to blame.
    NoInstance(String),
}

pub(super) struct Instance {
    store: Store<GuestState>,
    guest: Guest,
    memory_bytes_at_birth: usize,
}

impl Instance {
    /// Makes an instance within `time`. Its start function runs.
    pub fn new(
        engine: &Engine,
        pre: &Pre,
        limits: &Limits,
        log: &Arc<LogGate>,
        time: Duration,
    ) -> Result<Self, Upset> {
        let mut store = GuestState::store(&engine.wasmtime, limits, log);
        let _running = engine.clock.call();
        GuestState::start(&mut store, time);
        match pre.instantiate(&mut store) {
            Ok(guest) => {
                let memory_bytes_at_birth = store.data().memory_bytes();
                Ok(Self {
                    store,
                    guest,
                    memory_bytes_at_birth,
                })
            }
            Err(error) => Err(upset(&error, &store, time)),
        }
    }

    /// Asks for the description.
    pub fn describe(&mut self, engine: &Engine, time: Duration) -> Result<RawManifest, Upset> {
        let _running = engine.clock.call();
        GuestState::start(&mut self.store, time);
        self.guest
            .describe(&mut self.store)
            .map_err(|error| upset(&error, &self.store, time))
    }

    /// Hands messages over. There is one outcome for each.
    pub fn project(
        &mut self,
        engine: &Engine,
        source: u32,
        shape: Shape,
        messages: &[Delivery],
        time: Duration,
    ) -> Result<Vec<Outcome>, Upset> {
        let _running = engine.clock.call();
        GuestState::start(&mut self.store, time);
        self.guest
            .project(&mut self.store, source, shape, messages)
            .map_err(|error| upset(&error, &self.store, time))
    }

    /// Linear memory that it has.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    /// Whether it has grown so much that a new one is the better choice: linear memory never shrinks, and a guest
    /// that leaks would otherwise run into its limit in the middle of a call.
    pub fn is_bloated(&self, limits: &Limits) -> bool {
        self.memory_bytes().saturating_sub(self.memory_bytes_at_birth) > limits.memory_bytes / 2
    }
}

fn upset(error: &wasmtime::Error, store: &Store<GuestState>, time: Duration) -> Upset {
    let (class, mut words) = match (error.downcast_ref::<Trap>(), store.data().refused()) {
        (Some(Trap::Interrupt), _) => (
            RejectionClass::Timeout,
            format!("it did not end within {} ms", time.as_millis()),
        ),
        (_, Some(refused)) => (RejectionClass::Memory, refused.to_owned()),
        (Some(trap), None) => (
            RejectionClass::Trap,
            trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        ),
        (None, None) if error.is::<I32Exit>() => (
            RejectionClass::Trap,
            "it ended itself with wasi:cli/exit".to_owned(),
        ),
        // Everything else is an answer that cannot be read: text that is not UTF-8, a list that lies outside of the
        // guest's memory, more data than the host is willing to copy.
        (None, None) => (RejectionClass::Output, error.root_cause().to_string()),
    };
    if let Some(functions) = error.downcast_ref::<WasmBacktrace>().and_then(functions_of) {
        words.push_str(", in ");
        words.push_str(&functions);
    }
    // A panic writes where it happened before it traps.
    if let (RejectionClass::Trap, Some(said)) = (class, store.data().last_error()) {
        words = format!("{said} ({words})");
    }
    Upset {
        class,
        words: clean_text(&words, WORDS_BYTES_MAX),
    }
}

/// The innermost functions of a backtrace, where the component has names.
fn functions_of(backtrace: &WasmBacktrace) -> Option<String> {
    let names: Vec<String> = backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(FRAMES_NAMED)
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .collect();
    (!names.is_empty()).then(|| names.join(" < "))
}
