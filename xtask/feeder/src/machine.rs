//! The identity of this machine in subjects and rows.

/// This machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The id: one subject token.
    pub pc_id: String,
    /// The host name.
    pub hostname: String,
}

impl Machine {
    /// Reads the host name of the system.
    pub fn current() -> Self {
        Self::named(&sysinfo::System::host_name().unwrap_or_else(|_| "localhost".to_owned()))
    }

    /// A machine with this host name. Its id has `-` in place of characters that are special in subjects.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_subject_token() {
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
