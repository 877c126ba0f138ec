//! Which questions a PostgreSQL server may answer. SQLite asks the host before it reads a table or calls a function; PostgreSQL
//! does not, and the role of the host may read its tokens. So the host divides a question into the tokens of PostgreSQL, of
//! which it accepts a part that has no second meaning (no comments, no escapes, no Unicode names), and checks the names:
//!
//! - what precedes a parenthesis is a function of a list, or a keyword;
//! - no name is that of a catalog, of a table of the host, or of another schema.
//!
//! The transaction of a question is read-only in addition, and it is rolled back.

use std::collections::HashSet;

use super::names::{DENIED, DENIED_PREFIXES, FUNCTIONS, KEYWORDS};

/// The server cuts a longer name.
const NAME_BYTES_MAX: usize = 63;

/// Names in the database.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    /// Schemas. Their names may not precede a point.
    pub(super) schemas: HashSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name or keyword, in lower case.
    Word(String),
    /// A name in quotes.
    Quoted(String),
    Literal,
    /// An operator character or another sign.
    Sign(char),
}

impl Token {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }

    fn is_word(&self, among: &[&str]) -> bool {
        matches!(self, Self::Word(word) if among.contains(&word.as_str()))
    }
}

/// Checks a question.
///
/// # Errors
/// Why it is not accepted.
pub(super) fn check(question: &str, known: &KnownNames) -> Result<(), String> {
    let tokens = tokens(question)?;
    let mut first = tokens.iter().skip_while(|token| **token == Token::Sign('('));
    if !first
        .next()
        .is_some_and(|token| token.is_word(&["select", "with", "values"]))
    {
        return Err("a question is a SELECT".to_owned());
    }
    for (position, token) in tokens.iter().enumerate() {
        let Some(name) = token.name() else { continue };
        let next = tokens.get(position + 1);
        let is_denied = DENIED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || token.is_word(DENIED)
            || (next == Some(&Token::Sign('.')) && known.schemas.contains(name));
        if is_denied {
            return Err(format!("a question cannot use {name}"));
        }
        if next == Some(&Token::Sign('(')) && !may_precede_parenthesis(token, &tokens[position + 1..]) {
            return Err(format!("a question cannot call {name}"));
        }
    }
    Ok(())
}

fn may_precede_parenthesis(token: &Token, rest: &[Token]) -> bool {
    token.is_word(KEYWORDS)
        || token.name().is_some_and(|name| FUNCTIONS.contains(&name))
        || is_list_of_columns(rest)
}

/// Whether the tokens begin with the columns of a query in `WITH`, such as `(a, b) AS (SELECT …`. After a call of a function,
/// `AS (` begins a list of types, which cannot contain these keywords.
fn is_list_of_columns(tokens: &[Token]) -> bool {
    let Some(end) = tokens.iter().position(|token| *token == Token::Sign(')')) else {
        return false;
    };
    let is_column = |token: &Token| token.name().is_some() || *token == Token::Sign(',');
    let mut after = tokens[end + 1..].iter();
    tokens[1..end].iter().all(is_column)
        && after.next().is_some_and(|token| token.is_word(&["as"]))
        && after.find(|token| !token.is_word(&["not", "materialized"])) == Some(&Token::Sign('('))
        && after
            .next()
            .is_some_and(|token| token.is_word(&["select", "with", "values"]))
}

fn tokens(question: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = question.trim_end_matches([' ', '\t', '\r', '\n', ';']);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ' ' | '\t' | '\r' | '\n' => 1,
            '\'' => {
                tokens.push(Token::Literal);
                quoted(rest, '\'')?.1
            }
            '"' => {
                let (name, length) = quoted(rest, '"')?;
                tokens.push(Token::Quoted(checked_name(name)?));
                length
            }
            '0'..='9' => {
                tokens.push(Token::Literal);
                number(rest)?
            }
            letter if is_name_start(letter) => {
                let length = rest.find(|letter| !is_of_name(letter)).unwrap_or(rest.len());
                let after = &rest[length..];
                if after.starts_with(['\'', '"', '$']) || after.starts_with("&'") || after.starts_with("&\"")
                {
                    return Err("a question has no escaped texts or names".to_owned());
                }
                tokens.push(Token::Word(checked_name(rest[..length].to_ascii_lowercase())?));
                length
            }
            _ if rest.starts_with("--") || rest.starts_with("/*") => {
                return Err("a question has no comments".to_owned());
            }
            ';' => return Err("a question is one statement".to_owned()),
            sign if "()[],.:+-*/<>=~!@#%^&|?".contains(sign) => {
                tokens.push(Token::Sign(sign));
                1
            }
            other => return Err(format!("a question cannot contain {other:?} outside of quotes")),
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// The server counts all characters that are not ASCII as letters, also spaces of Unicode.
fn is_name_start(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_' || !letter.is_ascii()
}

fn is_of_name(letter: char) -> bool {
    is_name_start(letter) || letter.is_ascii_digit()
}

fn checked_name(name: String) -> Result<String, String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a name has more than {NAME_BYTES_MAX} bytes"));
    }
    Ok(name)
}

