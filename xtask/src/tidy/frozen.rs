//! A released WIT folder never changes, because published plugins were built against it.
//!
//! `wit/frozen.txt` has the SHA-256 of each file of each frozen folder, in the format of `sha256sum`. A folder that is not
//! listed is not released and may change.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{Finding, Tree, folder_of};
use crate::digest::hex;

const LIST: &str = "wit/frozen.txt";
const HEADING: &str = "\
# Released versions of the contract. Files listed here are never edited, and their folders get no new files.
# Written by `cargo xtask tidy --freeze FOLDER` in the format of sha256sum.
";

/// Finds changed, removed and added files of frozen folders.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some((_, list)) = tree.texts().find(|(path, _)| *path == LIST) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut frozen = BTreeMap::new();
    for (number, line) in (1..).zip(list.lines()) {
        match parse_line(line) {
            Entry::Comment => {}
            Entry::File(digest, path) => drop(frozen.insert(path, digest)),
            Entry::Invalid => findings.push(Finding::new(LIST, number, "is not `DIGEST  PATH`")),
        }
    }
    let folders: Vec<_> = frozen.keys().map(|path| folder_of(path)).collect();
    for (path, bytes) in tree.files() {
        match frozen.remove(path) {
            Some(digest) if digest == hex(Sha256::digest(bytes)) => {}
            Some(_) => findings.push(Finding::new(
                path,
                None,
                "is frozen and was changed; create a new version instead",
            )),
            None if folders.contains(&folder_of(path)) => {
                findings.push(Finding::new(
                    path,
                    None,
                    "was added to a frozen folder; create a new version instead",
                ));
            }
            None => {}
        }
    }
    findings.extend(
        frozen
            .keys()
            .map(|path| Finding::new(path, None, "is frozen and was removed")),
    );
    findings
}

/// Adds a folder to the list of frozen folders.
pub fn freeze(root: &Path, folder: &str) -> Result<()> {
    let folder = folder.trim_end_matches('/');
    let list = root.join(LIST);
    let mut text = fs::read_to_string(&list).unwrap_or_else(|_| HEADING.to_owned());
    let listed =
        |line: &str| matches!(parse_line(line), Entry::File(_, path) if folder_of(path) == Path::new(folder));
    if text.lines().any(listed) {
        bail!("{folder} is already frozen");
    }
    let tree = Tree::read(root)?;
    let mut count = 0;
    for (path, bytes) in tree
        .files()
        .filter(|(path, _)| folder_of(path) == Path::new(folder))
    {
        text.push_str(&format!("{}  {path}\n", hex(Sha256::digest(bytes))));
        count += 1;
    }
    if count == 0 {
        bail!("no files in {folder}; give the path relative to the root, such as wit/projection@0.1.0");
    }
    fs::write(&list, text).with_context(|| format!("cannot write {}", list.display()))?;
    println!("    {folder} is frozen: {count} files in {LIST}");
    Ok(())
}

enum Entry<'a> {
    Comment,
    File(&'a str, &'a str),
    Invalid,
}

fn parse_line(line: &str) -> Entry<'_> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Entry::Comment;
    }
    match line.split_once("  ") {
        Some((digest, path)) if digest.len() == 64 && path.starts_with("wit/") => Entry::File(digest, path),
        _ => Entry::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "wit/projection@1.0.0/a.wit";

    fn list() -> String {
        format!("{HEADING}{}  {A}\n", hex(Sha256::digest("package a;")))
    }

    #[track_caller]
    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let list = list();
        let mut all = vec![(LIST, list.as_str())];
        all.extend_from_slice(files);
        let paths: Vec<_> = check(&Tree::of(&all))
            .into_iter()
            .map(|finding| finding.path)
            .collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn changes_to_a_frozen_folder_are_found() {
        check_files(&[(A, "package a;")], &[]);
        check_files(&[(A, "package b;")], &[A]);
        check_files(&[], &[A]);
        let added = "wit/projection@1.0.0/b.wit";
        check_files(&[(A, "package a;"), (added, "")], &[added]);
        check_files(
            &[(A, "package a;"), ("wit/projection@1.1.0/a.wit", "package b;")],
            &[],
        );
    }

    #[test]
    fn without_a_list_nothing_is_frozen_and_an_invalid_line_is_found() {
        assert_eq!(check(&Tree::of(&[(A, "any")])), []);
        assert_eq!(check(&Tree::of(&[(LIST, "nonsense")])).len(), 1);
    }

    #[test]
    fn a_frozen_folder_passes_the_check_until_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(A);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "package a;").unwrap();
        freeze(root.path(), "wit/projection@1.0.0/").unwrap();
        assert_eq!(check(&Tree::read(root.path()).unwrap()), []);
        fs::write(&file, "package b;").unwrap();
        assert_eq!(check(&Tree::read(root.path()).unwrap()).len(), 1);
        assert!(
            freeze(root.path(), "wit/projection@1.0.0")
                .unwrap_err()
                .to_string()
                .contains("already")
        );
        assert!(
            freeze(root.path(), "wit/absent")
                .unwrap_err()
                .to_string()
                .contains("no files")
        );
    }
}
