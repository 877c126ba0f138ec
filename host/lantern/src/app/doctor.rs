//! The checks of `lantern doctor` for operators: a host's database, its permissions, and its broker. They only read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use lantern_authoring::doctor::{Finding, check_broker};
use lantern_broker::{Broker, BrokerConfig, ServerVersion, StreamSafety};
use lantern_store::DATABASE_FILE;
use lantern_store::check::{CheckError, Examined, examine};

/// Versions of `nats-server` that can delete a stream's data on a replica after an idempotent create.
const DATA_LOSS_VERSIONS: [ServerVersion; 2] = [
    ServerVersion {
        major: 2,
        minor: 14,
        patch: 4,
    },
    ServerVersion {
        major: 2,
        minor: 12,
        patch: 14,
    },
];

/// Checks the database of a data directory and the broker: the given one, or the embedded broker of a running host.
pub async fn check(data_dir: &Path, nats: Option<&str>) -> Vec<Finding> {
    let path = data_dir.join(DATABASE_FILE);
    if !path.exists() {
        return match nats {
            Some(url) => check_streams(url, &[]).await,
            None => Vec::new(),
        };
    }
    let examined = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || examine(&path)).await
    };
    let mut findings = Vec::new();
    let streams = match examined {
        Ok(Ok(examined)) => {
            findings.extend(database(&path, &examined));
            examined.streams
        }
        Ok(Err(error)) => {
            findings.push(database_error(&path, &error));
            Vec::new()
        }
        Err(error) => {
            findings.push(Finding::error(
                "database",
                format!("the check panicked: {error}"),
                "report this error",
            ));
            Vec::new()
        }
    };
    findings.extend(permissions(&path));
    let own = std::fs::read_to_string(data_dir.join("broker").join("nats.url")).ok();
    match (nats, own) {
        (Some(url), _) => findings.extend(check_streams(url, &streams).await),
        (None, Some(url)) => {
            findings.push(check_broker(url.trim()).await);
            findings.extend(check_streams(url.trim(), &streams).await);
        }
        (None, None) => {}
    }
    findings
}

fn database(path: &Path, examined: &Examined) -> Vec<Finding> {
    let Examined {
        schema,
        bytes,
        damage,
        ..
    } = examined;
    let summary = format!(
        "{}: schema {schema}, {:.1} MiB",
        path.display(),
        *bytes as f64 / f64::from(1 << 20)
    );
    let mut findings = vec![match damage {
        Some(Some(damage)) => Finding::error(
            "database",
            format!("{summary}, damaged: {damage}"),
            "restore a backup; the host reads later messages from the streams again",
        ),
        Some(None) => Finding::ok("database", format!("{summary}, no damage found")),
        None => Finding::ok(
            "database",
            format!("{summary}; not read completely because of its size, `lantern check` does that"),
        ),
    }];
    findings.extend((examined.dead_letters > 0).then(|| {
        Finding::warning(
            "dead letters",
            format!("{} open", examined.dead_letters),
            "lantern dead-letters list",
        )
    }));
    findings
}

fn database_error(path: &Path, error: &CheckError) -> Finding {
    match error {
        CheckError::Older { .. } => Finding::warning(
            "database",
            error.to_string(),
            "make a backup first if you may want to downgrade",
        ),
        CheckError::Newer { .. } => Finding::error(
            "database",
            error.to_string(),
            "install that version, or restore a backup",
        ),
        CheckError::Sqlite(cause) => Finding::error(
            "database",
            format!("failed to read {}: {cause}", path.display()),
            "restore a backup, or delete it: the host then reads all messages of the streams again",
        ),
        CheckError::Missing(_) => Finding::warning("database", error.to_string(), "start the host"),
    }
}

/// Checks that no other user can write to the database, and that this user can.
fn permissions(path: &Path) -> Option<Finding> {
    let metadata = std::fs::metadata(path).ok()?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let me = rustix::process::geteuid().as_raw();
    if owner != me && me != 0 {
        return Some(Finding::warning(
            "permissions",
            format!(
                "{} belongs to user {owner}; the current user is {me}",
                path.display()
            ),
            "run the host as the owner",
        ));
    }
    if mode & 0o022 != 0 {
        return Some(Finding::warning(
            "permissions",
            format!("{} is writable by other users (mode {mode:03o})", path.display()),
            format!("chmod go-w {}", path.display()),
        ));
    }
    Some(Finding::ok(
        "permissions",
        format!("{} belongs to user {owner}, mode {mode:03o}", path.display()),
    ))
}

