//! Sums what the test programs say of themselves.

use std::fmt;

/// How many tests passed and failed. Ignored ones are counted, so that they are not forgotten.
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
    /// Takes in one line of output; lines that are no result leave it as it is.
    pub fn read(&mut self, line: &str) {
        if let Some(found) = parse(line) {
            self.add(found);
        }
    }

    /// Prints one line of output and takes it in.
    pub fn print(&mut self, line: &str) {
        println!("{line}");
        self.read(line);
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// The closing line. Ignored tests stand in a line of their own before it.
impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ignored > 0 {
            writeln!(out, "({} ignored)", self.ignored)?;
        }
        write!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
fn parse(line: &str) -> Option<Tally> {
    let (_, counts) = line.trim_end().strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split("; ") {
        let Some((number, what)) = count.split_once(' ') else {
            continue;
        };
        let slot = match what {
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
    fn the_lines_of_several_programs_are_summed() {
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
    fn other_lines_count_for_nothing() {
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
