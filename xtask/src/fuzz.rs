//! `cargo xtask fuzz`: runs libFuzzer on all parsers of untrusted input.
//!
//! The targets are functions of the crate `lantern-fuzz`, linked into one program. It shares all compiled dependencies with
//! the other builds: only crates with parsers are instrumented (`fuzz/instrument`), and libFuzzer is built separately
//! (`fuzz/engine`). The stable compiler is sufficient; libFuzzer needs a C++ compiler.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::{
    process,
    workspace::{Profile, Workspace},
};

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Targets to fuzz; by default all
    targets: Vec<String>,
    /// Minutes per target
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
}

/// Fuzzes the targets of `options`. Fails if one crashes, hangs or needs too much memory.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let time = Duration::try_from_secs_f64(options.minutes * 60.0).context("--minutes is not a time")?;
    let known = targets(workspace)?;
    if let Some(unknown) = options.targets.iter().find(|name| !known.contains(name)) {
        bail!("unknown target {unknown:?}; the targets are {}", known.join(", "));
    }
    let chosen = if options.targets.is_empty() {
        known
    } else {
        options.targets.clone()
    };
    if let Some(reason) = unsupported() {
        bail!(reason);
    }
    fuzz_all(workspace, &chosen, Extent::Time(time))
}

/// How long a target is fuzzed.
#[derive(Clone, Copy)]
enum Extent {
    /// For a duration, with a new seed and the inputs found by earlier runs.
    Time(Duration),
    /// For this many inputs, with a fixed seed and only the committed corpus, so that runs are reproducible.
    Inputs(u32),
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{} s each", time.as_secs()),
            Self::Inputs(number) => write!(f, "{number} inputs each, fixed seed"),
        }
    }
}

/// Inputs per target in `cargo xtask test`: half a minute of the slowest target.
const CHECK_INPUTS: u32 = 40_000;

/// Fuzzes all targets with a fixed seed, for `cargo xtask test`. Returns the reason if this machine cannot fuzz.
///
/// The result for one commit must be reproducible. `cargo xtask fuzz` searches with new seeds.
pub fn check(workspace: &Workspace) -> Result<Option<String>> {
    if let Some(reason) = unsupported() {
        return Ok(Some(reason));
    }
    fuzz_all(workspace, &targets(workspace)?, Extent::Inputs(CHECK_INPUTS))?;
    Ok(None)
}

/// Why this machine cannot fuzz.
fn unsupported() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("fuzzing is supported only on Linux".to_owned());
    }
    let found = process::output_of(OsStr::new("c++"), &["--version"]).is_some();
    (!found).then(|| "libFuzzer needs a C++ compiler, and `c++` is not on PATH".to_owned())
}

