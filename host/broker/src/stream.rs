//! Facts about streams, and the creation of one where the configuration requests it. Never changes an existing stream,
//! because its owner configures it.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{self, PersistenceMode, RetentionPolicy, StorageType};

use super::api::EMPTY;
use super::link::ServerVersion;
use super::risks::StreamSafety;
use super::{Broker, BrokerError, Inner};

/// When a stream deletes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// By age, count and size.
    Limits,
    /// Each message is deleted when it is acknowledged.
    WorkQueue,
    /// Each message is deleted when every consumer has acknowledged it.
    Interest,
}

/// Storage of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// On disk.
    File,
    /// In memory: lost when the broker restarts.
    Memory,
}

/// A stream as the broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    /// When the stream was created, in nanoseconds since 1970. Survives a restore from a backup on a single server. On
    /// a cluster before nats-server 2.14.5 it changes at the first restart after an idempotent create.
    pub created_ns: i64,
    /// The first stored sequence; one more than the last when the stream is empty.
    pub first_sequence: u64,
    /// The last assigned sequence, even if its message is deleted.
    pub last_sequence: u64,
    /// When the first stored message was stored, in nanoseconds since 1970; 0 when there is none.
    pub first_time_ns: i64,
    /// When the last message was stored, in nanoseconds since 1970; 0 when there was none.
    pub last_time_ns: i64,
    /// Messages in the stream.
    pub messages: u64,
    /// Sequences between first and last whose messages were deleted one by one.
    pub deleted: u64,
    /// The subjects that it captures; empty for a mirror.
    pub subjects: Vec<String>,
    /// The subjects that its messages can have; `None` when the configuration does not determine them, as for a mirror.
    pub holds: Option<Vec<String>>,
    /// The sequence of its first message, as configured when it was created; 1 by default.
    pub begins_at: u64,
    /// When it deletes messages.
    pub retention: Retention,
    /// Where it is stored.
    pub storage: StorageKind,
    /// Whether it copies another stream, with that stream's sequences.
    pub is_mirror: bool,
    /// Whether it copies from other streams under new sequences.
    pub has_sources: bool,
    /// The servers of the cluster that store it; `None` on a single server.
    pub cluster: Option<ClusterFacts>,
    /// The replicas besides the leader, as the leader reports them; empty on a single server and without a leader.
    pub replicas: Vec<ReplicaFacts>,
    /// Settings that determine whether it can lose confirmed messages.
    pub safety: StreamSafety,
}

/// A replica of a stream, as the leader reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFacts {
    /// The name of its server.
    pub server: String,
    /// Operations that it is behind the leader.
    pub lag: u64,
    /// Whether it is complete and online.
    pub is_current: bool,
}

/// The servers of a cluster that store a stream, as their leader reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFacts {
    /// The leader; `None` while there is none.
    pub leader: Option<String>,
    /// Replicas that are offline or incomplete.
    pub behind: Vec<String>,
}

impl Broker {
    /// Returns the facts of the stream `name`; `None` when it does not exist.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn stream_facts(&self, name: &str) -> Result<Option<StreamFacts>, BrokerError> {
        let Some(info) = self.inner.stream_info(name).await? else {
            return Ok(None);
        };
        Ok(Some(facts(info)))
    }

    /// The subjects that messages of the stream `name` can have, including copies of other streams of the account.
    /// `None` when they cannot be determined: a copied stream is elsewhere, or subjects are rewritten.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn subjects_held(&self, name: &str) -> Result<Option<Vec<String>>, BrokerError> {
        let mut held = Vec::new();
        let mut names = vec![name.to_owned()];
        let mut asked = 0;
        while let Some(name) = names.pop() {
            asked += 1;
            let info = self.inner.stream_info(&name).await?;
            let Some(config) = info.map(|info| info.config).filter(|_| asked <= COPIED_MAX) else {
                return Ok(None);
            };
            if config.subject_transform.is_some() {
                return Ok(None);
            }
            for source in config.mirror.iter().chain(config.sources.iter().flatten()) {
                match &source.filter_subject {
                    _ if !source.subject_transforms.is_empty() => return Ok(None),
                    Some(filter) if !filter.is_empty() => held.push(filter.clone()),
                    _ if source.external.is_some() || source.domain.is_some() => return Ok(None),
                    _ => names.push(source.name.clone()),
                }
            }
            held.extend(config.subjects);
        }
        Ok(Some(held))
    }

    /// Whether the connected server belongs to a cluster. After a restart, a cluster may report for a while that a
    /// stream does not exist.
    pub fn is_clustered(&self) -> bool {
        self.inner.is_clustered()
    }

    /// Creates the stream `name` for `subjects`, on disk and with limits retention, if no stream has that name. An
    /// existing stream stays unchanged. Returns whether it created one.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or refuses, for example because another stream already captures
    /// one of the subjects.
    pub async fn ensure_stream(&self, name: &str, subjects: &[String]) -> Result<bool, BrokerError> {
        if self.inner.stream_info(name).await?.is_some() {
            return Ok(false);
        }
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.to_vec(),
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: 1,
            max_bytes: -1,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_message_size: -1,
            max_consumers: -1,
            allow_direct: true,
            description: Some("created by Lantern because its configuration requests it".to_owned()),
            ..stream::Config::default()
        };
        let made: Option<stream::Info> = self
            .inner
            .request(format!("STREAM.CREATE.{name}"), &config, &[])
            .await?;
        tracing::info!(stream = name, ?subjects, "created the stream");
        Ok(made.is_some())
    }
}

