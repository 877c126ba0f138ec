//! `cargo xtask tidy`: repository rules that no compiler checks.
//!
//! Each check converts a [`Tree`] (paths and contents) into [`Finding`]s, so that its tests need no repository. Only this
//! file reads the repository.

mod cycles;
mod files;
mod frozen;
mod sizes;
mod wording;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// One violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the root.
    pub path: String,
    /// The line, counted from 1; none for the whole file.
    pub line: Option<usize>,
    /// The violation and its solution.
    pub text: String,
}

impl Finding {
    fn new(path: &str, line: impl Into<Option<usize>>, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: line.into(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}: {}", self.path, self.text),
            None => write!(out, "{}: {}", self.path, self.text),
        }
    }
}

/// The files of the repository that git tracks or would add.
#[derive(Debug, Default)]
pub struct Tree {
    files: Vec<(String, Vec<u8>)>,
}

impl Tree {
    /// Reads the tree under `root`.
    fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for path in list_files(root)? {
            let full = root.join(&path);
            // Skips links, and files whose removal is not yet committed.
            if !full.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                continue;
            }
            let bytes = fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
            files.push((path, bytes));
        }
        Ok(Self { files })
    }

    /// All files, sorted by path.
    fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// The text files.
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files()
            .filter_map(|(path, bytes)| Some((path, std::str::from_utf8(bytes).ok()?)))
    }

    /// The Rust files.
    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
                .collect(),
        }
    }
}

/// Runs all checks on the repository at `root` and prints the findings. Fails if there are findings.
pub fn check(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let findings = sorted(
        [
            cycles::check,
            files::check,
            frozen::check,
            sizes::check,
            wording::check,
        ]
        .iter()
        .flat_map(|check| check(&tree)),
    );
    for finding in &findings {
        println!("    {finding}");
    }
    if !findings.is_empty() {
        bail!("{} violations", findings.len());
    }
    println!("    {} files are tidy", tree.files.len());
    Ok(())
}

/// Records the digests of a released WIT folder. From then on, `check` rejects changes to it. Fails if the folder is already
/// frozen, or empty.
pub fn freeze(root: &Path, folder: &str) -> Result<()> {
    frozen::freeze(root, folder)
}

fn sorted(findings: impl IntoIterator<Item = Finding>) -> Vec<Finding> {
    let mut findings: Vec<_> = findings.into_iter().collect();
    findings.sort();
    findings
}

/// The paths relative to `root`, separated by `/`: those that git lists, or all files of an unpacked archive.
fn list_files(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut paths: Vec<String> = match git.output() {
        Ok(output) if output.status.success() => output
            .stdout
            .split(|&byte| byte == 0)
            .filter(|path| !path.is_empty())
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect(),
        _ => {
            println!("    git cannot list the files; checking all except target, node_modules and dist");
            let mut found = Vec::new();
            walk(root, root, &mut found)?;
            found
        }
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry
            .file_type()
            .with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_file() {
            found.extend(relative(root, &path));
        } else if kind.is_dir() {
            let name = name.to_string_lossy();
            let included = !matches!(&*name, "target" | "node_modules" | ".git" | "dist");
            if included {
                walk(root, &path, found)?;
            }
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    let parts: Option<Vec<_>> = path
        .strip_prefix(root)
        .ok()?
        .components()
        .map(|part| part.as_os_str().to_str())
        .collect();
    Some(parts?.join("/"))
}

/// The parent folder of a path.
fn folder_of(path: &str) -> PathBuf {
    Path::new(path)
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_archive_is_listed() {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "host/store/src/lib.rs",
            "target/debug/x.rs",
            "web/node_modules/y.js",
            "README.md",
            ".ci/run",
        ] {
            let full = root.path().join(path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, "").unwrap();
        }
        let mut found = Vec::new();
        walk(root.path(), root.path(), &mut found).unwrap();
        found.sort();
        assert_eq!(found, [".ci/run", "README.md", "host/store/src/lib.rs"]);
    }
}