/// The contents of the quotes at the beginning, and the length with them. A doubled quote is a part of the contents.
fn quoted(text: &str, quote: char) -> Result<(String, usize), String> {
    let mut contents = String::new();
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((position, letter)) = letters.next() {
        if letter == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return Ok((contents, position + 1));
        }
        contents.push(letter);
    }
    Err("a quote is not closed".to_owned())
}

/// The length of the number at the beginning.
fn number(text: &str) -> Result<usize, String> {
    let digits = |text: &str| {
        text.find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let mut length = digits(text);
    if text[length..].starts_with('.') {
        length += 1 + digits(&text[length + 1..]);
    }
    if let Some(exponent) = text[length..].strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        length += 1 + exponent.len() - unsigned.len() + digits(unsigned);
    }
    match text[length..].chars().next() {
        Some(letter) if is_of_name(letter) => Err("a letter follows a number".to_owned()),
        _ => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> KnownNames {
        KnownNames {
            schemas: ["public", "lantern", "other"].map(str::to_owned).into(),
        }
    }

    #[test]
    fn questions_about_tables_are_accepted() {
        for question in [
            "SELECT * FROM events WHERE kind = 'a''b' ORDER BY at DESC LIMIT 10;",
            "select \"order\", count(*) filter (where ok = 1) from events group by 1 having count(*) > 1e3",
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
            "WITH a(x, y) AS NOT MATERIALIZED (VALUES (1, 2)) SELECT e.x FROM a AS e WHERE x IN (SELECT 1)",
            "(SELECT '-- no comment /* ; pg_authid') UNION (SELECT extra::json ->> 'a' FROM events)",
            "SELECT row_number() OVER (PARTITION BY kind ORDER BY at), CAST(x AS numeric(10, 2)) FROM events",
            "SELECT substring(note FROM 1 FOR 3), 1.5, .5, x[1:2] FROM events",
        ] {
            assert_eq!(check(question, &known()), Ok(()), "{question}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for question in [
            "",
            "DELETE FROM events",
            "SET ROLE postgres",
            "COPY events TO PROGRAM 'id'",
            "SELECT 1; SELECT 2",
            "SELECT * INTO copied FROM events",
            "SELECT * FROM pg_authid",
            "SELECT * FROM \"pg_authid\"",
            "SELECT * FROM PG_CATALOG.PG_AUTHID",
            "SELECT * FROM _lantern_token",
            "SELECT * FROM lantern._Lantern_token",
            "TABLE _lantern_token",
            "SELECT * FROM (TABLE _lantern_token) AS t",
            "SELECT * FROM U&\"\\005flantern_token\"",
            "SELECT * FROM u&\"\\005flantern_token\"",
            "SELECT E'\\'', x FROM events",
            "SELECT $$text$$",
            "SELECT $1",
            "SELECT x$y FROM events",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT \"pg_read_file\" ('/etc/passwd')",
            "SELECT pg_catalog.set_config('role', 'postgres', false)",
            "SELECT set_config\n('role', 'postgres', false)",
            "SELECT pg_read_file/**/('/etc/passwd')",
            "SELECT set_config--\n('a', 'b', false)",
            "SELECT query_to_xml('SELECT 1', true, true, '')",
            "SELECT dblink('host=x', 'SELECT 1')",
            "SELECT lo_import('/etc/passwd')",
            "SELECT current_setting('data_directory')",
            "SELECT current_user",
            "SELECT repeat('x', 1000000000)",
            "SELECT * FROM generate_series(1, 1000000000)",
            "SELECT * FROM other.secrets",
            "SELECT * FROM public.secrets",
            "SELECT * FROM \"other\".\"secrets\"",
            "SELECT * FROM dblink('x') AS (a int)",
            "SELECT * FROM dblink(a) AS (a int)",
            "WITH x AS (SELECT 1) SELECT dblink(x) AS y FROM x",
            "SELECT 1 OPERATOR(pg_catalog.+) 2",
            "SELECT 'unclosed",
            "SELECT 1\u{0}",
            "SELECT 0x1F",
            "SELECT `x`",
        ] {
            assert!(check(question, &known()).is_err(), "{question}");
        }
        let long = format!("SELECT {} FROM events", "a".repeat(64));
        assert!(check(&long, &known()).is_err());
    }
}
