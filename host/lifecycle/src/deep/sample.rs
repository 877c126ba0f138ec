//! What the deep check reads: whole ranges or samples, and whether the whole history can be repeated. Pure functions.

use lantern_store::deep::{DeepPlugin, DeepRange};

/// Number of positions in a range at which a sample is taken.
const SAMPLE_SPOTS: u64 = 16;

/// Whether the history of a plugin's tables can be repeated; the error names the reason.
pub(super) fn check_full_history(plugin: &DeepPlugin, sample: Option<u64>) -> Result<(), String> {
    if sample.is_some() {
        return Err("only a sample was read".to_owned());
    }
    if plugin.sources.len() > 1 {
        return Err(
            "they were made from several sources or histories, whose order is not recorded".to_owned(),
        );
    }
    if plugin.erased {
        return Err("messages were erased with `lantern forget`".to_owned());
    }
    if plugin.resolved {
        return Err("dead letters were projected later, out of stream order".to_owned());
    }
    if plugin
        .tables
        .iter()
        .any(|table| table.merges && table.expired > 0)
    {
        return Err("rows were deleted because of their age".to_owned());
    }
    Ok(())
}

/// The spans of a range to read: first and last sequence, and a maximum number of messages. The whole range, or evenly
/// distributed samples.
pub(super) fn spans(range: &DeepRange, share: Option<u64>) -> Vec<(u64, u64, u64)> {
    let Some(share) = share else {
        return vec![(range.first, range.last, u64::MAX)];
    };
    if share >= range.counts.messages {
        return vec![(range.first, range.last, range.counts.messages)];
    }
    let spots = SAMPLE_SPOTS.min(share).max(1);
    let width = range.last - range.first + 1;
    let each = share.div_ceil(spots);
    (0..spots)
        .map(|location| {
            let first = range.first + width / spots * location;
            let last = match location + 1 {
                next if next == spots => range.last,
                next => range.first + width / spots * next - 1,
            };
            (first, last.max(first), each)
        })
        .collect()
}

/// A range's share of a sample, at least one message.
pub(super) fn share_of(sample: u64, messages: u64, all: u64) -> u64 {
    let share = u128::from(sample) * u128::from(messages) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(u64::MAX).clamp(1, messages.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_store::Counts;

    #[test]
    fn samples_are_distributed_evenly() {
        let range = |first, last, messages| DeepRange {
            digest: String::new(),
            first,
            last,
            counts: Counts {
                messages,
                ..Counts::default()
            },
        };
        assert_eq!(spans(&range(5, 9, 5), None), [(5, 9, u64::MAX)]);
        assert_eq!(spans(&range(5, 9, 5), Some(7)), [(5, 9, 5)]);
        assert_eq!(spans(&range(1, 10, 10), Some(2)), [(1, 5, 1), (6, 10, 1)]);
        for (messages, share) in [(1_000, 100), (1_000, 999), (17, 16), (40, 17)] {
            let found = spans(&range(1, messages, messages), Some(share));
            let most: u64 = found
                .iter()
                .map(|(first, last, most)| (*most).min(last - first + 1))
                .sum();
            assert!(most >= share.min(messages) * 9 / 10, "{found:?}");
            assert_eq!((found[0].0, found.last().unwrap().1), (1, messages));
            assert!(
                found.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0),
                "{found:?}"
            );
        }
        assert_eq!(share_of(100, 1, 1_000_000), 1);
        assert_eq!(share_of(100, 500_000, 1_000_000), 50);
    }
}
