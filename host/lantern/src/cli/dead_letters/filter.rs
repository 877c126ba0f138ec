//! Which dead letters a command means.

use chrono::Utc;
use clap::Args;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use crate::cli::Failure;
use lantern_model::batch::Timestamp;
use lantern_model::schema::{PluginName, SourceName};

/// Dead letters in any state.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which dead letters")]
pub struct Filter {
    #[command(flatten)]
    of: Of,
    /// Only those that are open, resolved, discarded or forgotten.
    #[arg(long, value_parser = ["open", "resolved", "discarded", "forgotten"])]
    state: Option<String>,
}

/// Dead letters that are open.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which dead letters")]
pub struct OpenFilter {
    #[command(flatten)]
    of: Of,
    /// Only this one.
    #[arg(long)]
    id: Option<i64>,
}

#[derive(Clone, Debug, Default, Args)]
struct Of {
    /// Only those of this plugin.
    #[arg(long, value_name = "NAME", value_parser = PluginName::parse)]
    plugin: Option<PluginName>,
    /// Only those of this source.
    #[arg(long, value_name = "NAME", value_parser = SourceName::parse)]
    source: Option<SourceName>,
    /// Only those with this kind of reason, such as malformed or timeout.
    #[arg(long)]
    class: Option<String>,
    /// Only those with this reason; a * stands for any text, as in 'missing field `at`*'.
    #[arg(long)]
    reason: Option<String>,
    /// Only those first tried at this time or later: RFC 3339, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only those first tried before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

/// A moment as it is typed.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        return Ok(time);
    }
    humantime::parse_duration(text)
        .ok()
        .and_then(|ago| Utc::now().checked_sub_signed(chrono::TimeDelta::from_std(ago).ok()?))
        .map(|time| Timestamp(time.timestamp_micros()))
        .ok_or_else(|| "give a time such as 2026-11-20T10:00:00Z, or how long ago, such as 2h".to_owned())
}

impl Of {
    /// What is said, by the API's names.
    fn parts(&self) -> Vec<(&'static str, String)> {
        let parts = [
            ("plugin", self.plugin.as_ref().map(ToString::to_string)),
            ("source", self.source.as_ref().map(ToString::to_string)),
            ("class", self.class.clone()),
            ("reason", self.reason.clone()),
            ("since", self.since.map(Timestamp::to_rfc3339)),
            ("until", self.until.map(Timestamp::to_rfc3339)),
        ];
        parts
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

impl Filter {
    /// As the query of a request.
    pub fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.of.parts());
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        query.finish()
    }
}

impl OpenFilter {
    /// As the body of a request. Nothing said is all of them, and has to be meant.
    pub fn body(&self, all: bool) -> Result<Value, Failure> {
        let parts = self.of.parts();
        if parts.is_empty() && self.id.is_none() && !all {
            return Err(Failure::usage("no dead letters are named")
                .hint("say which, for example --plugin NAME or --id N, or --all"));
        }
        let mut body: serde_json::Map<String, Value> = parts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::String(value)))
            .collect();
        if let Some(id) = self.id {
            body.insert("id".to_owned(), json!(id));
        }
        body.insert("all".to_owned(), json!(all));
        Ok(Value::Object(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_how_long_ago() {
        assert_eq!(moment("1970-01-01T01:00:01+01:00").unwrap(), Timestamp(1_000_000));
        let two_hours_ago = Timestamp::now().0 - 7_200_000_000;
        assert!((moment("2h").unwrap().0 - two_hours_ago).abs() < 60_000_000);
        for bad in ["", "yesterday", "-2h", "2026-11-20", "99999999999999999999h"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_said_has_to_be_meant() {
        let mut filter = OpenFilter::default();
        assert!(filter.body(false).is_err());
        assert_eq!(filter.body(true).unwrap(), json!({"all": true}));
        filter.id = Some(7);
        assert_eq!(filter.body(false).unwrap(), json!({"id": 7, "all": false}));
        let filter = Filter {
            of: Of {
                reason: Some("no `at`*".into()),
                since: Some(Timestamp(1_000_000)),
                ..Of::default()
            },
            state: Some("open".into()),
        };
        assert_eq!(
            filter.query(),
            "reason=no+%60at%60*&since=1970-01-01T00%3A00%3A01.000000Z&state=open"
        );
    }
}
