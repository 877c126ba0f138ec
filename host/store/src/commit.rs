//! The requests and answers between a projection and the writer. Plain data.

use std::sync::Arc;

use super::read_error::ReadError;
use lantern_model::batch::{Delivery, Outcome, Timestamp};
use lantern_model::schema::Manifest;

/// Identifies one epoch of one source; a row's `_origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginId(pub i64);

/// Identifies one version of one plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub i64);

/// A position in a stream with the data that recognises its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sequence.
    pub sequence: u64,
    /// The broker's time of the message; 0 if there is none.
    pub published_ns: i64,
    /// SHA-256 of the payload; none at the start of an epoch and at the end of a gap.
    pub payload_sha256: Option<[u8; 32]>,
}

impl Mark {
    /// The position before the first message.
    pub const BEGINNING: Self = Self {
        sequence: 0,
        published_ns: 0,
        payload_sha256: None,
    };

    /// The position as an anchor; none if it has no message.
    pub fn anchor(&self) -> Option<Anchor> {
        self.payload_sha256.map(|payload_sha256| Anchor {
            sequence: self.sequence,
            published_ns: self.published_ns,
            payload_sha256,
        })
    }
}

/// A message that was read, with the data that recognises it: two epochs can use the same sequence for different
/// messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The sequence.
    pub sequence: u64,
    /// The broker's time of the message.
    pub published_ns: i64,
    /// SHA-256 of the payload.
    pub payload_sha256: [u8; 32],
}

/// Sequences that were gone before the host read them. Both ends are included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGap {
    /// The first sequence that is gone.
    pub first: u64,
    /// The last sequence that is gone.
    pub last: u64,
    /// Whether all of them belonged to this source.
    pub exact: bool,
    /// A description of how the gap was detected.
    pub reason: String,
}

impl NewGap {
    /// The number of sequences.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A message with its outcome.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The whole message: it may still become a dead letter.
    pub delivery: Delivery,
    /// Its outcome; rows were checked against the manifest.
    pub outcome: Outcome,
}

/// A plugin version that the store knows, with its prepared statements. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The version.
    pub version: VersionId,
    /// Its declaration.
    pub manifest: Arc<Manifest>,
    /// The SQL of each write of the manifest.
    pub(super) statements: Arc<[String]>,
    /// The name of each table of the manifest in the database: another one while a rebuild fills it.
    pub(super) tables: Arc<[String]>,
}

/// All changes of one batch. They take effect as a whole or not at all.
#[derive(Debug)]
pub struct Commit {
    /// The epoch of the source.
    pub origin: OriginId,
    /// The origin of the rows: the same, except in a rebuild, whose rows must equal those that they replace.
    pub stamp: OriginId,
    /// The plugin version that produced the outcomes.
    pub plugin: Adopted,
    /// The checkpoint that this batch continues. If the stored one differs, nothing happens ([`CommitError::Stale`]),
    /// so no batch takes effect twice or out of order.
    pub after: u64,
    /// The checkpoint after the batch.
    pub through: Mark,
    /// In stream order.
    pub entries: Vec<Entry>,
    /// Gaps between `after` and `through`.
    pub gaps: Vec<NewGap>,
    /// Whether the commit must be on disk before it is answered, because the broker deletes acknowledged messages
    /// (work-queue and interest streams).
    pub durable: bool,
}

/// The effect of the database on rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowEffects {
    /// Inserted rows.
    pub inserted: u64,
    /// Rows that updated a stored row.
    pub updated: u64,
    /// Rows that changed nothing: a row with their key exists, and the write ignores or guards against it.
    pub present: u64,
}

impl std::ops::AddAssign for RowEffects {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.present += other.present;
    }
}

/// Counts of a range of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handled: projected + skipped + dead.
    pub messages: u64,
    /// Messages that produced rows.
    pub projected: u64,
    /// Messages that the plugin skipped.
    pub skipped: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Sequences that were gone before the host read them.
    pub missing: u64,
    /// Rows that the plugin returned.
    pub rows: u64,
    /// Rows that were inserted or updated: fewer if writes ignore or guard.
    pub changed: u64,
    /// Inserted rows. `inserted` and `updated` add up to less than `changed` in ranges that an earlier version
    /// recorded, which did not distinguish them.
    pub inserted: u64,
    /// Rows that updated a stored row.
    pub updated: u64,
}

impl Counts {
    /// The same counts with the effects on rows.
    pub fn with_effects(self, effects: RowEffects) -> Self {
        Self {
            changed: effects.inserted + effects.updated,
            inserted: effects.inserted,
            updated: effects.updated,
            ..self
        }
    }

