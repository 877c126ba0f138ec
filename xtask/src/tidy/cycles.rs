//! Rejects import cycles between the files of a crate, which neither rustc nor cargo-deny reports.
//!
//! Only `use` declarations with the paths `crate::`, `super::` and `self::` count. A module and its submodules may import
//! each other: one is part of the other. Unit tests do not count.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Tree};

/// The names of nested modules, from the root of the crate.
type Module = Vec<String>;

/// The imported modules of each module.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Finds the files that import each other, directly or through others.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let roots = tree.rust().filter_map(|(path, _)| {
        path.strip_suffix("src/lib.rs")
            .or(path.strip_suffix("src/main.rs"))
    });
    let roots: BTreeSet<&str> = roots.collect();
    roots
        .into_iter()
        .flat_map(|root| check_crate(tree, root))
        .collect()
}

fn check_crate(tree: &Tree, root: &str) -> Vec<Finding> {
    let folder = format!("{root}src/");
    let files: BTreeMap<Module, (&str, &str)> = tree
        .rust()
        .filter_map(|(path, text)| Some((module_of(path.strip_prefix(&folder)?), (path, text))))
        .collect();
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let imports: Imports = files
        .iter()
        .map(|(module, (_, text))| (module.clone(), imports_of(module, text, &modules)))
        .collect();
    let in_cycles = imports.keys().filter(|module| is_in_cycle(module, &imports));
    in_cycles
        .map(|module| {
            let reached = imports[module].iter().filter(|to| reaches(to, module, &imports));
            let names: Vec<String> = reached.map(|to| to.join("::")).collect();
            let text = format!(
                "imports in a circle through {}: move what the files share into a third one",
                names.join(", ")
            );
            Finding::new(files[module].0, None, text)
        })
        .collect()
}

/// The module of a file, named relative to the folder `src`.
fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let names = path.split('/').map(str::to_owned);
    names.filter(|name| name != "lib" && name != "main").collect()
}

fn imports_of(module: &Module, text: &str, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let paths = declarations(code).flat_map(|tree| expand(&[], &tree));
    paths
        .filter_map(|path| resolve(module, &path, modules))
        .filter(|to| !to.starts_with(module) && !module.starts_with(to))
        .collect()
}

/// The trees of the `use` declarations, without comments and white space.
fn declarations(code: &str) -> impl Iterator<Item = String> {
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join(" ");
    let starts: Vec<usize> = code.match_indices("use ").map(|(at, _)| at).collect();
    starts.into_iter().filter_map(move |at| {
        let is_word = code[..at]
            .chars()
            .next_back()
            .is_some_and(|before| !before.is_whitespace());
        let tree = code[at + "use ".len()..].split(';').next()?;
        (!is_word).then(|| tree.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

/// The paths of a tree such as `a::{b, c::{d as e, f}}`.
fn expand(prefix: &[String], tree: &str) -> Vec<Module> {
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, group.trim_end().strip_suffix('}')),
        None => (tree, None),
    };
    let names = path
        .split("::")
        .map(|name| name.split(" as ").next().unwrap_or(name).trim());
    let mut full = prefix.to_vec();
    full.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
    match group {
        Some(group) => split_group(group).flat_map(|part| expand(&full, part)).collect(),
        None => vec![full],
    }
}

/// The parts of a group at its commas, except those in inner groups.
fn split_group(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    group.split(move |character| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        character == ',' && depth == 0
    })
}

/// The module that a path names or whose item it names; none for another crate.
fn resolve(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let (mut full, mut rest) = (module.clone(), path);
    match rest.first()?.as_str() {
        "crate" => {
            full.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {}
        _ => return None,
    }
    while rest.first().is_some_and(|name| name == "super") {
        full.pop();
        rest = &rest[1..];
    }
    for name in rest {
        full.push(name.clone());
        if !modules.contains(&full) {
            full.pop();
            break;
        }
    }
    Some(full)
}

fn is_in_cycle(module: &Module, imports: &Imports) -> bool {
    imports[module].iter().any(|to| reaches(to, module, imports))
}

/// Whether `from` is `to`, or imports it through any number of files.
fn reaches(from: &Module, to: &Module, imports: &Imports) -> bool {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![from]);
    while let Some(module) = waiting.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            waiting.extend(imports.get(module).into_iter().flatten());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(files: &[(&str, &str)]) -> Vec<String> {
        let findings = check(&Tree::of(files));
        findings.into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn files_that_import_each_other_are_found() {
        let root = ("host/x/src/lib.rs", "mod a;\nmod b;\nmod c;\npub use a::A;\n");
        let a = (
            "host/x/src/a.rs",
            "use crate::{\n    b::{B, Other as O},\n    std,\n};\n",
        );
        let b = ("host/x/src/b.rs", "pub(crate) use super::c::C; // c\n");
        let c = ("host/x/src/c.rs", "//! use crate::b::B;\nuse super::a;\n");
        assert_eq!(paths(&[root, a, b, c]), [a.0, b.0, c.0]);
        let c = (
            "host/x/src/c.rs",
            "//! use super::a;\n#[cfg(test)]\nmod tests {\n    use super::a;\n}\n",
        );
        assert_eq!(paths(&[root, a, b, c]), Vec::<String>::new());
    }

    #[test]
    fn a_module_and_its_submodules_may_import_each_other_but_two_submodules_may_not() {
        let root = ("x/src/main.rs", "mod a;\nuse crate::a::A;\n");
        let a = ("x/src/a.rs", "mod one;\nmod two;\nuse self::one::One;\n");
        let one = ("x/src/a/one.rs", "use super::A;\nuse super::two::Two;\n");
        let two = ("x/src/a/two.rs", "use super::super::Root;\n");
        assert_eq!(paths(&[root, a, one, two]), Vec::<String>::new());
        let two = ("x/src/a/two.rs", "use crate::a::one;\n");
        assert_eq!(paths(&[root, a, one, two]), [one.0, two.0]);
    }
}
