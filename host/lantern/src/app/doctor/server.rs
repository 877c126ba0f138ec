//! The checks of a PostgreSQL server. They only read, and no finding contains the password of the address.

use lantern_authoring::doctor::Finding;
use lantern_store::{Server, ServerReport};

const SUBJECT: &str = "postgresql";

/// Checks the server of an address.
pub async fn check(url: &str) -> Vec<Finding> {
    let server: Server = match url.parse() {
        Ok(server) => server,
        Err(error) => {
            return vec![Finding::error(
                SUBJECT,
                format!(
                    "the URL is not valid: {}",
                    lantern_store::ServerError::kind(&error)
                ),
                "use postgres://USER:PASSWORD@HOST/DATABASE",
            )];
        }
    };
    match server.report().await {
        Ok(report) => findings(&server, &report),
        Err(error) => vec![Finding::error(
            SUBJECT,
            format!("{server}: {error}"),
            "check the address, the password, pg_hba.conf and sslmode (docs/scale.md)",
        )],
    }
}

fn findings(server: &Server, report: &ServerReport) -> Vec<Finding> {
    let ServerReport {
        version,
        is_supported,
        is_encrypted,
        can_create,
        is_superuser,
    } = report;
    let encrypted = if *is_encrypted { "with TLS" } else { "without TLS" };
    let summary = format!("{server}: version {version}, {encrypted}");
    let mut findings = vec![match is_supported {
        true => Finding::ok(SUBJECT, summary),
        false => Finding::error(SUBJECT, summary, "use version 15 or later"),
    }];
    findings.extend((!can_create).then(|| {
        Finding::error(
            SUBJECT,
            "the role cannot create the host's tables",
            "GRANT CREATE ON DATABASE … TO …, or let the role own the schema lantern",
        )
    }));
    findings.extend(is_superuser.then(|| {
        Finding::warning(
            SUBJECT,
            "the role is a superuser",
            "use a role that only has CREATE on the database: queries in SQL run with its rights",
        )
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_cannot_be_used_is_reported_without_its_password() {
        for (url, expected) in [
            (
                "postgres://u:geheim@127.0.0.1:1/x",
                "postgres://u@127.0.0.1:1/x: ",
            ),
            ("postgres://u:geheim@host/x?sslmode=yes", "sslmode is"),
            ("mysql://u:geheim@host/x", "postgres://"),
        ] {
            let findings = check(url).await;
            let text = format!("{findings:?}");
            assert!(findings[0].message.contains(expected), "{text}");
            assert!(!text.contains("geheim"), "{text}");
        }
    }
}
