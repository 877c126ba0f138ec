//! Sums the results of the test programs.

use std::fmt;

/// Numbers of passed, failed and ignored tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were not run.
    pub ignored: u64,
}

impl Tally {
    /// Adds the result in one line of output; ignores other lines.
    pub fn read(&mut self, line: &str) {
        if let Some(found) = parse(line) {
            self.add(found);
        }
    }

    /// Prints one line of output and adds its result.
    pub fn print(&mut self, line: &str) {
        println!("{line}");
        self.read(line);
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// The last line of `cargo xtask test`, after a line with the ignored tests, if any.
impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ignored > 0 {
            writeln!(out, "({} ignored)", self.ignored)?;
        }
        write!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Parses `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
fn parse(line: &str) -> Option<Tally> {
    let (_, counts) = line.trim_end().strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split("; ") {
        let Some((number, state)) = count.split_once(' ') else {
            continue;
        };
        let slot = match state {
            "passed" => &mut tally.passed,
            "failed" => &mut tally.failed,
            "ignored" => &mut tally.ignored,
            _ => continue,
        };
        *slot = number.parse().ok()?;
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_several_programs_are_summed() {
        let output = "\
running 2 tests
test tests::one ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

test tests::prints ... test result of another kind
test result: FAILED. 1 passed; 3 failed; 4 ignored; 0 measured; 7 filtered out; finished in 12.50s
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        assert_eq!(
            tally,
            Tally {
                passed: 3,
                failed: 3,
                ignored: 4
            }
        );
        assert_eq!(tally.to_string(), "(4 ignored)\n3 passed, 3 failed");
        assert_eq!(Tally::default().to_string(), "0 passed, 0 failed");
    }

    #[test]
    fn other_lines_are_ignored() {
        for line in [
            "",
            "test result: ",
            "test result: ok.",
            "  test result: ok. 5 passed",
            "5 passed; 0 failed",
        ] {
            let mut tally = Tally::default();
            tally.read(line);
            assert_eq!(tally, Tally::default(), "{line:?}");
        }
    }
}
