//! The checks of a broker: the versions of its servers, the streams that a database reads, and how often the servers write
//! streams to disk.

use std::time::Duration;

use serde::Deserialize;

use lantern_authoring::doctor::Finding;
use lantern_broker::{
    Broker, BrokerConfig, DurabilityRisk, EMBEDDED_SYNC_INTERVAL, Link, ServerVersion, StreamFacts,
};

/// Longest interval between two writes to disk that needs no warning. The default of nats-server is two minutes.
const SYNC_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// How long a monitoring port may take to answer.
const MONITORING_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer of a monitoring port, in bytes.
const VARZ_BYTES_MAX: u64 = 1 << 20;

/// How to find out how often servers write streams to disk. Neither the server's greeting nor a JetStream answer contains
/// it, and its system account is closed to users of JetStream.
pub(super) enum SyncSource<'a> {
    /// From the configuration of the embedded broker.
    Embedded,
    /// From the monitoring ports of the servers.
    Monitored(&'a [String]),
}

/// Checks a reachable broker and the streams of a database.
pub(super) async fn check(url: &str, streams: &[String], sync: SyncSource<'_>) -> Vec<Finding> {
    let Ok(broker) = Broker::connect_within(BrokerConfig::remote(url), crate::app::CONNECT_TIME).await else {
        // Another finding contains the reason.
        return Vec::new();
    };
    let mut findings = Vec::new();
    if let Link::Connected(server) = &*broker.link().borrow() {
        findings.extend(server.version.risk().map(|risk| warning("broker", None, risk)));
    }
    for stream in streams {
        findings.extend(check_stream(&broker, stream).await);
    }
    broker.stop().await;
    match sync {
        SyncSource::Embedded => findings.push(Finding::ok(
            "sync",
            format!("the embedded broker writes streams to disk every {EMBEDDED_SYNC_INTERVAL}"),
        )),
        SyncSource::Monitored([]) => findings.push(Finding::ok(
            "sync",
            "not checked: only the monitoring port of nats-server reports how often it writes streams to disk (--monitoring)",
        )),
        SyncSource::Monitored(urls) => {
            for url in urls {
                findings.extend(check_monitored(url).await);
            }
        }
    }
    findings
}

async fn check_stream(broker: &Broker, stream: &str) -> Vec<Finding> {
    match broker.stream_facts(stream).await {
        Ok(Some(facts)) => stream_findings(stream, &facts),
        Ok(None) => vec![Finding::warning(
            "stream",
            format!("the stream {stream} of the database does not exist on the broker"),
            "check that this is the right broker",
        )],
        Err(error) => vec![Finding::warning(
            "stream",
            format!("{stream}: {error}"),
            error.hint().unwrap_or("check the log of the broker"),
        )],
    }
}

fn stream_findings(stream: &str, facts: &StreamFacts) -> Vec<Finding> {
    let safety = &facts.safety;
    let risks = safety.risks();
    if risks.is_empty() {
        return vec![Finding::ok(
            "stream",
            format!("{stream}: {} replica(s)", safety.replicas),
        )];
    }
    risks
        .into_iter()
        .map(|risk| warning("stream", Some(stream), risk))
        .collect()
}

fn warning(subject: &str, object: Option<&str>, risk: DurabilityRisk) -> Finding {
    let object = object.map(|object| format!("{object}: ")).unwrap_or_default();
    Finding::warning(subject, format!("{object}{risk}"), risk.remedy())
}

/// The part of a monitoring port's `/varz` that the check needs.
#[derive(Debug, Deserialize)]
struct Varz {
    server_name: String,
    version: String,
    #[serde(default)]
    jetstream: Jetstream,
}

#[derive(Debug, Default, Deserialize)]
struct Jetstream {
    config: Option<JetstreamConfig>,
}

#[derive(Debug, Deserialize)]
struct JetstreamConfig {
    #[serde(default)]
    sync_always: bool,
    /// In nanoseconds.
    #[serde(default)]
    sync_interval: u64,
}

async fn check_monitored(url: &str) -> Vec<Finding> {
    let address = format!("{}/varz", url.trim_end_matches('/'));
    let fetched = tokio::task::spawn_blocking(move || fetch(&address)).await;
    let fetched = fetched.map_err(|error| error.to_string()).flatten();
    match fetched {
        Ok(varz) => monitored_findings(&varz),
        Err(error) => vec![Finding::warning(
            "sync",
            format!("failed to read {url}: {error}"),
            "pass the monitoring URL of a server, such as http://127.0.0.1:8222",
        )],
    }
}

fn fetch(address: &str) -> Result<Varz, String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(MONITORING_TIMEOUT));
    let agent: ureq::Agent = config.build().into();
    let mut answer = agent.get(address).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(VARZ_BYTES_MAX);
    let text = body.read_to_string().map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn monitored_findings(varz: &Varz) -> Vec<Finding> {
    let name = &varz.server_name;
    let version = ServerVersion::parse(&varz.version).risk();
    let mut findings: Vec<Finding> = version
        .map(|risk| warning("broker", Some(name), risk))
        .into_iter()
        .collect();
    findings.extend(varz.jetstream.config.as_ref().map(|config| {
        let interval = Duration::from_nanos(config.sync_interval);
        if config.sync_always || interval <= SYNC_INTERVAL_MAX {
            let when = if config.sync_always {
                "each message".to_owned()
            } else {
                format!("streams every {interval:?}")
            };
            return Finding::ok("sync", format!("{name} writes {when} to disk"));
        }
        Finding::warning(
            "sync",
            format!(
                "{name} writes streams to disk every {} s; a power failure can lose the confirmed messages of that time",
                interval.as_secs()
            ),
            "set `sync_interval: always`, or a few seconds, in the jetstream block of nats-server",
        )
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_authoring::doctor::Severity;

    fn messages(findings: &[Finding]) -> Vec<(Severity, &str)> {
        findings
            .iter()
            .map(|finding| (finding.severity, finding.message.as_str()))
            .collect()
    }

    #[test]
    fn a_server_that_rarely_writes_to_disk_causes_a_warning() {
        for (config, version, expected) in [
            (
                r#"{"sync_interval": 120000000000}"#,
                "2.15.1",
                &[(
                    Severity::Warning,
                    "n1 writes streams to disk every 120 s; a power failure can lose the confirmed messages of that time",
                )][..],
            ),
            (
                r#"{"sync_interval": 1000000000}"#,
                "2.15.1",
                &[(Severity::Ok, "n1 writes streams every 1s to disk")],
            ),
            (
                r#"{"sync_interval": 120000000000, "sync_always": true}"#,
                "2.15.1",
                &[(Severity::Ok, "n1 writes each message to disk")],
            ),
            ("null", "2.15.1", &[]),
        ] {
            let text = format!(
                r#"{{"server_name": "n1", "version": "{version}", "jetstream": {{"config": {config}}}, "port": 4222}}"#
            );
            let findings = monitored_findings(&serde_json::from_str(&text).unwrap());
            assert_eq!(messages(&findings), expected, "{config}");
        }
        let risky = serde_json::from_str(r#"{"server_name": "n1", "version": "2.12.14"}"#).unwrap();
        let findings = monitored_findings(&risky);
        assert!(
            findings[0]
                .message
                .starts_with("n1: nats-server 2.12.14 can delete"),
            "{findings:?}"
        );
    }
}