/// Risks of a reachable broker, and of the streams that the database reads.
async fn check_streams(url: &str, streams: &[String]) -> Vec<Finding> {
    let Ok(broker) = super::connect(BrokerConfig::remote(url)).await else {
        // Another finding contains the reason.
        return Vec::new();
    };
    let findings = risks(&broker, streams).await;
    broker.stop().await;
    findings
}

async fn risks(broker: &Broker, streams: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let lantern_broker::Link::Connected(server) = &*broker.link().borrow() {
        findings.extend(version_warning(server.version));
    }
    for stream in streams {
        match broker.stream_safety(stream).await {
            Ok(Some(safety)) => findings.push(stream_finding(stream, safety)),
            Ok(None) => findings.push(Finding::warning(
                "stream",
                format!("the stream {stream} of the database does not exist on the broker"),
                "check that this is the right broker",
            )),
            Err(error) => findings.push(Finding::warning(
                "stream",
                format!("{stream}: {error}"),
                "check the permissions of this user on the broker",
            )),
        }
    }
    findings
}

/// A warning if the version of the server can lose data.
fn version_warning(version: ServerVersion) -> Option<Finding> {
    DATA_LOSS_VERSIONS.contains(&version).then(|| {
        Finding::warning(
            "broker",
            format!(
                "nats-server {version} can delete a stream's data on a replica when a client creates an existing stream \
                 again (nats-server#8449)"
            ),
            "upgrade to 2.14.5, 2.12.15 or later",
        )
    })
}

fn stream_finding(stream: &str, safety: StreamSafety) -> Finding {
    if safety.is_persisted_later {
        return Finding::warning(
            "stream",
            format!(
                "{stream}: the broker confirms messages before it writes them to disk (persist_mode async)"
            ),
            "use the default persist_mode, unless the loss of confirmed messages in a crash is acceptable",
        );
    }
    if safety.is_clustered && safety.replicas < 2 {
        return Finding::warning(
            "stream",
            format!(
                "{stream}: one replica in a cluster; the stream is unavailable or lost if its server fails"
            ),
            "set the number of replicas of the stream to 3",
        );
    }
    Finding::ok("stream", format!("{stream}: {} replica(s)", safety.replicas))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_authoring::doctor::Severity;

    #[test]
    fn versions_that_lose_data_cause_a_warning() {
        for (text, risky) in [
            ("2.14.4", true),
            ("2.12.14", true),
            ("2.14.5", false),
            ("2.12.15", false),
            ("2.15.1", false),
            ("2.10.29", false),
        ] {
            let found = version_warning(ServerVersion::parse(text));
            assert_eq!(found.is_some(), risky, "{text}");
        }
    }

    #[test]
    fn streams_that_can_lose_messages_cause_a_warning() {
        let safe = StreamSafety {
            replicas: 3,
            is_clustered: true,
            is_persisted_later: false,
        };
        let alone = StreamSafety { replicas: 1, ..safe };
        let later = StreamSafety {
            is_persisted_later: true,
            ..safe
        };
        let one_server = StreamSafety {
            is_clustered: false,
            ..alone
        };
        let severities = [safe, alone, later, one_server].map(|safety| stream_finding("S", safety).severity);
        assert_eq!(
            severities,
            [Severity::Ok, Severity::Warning, Severity::Warning, Severity::Ok]
        );
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_database_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            check(dir.path(), None).await.is_empty(),
            "no database, no finding"
        );
        std::fs::write(dir.path().join(DATABASE_FILE), [0xa5; 8192]).unwrap();
        let findings = check(dir.path(), None).await;
        assert_eq!(findings[0].severity, Severity::Error, "{findings:?}");
        assert!(findings[0].message.contains("not a database"), "{findings:?}");
    }

    #[tokio::test]
    async fn a_database_writable_by_others_is_a_warning() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = lantern_store::Store::open(lantern_store::StoreConfig::new(dir.path()))
            .await
            .unwrap();
        store.close().await;
        let path = dir.path().join(DATABASE_FILE);
        for (mode, severity) in [(0o600, Severity::Ok), (0o666, Severity::Warning)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let findings = check(dir.path(), None).await;
            assert_eq!(findings[0].severity, Severity::Ok, "{findings:?}");
            assert!(findings[0].message.contains("no damage found"), "{findings:?}");
            assert_eq!(findings[1].severity, severity, "{findings:?}");
        }
    }
}
