//! Why an operation, or the start, fails.

use std::path::PathBuf;

use lantern_broker::BrokerError;
use lantern_plugin::{Digest, LoadError};
use lantern_store::reader::ReadError;
use lantern_store::{AdoptError, CommitError, StoreRefusal, list_refusals};
use lantern_trust::signature::Fault;

/// Why an operation failed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// No plugin of this name is installed.
    #[error("no plugin named {0} is installed")]
    NoPlugin(String),
    /// The plugin has no such version.
    #[error("plugin {plugin} has no version {version}")]
    NoVersion {
        /// The plugin.
        plugin: String,
        /// The requested version.
        version: String,
    },
    /// The requested object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The operation is not possible in the current state; the message names an alternative.
    #[error("{0}")]
    Conflict(String),
    /// Another host of the database runs the plugin.
    #[error("host {node} runs plugin {plugin}; send the request to {url}")]
    Elsewhere {
        /// The plugin.
        plugin: String,
        /// The name of the host.
        node: String,
        /// The URL of its API.
        url: String,
    },
    /// The component is not a valid plugin.
    #[error("the component was rejected")]
    Load(#[source] LoadError),
    /// Signatures are required, and the component has no valid one. Its bytes were not parsed.
    #[error("{fault}")]
    Signature {
        /// The component.
        digest: Digest,
        /// What is wrong with its signature.
        fault: Fault,
    },
    /// The plugin may not run with its settings.
    #[error("plugin {plugin} may not run with its settings")]
    Settings {
        /// The plugin.
        plugin: String,
        /// The reason.
        #[source]
        source: LoadError,
    },
    /// The settings are invalid; lists all problems.
    #[error("{}", .0.join("; "))]
    BadSettings(Vec<String>),
    /// Its tables are incompatible, or belong to another plugin.
    #[error("the database rejects its tables: {}", list_refusals(.0))]
    Tables(Vec<StoreRefusal>),
    /// The broker does not permit a request to the host's user.
    #[error("{0}")]
    NotPermitted(String),
    /// The database or a file cannot be written; a retry may succeed.
    #[error("temporarily unavailable: {0}")]
    Unavailable(String),
    /// The database rejects a statement of the host; a retry does not help.
    #[error("{0}")]
    Failed(String),
}

impl LifecycleError {
    /// The component, if its signature was rejected.
    pub fn unsigned(&self) -> Option<Digest> {
        match self {
            Self::Signature { digest, .. } => Some(*digest),
            _ => None,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Load(error) => error.hint().map(str::to_owned),
            Self::Signature { fault, .. } => Some(fault.hint()),
            Self::Settings { plugin, source } => Some(match source {
                LoadError::Outline(_) => {
                    format!("if you trust it: lantern plugin set {plugin} wasi=true, then install it again")
                }
                LoadError::InternalSubject { .. } => format!(
                    "if you trust it: lantern plugin set {plugin} internal_subjects=true, then install it again"
                ),
                _ => format!("see lantern plugin show {plugin}, and lantern plugin set {plugin} …"),
            }),
            Self::Tables(reasons)
                if reasons
                    .iter()
                    .any(|reason| matches!(reason, StoreRefusal::ForeignTable { .. })) =>
            {
                Some("two plugins cannot share a table; rename it in one of them".to_owned())
            }
            Self::Tables(_) => Some(
                "only new tables, new nullable columns and new indexes are applied automatically; for other changes \
                 rebuild: lantern rebuild PLUGIN@DIGEST"
                    .to_owned(),
            ),
            Self::NotPermitted(_) => Some(
                "permit the subject to the host's user; docs/operations.md, Permissions, lists the subjects that each \
                 command needs"
                    .to_owned(),
            ),
            Self::NoPlugin(_) => Some("lantern plugin list shows the installed plugins".to_owned()),
            Self::NoVersion { plugin, .. } => Some(format!(
                "lantern plugin show {plugin} lists its versions; give a version number, or at least eight digits of \
                 a digest"
            )),
            _ => None,
        }
    }
}

impl From<CommitError> for LifecycleError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Failed(_) => Self::Failed(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<BrokerError> for LifecycleError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Forbidden { .. } => Self::NotPermitted(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<ReadError> for LifecycleError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.with_cause())
    }
}

impl From<AdoptError> for LifecycleError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Refused(reasons) => Self::Tables(reasons),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Why a component was not installed and activated.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It was not installed. Nothing has changed then.
    #[error(transparent)]
    NotInstalled(#[from] LifecycleError),
    /// It was installed, and the active version did not change.
    #[error("the version was installed but not activated")]
    NotActivated {
        /// The plugin.
        plugin: String,
        /// The number of the installed version.
        version: String,
        /// Its digest.
        digest: Digest,
        /// The reason.
        #[source]
        source: LifecycleError,
    },
}

/// Why the lifecycle cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of components cannot be used.
    #[error("the folder of installed plugins {} cannot be used", dir.display())]
    Components {
        /// The folder.
        dir: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The plugin directory cannot be read.
    #[error("read the plugin directory {}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be read.
    #[error("read the installed plugins from the database")]
    Database(#[from] CommitError),
    /// The plugins or rebuilds that ran when the host stopped cannot be resumed.
    #[error("resume the plugins and rebuilds that ran when the host stopped")]
    Resume(#[from] LifecycleError),
    /// Nothing is installed, and no file of the plugin directory can be loaded.
    #[error("no plugin can be loaded: {0}")]
    Nothing(String),
}

impl From<ReadError> for StartError {
    fn from(error: ReadError) -> Self {
        Self::Database(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_permission_is_not_temporary() {
        let forbidden = BrokerError::Forbidden {
            what: "$JS.API.CONSUMER.CREATE.S".to_owned(),
        };
        let error = LifecycleError::from(forbidden);
        assert!(matches!(error, LifecycleError::NotPermitted(_)), "{error:?}");
        assert!(error.to_string().contains("$JS.API.CONSUMER.CREATE.S"));
        assert!(error.hint().unwrap().contains("Permissions"));
    }
}
