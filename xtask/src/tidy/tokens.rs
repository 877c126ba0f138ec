//! Rust files as tokens: comments and strings are out of the way, and nothing is missed inside macros.
//!
//! It knows just enough of the language for the checks: names, paths from `crate::` and `super::`, inline modules,
//! functions, and what is only compiled for tests.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What the checks want to know of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every name, with its line.
    pub names: Vec<(String, usize)>,
    /// The top-level modules that it names by `crate::` or `super::`, outside of test code.
    pub modules: Vec<(String, usize)>,
    /// Modules in files of their own that are only compiled for tests.
    pub test_files: Vec<String>,
    /// Functions: name, line, and how many lines they have.
    pub functions: Vec<(String, usize, usize)>,
}

/// Reads a file. `depth` is how many modules below the crate's root it is. The error is a line and a reason.
pub fn read(text: &str, depth: usize) -> Result<Facts, (usize, String)> {
    let stream: TokenStream = text
        .parse()
        .map_err(|error: proc_macro2::LexError| (error.span().start().line, error.to_string()))?;
    let mut facts = Facts::default();
    Reader { facts: &mut facts }.group(stream, depth, false);
    Ok(facts)
}

struct Reader<'a> {
    facts: &'a mut Facts,
}

impl Reader<'_> {
    /// `depth` counts modules from the root, `test` is whether an outer item is only for tests.
    fn group(&mut self, stream: TokenStream, depth: usize, test: bool) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        // An attribute counts for the item after it, which ends with its braces or a semicolon.
        let mut item_is_test = false;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(ident) => {
                    let (name, line) = (ident.to_string(), ident.span().start().line);
                    if (name == "crate" || name == "super") && !(test || item_is_test) {
                        self.path(&tokens, at, depth);
                    }
                    if name == "fn" {
                        self.function(&tokens, at);
                    }
                    if name == "mod" {
                        let body = self.module(&tokens, at, depth, test || item_is_test);
                        item_is_test &= body == at;
                        at = body;
                    }
                    self.facts.names.push((name, line));
                }
                TokenTree::Group(group) => {
                    self.group(group.stream(), depth, test || item_is_test);
                    if group.delimiter() == Delimiter::Brace {
                        item_is_test = false;
                    }
                }
                TokenTree::Punct(punct) => match punct.as_char() {
                    ';' => item_is_test = false,
                    '#' => item_is_test |= tokens.get(at + 1).is_some_and(is_cfg_test),
                    _ => {}
                },
                TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }

    /// `mod name;` or `mod name { … }` at `at`; answers with the last token that was handled: its body's, or `at`.
    fn module(&mut self, tokens: &[TokenTree], at: usize, depth: usize, test: bool) -> usize {
        let (Some(TokenTree::Ident(name)), Some(after)) = (tokens.get(at + 1), tokens.get(at + 2)) else {
            return at;
        };
        match after {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                self.group(group.stream(), depth + 1, test);
                at + 2
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' && test => {
                self.facts.test_files.push(name.to_string());
                at
            }
            _ => at,
        }
    }

    /// A path that begins with `crate` or `super` at `at`, as far as it leads to the crate's root.
    fn path(&mut self, tokens: &[TokenTree], at: usize, depth: usize) {
        let mut up = 0;
        let mut next = at;
        while let Some(TokenTree::Ident(ident)) = tokens.get(next) {
            match ident.to_string().as_str() {
                "super" => up += 1,
                "crate" if next == at => up = depth,
                _ => break,
            }
            if !is_path_separator(tokens, next + 1) {
                return;
            }
            next += 3;
        }
        // The second `super` of a `super::super` comes by here too, and stays below the root.
        if up == depth {
            self.first_names(tokens.get(next));
        }
    }

    /// `a` of `a::b`, or `a` and `b` of `{a::c, b}`.
    fn first_names(&mut self, token: Option<&TokenTree>) {
        match token {
            Some(TokenTree::Ident(ident)) => {
                self.facts
                    .modules
                    .push((ident.to_string(), ident.span().start().line));
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
                for element in inner.split(is_comma) {
                    self.first_names(element.first());
                }
            }
            _ => {}
        }
    }

    /// The function whose `fn` is at `at`: up to its body's closing brace, or nothing when it has no body.
    fn function(&mut self, tokens: &[TokenTree], at: usize) {
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else {
            return;
        };
        let first = tokens[at].span().start().line;
        for token in &tokens[at + 2..] {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ';' => return,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let lines = group.span_close().end().line - first + 1;
                    self.facts.functions.push((name.to_string(), first, lines));
                    return;
                }
                _ => {}
            }
        }
    }
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(tokens.get(at)) && colon(tokens.get(at + 1))
}

/// Whether the brackets after a `#` say `cfg(test)`, also inside `all(…)`; `not(test)` does not count.
fn is_cfg_test(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else {
        return false;
    };
    let text = group.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn modules(text: &str, depth: usize) -> Vec<String> {
        read(text, depth)
            .unwrap()
            .modules
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn paths_to_top_level_modules_are_found() {
        assert_eq!(modules("use crate::store::Reader;", 1), ["store"]);
        assert_eq!(
            modules("use crate::{batch, schema::{Table, row}, store::*};", 2),
            ["batch", "schema", "store"]
        );
        assert_eq!(
            modules(
                "fn f() { let a = crate::batch::Row::new(vec![crate::schema::X]); }",
                1
            ),
            ["batch", "schema"]
        );
        assert_eq!(modules("use super::plugin;", 1), ["plugin"]);
        assert_eq!(modules("use super::plugin;", 2), [] as [&str; 0]);
        assert_eq!(modules("use super::super::plugin;", 2), ["plugin"]);
        assert_eq!(
            modules("mod inner { use super::super::plugin; use super::own; }", 1),
            ["plugin"]
        );
        assert_eq!(
            modules("pub(crate) fn f() {} pub(in crate::http) struct X;", 1),
            ["http"]
        );
        assert_eq!(
            modules("// crate::store\nconst A: &str = \"crate::store::x\";", 1),
            [] as [&str; 0]
        );
    }

    #[test]
    fn test_code_may_know_anybody() {
        let text =
            "#[cfg(test)] mod tests { use crate::store; } use crate::batch; #[cfg(test)] mod more; mod real;";
        let facts = read(text, 1).unwrap();
        assert_eq!(facts.modules, [("batch".to_owned(), 1)]);
        assert_eq!(facts.test_files, ["more"]);
        assert_eq!(
            modules("#[cfg(test)] use crate::store; use crate::batch;", 1),
            ["batch"]
        );
        assert_eq!(modules("#[cfg(not(test))] use crate::store;", 1), ["store"]);
        // Names are collected from test code as well.
        assert!(facts.names.contains(&("store".to_owned(), 1)));
    }

    #[test]
    fn functions_are_measured() {
        let facts = read(
            "trait T {\n    fn a(&self);\n    fn b() {\n        1;\n    }\n}\n",
            0,
        )
        .unwrap();
        assert_eq!(facts.functions, [("b".to_owned(), 3, 3)]);
    }

    #[test]
    fn a_file_that_is_no_rust_is_an_error_with_its_line() {
        assert_eq!(read("fn a() {\n}\n)", 0).unwrap_err().0, 3);
    }
}
