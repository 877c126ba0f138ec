//! Properties of a broker and its streams by which confirmed messages can be lost. Pure.

use std::fmt;

use super::link::ServerVersion;

/// Versions of `nats-server` that can delete a stream's data on a replica after an idempotent create.
const DATA_LOSS_VERSIONS: [ServerVersion; 2] = [version(2, 14, 4), version(2, 12, 14)];

const fn version(major: u32, minor: u32, patch: u32) -> ServerVersion {
    ServerVersion { major, minor, patch }
}

/// Properties that determine whether a stream can lose confirmed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSafety {
    /// Number of servers that store it.
    pub replicas: usize,
    /// Whether the broker is a cluster.
    pub is_clustered: bool,
    /// Whether messages are confirmed before they are on disk (`persist_mode` async).
    pub is_persisted_later: bool,
    /// The version of its leader, which nats-server reports since 2.11.
    pub leader_version: Option<ServerVersion>,
}

/// A way in which confirmed messages can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityRisk {
    /// A server has a version that can delete a stream's data.
    Version(ServerVersion),
    /// One server of a cluster stores the stream.
    SingleReplica,
    /// The broker confirms messages before it writes them to disk.
    PersistedLater,
}

impl ServerVersion {
    /// The risk of this version.
    pub fn risk(self) -> Option<DurabilityRisk> {
        DATA_LOSS_VERSIONS
            .contains(&self)
            .then_some(DurabilityRisk::Version(self))
    }
}

impl StreamSafety {
    /// The risks of the stream.
    pub fn risks(&self) -> Vec<DurabilityRisk> {
        let version = self.leader_version.and_then(ServerVersion::risk);
        let single = (self.is_clustered && self.replicas < 2).then_some(DurabilityRisk::SingleReplica);
        let later = self.is_persisted_later.then_some(DurabilityRisk::PersistedLater);
        [version, single, later].into_iter().flatten().collect()
    }
}

impl DurabilityRisk {
    /// How to avoid it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Version(_) => "upgrade to 2.14.5, 2.12.15 or later",
            Self::SingleReplica => "set the number of replicas of the stream to 3",
            Self::PersistedLater => {
                "use the default persist_mode, unless the loss of confirmed messages in a crash is acceptable"
            }
        }
    }
}

impl fmt::Display for DurabilityRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "nats-server {version} can delete a stream's data on a replica when a client creates an existing stream \
                 again (nats-server#8449)"
            ),
            Self::SingleReplica => {
                f.write_str("one replica in a cluster; the stream is unavailable or lost if its server fails")
            }
            Self::PersistedLater => {
                f.write_str("the broker confirms messages before it writes them to disk (persist_mode async)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_versions_that_lose_data_are_a_risk() {
        for (text, risky) in [
            ("2.14.4", true),
            ("2.12.14", true),
            ("2.14.3", false),
            ("2.14.5", false),
            ("2.12.13", false),
            ("2.12.15", false),
            ("2.15.1", false),
            ("2.10.29", false),
        ] {
            assert_eq!(ServerVersion::parse(text).risk().is_some(), risky, "{text}");
        }
    }

    #[test]
    fn streams_that_can_lose_confirmed_messages_are_a_risk() {
        let safe = StreamSafety {
            replicas: 3,
            is_clustered: true,
            is_persisted_later: false,
            leader_version: Some(version(2, 15, 1)),
        };
        let alone = StreamSafety { replicas: 1, ..safe };
        let one_server = StreamSafety {
            is_clustered: false,
            leader_version: None,
            ..alone
        };
        for (safety, expected) in [
            (safe, &[][..]),
            (alone, &[DurabilityRisk::SingleReplica]),
            (one_server, &[]),
            (
                StreamSafety {
                    is_persisted_later: true,
                    ..one_server
                },
                &[DurabilityRisk::PersistedLater],
            ),
            (
                StreamSafety {
                    leader_version: Some(version(2, 14, 4)),
                    ..alone
                },
                &[
                    DurabilityRisk::Version(version(2, 14, 4)),
                    DurabilityRisk::SingleReplica,
                ],
            ),
        ] {
            assert_eq!(safety.risks(), expected, "{safety:?}");
        }
    }
}
