//! Names that plugins and operators choose, as types: parsed once, and then safe for use in SQL, paths, consumer names
//! and metric labels.

use std::fmt;

use crate::limits::{COLUMN_NAME_BYTES_MAX, INSTALLED_TABLE_NAME_BYTES_MAX};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $separators:literal, $length_max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Parses a name; the error describes the problem.
            pub fn parse(name: &str) -> Result<Self, String> {
                check($what, name, $separators, $length_max).map(|()| Self(name.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// `[a-z][a-z0-9-]{0,62}`.
    PluginName, "plugin name", "-", 63
);
name!(
    /// `[a-z][a-z0-9_-]{0,63}`.
    SourceName, "source name", "_-", 64
);
name!(
    /// `[a-z][a-z0-9_]{0,62}`.
    ColumnName, "column name", "_", COLUMN_NAME_BYTES_MAX
);
name!(
    /// `[a-z][a-z0-9_-]{0,62}`: the name of a token.
    TokenName, "token name", "_-", 63
);

/// `[a-z][a-z0-9_]{0,62}`, without the prefixes that SQLite and the host reserve. The name of a table in a new version has at
/// most [`TABLE_NAME_BYTES_MAX`](crate::limits::TABLE_NAME_BYTES_MAX) bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(String);

impl TableName {
    /// Parses a name; the error describes the problem.
    pub fn parse(name: &str) -> Result<Self, String> {
        check("table name", name, "_", INSTALLED_TABLE_NAME_BYTES_MAX)?;
        match ["sqlite_", "lantern_"]
            .iter()
            .find(|prefix| name.starts_with(**prefix))
        {
            Some(prefix) => Err(format!(
                "table name {name:?} begins with {prefix:?}, which is reserved"
            )),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name of the table that rebuild number `rebuild` fills. No declarable name contains `#`.
    pub fn of_rebuild(&self, rebuild: i64) -> Self {
        Self(format!("{}#{rebuild}", self.0))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(what: &str, name: &str, separators: &str, length_max: usize) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || separators.contains(c);
    let clean = crate::batch::clean_text(name, 80);
    if name.is_empty() {
        Err(format!("a {what} is empty"))
    } else if name.len() > length_max {
        Err(format!("{what} {clean:?} is longer than {length_max} characters"))
    } else if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(allowed) {
        let separators: Vec<String> = separators.chars().map(|c| format!("\"{c}\"")).collect();
        Err(format!(
            "{what} {clean:?} may only contain lower-case letters, digits and {}, and must begin with a letter",
            separators.join(" or ")
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_names_are_rejected() {
        for bad in [
            "",
            "../x",
            "A",
            "a b",
            "a\"b",
            "a;drop",
            "_x",
            "1a",
            "ä",
            "a\0",
            "a.b",
            &"a".repeat(64),
        ] {
            assert!(TableName::parse(bad).is_err(), "{bad:?}");
            assert!(ColumnName::parse(bad).is_err(), "{bad:?}");
            assert!(PluginName::parse(bad).is_err(), "{bad:?}");
            assert!(TokenName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(TableName::parse("sqlite_master").is_err());
        assert!(TableName::parse("lantern_x").is_err());
        assert!(TableName::parse("obs_events").is_ok());
        assert!(PluginName::parse("obs-events").is_ok());
    }
}
