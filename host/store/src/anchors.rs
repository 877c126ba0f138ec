//! Anchors: messages of an epoch that the host has read, at growing distances before the newest one. A stream that
//! still contains one of them is the stream that was read, whatever its creation time (ADR 3). Decides which anchors to
//! keep, and encodes them; pure functions.

use rusqlite::types::FromSqlError;
use sha2::{Digest, Sha256};

use super::commit::{Anchor, Entry, Mark};

/// Size of one encoded anchor in bytes.
const ANCHOR_BYTES: usize = 48;

/// Decades of distance before the newest anchor, each with one anchor; the last one has no upper bound. With the newest
/// anchor that makes eight.
const DECADES: usize = 7;

/// The anchors after a commit: the earlier ones, the message at the new checkpoint if there is one, and the epoch's
/// first message if nothing had been read. The newest first.
pub(super) fn advance(before: &[Anchor], through: &Mark, entries: &[Entry]) -> Vec<Anchor> {
    let Some(newest) = through.anchor() else {
        return before.to_vec();
    };
    let mut candidates = vec![newest];
    candidates.extend_from_slice(before);
    // Not even a hash of a message that was erased is kept.
    if before.is_empty()
        && let Some(first) = entries.iter().find(|entry| !entry.outcome.is_forgotten())
    {
        candidates.push(anchor_of(first));
    }
    thin(candidates)
}

fn anchor_of(entry: &Entry) -> Anchor {
    Anchor {
        sequence: entry.delivery.sequence,
        published_ns: entry.delivery.published_ns,
        payload_sha256: Sha256::digest(&entry.delivery.payload).into(),
    }
}

/// Keeps the newest anchor and, for each decade of distance before it, the oldest one. An anchor ages within its decade
/// until it enters the next one; the oldest of all remains.
fn thin(mut candidates: Vec<Anchor>) -> Vec<Anchor> {
    candidates.sort_by_key(|anchor| std::cmp::Reverse(anchor.sequence));
    candidates.dedup_by_key(|anchor| anchor.sequence);
    let Some(&newest) = candidates.first() else {
        return candidates;
    };
    let mut kept = vec![newest];
    let decades = candidates[1..].chunk_by(|a, b| decade(newest, *a) == decade(newest, *b));
    kept.extend(decades.filter_map(|chunk| chunk.last().copied()));
    kept
}

fn decade(newest: Anchor, anchor: Anchor) -> usize {
    let distance = newest.sequence - anchor.sequence;
    (distance.max(1).ilog10() as usize).min(DECADES - 1)
}

/// Encodes anchors for the database.
pub(super) fn encode(anchors: &[Anchor]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(anchors.len() * ANCHOR_BYTES);
    for anchor in anchors {
        bytes.extend_from_slice(&anchor.sequence.to_be_bytes());
        bytes.extend_from_slice(&anchor.published_ns.to_be_bytes());
        bytes.extend_from_slice(&anchor.payload_sha256);
    }
    bytes
}

/// Decodes the anchors of column `column`. If an earlier version of the host wrote none, the checkpoint's message is
/// the only anchor.
pub(super) fn decode(
    stored: Option<Vec<u8>>,
    checkpoint: &Mark,
    column: usize,
) -> Result<Vec<Anchor>, crate::sql::Error> {
    let Some(bytes) = stored else {
        return Ok(checkpoint.anchor().into_iter().collect());
    };
    let (anchors, rest) = bytes.as_chunks::<ANCHOR_BYTES>();
    if !rest.is_empty() {
        let error = FromSqlError::InvalidBlobSize {
            expected_size: anchors.len() * ANCHOR_BYTES,
            blob_size: bytes.len(),
        };
        return Err(crate::sql::Error::decode(column, error));
    }
    Ok(anchors.iter().map(decode_one).collect())
}

