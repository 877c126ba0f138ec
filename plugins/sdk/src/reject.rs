//! Why a message cannot be projected, and how ordinary errors become such a reason.

use std::fmt::{self, Display};

pub use crate::bindings::exports::lantern::projection::projector::{Rejection, RejectionClass};

/// What a handler answers: nothing, or the reason why the message goes to the dead letters.
pub type Result<T = ()> = std::result::Result<T, Rejection>;

impl Rejection {
    /// The bytes are not what the format says.
    pub fn malformed(reason: impl Display) -> Self {
        Self {
            class: RejectionClass::Malformed,
            reason: reason.to_string(),
        }
    }

    /// Well formed, of a version or kind that this plugin does not know.
    pub fn unsupported(reason: impl Display) -> Self {
        Self {
            class: RejectionClass::Unsupported,
            reason: reason.to_string(),
        }
    }

    /// Well formed and known, but against a rule.
    ///
    /// ```
    /// use lantern_sdk::{Rejection, Result};
    ///
    /// fn check(percent: f64) -> Result {
    ///     if (0.0..=100.0).contains(&percent) {
    ///         return Ok(());
    ///     }
    ///     Err(Rejection::invalid(format_args!("cpu_pct: {percent} is not between 0 and 100")))
    /// }
    /// # assert_eq!(check(101.0).unwrap_err().reason, "cpu_pct: 101 is not between 0 and 100");
    /// ```
    pub fn invalid(reason: impl Display) -> Self {
        Self {
            class: RejectionClass::Invalid,
            reason: reason.to_string(),
        }
    }
}

impl RejectionClass {
    /// The word that the host uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
        }
    }
}

impl fmt::Display for RejectionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! malformed {
    ($($error:ty),*) => {$(
        /// The bytes are not what the format says.
        impl From<$error> for Rejection {
            fn from(error: $error) -> Self {
                Self::malformed(error)
            }
        }
    )*};
}

malformed!(
    serde_json::Error,
    std::str::Utf8Error,
    std::num::ParseIntError,
    std::num::ParseFloatError
);
