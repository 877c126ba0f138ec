//! Wording: sentences and names that the style section of CONTRIBUTING.md replaces by standard terms.
//!
//! The lists contain the worst cases, not a grammar. Add a case when it is gone from the repository.

use super::{Finding, Tree};

/// A phrase, in any text file, and its replacement.
const PHRASES: &[(&str, &str)] = &[
    (
        "could not be noted; it is tried again",
        "failed to record …; will retry on next start",
    ),
    ("this is missing in the audit", "failed to write audit entry"),
    ("the act ended badly", "the operation panicked"),
    ("What is told piece by piece", "Streaming responses"),
    (
        "those who ask get of a processor",
        "Niceness of API threads relative to the writer",
    ),
    (
        "Those who ask give way",
        "API reads run at lower CPU priority than ingestion",
    ),
    ("what is not said is not asked", "`None` matches everything"),
    (
        "none that fewer could tell apart by accident",
        "eight hex digits make accidental matches unlikely",
    ),
    ("all is as it has to be", "OK: no problems found"),
    ("so far was looked", "one request scans a bounded number of rows"),
    (
        "or none and every problem is said",
        "if any is invalid, none is applied and every error is reported",
    ),
    ("First steps of those who look", "Using the dashboard"),
    ("No row is like that", "No matching rows"),
    ("Take a filter away", "Remove a filter"),
    ("Look again", "Refresh"),
    ("Give up…", "Discard…"),
    ("Gone before read", "Lost"),
];

/// The name of a function or type, in Rust files, and its replacement.
const NAMES: &[(&str, &str)] = &[
    ("Faces", "API, CLI and dashboard"),
    ("Fleet", "RunningPlugins"),
    ("fleet", "running_plugins"),
    ("heal", "retry"),
    ("Letter", "DeadLetter"),
    ("letter", "dead_letter"),
    ("Letters", "DeadLetters"),
    ("letters", "dead_letters"),
    ("look", "a verb and its object, such as scan_directory"),
    ("meant", "a verb and its object, such as resolve_version"),
    ("Member", "PluginRuntime"),
    ("Orders", "DesiredState"),
    ("Parcel", "Component"),
    ("parcel", "component"),
    ("Probation", "HealthGate"),
    ("probation", "health_gate"),
    ("refusal", "load_failure"),
    ("said", "a verb and its object, such as describe_error"),
    ("say", "a verb and its object, such as log_failure"),
    ("Scope", "ReplayRange, or the object that it limits"),
    ("shown", "a verb and its object, such as to_view"),
    ("taken", "a verb and its object, such as take_over_consumer"),
    ("told", "a verb and its object, such as log_failure"),
    ("Turn", "Permit"),
    ("Unwell", "Unavailable"),
    ("Well", "Healthy"),
    ("words", "a verb and its object, such as describe_error"),
    ("workshop", "authoring"),
];

/// Keywords before the name in a declaration.
const DECLARATIONS: [&str; 5] = ["fn ", "struct ", "enum ", "trait ", "type "];

/// Documents that quote the replaced wording, and this file.
const EXEMPT: &[&str] = &["CONTRIBUTING.md", "CHANGELOG.md", "xtask/src/tidy/wording.rs"];

/// Finds replaced phrases and names.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| !EXEMPT.contains(path)) {
        for (number, line) in (1..).zip(text.lines()) {
            let phrases = PHRASES.iter().filter(|(phrase, _)| line.contains(phrase));
            let names = NAMES
                .iter()
                .filter(|(name, _)| path.ends_with(".rs") && declares(line, name));
            findings.extend(phrases.chain(names).map(|(found, replacement)| {
                Finding::new(path, number, format!("replace `{found}` by `{replacement}`"))
            }));
        }
    }
    findings
}

/// Whether the line declares a function or type with this name.
fn declares(line: &str, name: &str) -> bool {
    DECLARATIONS.iter().any(|keyword| {
        line.match_indices(keyword).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let declared = line[at + keyword.len()..].strip_prefix(name);
            before.is_none_or(char::is_whitespace)
                && declared
                    .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_phrases_are_found_with_their_replacement() {
        for (phrase, replacement) in PHRASES {
            let text = format!("first\nbefore {phrase} after\n");
            let findings = check(&Tree::of(&[("docs/a.md", &text), ("CHANGELOG.md", &text)]));
            assert_eq!(findings.len(), 1, "{phrase}: {findings:?}");
            assert_eq!(
                (findings[0].path.as_str(), findings[0].line),
                ("docs/a.md", Some(2))
            );
            assert!(findings[0].text.contains(replacement), "{findings:?}");
        }
    }

    #[test]
    fn replaced_names_are_found_in_declarations_only() {
        for (name, _) in NAMES {
            for keyword in DECLARATIONS {
                let text =
                    format!("pub {keyword}{name}(\n{keyword}{name}\n// {name}\nlet x = {name}_other;\n");
                assert_eq!(check(&Tree::of(&[("a.rs", &text)])).len(), 2, "{keyword}{name}");
                assert_eq!(check(&Tree::of(&[("a.md", &text)])), []);
            }
        }
        assert!(!declares("fn meant_for(x: u8)", "meant"));
        assert!(!declares("a transfn meant()", "meant"));
    }
}
