//! Tests per-plugin settings: they affect only that plugin, and a change needs no compilation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lantern_model::batch::RejectionClass;
use lantern_model::settings::{PluginLimitSettings, PluginSettings};
use lantern_plugin::{Compiler, EngineConfig, Limits, LoadError, Loader, Plugin};

use crate::guest::{Variant, component};
use crate::support::{LONG, loader, messages, outcome_kinds, reason};

fn limits(limits: PluginLimitSettings) -> PluginSettings {
    PluginSettings {
        limits,
        ..PluginSettings::default()
    }
}

#[track_caller]
fn check(plugin: &Arc<Plugin>, payload: &str, class: RejectionClass, words: &str) {
    let projected = plugin.projector().project(0, &messages(&["r", payload]), LONG);
    let reason = reason(&projected.outcomes[1], class);
    assert!(reason.contains(words), "{words:?} is not in {reason:?}");
}

#[test]
fn each_plugin_has_its_own_limits() {
    let loader = loader(Limits::default());
    let bytes = component(&Variant::default());
    let set = limits(PluginLimitSettings {
        memory_bytes: Some(8 << 20),
        message_time: Some(Duration::from_millis(60)),
        rows_per_message: Some(7),
        bytes_per_message: Some(2_000),
    });
    let own = loader.load_with(&bytes, &set).unwrap();
    let other = loader.load(&bytes).unwrap();
    assert_eq!(own.limits().rows_per_message, 7);
    check(&own, "M", RejectionClass::Memory, "the limit is 8 MiB");
    check(&own, "L", RejectionClass::Timeout, "did not end within 60 ms");
    check(
        &own,
        "B",
        RejectionClass::Output,
        "20000 rows for one message, and the limit is 7",
    );
    let long = format!("r{}", "x".repeat(3_000));
    check(&own, &long, RejectionClass::Output, "more than 2000 bytes");
    assert_eq!(**other.limits(), Limits::default());
    check(&other, "M", RejectionClass::Memory, "the limit is 64 MiB");
    let projected = other.projector().project(0, &messages(&[long]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows"]);
}

#[test]
fn a_small_limit_per_message_allows_batches_of_many_messages() {
    let bytes = component(&Variant::default());
    let set = limits(PluginLimitSettings {
        bytes_per_message: Some(1_024),
        ..PluginLimitSettings::default()
    });
    let plugin = loader(Limits::default()).load_with(&bytes, &set).unwrap();
    let payloads = vec![format!("r{}", "x".repeat(1_000)); 2_000];
    let projected = plugin.projector().project(0, &messages(&payloads), LONG);
    assert_eq!(projected.outcomes.len(), 2_000);
    assert!(projected.faults.is_empty(), "{:?}", projected.faults);
}

#[test]
fn settings_change_without_compilation_and_existing_projectors_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = component(&Variant::default());
    let config = |compiler| EngineConfig {
        cache_dir: Some(dir.path().to_owned()),
        ..EngineConfig::new(compiler)
    };
    Loader::new(config(Compiler::InProcess), [1; 32])
        .unwrap()
        .load(&bytes)
        .unwrap();
    // From here on nothing can be compiled: the compiler program does not exist, and the cached code is deleted below.
    let nothing = Compiler::Child {
        program: PathBuf::from("/nonexistent/lantern"),
    };
    let plugin = Loader::new(config(nothing), [1; 32])
        .unwrap()
        .load(&bytes)
        .unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    let mut before = plugin.projector();
    let few = plugin
        .with_settings(&limits(PluginLimitSettings {
            rows_per_message: Some(3),
            ..PluginLimitSettings::default()
        }))
        .unwrap();
    assert_eq!(few.digest(), plugin.digest());
    assert!(Arc::ptr_eq(few.manifest(), plugin.manifest()));
    check(&few, "B", RejectionClass::Output, "the limit is 3");
    let projected = before.project(0, &messages(&["B"]), LONG);
    let reason = reason(&projected.outcomes[0], RejectionClass::Output);
    let limit = format!("the limit is {}", plugin.limits().rows_per_message);
    assert!(reason.ends_with(&limit), "{reason}");
    // Back to the defaults: the previous settings are dropped.
    let again = few.with_settings(&PluginSettings::default()).unwrap();
    assert_eq!(again.limits(), plugin.limits());
}

#[test]
fn a_memory_limit_below_the_initial_memory_is_rejected() {
    let loader = loader(Limits {
        memory_bytes: 2 << 20,
        ..Limits::default()
    });
    let bytes = component(&Variant {
        describe: "(if (i32.lt_u (memory.size) (i32.const 30)) (then (drop (memory.grow (i32.const 28)))))",
        ..Variant::default()
    });
    let plugin = loader.load(&bytes).unwrap();
    let less = limits(PluginLimitSettings {
        memory_bytes: Some(1 << 20),
        ..PluginLimitSettings::default()
    });
    let Err(error) = plugin.with_settings(&less) else {
        panic!("it was set")
    };
    assert!(
        matches!(error, LoadError::Memory { bytes: 1_966_080, .. }),
        "{error}"
    );
    assert_eq!(error.hint(), Some("raise limits.memory"));
}

#[test]
fn the_time_limit_can_be_raised_and_lowered() {
    let loader = loader(Limits {
        message_time: Duration::from_millis(1),
        ..Limits::default()
    });
    let bytes = component(&Variant::default());
    let patient = limits(PluginLimitSettings {
        message_time: Some(Duration::from_secs(20)),
        ..PluginLimitSettings::default()
    });
    let plugin = loader.load_with(&bytes, &patient).unwrap();
    // Busy for tens of milliseconds.
    let projected = plugin.projector().project(0, &messages(&["w"]), LONG);
    assert_eq!(outcome_kinds(&projected.outcomes), ["rows"]);
}
