//! Query parameters: every parameter must be known and given once; parse errors name the parameter.

use axum::extract::Query;
use axum::http::Uri;

use super::problem::Problem;
use lantern_model::batch::{Timestamp, clean_text};

/// Default number of items per page.
pub const LIMIT_DEFAULT: u32 = 100;

/// Maximum number of items per page.
pub const LIMIT_MAX: u32 = 1_000;

/// The parameters of one request.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Parses the query of `uri`; rejects names that are not in `known` and repeated names.
    pub fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        Self::parse_repeating(uri, known, &[])
    }

    /// Like [`Self::parse`], but parameters in `repeated` may occur more than once.
    pub fn parse_repeating(uri: &Uri, known: &[&str], repeated: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::bad_request(format!("invalid query string: {error}")))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            let quoted = clean_text(name, 80);
            if !known.contains(&name.as_str()) {
                let list = known.join(", ");
                return Err(Problem::bad_request(format!(
                    "unknown parameter {quoted:?}; known parameters: {list}"
                )));
            }
            let again = pairs[..index].iter().any(|(other, _)| other == name);
            if again && !repeated.contains(&name.as_str()) {
                return Err(Problem::bad_request(format!(
                    "parameter {quoted:?} occurs more than once"
                )));
            }
        }
        Ok(Self(pairs))
    }

    /// Value of a parameter, if present.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a repeatable parameter.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().filter(move |(key, _)| key == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// The parameter `limit`.
    pub fn limit(&self) -> Result<u32, Problem> {
        Ok(self.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT))
    }

    /// An integer parameter within a range.
    pub fn number(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, Problem> {
        self.parsed(name, |text| match text.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{name} must be an integer from {least} to {most}")),
        })
    }

    /// A parameter parsed with `parse`, if present.
    pub fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        self.get(name)
            .map(|text| parse(text).map_err(Problem::bad_request))
            .transpose()
    }

    /// A parameter that is a time in RFC 3339.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.parsed(name, |text| time(name, text))
    }

    /// A parameter that is one of `values`.
    pub fn choice<'a>(&self, name: &str, values: &[&'a str]) -> Result<Option<&'a str>, Problem> {
        self.parsed(name, |text| {
            let found = values.iter().find(|value| **value == text).copied();
            found.ok_or_else(|| format!("{name} must be one of {}", values.join(", ")))
        })
    }
}

/// Parses a time in RFC 3339; the error names the parameter `name`.
pub fn time(name: &str, text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| {
        format!(
            "{name} must be a time in RFC 3339 within the years 0000 to 9999, such as 2026-11-20T10:00:00Z"
        )
    })
}

/// Parses a time in RFC 3339 or relative to `now` (`now`, `now-15m`, `now-1h`, `now+2d`); the error names the parameter
/// `name`.
pub fn moment(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{name} must be a time in RFC 3339 within the years 0000 to 9999, such as 2026-11-20T10:00:00Z, or relative, \
             such as now-15m, now-1h or now-7d"
        )
    };
    let Some(distance) = text.strip_prefix("now") else {
        return Timestamp::parse_rfc3339(text).ok_or_else(wrong);
    };
    if distance.is_empty() {
        return Ok(now);
    }
    let unit = distance.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        'w' => 7 * 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = distance.strip_suffix(unit).unwrap_or_default();
    let sign = match number.as_bytes().first() {
        // A plus in a query string decodes to a space unless it is written as %2B.
        Some(b'+' | b' ') => 1,
        Some(b'-') => -1,
        _ => return Err(wrong()),
    };
    let number: u32 = number[1..].parse().map_err(|_| wrong())?;
    let distance = i64::from(number)
        .saturating_mul(seconds)
        .saturating_mul(1_000_000);
    let time = Timestamp(now.0.saturating_add(distance.saturating_mul(sign)));
    if time.is_admissible() {
        Ok(time)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_relative() {
        let now = Timestamp(1_700_000_000_000_000);
        for (text, expected) in [
            ("now", 0),
            ("now-15m", -900),
            ("now-1h", -3_600),
            ("now-7d", -7 * 86_400),
            ("now+2w", 14 * 86_400),
            ("now 1s", 1),
        ] {
            let moment = moment("from", text, now).unwrap();
            assert_eq!(moment.0 - now.0, expected * 1_000_000, "{text}");
        }
        assert!(moment("from", "2026-11-20T10:00:00Z", now).is_ok());
        for bad in [
            "",
            "now-",
            "now-m",
            "now-1",
            "now-1y",
            "now1h",
            "now-1é",
            "now--1h",
            "now-99999999999h",
            "now-4294967295w",
            "now+4294967295d",
            "+12345-01-01T00:00:00Z",
            "9999-12-31T23:59:59-00:01",
            "yesterday",
        ] {
            let problem = moment("from", bad, now).unwrap_err();
            assert!(problem.starts_with("from must be a time"), "{bad}: {problem}");
        }
    }
}
