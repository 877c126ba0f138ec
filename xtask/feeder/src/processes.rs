//! Process starts and exits, found by comparing snapshots.
//!
//! A process that starts and exits between two snapshots is missed; detecting it requires the audit system of the kernel and
//! its privileges. Command lines are omitted on purpose.

use std::collections::HashMap;

use anyhow::{Result, anyhow};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::message::Observed;

/// Process id and start time, because process ids are reused.
type Key = (u32, u64);

/// The previous snapshot.
pub struct Processes {
    system: System,
    known: HashMap<Key, Value>,
}

impl Processes {
    /// An empty snapshot, so that the first comparison reports all running processes.
    pub fn new() -> Result<Self> {
        let system = System::new().map_err(|error| anyhow!("{error:?}"))?;
        Ok(Self {
            system,
            known: HashMap::new(),
        })
    }

    /// Takes a snapshot and returns the changes, sorted by time.
    pub fn changes(&mut self) -> Vec<Observed> {
        let kind = ProcessRefreshKind::nothing()
            .with_exe(UpdateKind::OnlyIfNotSet)
            .with_user(UpdateKind::OnlyIfNotSet)
            .without_tasks();
        self.system
            .refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let running = self.system.processes().values().map(|process| {
            let key = (process.pid().as_u32(), process.start_time());
            let payload = json!({
                "pid": key.0,
                "ppid": process.parent().map(Pid::as_u32),
                "name": process.name().to_string_lossy(),
                "exe": process.exe().map(|exe| exe.to_string_lossy()),
                "uid": process.user_id().map(|user| user.to_string()),
            });
            (key, payload)
        });
        compare(&mut self.known, running.collect(), Utc::now())
    }
}

/// Compares two snapshots and stores the second one.
fn compare(
    known: &mut HashMap<Key, Value>,
    running: HashMap<Key, Value>,
    now: DateTime<Utc>,
) -> Vec<Observed> {
    let mut events: Vec<Observed> = known
        .iter()
        .filter(|(key, _)| !running.contains_key(key))
        .map(|(key, payload)| event(*key, "process_exit", now, payload))
        .collect();
    events.extend(
        running
            .iter()
            .filter(|(key, _)| !known.contains_key(key))
            .map(|(key, payload)| {
                let start = i64::try_from(key.1)
                    .ok()
                    .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
                event(*key, "process_start", start.unwrap_or(now), payload)
            }),
    );
    events.sort_by(|left, right| (left.at, &left.record_id).cmp(&(right.at, &right.record_id)));
    *known = running;
    events
}

fn event((pid, start): Key, kind: &'static str, at: DateTime<Utc>, payload: &Value) -> Observed {
    // Start and exit of a process are in one source, so the id contains the kind.
    let record_id = format!("{pid}-{start}-{}", kind.trim_start_matches("process_"));
    Observed {
        at,
        kind,
        source: "system:processes",
        record_id,
        payload: payload.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_and_exits_are_reported_once() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let snapshot = |keys: &[Key]| keys.iter().map(|key| (*key, json!({ "pid": key.0 }))).collect();
        let mut known = HashMap::new();
        let mut ids = |running| {
            compare(&mut known, running, now)
                .into_iter()
                .map(|event| event.record_id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(snapshot(&[(2, 20), (1, 10)])), ["1-10-start", "2-20-start"]);
        assert_eq!(ids(snapshot(&[(2, 20), (1, 10)])), [] as [&str; 0]);
        // Another process reuses id 2.
        assert_eq!(ids(snapshot(&[(2, 30), (1, 10)])), ["2-30-start", "2-20-exit"]);
        assert_eq!(ids(snapshot(&[])), ["1-10-exit", "2-30-exit"]);
    }

    #[test]
    fn a_child_process_is_reported() {
        let mut processes = Processes::new().unwrap();
        let own = std::process::id().to_string();
        assert!(
            processes
                .changes()
                .iter()
                .any(|event| event.record_id.starts_with(&format!("{own}-")))
        );
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = format!("{}-", child.id());
        let seen = |events: Vec<Observed>, kind: &str| {
            events
                .iter()
                .any(|event| event.record_id.starts_with(&id) && event.kind == kind)
        };
        assert!(seen(processes.changes(), "process_start"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen(processes.changes(), "process_exit"));
    }
}
