//! Metrics that are read at each scrape: the status of projections, the database's files and the process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::log;
use lantern_model::status::{ProjectionState, Registry, Status, StreamReplica};

/// Metrics that are read at each scrape.
pub(super) struct ScrapeCollector {
    pub(super) projections: Registry,
    /// The database file; none if the tables are at a server.
    pub(super) database: Option<PathBuf>,
    pub(super) flags: Arc<Flags>,
}

impl fmt::Debug for ScrapeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScrapeCollector")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// One series per state of each source, of which one is 1: an alert can select a state, and no series disappears.
fn encode_states(encoder: &mut DescriptorEncoder<'_>, projections: &[Status]) -> Result<(), fmt::Error> {
    let help = "State of a source: 1 for the current state, 0 for the others";
    let mut family = encoder.encode_descriptor("source_state", help, None, MetricType::Gauge)?;
    for status in projections {
        for state in ProjectionState::ALL {
            let labels = [
                ("plugin", status.plugin.as_str()),
                ("source", status.source.as_str()),
                ("state", state.as_str()),
            ];
            let metric = family.encode_family(&labels)?;
            ConstGauge::new(i64::from(status.state == state)).encode(metric)?;
        }
    }
    Ok(())
}

/// Reads the value of a gauge; `None` leaves a source out.
type ReadGauge = fn(&Status) -> Option<u64>;

/// Gauges with one value per source: name, help, and value.
const SOURCE_GAUGES: [(&str, &str, ReadGauge); 6] = [
    (
        "source_lag_messages",
        "Messages that wait to be projected",
        |status| status.lag,
    ),
    (
        "source_checkpoint",
        "Last sequence whose outcome is stored",
        |status| Some(status.checkpoint),
    ),
    (
        "source_missing_messages",
        "Sequences in gaps of this epoch: the stream dropped them before they were read",
        |status| Some(status.missing),
    ),
    (
        "source_stalled",
        "Whether a source makes no progress although messages wait",
        |status| Some(status.stalled_since_ms.is_some().into()),
    ),
    (
        "source_paused",
        "Whether a source is paused by an operator, here or on the broker",
        |status| Some(u64::from(status.state == ProjectionState::Paused)),
    ),
    (
        "source_open_dead_letters",
        "Open dead letters of a source",
        |status| Some(status.dead_letters),
    ),
];

fn encode_sources(encoder: &mut DescriptorEncoder<'_>, projections: &[Status]) -> Result<(), fmt::Error> {
    for (name, help, read) in SOURCE_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for status in projections {
            if let Some(value) = read(status) {
                let labels = [
                    ("plugin", status.plugin.as_str()),
                    ("source", status.source.as_str()),
                ];
                let metric = family.encode_family(&labels)?;
                ConstGauge::new(gauge_value(value)).encode(metric)?;
            }
        }
    }
    Ok(())
}

/// Reads a value of a stream's replica.
type ReadReplica = fn(&StreamReplica) -> u64;

/// Gauges with one value per replica of a source's stream: name, help, and value.
const REPLICA_GAUGES: [(&str, &str, ReadReplica); 2] = [
    (
        "source_replica_lag",
        "Operations that a replica of the source's stream is behind its leader",
        |replica| replica.lag,
    ),
    (
        "source_replica_current",
        "Whether a replica of the source's stream is complete and online",
        |replica| replica.current.into(),
    ),
];

fn encode_replicas(encoder: &mut DescriptorEncoder<'_>, projections: &[Status]) -> Result<(), fmt::Error> {
    for (name, help, read) in REPLICA_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for status in projections {
            for replica in &status.replicas {
                let labels = [
                    ("plugin", status.plugin.as_str()),
                    ("source", status.source.as_str()),
                    ("server", replica.server.as_str()),
                ];
                let metric = family.encode_family(&labels)?;
                ConstGauge::new(gauge_value(read(replica))).encode(metric)?;
            }
        }
    }
    Ok(())
}

impl Collector for ScrapeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let projections = self.projections.snapshot();
        encode_sources(&mut encoder, &projections)?;
        encode_states(&mut encoder, &projections)?;
        encode_replicas(&mut encoder, &projections)?;
        let file = self.database.as_deref();
        let log = file.map(|file| with_suffix(file, "-wal"));
        let single = [
            (
                "broker_connected",
                "Whether the broker is connected",
                Some(self.flags.broker_connected.load(Ordering::Relaxed).into()),
            ),
            (
                "ready",
                "Whether the host is ready, as /readyz reports",
                Some(self.flags.ready.load(Ordering::Relaxed).into()),
            ),
            (
                "database_bytes",
                "Size of the database file",
                file.and_then(file_bytes),
            ),
            (
                "wal_bytes",
                "Size of the write-ahead log",
                log.as_deref().and_then(file_bytes),
            ),
        ];
        encode_gauges(&mut encoder, single)?;
        let lost = ConstCounter::new(log::lost_lines());
        let help = "Log lines that were lost";
        let lines = encoder.encode_descriptor("log_lines_lost", help, None, MetricType::Counter)?;
        lost.encode(lines)
    }
}

/// Metrics of the process.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory of the process",
                resident_bytes(),
            ),
            (
                "process_open_fds",
                "Open file descriptors of the process",
                open_descriptors(),
            ),
        ];
        encode_gauges(&mut encoder, gauges)
    }
}

fn encode_gauges<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    gauges: [(&str, &str, Option<u64>); N],
) -> Result<(), fmt::Error> {
    for (name, help, value) in gauges {
        if let Some(value) = value {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(gauge_value(value)).encode(metric)?;
        }
    }
    Ok(())
}

fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn file_bytes(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.len())
}

/// None where there is no /proc.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// None where there is no /proc.
fn open_descriptors() -> Option<u64> {
    // One of them is the directory being read.
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open).ok().map(|open| open.saturating_sub(1))
}

/// Boolean gauges.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) broker_connected: AtomicBool,
    pub(super) ready: AtomicBool,
}