    /// Rows that changed nothing, because a row with their key exists.
    pub fn present(&self) -> u64 {
        self.rows.saturating_sub(self.changed)
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.projected += other.projected;
        self.skipped += other.skipped;
        self.dead += other.dead;
        self.missing += other.missing;
        self.rows += other.rows;
        self.changed += other.changed;
        self.inserted += other.inserted;
        self.updated += other.updated;
    }
}

/// A batch that has taken effect.
#[derive(Debug)]
pub struct Committed {
    /// Its counts.
    pub counts: Counts,
    /// The effects of each write of the manifest.
    pub effects: Vec<RowEffects>,
    /// Messages whose rows the database rejected, with the reason; they are dead letters now.
    pub refused: Vec<(u64, String)>,
    /// Of the messages counted as dead, those that an operator had erased: they are no open dead letters.
    pub forgotten: u64,
    /// The entries, returned so that the caller releases their memory instead of the writer, which is the bottleneck
    /// (ADR 1).
    pub spent: Vec<Entry>,
    /// Wall time of its transaction.
    pub took: std::time::Duration,
    /// Wall time that this batch took in the transaction.
    pub applied_in: std::time::Duration,
    /// Whether live batches were committed recently, so that one may have to wait for the next transaction.
    pub is_shared: bool,
}

/// Why a batch has not taken effect. Nothing of it has, in every case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The stored checkpoint is not the one that the batch continues: read the position again and continue from there.
    #[error("the stored checkpoint is {found:?}, but the batch continues {expected}")]
    Stale {
        /// The checkpoint that the batch continues.
        expected: u64,
        /// The stored checkpoint; none if the database does not know the origin.
        found: Option<u64>,
    },
    /// Another host holds the lease of the plugin.
    #[error("another host has the lease of the plugin")]
    NotHeld,
    /// The database cannot be written at the moment. The writer and the caller retry.
    #[error("the database cannot be written: {0}")]
    Unavailable(String),
    /// The database rejects a statement, for example because another program dropped its table. Other changes succeed.
    #[error("the database rejects a statement: {0}")]
    Failed(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl From<ReadError> for CommitError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.with_cause())
    }
}

/// The stored position of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The epoch in use.
    pub origin: OriginId,
    /// Its number; the first is 1.
    pub epoch: u64,
    /// The name of its stream; none for core NATS.
    pub stream: Option<String>,
    /// When its stream was created, according to the broker; none for core NATS.
    pub stream_created_ns: Option<i64>,
    /// The last message that took effect, or the start of the epoch.
    pub checkpoint: Mark,
    /// Messages of the epoch that recognise its stream, the newest first.
    pub anchors: Vec<Anchor>,
    /// The open question about the stream, if any.
    pub question: Option<Question>,
    /// The ledger's sums over this epoch.
    pub counts: Counts,
    /// Open dead letters of the source, in all epochs.
    pub dead_letters: u64,
}

/// A question for an operator: whether the stream is the one that the epoch was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The creation time of the stream in question. The decision holds for this stream only.
    pub stream_created_ns: i64,
    /// The operator's decision, if any.
    pub accepted: Option<Accepted>,
}

/// An operator's decision about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is the stream that was read: continue after the checkpoint.
    Same,
    /// It is another stream: begin a new epoch at its first message.
    New,
}

impl Accepted {
    /// The decision as one word, in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::New => "new",
        }
    }

    /// Parses the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Same, Self::New]
            .into_iter()
            .find(|accepted| accepted.as_str() == word)
    }
}

/// A new epoch of a source.
#[derive(Clone, Debug)]
pub struct NewEpoch {
    /// The plugin's name.
    pub plugin: String,
    /// The source's name.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// When the broker created it.
    pub stream_created_ns: Option<i64>,
    /// The last sequence before this epoch.
    pub after: u64,
    /// Messages up to `after` that the epoch's stream holds, the newest first: they recognise the stream before the
    /// host has read a message in this epoch.
    pub anchors: Vec<Anchor>,
    /// A description of why it begins.
    pub reason: String,
    /// The present time.
    pub at: Timestamp,
}

impl NewEpoch {
    /// The plugin whose lease the epoch needs: a rebuild writes under another name (`RebuildId::name_of`).
    pub(super) fn plugin_of_rebuild(&self) -> &str {
        self.plugin
            .split_once('#')
            .map_or(&*self.plugin, |(plugin, _)| plugin)
    }
}
