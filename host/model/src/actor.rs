//! Who performs an operation, for the audit and the log, and the roles of tokens.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema::TokenName;

/// Name of the token that the host creates for the command line on its machine.
pub const LOCAL_TOKEN: &str = "local";

/// Beginning of the name of such a token if several hosts share a database: each has its own.
pub const LOCAL_TOKEN_OF_NODE: &str = "local-";

/// Who performs an operation. The text form is stored in the audit, and later hosts read it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The holder of a token that an operator created.
    Token(TokenName),
    /// The operator on the machine of the host, who holds the token [`LOCAL_TOKEN`].
    Local,
    /// A part of the host, without a request.
    Host(HostPart),
    /// A client without a valid token.
    Anonymous,
    /// A stored actor that this version does not know.
    Unknown(String),
}

/// A part of the host that acts without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPart {
    /// The start of the host.
    Start,
    /// The watcher of the plugin directory.
    PluginDirectory,
    /// The health gate of a new version.
    HealthGate,
    /// The task of a rebuild.
    Rebuild,
}

impl HostPart {
    const ALL: [Self; 4] = [
        Self::Start,
        Self::PluginDirectory,
        Self::HealthGate,
        Self::Rebuild,
    ];

    /// The stored form. No token can have this name, because of the parentheses.
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "(host)",
            Self::PluginDirectory => "(plugin directory)",
            Self::HealthGate => "(automatic rollback)",
            Self::Rebuild => "(rebuild)",
        }
    }
}

/// The stored form of [`Actor::Anonymous`].
const ANONYMOUS: &str = "(nobody)";

impl Actor {
    /// The holder of a token.
    pub fn holder(token: &TokenName) -> Self {
        match token.as_str() {
            LOCAL_TOKEN => Self::Local,
            _ => Self::Token(token.clone()),
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Self {
        let part = HostPart::ALL.into_iter().find(|part| part.as_str() == text);
        match (part, text) {
            (Some(part), _) => Self::Host(part),
            (None, ANONYMOUS) => Self::Anonymous,
            _ => TokenName::parse(text)
                .map_or_else(|_| Self::Unknown(text.to_owned()), |name| Self::holder(&name)),
        }
    }

    /// Whether a part of the host acts, without a request.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host(_))
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(name) => name.as_str(),
            Self::Local => LOCAL_TOKEN,
            Self::Host(part) => part.as_str(),
            Self::Anonymous => ANONYMOUS,
            Self::Unknown(text) => text,
        })
    }
}

/// Role of a token. A later one includes the permissions of the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May read.
    Viewer,
    /// May read and change.
    Operator,
}

impl Role {
    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    /// Parses a role.
    ///
    /// # Errors
    /// A message that lists the valid roles.
    pub fn parse(word: &str) -> Result<Self, String> {
        [Self::Viewer, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| "role is one of viewer, operator".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_read_as_the_same_actor() {
        let ann = Actor::Token(TokenName::parse("ann").unwrap());
        for (actor, stored) in [
            (ann, "ann"),
            (Actor::Local, "local"),
            (Actor::Host(HostPart::Start), "(host)"),
            (Actor::Host(HostPart::PluginDirectory), "(plugin directory)"),
            (Actor::Host(HostPart::HealthGate), "(automatic rollback)"),
            (Actor::Host(HostPart::Rebuild), "(rebuild)"),
            (Actor::Anonymous, "(nobody)"),
            (Actor::Unknown("(clock)".to_owned()), "(clock)"),
        ] {
            assert_eq!(actor.to_string(), stored);
            assert_eq!(Actor::parse(stored), actor);
        }
    }

    #[test]
    fn only_parts_of_the_host_act_without_a_request() {
        for part in HostPart::ALL {
            assert!(Actor::Host(part).is_host());
        }
        for stored in ["local", "ann", "(nobody)", "(clock)", "Host"] {
            assert!(!Actor::parse(stored).is_host(), "{stored}");
        }
    }
}
