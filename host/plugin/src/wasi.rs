//! WASI for plugins that may import it: every interface exists and is empty. No arguments, no environment, no files, no
//! network, no input; output goes to the plugin's log; the clocks stand still and random numbers restart with each
//! call, so that replaying gives the same rows.
//!
//! The types and the unreachable rest (files, sockets) are wasmtime-wasi's. Waiting is not: its implementation would
//! sleep in the host, where no epoch interrupts it. Here every wait ends at once, and a guest that waits for a clock to
//! advance is a loop, which the limits end.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_core::TryRng;
use tokio::io::AsyncWrite;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::sync::io::poll;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::limits::HANDLES_MAX;
use super::log::{LOG_LINE_BYTES_MAX, LogGate, LogLevel};

/// The provided packages, all of version 0.2. wasi:http is not among them, because a plugin has no network.
const PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];
/// Maximum random bytes per call. Seeds take 32; a decoder needs no more than this.
const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Maximum bytes that a guest may print at once; one piece is copied into the host.
const PRINT_BYTES_MAX: usize = 64 << 10;
/// Seed of random numbers. It is not secret: the numbers only have to be the same each time.
const SEED: u64 = 0x6c61_6e74_6572_6e00;

/// Whether a plugin gets this import where the operator allows WASI.
pub(super) fn provides(import: &str) -> bool {
    let Some((package, version)) = import.strip_prefix("wasi:").and_then(|rest| {
        let (path, version) = rest.split_once('@')?;
        Some((path.split_once('/')?.0, version))
    }) else {
        return false;
    };
    PACKAGES.contains(&package) && version.starts_with("0.2.")
}

/// WASI state of one instance, created at the first use.
pub(super) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    random: Random,
}

impl Wasi {
    /// The context and the resources, as wasmtime-wasi accesses them.
    pub fn view(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.ctx,
            table: &mut self.table,
        }
    }

    pub fn new(log: &Arc<LogGate>) -> Self {
        let random = Random::default();
        let mut table = ResourceTable::new();
        // As many as the guest may have handles. A subscribed stream takes two.
        table.set_max_capacity(2 * HANDLES_MAX);
        // Arguments, environment, directories and standard input are empty, and addresses denied, unless they are set.
        let ctx = WasiCtx::builder()
            .stdout(Printed::new(log, LogLevel::Info))
            .stderr(Printed::new(log, LogLevel::Warn))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .wall_clock(Still)
            .monotonic_clock(Still)
            .secure_random(random.clone())
            .insecure_random(random.clone())
            .insecure_random_seed(u128::from(SEED))
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        Self { ctx, table, random }
    }

    /// Begins a call: its random numbers must not depend on the calls before it.
    pub fn begin_call(&self) {
        self.random.restart();
    }
}

/// Links all of WASI.
pub(super) fn link<T: WasiView + 'static>(linker: &mut Linker<T>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    poll::add_to_linker::<T, AtOnce<'static>>(linker, |state| AtOnce(state.ctx().table))?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Waiting that ends at once. Streams are always ready, because they are closed or never full, and clocks never would
/// be, because they stand still.
struct AtOnce<'a>(&'a mut ResourceTable);

impl HasData for AtOnce<'static> {
    type Data<'a> = AtOnce<'a>;
}

impl poll::Host for AtOnce<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        // As the interface specifies; a guest that waits for nothing would wait forever.
        if pollables.is_empty() {
            return Err(wasmtime::Error::msg("it waits for an empty list"));
        }
        Ok((0..).zip(&pollables).map(|(index, _)| index).collect())
    }
}

impl poll::HostPollable for AtOnce<'_> {
    fn ready(&mut self, _: Resource<DynPollable>) -> Result<bool> {
        Ok(true)
    }

    fn block(&mut self, _: Resource<DynPollable>) -> Result<()> {
        Ok(())
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        poll::HostPollable::drop(self.0, pollable)
    }
}

/// A clock that stands still at its beginning, 1970 for the wall clock: nobody mistakes this for the real time.
struct Still;

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// SplitMix64, whose numbers do not depend on library versions.
#[derive(Clone)]
struct Random(Arc<AtomicU64>);

impl Default for Random {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(SEED)))
    }
}

impl Random {
    fn restart(&self) {
        self.0.store(SEED, Ordering::Relaxed);
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The upper half.
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        for chunk in into.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// Standard output or standard error: complete lines become lines of the plugin's log, subject to its rate limit.
#[derive(Clone)]
struct Printed {
    log: Arc<LogGate>,
    level: LogLevel,
    /// The incomplete line. All streams of an instance share it, because guests open a new one for each write.
    line: Arc<Mutex<Vec<u8>>>,
}

impl Printed {
    fn new(log: &Arc<LogGate>, level: LogLevel) -> Self {
        Self {
            log: Arc::clone(log),
            level,
            line: Arc::default(),
        }
    }

    fn print(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            // Text beyond the maximum line length is cut, so that a line without an end costs no more.
            let room = LOG_LINE_BYTES_MAX.saturating_sub(line.len());
            line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                if let Some(permit) = self.log.admit() {
                    permit.write(self.level, &String::from_utf8_lossy(&line));
                }
                line.clear();
            }
        }
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Only WASI 0.3 uses this, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

impl OutputStream for Printed {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PRINT_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_empty_is_provided() {
        for import in [
            "wasi:cli/environment@0.2.0",
            "wasi:clocks/wall-clock@0.2.6",
            "wasi:filesystem/types@0.2.12",
        ] {
            assert!(provides(import), "{import}");
        }
        for import in [
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:cli/environment@0.3.0",
            "wasi:cli/environment",
            "wasi:cli@0.2.0",
            "wasi_snapshot_preview1",
            "other:cli/environment@0.2.0",
        ] {
            assert!(!provides(import), "{import}");
        }
    }

    #[test]
    fn random_numbers_are_spread_and_restart() {
        let mut random = Random::default();
        let (mut first, mut second) = ([0; 20], [0; 20]);
        random.try_fill_bytes(&mut first).unwrap();
        random.try_fill_bytes(&mut second).unwrap();
        assert_ne!(first, second);
        random.restart();
        random.try_fill_bytes(&mut second).unwrap();
        assert_eq!(first, second);
        // The generator's published test vector: its second number from the seed 0.
        let known = Random(Arc::new(AtomicU64::new(0)));
        known.next();
        assert_eq!(known.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn lines_are_joined_and_cut() {
        let log = Arc::new(LogGate::new("printer".into(), 2));
        let mut stream = Printed::new(&log, LogLevel::Info).p2_stream();
        let mut print = |text: &str| stream.write(text.to_owned().into()).unwrap();
        print("a line in ");
        print("two parts\nanother\nand a third, which is one too many\n");
        assert_eq!(log.dropped(), 1);
        let printed = Printed::new(&log, LogLevel::Info);
        for _ in 0..100 {
            printed.print(&[b'x'; 1_000]);
        }
        assert_eq!(printed.line.lock().unwrap().len(), LOG_LINE_BYTES_MAX);
    }
}