/// The names of all targets. Each has a corpus.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root.join("fuzz/corpus");
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn fuzz_all(workspace: &Workspace, targets: &[String], extent: Extent) -> Result<()> {
    let engine = build_engine(workspace)?;
    build_program(workspace, &engine)?;
    let job = Job {
        workspace,
        program: workspace.program(Profile::Dev, "fuzz"),
        extent,
    };
    println!(
        "    {} targets, {extent}; logs, new inputs and crashes go to {}",
        targets.len(),
        workspace.display(&job.folder())
    );
    let queue = Mutex::new(targets.iter());
    let failed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(targets.len()) {
            scope.spawn(|| {
                while let Some(target) = next(&queue) {
                    if let Err(error) = job.run(target) {
                        println!("    FAILED {target}: {error:#}");
                        lock(&failed).push(target.clone());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if !failed.is_empty() {
        bail!("fuzzing found failing inputs in {}", failed.join(", "));
    }
    Ok(())
}

fn next<'a>(queue: &Mutex<std::slice::Iter<'a, String>>) -> Option<&'a String> {
    lock(queue).next()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    out_dir: Option<PathBuf>,
}

/// Builds libFuzzer and returns the library.
fn build_engine(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = process::cargo(&workspace.root);
    command
        .args([
            "build",
            "--locked",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--manifest-path", "fuzz/engine/Cargo.toml", "--target-dir"])
        .arg(workspace.root.join("target/fuzz/engine"));
    let mut folder = None;
    process::run_lines(&mut command, |line| {
        if let Ok(message) = serde_json::from_str::<Message>(line)
            && message.reason == "build-script-executed"
            && message
                .package_id
                .is_some_and(|package| package.contains("libfuzzer-sys"))
        {
            folder = message.out_dir;
        }
    })?;
    let library = folder
        .map(|folder| folder.join("libfuzzer.a"))
        .filter(|library| library.is_file());
    library.ok_or_else(|| anyhow!("the build of fuzz/engine produced no libfuzzer.a"))
}

/// Builds the program with coverage. `--workspace` selects the same features of dependencies as all other builds.
fn build_program(workspace: &Workspace, engine: &Path) -> Result<()> {
    let mut command = process::cargo(&workspace.root);
    command
        .args([
            "build",
            "--locked",
            "--workspace",
            "--features",
            "lantern-fuzz/engine",
            "--bin",
            "fuzz",
        ])
        .env("RUSTC_WORKSPACE_WRAPPER", workspace.root.join("fuzz/instrument"))
        .env("LANTERN_LIBFUZZER", engine);
    process::run(&mut command)
}

struct Job<'a> {
    workspace: &'a Workspace,
    program: PathBuf,
    extent: Extent,
}

impl Job<'_> {
    fn folder(&self) -> PathBuf {
        self.workspace.root.join("target/fuzz")
    }

    /// Fuzzes one target.
    fn run(&self, target: &str) -> Result<()> {
        let found = match self.extent {
            Extent::Time(_) => "corpus",
            Extent::Inputs(_) => "check",
        };
        let (found, crashes) = (
            self.folder().join(found).join(target),
            self.folder().join("crashes"),
        );
        if matches!(self.extent, Extent::Inputs(_)) && found.exists() {
            fs::remove_dir_all(&found).with_context(|| format!("cannot clear {}", found.display()))?;
        }
        for folder in [&found, &crashes] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let log = self.folder().join(format!("{target}.log"));
        let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let sources = self.workspace.root.join("fuzz");
        let mut command = Command::new(&self.program);
        command
            .env("LANTERN_FUZZ_TARGET", target)
            .arg(&found)
            .arg(sources.join("corpus").join(target))
            // An input that takes a parser this long is a denial of service.
            .args(["-timeout=10", "-rss_limit_mb=1024"])
            .args(["-use_value_profile=1", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/{target}-", crashes.display()))
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        match self.extent {
            Extent::Time(time) => command.arg(format!("-max_total_time={}", time.as_secs().max(1))),
            Extent::Inputs(number) => command.args([format!("-runs={number}"), "-seed=1".to_owned()]),
        };
        let dictionary = sources.join("dictionaries").join(format!("{target}.dict"));
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        if status.success() {
            println!("    {target}: {} inputs", executed(&text).unwrap_or("?"));
            return Ok(());
        }
        let lines: Vec<&str> = text.lines().collect();
        bail!(
            "{status}; end of {}:\n{}",
            self.workspace.display(&log),
            lines[lines.len().saturating_sub(40)..].join("\n")
        );
    }
}

/// The number of executed inputs in libFuzzer's log.
fn executed(log: &str) -> Option<&str> {
    let mut lines = log.lines().rev();
    lines.find_map(|line| Some(line.strip_prefix("stat::number_of_executed_units:")?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_inputs_is_parsed() {
        let log = "#12 DONE\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     20\n";
        assert_eq!(executed(log), Some("1234"));
        assert_eq!(executed("==1== ERROR: libFuzzer: deadly signal\n"), None);
    }
}
