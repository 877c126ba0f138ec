//! The messages: JSON format and subject of each kind.
//!
//! The formats are those of the plugins (`plugins/*/src/lib.rs`); times are RFC 3339 in UTC.

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::machine::Machine;

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The subject.
    pub subject: String,
    /// A JSON document.
    pub payload: Vec<u8>,
}

impl Message {
    fn of(subject: String, body: &impl Serialize) -> Result<Self> {
        let payload =
            serde_json::to_vec(body).with_context(|| format!("cannot serialize a message for {subject}"))?;
        Ok(Self { subject, payload })
    }
}

/// An event of the machine: `obs.<pc_id>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The time of the event.
    pub at: DateTime<Utc>,
    /// The kind, such as `boot` or `process_start`.
    pub kind: &'static str,
    /// The origin, such as `linux:dpkg`.
    pub source: &'static str,
    /// A stable id, unique in its source.
    pub record_id: String,
    /// Further fields.
    pub payload: Value,
}

impl Observed {
    /// In the format of the `obs-events` plugin.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        #[derive(Serialize)]
        struct Body<'a> {
            pc_id: &'a str,
            at: String,
            kind: &'a str,
            source: &'a str,
            event_record_id: &'a str,
            payload: &'a Value,
        }
        let body = Body {
            pc_id: &machine.pc_id,
            at: time(self.at),
            kind: self.kind,
            source: self.source,
            event_record_id: &self.record_id,
            payload: &self.payload,
        };
        Message::of(format!("obs.{}", machine.pc_id), &body)
    }
}

/// An action of the demo: `audit.demo`.
#[derive(Debug, Serialize)]
pub struct Audit<'a> {
    actor: String,
    action: &'a str,
    target: Option<&'a str>,
    payload: Value,
    occurred_at: String,
}

impl<'a> Audit<'a> {
    /// An action of the current user at the current time.
    pub fn of(action: &'a str, target: Option<&'a str>) -> Self {
        let actor = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
        Self {
            actor: actor.unwrap_or_else(|_| "unknown".to_owned()),
            action,
            target,
            payload: serde_json::json!({ "pid": std::process::id() }),
            occurred_at: time(Utc::now()),
        }
    }

    /// In the format of the `audit-log` plugin.
    pub fn message(&self) -> Result<Message> {
        Message::of("audit.demo".to_owned(), self)
    }
}

/// A started command: `events.started.<pc_id>.<exec_id>`.
#[derive(Debug, Serialize)]
pub struct Started<'a> {
    /// Also in the result.
    pub result_id: &'a str,
    /// The request; also in the result.
    pub request_id: &'a str,
    /// The run of the command.
    pub exec_id: &'a str,
    /// The machine.
    pub pc_id: &'a str,
    /// The start time.
    pub started_at: String,
    /// The command.
    pub manifest_id: &'a str,
    /// The version of the command.
    pub version: &'a str,
}

impl Started<'_> {
    /// In the format of the `executions` plugin.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("events.started.{}.{}", machine.pc_id, self.exec_id), self)
    }
}

/// A finished command: `results.<pc_id>`.
#[derive(Debug, Serialize)]
pub struct Finished {
    /// The same as in the start message.
    pub result_id: String,
    /// The same as in the start message.
    pub request_id: String,
    /// The same as in the start message.
    pub exec_id: String,
    /// The machine.
    pub pc_id: String,
    /// The exit code; -1 if it could not be started or was killed.
    pub exit_code: i32,
    /// The beginning of standard output.
    pub stdout: String,
    /// The beginning of standard error.
    pub stderr: String,
    /// The start time.
    pub started_at: String,
    /// The end time.
    pub finished_at: String,
    /// The command.
    pub manifest_id: String,
}

impl Finished {
    /// In the format of the `executions` plugin.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("results.{}", machine.pc_id), self)
    }
}

/// A performance sample: `host_perf.<pc_id>`. Unavailable values are null.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// The machine.
    pub pc_id: String,
    /// The time of the sample.
    pub at: String,
    /// Usage of all processors, 0 to 100.
    pub cpu_pct: Option<f64>,
    /// Logical processors.
    pub cpu_count: Option<usize>,
    /// Used bytes.
    pub mem_used_bytes: Option<u64>,
    /// Total bytes.
    pub mem_total_bytes: Option<u64>,
    /// Used bytes.
    pub swap_used_bytes: Option<u64>,
    /// Total bytes.
    pub swap_total_bytes: Option<u64>,
    /// All disks, since the last sample.
    pub disk_read_bytes_per_sec: Option<f64>,
    /// All disks, since the last sample.
    pub disk_written_bytes_per_sec: Option<f64>,
    /// All interfaces except loopback, since the last sample.
    pub net_rx_bytes_per_sec: Option<f64>,
    /// All interfaces except loopback, since the last sample.
    pub net_tx_bytes_per_sec: Option<f64>,
}

impl Sample {
    /// In the format of the `host-perf` plugin.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("host_perf.{}", machine.pc_id), self)
    }
}

/// A heartbeat: `heartbeat.<pc_id>`.
#[derive(Debug, Serialize)]
pub struct Heartbeat<'a> {
    /// The machine.
    pub pc_id: &'a str,
    /// The current time.
    pub at: String,
    /// The version of this program.
    pub agent_version: &'a str,
    /// The host name.
    pub hostname: &'a str,
    /// `linux` or `macos`.
    pub os_family: &'a str,
}

impl<'a> Heartbeat<'a> {
    /// A heartbeat with the current time.
    pub fn of(machine: &'a Machine) -> Self {
        Self {
            pc_id: &machine.pc_id,
            at: time(Utc::now()),
            agent_version: env!("CARGO_PKG_VERSION"),
            hostname: &machine.hostname,
            os_family: std::env::consts::OS,
        }
    }

    /// In the format of the `heartbeats` plugin.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("heartbeat.{}", machine.pc_id), self)
    }
}

/// Formats a time for messages.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_format_of_the_plugin() {
        let machine = Machine::named("pc-1.example.org");
        let observed = Observed {
            at: DateTime::from_timestamp(1_700_000_000, 5_000).unwrap(),
            kind: "boot",
            source: "linux:kernel",
            record_id: "1700000000".to_owned(),
            payload: serde_json::json!({ "kernel": "6.1" }),
        };
        let message = observed.message(&machine).unwrap();
        assert_eq!(message.subject, "obs.pc-1-example-org");
        assert_eq!(
            String::from_utf8(message.payload).unwrap(),
            r#"{"pc_id":"pc-1-example-org","at":"2023-11-14T22:13:20.000005Z","kind":"boot","source":"linux:kernel","event_record_id":"1700000000","payload":{"kernel":"6.1"}}"#
        );
    }

    #[test]
    fn an_audit_event_has_actor_and_action() {
        let message = Audit::of("demo.start", Some("pc-1")).message().unwrap();
        let body: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(message.subject, "audit.demo");
        assert_eq!(
            (&body["action"], &body["target"]),
            (&"demo.start".into(), &"pc-1".into())
        );
        assert!(body["actor"].as_str().is_some_and(|actor| !actor.is_empty()));
        assert!(DateTime::parse_from_rfc3339(body["occurred_at"].as_str().unwrap()).is_ok());
    }
}
