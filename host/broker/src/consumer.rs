//! The desired configuration of the durable consumer behind a subscription, its differences from an existing consumer,
//! and facts that the broker reports about consumers.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy, Info, PriorityPolicy, ReplayPolicy};

use super::api::EMPTY;
use super::link::ServerVersion;
use super::stream::nanoseconds;
use super::{Broker, BrokerError, Inner, OpenRequest, Retention, Start};
use lantern_model::batch::Timestamp;

/// A consumer as the broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// Matching messages that were not delivered yet. The broker's estimate: for display only.
    pub pending: u64,
    /// Messages that are delivered and not yet acknowledged.
    pub ack_pending: u64,
    /// Stream sequence up to which everything is acknowledged.
    pub ack_floor: u64,
    /// The last delivered stream sequence.
    pub delivered: u64,
    /// Waiting pull requests.
    pub waiting: u64,
    /// End of an operator's pause.
    pub paused_until: Option<Timestamp>,
    /// The owner in its metadata.
    pub owner: Option<String>,
    /// Inactivity after which the broker deletes it; zero means never.
    pub inactive_threshold: Duration,
    /// Differences from the requested configuration: another client changed the consumer. Only
    /// [`super::ConsumerHandle::facts`] fills this in, because it knows the requested configuration.
    pub differences: Vec<String>,
}

/// Metadata key of a consumer's owner.
pub(super) const OWNER: &str = "lantern.owner";
/// Metadata key of the term of the owner's lease, if its database has several hosts.
pub(super) const TERM: &str = "lantern.term";

impl Broker {
    /// Returns the facts of `consumer` of `stream`; `None` when it does not exist.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn consumer_facts(
        &self,
        stream: &str,
        consumer: &str,
    ) -> Result<Option<ConsumerFacts>, BrokerError> {
        Ok(self
            .inner
            .consumer_info(stream, consumer)
            .await?
            .map(|info| facts(&info)))
    }
}

/// The consumer configuration for `request`.
pub(super) fn desired_config(request: &OpenRequest, retention: Retention, version: ServerVersion) -> Config {
    let limits = retention == Retention::Limits;
    let deliver_policy = match request.start {
        Start::AfterTime(nanoseconds) if limits => {
            match async_nats::datetime::from_nanos(i128::from(nanoseconds)) {
                Ok(start_time) => DeliverPolicy::ByStartTime { start_time },
                Err(_) => DeliverPolicy::All,
            }
        }
        // A reset cannot rewind before the start of the consumer, so no start is configured.
        Start::After { sequence, .. } if limits && sequence > 0 && !version.has_reset() => {
            DeliverPolicy::ByStartSequence {
                start_sequence: sequence + 1,
            }
        }
        _ => DeliverPolicy::All,
    };
    let (filter_subject, filter_subjects) = match request.subjects.as_slice() {
        [one] => (one.clone(), Vec::new()),
        several => (String::new(), several.to_vec()),
    };
    let term = (request.term > 0).then(|| (TERM.to_owned(), request.term.to_string()));
    let metadata = [
        (OWNER, request.owner.as_str()),
        ("lantern.plugin", request.plugin.as_str()),
        ("lantern.source", request.source.as_str()),
        ("lantern.version", env!("CARGO_PKG_VERSION")),
    ];
    Config {
        name: Some(request.consumer.clone()),
        durable_name: Some(request.consumer.clone()),
        description: Some(request.description.clone()),
        deliver_policy,
        // Where the broker deletes acknowledged messages, only messages that were read may be acknowledged.
        ack_policy: if limits {
            AckPolicy::All
        } else {
            AckPolicy::Explicit
        },
        // The host never relies on redelivery: each opening rewinds to the checkpoint, and a redelivery would only
        // interfere.
        ack_wait: Duration::from_secs(60 * 60),
        max_deliver: -1,
        // The requests of a subscription bound the messages in flight.
        max_ack_pending: -1,
        replay_policy: ReplayPolicy::Instant,
        filter_subject,
        filter_subjects,
        metadata: metadata
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .chain(term)
            .collect(),
        ..Config::default()
    }
}

/// Upper bounds of one pull request. The broker fills in values from its own limits and those of the stream when a
/// consumer names none, so these values are not changes by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PullLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) expires: Duration,
}

impl PullLimits {
    /// The lower of `self` and the consumer's limits.
    pub(super) fn within(self, config: &Config) -> Self {
        let limit = |ours: usize, broker: i64| match usize::try_from(broker) {
            Ok(broker @ 1..) => ours.min(broker),
            _ => ours,
        };
        Self {
            messages: limit(self.messages, config.max_batch),
            bytes: limit(self.bytes, config.max_bytes),
            expires: if config.max_expires.is_zero() {
                self.expires
            } else {
                self.expires.min(config.max_expires)
            },
        }
    }
}

