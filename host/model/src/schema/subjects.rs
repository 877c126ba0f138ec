//! Relations between NATS subjects with wildcards.

/// Whether some subject matches both patterns.
pub fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

/// Whether the pattern `filter` matches every subject that `subject`, which may itself be a pattern, matches.
pub fn covers(filter: &str, subject: &str) -> bool {
    let mut filter = filter.split('.');
    let mut subject = subject.split('.');
    loop {
        match (filter.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(expected), Some(token)) if expected == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_matches_completely() {
        for (filter, subject, expected) in [
            ("a.>", "a.b", true),
            ("a.>", "a.*", true),
            ("a.*", "a.>", false),
            ("a.*.c", "a.b.*", false),
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
        ] {
            assert_eq!(covers(filter, subject), expected, "{filter} {subject}");
        }
    }

    #[test]
    fn overlapping_patterns_are_found() {
        for (a, b, expected) in [
            ("obs.>", "obs.*", true),
            ("obs.>", "obs", false),
            ("a.*.c", "a.b.*", true),
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            (">", "x.y.z", true),
            ("a.b.c", "a.b", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }
}
