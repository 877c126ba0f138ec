//! The functions that a question in SQL may call. SQLite cannot interrupt a function, so each has to be linear in its
//! arguments: those of SQLite that are not are replaced by linear ones with the same results, or omitted.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::memmem;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, ffi};

use super::VALUE_BYTES_MAX;

/// In lower case. Omitted are functions that create large values from small ones (`zeroblob`, `randomblob`), that are
/// quadratic and rarely used (`unhex` with two arguments), and that have effects outside the question
/// (`load_extension`).
const ALLOWED: &[&str] = &[
    // Values and text.
    "abs",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "format",
    "glob",
    "hex",
    "if",
    "ifnull",
    "iif",
    "instr",
    "length",
    "like",
    "likelihood",
    "likely",
    "lower",
    "ltrim",
    "max",
    "min",
    "nullif",
    "octet_length",
    "printf",
    "quote",
    "random",
    "replace",
    "round",
    "rtrim",
    "sign",
    "substr",
    "substring",
    "trim",
    "typeof",
    "unicode",
    "unistr",
    "unistr_quote",
    "unlikely",
    "upper",
    // Aggregates and windows.
    "avg",
    "count",
    "cume_dist",
    "dense_rank",
    "first_value",
    "group_concat",
    "lag",
    "last_value",
    "lead",
    "median",
    "nth_value",
    "ntile",
    "percent_rank",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "rank",
    "row_number",
    "string_agg",
    "sum",
    "total",
    // Time.
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "strftime",
    "time",
    "timediff",
    "unixepoch",
    // JSON.
    "->",
    "->>",
    "json",
    "json_array",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_array",
    "jsonb_extract",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_patch",
    "jsonb_remove",
    "jsonb_replace",
    "jsonb_set",
    // Mathematics.
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "ceiling",
    "cos",
    "cosh",
    "degrees",
    "exp",
    "floor",
    "ln",
    "log",
    "log10",
    "log2",
    "mod",
    "pi",
    "pow",
    "power",
    "radians",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    // The host.
    "sqlite_version",
];

pub(super) fn is_allowed(name: &str) -> bool {
    ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Replaces the functions of SQLite whose time is the product of the lengths of their arguments.
pub(super) fn replace(connection: &Connection) -> Result<(), rusqlite::Error> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("instr", 2, flags, instr)?;
    connection.create_scalar_function("replace", 3, flags, replaced)?;
    for (name, at_start, at_end) in [
        ("trim", true, true),
        ("ltrim", true, false),
        ("rtrim", false, true),
    ] {
        connection
            .create_scalar_function(name, 2, flags, move |context| trimmed(context, at_start, at_end))?;
    }
    Ok(())
}

/// A value as the text that SQLite converts it to; none for null.
fn text<'a>(context: &'a Context<'_>, index: usize) -> Option<Cow<'a, [u8]>> {
    Some(match context.get_raw(index) {
        ValueRef::Null => return None,
        ValueRef::Integer(number) => number.to_string().into_bytes().into(),
        // As SQLite writes it: with a decimal point.
        ValueRef::Real(number) => format!("{number:?}").into_bytes().into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.into(),
    })
}

fn too_big() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        ffi::Error {
            code: ErrorCode::TooBig,
            extended_code: ffi::SQLITE_TOOBIG,
        },
        None,
    )
}

/// Text is valid UTF-8 if all of its parts were.
fn as_text(bytes: Vec<u8>) -> ToSqlOutput<'static> {
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    ToSqlOutput::Owned(Value::Text(text))
}

const NULL: ToSqlOutput<'static> = ToSqlOutput::Owned(Value::Null);

