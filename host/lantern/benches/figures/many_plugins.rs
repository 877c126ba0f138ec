//! Measures the real program with many plugins: start to ready, and CPU time and memory while no message arrives.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cpu;
use crate::host::{Host, plugins};
use crate::nats::NatsServer;
use crate::process::resident;
use crate::report;

/// How long the idle host is observed.
const IDLE: Duration = Duration::from_secs(30);

/// Measures `count` plugins that differ only in their names.
pub fn measure(count: usize) -> anyhow::Result<()> {
    let folder = copies(count)?;
    let server = NatsServer::start();
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let dir = tempfile::tempdir()?;
        for round in 0..3 {
            let (host, took) = started(dir.path(), &server, folder.path());
            if round == 0 { &mut cold } else { &mut warm }.push(took);
            host.terminate();
        }
        // The next host is another owner of the consumers.
        delete_streams(&server)?;
    }
    let dir = tempfile::tempdir()?;
    let (host, _) = started(dir.path(), &server, folder.path());
    host.wait("running", Duration::from_secs(60), |host| {
        let (_, body) = host.get("/api/v1/projections").unwrap_or_default();
        body.matches("\"running\"").count() == count
    });
    // The first survey and the release of memory after the start.
    std::thread::sleep(Duration::from_secs(5));
    let before = cpu::of_process(host.pid())?;
    std::thread::sleep(IDLE);
    let cpu = (cpu::of_process(host.pid())? - before) / IDLE.as_secs_f64();
    let memory = resident(host.pid())?;
    let (took_cold, took_warm) = (median(&mut cold).as_millis(), median(&mut warm).as_millis());
    println!(
        "{count} plugins: start to ready {took_cold} ms with a cold cache, {took_warm} ms with a warm cache (medians of {} and {}); \
         idle: {:.2} % of a processor, {:.0} MiB",
        cold.len(),
        warm.len(),
        cpu * 100.0,
        memory.all
    );
    report::line(
        &format!(
            "{count} plugins: start to ready, compile cache cold / warm; idle CPU and memory (`-- plugins`)"
        ),
        format!(
            "{took_cold} / {took_warm} ms; {:.2} %, {:.0} MiB",
            cpu * 100.0,
            memory.all
        ),
    );
    Ok(())
}

fn started(dir: &Path, server: &NatsServer, folder: &Path) -> (Host, Duration) {
    let began = Instant::now();
    let host = Host::start(dir, &server.url(), folder);
    while host.get("/readyz").map_or(0, |(status, _)| status) != 200 {
        std::thread::sleep(Duration::from_millis(2));
    }
    (host, began.elapsed())
}

/// A folder with copies of one plugin under other names, with their own tables, streams and subjects. The names in the
/// component are plain bytes of the same length.
fn copies(count: usize) -> anyhow::Result<tempfile::TempDir> {
    let original = std::fs::read(plugins().join("obs-events.wasm"))?;
    let folder = tempfile::tempdir()?;
    for number in 0..count {
        let mut bytes = original.clone();
        for (from, to) in [
            ("obs-events", format!("obs-ev{number:04}")),
            ("obs_events", format!("obs_ev{number:04}")),
            ("OBS_EVENTS", format!("OBS_EV{number:04}")),
            ("obs.>", format!("{number:03}.>")),
        ] {
            replace(&mut bytes, from.as_bytes(), to.as_bytes());
        }
        std::fs::write(folder.path().join(format!("obs-ev{number:04}.wasm")), bytes)?;
    }
    Ok(folder)
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}

fn delete_streams(server: &NatsServer) -> anyhow::Result<()> {
    crate::events::runtime()?.block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
        let names: Vec<String> = futures_util::TryStreamExt::try_collect(context.stream_names()).await?;
        for name in names {
            context.delete_stream(name).await?;
        }
        Ok(())
    })
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
