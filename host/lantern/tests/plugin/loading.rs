//! Tests files that are not plugins, plugins that exceed limits, and the cache of compiled code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lantern_model::settings::PluginSettings;
use lantern_plugin::{Compiler, EngineConfig, Limits, LoadError, Loader, LoaderError};

use crate::guest::{Variant, component, core_module};
use crate::support::{LONG, loader, messages, outcome_kinds};

fn good() -> Vec<u8> {
    component(&Variant::default())
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) -> LoadError {
    let limits = Limits {
        describe_time: Duration::from_millis(150),
        ..Limits::default()
    };
    let Err(error) = loader(limits).load(bytes) else {
        panic!("it was loaded")
    };
    let words = error.to_string();
    assert!(words.contains(expected), "{expected:?} is not in {words:?}");
    error
}

/// Returns a component that exports a projector without functions, plus the definitions in `rest`.
fn text(rest: &str) -> Vec<u8> {
    let text = format!(
        "(component {rest} (instance $p) (export \"lantern:projection/projector@0.1.0\" (instance $p)))"
    );
    wat::parse_str(text).expect("valid text")
}

#[test]
fn a_valid_plugin_is_loaded_with_its_description() {
    let bytes = good();
    let plugin = loader(Limits::default()).load(&bytes).unwrap();
    assert_eq!(plugin.manifest().name.as_str(), "by-hand");
    assert_eq!(plugin.manifest().sources.len(), 3);
    let facts = plugin.facts();
    assert_eq!(facts.contract.to_string(), "lantern:projection@0.1.0");
    assert_eq!(facts.component_bytes, bytes.len());
    assert_eq!(facts.imports, ["lantern:projection/log@0.1.0"]);
    assert_eq!(facts.exports, ["lantern:projection/projector@0.1.0"]);
    assert_eq!(facts.memory_bytes, 2 << 16);
    assert!(facts.code_bytes > 0);
    assert!(plugin.digest().to_string().starts_with("sha256:"));
}

#[test]
fn a_declaration_that_not_every_database_can_hold_is_rejected_unless_it_is_installed() {
    let bytes = component(&Variant {
        table: "a_table_with_a_name_of_more_than_forty_eight_bytes",
        ..Variant::default()
    });
    let error = refused(
        &bytes,
        "table name \"a_table_with_a_name_of_more_than_forty_eight_bytes\" is longer than 48 characters",
    );
    assert!(matches!(error, LoadError::Manifest(_)), "{error:?}");
    let installed = loader(Limits::default()).load_installed(&bytes, &PluginSettings::default());
    assert_eq!(installed.unwrap().manifest().portability_problems().len(), 1);
}

#[test]
fn files_that_are_not_components_are_rejected_with_a_reason() {
    refused(b"", "the file is empty");
    refused(&core_module(&Variant::default()), "it is a core module");
    refused(b"  (module)", "it is WebAssembly text");
    refused(b"(component)", "it is WebAssembly text");
    refused(
        &std::fs::read(std::env::current_exe().unwrap()).unwrap()[..4096],
        "(ELF)",
    );
    refused(b"PK\x03\x04zip", "zip");
    refused(b"#!/bin/sh", "does not begin with the WebAssembly magic number");
    refused(b"\0asm", "is truncated");
    refused(b"\0asm\x07\0\x01\0", "not a WebAssembly component");
    let limits = Limits {
        module_bytes: 100,
        ..Limits::default()
    };
    assert!(matches!(
        loader(limits).load(&good()),
        Err(LoadError::TooLarge { limit: 100, .. })
    ));
}

