//! Tests compilation in a child process of the real binary: it generates the same code, and a component designed to
//! keep the compiler busy only causes a load failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as loudly as the test itself"
)]

#[path = "plugin/guest.rs"]
mod guest;

use std::time::Duration;

use guest::Variant;
use lantern_plugin::{CompileError, Compiler, EngineConfig, Limits, LoadError, Loader};

fn loader(limits: Limits) -> Loader {
    let compiler = Compiler::Child {
        program: env!("CARGO_BIN_EXE_lantern").into(),
    };
    Loader::new(
        EngineConfig {
            limits,
            ..EngineConfig::new(compiler)
        },
        [1; 32],
    )
    .unwrap()
}

/// Returns the guest with a function so long that its compilation takes hundreds of megabytes, many times the limit
/// below.
fn endless() -> Vec<u8> {
    let line = "(local.set $x (i64.mul (i64.add (local.get $x) (i64.const 7)) (i64.rotl (local.get $x) (local.get $x))))\n";
    let body = format!("(local $x i64)\n{}", line.repeat(150_000));
    guest::component(&Variant {
        start: Box::leak(body.into_boxed_str()),
        ..Variant::default()
    })
}

#[track_caller]
fn compile_error(loader: &Loader, bytes: &[u8]) -> CompileError {
    match loader.load(bytes) {
        Ok(_) => panic!("it was loaded"),
        Err(LoadError::Compile(error)) => error,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_child_compiles_a_plugin() {
    // The child does not receive this limit, which does not affect the generated code.
    let limits = Limits {
        stack_bytes: 256 << 10,
        ..Limits::default()
    };
    let plugin = loader(limits)
        .load(&guest::component(&Variant::default()))
        .unwrap();
    assert_eq!(plugin.manifest().name.as_str(), "by-hand");
}

#[test]
fn an_invalid_component_is_rejected_with_the_error_of_the_validator() {
    let mut bytes = guest::component(&Variant::default());
    // Corrupt an instruction of the core module: the outer structure stays valid, the code does not.
    let position = bytes
        .windows(4)
        .position(|window| window == b"\x20\x00\x20\x01")
        .expect("some code");
    bytes[position] = 0x7c;
    let error = compile_error(&loader(Limits::default()), &bytes);
    assert!(matches!(error, CompileError::Refused(_)), "{error:?}");
}

#[test]
fn a_compilation_that_takes_too_long_is_killed() {
    let loader = loader(Limits {
        compile_time: Duration::from_millis(10),
        ..Limits::default()
    });
    let error = compile_error(&loader, &endless());
    assert!(matches!(error, CompileError::Time(_)), "{error:?}");
}

#[test]
fn a_compilation_without_enough_memory_ends_the_child_process() {
    let loader = loader(Limits {
        compile_memory_bytes: 96 << 20,
        ..Limits::default()
    });
    let error = compile_error(&loader, &endless());
    assert!(
        matches!(error, CompileError::Crashed { .. } | CompileError::Refused(_)),
        "{error:?}"
    );
}

#[test]
fn a_missing_or_different_compiler_program_is_reported() {
    let with = |program: &str| {
        let compiler = Compiler::Child {
            program: program.into(),
        };
        Loader::new(EngineConfig::new(compiler), [1; 32]).unwrap()
    };
    let bytes = guest::component(&Variant::default());
    assert!(matches!(
        compile_error(&with("/nonexistent/lantern"), &bytes),
        CompileError::Process { .. }
    ));
    assert!(matches!(
        compile_error(&with("/bin/false"), &bytes),
        CompileError::Crashed { .. }
    ));
    assert!(matches!(with("/bin/true").load(&bytes), Err(LoadError::Code(_))));
}
