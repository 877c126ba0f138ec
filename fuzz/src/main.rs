//! The program that libFuzzer runs. It contains all targets, so that one link is sufficient; `LANTERN_FUZZ_TARGET` selects one.
//! `cargo xtask fuzz` builds and runs it.

#![no_main]
#![allow(
    unsafe_code,
    reason = "libFuzzer calls a C function with a pointer and a length"
)]

use std::ffi::c_int;
use std::process::abort;
use std::sync::LazyLock;

use lantern_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("LANTERN_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = found else {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("LANTERN_FUZZ_TARGET must be one of {}", names.join(", "));
        abort();
    };
    *target
});

/// Runs one input. A panic aborts the process, and libFuzzer stores the input.
#[allow(non_snake_case, reason = "libFuzzer defines the name")]
#[unsafe(no_mangle)]
pub extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, length: usize) -> c_int {
    let input = if length == 0 {
        &[]
    } else {
        // SAFETY: libFuzzer passes a buffer of `length` bytes that stays unchanged until this function returns.
        unsafe { std::slice::from_raw_parts(data, length) }
    };
    TARGET(input);
    0
}
