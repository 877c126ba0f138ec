//! The broker of a run and the retention of its streams.

use async_nats::jetstream::stream::{Config, RetentionPolicy};

use super::streams::Stream;

/// Selects the broker and the streams of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// One broker, whose streams keep their messages.
    Single,
    /// One broker. A work-queue stream and an interest stream delete acknowledged messages.
    Retention,
    /// A cluster of three servers, with three replicas of each stream.
    Cluster,
}

impl Setup {
    /// Whether the nemesis may replace the broker's store by an older copy. On a stream that deletes acknowledged
    /// messages, nothing distinguishes the older state.
    pub fn may_revert_broker(self) -> bool {
        self == Self::Single
    }

    /// Whether a stream deletes acknowledged messages.
    pub fn deletes_acknowledged(self, stream: Stream) -> bool {
        self.retention(stream) != RetentionPolicy::Limits
    }

    /// Whether a stream stores only messages that a consumer waits for.
    pub fn needs_consumer(self, stream: Stream) -> bool {
        self.retention(stream) == RetentionPolicy::Interest
    }

    fn retention(self, stream: Stream) -> RetentionPolicy {
        match (self, stream) {
            (Self::Retention, Stream::Evolve) => RetentionPolicy::WorkQueue,
            (Self::Retention, Stream::Evil) => RetentionPolicy::Interest,
            _ => RetentionPolicy::Limits,
        }
    }

    pub fn stream(self, stream: Stream) -> Config {
        Config {
            name: stream.name().to_owned(),
            subjects: vec![stream.subjects().to_owned()],
            retention: self.retention(stream),
            num_replicas: if self == Self::Cluster { 3 } else { 1 },
            ..Config::default()
        }
    }
}
