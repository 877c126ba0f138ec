//! Reads the counts of the host through its API.

use std::{
    collections::BTreeMap,
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The used fields of one projection.
#[derive(Debug, Deserialize)]
struct Projection {
    plugin: String,
    source: String,
    #[serde(default)]
    rows: u64,
    #[serde(default)]
    dead_letters: u64,
    /// None for core NATS sources.
    #[serde(default)]
    lag: Option<u64>,
}

/// Rows per plugin, total lag and dead letters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    rows: BTreeMap<String, u64>,
    lag: u64,
    dead_letters: u64,
}

impl Counts {
    /// The number of all rows.
    pub fn rows(&self) -> u64 {
        self.rows.values().sum()
    }

    fn parse(body: &str) -> Result<Self> {
        let projections: Vec<Projection> =
            serde_json::from_str(body).context("cannot parse the response of /api/v1/projections")?;
        let mut counts = Self::default();
        let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
        for projection in &projections {
            *sources.entry(&projection.plugin).or_default() += 1;
        }
        for projection in &projections {
            // A plugin with one source is listed by its name.
            let name = match sources.get(projection.plugin.as_str()) {
                Some(&count) if count > 1 => format!("{}/{}", projection.plugin, projection.source),
                _ => projection.plugin.clone(),
            };
            *counts.rows.entry(name).or_default() += projection.rows;
            counts.lag += projection.lag.unwrap_or(0);
            counts.dead_letters += projection.dead_letters;
        }
        Ok(counts)
    }
}

/// One line.
impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rows:")?;
        for (name, rows) in &self.rows {
            write!(out, " {name} {rows},")?;
        }
        write!(out, " lag {}, dead letters {}", self.lag, self.dead_letters)
    }
}

/// The current counts. `address` is `http://HOST:PORT`.
pub fn counts(address: &str) -> Result<Counts> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into();
    let url = format!("{address}/api/v1/projections");
    let mut response = agent
        .get(&url)
        .call()
        .with_context(|| format!("cannot get {url}"))?;
    let body = response
        .body_mut()
        .read_to_string()
        .with_context(|| format!("cannot read the response of {url}"))?;
    Counts::parse(&body)
}

/// The counts when the lag is zero, or at the end of `limit`.
pub fn settled(address: &str, limit: Duration) -> Result<Counts> {
    let started = Instant::now();
    loop {
        let counts = counts(address)?;
        if counts.lag == 0 || started.elapsed() >= limit {
            return Ok(counts);
        }
        // The API has no event to wait for.
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    use super::*;

    const BODY: &str = r#"[
        {"plugin": "obs-events", "source": "events", "rows": 7, "lag": 2, "dead_letters": 1, "state": "running"},
        {"plugin": "executions", "source": "started", "rows": 3, "lag": 0},
        {"plugin": "executions", "source": "results", "rows": 4, "lag": null}
    ]"#;

    #[test]
    fn counts_are_listed_per_plugin() {
        let counts = Counts::parse(BODY).unwrap();
        let line = "rows: executions/results 4, executions/started 3, obs-events 7, lag 2, dead letters 1";
        assert_eq!(counts.to_string(), line);
        assert_eq!(counts.rows(), 14);
        assert!(Counts::parse("{}").is_err());
    }

    #[test]
    fn counts_are_read_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut request).unwrap() > 2 {}
            let length = BODY.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{BODY}"
            )
            .unwrap();
            request
        });
        assert_eq!(counts(&address).unwrap(), Counts::parse(BODY).unwrap());
        assert!(
            server
                .join()
                .unwrap()
                .starts_with("GET /api/v1/projections HTTP/1.1\r\n")
        );
    }
}
