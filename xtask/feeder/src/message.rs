//! What is sent: the JSON of each kind of message and the subject it goes to.
//!
//! Names and forms are those of the plugins (`plugins/*/src/lib.rs`); times are RFC 3339 in UTC.

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::machine::Machine;

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub subject: String,
    /// One JSON document.
    pub payload: Vec<u8>,
}

impl Message {
    fn of(subject: String, body: &impl Serialize) -> Result<Self> {
        let payload =
            serde_json::to_vec(body).with_context(|| format!("cannot write a message to {subject}"))?;
        Ok(Self { subject, payload })
    }
}

/// Something that has happened to the machine: `obs.<pc_id>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What it was, as `boot` or `process_start`.
    pub kind: &'static str,
    /// Where it was read, as `linux:dpkg`.
    pub source: &'static str,
    /// The same for the same event in every run; unique in its source.
    pub record_id: String,
    /// What else is known.
    pub payload: Value,
}

impl Observed {
    /// As the `obs-events` plugin reads it.
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

/// Something that the demo itself has done: `audit.demo`.
#[derive(Debug, Serialize)]
pub struct Audit<'a> {
    actor: String,
    action: &'a str,
    target: Option<&'a str>,
    payload: Value,
    occurred_at: String,
}

impl<'a> Audit<'a> {
    /// Now, by the user who runs the demo.
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

    /// As the `audit-log` plugin reads it.
    pub fn message(&self) -> Result<Message> {
        Message::of("audit.demo".to_owned(), self)
    }
}

/// A command has begun: `events.started.<pc_id>.<exec_id>`.
#[derive(Debug, Serialize)]
pub struct Started<'a> {
    /// The same in the result.
    pub result_id: &'a str,
    /// Who asked; the same in the result.
    pub request_id: &'a str,
    /// One run of the command.
    pub exec_id: &'a str,
    /// The machine.
    pub pc_id: &'a str,
    /// When it began.
    pub started_at: String,
    /// What was run.
    pub manifest_id: &'a str,
    /// Of what was run.
    pub version: &'a str,
}

impl Started<'_> {
    /// As the `executions` plugin reads it.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("events.started.{}.{}", machine.pc_id, self.exec_id), self)
    }
}

/// A command has ended: `results.<pc_id>`.
#[derive(Debug, Serialize)]
pub struct Finished {
    /// The same as at its start.
    pub result_id: String,
    /// The same as at its start.
    pub request_id: String,
    /// The same as at its start.
    pub exec_id: String,
    /// The machine.
    pub pc_id: String,
    /// What it said to the system; -1 when it could not be started or was killed.
    pub exit_code: i32,
    /// The beginning of its output.
    pub stdout: String,
    /// The beginning of its complaints.
    pub stderr: String,
    /// When it began.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
    /// What was run.
    pub manifest_id: String,
}

impl Finished {
    /// As the `executions` plugin reads it.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("results.{}", machine.pc_id), self)
    }
}

/// One look at how busy the machine is: `host_perf.<pc_id>`. What cannot be read is null.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// The machine.
    pub pc_id: String,
    /// When it was taken.
    pub at: String,
    /// Of all processors together, 0 to 100.
    pub cpu_pct: Option<f64>,
    /// Logical processors.
    pub cpu_count: Option<usize>,
    /// In use.
    pub mem_used_bytes: Option<u64>,
    /// There is.
    pub mem_total_bytes: Option<u64>,
    /// In use.
    pub swap_used_bytes: Option<u64>,
    /// There is.
    pub swap_total_bytes: Option<u64>,
    /// Of all disks, since the last sample.
    pub disk_read_bytes_per_sec: Option<f64>,
    /// Of all disks, since the last sample.
    pub disk_written_bytes_per_sec: Option<f64>,
    /// Of all interfaces but the loopback, since the last sample.
    pub net_rx_bytes_per_sec: Option<f64>,
    /// Of all interfaces but the loopback, since the last sample.
    pub net_tx_bytes_per_sec: Option<f64>,
}

impl Sample {
    /// As the `host-perf` plugin reads it.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("host_perf.{}", machine.pc_id), self)
    }
}

/// The machine is there: `heartbeat.<pc_id>`.
#[derive(Debug, Serialize)]
pub struct Heartbeat<'a> {
    /// The machine.
    pub pc_id: &'a str,
    /// Now.
    pub at: String,
    /// Of this program.
    pub agent_version: &'a str,
    /// The machine's own name.
    pub hostname: &'a str,
    /// `linux` or `macos`.
    pub os_family: &'a str,
}

impl Heartbeat<'_> {
    /// As the `heartbeats` plugin reads it.
    pub fn message(&self, machine: &Machine) -> Result<Message> {
        Message::of(format!("heartbeat.{}", machine.pc_id), self)
    }
}

/// A time as all messages write it.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_what_the_plugin_reads() {
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
    fn an_audit_event_says_who_and_what() {
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