#[test]
fn a_truncated_file_is_rejected() {
    let (bytes, loader) = (good(), loader(Limits::default()));
    for part in 0..64 {
        let length = bytes.len() * part / 64;
        assert!(
            loader.load(&bytes[..length]).is_err(),
            "{length} of {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn a_file_with_a_changed_byte_is_rejected_or_harmless() {
    let (bytes, loader) = (good(), loader(Limits::default()));
    for position in (0..bytes.len()).step_by(37) {
        let mut bytes = bytes.clone();
        bytes[position] ^= 0x15;
        // The result may still be a plugin; then a call must still work.
        if let Ok(plugin) = loader.load(&bytes) {
            let projected = plugin.projector().project(0, &messages(&["r"]), LONG);
            assert!(projected.halted.is_some() || projected.outcomes.len() == 1);
        }
    }
}

#[test]
fn precompiled_code_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    cached_loader(dir.path(), [1; 32]).load(&good()).unwrap();
    let mut code = std::fs::read(only_file(dir.path())).unwrap();
    code.truncate(code.len() - 32);
    refused(&code, "precompiled code, which is never accepted");
}

#[test]
fn a_component_must_export_one_known_contract() {
    refused(
        &wat::parse_str("(component)").unwrap(),
        "does not export a projector",
    );
    let unknown = "(component (instance $p) (export \"lantern:projection/projector@0.9.0\" (instance $p)))";
    refused(
        &wat::parse_str(unknown).unwrap(),
        "uses lantern:projection/projector@0.9.0",
    );
    let second = text("(instance $q) (export \"lantern:projection/projector@0.2.0\" (instance $q))");
    refused(&second, "several projectors");
    let error = refused(&text(""), "functions differ from lantern:projection@0.1.0");
    assert!(matches!(error, LoadError::Contract { .. }), "{error:?}");
}

#[test]
fn other_imports_than_the_log_are_named() {
    let wasi = text(
        "(import \"wasi:filesystem/preopens@0.2.0\" (instance)) (import \"wasi:random/random@0.2.0\" (instance))",
    );
    let error = refused(
        &wasi,
        "imports wasi:filesystem/preopens@0.2.0, wasi:random/random@0.2.0;",
    );
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("wasm32-unknown-unknown")
                && hint.contains("`lantern plugin set NAME wasi=true`")),
        "{:?}",
        error.hint()
    );
    let error = refused(
        &text("(import \"wasi:http/types@0.2.0\" (instance))"),
        "imports wasi:http/types@0.2.0;",
    );
    assert!(
        error.hint().is_some_and(|hint| !hint.contains("plugin set")),
        "{:?}",
        error.hint()
    );
    refused(
        &text("(import \"some:thing/else\" (instance))"),
        "imports some:thing/else;",
    );
    refused(
        &text("(import \"lantern:projection/log@0.2.0\" (instance))"),
        "imports lantern:projection/log@0.2.0;",
    );
}

#[test]
fn a_plugin_that_does_not_start_or_describe_itself_is_stopped_in_time() {
    let start = |start| {
        component(&Variant {
            start,
            ..Variant::default()
        })
    };
    let describe = |describe| {
        component(&Variant {
            describe,
            ..Variant::default()
        })
    };
    refused(
        &start("(loop $ever (br $ever))"),
        "could not start: it did not end within 150 ms",
    );
    refused(&start("unreachable"), "could not start: wasm `unreachable`");
    refused(
        &describe("(loop $ever (br $ever))"),
        "could not describe itself: it did not end within 150 ms",
    );
    refused(
        &describe("unreachable"),
        "could not describe itself: wasm `unreachable`",
    );
    refused(
        &describe(
            "(loop $more (drop (memory.grow (i32.const 100))) (if (i32.lt_s (memory.grow (i32.const 1)) (i32.const 0)) (then unreachable)) (br $more))",
        ),
        "the limit is 64 MiB",
    );
}

#[test]
fn an_invalid_description_is_rejected_with_its_problems() {
    let error = refused(
        &component(&Variant {
            name: "Not A Name",
            ..Variant::default()
        }),
        "description is not valid",
    );
    assert!(
        matches!(&error, LoadError::Manifest(problems) if !problems.is_empty()),
        "{error:?}"
    );
}