/// The position of the second value in the first, from 1: in characters, or in bytes if both are blobs.
fn instr(context: &Context<'_>) -> Result<Option<i64>, rusqlite::Error> {
    let (Some(whole), Some(part)) = (text(context, 0), text(context, 1)) else {
        return Ok(None);
    };
    let is_blob = |index| matches!(context.get_raw(index), ValueRef::Blob(_));
    let Some(position) = memmem::find(&whole, &part) else {
        return Ok(Some(0));
    };
    let before = match is_blob(0) && is_blob(1) {
        true => position,
        false => characters(&whole[..position]),
    };
    Ok(Some(i64::try_from(before).unwrap_or(i64::MAX).saturating_add(1)))
}

fn characters(text: &[u8]) -> usize {
    text.iter().filter(|byte| (**byte & 0xc0) != 0x80).count()
}

fn replaced(context: &Context<'_>) -> Result<ToSqlOutput<'static>, rusqlite::Error> {
    let (Some(whole), Some(old), Some(new)) = (text(context, 0), text(context, 1), text(context, 2)) else {
        return Ok(NULL);
    };
    if old.is_empty() {
        return Ok(as_text(whole.into_owned()));
    }
    let finder = memmem::Finder::new(&old);
    let mut made = Vec::with_capacity(whole.len());
    let mut rest = &whole[..];
    while let Some(position) = finder.find(rest) {
        made.extend_from_slice(&rest[..position]);
        made.extend_from_slice(&new);
        rest = &rest[position + old.len()..];
        if made.len() > VALUE_BYTES_MAX {
            return Err(too_big());
        }
    }
    made.extend_from_slice(rest);
    Ok(as_text(made))
}

/// The first value without the characters of the second at its ends.
fn trimmed(
    context: &Context<'_>,
    at_start: bool,
    at_end: bool,
) -> Result<ToSqlOutput<'static>, rusqlite::Error> {
    let (Some(whole), Some(set)) = (text(context, 0), text(context, 1)) else {
        return Ok(NULL);
    };
    let (whole, set) = (String::from_utf8_lossy(&whole), String::from_utf8_lossy(&set));
    let set: HashSet<char> = set.chars().collect();
    let mut rest: &str = &whole;
    if at_start {
        rest = rest.trim_start_matches(|character| set.contains(&character));
    }
    if at_end {
        rest = rest.trim_end_matches(|character| set.contains(&character));
    }
    Ok(as_text(rest.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of an expression with the functions of SQLite and with the replacements.
    fn both(expression: &str) -> (Value, Value) {
        let own = Connection::open_in_memory().unwrap();
        replace(&own).unwrap();
        let sqlite = Connection::open_in_memory().unwrap();
        let of = |connection: &Connection| {
            connection
                .query_row(&format!("SELECT {expression}"), [], |row| row.get(0))
                .unwrap()
        };
        (of(&sqlite), of(&own))
    }

    #[test]
    fn replaced_functions_return_the_same_as_those_of_sqlite() {
        for expression in [
            "instr('aäbc', 'b')",
            "instr('abc', 'x')",
            "instr('abc', '')",
            "instr(x'00ff01', x'01')",
            "instr(12345, 34)",
            "instr(NULL, 'a')",
            "replace('aäbäc', 'ä', 'xy')",
            "replace('aaa', 'aa', 'b')",
            "replace('abc', '', 'x')",
            "replace('abc', 'b', NULL)",
            "replace(1.5, '.', ',')",
            "trim('xyaxy', 'yx')",
            "ltrim('ääa', 'ä')",
            "rtrim('abb', 'b')",
            "trim('aaa', 'a')",
            "trim('abc', '')",
            "trim(NULL, 'a')",
            "trim(100, '0')",
        ] {
            let (sqlite, own) = both(expression);
            assert_eq!(own, sqlite, "{expression}");
        }
    }

    #[test]
    fn a_replacement_is_bounded_before_it_is_allocated() {
        let connection = Connection::open_in_memory().unwrap();
        replace(&connection).unwrap();
        let bomb = "SELECT replace(hex(zeroblob(100000)), '0', hex(zeroblob(100000)))";
        let error = connection
            .query_row(bomb, [], |row| row.get::<_, String>(0))
            .unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::TooBig), "{error}");
    }
}
