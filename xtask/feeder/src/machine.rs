//! Which machine this is, in the words that subjects and rows use.

use chrono::Utc;

use crate::message::{Heartbeat, time};

/// This machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// As one token of a subject.
    pub pc_id: String,
    /// As it calls itself.
    pub hostname: String,
}

impl Machine {
    /// Asks the system for its name.
    pub fn look() -> Self {
        Self::named(&sysinfo::System::host_name().unwrap_or_else(|_| "localhost".to_owned()))
    }

    /// A machine of this name. In its id everything that has a meaning in a subject becomes `-`.
    pub fn named(hostname: &str) -> Self {
        let safe = |letter: char| {
            if letter.is_ascii_alphanumeric() || letter == '_' {
                letter
            } else {
                '-'
            }
        };
        let pc_id: String = hostname.chars().map(safe).collect();
        let pc_id = if pc_id.is_empty() {
            "localhost".to_owned()
        } else {
            pc_id
        };
        Self {
            pc_id,
            hostname: hostname.to_owned(),
        }
    }

    /// That it is there, now.
    pub fn heartbeat(&self) -> Heartbeat<'_> {
        Heartbeat {
            pc_id: &self.pc_id,
            at: time(Utc::now()),
            agent_version: env!("CARGO_PKG_VERSION"),
            hostname: &self.hostname,
            os_family: std::env::consts::OS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_token_of_a_subject() {
        for (hostname, pc_id) in [
            ("pc-1", "pc-1"),
            ("pc.example.org", "pc-example-org"),
            ("a b*>", "a-b--"),
            ("", "localhost"),
        ] {
            assert_eq!(Machine::named(hostname).pc_id, pc_id);
        }
    }
}
