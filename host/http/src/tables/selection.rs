//! Parses row selections: `filter=COLUMN OP VALUE`, `search=`, `from=` and `to=`. Values are parsed by the type of their
//! column, and errors name the parameter.

use sha2::{Digest as _, Sha256};

use crate::doc::{Query, choice, repeated, text};
use crate::parameters::{self, Parameters};
use crate::problem::Problem;
use lantern_model::batch::{Timestamp, Value, clean_text};
use lantern_model::schema::ColumnType;
use lantern_model::value::Integers;
use lantern_store::reader::{Comparison, Condition, SearchQuery, Selection, Shape, Test};

/// Parameters of all requests about the rows of a table.
pub const NAMES: [&str; 5] = ["filter", "search", "from", "to", "integers"];

/// Repeatable parameters.
pub const REPEATED: [&str; 1] = ["filter"];

/// Maximum number of filters; each is evaluated for every scanned row.
const FILTERS_MAX: usize = 50;

/// Maximum length of a search text in bytes; its terms are compared with every word.
const SEARCH_BYTES_MAX: usize = 1_024;

const SEARCH_DOC: &str = "Words that text and JSON columns contain, in any order and case. `-word` excludes rows; \
     `\"several words\"` requires them in this order in one text; `word*` matches words that begin so; `column:word` \
     searches one column, and `column.member:value` a member of a JSON column. Words consist of letters and digits. Names of \
     JSON members are not searched.";

/// The parameters for the OpenAPI document.
pub fn parameters_doc() -> [Query; 5] {
    let filter = "A condition: a column, an operator and a value, or a column with `:null` or `:set`. Operators: `=` `!=` \
                  `<` `<=` `>` `>=` `~` (contains) `!~` (does not contain) `^=` (starts with). Several `=` filters on \
                  one column are alternatives; all other filters must match. The type of the column determines the \
                  format of the value; bytes are base64.";
    let moment = |name, words: &str| {
        let forms = "RFC 3339, or relative to now, such as `now-15m`; units: `s` `m` `h` `d` `w`.";
        text(name, format!("{words} {forms}"))
    };
    [
        repeated("filter", FILTERS_MAX, filter).example(serde_json::json!(["kind=error", "bytes>=1000"])),
        text("search", SEARCH_DOC).example("disk -\"out of memory\" payload.host:web*"),
        moment("from", "Earliest time of the time column.").example("now-1h"),
        moment("to", "End of the time range, exclusive.").example("now"),
        integers_doc(),
    ]
}

/// The parameter `integers` for the OpenAPI document.
pub fn integers_doc() -> Query {
    let words = "Format of integers in rows: strings for clients that parse JSON numbers as doubles.";
    choice("integers", &["number", "text"], words)
}

/// Parses the parameters of a request about rows: [`NAMES`] and `more`.
pub fn read(uri: &axum::http::Uri, more: &[&str]) -> Result<Parameters, Problem> {
    Parameters::parse_repeating(uri, &[&NAMES[..], more].concat(), &REPEATED)
}

/// The selection of the parameters.
pub fn parse(shape: &Shape, parameters: &Parameters) -> Result<Selection, Problem> {
    let now = Timestamp::now();
    let mut selection = Selection::default();
    for (index, text) in parameters.all("filter").enumerate() {
        if index >= FILTERS_MAX {
            return Err(Problem::bad_request(format!(
                "at most {FILTERS_MAX} filters are allowed"
            )));
        }
        let condition = condition(shape, text, now)
            .map_err(|reason| Problem::bad_request(format!("filter={}: {reason}", clean_text(text, 200))))?;
        add(&mut selection, condition);
    }
    if let Some(text) = parameters.get("search").filter(|text| !text.is_empty()) {
        let query = search(shape, text);
        selection.search = Some(query.map_err(|reason| Problem::bad_request(format!("search: {reason}")))?);
    }
    let moment = |name: &str| -> Result<Option<Timestamp>, Problem> {
        let time = parameters.parsed(name, |text| parameters::moment(name, text, now))?;
        match (time, shape.time()) {
            (Some(_), None) => Err(Problem::bad_request(format!(
                "{name}: table {} has no column with the role time",
                shape.entry.name
            ))),
            (time, _) => Ok(time),
        }
    };
    selection.from = moment("from")?;
    selection.to = moment("to")?;
    if let (Some(from), Some(to)) = (selection.from, selection.to)
        && from >= to
    {
        return Err(Problem::bad_request("from must be before to"));
    }
    Ok(selection)
}

/// The parameter `integers`.
pub fn integers(parameters: &Parameters) -> Result<Integers, Problem> {
    Ok(match parameters.choice("integers", &["text", "number"])? {
        Some("text") => Integers::Text,
        _ => Integers::Numbers,
    })
}

