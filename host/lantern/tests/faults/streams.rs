//! The streams of a run: their payloads, and the tables that store them.

/// A stream, with the single source that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    Obs,
    Evolve,
    Evil,
}

impl Stream {
    pub const ALL: [Self; 3] = [Self::Obs, Self::Evolve, Self::Evil];

    pub fn name(self) -> &'static str {
        match self {
            Self::Obs => "OBS_EVENTS",
            Self::Evolve => "EVOLVE",
            Self::Evil => "EVIL",
        }
    }

    pub fn subject(self) -> &'static str {
        match self {
            Self::Obs => "obs.pc",
            Self::Evolve => "evolve.x",
            Self::Evil => "evil.x",
        }
    }

    pub fn subjects(self) -> &'static str {
        match self {
            Self::Obs => "obs.>",
            Self::Evolve => "evolve.>",
            Self::Evil => "evil.>",
        }
    }

    pub fn source(self) -> &'static str {
        match self {
            Self::Obs => "obs",
            Self::Evolve => "evolve",
            Self::Evil => "evil",
        }
    }

    pub fn plugin(self) -> &'static str {
        match self {
            Self::Obs => "obs-events",
            Self::Evolve => "evolving",
            Self::Evil => "misbehaving",
        }
    }

    pub fn consumer(self) -> &'static str {
        match self {
            Self::Obs => "lantern-obs-events-obs",
            Self::Evolve => "lantern-evolving-evolve",
            Self::Evil => "lantern-misbehaving-evil",
        }
    }

    /// Returns a message that becomes a row with this id. No other value of the row is unique, so that no key hides a
    /// second row.
    pub fn payload(self, id: u64) -> String {
        match self {
            Self::Obs => format!(
                r#"{{"pc_id":"pc","at":"2026-11-20T00:00:00Z","kind":"k","source":"s","payload":{{"n":{id}}}}}"#
            ),
            Self::Evolve => id.to_string(),
            Self::Evil => format!("ok {id}"),
        }
    }

    /// Returns a query for the ids of all rows.
    pub fn rows(self) -> &'static str {
        match self {
            Self::Obs => "SELECT json_extract(payload, '$.n') FROM obs_events",
            Self::Evolve => "SELECT n FROM evolved",
            Self::Evil => "SELECT n FROM evil",
        }
    }
}

/// Payloads on which the plugin `misbehaving` breaks its contract. Each becomes a dead letter.
pub const HOSTILE: [&str; 14] = [
    "trap",
    "loop",
    "recurse",
    "grow",
    "short-answer",
    "long-answer",
    "wrong-count",
    "extra-value",
    "wrong-type",
    "unknown-write",
    "half-wrong",
    "nan",
    "bad-json",
    "reject",
];

/// Header bytes that brokers store and client libraries do not send.
pub const HEADERS: [&[u8]; 6] = [
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\nA: x\nB: y\r\n\r\n",
    b"NATS/1.0\r\n\xc3\xa9: y\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
];
