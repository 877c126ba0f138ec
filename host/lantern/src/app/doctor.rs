//! The operator's part of `lantern doctor`: a host's database, its files, and its broker. It only reads.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use lantern_authoring::doctor::{Finding, broker as reach};
use lantern_broker::{Broker, BrokerConfig, ServerVersion, StreamSafety};
use lantern_store::DATABASE_FILE;
use lantern_store::check::{CheckError, Examined, examine};

/// Versions of `nats-server` that can delete a stream's data on a replica after an idempotent create.
const LOSES_DATA: [ServerVersion; 2] = [
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

/// Examines the database of a data directory and the broker: the one named, or the host's own where it runs.
pub async fn look(data_dir: &Path, nats: Option<&str>) -> Vec<Finding> {
    let path = data_dir.join(DATABASE_FILE);
    if !path.exists() {
        return match nats {
            Some(url) => broker(url, &[]).await,
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
            findings.push(unreadable(&path, &error));
            Vec::new()
        }
        Err(error) => {
            findings.push(Finding::wrong(
                "database",
                format!("the check panicked: {error}"),
                "report this",
            ));
            Vec::new()
        }
    };
    findings.extend(permissions(&path));
    let own = std::fs::read_to_string(data_dir.join("broker").join("nats.url")).ok();
    match (nats, own) {
        (Some(url), _) => findings.extend(broker(url, &streams).await),
        (None, Some(url)) => {
            findings.push(reach(url.trim()).await);
            findings.extend(broker(url.trim(), &streams).await);
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
    let what = format!(
        "{}: schema {schema}, {:.1} MiB",
        path.display(),
        *bytes as f64 / f64::from(1 << 20)
    );
    let mut findings = vec![match damage {
        Some(Some(damage)) => Finding::wrong(
            "database",
            format!("{what}, damaged: {damage}"),
            "restore a copy; the host reads what came later from the streams",
        ),
        Some(None) => Finding::good("database", format!("{what}, no damage found")),
        None => Finding::good(
            "database",
            format!("{what}; large, so not read whole: `lantern check` does that"),
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

fn unreadable(path: &Path, error: &CheckError) -> Finding {
    match error {
        CheckError::Older { .. } => Finding::warning(
            "database",
            error.to_string(),
            "make a copy first if you may want to go back",
        ),
        CheckError::Newer { .. } => Finding::wrong(
            "database",
            error.to_string(),
            "install that version, or restore a copy",
        ),
        CheckError::Sqlite(cause) => Finding::wrong(
            "database",
            format!("{} cannot be read: {cause}", path.display()),
            "restore a copy, or delete it: the host reads everything that the streams hold again",
        ),
        CheckError::Missing(_) => Finding::warning("database", error.to_string(), "start the host"),
    }
}

/// Whether others can change the database, or this user cannot.
fn permissions(path: &Path) -> Option<Finding> {
    let metadata = std::fs::metadata(path).ok()?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let me = rustix::process::geteuid().as_raw();
    if owner != me && me != 0 {
        return Some(Finding::warning(
            "permissions",
            format!(
                "{} belongs to user {owner}, and you are user {me}",
                path.display()
            ),
            "run the host as its owner",
        ));
    }
    if mode & 0o022 != 0 {
        return Some(Finding::warning(
            "permissions",
            format!("{} can be written by others (mode {mode:03o})", path.display()),
            format!("chmod go-w {}", path.display()),
        ));
    }
    Some(Finding::good(
        "permissions",
        format!("{} belongs to user {owner}, mode {mode:03o}", path.display()),
    ))
}

/// What is risky about a broker that can be reached, and about the streams that the database was made from.
async fn broker(url: &str, streams: &[String]) -> Vec<Finding> {
    let Ok(broker) = super::connected(BrokerConfig::remote(url)).await else {
        // Another finding has the reason.
        return Vec::new();
    };
    let findings = risks(&broker, streams).await;
    broker.stop().await;
    findings
}

async fn risks(broker: &Broker, streams: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let lantern_broker::Link::Connected(server) = &*broker.link().borrow() {
        findings.extend(version(server.version));
    }
    for stream in streams {
        match broker.stream_safety(stream).await {
            Ok(Some(safety)) => findings.push(of_stream(stream, safety)),
            Ok(None) => findings.push(Finding::warning(
                "stream",
                format!("the broker has no stream {stream}, which the database was made from"),
                "see whether this is the right broker",
            )),
            Err(error) => findings.push(Finding::warning(
                "stream",
                format!("{stream}: {error}"),
                "see the permissions of this user at the broker",
            )),
        }
    }
    findings
}

/// A warning where a version of the server is known to lose data.
fn version(version: ServerVersion) -> Option<Finding> {
    LOSES_DATA.contains(&version).then(|| {
        Finding::warning(
            "broker",
            format!(
                "nats-server {version} can delete a stream's data on a replica when a client creates the stream again \
                 as it is (nats-server#8449)"
            ),
            "upgrade to 2.14.5, 2.12.15 or later",
        )
    })
}

fn of_stream(stream: &str, safety: StreamSafety) -> Finding {
    if safety.is_persisted_later {
        return Finding::warning(
            "stream",
            format!("{stream}: the broker confirms messages before they are on disk (persist_mode async)"),
            "a crash of the broker can lose confirmed messages; use the default persist_mode where that matters",
        );
    }
    if safety.is_clustered && safety.replicas < 2 {
        return Finding::warning(
            "stream",
            format!("{stream}: one replica in a cluster, so it is gone or away with one server"),
            "set the stream's replicas to 3",
        );
    }
    Finding::good("stream", format!("{stream}: {} replica(s)", safety.replicas))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_authoring::doctor::State;

    #[test]
    fn versions_that_lose_data_are_named() {
        for (text, risky) in [
            ("2.14.4", true),
            ("2.12.14", true),
            ("2.14.5", false),
            ("2.12.15", false),
            ("2.15.1", false),
            ("2.10.29", false),
        ] {
            let found = version(ServerVersion::parse(text));
            assert_eq!(found.is_some(), risky, "{text}");
        }
    }

    #[test]
    fn streams_that_can_lose_messages_are_named() {
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
        let states = [safe, alone, later, one_server].map(|safety| of_stream("S", safety).state);
        assert_eq!(states, [State::Good, State::Warning, State::Warning, State::Good]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        assert!(look(dir.path(), None).await.is_empty(), "no database, no finding");
        std::fs::write(dir.path().join(DATABASE_FILE), [0xa5; 8192]).unwrap();
        let findings = look(dir.path(), None).await;
        assert_eq!(findings[0].state, State::Wrong, "{findings:?}");
        assert!(findings[0].words.contains("not a database"), "{findings:?}");
    }

    #[tokio::test]
    async fn a_sound_database_is_good_and_one_that_others_can_write_is_a_warning() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = lantern_store::Store::open(lantern_store::StoreConfig::new(dir.path()))
            .await
            .unwrap();
        store.close().await;
        let path = dir.path().join(DATABASE_FILE);
        for (mode, state) in [(0o600, State::Good), (0o666, State::Warning)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let findings = look(dir.path(), None).await;
            assert_eq!(findings[0].state, State::Good, "{findings:?}");
            assert!(findings[0].words.contains("no damage found"), "{findings:?}");
            assert_eq!(findings[1].state, state, "{findings:?}");
        }
    }
}
