//! Turns bytes into a plugin that has described itself. Only tested properties of a file are trusted; a failing file
//! changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::Component;

use super::bindings::{Contract, Pre};
use super::cache::Cache;
use super::compile::{self, CompileError, describe_error};
use super::config::{Compiler, EngineConfig, Limits};
use super::digest::Digest;
use super::engine::Engine;
use super::instance::{CallFailure, Instance};
use super::interrupt::Interrupt;
use super::log::LogGate;
use super::outline::{Outline, OutlineError, check_imports};
use super::wasi;
use lantern_model::schema::{Manifest, Problem};
use lantern_model::settings::PluginSettings;

/// Half of a thread's 2 MiB; the host's own code runs on the other half. Overflowing a thread's stack would abort the
/// process.
const STACK_BYTES_MAX: usize = 1 << 20;

/// Loads plugins. One per process: all plugins share its engine.
pub struct Loader {
    engine: Arc<Engine>,
    compiler: Compiler,
    cache: Option<Cache>,
    loads: AtomicU64,
    compilations: AtomicU64,
}

/// Work of a loader since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoaderCounters {
    /// Components that the loader began to load.
    pub loads: u64,
    /// Components that it compiled, because their code was not in the cache.
    pub compilations: u64,
}

/// Why plugins cannot be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The engine does not run on this machine.
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Engine(String),
    /// Guests would get more stack than the calling threads have.
    #[error("the stack limit is {bytes} bytes, and more than {STACK_BYTES_MAX} are not safe")]
    Stack {
        /// The configured limit.
        bytes: usize,
    },
    /// The directory for compiled code cannot be used.
    #[error("the directory for compiled plugins {dir} cannot be used")]
    CacheDir {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Why a file was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is larger than the limit.
    #[error("the file has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It is not a plugin.
    #[error(transparent)]
    Outline(#[from] OutlineError),
    /// It cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// This process cannot use the compiled code.
    #[error("the compiled code cannot be used: {0}")]
    Code(String),
    /// Its functions do not match the contract.
    #[error("the component's functions differ from {contract}: {reason}")]
    Contract {
        /// The contract version that it exports.
        contract: Contract,
        /// The function and the difference.
        reason: String,
    },
    /// The trial failed.
    #[error("the plugin could not {doing}: {reason}")]
    Trial {
        /// The attempted operation.
        doing: &'static str,
        /// The failure.
        reason: String,
    },
    /// Two calls of `describe` gave different descriptions.
    #[error("the plugin describes itself differently at each call")]
    Unsteady,
    /// Its memory after `describe` exceeds the limit.
    #[error("the plugin begins with {bytes} bytes of memory, and the limit would be {limit}")]
    Memory {
        /// Its memory.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Its description is not valid.
    #[error("the plugin's description is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Manifest(Vec<Problem>),
    /// It subscribes to internal subjects of the broker, which requires an operator's permission.
    #[error(
        "source {source_name} subscribes to {subject:?}, on which requests and answers of other programs arrive; \
         an operator must allow that"
    )]
    InternalSubject {
        /// The source.
        source_name: String,
        /// The subject.
        subject: String,
    },
}

impl LoadError {
    /// A remedy for the author or the operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooLarge { .. } => Some("raise the limit on module bytes, or build with lto and strip"),
            Self::Outline(error) => error.hint(),
            Self::Compile(CompileError::Time(_)) => {
                Some("raise the limit on compile time, if you trust the file")
            }
            Self::Compile(CompileError::Crashed { .. }) => {
                Some("it may have needed more memory than the limit on compile memory allows")
            }
            Self::Contract { .. } => Some("build it with the lantern-sdk of that version"),
            Self::Memory { .. } => Some("raise limits.memory"),
            Self::InternalSubject { .. } => Some(
                "subscribe to narrower subjects, or allow it: `lantern plugin set NAME internal_subjects=true`",
            ),
            Self::Unsteady => Some("`describe` must not depend on anything that changes"),
            Self::Compile(_) | Self::Code(_) | Self::Trial { .. } | Self::Manifest(_) => None,
        }
    }
}

impl Loader {
    /// Sets up the engine. `cache_key` is a secret of this installation; cached code without its tag is not trusted.
    ///
    /// # Errors
    /// When the limits are not safe, the engine does not run on this machine, or the cache directory cannot be created.
    pub fn new(config: EngineConfig, cache_key: [u8; 32]) -> Result<Self, LoaderError> {
        let EngineConfig {
            limits,
            cache_dir,
            compiler,
        } = config;
        if limits.stack_bytes > STACK_BYTES_MAX {
            return Err(LoaderError::Stack {
                bytes: limits.stack_bytes,
            });
        }
        let engine = Engine::new(limits).map_err(|error| LoaderError::Engine(describe_error(&error)))?;
        let cache = match cache_dir {
            Some(dir) => {
                let cache = Cache::open(&dir, cache_key, engine.compatibility());
                Some(cache.map_err(|source| LoaderError::CacheDir { dir, source })?)
            }
            None => None,
        };
        Ok(Self {
            engine: Arc::new(engine),
            compiler,
            cache,
            loads: AtomicU64::new(0),
            compilations: AtomicU64::new(0),
        })
    }

