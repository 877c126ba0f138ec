//! Rejections of messages, and conversions from other errors.

use std::fmt::{self, Display};

pub use crate::bindings::exports::lantern::projection::projector::{Rejection, RejectionClass};

/// The result of a handler. On an error, the message becomes a dead letter with that reason.
pub type Result<T = ()> = std::result::Result<T, Rejection>;

impl Rejection {
    /// The payload violates its format.
    pub fn malformed(reason: impl Display) -> Self {
        Self {
            class: RejectionClass::Malformed,
            reason: reason.to_string(),
        }
    }

    /// Well formed, but of a version or kind that this plugin does not support.
    pub fn unsupported(reason: impl Display) -> Self {
        Self {
            class: RejectionClass::Unsupported,
            reason: reason.to_string(),
        }
    }

    /// Well formed and supported, but violates a rule.
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
    /// The name that the host uses.
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

/// Converts any parse error with its causes to a malformed rejection, so that `?` works with errors of `serde_json`, `prost`,
/// `ciborium` and the standard library.
///
/// ```
/// use lantern_sdk::{RejectionClass, Result};
///
/// fn port(text: &str) -> Result<u16> {
///     Ok(text.parse::<u16>()?)
/// }
/// assert_eq!(port("http").unwrap_err().class, RejectionClass::Malformed);
/// ```
impl<E: std::error::Error> From<E> for Rejection {
    #[cold]
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors include the cause in their message.
            if !reason.contains(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            cause = error.source();
        }
        Self::malformed(reason)
    }
}

/// Converts a missing or invalid value into a rejection that names it, for parsers that do not report field names.
///
/// ```
/// use lantern_sdk::prelude::*;
///
/// fn line(text: &str) -> Result<(&str, u16)> {
///     let (host, port) = text.split_once(':').or_malformed("no colon between host and port")?;
///     Ok((host, port.parse().or_malformed("port")?))
/// }
/// assert_eq!(line("a").unwrap_err().reason, "no colon between host and port");
/// assert_eq!(line("a:b").unwrap_err().reason, "port: invalid digit found in string");
/// # assert_eq!(line("a:80"), Ok(("a", 80)));
/// ```
pub trait OrReject<T>: Sized {
    /// The value, or a rejection of this class. `what` is the reason for an `Option`, and the prefix of the error of a `Result`.
    ///
    /// # Errors
    /// If there is no value.
    fn or_reject(self, class: RejectionClass, what: impl Display) -> Result<T>;

    /// The value, or a malformed rejection: the payload violates its format.
    ///
    /// # Errors
    /// If there is no value.
    fn or_malformed(self, what: impl Display) -> Result<T> {
        self.or_reject(RejectionClass::Malformed, what)
    }

    /// The value, or an unsupported rejection: of a version or kind that this plugin does not support.
    ///
    /// # Errors
    /// If there is no value.
    fn or_unsupported(self, what: impl Display) -> Result<T> {
        self.or_reject(RejectionClass::Unsupported, what)
    }

    /// The value, or an invalid rejection: the payload violates a rule.
    ///
    /// # Errors
    /// If there is no value.
    fn or_invalid(self, what: impl Display) -> Result<T> {
        self.or_reject(RejectionClass::Invalid, what)
    }
}

impl<T> OrReject<T> for Option<T> {
    fn or_reject(self, class: RejectionClass, what: impl Display) -> Result<T> {
        self.ok_or_else(|| Rejection {
            class,
            reason: what.to_string(),
        })
    }
}

impl<T, E: Display> OrReject<T> for std::result::Result<T, E> {
    fn or_reject(self, class: RejectionClass, what: impl Display) -> Result<T> {
        self.map_err(|error| Rejection {
            class,
            reason: format!("{what}: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    struct Outer(&'static str);

    impl Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&fmt::Error)
        }
    }

    #[test]
    fn causes_are_not_repeated() {
        let cause = fmt::Error.to_string();
        assert_eq!(
            Rejection::from(Outer("no date")).reason,
            format!("no date: {cause}")
        );
        let rejection = Rejection::from("x".parse::<i64>().unwrap_err());
        assert_eq!(rejection.reason, "invalid digit found in string");
    }

    #[test]
    fn missing_and_invalid_values_are_named() {
        assert_eq!(
            None::<u8>.or_unsupported("version 3"),
            Err(Rejection::unsupported("version 3"))
        );
        let wrong = "x".parse::<i64>().or_invalid("count");
        assert_eq!(
            wrong,
            Err(Rejection::invalid("count: invalid digit found in string"))
        );
    }
}