fn decode_one(bytes: &[u8; ANCHOR_BYTES]) -> Anchor {
    let (mut sequence, mut published_ns, mut payload_sha256) = ([0; 8], [0; 8], [0; 32]);
    sequence.copy_from_slice(&bytes[..8]);
    published_ns.copy_from_slice(&bytes[8..16]);
    payload_sha256.copy_from_slice(&bytes[16..]);
    Anchor {
        sequence: u64::from_be_bytes(sequence),
        published_ns: i64::from_be_bytes(published_ns),
        payload_sha256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::batch::{Delivery, Outcome};

    fn mark(sequence: u64) -> Mark {
        Mark {
            sequence,
            published_ns: i64::try_from(sequence).unwrap() * 10,
            payload_sha256: Some([7; 32]),
        }
    }

    fn entries(sequences: impl Iterator<Item = u64>) -> Vec<Entry> {
        sequences
            .map(|sequence| Entry {
                delivery: Delivery {
                    subject: "a".into(),
                    sequence,
                    published_ns: i64::try_from(sequence).unwrap() * 10,
                    headers: Vec::new(),
                    payload: bytes::Bytes::new(),
                },
                outcome: Outcome::Skip,
            })
            .collect()
    }

    fn sequences(anchors: &[Anchor]) -> Vec<u64> {
        anchors.iter().map(|anchor| anchor.sequence).collect()
    }

    #[test]
    fn the_first_message_and_the_newest_one_are_anchors_of_the_first_commit() {
        let anchors = advance(&[], &mark(5), &entries(1..=5));
        assert_eq!(sequences(&anchors), [5, 1]);
        assert_eq!(anchors[1].payload_sha256, <[u8; 32]>::from(Sha256::digest(b"")));
        // A batch of one message is one anchor.
        assert_eq!(sequences(&advance(&[], &mark(5), &entries(5..=5))), [5]);
    }

    #[test]
    fn a_gap_at_the_checkpoint_keeps_the_anchors() {
        let before = advance(&[], &mark(5), &entries(1..=5));
        let gap = Mark {
            sequence: 900,
            published_ns: 50,
            payload_sha256: None,
        };
        assert_eq!(advance(&before, &gap, &[]), before);
    }

    #[test]
    fn anchors_are_few_and_cover_every_distance_whatever_the_size_of_the_batches() {
        for step in [1, 2, 7, 100, 999, 4_096, 16_384] {
            let mut anchors = Vec::new();
            let mut head = 0;
            for _ in 0..30_000 {
                let first = head + 1;
                head += step;
                anchors = advance(&anchors, &mark(head), &entries(first..=first));
                assert!(anchors.len() <= DECADES + 1, "{anchors:?}");
                assert_eq!(anchors.first().unwrap().sequence, head);
                assert_eq!(anchors.last().unwrap().sequence, 1, "the oldest one remains");
                let mut distance = step.max(10) * 10;
                // Beyond a million messages only the oldest anchor is kept.
                while distance < head && distance <= 1_000_000 {
                    let near = |anchor: &Anchor| {
                        let behind = head - anchor.sequence;
                        behind >= distance / 100 && behind <= distance
                    };
                    assert!(
                        anchors.iter().any(near),
                        "step {step}, head {head}: none within {distance}: {:?}",
                        sequences(&anchors)
                    );
                    distance *= 10;
                }
            }
        }
    }

    #[test]
    fn decoding_returns_the_encoded_anchors() {
        let anchors = advance(&[], &mark(1 << 40), &entries(3..=3));
        let checkpoint = mark(1 << 40);
        assert_eq!(decode(Some(encode(&anchors)), &checkpoint, 0).unwrap(), anchors);
        assert_eq!(decode(Some(Vec::new()), &checkpoint, 0).unwrap(), []);
        assert!(decode(Some(vec![0; 47]), &checkpoint, 0).is_err());
        // A database of an earlier version has only the checkpoint.
        assert_eq!(
            sequences(&decode(None, &checkpoint, 0).unwrap()),
            [checkpoint.sequence]
        );
        assert_eq!(decode(None, &Mark::BEGINNING, 0).unwrap(), []);
    }
}