    /// Number of loads and compilations so far.
    pub fn counters(&self) -> LoaderCounters {
        LoaderCounters {
            loads: self.loads.load(Ordering::Relaxed),
            compilations: self.compilations.load(Ordering::Relaxed),
        }
    }

    /// Size of the largest accepted component, in bytes.
    pub fn module_bytes_max(&self) -> usize {
        self.engine.limits.module_bytes
    }

    /// The limits of a plugin with these settings.
    pub fn limits(&self, settings: &PluginSettings) -> Limits {
        self.engine.limits.with(&settings.limits)
    }

    /// Checks, compiles and tries a component, with default limits and without WASI. Blocks as long as the limits on
    /// compiling and describing allow.
    ///
    /// # Errors
    /// The first problem of the file; all problems of its description at once.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        self.load_with(bytes, &PluginSettings::default())
    }

    /// Like [`load`](Self::load), with the settings of this plugin, which the caller has checked. Do not call it from
    /// an async task.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_with(&self, bytes: &[u8], settings: &PluginSettings) -> Result<Arc<Plugin>, LoadError> {
        let plugin = self.load_installed(bytes, settings)?;
        let problems = plugin.manifest.portability_problems();
        match problems.is_empty() {
            true => Ok(plugin),
            false => Err(LoadError::Manifest(problems)),
        }
    }

    /// Like [`load_with`](Self::load_with), for a version that is already installed. An earlier release may have accepted
    /// declarations that not every database can hold, and the database in use holds their tables, so they are no error
    /// here.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_installed(&self, bytes: &[u8], settings: &PluginSettings) -> Result<Arc<Plugin>, LoadError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let limit = self.engine.limits.module_bytes;
        if bytes.len() > limit {
            return Err(LoadError::TooLarge {
                bytes: bytes.len(),
                limit,
            });
        }
        let Outline {
            contract,
            imports,
            exports,
        } = Outline::read(bytes, settings.wasi)?;
        let wasi = imports.iter().any(|import| wasi::provides(import));
        let limits = Arc::new(self.engine.limits.with(&settings.limits));
        let digest = Digest::of(bytes);
        let (component, code_bytes) = self.code(digest, bytes)?;
        let pre = Pre::link(contract, &self.engine.wasmtime, &component, wasi).map_err(|error| {
            LoadError::Contract {
                contract,
                reason: describe_error(&error),
            }
        })?;
        let (manifest, memory_bytes) = self.trial(&pre, &limits, digest)?;
        check_subjects(&manifest, settings)?;
        let log = LogGate::new(manifest.name.to_string(), self.engine.limits.log_lines_per_second);
        let facts = Facts {
            contract,
            component_bytes: bytes.len(),
            code_bytes,
            memory_bytes,
            imports,
            wasi,
            exports,
        };
        Ok(Arc::new(Plugin {
            digest,
            manifest: Arc::new(manifest),
            facts: Arc::new(facts),
            pre: Arc::new(pre),
            engine: Arc::clone(&self.engine),
            limits,
            log: Arc::new(log),
        }))
    }

    /// The compiled component and the size of its code: from the cache, or compiled and then cached.
    fn code(&self, digest: Digest, bytes: &[u8]) -> Result<(Component, usize), LoadError> {
        if let Some(code) = self.cache.as_ref().and_then(|cache| cache.get(digest)) {
            match self.deserialize(&code) {
                Ok(component) => return Ok((component, code.len())),
                Err(error) => {
                    tracing::warn!(%digest, error = describe_error(&error), "cached code does not match; recompiling");
                }
            }
        }
        let engine = &self.engine;
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let code = compile::compile(&self.compiler, &engine.wasmtime, &engine.limits, bytes)?;
        let component = self
            .deserialize(&code)
            .map_err(|error| LoadError::Code(describe_error(&error)))?;
        if let Some(cache) = &self.cache {
            cache.put(digest, &code);
        }
        Ok((component, code.len()))
    }

    fn deserialize(&self, code: &[u8]) -> wasmtime::Result<Component> {
        #[expect(
            unsafe_code,
            reason = "the bytes were made by this program's own compiler: in this process, in a child that is the \
                      same binary, or earlier and tagged with this installation's secret key"
        )]
        // SAFETY: see the reason above; bytes of any other origin never reach this call.
        unsafe {
            Component::deserialize(&self.engine.wasmtime, code)
        }
    }

    /// Creates an instance and calls `describe` twice: tables and positions depend on the description, and a change
    /// would be detected too late.
    fn trial(&self, pre: &Pre, limits: &Limits, digest: Digest) -> Result<(Manifest, usize), LoadError> {
        let time = self.engine.limits.describe_time;
        let failed = |doing| {
            move |failure: CallFailure| LoadError::Trial {
                doing,
                reason: failure.reason,
            }
        };
        let log = Arc::new(LogGate::new(
            digest.short(),
            self.engine.limits.log_lines_per_second,
        ));
        let interrupt = Interrupt::default();
        let instance = Instance::new(&self.engine, pre, limits, &log, &interrupt, time);
        let mut instance = instance.map_err(failed("start"))?;
        let raw = instance
            .describe(&self.engine, time)
            .map_err(failed("describe itself"))?;
        let again = instance
            .describe(&self.engine, time)
            .map_err(failed("describe itself again"))?;
        if raw != again {
            return Err(LoadError::Unsteady);
        }
        let manifest = Manifest::check(raw).map_err(LoadError::Manifest)?;
        Ok((manifest, instance.memory_bytes()))
    }
}

