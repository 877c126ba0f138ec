//! What a projection hands to the writer, and what it hears back. Plain data.

use std::sync::Arc;

use lantern_model::batch::{Delivery, Outcome, Timestamp};
use lantern_model::schema::Manifest;

/// Identifies one history of one source; a row's `_origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginId(pub i64);

/// Identifies one version of one plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub i64);

/// A position in a stream with what is needed to recognise the message that stood there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sequence.
    pub sequence: u64,
    /// The broker's time of the message; 0 where there is none.
    pub published_ns: i64,
    /// SHA-256 of the payload; none at the beginning and at the end of a gap.
    pub payload_sha256: Option<[u8; 32]>,
}

impl Mark {
    /// The place before the first message.
    pub const BEGINNING: Self = Self {
        sequence: 0,
        published_ns: 0,
        payload_sha256: None,
    };

    /// The position as an anchor; none where no message stands at it.
    pub fn anchor(&self) -> Option<Anchor> {
        self.payload_sha256.map(|payload_sha256| Anchor {
            sequence: self.sequence,
            published_ns: self.published_ns,
            payload_sha256,
        })
    }
}

/// A message that was read, with what recognises it: two histories can use the same sequence for different messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The sequence.
    pub sequence: u64,
    /// The broker's time of the message.
    pub published_ns: i64,
    /// SHA-256 of the payload.
    pub payload_sha256: [u8; 32],
}

/// Sequences that were gone before they were read. Both ends are included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first sequence that is gone.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Whether all of them were this source's.
    pub exact: bool,
    /// How it was noticed, in words.
    pub reason: String,
}

impl Gap {
    /// How many sequences it has.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A message with what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The message, whole: it may still have to become a dead letter.
    pub delivery: Delivery,
    /// What became of it; rows are checked against the manifest.
    pub outcome: Outcome,
}

/// A plugin version that the store knows, ready to write with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The version.
    pub version: VersionId,
    /// What it declared.
    pub manifest: Arc<Manifest>,
    /// The SQL of each of the manifest's writes.
    pub(super) statements: Arc<[String]>,
}

/// Everything that one batch changes. It takes effect as a whole or not at all.
#[derive(Debug)]
pub struct Commit {
    /// Which history of which source.
    pub origin: OriginId,
    /// The history that the rows are stamped with: the same, but for a rebuild, whose rows are to look like those that
    /// they replace.
    pub stamp: OriginId,
    /// Which plugin version made the outcomes.
    pub plugin: Adopted,
    /// The checkpoint that this batch continues. When the stored one differs, nothing happens
    /// ([`CommitError::Stale`]): so no batch can take effect twice or out of order.
    pub after: u64,
    /// The checkpoint that it leaves behind.
    pub through: Mark,
    /// In the order of the stream.
    pub entries: Vec<Entry>,
    /// Gaps between `after` and `through`.
    pub gaps: Vec<Gap>,
    /// Whether the commit has to be on the disk before it is answered, because the broker deletes what was
    /// acknowledged (work-queue and interest streams).
    pub durable: bool,
}

/// What the database did with rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowEffects {
    /// Rows that were inserted.
    pub inserted: u64,
    /// Rows that changed a stored row.
    pub updated: u64,
    /// Rows that changed nothing: a row with their key was there already, and the write ignores or guards against that.
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
    /// Messages that gave rows.
    pub projected: u64,
    /// Messages that gave nothing on purpose.
    pub skipped: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Sequences that were gone before they were read.
    pub missing: u64,
    /// Rows that the plugin answered with.
    pub rows: u64,
    /// Rows that were inserted or updated: fewer, where writes ignore or guard.
    pub changed: u64,
    /// Rows that were inserted. Together with `updated` less than `changed` where ranges were recorded before the two
    /// were told apart.
    pub inserted: u64,
    /// Rows that changed a stored row.
    pub updated: u64,
}

impl Counts {
    /// The same counts with what the database did with the rows.
    pub fn with_effects(self, effects: RowEffects) -> Self {
        Self {
            changed: effects.inserted + effects.updated,
            inserted: effects.inserted,
            updated: effects.updated,
            ..self
        }
    }

    /// Rows that changed nothing, because a row with their key was there already.
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
    /// What was counted.
    pub counts: Counts,
    /// What the database did with the rows of each of the manifest's writes.
    pub effects: Vec<RowEffects>,
    /// Messages whose rows the database refused, with its reason; they are dead letters now.
    pub refused: Vec<(u64, String)>,
    /// Of the messages counted as dead, those that an operator had erased: they are no open dead letters.
    pub forgotten: u64,
    /// The entries, given back so that their memory is released away from the writer, which is the
    /// bottleneck (ADR 1).
    pub spent: Vec<Entry>,
    /// Wall time of the transaction that carried it.
    pub took: std::time::Duration,
}

/// Why a batch has not taken effect. Either way nothing of it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The stored checkpoint is not the one that the batch continues: read it again and start from there.
    #[error("the stored checkpoint is {found:?}, but the batch continues {expected}")]
    Stale {
        /// What the batch continues.
        expected: u64,
        /// What the database says; none when it does not know the origin.
        found: Option<u64>,
    },
    /// The database cannot be written now. The writer keeps trying; so should the projection.
    #[error("the database cannot be written: {0}")]
    Unavailable(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Where a source stands, as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The present history.
    pub origin: OriginId,
    /// Its number; the first is 1.
    pub epoch: u64,
    /// The name of its stream; none for core NATS.
    pub stream: Option<String>,
    /// When its stream was created, as the broker said; none for core NATS.
    pub stream_created_ns: Option<i64>,
    /// The last message that took effect, or where the epoch began.
    pub checkpoint: Mark,
    /// Messages of the epoch that recognise the stream again, the newest first.
    pub anchors: Vec<Anchor>,
    /// What an operator was asked about the stream, if anything.
    pub question: Option<Question>,
    /// The ledger's sums over this epoch.
    pub counts: Counts,
    /// Open dead letters of the source, all epochs.
    pub dead_letters: u64,
}

/// A question that only an operator can decide: whether the stream is the one that the epoch was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The creation time of the stream in question. The decision holds for this stream only.
    pub stream_created_ns: i64,
    /// The operator's decision; none until there is one.
    pub accepted: Option<Accepted>,
}

/// What an operator decided about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is the stream that was read: continue behind the checkpoint.
    Same,
    /// It is another stream: begin a new epoch at its first message.
    New,
}

impl Accepted {
    /// The decision in one word, as the database and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::New => "new",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Same, Self::New]
            .into_iter()
            .find(|accepted| accepted.as_str() == word)
    }
}

/// A new history of a source.
#[derive(Clone, Debug)]
pub struct NewEpoch {
    /// The plugin's name.
    pub plugin: String,
    /// The source's name.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// When the broker says that it was created.
    pub stream_created_ns: Option<i64>,
    /// The last sequence that does not belong to this epoch.
    pub after: u64,
    /// Messages up to `after` that the epoch's stream holds, the newest first: they recognise it before anything was
    /// read in this epoch.
    pub anchors: Vec<Anchor>,
    /// Why it begins, in words.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}
