//! From a component to machine code. Compiling is the one step in which a hostile file can keep the host itself busy or
//! eat its memory, so it happens in a child process that has limits of its own and can be killed.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};

use super::config::{Compiler, Limits};
use super::engine;
use lantern_model::batch::clean_text;

/// The hidden subcommand of the host's binary that calls [`compile_child_main`].
pub const COMPILE_SUBCOMMAND: &str = "compile-component";

const MEMORY_VARIABLE: &str = "LANTERN_COMPILE_MEMORY_BYTES";
const TIME_VARIABLE: &str = "LANTERN_COMPILE_SECONDS";
/// Threads of a child. Compiling is rare and should leave a machine's other processors to the work at hand.
const THREADS_MAX: usize = 4;
/// The child's words are an error message; what is longer is not read.
const WORDS_BYTES_MAX: u64 = 16 * 1024;

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler or the validation before it refused the component.
    #[error("the component cannot be compiled: {0}")]
    Refused(String),
    /// It took too long.
    #[error("compiling took longer than {} s, which is the limit", .0.as_secs_f32())]
    Time(Duration),
    /// The compiling process ended badly.
    #[error("the compiling process ended with {status}: {words}")]
    Crashed {
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        words: String,
    },
    /// The process could not be started or talked to.
    #[error("cannot run the compiling process {program}")]
    Process {
        /// What was to be started.
        program: String,
        /// Why it could not be.
        #[source]
        source: std::io::Error,
    },
}

/// Compiles a component into code for `engine`.
pub(super) fn compile(
    compiler: &Compiler,
    engine: &wasmtime::Engine,
    limits: &Limits,
    component: &[u8],
) -> Result<Vec<u8>, CompileError> {
    match compiler {
        Compiler::InProcess => engine
            .precompile_component(component)
            .map_err(|error| CompileError::Refused(words_of(&error))),
        Compiler::Child { program } => compile_in_child(program, limits, component),
    }
}

fn compile_in_child(program: &Path, limits: &Limits, component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let failed = |source| CompileError::Process {
        program: program.display().to_string(),
        source,
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_MAX);
    let mut child = Command::new(program)
        .arg(COMPILE_SUBCOMMAND)
        .env_clear()
        .env(MEMORY_VARIABLE, limits.compile_memory_bytes.to_string())
        .env(TIME_VARIABLE, (limits.compile_time.as_secs() + 1).to_string())
        .env("RAYON_NUM_THREADS", threads.to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let end = Instant::now() + limits.compile_time;
    // The three pipes are served at once, because any of them may fill up while another is waited for.
    let (code, words, status) = std::thread::scope(|scope| {
        let (done, finished) = mpsc::channel();
        // A child that fails early stops reading; its exit says why.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(component)));
        let words = scope.spawn(move || read_all(stderr, WORDS_BYTES_MAX));
        scope.spawn(move || done.send(read_all(stdout, limits.compile_memory_bytes)));
        let code = finished.recv_timeout(limits.compile_time).ok();
        let status = wait_until(&mut child, end);
        let words = words.join().ok().and_then(Result::ok).unwrap_or_default();
        (code, words, status)
    });
    let words = || clean_text(String::from_utf8_lossy(&words).trim(), 1_000);
    match (status.map_err(failed)?, code) {
        (Some(status), Some(code)) if status.success() => code.map_err(failed),
        (Some(status), _) if status.code() == Some(i32::from(REFUSED)) => Err(CompileError::Refused(words())),
        (Some(status), Some(_)) => Err(CompileError::Crashed {
            status,
            words: words(),
        }),
        (None, _) | (_, None) => Err(CompileError::Time(limits.compile_time)),
    }
}

fn read_all(pipe: Option<impl Read>, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(bytes_max).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Waits for a child, and kills it when its time is over. `None` when it had to be killed.
fn wait_until(child: &mut std::process::Child, end: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        // Its output is complete, so it is about to end.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Exit code of a child that found fault with the component, unlike one that crashed.
const REFUSED: u8 = 3;

/// What `lantern compile-component` does: reads a component from standard input and writes its code to standard output,
/// under limits that it puts on itself. Meant to be started by the host only.
pub fn compile_child_main() -> ExitCode {
    match child() {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            // There is no one to tell when standard error is gone as well.
            let _ = writeln!(std::io::stderr(), "{words}");
            ExitCode::from(REFUSED)
        }
    }
}

fn child() -> Result<(), String> {
    limit_this_process()?;
    let mut component = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut component)
        .map_err(|error| format!("cannot read: {error}"))?;
    let engine = engine::compiler(Limits::default().stack_bytes).map_err(|error| words_of(&error))?;
    let code = engine
        .precompile_component(&component)
        .map_err(|error| words_of(&error))?;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&code)
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write: {error}"))
}

fn limit_this_process() -> Result<(), String> {
    let from_environment = |name: &str, default: u64| match std::env::var(name) {
        Ok(value) => value
            .parse()
            .map_err(|error| format!("{name}={value:?}: {error}")),
        Err(_) => Ok(default),
    };
    let limits = Limits::default();
    let memory_bytes = from_environment(MEMORY_VARIABLE, limits.compile_memory_bytes)?;
    let seconds = from_environment(TIME_VARIABLE, limits.compile_time.as_secs())?;
    let set = |resource, value| {
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )
        .map_err(|error| format!("cannot limit {resource:?}: {error}"))
    };
    set(Resource::As, memory_bytes)?;
    // Processor time adds up over threads. It is there for the case that no one is left to watch the clock.
    set(Resource::Cpu, seconds.saturating_mul(THREADS_MAX as u64))?;
    set(Resource::Core, 0)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| format!("cannot tie this process to its parent: {error}"))?;
    // Streams that flow go first. Where that is not allowed, compiling still works.
    let _ = rustix::process::nice(10);
    Ok(())
}

/// An error with its causes, the outermost first.
pub(super) fn words_of(error: &wasmtime::Error) -> String {
    let words: Vec<String> = error.chain().map(ToString::to_string).collect();
    clean_text(&words.join(": "), 1_000)
}
