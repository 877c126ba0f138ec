//! Who may know whom in the host, and that no modules go in a circle.
//!
//! The unit is the top-level module of `host/src`. `app`, `cli`, `main` and `lib` put the others together and may
//! know all of them; nobody may know those but each other. Test code is not looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Tree, tokens};

/// Modules that put the others together.
const FREE: &[&str] = &["app", "cli", "main", "lib"];

/// A module, the modules that it may know, and why not more. One row for each, as in a table.
#[rustfmt::skip]
const MAY_KNOW: &[(&str, &[&str], &str)] = &[
    ("batch", &[],
     "it is plain data, known to everybody"),
    ("schema", &["batch"],
     "what a plugin declares is checked without I/O"),
    ("broker", &["batch", "schema", "private_files"],
     "it does not know what becomes of a message"),
    ("settings", &["batch", "schema"],
     "what is set for a plugin is plain data, checked by itself"),
    ("signature", &["batch"],
     "it says what a signature says of bytes; what follows from it is decided elsewhere"),
    ("private_files", &[],
     "it knows owners and modes, not what the files hold"),
    ("identity", &[],
     "it makes and checks proofs; who asks for one is decided elsewhere"),
    ("plugin", &["batch", "schema", "settings"],
     "a plugin is a function of its messages: no acknowledgements, no tables"),
    ("store", &["batch", "schema", "private_files"],
     "the database can be replaced without a word about brokers or plugins"),
    ("projection", &["batch", "schema", "settings", "broker", "plugin", "store", "status", "telemetry"],
     "it drives the one way through, and is driven by the lifecycle alone"),
    ("lifecycle", &["batch", "schema", "settings", "signature", "broker", "plugin", "store", "projection", "status", "telemetry"],
     "it owns the projections and tells them what to run; faces ask it, it asks no face"),
    ("http", &["batch", "schema", "settings", "signature", "identity", "store", "status", "telemetry", "lifecycle"],
     "it shows and steers; it reaches brokers and plugins only through the lifecycle"),
    ("workshop", &["batch", "schema", "settings", "broker", "plugin"],
     "it is for authors, beside a running host and no part of it"),
    ("config", &["batch", "schema", "settings", "signature", "broker", "plugin", "store", "projection", "http", "telemetry"],
     "each module owns its Config; this one composes them, and none asks it back"),
    ("telemetry", &["batch", "schema", "status"],
     "it counts what it is told and reads what projections show; it acts on nobody"),
    ("status", &[],
     "what projections show of themselves is plain data that faces read"),
];

/// Finds edges that the table does not allow, modules that it does not know, and circles.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let edges = edges(tree);
    let mut findings = Vec::new();
    for (from, targets) in &edges {
        if FREE.contains(&from.as_str()) {
            continue;
        }
        let Some((_, may_know, reason)) = MAY_KNOW.iter().find(|(name, _, _)| name == from) else {
            let text = format!(
                "module `{from}` is not in the table of who may know whom (xtask/src/tidy/modules.rs)"
            );
            findings.push(Finding::new(&format!("host/src/{from}"), None, text));
            continue;
        };
        for (to, (path, line)) in targets {
            if !may_know.contains(&to.as_str()) {
                let text = format!("`{from}` may not know `{to}`: {reason}");
                findings.push(Finding::new(path, *line, text));
            }
        }
    }
    findings.extend(circle(&edges).map(|circle| {
        let text = format!("modules go in a circle: {}", circle.join(" -> "));
        Finding::new("host/src", None, text)
    }));
    findings
}

/// For each module the modules that it names, with the first place where it does.
type Edges = BTreeMap<String, BTreeMap<String, (String, usize)>>;

