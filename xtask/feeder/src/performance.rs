//! Performance samples, with rates since the previous sample.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use chrono::Utc;
use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, Networks, RefreshKind, System};

use crate::message::{Sample, time};

/// The state of the previous sample.
pub struct Performance {
    system: System,
    disks: Option<Disks>,
    networks: Option<Networks>,
    last: Instant,
}

impl Performance {
    /// Takes the initial measurement. If disks or networks are unavailable, their fields are null.
    pub fn new() -> Result<Self> {
        let kind = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::everything());
        let system = System::new_with_specifics(kind).map_err(|error| anyhow!("{error:?}"))?;
        Ok(Self {
            system,
            disks: Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_io_usage()).ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            last: Instant::now(),
        })
    }

    /// Takes a sample.
    pub fn sample(&mut self, pc_id: &str) -> Sample {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let past = self.last.elapsed();
        self.last = Instant::now();
        let disks = self.disks.as_mut().and_then(disk_bytes);
        let networks = self.networks.as_mut().and_then(network_bytes);
        let cpu_count = self.system.cpus().len();
        Sample {
            pc_id: pc_id.to_owned(),
            at: time(Utc::now()),
            cpu_pct: (cpu_count > 0).then(|| f64::from(self.system.global_cpu_usage())),
            cpu_count: (cpu_count > 0).then_some(cpu_count),
            mem_used_bytes: Some(self.system.used_memory()),
            mem_total_bytes: Some(self.system.total_memory()),
            swap_used_bytes: Some(self.system.used_swap()),
            swap_total_bytes: Some(self.system.total_swap()),
            disk_read_bytes_per_sec: disks.and_then(|(read, _)| rate(read, past)),
            disk_written_bytes_per_sec: disks.and_then(|(_, written)| rate(written, past)),
            net_rx_bytes_per_sec: networks.and_then(|(received, _)| rate(received, past)),
            net_tx_bytes_per_sec: networks.and_then(|(_, sent)| rate(sent, past)),
        }
    }
}

/// Bytes read and written since the last sample; none if no disk reports them, as in many containers.
fn disk_bytes(disks: &mut Disks) -> Option<(u64, u64)> {
    disks.refresh_specifics(true, DiskRefreshKind::nothing().with_io_usage());
    // A device with several mount points is listed several times.
    let mut seen = HashSet::new();
    let usages: Vec<_> = disks
        .iter()
        .filter(|disk| seen.insert(disk.name().to_owned()))
        .map(sysinfo::Disk::usage)
        .collect();
    let known = usages
        .iter()
        .any(|usage| usage.total_read_bytes > 0 || usage.total_written_bytes > 0);
    let sum = |of: fn(&sysinfo::DiskUsage) -> u64| usages.iter().map(of).sum();
    known.then(|| (sum(|usage| usage.read_bytes), sum(|usage| usage.written_bytes)))
}

/// Bytes received and sent since the last sample.
fn network_bytes(networks: &mut Networks) -> Option<(u64, u64)> {
    networks.refresh(true);
    let real = || {
        networks
            .iter()
            .filter(|(name, _)| *name != "lo" && *name != "lo0")
            .map(|(_, data)| data)
    };
    real().next()?;
    Some((
        real().map(sysinfo::NetworkData::received).sum(),
        real().map(sysinfo::NetworkData::transmitted).sum(),
    ))
}

/// Bytes per second, rounded; none below a millisecond.
fn rate(bytes: u64, past: Duration) -> Option<f64> {
    // Exact up to 2^53 bytes.
    (past.as_millis() > 0).then(|| (bytes as f64 / past.as_secs_f64()).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_this_machine_has_plausible_values() {
        let mut performance = Performance::new().unwrap();
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        let sample = performance.sample("pc-1");
        assert!((0.0..=100.0).contains(&sample.cpu_pct.unwrap()), "{sample:?}");
        assert!(sample.cpu_count.unwrap() > 0);
        assert!(sample.mem_used_bytes.unwrap() > 0);
        assert!(sample.mem_used_bytes <= sample.mem_total_bytes);
        assert!(sample.swap_used_bytes <= sample.swap_total_bytes);
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(rate(1_500, Duration::from_millis(500)), Some(3_000.0));
        assert_eq!(rate(0, Duration::from_secs(1)), Some(0.0));
        assert_eq!(rate(1, Duration::ZERO), None);
    }
}