/// Identifies a selection, so that a cursor of another selection is rejected. It hashes the parameters as written, because
/// the values of relative times change.
pub fn fingerprint(parameters: &Parameters) -> String {
    let mut digest = Sha256::new();
    for name in ["filter", "search", "from", "to"] {
        for text in parameters.all(name) {
            for part in [name, text] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
    }
    let digest = digest.finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Position of the column that a parameter names.
pub fn column(shape: &Shape, parameter: &str, name: &str) -> Result<usize, Problem> {
    shape.position(name).ok_or_else(|| {
        Problem::bad_request(format!(
            "{parameter}: table {} has no column {:?}",
            shape.entry.name,
            clean_text(name, 80)
        ))
    })
}

/// Positions of the columns that a parameter lists; none if it is absent.
pub fn columns(
    shape: &Shape,
    parameters: &Parameters,
    parameter: &str,
) -> Result<Option<Vec<usize>>, Problem> {
    let Some(text) = parameters.get(parameter) else {
        return Ok(None);
    };
    let mut positions = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let position = column(shape, parameter, name)?;
        if !positions.contains(&position) {
            positions.push(position);
        }
    }
    Ok(Some(positions))
}

/// Adds a condition; `=` conditions on one column are alternatives.
fn add(selection: &mut Selection, condition: Condition) {
    if let Test::OneOf { values, null } = &condition.test {
        let same = selection
            .conditions
            .iter_mut()
            .find_map(|known| match &mut known.test {
                Test::OneOf { values, null } if known.column == condition.column => Some((values, null)),
                _ => None,
            });
        if let Some((known, known_null)) = same {
            for value in values {
                if !known.contains(value) {
                    known.push(value.clone());
                }
            }
            *known_null |= null;
            return;
        }
    }
    selection.conditions.push(condition);
}

fn condition(shape: &Shape, text: &str, now: Timestamp) -> Result<Condition, String> {
    let end = text
        .find(|letter: char| !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let column = shape.position(name).ok_or_else(|| {
        format!(
            "table {} has no column {:?}",
            shape.entry.name,
            clean_text(name, 80)
        )
    })?;
    let test = test(name, shape.columns[column].column_type, rest, now)?;
    Ok(Condition { column, test })
}

/// Parses the operator and the value of a condition on the column `name`.
fn test(name: &str, column_type: ColumnType, rest: &str, now: Timestamp) -> Result<Test, String> {
    let value = |text: &str| value(column_type, text, now);
    let compared = |comparison, text: &str| {
        if !column_type.has_order() {
            return Err(format!("{column_type} has no order; use = or !="));
        }
        Ok(Test::Compare(comparison, value(text)?))
    };
    let texts = |text: &str| {
        if column_type.is_searchable() {
            search_text(text)
        } else {
            Err(format!(
                "{name} has the type {column_type}; only text and json can be searched"
            ))
        }
    };
    // Longer operators first.
    Ok(if let Some(rest) = rest.strip_prefix("!=") {
        Test::Not(value(rest)?)
    } else if let Some(rest) = rest.strip_prefix("<=") {
        compared(Comparison::AtMost, rest)?
    } else if let Some(rest) = rest.strip_prefix(">=") {
        compared(Comparison::AtLeast, rest)?
    } else if let Some(rest) = rest.strip_prefix("!~") {
        Test::Lacks(texts(rest)?)
    } else if let Some(rest) = rest.strip_prefix("^=") {
        Test::BeginsWith(texts(rest)?)
    } else if let Some(rest) = rest.strip_prefix('=') {
        let values = vec![value(rest)?];
        Test::OneOf { values, null: false }
    } else if let Some(rest) = rest.strip_prefix('<') {
        compared(Comparison::Less, rest)?
    } else if let Some(rest) = rest.strip_prefix('>') {
        compared(Comparison::Greater, rest)?
    } else if let Some(rest) = rest.strip_prefix('~') {
        Test::Contains(texts(rest)?)
    } else if rest == ":null" {
        let values = Vec::new();
        Test::OneOf { values, null: true }
    } else if rest == ":set" {
        Test::Set
    } else {
        return Err("expected one of = != < <= > >= ~ !~ ^= :null :set after the column".to_owned());
    })
}

fn search(shape: &Shape, text: &str) -> Result<SearchQuery, String> {
    let text = search_text(text)?;
    SearchQuery::parse(&text, |name| shape.searchable(name)).map_err(|error| error.to_string())
}

fn search_text(text: &str) -> Result<String, String> {
    if text.len() > SEARCH_BYTES_MAX {
        return Err(format!("the text exceeds {SEARCH_BYTES_MAX} bytes"));
    }
    no_nul(text)
}

/// Rejects NUL, at which SQLite ends a text.
fn no_nul(text: &str) -> Result<String, String> {
    match text.contains('\0') {
        true => Err("text must not contain NUL".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Parses a value by the type of its column; a time may be relative to `now`.
fn value(column_type: ColumnType, text: &str, now: Timestamp) -> Result<Value, String> {
    match column_type {
        ColumnType::Timestamp => parameters::moment("the value", text, now).map(Value::Timestamp),
        other => Value::parse(other, text),
    }
}
