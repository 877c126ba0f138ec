//! The WebAssembly engine: the enabled features and the compiler settings. The host and the child that compiles for it
//! must agree on all of them.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Result, WasmBacktraceDetails};

use super::clock::Clock;
use super::config::Limits;

/// An engine with the thread that interrupts its guests.
pub(super) struct Engine {
    pub wasmtime: wasmtime::Engine,
    pub clock: Clock,
    /// Limits of every plugin without its own settings.
    pub limits: Arc<Limits>,
}

impl Engine {
    pub fn new(limits: Limits) -> Result<Self> {
        let wasmtime = compiler(limits.stack_bytes)?;
        let clock = Clock::start(wasmtime.weak())?;
        Ok(Self {
            wasmtime,
            clock,
            limits: Arc::new(limits),
        })
    }

    /// Identifies everything that compiled code depends on besides the component: version, processor, settings.
    pub fn compatibility(&self) -> [u8; 32] {
        let mut hasher = Sha256Hasher(Sha256::new());
        self.wasmtime.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.finalize().into()
    }
}

/// The engine alone, which is sufficient for compiling.
pub(super) fn compiler(stack_bytes: usize) -> Result<wasmtime::Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(stack_bytes)
        // The same message must give the same row on every processor.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        // Each memory reserves 4 GiB of address space (the default) and never moves: with 32-bit addresses the
        // processor's protection replaces nearly all bounds checks.
        .memory_may_move(false)
        .wasm_memory64(false)
        // Languages create only one memory, but adapters between the parts of a composed component (such as
        // JavaScript's) use two. The limit applies to their sum.
        .wasm_multi_memory(true)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        // Function names are enough to locate a trap; line tables and unwinding by other tools are not used.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(8))
        .generate_address_map(false)
        .native_unwind_info(false);
    wasmtime::Engine::new(&config)
}

/// `DefaultHasher` may change between compiler versions, but a file name must not.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Never called: the complete digest is used instead.
    fn finish(&self) -> u64 {
        0
    }
}
