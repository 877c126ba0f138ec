//! The host's metrics for Prometheus. Counters are incremented where events happen, once per batch; values of
//! projections, files and the process are read at each scrape.
//!
//! Labels are declared names of plugins, sources, tables and kinds of failure, never text from a message.

mod scrape;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use lantern_model::batch::RejectionClass;
use lantern_model::status;
use scrape::{Flags, Process, ScrapeCollector};

/// The outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It became rows.
    Projected,
    /// The plugin skipped it.
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

/// The effect of a row in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowEffect {
    /// It was inserted.
    Inserted,
    /// It changed a stored row.
    Updated,
    /// It changed nothing, because a row with its key already existed.
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
struct SourceLabels {
    plugin: String,
    source: String,
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

/// The handle that updates and renders the metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    counters: Counters,
    lifecycle: Lifecycle,
    flags: Arc<Flags>,
}

/// Metrics of messages, transactions and the broker.
struct Counters {
    messages: Family<MessageLabels, Counter>,
    rows: Family<RowLabels, Counter>,
    dead_letters: Family<DeadLetterLabels, Counter>,
    commit_duration: Histogram,
    commit_rows: Histogram,
    project_duration: Family<PluginLabels, Histogram, fn() -> Histogram>,
    plugin_faults: Family<FaultLabels, Counter>,
    broker_reconnects: Counter,
    source_interruptions: Family<SourceLabels, Counter>,
}

impl Counters {
    fn registered(registry: &mut Registry) -> Self {
        let messages = "Messages handled, by outcome: projected, skipped or dead";
        let rows = "Rows that plugins returned, by effect: inserted, updated, or present (a row with their key already existed)";
        // Half a millisecond on a fast disk, seconds on a busy one.
        let commit_duration = Histogram::new(exponential_buckets(0.000_5, 3.0, 10));
        let commit_rows = Histogram::new(exponential_buckets(1.0, 4.0, 9));
        let project_duration = Family::new_with_constructor(project_histogram as fn() -> Histogram);
        let mut add = Registrar(registry);
        Self {
            messages: add.metric("messages", messages, Family::default()),
            rows: add.metric("rows", rows, Family::default()),
            dead_letters: add.metric(
                "dead_letters",
                "Messages that became dead letters",
                Family::default(),
            ),
            commit_duration: add.metric(
                "commit_duration_seconds",
                "Duration of write transactions",
                commit_duration,
            ),
            commit_rows: add.metric(
                "commit_rows",
                "Rows that plugins returned, per write transaction",
                commit_rows,
            ),
            project_duration: add.metric(
                "project_duration_seconds",
                "Time that a plugin needs for a batch",
                project_duration,
            ),
            plugin_faults: add.metric(
                "plugin_faults",
                "Traps, timeouts and other faults of plugins",
                Family::default(),
            ),
            broker_reconnects: add.metric(
                "broker_reconnects",
                "Number of reconnects to the broker",
                Counter::default(),
            ),
            source_interruptions: add.metric(
                "source_interruptions",
                "Lost connections of core NATS sources; each may have lost messages",
                Family::default(),
            ),
        }
    }
}

/// Metrics of the plugin lifecycle.
struct Lifecycle {
    switches: Family<PluginLabels, Counter>,
    rollbacks: Family<PluginLabels, Counter>,
    resolved: Family<PluginLabels, Counter>,
    rebuild_left: Family<PluginLabels, Gauge>,
}

impl Lifecycle {
    fn registered(registry: &mut Registry) -> Self {
        let mut add = Registrar(registry);
        Self {
            switches: add.metric(
                "plugin_switches",
                "Number of activations of another version of a plugin",
                Family::default(),
            ),
            rollbacks: add.metric(
                "plugin_automatic_rollbacks",
                "Number of automatic rollbacks to an earlier version",
                Family::default(),
            ),
            resolved: add.metric(
                "dead_letters_resolved",
                "Dead letters that a retry resolved",
                Family::default(),
            ),
            rebuild_left: add.metric(
                "rebuild_messages_left",
                "Messages that a rebuild still has to read",
                Family::default(),
            ),
        }
    }
}

/// Registers metrics and returns them.
struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    fn metric<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

fn of(plugin: &str) -> PluginLabels {
    PluginLabels {
        plugin: plugin.to_owned(),
    }
}

fn project_histogram() -> Histogram {
    // A batch takes 10 µs (one message) to seconds (thousands of slow ones).
    Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
}

