//! Rules for every file: an opening paragraph, no path of one machine, no to-do without an issue.

use super::{Finding, Tree};

/// Path prefixes that exist on one machine only. Split, so that this file passes its own check.
const PRIVATE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];

/// Markers of deferred work, split for the same reason.
const DEFERRED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Files that are not written by hand.
const EXEMPT: &[&str] = &["LICENSE", "Cargo.lock", "web/package-lock.json"];

/// Finds Rust files without an opening paragraph, absolute paths, and to-dos without an issue.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        if !opens_with_paragraph(text) {
            findings.push(Finding::new(
                path,
                1,
                "has no opening `//!` paragraph: purpose, what it owns, what it does not do",
            ));
        }
    }
    for (path, text) in tree.texts().filter(|(path, _)| !EXEMPT.contains(path)) {
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(private) = PRIVATE.iter().find(|private| contains_path(line, private)) {
                let text = format!("contains a path under {private}, which exists on one machine only");
                findings.push(Finding::new(path, number, text));
            }
            if let Some(word) = DEFERRED.iter().find(|word| is_deferred(line, word)) {
                let text = format!("{word} without an issue; write {word}(#123)");
                findings.push(Finding::new(path, number, text));
            }
        }
    }
    findings
}

fn opens_with_paragraph(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    let first = text.lines().find(|line| !line.trim().is_empty());
    first.is_some_and(|line| {
        line.strip_prefix("//!")
            .is_some_and(|words| !words.trim().is_empty())
    })
}

/// Whether the line contains the path at the start of a word; `a/work/b` is a relative path.
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "_-.~*{}$<>".contains(letter))
    })
}

/// Whether the line contains the word without `(#number)` after it.
fn is_deferred(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let rest = &line[at + word.len()..];
        let is_word =
            |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        !is_word(before) && !is_word(rest.chars().next()) && !has_issue(rest)
    })
}

fn has_issue(rest: &str) -> bool {
    let Some((number, _)) = rest.strip_prefix("(#").and_then(|rest| rest.split_once(')')) else {
        return false;
    };
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_one(path: &str, text: &str, expected: usize) {
        let findings = check(&Tree::of(&[(path, text)]));
        assert_eq!(findings.len(), expected, "{findings:?}");
    }

    #[test]
    fn rust_files_open_with_a_paragraph() {
        check_one("a.rs", "//! Its purpose.\nfn a() {}", 0);
        check_one("a.rs", "\n//! Its purpose.", 0);
        check_one("a.rs", "fn a() {}\n//! late", 1);
        check_one("a.rs", "// no doc comment", 1);
        check_one("a.rs", "//!\n", 1);
        check_one("a.rs", "", 1);
        check_one("a.md", "No paragraph required.", 0);
    }

    #[test]
    fn private_paths_are_found() {
        for private in PRIVATE {
            check_one("a.md", &format!("see {private}x"), 1);
            check_one("a.toml", &format!("path = \"{private}x\""), 1);
            check_one(
                "a.md",
                &format!("https://example.org{private}x and own{private}"),
                0,
            );
            check_one("LICENSE", &format!("see {private}x"), 0);
        }
        check_one("a.md", "/var/log and ./target/tools", 0);
    }

    #[test]
    fn deferred_work_has_an_issue() {
        for word in DEFERRED {
            check_one("a.md", &format!("// {word}: later"), 1);
            check_one("a.md", &format!("// {word}() {word}(#) {word}(#x)"), 1);
            check_one("a.md", &format!("// {word}(#12): later"), 0);
            check_one("a.md", &format!("MY_{word} {word}S"), 0);
        }
    }

    #[test]
    fn binary_files_are_ignored() {
        let tree = Tree {
            files: vec![("a.png".to_owned(), vec![0xff, 0xfe])],
        };
        assert_eq!(check(&tree), []);
    }
}
