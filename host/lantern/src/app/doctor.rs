//! The checks of `lantern doctor` for operators: a host's database, its permissions, and its broker. They only read.

mod broker;
pub mod server;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use broker::SyncSource;
use lantern_authoring::doctor::{Finding, check_broker};
use lantern_store::DATABASE_FILE;
use lantern_store::check::{CheckError, Examined, examine};

/// Checks the database of a data directory and the broker: the given one, or the embedded broker of a running host.
/// `monitoring` are the monitoring URLs of the given broker's servers.
pub async fn check(data_dir: &Path, nats: Option<&str>, monitoring: &[String]) -> Vec<Finding> {
    let path = data_dir.join(DATABASE_FILE);
    if !path.exists() {
        return match nats {
            Some(url) => broker::check(url, &[], SyncSource::Monitored(monitoring)).await,
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
    // A context has no URL here.
    let external = super::presence::external_broker(data_dir).filter(|broker| broker.contains("://"));
    match (nats, external, own) {
        (Some(url), _, _) => {
            findings.extend(broker::check(url, &streams, SyncSource::Monitored(monitoring)).await);
        }
        (None, Some(url), _) => {
            findings.push(check_broker(&url).await);
            findings.extend(broker::check(&url, &streams, SyncSource::Monitored(monitoring)).await);
        }
        (None, None, Some(url)) => {
            findings.push(check_broker(url.trim()).await);
            findings.extend(broker::check(url.trim(), &streams, SyncSource::Embedded).await);
        }
        (None, None, None) => findings.push(Finding::warning(
            "streams",
            "not checked: no host runs with this data directory, so its broker is unknown",
            "start the host, or give --nats URL",
        )),
    }
    findings
}

fn database(path: &Path, examined: &Examined) -> Vec<Finding> {
    let Examined {
        schema,
        bytes,
        page_bytes,
        damage,
        ..
    } = examined;
    let summary = format!(
        "{}: schema {schema}, {:.1} MiB in pages of {page_bytes} bytes",
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

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_authoring::doctor::Severity;

    #[tokio::test]
    async fn a_file_that_is_not_a_database_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            check(dir.path(), None, &[]).await.is_empty(),
            "no database, no finding"
        );
        std::fs::write(dir.path().join(DATABASE_FILE), [0xa5; 8192]).unwrap();
        let findings = check(dir.path(), None, &[]).await;
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
            let findings = check(dir.path(), None, &[]).await;
            assert_eq!(findings[0].severity, Severity::Ok, "{findings:?}");
            assert!(findings[0].message.contains("no damage found"), "{findings:?}");
            assert_eq!(findings[1].severity, severity, "{findings:?}");
        }
    }
}
