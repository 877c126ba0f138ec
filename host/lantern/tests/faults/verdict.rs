//! Compares the expected with the actual state. Pure code without I/O.

use std::collections::BTreeMap;
use std::fmt;

use super::streams::Stream;

/// The expected outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Row,
    DeadLetter,
}

/// The state of a message outside the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not acknowledged; the broker may have stored it.
    Unacknowledged,
    /// In the stream: always readable.
    InStream,
    /// Removed from the stream: it was read before, or there is a gap.
    Removed,
    /// Lost with its stream after it was seen in the database.
    Stored,
    /// Lost with its stream or the database, and possibly never read.
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub stream: Stream,
    pub kind: Kind,
    /// Its sequence in the stream that stored it.
    pub sequence: u64,
    pub fate: Fate,
}

/// The content of the database.
#[derive(Debug, Default)]
pub struct Found {
    /// Number of rows per id.
    pub rows: BTreeMap<(Stream, u64), u64>,
    /// Number of dead letters per id.
    pub dead_letters: BTreeMap<(Stream, u64), u64>,
    /// Stream, first and last sequence.
    pub gaps: Vec<(Stream, u64, u64)>,
}

/// Number of messages per verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub published: u64,
    /// Messages with the expected outcome, exactly once.
    pub ok: u64,
    /// Messages without an outcome, covered by a gap.
    pub gaps: u64,
    /// Messages without an outcome, because their stream or the database was deleted.
    pub gone: u64,
    pub lost: Vec<(Stream, u64)>,
    pub duplicated: Vec<(Stream, u64)>,
    pub unexpected: Vec<String>,
}

impl Counts {
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.duplicated.is_empty() && self.unexpected.is_empty()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            published,
            ok,
            gaps,
            gone,
            ..
        } = self;
        write!(
            out,
            "{published} published: {ok} ok, {gaps} in gaps, {gone} taken away, {} lost, {} duplicated, {} unexpected",
            self.lost.len(),
            self.duplicated.len(),
            self.unexpected.len()
        )?;
        for (name, list) in [("lost", &self.lost), ("duplicated", &self.duplicated)] {
            if !list.is_empty() {
                write!(out, "; {name}: {:?}", &list[..list.len().min(20)])?;
            }
        }
        for what in self.unexpected.iter().take(20) {
            write!(out, "; {what}")?;
        }
        Ok(())
    }
}

/// Classifies every message of the journal, and everything in the database that is not in the journal.
pub fn judge(journal: &BTreeMap<u64, Sent>, found: &Found) -> Counts {
    let mut counts = Counts::default();
    for (&id, sent) in journal {
        let key = (sent.stream, id);
        let count = |kind| {
            let of_kind = match kind {
                Kind::Row => &found.rows,
                Kind::DeadLetter => &found.dead_letters,
            };
            of_kind.get(&key).copied().unwrap_or(0)
        };
        let (wanted, other) = match sent.kind {
            Kind::Row => (count(Kind::Row), count(Kind::DeadLetter)),
            Kind::DeadLetter => (count(Kind::DeadLetter), count(Kind::Row)),
        };
        counts.published += u64::from(sent.fate != Fate::Unacknowledged);
        if other > 0 {
            let what = format!("{:?} {id} became the opposite of a {:?}", sent.stream, sent.kind);
            counts.unexpected.push(what);
        }
        match (wanted, sent.fate) {
            (2.., _) => counts.duplicated.push(key),
            (_, Fate::Unacknowledged) => {}
            (1, _) => counts.ok += 1,
            (_, Fate::Gone) => counts.gone += 1,
            (_, Fate::Removed) if in_gap(found, sent) => counts.gaps += 1,
            (_, _) => counts.lost.push(key),
        }
    }
    for (stream, id) in found.rows.keys().chain(found.dead_letters.keys()) {
        if journal.get(id).is_none_or(|sent| sent.stream != *stream) {
            counts
                .unexpected
                .push(format!("{stream:?} {id} was never published"));
        }
    }
    counts
}

fn in_gap(found: &Found, sent: &Sent) -> bool {
    let mut gaps = found.gaps.iter();
    gaps.any(|(stream, first, last)| *stream == sent.stream && (*first..=*last).contains(&sent.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(kind: Kind, sequence: u64, fate: Fate) -> Sent {
        Sent {
            stream: Stream::Obs,
            kind,
            sequence,
            fate,
        }
    }

    #[test]
    fn each_outcome_of_a_message_is_distinguished() {
        let row = |fate, sequence| sent(Kind::Row, sequence, fate);
        let journal = BTreeMap::from([
            (1, row(Fate::InStream, 1)),
            (2, row(Fate::InStream, 2)),
            (3, row(Fate::InStream, 3)),
            (4, row(Fate::Removed, 4)),
            (5, row(Fate::Removed, 5)),
            (6, row(Fate::Gone, 6)),
            (7, row(Fate::Stored, 7)),
            (8, row(Fate::Unacknowledged, 0)),
            (9, sent(Kind::DeadLetter, 9, Fate::InStream)),
            (10, sent(Kind::DeadLetter, 10, Fate::InStream)),
        ]);
        let key = |id| (Stream::Obs, id);
        let found = Found {
            rows: BTreeMap::from([(key(1), 1), (key(2), 2), (key(8), 1), (key(10), 1), (key(99), 1)]),
            dead_letters: BTreeMap::from([(key(9), 1), (key(10), 1)]),
            gaps: vec![(Stream::Obs, 4, 4), (Stream::Evil, 5, 5)],
        };
        let counts = judge(&journal, &found);
        assert_eq!(
            (counts.published, counts.ok, counts.gaps, counts.gone),
            (9, 3, 1, 1)
        );
        assert_eq!(counts.lost, [key(3), key(5), key(7)]);
        assert_eq!(counts.duplicated, [key(2)]);
        assert_eq!(counts.unexpected.len(), 2, "{:?}", counts.unexpected);
        assert!(!counts.is_clean());
    }
}
