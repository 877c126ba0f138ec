//! The embedded SDK, and its copy in a project. The copy builds without the workspace of Lantern: inherited settings are
//! filled in, and it contains the contract.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Folder of the SDK in a project.
pub const FOLDER: &str = "vendor/lantern-sdk";
/// File in that folder with the version that wrote it, and the digest of its files.
const STAMP: &str = "written-by-lantern.txt";

/// Path and text of each file, as in the workspace; `workspace.toml` is the manifest of the workspace.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));

/// State of the SDK in a project, compared with the embedded SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdkState {
    /// The project does not contain the SDK.
    Absent,
    /// It is identical.
    Same,
    /// Another version of Lantern wrote it, and it is unmodified.
    OtherVersion,
    /// It was modified.
    Modified,
}

/// Writes the SDK into `project`, replacing an existing one.
///
/// # Errors
/// If a file cannot be written.
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
        "lantern {}\n{}\n\nThis folder contains the SDK of this version of lantern.\n\
         `lantern doctor --fix` of a newer version replaces it.\n",
        env!("CARGO_PKG_VERSION"),
        digest_of(&folder)?
    );
    std::fs::write(folder.join(STAMP), stamp)
}

/// Compares the SDK in `project` with the embedded SDK.
///
/// # Errors
/// If it cannot be read.
pub fn state(project: &Path) -> io::Result<SdkState> {
    let folder = project.join(FOLDER);
    if !folder.is_dir() {
        return Ok(SdkState::Absent);
    }
    let found = digest_of(&folder)?;
    if found
        == digest(
            files()?
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_bytes())),
        )
    {
        return Ok(SdkState::Same);
    }
    let stamp = std::fs::read_to_string(folder.join(STAMP)).unwrap_or_default();
    Ok(match stamp.lines().nth(1) == Some(found.as_str()) {
        true => SdkState::OtherVersion,
        false => SdkState::Modified,
    })
}

/// The version that wrote the SDK in `project`, if it is known.
pub fn written_by(project: &Path) -> Option<String> {
    let stamp = std::fs::read_to_string(project.join(FOLDER).join(STAMP)).ok()?;
    Some(stamp.lines().next()?.trim_start_matches("lantern ").to_owned())
}

/// Version of the embedded SDK.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Names and texts of the files of the contract.
pub fn contract() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES
        .iter()
        .filter(|(name, _)| name.starts_with("wit/"))
        .filter_map(|(name, text)| Some((name.rsplit('/').next()?, *text)))
}

/// Minimum Rust version of the SDK.
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

/// The files of the copy, in the order of their names.
fn files() -> io::Result<Vec<(String, String)>> {
    let text_of = |name: &str| FILES.iter().find(|(candidate, _)| *candidate == name);
    let workspace = text_of("workspace.toml").map_or("", |(_, text)| text);
    let workspace: toml::Table = workspace.parse().map_err(io::Error::other)?;
    let mut files: Vec<(String, String)> = FILES
        .iter()
        .filter(|(name, _)| *name != "workspace.toml")
        .map(|(name, text)| {
            let text = match name.rsplit('/').next() {
                Some("Cargo.toml") => standalone_manifest(text, &workspace),
                // In the copy, the contract is next to the sources, not two folders above.
                Some("bindings.rs") => text.replace("../../wit/", "wit/"),
                _ => (*text).to_owned(),
            };
            ((*name).to_owned(), text)
        })
        .collect();
    files.sort();
    Ok(files)
}

/// Converts a manifest for use without the workspace: fills in inherited values, removes lints and examples.
fn standalone_manifest(manifest: &str, workspace: &toml::Table) -> String {
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
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", filled.as_deref().unwrap_or(line));
    }
    text
}

/// Renders a value in inline TOML.
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
        // A JSON string is also a TOML string.
        toml::Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Datetime(time) => time.to_string(),
    }
}

/// Digest of all files in `folder`, except the stamp and build output.
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
    fn manifests_do_not_depend_on_the_workspace() {
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
    fn a_written_sdk_is_recognised_and_a_modification_is_detected() {
        let project = tempfile::tempdir().unwrap();
        assert_eq!(state(project.path()).unwrap(), SdkState::Absent);
        write(project.path()).unwrap();
        assert_eq!(state(project.path()).unwrap(), SdkState::Same);
        let folder = project.path().join(FOLDER);
        std::fs::write(folder.join("src/lib.rs"), "//! Mine.").unwrap();
        assert_eq!(state(project.path()).unwrap(), SdkState::Modified);
        let stamp = format!("lantern 0.0.9\n{}\n", digest_of(&folder).unwrap());
        std::fs::write(folder.join(STAMP), stamp).unwrap();
        assert_eq!(state(project.path()).unwrap(), SdkState::OtherVersion);
        assert_eq!(written_by(project.path()).as_deref(), Some("0.0.9"));
        write(project.path()).unwrap();
        assert_eq!(state(project.path()).unwrap(), SdkState::Same);
    }
}
