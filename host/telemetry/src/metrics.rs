//! The host's figures for Prometheus. Counters are written where things happen, once a batch; what a projection's
//! status, the files and the process already know is read when somebody asks.
//!
//! Labels are names of plugins, sources, tables and kinds of failure: all declared, never taken from a message.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::log;
use lantern_model::batch::RejectionClass;
use lantern_model::status;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It became rows.
    Projected,
    /// The plugin passed over it.
    Skipped,
    /// It became a dead letter.
    Dead,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Projected => "projected",
            Self::Skipped => "skipped",
            Self::Dead => "dead",
        }
    }
}

/// What the database did with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowEffect {
    /// It was inserted.
    Inserted,
    /// It changed a stored row.
    Updated,
    /// It changed nothing, because a row with its key was there already.
    Present,
}

impl RowEffect {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Updated => "updated",
            Self::Present => "present",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    plugin: String,
    source: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RowLabels {
    plugin: String,
    table: String,
    effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLetterLabels {
    plugin: String,
    source: String,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    plugin: String,
    kind: &'static str,
}

/// The handle through which figures are written and shown. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    messages: Family<MessageLabels, Counter>,
    rows: Family<RowLabels, Counter>,
    dead_letters: Family<DeadLetterLabels, Counter>,
    commit_duration: Histogram,
    commit_rows: Histogram,
    project_duration: Family<PluginLabels, Histogram, fn() -> Histogram>,
    plugin_faults: Family<FaultLabels, Counter>,
    lifecycle: Lifecycle,
    broker_reconnects: Counter,
    flags: Arc<Flags>,
}

/// What happens to plugins.
#[derive(Default)]
struct Lifecycle {
    switches: Family<PluginLabels, Counter>,
    rollbacks: Family<PluginLabels, Counter>,
    resolved: Family<PluginLabels, Counter>,
    rebuild_left: Family<PluginLabels, Gauge>,
}

impl Lifecycle {
    fn registered(registry: &mut Registry) -> Self {
        let own = Self::default();
        registry.register(
            "plugin_switches",
            "How often another version of a plugin became active",
            own.switches.clone(),
        );
        registry.register(
            "plugin_automatic_rollbacks",
            "How often the host went back to an earlier version by itself",
            own.rollbacks.clone(),
        );
        registry.register(
            "dead_letters_resolved",
            "Dead letters that could be projected after all",
            own.resolved.clone(),
        );
        registry.register(
            "rebuild_messages_left",
            "Messages that a rebuild has still to read",
            own.rebuild_left.clone(),
        );
        own
    }
}

fn of(plugin: &str) -> PluginLabels {
    PluginLabels {
        plugin: plugin.to_owned(),
    }
}

/// What is either so or not.
#[derive(Debug, Default)]
struct Flags {
    broker_connected: AtomicBool,
    ready: AtomicBool,
}

fn project_histogram() -> Histogram {
    // A batch takes 10 µs (a message) to seconds (thousands of slow ones).
    Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
}

impl Metrics {
    /// Figures of a host with these projections and this database file.
    pub fn new(projections: status::Registry, database: &Path) -> Self {
        let mut root = Registry::default();
        // These two have names that dashboards know already.
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("lantern");
        let flags = Arc::new(Flags::default());
        let messages = Family::<MessageLabels, Counter>::default();
        let rows = Family::<RowLabels, Counter>::default();
        let dead_letters = Family::<DeadLetterLabels, Counter>::default();
        // Half a millisecond on a fast disk, seconds on a busy one.
        let commit_duration = Histogram::new(exponential_buckets(0.000_5, 3.0, 10));
        let commit_rows = Histogram::new(exponential_buckets(1.0, 4.0, 9));
        let project_duration = Family::new_with_constructor(project_histogram as fn() -> Histogram);
        let plugin_faults = Family::<FaultLabels, Counter>::default();
        let lifecycle = Lifecycle::registered(registry);
        let broker_reconnects = Counter::default();

        registry.register(
            "messages",
            "Messages whose effect is stored, by outcome",
            messages.clone(),
        );
        registry.register(
            "rows",
            "Rows that plugins answered with, by effect: inserted, updated, or present (a row with their key was there already)",
            rows.clone(),
        );
        registry.register(
            "dead_letters",
            "Messages that became dead letters",
            dead_letters.clone(),
        );
        registry.register(
            "commit_duration_seconds",
            "Time of write transactions",
            commit_duration.clone(),
        );
        registry.register("commit_rows", "Rows of write transactions", commit_rows.clone());
        registry.register(
            "project_duration_seconds",
            "Time that a plugin took for a batch",
            project_duration.clone(),
        );
        registry.register(
            "plugin_faults",
            "Traps, timeouts and other faults of plugins",
            plugin_faults.clone(),
        );
        registry.register(
            "broker_reconnects",
            "How often the connection to the broker was made anew",
            broker_reconnects.clone(),
        );
        registry.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(AtScrape {
            projections,
            database: database.to_owned(),
            flags: flags.clone(),
        }));
        let inner = Inner {
            registry: root,
            messages,
            rows,
            dead_letters,
            commit_duration,
            commit_rows,
            project_duration,
            plugin_faults,
            lifecycle,
            broker_reconnects,
            flags,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// `count` messages of a source are stored with this outcome.
    pub fn messages(&self, plugin: &str, source: &str, outcome: Outcome, count: u64) {
        let labels = MessageLabels {
            plugin: plugin.to_owned(),
            source: source.to_owned(),
            outcome: outcome.as_str(),
        };
        self.inner.messages.get_or_create(&labels).inc_by(count);
    }

    /// `count` rows of a table had this effect.
    pub fn rows(&self, plugin: &str, table: &str, effect: RowEffect, count: u64) {
        let labels = RowLabels {
            plugin: plugin.to_owned(),
            table: table.to_owned(),
            effect: effect.as_str(),
        };
        self.inner.rows.get_or_create(&labels).inc_by(count);
    }

    /// `count` messages of a source are stored as dead letters of this class.
    pub fn dead_letters(&self, plugin: &str, source: &str, class: RejectionClass, count: u64) {
        let labels = DeadLetterLabels {
            plugin: plugin.to_owned(),
            source: source.to_owned(),
            class: class.as_str(),
        };
        self.inner.dead_letters.get_or_create(&labels).inc_by(count);
    }

    /// A write transaction of `rows` rows was committed after `time`.
    pub fn committed(&self, time: Duration, rows: u64) {
        self.inner.commit_duration.observe(time.as_secs_f64());
        self.inner.commit_rows.observe(rows as f64);
    }

    /// A plugin took `time` for a batch.
    pub fn projected(&self, plugin: &str, time: Duration) {
        self.inner
            .project_duration
            .get_or_create(&of(plugin))
            .observe(time.as_secs_f64());
    }

    /// A plugin did what it may not; `kind` is a word of the host's, such as `trap`.
    pub fn plugin_fault(&self, plugin: &str, kind: &'static str) {
        let labels = FaultLabels {
            plugin: plugin.to_owned(),
            kind,
        };
        self.inner.plugin_faults.get_or_create(&labels).inc();
    }

    /// Another version of a plugin is active.
    pub fn plugin_switched(&self, plugin: &str) {
        self.inner.lifecycle.switches.get_or_create(&of(plugin)).inc();
    }

    /// The host went back to an earlier version by itself.
    pub fn plugin_taken_back(&self, plugin: &str) {
        self.inner.lifecycle.rollbacks.get_or_create(&of(plugin)).inc();
    }

    /// `count` dead letters of a plugin could be projected after all.
    pub fn dead_letters_resolved(&self, plugin: &str, count: u64) {
        self.inner
            .lifecycle
            .resolved
            .get_or_create(&of(plugin))
            .inc_by(count);
    }

    /// How many messages a plugin's rebuild has still to read; none when there is no rebuild.
    pub fn rebuild_left(&self, plugin: &str, left: Option<u64>) {
        match left {
            Some(left) => {
                let left = i64::try_from(left).unwrap_or(i64::MAX);
                self.inner
                    .lifecycle
                    .rebuild_left
                    .get_or_create(&of(plugin))
                    .set(left);
            }
            None => drop(self.inner.lifecycle.rebuild_left.remove(&of(plugin))),
        }
    }

    /// Whether there is a connection to the broker now.
    pub fn broker_connected(&self, connected: bool) {
        self.inner
            .flags
            .broker_connected
            .store(connected, Ordering::Relaxed);
    }

    /// The connection to the broker was made anew.
    pub fn broker_reconnected(&self) {
        self.inner.broker_reconnects.inc();
    }

    /// Whether the host is ready, as `/readyz` says.
    pub fn ready(&self, ready: bool) {
        self.inner.flags.ready.store(ready, Ordering::Relaxed);
    }

    /// All figures as OpenMetrics text. Looks at the database's files and at the process.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.inner.registry)?;
        Ok(text)
    }
}

/// What is read when somebody asks.
struct AtScrape {
    projections: status::Registry,
    database: PathBuf,
    flags: Arc<Flags>,
}

impl fmt::Debug for AtScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtScrape")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// One series for each state of each source, of which one is 1: an alert can select a state, and none disappears.
fn encode_states(
    encoder: &mut DescriptorEncoder<'_>,
    projections: &[status::Status],
) -> Result<(), fmt::Error> {
    let help = "State of a source: 1 for the state that it is in, 0 for the others";
    let mut family = encoder.encode_descriptor("source_state", help, None, MetricType::Gauge)?;
    for status in projections {
        for state in status::ProjectionState::ALL {
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

impl Collector for AtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let projections = self.projections.snapshot();
        type Read = fn(&status::Status) -> Option<u64>;
        let by_source: [(&str, &str, Read); 6] = [
            (
                "source_lag_messages",
                "Messages that wait to be projected",
                |status| status.lag,
            ),
            (
                "source_checkpoint",
                "Last sequence whose effect is stored",
                |status| Some(status.checkpoint),
            ),
            (
                "source_missing_messages",
                "Sequences of this epoch that were gone before they were read",
                |status| Some(status.missing),
            ),
            (
                "source_stalled",
                "Whether a source has not moved although messages wait",
                |status| Some(status.stalled_since_ms.is_some().into()),
            ),
            (
                "source_paused",
                "Whether a source is paused by an operator, here or on the broker",
                |status| Some(u64::from(status.state == status::ProjectionState::Paused)),
            ),
            (
                "source_open_dead_letters",
                "Dead letters of a source that are open",
                |status| Some(status.dead_letters),
            ),
        ];
        for (name, help, read) in by_source {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for status in &projections {
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
        encode_states(&mut encoder, &projections)?;
        let wal = with_suffix(&self.database, "-wal");
        let single = [
            (
                "broker_connected",
                "Whether there is a connection to the broker",
                { Some(self.flags.broker_connected.load(Ordering::Relaxed).into()) },
            ),
            ("ready", "Whether the host is ready, as /readyz says", {
                Some(self.flags.ready.load(Ordering::Relaxed).into())
            }),
            (
                "database_bytes",
                "Size of the database file",
                file_bytes(&self.database),
            ),
            ("wal_bytes", "Size of the write-ahead log", file_bytes(&wal)),
        ];
        encode_gauges(&mut encoder, single)?;
        let lost = ConstCounter::new(log::lost_lines());
        let lines = encoder.encode_descriptor(
            "log_lines_lost",
            "Lines of the log that standard error did not take",
            None,
            MetricType::Counter,
        )?;
        lost.encode(lines)
    }
}

/// What the system knows of the process.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory that the process holds",
                resident_bytes(),
            ),
            (
                "process_open_fds",
                "File descriptors that the process holds",
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
    // One of them is the directory that is being read.
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open).ok().map(|open| open.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::status::{ProjectionState, Status};
    use tokio::sync::watch;

    #[test]
    fn figures_are_shown_with_their_labels() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("lantern.db");
        std::fs::write(&database, [0; 4096]).unwrap();
        let projections = status::Registry::default();
        let (_sender, receiver) = watch::channel(Status {
            plugin: "obs-events".into(),
            version: "0.1.0".into(),
            digest: "sha256:00".into(),
            source: "events".into(),
            stream: Some("OBS_EVENTS".into()),
            state: ProjectionState::Running,
            state_since_ms: 0,
            paused: None,
            epoch: 1,
            checkpoint: 41,
            last_sequence: Some(48),
            lag: Some(7),
            messages: 41,
            rows: 41,
            inserted: 41,
            updated: 0,
            present: 0,
            dead_letters: 3,
            missing: 0,
            last_error: None,
            last_error_at_ms: None,
            consumer_refused: false,
            stalled_since_ms: Some(1),
            warnings: Vec::new(),
        });
        projections.add(receiver);
        let metrics = Metrics::new(projections, &database);
        metrics.messages("obs-events", "events", Outcome::Projected, 40);
        metrics.messages("obs-events", "events", Outcome::Projected, 1);
        metrics.rows("obs-events", "obs_events", RowEffect::Inserted, 41);
        metrics.dead_letters("obs-events", "events", RejectionClass::Malformed, 2);
        metrics.committed(Duration::from_millis(3), 41);
        metrics.projected("obs-events", Duration::from_micros(50));
        metrics.plugin_fault("obs-events", "trap");
        metrics.broker_connected(true);
        metrics.broker_reconnected();
        metrics.ready(true);
        let text = metrics.encode().unwrap();
        for line in [
            r#"lantern_messages_total{plugin="obs-events",source="events",outcome="projected"} 41"#,
            r#"lantern_rows_total{plugin="obs-events",table="obs_events",effect="inserted"} 41"#,
            r#"lantern_dead_letters_total{plugin="obs-events",source="events",class="malformed"} 2"#,
            "lantern_commit_duration_seconds_count 1",
            "lantern_commit_rows_sum 41.0",
            r#"lantern_project_duration_seconds_count{plugin="obs-events"} 1"#,
            r#"lantern_plugin_faults_total{plugin="obs-events",kind="trap"} 1"#,
            r#"lantern_source_lag_messages{plugin="obs-events",source="events"} 7"#,
            r#"lantern_source_checkpoint{plugin="obs-events",source="events"} 41"#,
            r#"lantern_source_stalled{plugin="obs-events",source="events"} 1"#,
            r#"lantern_source_paused{plugin="obs-events",source="events"} 0"#,
            r#"lantern_source_open_dead_letters{plugin="obs-events",source="events"} 3"#,
            r#"lantern_source_state{plugin="obs-events",source="events",state="running"} 1"#,
            r#"lantern_source_state{plugin="obs-events",source="events",state="failed"} 0"#,
            "lantern_broker_connected 1",
            "lantern_broker_reconnects_total 1",
            "lantern_ready 1",
            "lantern_database_bytes 4096",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(text.contains("lantern_build_info{"), "{text}");
        assert!(!text.contains("lantern_wal_bytes"), "there is no such file");
        let resident: u64 = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .unwrap()
            .parse()
            .unwrap();
        assert!(resident > 1 << 20, "{resident}");
    }
}
