//! Installed, upgraded and removed packages from the package manager of this machine.

use std::{fs, process::Command};

use chrono::{DateTime, Local, NaiveDateTime, TimeZone, Utc};

use super::{Unavailable, id_of};
use crate::message::Observed;

/// The plain-text logs, oldest first, with their line parsers. Compressed logs are skipped.
const LOGS: &[(&str, Line)] = &[
    ("/var/log/dpkg.log.1", dpkg),
    ("/var/log/dpkg.log", dpkg),
    ("/var/log/pacman.log", pacman),
];

type Line = fn(&str) -> Option<Observed>;

/// Reads the logs of dpkg and pacman, and the database of rpm.
pub fn read() -> Result<Vec<Observed>, Unavailable> {
    let mut events = Vec::new();
    let mut reasons = Vec::new();
    for (file, line) in LOGS {
        match fs::read(file) {
            Ok(bytes) => events.extend(String::from_utf8_lossy(&bytes).lines().filter_map(line)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => reasons.push(format!("{file}: {error}")),
        }
    }
    events.extend(rpm());
    if events.is_empty() {
        reasons.push("no log of dpkg or pacman and no rpm database".to_owned());
        return Err(Unavailable(format!("packages: {}", reasons.join(", "))));
    }
    Ok(events)
}

/// `2025-05-20 10:00:01 install adduser:all <none> 3.134`; its time is local.
fn dpkg(line: &str) -> Option<Observed> {
    let (time, rest) = line.split_at_checked(19)?;
    let mut words = rest.split_whitespace();
    let kind = kind(words.next()?)?;
    let package = words.next()?;
    let from = words.next().filter(|version| *version != "<none>");
    let to = words.next().filter(|version| *version != "<none>");
    let time = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S").ok()?;
    // In the hour repeated by a clock change, the earlier time is used.
    let at = Local.from_local_datetime(&time).earliest()?.to_utc();
    let payload = serde_json::json!({ "package": package, "from": from, "to": to });
    Some(Observed {
        at,
        kind,
        source: "linux:dpkg",
        record_id: id_of(line),
        payload,
    })
}

/// `[2025-05-20T10:00:01+0200] [ALPM] upgraded zlib (1:1.3-1 -> 1:1.3.1-1)`.
fn pacman(line: &str) -> Option<Observed> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] [ALPM] ")?;
    let (action, rest) = rest.split_once(' ')?;
    let kind = kind(action)?;
    let (package, versions) = rest.split_once(" (")?;
    let versions = versions.trim_end_matches(')');
    let (from, to) = match (versions.split_once(" -> "), kind) {
        (Some((from, to)), _) => (Some(from), Some(to)),
        (None, "package_remove") => (Some(versions), None),
        (None, _) => (None, Some(versions)),
    };
    let at = DateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S%z")
        .ok()?
        .to_utc();
    let payload = serde_json::json!({ "package": package, "from": from, "to": to });
    Some(Observed {
        at,
        kind,
        source: "linux:pacman",
        record_id: id_of(line),
        payload,
    })
}

/// The installed packages with their times; rpm has no log.
fn rpm() -> Vec<Observed> {
    let format = "%{INSTALLTIME} %{NAME}.%{ARCH} %{VERSION}-%{RELEASE}\n";
    match Command::new("rpm")
        .args(["-qa", "--queryformat", format])
        .output()
    {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(rpm_line)
            .collect(),
        // Most machines have no rpm. The caller reports machines without any source.
        _ => Vec::new(),
    }
}

fn rpm_line(line: &str) -> Option<Observed> {
    let mut words = line.split_whitespace();
    let at = DateTime::<Utc>::from_timestamp(words.next()?.parse().ok()?, 0)?;
    let (package, version) = (words.next()?, words.next()?);
    let payload = serde_json::json!({ "package": package, "from": null, "to": version });
    Some(Observed {
        at,
        kind: "package_install",
        source: "linux:rpm",
        record_id: id_of(line),
        payload,
    })
}

fn kind(action: &str) -> Option<&'static str> {
    Some(match action {
        "install" | "installed" => "package_install",
        "upgrade" | "upgraded" | "downgraded" => "package_upgrade",
        "remove" | "removed" | "purge" => "package_remove",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(event: Option<Observed>, kind: &str, package: &str, from: Option<&str>, to: Option<&str>) {
        let event = event.unwrap();
        assert_eq!(event.kind, kind);
        assert_eq!(
            event.payload,
            serde_json::json!({ "package": package, "from": from, "to": to })
        );
        assert_eq!(event.record_id.len(), 24);
    }

    #[test]
    fn dpkg_lines_are_parsed() {
        check(
            dpkg("2025-05-20 10:00:01 install adduser:all <none> 3.134"),
            "package_install",
            "adduser:all",
            None,
            Some("3.134"),
        );
        check(
            dpkg("2025-05-20 10:00:01 upgrade libc6:amd64 2.36-9 2.36-10"),
            "package_upgrade",
            "libc6:amd64",
            Some("2.36-9"),
            Some("2.36-10"),
        );
        check(
            dpkg("2025-05-20 10:00:01 remove vim:amd64 2:9.0 <none>"),
            "package_remove",
            "vim:amd64",
            Some("2:9.0"),
            None,
        );
        for other in [
            "",
            "2025-05-20 10:00:01 status installed vim:amd64 9",
            "2025-05-20 10:00:01 startup archives",
        ] {
            assert_eq!(dpkg(other), None, "{other}");
        }
        assert_eq!(dpkg("2025-99-20 10:00:01 install adduser:all <none> 3"), None);
    }

    #[test]
    fn pacman_lines_are_parsed() {
        check(
            pacman("[2025-05-20T10:00:01+0200] [ALPM] upgraded zlib (1:1.3-1 -> 1:1.3.1-1)"),
            "package_upgrade",
            "zlib",
            Some("1:1.3-1"),
            Some("1:1.3.1-1"),
        );
        let event = pacman("[2025-05-20T10:00:01+0200] [ALPM] installed nats (2.15)").unwrap();
        assert_eq!(event.at.to_rfc3339(), "2025-05-20T08:00:01+00:00");
        check(
            pacman("[2025-05-20T10:00:01+0200] [ALPM] removed nats (2.15)"),
            "package_remove",
            "nats",
            Some("2.15"),
            None,
        );
        assert_eq!(
            pacman("[2025-05-20T10:00:01+0200] [PACMAN] Running 'pacman -S nats'"),
            None
        );
    }

    #[test]
    fn rpm_lines_are_parsed() {
        check(
            rpm_line("1700000000 bash.x86_64 5.2-1"),
            "package_install",
            "bash.x86_64",
            None,
            Some("5.2-1"),
        );
        assert_eq!(rpm_line("(none) gpg-pubkey.(none) 1-2"), None);
    }
}
