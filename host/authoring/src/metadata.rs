//! Reads metadata for a component from the project file: licence, source, authors. A plugin runs without it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Tree;

use super::project::Project;
use lantern_plugin::Metadata;

/// Reads the metadata of a project. Leaves out invalid values.
pub fn project_metadata(project: &Project) -> Metadata {
    let dir = project.dir();
    let mut metadata = match project {
        Project::Cargo(_) => cargo_metadata(&read_toml(&dir.join("Cargo.toml"))["package"]),
        Project::Command { npm: true, .. } => npm_metadata(&read_json(&dir.join("package.json"))),
        Project::Command { .. } => python_metadata(&read_toml(&dir.join("pyproject.toml"))["project"]),
        Project::Component(_) => Metadata::default(),
    };
    if !matches!(project, Project::Component(_)) {
        metadata.revision = revision(dir);
    }
    metadata
}

fn cargo_metadata(package: &Tree) -> Metadata {
    Metadata {
        authors: list(&package["authors"], text),
        licenses: text(&package["license"]),
        source: text(&package["repository"]),
        homepage: text(&package["homepage"]),
        ..Metadata::default()
    }
}

fn npm_metadata(package: &Tree) -> Metadata {
    let repository = &package["repository"];
    let source = text(repository).or_else(|| text(&repository["url"]));
    Metadata {
        authors: text(&package["author"]).or_else(|| text(&package["author"]["name"])),
        licenses: text(&package["license"]),
        source: source.map(|source| source.trim_start_matches("git+").to_owned()),
        homepage: text(&package["homepage"]),
        ..Metadata::default()
    }
}

fn python_metadata(project: &Tree) -> Metadata {
    let urls = &project["urls"];
    let url = |names: [&str; 4]| names.iter().find_map(|name| text(&urls[name]));
    Metadata {
        authors: list(&project["authors"], |author| text(&author["name"])),
        licenses: text(&project["license"]).or_else(|| text(&project["license"]["text"])),
        source: url(["Source", "source", "Repository", "repository"]),
        homepage: url(["Homepage", "homepage", "Home", "home"]),
        ..Metadata::default()
    }
}

fn text(value: &Tree) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn list(value: &Tree, each: impl Fn(&Tree) -> Option<String>) -> Option<String> {
    let all: Vec<String> = value.as_array()?.iter().filter_map(each).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn read_toml(file: &Path) -> Tree {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table: Option<toml::Table> = text.parse().ok();
    table
        .and_then(|table| serde_json::to_value(table).ok())
        .unwrap_or_default()
}

fn read_json(file: &Path) -> Tree {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The checked-out commit, with a `+` if the working tree has changes.
fn revision(dir: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "."]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}+") } else { commit })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_read_from_each_kind_of_project_file() {
        let cargo =
            cargo_metadata(&json!({"license": "MIT", "authors": ["Ann", "Bo"], "repository": "https://x"}));
        assert_eq!(cargo.authors.as_deref(), Some("Ann, Bo"));
        let node = npm_metadata(
            &json!({"license": "MIT", "author": {"name": "Ann"}, "repository": {"url": "git+https://x"}}),
        );
        assert_eq!(
            (node.authors.as_deref(), node.source.as_deref()),
            (Some("Ann"), Some("https://x"))
        );
        let python = python_metadata(
            &json!({"license": {"text": "MIT"}, "authors": [{"name": "Ann"}], "urls": {"Source": "https://x"}}),
        );
        assert_eq!(
            (python.licenses.as_deref(), python.source.as_deref()),
            (Some("MIT"), Some("https://x"))
        );
    }
}
