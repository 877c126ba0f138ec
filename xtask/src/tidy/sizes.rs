//! Warns about long files. For functions, see clippy's `too_many_lines`.

use super::{Finding, Tree};

const FILE_LINES: usize = 500;

/// Finds long Rust files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let lengths = tree.rust().map(|(path, text)| (path, text.lines().count()));
    lengths
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| Finding::new(path, None, format!("{lines} lines; the limit is {FILE_LINES}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found() {
        let (fits, long) = ("// one\n".repeat(FILE_LINES), "// one\n".repeat(FILE_LINES + 1));
        let tree = Tree::of(&[("a.rs", &fits), ("b.rs", &long), ("c.md", &long)]);
        let findings = check(&tree);
        let paths: Vec<_> = findings.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["b.rs"]);
    }
}
