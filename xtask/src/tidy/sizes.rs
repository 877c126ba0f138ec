//! Warns where a file or a function has grown beyond what one reads at once. It never fails: sometimes long is
//! clear, a flat `match` for example.

use super::{Finding, Tree, tokens};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Finds long Rust files and functions.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let lines = text.lines().count();
        if lines > FILE_LINES {
            findings.push(Finding::new(
                path,
                None,
                format!("{lines} lines, more than {FILE_LINES}"),
            ));
        }
        // A file that cannot be read is told by another check, or by the compiler.
        let Ok(facts) = tokens::read(text, 0) else {
            continue;
        };
        for (name, line, lines) in facts.functions {
            if lines > FUNCTION_LINES {
                let text = format!("fn {name} has {lines} lines, more than {FUNCTION_LINES}");
                findings.push(Finding::new(path, line, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    #[test]
    fn long_functions_and_files_are_told() {
        let (fits, long) = (function(FUNCTION_LINES), function(FUNCTION_LINES + 1));
        let file = "// one\n".repeat(FILE_LINES + 1);
        let tree = Tree::of(&[("a.rs", &fits), ("b.rs", &long), ("c.rs", &file), ("d.md", &file)]);
        let findings = check(&tree);
        let paths: Vec<_> = findings.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["b.rs", "c.rs"]);
        assert_eq!(findings[0].line, Some(1));
    }
}