/// Differences of `found` from `desired` that affect delivery, as text. Limits of one request do not matter:
/// [`PullLimits`] respects them.
pub(super) fn differences(desired: &Config, found: &Config) -> Vec<String> {
    let mut list = Vec::new();
    let mut compare = |what: &str, desired: String, found: String| {
        if desired != found {
            list.push(format!("{what} is {found} and should be {desired}"));
        }
    };
    let subjects = |config: &Config| {
        let one = (!config.filter_subject.is_empty()).then_some(&config.filter_subject);
        format!(
            "{:?}",
            config.filter_subjects.iter().chain(one).collect::<BTreeSet<_>>()
        )
    };
    compare("filter", subjects(desired), subjects(found));
    compare(
        "ack policy",
        format!("{:?}", desired.ack_policy),
        format!("{:?}", found.ack_policy),
    );
    compare(
        "ack wait",
        format!("{:?}", desired.ack_wait),
        format!("{:?}", found.ack_wait),
    );
    compare(
        "max deliver",
        desired.max_deliver.to_string(),
        found.max_deliver.to_string(),
    );
    compare(
        "max ack pending",
        desired.max_ack_pending.to_string(),
        found.max_ack_pending.to_string(),
    );
    compare(
        "deliver policy",
        format!("{:?}", desired.deliver_policy),
        format!("{:?}", found.deliver_policy),
    );
    compare(
        "replay policy",
        format!("{:?}", desired.replay_policy),
        format!("{:?}", found.replay_policy),
    );
    compare(
        "deliver subject",
        String::new(),
        found.deliver_subject.clone().unwrap_or_default(),
    );
    compare("headers only", false.to_string(), found.headers_only.to_string());
    compare("rate limit", 0.to_string(), found.rate_limit.to_string());
    compare("backoff", "[]".to_owned(), format!("{:?}", found.backoff));
    let priority = |config: &Config| (config.priority_policy == PriorityPolicy::None).to_string();
    compare("no priority policy", priority(desired), priority(found));
    list
}

pub(super) fn facts(info: &Info) -> ConsumerFacts {
    let until = info.config.pause_until.filter(|_| info.paused);
    ConsumerFacts {
        pending: info.num_pending,
        ack_pending: info.num_ack_pending as u64,
        ack_floor: info.ack_floor.stream_sequence,
        delivered: info.delivered.stream_sequence,
        waiting: info.num_waiting as u64,
        paused_until: until.map(|time| Timestamp(nanoseconds(time.unix_timestamp_nanos()) / 1_000)),
        owner: info.config.metadata.get(OWNER).cloned(),
        inactive_threshold: info.config.inactive_threshold,
        differences: Vec::new(),
    }
}

impl Inner {
    pub(super) async fn consumer_info(
        &self,
        stream: &str,
        consumer: &str,
    ) -> Result<Option<Info>, BrokerError> {
        let none = [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND];
        self.request(format!("CONSUMER.INFO.{stream}.{consumer}"), &EMPTY, &none)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(start: Start, subjects: &[&str]) -> OpenRequest {
        OpenRequest {
            stream: "S".into(),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            consumer: "c".into(),
            owner: "me".into(),
            start,
            plugin: "p".into(),
            source: "s".into(),
            description: String::new(),
            replace: false,
            term: 0,
        }
    }

    const NEW: ServerVersion = ServerVersion {
        major: 2,
        minor: 15,
        patch: 0,
    };
    const OLD: ServerVersion = ServerVersion {
        major: 2,
        minor: 12,
        patch: 0,
    };

    #[test]
    fn a_start_policy_is_used_only_without_resets() {
        let at = |sequence| {
            request(
                Start::After {
                    sequence,
                    published_ns: None,
                },
                &[],
            )
        };
        let policy = |request: &OpenRequest, retention, version| {
            desired_config(request, retention, version).deliver_policy
        };
        assert_eq!(policy(&at(7), Retention::Limits, NEW), DeliverPolicy::All);
        assert_eq!(
            policy(&at(7), Retention::Limits, OLD),
            DeliverPolicy::ByStartSequence { start_sequence: 8 }
        );
        assert_eq!(policy(&at(0), Retention::Limits, OLD), DeliverPolicy::All);
        assert_eq!(
            policy(&at(7), Retention::WorkQueue, OLD),
            DeliverPolicy::All,
            "the broker permits no other policy"
        );
    }

    #[test]
    fn requests_respect_the_limits_of_the_broker() {
        let ours = PullLimits {
            messages: 4096,
            bytes: 8 << 20,
            expires: Duration::from_secs(10),
        };
        assert_eq!(ours.within(&Config::default()), ours);
        let limited = Config {
            max_batch: 250,
            max_bytes: 100,
            max_expires: Duration::from_secs(2),
            ..Config::default()
        };
        let expected = PullLimits {
            messages: 250,
            bytes: 100,
            expires: Duration::from_secs(2),
        };
        assert_eq!(ours.within(&limited), expected);
        let wide = Config {
            max_batch: 5000,
            max_bytes: 1 << 30,
            max_expires: Duration::from_secs(60),
            ..Config::default()
        };
        assert_eq!(ours.within(&wide), ours);
    }

    #[test]
    fn relevant_changes_are_reported() {
        let start = Start::After {
            sequence: 0,
            published_ns: None,
        };
        let ours = desired_config(&request(start, &["a.>", "b"]), Retention::Limits, NEW);
        let same = Config {
            filter_subjects: vec!["b".into(), "a.>".into()],
            description: Some("another description".into()),
            max_waiting: 512,
            max_batch: 250,
            max_bytes: 1 << 20,
            max_expires: Duration::from_secs(5),
            ..ours.clone()
        };
        assert_eq!(differences(&ours, &same), Vec::<String>::new());
        let changed = Config {
            ack_policy: AckPolicy::Explicit,
            max_deliver: 3,
            filter_subjects: vec![],
            filter_subject: "a.1".into(),
            ..ours.clone()
        };
        let differences = differences(&ours, &changed).join("; ");
        for word in ["filter", "ack policy", "max deliver is 3"] {
            assert!(differences.contains(word), "{differences}");
        }
    }
}
