//! The SDK that this program brings along, and how it is written beside a plugin so that it builds alone: what it
//! takes from the workspace here is filled in, and the contract lies within it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// The folder in a project.
pub const FOLDER: &str = "vendor/lantern-sdk";
/// In that folder: which program wrote it, and the digest of what it wrote.
const STAMP: &str = "written-by-lantern.txt";

/// Path and text of each file, as in the workspace; `workspace.toml` is the workspace's own.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));

/// How the SDK beside a project compares with this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none: the project has it from elsewhere.
    Absent,
    /// It is the same.
    Same,
    /// It was written by another version of this program and nobody has changed it since.
    Other,
    /// Somebody has changed it.
    Changed,
}

/// Writes the SDK into `project`, over what may be there.
///
/// # Errors
/// When a file cannot be written.
pub fn write(project: &Path) -> io::Result<()> {
    let folder = project.join(FOLDER);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for (name, text) in files()? {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        std::fs::write(path, text)?;
    }
    let stamp = format!(
        "lantern {}\n{}\n\nThis folder is the SDK that this version of lantern brings along.\n\
         `lantern doctor --fix` puts that of a newer one in its place.\n",
        env!("CARGO_PKG_VERSION"),
        digest_of(&folder)?
    );
    std::fs::write(folder.join(STAMP), stamp)
}

/// Looks at the SDK in `project`.
///
/// # Errors
/// When it cannot be read.
pub fn state(project: &Path) -> io::Result<State> {
    let folder = project.join(FOLDER);
    if !folder.is_dir() {
        return Ok(State::Absent);
    }
    let there = digest_of(&folder)?;
    if there
        == digest(
            files()?
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_bytes())),
        )
    {
        return Ok(State::Same);
    }
    let stamp = std::fs::read_to_string(folder.join(STAMP)).unwrap_or_default();
    Ok(match stamp.lines().nth(1) == Some(there.as_str()) {
        true => State::Other,
        false => State::Changed,
    })
}

/// The version that wrote the SDK in `project`, where that is known.
pub fn written_by(project: &Path) -> Option<String> {
    let stamp = std::fs::read_to_string(project.join(FOLDER).join(STAMP)).ok()?;
    Some(stamp.lines().next()?.trim_start_matches("lantern ").to_owned())
}

/// The version of the SDK in this program.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The contract's own files, by their names.
pub fn contract() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES
        .iter()
        .filter(|(name, _)| name.starts_with("wit/"))
        .filter_map(|(name, text)| Some((name.rsplit('/').next()?, *text)))
}

/// The oldest Rust that builds the SDK.
pub fn rust_version() -> Option<semver::Version> {
    let (_, text) = FILES.iter().find(|(name, _)| *name == "workspace.toml")?;
    let table: toml::Table = text.parse().ok()?;
    let version = table
        .get("workspace")?
        .get("package")?
        .get("rust-version")?
        .as_str()?;
    semver::Version::parse(&format!("{version}.0")).ok()
}

/// The files as they are written, in the order of their names.
fn files() -> io::Result<Vec<(String, String)>> {
    let text_of = |name: &str| FILES.iter().find(|(candidate, _)| *candidate == name);
    let workspace = text_of("workspace.toml").map_or("", |(_, text)| text);
    let workspace: toml::Table = workspace.parse().map_err(io::Error::other)?;
    let mut files: Vec<(String, String)> = FILES
        .iter()
        .filter(|(name, _)| *name != "workspace.toml")
        .map(|(name, text)| {
            let text = match name.rsplit('/').next() {
                Some("Cargo.toml") => alone(text, &workspace),
                // The contract lies beside the SDK's own sources, not two folders above.
                Some("bindings.rs") => text.replace("../../wit/", "wit/"),
                _ => (*text).to_owned(),
            };
            ((*name).to_owned(), text)
        })
        .collect();
    files.sort();
    Ok(files)
}

