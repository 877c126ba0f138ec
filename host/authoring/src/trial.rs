//! The real component on messages, under the limits of a host and in an instance that has seen nothing before.

use std::sync::Arc;
use std::time::Duration;

use lantern_model::batch::{Delivery, Outcome};
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Compiler, EngineConfig, LoadError, Loader, LoaderError, Plugin};

/// How long all messages of one case may take together. Each has its own, much shorter limit.
const BUDGET: Duration = Duration::from_secs(60);

/// A component that was loaded as a host would load it.
pub struct Loaded {
    /// It.
    pub plugin: Arc<Plugin>,
    /// Whether it imports WASI, which an operator has to allow.
    pub wasi: bool,
}

/// Why nothing can be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The engine does not run here.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A host would not load it.
    #[error("a host would refuse this component")]
    Load(#[from] LoadError),
    /// No instance could be made.
    #[error("the plugin could not be started: {0}")]
    Halted(String),
}

impl TrialError {
    /// What the author can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Load(error) => error.hint(),
            Self::Loader(_) | Self::Halted(_) => None,
        }
    }
}

/// What became of the messages of one case.
pub struct Tried {
    /// One for each message.
    pub outcomes: Vec<Outcome>,
    /// Time by the clock, that of making the instance included.
    pub busy: Duration,
    /// The most memory that the guest had.
    pub memory_peak_bytes: usize,
}

/// Loads a component with the limits that hosts have. Where it imports WASI, as one for which that is allowed.
///
/// # Errors
/// See [`TrialError`].
pub fn load(component: &[u8]) -> Result<Loaded, TrialError> {
    let loader = Loader::new(EngineConfig::new(Compiler::InProcess), [0; 32])?;
    // Whether it may import WASI is for the operator of a host to say; here it is empty anyway.
    let settings = PluginSettings {
        wasi: true,
        internal_subjects: true,
        ..PluginSettings::default()
    };
    let plugin = loader.load_with(component, &settings)?;
    Ok(Loaded {
        wasi: plugin.facts().wasi,
        plugin,
    })
}

/// Hands messages of one source to a new instance.
///
/// # Errors
/// When no instance can be made.
pub fn run(plugin: &Arc<Plugin>, source: usize, messages: &[Delivery]) -> Result<Tried, TrialError> {
    let mut projector = plugin.projector();
    let (mut outcomes, mut busy) = (Vec::new(), Duration::ZERO);
    while outcomes.len() < messages.len() {
        let projected = projector.project(source, &messages[outcomes.len()..], BUDGET);
        busy += projected.busy;
        outcomes.extend(projected.outcomes);
        if let Some(words) = projected.halted {
            return Err(TrialError::Halted(words));
        }
    }
    Ok(Tried {
        outcomes,
        busy,
        memory_peak_bytes: projector.memory_peak_bytes(),
    })
}