impl Metrics {
    /// Metrics of a host with these projections and this database file, if the tables are in a file.
    pub fn new(projections: status::Registry, database: Option<&Path>) -> Self {
        let mut root = Registry::default();
        // These two have standard names.
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("lantern");
        let flags = Arc::new(Flags::default());
        registry.register(
            "build",
            "Version of the running host",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(ScrapeCollector {
            projections,
            database: database.map(Path::to_owned),
            flags: flags.clone(),
        }));
        let counters = Counters::registered(registry);
        let lifecycle = Lifecycle::registered(registry);
        let inner = Inner {
            registry: root,
            counters,
            lifecycle,
            flags,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Counts `count` stored messages of a source with this outcome.
    pub fn messages(&self, plugin: &str, source: &str, outcome: Outcome, count: u64) {
        let labels = MessageLabels {
            plugin: plugin.to_owned(),
            source: source.to_owned(),
            outcome: outcome.as_str(),
        };
        self.inner.counters.messages.get_or_create(&labels).inc_by(count);
    }

    /// Counts `count` rows of a table with this effect.
    pub fn rows(&self, plugin: &str, table: &str, effect: RowEffect, count: u64) {
        let labels = RowLabels {
            plugin: plugin.to_owned(),
            table: table.to_owned(),
            effect: effect.as_str(),
        };
        self.inner.counters.rows.get_or_create(&labels).inc_by(count);
    }

    /// Counts `count` dead letters of a source with this class.
    pub fn dead_letters(&self, plugin: &str, source: &str, class: RejectionClass, count: u64) {
        let labels = DeadLetterLabels {
            plugin: plugin.to_owned(),
            source: source.to_owned(),
            class: class.as_str(),
        };
        self.inner
            .counters
            .dead_letters
            .get_or_create(&labels)
            .inc_by(count);
    }

    /// Records a write transaction of `rows` rows that took `time`.
    pub fn committed(&self, time: Duration, rows: u64) {
        self.inner.counters.commit_duration.observe(time.as_secs_f64());
        self.inner.counters.commit_rows.observe(rows as f64);
    }

    /// Records that a plugin took `time` for a batch.
    pub fn projected(&self, plugin: &str, time: Duration) {
        self.inner
            .counters
            .project_duration
            .get_or_create(&of(plugin))
            .observe(time.as_secs_f64());
    }

    /// Counts a fault of a plugin; `kind` is one of the host's words, such as `trap`.
    pub fn plugin_fault(&self, plugin: &str, kind: &'static str) {
        let labels = FaultLabels {
            plugin: plugin.to_owned(),
            kind,
        };
        self.inner.counters.plugin_faults.get_or_create(&labels).inc();
    }

    /// Counts the activation of another version of a plugin.
    pub fn plugin_switched(&self, plugin: &str) {
        self.inner.lifecycle.switches.get_or_create(&of(plugin)).inc();
    }

    /// Counts an automatic rollback.
    pub fn plugin_rolled_back(&self, plugin: &str) {
        self.inner.lifecycle.rollbacks.get_or_create(&of(plugin)).inc();
    }

    /// Counts `count` dead letters of a plugin that a retry resolved.
    pub fn dead_letters_resolved(&self, plugin: &str, count: u64) {
        self.inner
            .lifecycle
            .resolved
            .get_or_create(&of(plugin))
            .inc_by(count);
    }

    /// Sets the number of messages that a plugin's rebuild still has to read; `None` without a rebuild.
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

    /// Sets whether the broker is connected.
    pub fn broker_connected(&self, connected: bool) {
        self.inner
            .flags
            .broker_connected
            .store(connected, Ordering::Relaxed);
    }

    /// Counts a lost connection of a core NATS source.
    pub fn source_interrupted(&self, plugin: &str, source: &str) {
        let labels = SourceLabels {
            plugin: plugin.to_owned(),
            source: source.to_owned(),
        };
        self.inner
            .counters
            .source_interruptions
            .get_or_create(&labels)
            .inc();
    }

    /// Counts a reconnect to the broker.
    pub fn broker_reconnected(&self) {
        self.inner.counters.broker_reconnects.inc();
    }

    /// Sets whether the host is ready, as `/readyz` reports.
    pub fn ready(&self, ready: bool) {
        self.inner.flags.ready.store(ready, Ordering::Relaxed);
    }

    /// Renders all metrics as OpenMetrics text. Reads the sizes of the database's files and the state of the process.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.inner.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::status::{ProjectionState, Status};
    use tokio::sync::watch;

    fn stalled_status() -> Status {
        let stream = Some("OBS_EVENTS".into());
        Status {
            state: ProjectionState::Running,
            epoch: 1,
            checkpoint: 41,
            last_sequence: Some(48),
            lag: Some(7),
            dead_letters: 3,
            stalled_since_ms: Some(1),
            ..Status::starting("obs-events", "0.1.0", "sha256:00", "events", stream)
        }
    }

    #[test]
    fn metrics_are_rendered_with_their_labels() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("lantern.db");
        std::fs::write(&database, [0; 4096]).unwrap();
        let projections = status::Registry::default();
        let (_sender, receiver) = watch::channel(stalled_status());
        projections.add(receiver);
        let metrics = Metrics::new(projections, Some(&database));
        metrics.messages("obs-events", "events", Outcome::Projected, 40);
        metrics.messages("obs-events", "events", Outcome::Projected, 1);
        metrics.rows("obs-events", "obs_events", RowEffect::Inserted, 41);
        metrics.dead_letters("obs-events", "events", RejectionClass::Malformed, 2);
        metrics.committed(Duration::from_millis(3), 41);
        metrics.projected("obs-events", Duration::from_micros(50));
        metrics.plugin_fault("obs-events", "trap");
        metrics.broker_connected(true);
        metrics.broker_reconnected();
        metrics.source_interrupted("obs-events", "events");
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
            r#"lantern_source_interruptions_total{plugin="obs-events",source="events"} 1"#,
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
