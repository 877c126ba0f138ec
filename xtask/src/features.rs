//! One build: the commands that compile the host select the same features for every dependency.
//!
//! Cargo unifies features over the packages and dependency kinds of one command. A feature that only one command selects
//! makes Cargo compile the dependency, and everything that depends on it, again. `host/features` holds the union; this test
//! compares the commands.

use std::collections::{BTreeMap, BTreeSet};

use crate::{process, workspace::Workspace};

/// The features of each dependency. One build may contain a package twice: for the host program, and for procedural macros
/// and build scripts.
type Selection = BTreeMap<String, BTreeSet<String>>;

/// Each command with the arguments that make `cargo tree` resolve the same features.
const COMMANDS: [(&str, &[&str]); 4] = [
    ("cargo build --release", &["--edges", "normal,build"]),
    ("cargo xtask demo", &["--workspace", "--edges", "normal,build"]),
    (
        "cargo xtask test",
        &["--workspace", "--edges", "normal,build,dev"],
    ),
    (
        "cargo xtask bench",
        &["--workspace", "--edges", "normal,build,dev"],
    ),
];

fn selection(workspace: &Workspace, arguments: &[&str]) -> Selection {
    let mut tree = process::cargo(&workspace.root);
    tree.args([
        "tree",
        "--locked",
        "--offline",
        "--prefix",
        "none",
        "--format",
        "{p}\t{f}",
    ])
    .args(arguments)
    // The stage `clock` preloads libfaketime, in which rustc can wait for ever before it begins. Features do not depend on
    // the time.
    .env_remove("LD_PRELOAD");
    let output = tree.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {errors}");
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Parses `NAME VERSION\tFEATURES`, one dependency per line. Members of the workspace have a path and are skipped.
fn parse(tree: &str) -> Selection {
    let mut selection = Selection::new();
    for (package, features) in tree.lines().filter_map(|line| line.split_once('\t')) {
        if !package.contains('/') {
            let features = features.trim_end_matches(" (*)").to_owned();
            selection.entry(package.to_owned()).or_default().insert(features);
        }
    }
    selection
}

/// The packages that the second command compiles again although the first has compiled them.
fn compiled_again<'a>(first: &'a Selection, second: &'a Selection) -> Vec<&'a str> {
    let differs = |package: &str, features: &BTreeSet<String>| {
        first
            .get(package)
            .is_some_and(|known| !known.is_subset(features) && !features.is_subset(known))
    };
    let packages = second
        .iter()
        .filter(|(package, features)| differs(package, features));
    packages.map(|(package, _)| package.as_str()).collect()
}

#[test]
fn all_commands_select_the_same_features() {
    let workspace = Workspace::find().unwrap();
    let selections = COMMANDS.map(|(command, arguments)| (command, selection(&workspace, arguments)));
    for (first, left) in &selections {
        for (second, right) in &selections {
            let again = compiled_again(left, right);
            assert!(
                again.is_empty(),
                "after `{first}`, `{second}` compiles {again:?} again: add the features to host/features/Cargo.toml"
            );
        }
    }
}

#[test]
fn a_package_with_other_features_is_compiled_again() {
    let first = parse("serde v1.0.0\tstd\nserde v1.0.0\tstd (*)\nlantern v0.1.0 (/repo/host)\t\n");
    assert_eq!(first.len(), 1);
    assert_eq!(
        compiled_again(&first, &parse("serde v1.0.0\trc,std\n")),
        ["serde v1.0.0"]
    );
    // The variant for build scripts is additional; the variant for the program is reused.
    let both = parse("serde v1.0.0\tstd\nserde v1.0.0\trc,std\nlog v0.4.0\t\n");
    assert_eq!(compiled_again(&first, &both), [""; 0]);
    assert_eq!(compiled_again(&both, &first), [""; 0]);
}
