//! The table of figures: each benchmark adds its lines, and the end of a run prints them as Markdown or writes them into a
//! document.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

/// The lines of this run.
static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

const BEGIN: &str = "<!-- figures: `cargo xtask bench -- --readme README.md` writes these lines -->";
const END: &str = "<!-- end of figures -->";
const HEAD: &str = "| figure | measured | on |\n| --- | --- | --- |\n";

#[derive(Clone, PartialEq, Eq)]
struct Line {
    figure: String,
    measured: String,
    /// The date as YYYY-MM-DD.
    on: String,
}

/// Adds a line to the table of this run.
pub fn line(figure: &str, measured: String) {
    let on = chrono::Utc::now().format("%Y-%m-%d").to_string();
    let figure = figure.to_owned();
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.push(Line { figure, measured, on });
}

/// Prints the lines of this run with the machine.
pub fn print() -> anyhow::Result<()> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if !lines.is_empty() {
        println!("\n{}\n\n{}", machine()?, table(&lines));
    }
    Ok(())
}

/// Writes the lines of this run into the part of a Markdown file between the two marks. A line of the file about the same
/// figure is replaced; lines about figures that this run did not measure stay.
pub fn write(path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let missing = || format!("{} has no line {BEGIN:?} followed by {END:?}", path.display());
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (old, after) = rest.split_once(END).with_context(missing)?;
    let measured = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = merged(parse(old), &measured);
    let text = format!("{before}{BEGIN}\n{}\n\n{}{END}{after}", machine()?, table(&lines));
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn merged(mut lines: Vec<Line>, measured: &[Line]) -> Vec<Line> {
    for new in measured {
        match lines.iter_mut().find(|line| line.figure == new.figure) {
            Some(line) => line.clone_from(new),
            None => lines.push(new.clone()),
        }
    }
    lines
}

fn table(lines: &[Line]) -> String {
    let mut text = HEAD.to_owned();
    for line in lines {
        text.push_str(&format!(
            "| {} | {} | {} |\n",
            line.figure, line.measured, line.on
        ));
    }
    text
}

fn parse(table: &str) -> Vec<Line> {
    let rows = table.lines().filter(|row| row.starts_with("| ")).skip(2);
    let cells = rows.map(|row| {
        row.trim_matches('|')
            .split(" | ")
            .map(str::trim)
            .collect::<Vec<_>>()
    });
    let lines = cells.filter_map(|cells| match cells.as_slice() {
        [figure, measured, on] => Some(Line {
            figure: (*figure).to_owned(),
            measured: (*measured).to_owned(),
            on: (*on).to_owned(),
        }),
        _ => None,
    });
    lines.collect()
}

/// Processor, memory, kernel and broker, in one sentence.
fn machine() -> anyhow::Result<String> {
    let field = |file: &str, name: &str| -> anyhow::Result<String> {
        let text = std::fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.starts_with(name));
        let (_, value) = line
            .and_then(|line| line.split_once(':'))
            .context("no such line in /proc")?;
        Ok(value.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name")?;
    let kib: u64 = field("/proc/meminfo", "MemTotal")?
        .trim_end_matches(" kB")
        .parse()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    let server = std::process::Command::new(crate::nats::binary())
        .arg("--version")
        .output()?;
    Ok(format!(
        "Machine: {cores} cores of {processor}, {} GiB of memory, Linux {}, {} on the same cores.",
        kib.div_ceil(1 << 20),
        kernel.trim(),
        String::from_utf8(server.stdout)?.trim().replace(": v", " ")
    ))
}
