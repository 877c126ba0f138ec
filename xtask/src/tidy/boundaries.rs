//! Which library is known to which folder of the host.
//!
//! Replacing the broker, the engine, the database or the web server then means one folder. Tests and benches of the
//! host stand outside of this: they talk to the real server beside the host.

use super::{Finding, Tree, tokens};

/// Crates, the only folder that may name them, and why.
const OWNERS: &[(&[&str], &str, &str)] = &[
    (
        &["wasmtime", "wasmtime_wasi", "wit_component"],
        "host/src/plugin",
        "a trap, a limit and a version of the contract are decided in one place",
    ),
    (
        &["async_nats"],
        "host/src/broker",
        "no one else can acknowledge a message by accident",
    ),
    (
        &["sqlx", "rusqlite", "libsqlite3_sys"],
        "host/src/store",
        "one owner of the write connection, one place that quotes",
    ),
    (
        &["axum", "http_body", "hyper", "hyper_util", "tower", "tower_http"],
        "host/src/http",
        "everything that is served is found there",
    ),
    (
        &["oci_client", "docker_credential"],
        "host/src/cli/plugin/oci",
        "a host never asks a registry by itself",
    ),
    (
        &["minisign", "minisign_verify"],
        "host/src/signature",
        "what a good signature is, and who handles secret keys, is found in one place",
    ),
];

/// Finds names of these crates in other folders of the host's sources.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| path.starts_with("host/src/")) {
        let facts = match tokens::read(text, 0) {
            Ok(facts) => facts,
            Err((line, reason)) => {
                findings.push(Finding::new(
                    path,
                    line,
                    format!("cannot be read as Rust: {reason}"),
                ));
                continue;
            }
        };
        for (crates, folder, reason) in OWNERS {
            if is_in(path, folder) {
                continue;
            }
            for (name, line) in facts
                .names
                .iter()
                .filter(|(name, _)| crates.contains(&name.as_str()))
            {
                let text = format!("`{name}` is named; only {folder}/ may, so that {reason}");
                findings.push(Finding::new(path, *line, text));
            }
        }
    }
    findings
}

/// `host/src/plugin.rs` belongs to the folder as well as what lies in it.
fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
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
    fn each_library_has_its_folder() {
        for (crates, folder, _) in OWNERS {
            for name in *crates {
                let text = format!("use {name}::thing;");
                check_one(&format!("{folder}/mod.rs"), &text, 0);
                check_one(&format!("{folder}.rs"), &text, 0);
                check_one(&format!("{folder}s/mod.rs"), &text, 1);
                check_one("host/src/app.rs", &text, 1);
                check_one("host/tests/crash.rs", &text, 0);
                check_one("outbox/src/lib.rs", &text, 0);
            }
        }
    }

    #[test]
    fn comments_and_texts_may_name_them_and_macros_may_not() {
        check_one(
            "host/src/app.rs",
            "//! wasmtime\n// sqlx\nconst A: &str = \"axum\";",
            0,
        );
        check_one(
            "host/src/app.rs",
            "fn f() { select! { _ = async_nats::connect() => {} } }",
            1,
        );
        check_one("host/src/app.rs", "fn wasmtime_is_fine(towers: u8) {}", 0);
    }

    #[test]
    fn the_line_is_said() {
        let findings = check(&Tree::of(&[("host/src/app.rs", "//! A.\n\nuse axum::Router;")]));
        assert_eq!(findings[0].line, Some(3));
    }
}