impl Inner {
    pub(super) fn is_clustered(&self) -> bool {
        let server = self.main.current().client.server_info();
        server.cluster.is_some_and(|name| !name.is_empty())
    }

    pub(super) async fn stream_info(&self, name: &str) -> Result<Option<stream::Info>, BrokerError> {
        self.request(
            format!("STREAM.INFO.{name}"),
            &EMPTY,
            &[ErrorCode::STREAM_NOT_FOUND],
        )
        .await
    }
}

/// Maximum number of copied streams that are examined for one stream's subjects.
const COPIED_MAX: usize = 16;

/// Whether the stream copies messages or rewrites subjects, so that its own subjects are incomplete.
fn copies(config: &stream::Config) -> bool {
    config.mirror.is_some()
        || config.sources.as_ref().is_some_and(|sources| !sources.is_empty())
        || config.subject_transform.is_some()
}

pub(super) fn retention(policy: RetentionPolicy) -> Retention {
    match policy {
        RetentionPolicy::Limits => Retention::Limits,
        RetentionPolicy::WorkQueue => Retention::WorkQueue,
        RetentionPolicy::Interest => Retention::Interest,
    }
}

fn facts(info: stream::Info) -> StreamFacts {
    let state = info.state;
    // A single server names itself as the leader of a cluster without a name.
    let cluster = info
        .cluster
        .filter(|cluster| cluster.name.as_ref().is_some_and(|name| !name.is_empty()));
    let safety = StreamSafety {
        replicas: info.config.num_replicas,
        is_clustered: cluster.is_some(),
        is_persisted_later: info.config.persist_mode == Some(PersistenceMode::Async),
        leader_version: info
            .config
            .metadata
            .get(LEADER_VERSION)
            .map(|text| ServerVersion::parse(text)),
    };
    StreamFacts {
        created_ns: nanoseconds(info.created.unix_timestamp_nanos()),
        first_sequence: state.first_sequence,
        last_sequence: state.last_sequence,
        first_time_ns: nanoseconds(state.first_timestamp.unix_timestamp_nanos()).max(0),
        last_time_ns: nanoseconds(state.last_timestamp.unix_timestamp_nanos()).max(0),
        messages: state.messages,
        deleted: state.deleted_count.unwrap_or(0),
        holds: (!copies(&info.config)).then(|| info.config.subjects.clone()),
        subjects: info.config.subjects,
        begins_at: info.config.first_sequence.unwrap_or(1).max(1),
        retention: retention(info.config.retention),
        storage: match info.config.storage {
            StorageType::File => StorageKind::File,
            StorageType::Memory => StorageKind::Memory,
        },
        is_mirror: info.config.mirror.is_some(),
        has_sources: info.config.sources.is_some_and(|sources| !sources.is_empty()),
        replicas: cluster.iter().flat_map(replicas).collect(),
        safety,
        cluster: cluster.map(|cluster| ClusterFacts {
            leader: cluster.leader.filter(|name| !name.is_empty()),
            behind: cluster
                .replicas
                .into_iter()
                .filter(|replica| replica.offline || !replica.current)
                .map(|replica| replica.name)
                .collect(),
        }),
    }
}

/// Metadata key in which a server since 2.11 names its version when it describes a stream; on a cluster the leader answers.
const LEADER_VERSION: &str = "_nats.ver";

/// The replicas besides the leader. Another server than the leader does not know how far they are.
fn replicas(cluster: &stream::ClusterInfo) -> Vec<ReplicaFacts> {
    if cluster.leader.as_ref().is_none_or(String::is_empty) {
        return Vec::new();
    }
    let facts = |replica: &stream::PeerInfo| ReplicaFacts {
        server: replica.name.clone(),
        lag: replica.lag.unwrap_or(0),
        is_current: replica.current && !replica.offline,
    };
    cluster.replicas.iter().map(facts).collect()
}

/// Nanoseconds since 1970, clamped to the years 1678 to 2262 (an empty stream reports year 1).
pub(super) fn nanoseconds(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}
