//! Compiles a component to machine code. This is the only step in which a hostile file can occupy the host or exhaust
//! its memory, so it runs in a child process that has its own limits and can be killed.

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
/// Threads of a child. Compiling is rare and should leave other processors to the running work.
const THREADS_MAX: usize = 4;
/// Maximum bytes of the child's error message.
const MESSAGE_BYTES_MAX: u64 = 16 * 1024;

/// Why compiling failed.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The validation or the compiler rejected the component.
    #[error("the component cannot be compiled: {0}")]
    Refused(String),
    /// It exceeded the time limit.
    #[error("compiling took longer than {} s, which is the limit", .0.as_secs_f32())]
    Time(Duration),
    /// The compiling process crashed.
    #[error("the compiling process ended with {status}: {message}")]
    Crashed {
        /// The exit status.
        status: ExitStatus,
        /// Its last output.
        message: String,
    },
    /// The process could not be started, or communication with it failed.
    #[error("cannot run the compiling process {program}")]
    Process {
        /// The program.
        program: String,
        /// The cause.
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
            .map_err(|error| CompileError::Refused(describe_error(&error))),
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
    // All three pipes are served concurrently, because any of them may fill up while another is waited for.
    let (code, message, status) = std::thread::scope(|scope| {
        let (done, finished) = mpsc::channel();
        // A child that fails early stops reading; its exit status gives the cause.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(component)));
        let message = scope.spawn(move || read_all(stderr, MESSAGE_BYTES_MAX));
        scope.spawn(move || done.send(read_all(stdout, limits.compile_memory_bytes)));
        let code = finished.recv_timeout(limits.compile_time).ok();
        let status = wait_until(&mut child, end);
        let message = message.join().ok().and_then(Result::ok).unwrap_or_default();
        (code, message, status)
    });
    let message = || clean_text(String::from_utf8_lossy(&message).trim(), 1_000);
    match (status.map_err(failed)?, code) {
        (Some(status), Some(code)) if status.success() => code.map_err(failed),
        (Some(status), _) if status.code() == Some(i32::from(REFUSED)) => {
            Err(CompileError::Refused(message()))
        }
        (Some(status), Some(_)) => Err(CompileError::Crashed {
            status,
            message: message(),
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

/// Waits for a child, and kills it at `end`. `None` when it was killed.
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
        // Its output is complete, so it is about to exit.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Exit code of a child that rejected the component, unlike one that crashed.
const REFUSED: u8 = 3;

/// Implements `lantern compile-component`: reads a component from standard input and writes its code to standard
/// output, under limits that it sets for itself. Only the host starts it.
pub fn compile_child_main() -> ExitCode {
    match child() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // An error cannot be reported when standard error is closed as well.
            let _ = writeln!(std::io::stderr(), "{message}");
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
    let engine = engine::compiler(Limits::default().stack_bytes).map_err(|error| describe_error(&error))?;
    let code = engine
        .precompile_component(&component)
        .map_err(|error| describe_error(&error))?;
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
    // Processor time adds up over threads. This limit applies when the parent is gone and nobody checks the wall-clock
    // limit.
    set(Resource::Cpu, seconds.saturating_mul(THREADS_MAX as u64))?;
    set(Resource::Core, 0)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| format!("cannot tie this process to its parent: {error}"))?;
    // Running streams have priority. Where this is not permitted, compiling still works.
    let _ = rustix::process::nice(10);
    Ok(())
}

/// An error with its causes, the outermost first.
pub(super) fn describe_error(error: &wasmtime::Error) -> String {
    let message: Vec<String> = error.chain().map(ToString::to_string).collect();
    clean_text(&message.join(": "), 1_000)
}
