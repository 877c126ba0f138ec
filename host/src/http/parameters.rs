//! What stands after the `?`: each parameter known, given once, and parsed with an answer that says what is wrong.

use axum::extract::Query;
use axum::http::Uri;

use super::problem::Problem;
use crate::batch::{Timestamp, clean_text};

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// The parameters of one request.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of `uri`; a name that is not in `known`, or that stands twice, is refused.
    pub fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::bad_request(format!("the query cannot be read: {error}")))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            let shown = clean_text(name, 80);
            if !known.contains(&name.as_str()) {
                let list = known.join(", ");
                return Err(Problem::bad_request(format!(
                    "there is no parameter {shown:?}; there are: {list}"
                )));
            }
            if pairs[..index].iter().any(|(other, _)| other == name) {
                return Err(Problem::bad_request(format!(
                    "parameter {shown:?} is given twice"
                )));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter, when it is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// How many items a page may have.
    pub fn limit(&self) -> Result<u32, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(LIMIT_DEFAULT);
        };
        match text.parse::<u32>() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(Problem::bad_request(format!(
                "limit is a whole number from 1 to {LIMIT_MAX}"
            ))),
        }
    }

    /// A parameter that `parse` understands, or that has none of its values wrong.
    pub fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        self.get(name)
            .map(|text| parse(text).map_err(Problem::bad_request))
            .transpose()
    }

    /// A parameter that is a moment in RFC 3339.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.parsed(name, |text| time(name, text))
    }

    /// A parameter that is one of these words.
    pub fn choice<'a>(&self, name: &str, words: &[&'a str]) -> Result<Option<&'a str>, Problem> {
        self.parsed(name, |text| {
            let found = words.iter().find(|word| **word == text).copied();
            found.ok_or_else(|| format!("{name} is one of {}", words.join(", ")))
        })
    }
}

/// A moment in RFC 3339, or why the text called `name` is none.
pub fn time(name: &str, text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| format!("{name} is a time in RFC 3339, such as 2026-11-20T10:00:00Z"))
}