/// A manifest that stands without its workspace: what it inherits is filled in, its lints and examples stay behind.
fn alone(manifest: &str, workspace: &toml::Table) -> String {
    let inherited = |section: &str, key: &str, more: &str| {
        let tables = workspace.get("workspace")?.as_table()?;
        let inline = match (key, section) {
            ("lantern-sdk-macros", "dependencies") => r#"{ path = "macros" }"#.to_owned(),
            _ => inline_toml(tables.get(section)?.get(key)?),
        };
        Some(match (more.is_empty(), inline.strip_suffix(" }")) {
            (true, _) => inline,
            (false, Some(table)) => format!("{table}, {more} }}"),
            (false, None) => format!("{{ version = {inline}, {more} }}"),
        })
    };
    let mut text = String::new();
    let mut section = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']', ' ']).to_owned();
        }
        if matches!(section.as_str(), "lints" | "example" | "dev-dependencies") {
            continue;
        }
        let from = if section == "package" {
            "package"
        } else {
            "dependencies"
        };
        // `key.workspace = true`, or `key = { workspace = true, more }`.
        let inherits = line
            .split_once(".workspace = true")
            .map(|(key, _)| (key, ""))
            .or_else(|| {
                let (key, more) = line.split_once(" = { workspace = true, ")?;
                Some((key, more.trim_end().strip_suffix(" }")?))
            });
        let filled =
            inherits.and_then(|(key, more)| Some(format!("{key} = {}", inherited(from, key, more)?)));
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", filled.as_deref().unwrap_or(line));
    }
    text
}

/// A value as it stands behind `=`.
fn inline_toml(value: &toml::Value) -> String {
    match value {
        toml::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline_toml).collect();
            format!("[{}]", items.join(", "))
        }
        toml::Value::Table(table) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{key} = {}", inline_toml(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        // JSON's strings are TOML's as well.
        toml::Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Datetime(time) => time.to_string(),
    }
}

/// The digest of all files in `folder` but the stamp and what a build leaves there.
fn digest_of(folder: &Path) -> io::Result<String> {
    let mut found = Vec::new();
    collect(folder, String::new(), &mut found)?;
    found.sort();
    Ok(digest(
        found
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
    ))
}

fn collect(folder: &Path, prefix: String, found: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            if name != "target" {
                collect(&entry.path(), format!("{name}/"), found)?;
            }
        } else if name != STAMP && !name.ends_with("Cargo.lock") {
            found.push((name, std::fs::read(entry.path())?));
        }
    }
    Ok(())
}

fn digest<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in files {
        for part in [name.as_bytes(), bytes] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_stand_alone() {
        let files = files().unwrap();
        let manifests: Vec<_> = files
            .iter()
            .filter(|(name, _)| name.ends_with("Cargo.toml"))
            .collect();
        assert_eq!(manifests.len(), 2, "{manifests:?}");
        for (name, text) in manifests {
            assert!(!text.contains("workspace"), "{name}:\n{text}");
            let table: toml::Table = text.parse().unwrap();
            assert!(table["package"]["version"].as_str().is_some(), "{name}:\n{text}");
        }
        let bindings = files.iter().find(|(name, _)| name == "src/bindings.rs").unwrap();
        assert!(bindings.1.contains("\"wit/projection@"), "{}", bindings.1);
    }

    #[test]
    fn what_was_written_is_known_again_and_a_change_is_seen() {
        let project = tempfile::tempdir().unwrap();
        assert_eq!(state(project.path()).unwrap(), State::Absent);
        write(project.path()).unwrap();
        assert_eq!(state(project.path()).unwrap(), State::Same);
        let folder = project.path().join(FOLDER);
        std::fs::write(folder.join("src/lib.rs"), "//! Mine.").unwrap();
        assert_eq!(state(project.path()).unwrap(), State::Changed);
        let stamp = format!("lantern 0.0.9\n{}\n", digest_of(&folder).unwrap());
        std::fs::write(folder.join(STAMP), stamp).unwrap();
        assert_eq!(state(project.path()).unwrap(), State::Other);
        assert_eq!(written_by(project.path()).as_deref(), Some("0.0.9"));
        write(project.path()).unwrap();
        assert_eq!(state(project.path()).unwrap(), State::Same);
    }
}
