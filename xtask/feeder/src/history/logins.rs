//! Logins and logouts from the records of login programs (`wtmp`, `utmp`).

use super::Unavailable;
use crate::message::Observed;

/// Reads the records. Systems without these files (newer Debian and Fedora, macOS) have none.
#[cfg(not(target_os = "linux"))]
pub fn read() -> Result<Vec<Observed>, Unavailable> {
    Err(Unavailable("logins: supported only on Linux".to_owned()))
}

/// Reads the records. Systems without these files (newer Debian and Fedora, macOS) have none.
#[cfg(target_os = "linux")]
pub fn read() -> Result<Vec<Observed>, Unavailable> {
    read_from(&["/var/log/wtmp", "/run/utmp"])
}

/// Reads several files. A login in several files has the same id in each.
#[cfg(target_os = "linux")]
fn read_from(files: &[&str]) -> Result<Vec<Observed>, Unavailable> {
    let mut events = Vec::new();
    let mut reasons = Vec::new();
    for file in files {
        match utmp_rs::parse_from_path(file) {
            Ok(entries) if entries.is_empty() => reasons.push(format!("{file} is empty")),
            Ok(entries) => events.extend(entries.iter().filter_map(event)),
            Err(error) => reasons.push(format!("{file}: {error}")),
        }
    }
    if events.is_empty() {
        reasons.push("no logins".to_owned());
        return Err(Unavailable(format!("logins: {}", reasons.join(", "))));
    }
    Ok(events)
}

#[cfg(target_os = "linux")]
fn event(entry: &utmp_rs::UtmpEntry) -> Option<Observed> {
    use chrono::DateTime;
    use utmp_rs::UtmpEntry::{DeadProcess, UserProcess};

    let (kind, pid, line, time, payload) = match entry {
        UserProcess {
            pid,
            line,
            user,
            host,
            time,
            ..
        } => (
            "logon",
            pid,
            line,
            time,
            serde_json::json!({ "user": user, "terminal": line, "from": host }),
        ),
        DeadProcess { pid, line, time } => {
            ("logoff", pid, line, time, serde_json::json!({ "terminal": line }))
        }
        _ => return None,
    };
    let micros = i64::try_from(time.unix_timestamp_nanos() / 1_000).ok()?;
    Some(Observed {
        at: DateTime::from_timestamp_micros(micros)?,
        kind,
        source: "linux:wtmp",
        record_id: format!("{kind}-{line}-{pid}-{micros}"),
        payload,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;

    use super::*;

    /// A record in the layout of x86-64 and most others: 384 bytes.
    fn record(kind: i16, pid: i32, line: &str, user: &str, host: &str, seconds: i32) -> Vec<u8> {
        let field = |text: &str, size: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(size, 0);
            bytes
        };
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(field(line, 32));
        bytes.extend(field("1", 4));
        bytes.extend(field(user, 32));
        bytes.extend(field(host, 256));
        bytes.extend([0; 4]);
        bytes.extend([0; 4]);
        bytes.extend(seconds.to_ne_bytes());
        bytes.extend(250_000_i32.to_ne_bytes());
        bytes.extend([0; 36]);
        bytes
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn logins_and_logouts_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (wtmp, empty) = (folder.path().join("wtmp"), folder.path().join("empty"));
        let mut bytes = record(2, 0, "~", "reboot", "6.1", 1_700_000_000);
        bytes.extend(record(7, 42, "pts/0", "ann", "192.0.2.1", 1_700_000_010));
        bytes.extend(record(8, 42, "pts/0", "", "", 1_700_000_020));
        fs::write(&wtmp, bytes).unwrap();
        fs::write(&empty, "").unwrap();
        let events = read_from(&[wtmp.to_str().unwrap(), empty.to_str().unwrap(), "/nowhere"]).unwrap();
        let ids: Vec<_> = events
            .iter()
            .map(|event| (event.kind, event.record_id.as_str()))
            .collect();
        assert_eq!(
            ids,
            [
                ("logon", "logon-pts/0-42-1700000010250000"),
                ("logoff", "logoff-pts/0-42-1700000020250000")
            ]
        );
        assert_eq!(events[0].payload["user"], "ann");
        assert_eq!(events[0].at.timestamp_subsec_millis(), 250);
    }

    #[test]
    fn a_machine_without_records_is_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("wtmp");
        fs::write(&empty, "").unwrap();
        let Unavailable(reason) = read_from(&[empty.to_str().unwrap(), "/nowhere"]).unwrap_err();
        assert!(
            reason.contains("is empty") && reason.contains("/nowhere"),
            "{reason}"
        );
    }
}