#[test]
fn instances_memories_tables_and_handles_are_limited() {
    let inside = |parts: &str| refused(&guest_with(parts), "could not start");
    let many =
        |module: &str, count| format!("{module} {}", "(core instance (instantiate $m)) ".repeat(count));
    inside(&many("(core module $m)", 500));
    inside(&many("(core module $m (memory 1))", 20));
    inside(&many("(core module $m (table 1 funcref))", 100));
    let error = inside(&many("(core module $m (table 1000000 funcref))", 1));
    assert!(error.to_string().contains("requested tables of"), "{error}");
    let error = inside(&many("(core module $m (memory 2000))", 1));
    assert!(
        error
            .to_string()
            .contains("requested 126 MiB of memory, and the limit is 64 MiB"),
        "{error}"
    );
    let error = inside(
        "(type $r (resource (rep i32)))
        (core func $new (canon resource.new $r))
        (core module $m
          (import \"\" \"new\" (func $new (param i32) (result i32)))
          (func $start (loop $more (drop (call $new (i32.const 1))) (br $more)))
          (start $start))
        (core instance (instantiate $m (with \"\" (instance (export \"new\" (func $new))))))",
    );
    assert!(error.to_string().contains("handle"), "{error}");
}

/// Returns the guest with an inner component that is instantiated with it. A component is a sequence of sections, so
/// the function appends these.
fn guest_with(parts: &str) -> Vec<u8> {
    const COMPONENT: u8 = 4;
    const INSTANCE: u8 = 5;
    let mut bytes = good();
    let mut depth = 0;
    let mut components = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            wasmparser::Payload::ComponentSection { .. } if depth == 0 => {
                (components, depth) = (components + 1, 1)
            }
            wasmparser::Payload::ComponentSection { .. } | wasmparser::Payload::ModuleSection { .. } => {
                depth += 1
            }
            wasmparser::Payload::End(_) => depth = i32::max(depth - 1, 0),
            _ => {}
        }
    }
    let inner = wat::parse_str(format!("(component {parts})")).expect("valid text");
    section(&mut bytes, COMPONENT, &inner);
    // One instance, created from the last component, without arguments.
    section(&mut bytes, INSTANCE, &[1, 0, components, 0]);
    bytes
}

fn section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    let mut left = content.len();
    while left >= 0x80 {
        bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes.extend(content);
}

#[test]
fn compiled_code_is_reused() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = good();
    let compile = Duration::from_millis(1);
    // With a compiler that cannot run, the second load must come from the cache.
    cached_loader(dir.path(), [1; 32]).load(&bytes).unwrap();
    let config = EngineConfig {
        cache_dir: Some(dir.path().to_owned()),
        limits: Limits {
            compile_time: compile,
            ..Limits::default()
        },
        compiler: Compiler::Child {
            program: "/nonexistent/lantern".into(),
        },
    };
    let plugin = Loader::new(config.clone(), [1; 32])
        .unwrap()
        .load(&bytes)
        .unwrap();
    assert_eq!(
        outcome_kinds(&plugin.projector().project(0, &messages(&["r"]), LONG).outcomes),
        ["rows"]
    );
    let Err(error) = Loader::new(config, [2; 32]).unwrap().load(&bytes) else {
        panic!("another key")
    };
    assert!(matches!(error, LoadError::Compile(_)), "{error:?}");
}

#[test]
fn a_manipulated_cache_entry_is_rejected_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = good();
    cached_loader(dir.path(), [1; 32]).load(&bytes).unwrap();
    let path = only_file(dir.path());
    let genuine = std::fs::read(&path).unwrap();
    let mut poisoned = genuine.clone();
    let middle = poisoned.len() / 2;
    poisoned[middle] ^= 0xff;
    for bad in [
        poisoned,
        Vec::new(),
        genuine[..genuine.len() / 2].to_vec(),
        vec![0; 100_000],
    ] {
        std::fs::write(&path, bad).unwrap();
        let plugin = cached_loader(dir.path(), [1; 32]).load(&bytes).unwrap();
        assert_eq!(
            outcome_kinds(&plugin.projector().project(0, &messages(&["r"]), LONG).outcomes),
            ["rows"]
        );
        assert_eq!(
            std::fs::read(&path).unwrap(),
            genuine,
            "the same code is written again"
        );
    }
}

#[test]
fn an_unwritable_cache_does_not_prevent_loading() {
    let dir = tempfile::tempdir().unwrap();
    let loader = cached_loader(dir.path(), [1; 32]);
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(loader.load(&good()).is_ok());
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = EngineConfig {
        cache_dir: Some(file.path().to_owned()),
        ..EngineConfig::new(Compiler::InProcess)
    };
    assert!(Loader::new(config, [1; 32]).is_err(), "a file is no directory");
}

#[test]
fn a_stack_larger_than_that_of_a_thread_is_rejected() {
    let limits = Limits {
        stack_bytes: 8 << 20,
        ..Limits::default()
    };
    let config = EngineConfig {
        limits,
        ..EngineConfig::new(Compiler::InProcess)
    };
    assert!(matches!(
        Loader::new(config, [1; 32]),
        Err(LoaderError::Stack { .. })
    ));
}

fn cached_loader(dir: &Path, key: [u8; 32]) -> Loader {
    let config = EngineConfig {
        cache_dir: Some(dir.to_owned()),
        ..EngineConfig::new(Compiler::InProcess)
    };
    Loader::new(config, key).unwrap()
}

fn only_file(dir: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}
