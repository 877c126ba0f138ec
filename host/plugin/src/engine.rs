//! The WebAssembly engine: which of its features plugins get, and how code is compiled. The host and the child that
//! compiles for it have to agree on all of this.

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
    /// What holds for every plugin that has no settings of its own.
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

    /// Names everything that compiled code depends on besides the component: version, processor, settings.
    pub fn compatibility(&self) -> [u8; 32] {
        let mut hasher = Sha256Hasher(Sha256::new());
        self.wasmtime.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.finalize().into()
    }
}

/// The engine alone, which is all that compiling needs.
pub(super) fn compiler(stack_bytes: usize) -> Result<wasmtime::Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(stack_bytes)
        // The same message gives the same row on every processor.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        // Each memory has 4 GiB of address space to itself (the default) and never moves: with 32-bit addresses the
        // processor's own protection replaces nearly all bounds checks.
        .memory_may_move(false)
        .wasm_memory64(false)
        // No language makes more than one, but what copies between the parts of a component that is made of several (as
        // JavaScript's are) has two. Together they are bounded as one is.
        .wasm_multi_memory(true)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        // Names of functions are enough to find a trap; line tables and unwinding by other tools are not used.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(8))
        .generate_address_map(false)
        .native_unwind_info(false);
    wasmtime::Engine::new(&config)
}

/// `DefaultHasher` may change from one compiler to the next; a name of a file should not.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Never asked for: the whole digest is taken instead.
    fn finish(&self) -> u64 {
        0
    }
}
