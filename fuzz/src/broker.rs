//! Input of publishers: message headers, lines for `lantern publish`, files of an outbox.

use lantern_outbox::fuzzing::{decode, encode, entry_name, seal, split_lines};

use crate::text;

/// Headers of a stored message: sorted pairs for all inputs.
pub fn headers(input: &[u8]) {
    let headers = lantern_broker::fuzzing::headers(input);
    assert!(headers.is_sorted_by(|one, other| one.0 <= other.0), "not sorted");
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    // A replacement character has three bytes where the input had at least one.
    assert!(bytes <= 3 * input.len(), "longer than the input");
}

/// Lines of a file or pipe: independent of chunk sizes, without lost bytes.
pub fn lines(input: &[u8]) {
    const LIMIT: usize = 64;
    let whole = split_lines(input, input.len().max(1), LIMIT);
    assert_eq!(
        whole,
        split_lines(input, 1, LIMIT),
        "the result depends on the chunk size"
    );
    let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let mut expected: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    if expected.last().is_some_and(|last| last.is_empty()) {
        expected.pop();
    }
    let unlimited = split_lines(input, 7, usize::MAX);
    assert_eq!(unlimited.len(), expected.len(), "lines are lost");
    for (found, expected) in unlimited.iter().zip(expected) {
        let expected = expected.strip_suffix(b"\r").unwrap_or(expected);
        // The first line may start with a second byte order mark, which belongs to it.
        assert!(
            found
                .as_deref()
                .is_some_and(|found| found == expected || expected.ends_with(found)),
            "a line has changed"
        );
    }
}

/// A file of an outbox and its name. The bytes are tested unchanged and with a valid checksum.
pub fn outbox(input: &[u8]) {
    let sealed = seal(input);
    for bytes in [input, &sealed] {
        if let Some(event) = decode(bytes) {
            let again = decode(&encode(&event));
            assert_eq!(again.as_ref(), Some(&event), "does not round-trip");
        }
    }
    let name = text(input);
    if let Some(formatted) = entry_name(name) {
        assert_eq!(formatted, name, "two names for one entry");
    }
}