/// Rejects internal subjects of the broker, unless the settings allow them.
fn check_subjects(manifest: &Manifest, settings: &PluginSettings) -> Result<(), LoadError> {
    match manifest.internal_subject() {
        Some((source, subject)) if !settings.internal_subjects => Err(LoadError::InternalSubject {
            source_name: source.to_string(),
            subject: subject.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A loaded plugin: compiled, tried, and ready for any number of projections.
pub struct Plugin {
    digest: Digest,
    manifest: Arc<Manifest>,
    facts: Arc<Facts>,
    pre: Arc<Pre>,
    engine: Arc<Engine>,
    limits: Arc<Limits>,
    log: Arc<LogGate>,
}

/// Properties of a plugin besides its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its contract version.
    pub contract: Contract,
    /// Size of its file.
    pub component_bytes: usize,
    /// Size of its compiled code.
    pub code_bytes: usize,
    /// Linear memory of an instance after `describe`.
    pub memory_bytes: usize,
    /// Imported interfaces.
    pub imports: Vec<String>,
    /// Whether some of them are WASI's, which requires an operator's permission.
    pub wasi: bool,
    /// Exported interfaces.
    pub exports: Vec<String>,
}

impl Plugin {
    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its checked description.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Contract version and sizes.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Number of log lines dropped because of the rate limit, since it was loaded.
    pub fn log_lines_dropped(&self) -> u64 {
        self.log.dropped()
    }

    /// Limits of its instances.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The same compiled code with other settings. Existing projectors keep theirs. No code of the guest runs.
    ///
    /// # Errors
    /// When the settings forbid it: it imports WASI or subscribes to internal subjects without permission, or its
    /// initial memory exceeds the limit.
    pub fn with_settings(&self, settings: &PluginSettings) -> Result<Arc<Self>, LoadError> {
        check_imports(self.facts.contract, &self.facts.imports, settings.wasi)?;
        check_subjects(&self.manifest, settings)?;
        let limits = self.engine.limits.with(&settings.limits);
        if self.facts.memory_bytes > limits.memory_bytes {
            return Err(LoadError::Memory {
                bytes: self.facts.memory_bytes,
                limit: limits.memory_bytes,
            });
        }
        Ok(Arc::new(Self {
            digest: self.digest,
            manifest: Arc::clone(&self.manifest),
            facts: Arc::clone(&self.facts),
            pre: Arc::clone(&self.pre),
            engine: Arc::clone(&self.engine),
            limits: Arc::new(limits),
            log: Arc::clone(&self.log),
        }))
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn instantiate(&self, interrupt: &Interrupt, time: Duration) -> Result<Instance, CallFailure> {
        Instance::new(&self.engine, &self.pre, &self.limits, &self.log, interrupt, time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::schema::{Origin, RawManifest, RawSource};

    #[test]
    fn internal_subjects_require_the_operators_permission() {
        let manifest = |subject: &str| {
            let source = RawSource {
                name: "all".into(),
                origin: Origin::Core {
                    subjects: vec![subject.into()],
                },
                wants_headers: false,
            };
            Manifest::check(RawManifest {
                name: "spy".into(),
                version: "1.0.0".into(),
                doc: String::new(),
                sources: vec![source],
                tables: Vec::new(),
                writes: Vec::new(),
            })
            .unwrap()
        };
        let (usual, allowed) = (
            PluginSettings::default(),
            PluginSettings {
                internal_subjects: true,
                ..PluginSettings::default()
            },
        );
        let error = check_subjects(&manifest("_INBOX.>"), &usual).unwrap_err();
        assert_eq!(
            error.to_string(),
            "source all subscribes to \"_INBOX.>\", on which requests and answers of other programs arrive; an operator must \
             allow that"
        );
        assert!(error.hint().unwrap().contains("internal_subjects=true"));
        assert!(check_subjects(&manifest("_INBOX.>"), &allowed).is_ok());
        assert!(check_subjects(&manifest("orders.>"), &usual).is_ok());
    }
}
