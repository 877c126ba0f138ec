//! What stands after the `?`: each parameter known, given once, and parsed with an answer that says what is wrong.

use axum::extract::Query;
use axum::http::Uri;

use super::problem::Problem;
use lantern_model::batch::{Timestamp, clean_text};

/// Items of a page when nothing is said.
pub const LIMIT_DEFAULT: u32 = 100;

/// Items of a page at most.
pub const LIMIT_MAX: u32 = 1_000;

/// The parameters of one request.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of `uri`; a name that is not in `known`, or that stands twice, is refused.
    pub fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        Self::parse_repeating(uri, known, &[])
    }

    /// The same, where those in `repeated` may stand more than once.
    pub fn parse_repeating(uri: &Uri, known: &[&str], repeated: &[&str]) -> Result<Self, Problem> {
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
            let again = pairs[..index].iter().any(|(other, _)| other == name);
            if again && !repeated.contains(&name.as_str()) {
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

    /// All values of a parameter that may stand more than once.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let mine = self.0.iter().filter(move |(key, _)| key == name);
        mine.map(|(_, value)| value.as_str())
    }

    /// How many items a page may have.
    pub fn limit(&self) -> Result<u32, Problem> {
        Ok(self.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT))
    }

    /// A parameter that is a whole number between these two.
    pub fn number(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, Problem> {
        self.parsed(name, |text| match text.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{name} is a whole number from {least} to {most}")),
        })
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
    Timestamp::parse_rfc3339(text).ok_or_else(|| {
        format!("{name} is a time in RFC 3339 within the years 0000 to 9999, such as 2026-11-20T10:00:00Z")
    })
}

/// A moment in RFC 3339, or relative to `now`: `now`, `now-15m`, `now-1h`, `now+2d`; or why the text called `name` is
/// neither.
pub fn moment(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{name} is a time in RFC 3339 within the years 0000 to 9999, such as 2026-11-20T10:00:00Z, or relative, such \
             as now-15m, now-1h or now-7d"
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
        // A plus in an address is a space, unless it is written as %2B.
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
    fn a_moment_is_a_date_or_relative() {
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
            assert!(problem.starts_with("from is a time"), "{bad}: {problem}");
        }
    }
}