fn edges(tree: &Tree) -> Edges {
    let files: Vec<_> = tree
        .rust()
        .filter_map(|(path, text)| {
            let modules = modules_of(path.strip_prefix("host/src/")?);
            // A file that cannot be read is told by the check of boundaries.
            let facts = tokens::read(text, modules.len()).ok()?;
            Some((path, modules, facts))
        })
        .collect();
    let tests: BTreeSet<Vec<String>> = files
        .iter()
        .flat_map(|(_, modules, facts)| {
            facts
                .test_files
                .iter()
                .map(|name| [&modules[..], std::slice::from_ref(name)].concat())
        })
        .collect();
    let tops: BTreeSet<String> = files
        .iter()
        .filter_map(|(_, modules, _)| modules.first().cloned())
        .collect();
    let mut edges: Edges = tops.iter().map(|name| (name.clone(), BTreeMap::new())).collect();
    for (path, modules, facts) in &files {
        let Some(from) = modules.first() else { continue };
        if tests.iter().any(|test| modules.starts_with(test)) {
            continue;
        }
        for (to, line) in &facts.modules {
            // What is no module of ours is a function or a type that the root re-exports.
            if to != from && tops.contains(to) {
                let place = edges.entry(from.clone()).or_default().entry(to.clone());
                place.or_insert_with(|| ((*path).to_owned(), *line));
            }
        }
    }
    edges
}

/// The module that a file is, from the crate's root on. `main` counts as a module of its own: it is the program
/// beside the library. The root itself has no name.
fn modules_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" {
        return Vec::new();
    }
    stem.split('/').map(str::to_owned).collect()
}

/// One circle, with its first module again at the end.
fn circle(edges: &Edges) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    edges
        .keys()
        .find_map(|start| search(edges, start, &mut Vec::new(), &mut done))
}

fn search(
    edges: &Edges,
    at: &str,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(begin) = way.iter().position(|module| module == at) {
        let mut circle = way[begin..].to_vec();
        circle.push(at.to_owned());
        return Some(circle);
    }
    if done.contains(at) {
        return None;
    }
    way.push(at.to_owned());
    let found = edges
        .get(at)?
        .keys()
        .find_map(|next| search(edges, next, way, done));
    way.pop();
    done.insert(at.to_owned());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let findings = check(&Tree::of(files));
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, words) in findings.iter().zip(expected) {
            assert!(
                finding.to_string().contains(words),
                "{finding} does not say {words}"
            );
        }
    }

    #[test]
    fn the_table_is_kept() {
        let batch = ("host/src/batch.rs", "//! Data.");
        let store = ("host/src/store/mod.rs", "use crate::batch::Row;");
        check_files(
            &[batch, store, ("host/src/http/mod.rs", "use crate::store;")],
            &[],
        );
        check_files(
            &[
                batch,
                store,
                (
                    "host/src/plugin/deep/er.rs",
                    "\nuse crate::{batch, store::Reader};",
                ),
            ],
            &["host/src/plugin/deep/er.rs:2: `plugin` may not know `store`"],
        );
        check_files(
            &[
                ("host/src/app.rs", "use crate::config;"),
                ("host/src/config.rs", "fn f() { crate::app::run() }"),
            ],
            &["`config` may not know `app`", "app -> config -> app"],
        );
        check_files(
            &[("host/src/utils.rs", "//! Odds and ends.")],
            &["`utils` is not in the table"],
        );
    }

    #[test]
    fn tests_may_know_anybody() {
        let tree = [
            (
                "host/src/store/mod.rs",
                "#[cfg(test)] mod tests; #[cfg(test)] mod more { use crate::http; }",
            ),
            ("host/src/store/tests.rs", "use crate::http;"),
            ("host/src/http/mod.rs", "use crate::store;"),
        ];
        check_files(&tree, &[]);
        check_files(
            &[("host/src/store/mod.rs", "mod tests;"), tree[1], tree[2]],
            &["`store` may not know `http`", "http -> store -> http"],
        );
    }

    #[test]
    fn circles_are_printed() {
        check_files(
            &[
                ("host/src/app.rs", "use crate::cli;"),
                ("host/src/cli.rs", "use super::main;"),
                ("host/src/main.rs", "use crate::app;"),
            ],
            &["app -> cli -> main -> app"],
        );
    }

    #[test]
    fn the_table_itself_has_no_circle() {
        let edges: Edges = MAY_KNOW
            .iter()
            .map(|(from, to, _)| {
                let targets = to
                    .iter()
                    .map(|to| ((*to).to_owned(), (String::new(), 0)))
                    .collect();
                ((*from).to_owned(), targets)
            })
            .collect();
        assert_eq!(circle(&edges), None);
    }
}
