//! Rejects long source files. For functions, see clippy's `too_many_lines`.

use super::{Finding, Tree};

const FILE_LINES: usize = 500;

/// The endings of files that people write as source code.
const SOURCES: [&str; 5] = [".rs", ".ts", ".svelte", ".wit", ".sql"];

/// The ending of generated TypeScript.
const GENERATED: &str = ".d.ts";

/// Finds long source files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let sources = tree.texts().filter(|(path, _)| is_source(path));
    let lengths = sources.map(|(path, text)| (path, text.lines().count()));
    lengths
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| {
            let text = format!("{lines} lines; the limit is {FILE_LINES}: split the file by topic");
            Finding::new(path, None, text)
        })
        .collect()
}

fn is_source(path: &str) -> bool {
    SOURCES.iter().any(|ending| path.ends_with(ending)) && !path.ends_with(GENERATED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found() {
        let (fits, long) = ("// one\n".repeat(FILE_LINES), "// one\n".repeat(FILE_LINES + 1));
        let tree = Tree::of(&[
            ("a.rs", &fits),
            ("b.rs", &long),
            ("c.md", &long),
            ("d.svelte", &long),
            ("e.d.ts", &long),
        ]);
        let findings = check(&tree);
        let paths: Vec<_> = findings.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["b.rs", "d.svelte"]);
    }
}
