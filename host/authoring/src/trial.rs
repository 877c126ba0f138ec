//! Runs a component on messages in a new instance, with the default limits of a host.

use std::sync::Arc;
use std::time::Duration;

use lantern_model::batch::{Delivery, Outcome};
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Compiler, EngineConfig, LoadError, Loader, LoaderError, Plugin};

/// Time limit of all messages of one run. Each message has its own, much shorter limit.
const BUDGET: Duration = Duration::from_secs(60);

/// A component, loaded as in a host.
pub struct Loaded {
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// Whether it imports WASI, which an operator must allow.
    pub wasi: bool,
}

/// Why a component could not be run.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The engine cannot run on this machine.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A host would reject the component.
    #[error("a host would reject this component")]
    Load(#[from] LoadError),
    /// No instance could be created.
    #[error("failed to start the plugin: {0}")]
    Halted(String),
}

impl TrialError {
    /// What the author can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Load(error) => error.hint(),
            Self::Loader(_) | Self::Halted(_) => None,
        }
    }
}

/// Result of a run.
pub struct TrialRun {
    /// One outcome per message.
    pub outcomes: Vec<Outcome>,
    /// Elapsed time, including the creation of the instance.
    pub busy: Duration,
    /// Peak memory of the guest.
    pub memory_peak_bytes: usize,
}

/// Loads a component with the default limits of a host, and with WASI allowed.
///
/// # Errors
/// See [`TrialError`].
pub fn load(component: &[u8]) -> Result<Loaded, TrialError> {
    let loader = Loader::new(EngineConfig::new(Compiler::InProcess), [0; 32])?;
    // The operator of a host decides about WASI; here it is empty.
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

/// Projects messages of one source in a new instance.
///
/// # Errors
/// If no instance can be created.
pub fn run(plugin: &Arc<Plugin>, source: usize, messages: &[Delivery]) -> Result<TrialRun, TrialError> {
    let mut projector = plugin.projector();
    let (mut outcomes, mut busy) = (Vec::new(), Duration::ZERO);
    while outcomes.len() < messages.len() {
        let projected = projector.project(source, &messages[outcomes.len()..], BUDGET);
        busy += projected.busy;
        outcomes.extend(projected.outcomes);
        if let Some(reason) = projected.halted {
            return Err(TrialError::Halted(reason));
        }
    }
    Ok(TrialRun {
        outcomes,
        busy,
        memory_peak_bytes: projector.memory_peak_bytes(),
    })
}
