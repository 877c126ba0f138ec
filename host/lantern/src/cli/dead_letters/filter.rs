//! Filter options for dead letters.

use chrono::Utc;
use clap::Args;
use url::form_urlencoded::Serializer;

use crate::cli::Failure;
use lantern_api::DeadLetterSelection;
use lantern_model::batch::Timestamp;
use lantern_model::schema::{PluginName, SourceName};

/// Dead letters in any state.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filter options")]
pub struct Filter {
    #[command(flatten)]
    common: CommonFilter,
    /// Only dead letters in this state.
    #[arg(long, value_parser = ["open", "resolved", "discarded", "forgotten"])]
    state: Option<String>,
}

/// Dead letters that are open.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filter options")]
pub struct OpenFilter {
    #[command(flatten)]
    common: CommonFilter,
    /// Only the dead letter with this id.
    #[arg(long)]
    id: Option<i64>,
}

#[derive(Clone, Debug, Default, Args)]
struct CommonFilter {
    /// Only dead letters of this plugin.
    #[arg(long, value_name = "NAME", value_parser = PluginName::parse)]
    plugin: Option<PluginName>,
    /// Only dead letters of this source.
    #[arg(long, value_name = "NAME", value_parser = SourceName::parse)]
    source: Option<SourceName>,
    /// Only dead letters with this class of reason, such as malformed or timeout.
    #[arg(long)]
    class: Option<String>,
    /// Only dead letters with this reason; * matches any text, as in 'missing field `at`*'.
    #[arg(long)]
    reason: Option<String>,
    /// Only dead letters first tried at this time or later: RFC 3339, or an age such as 2h.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only dead letters first tried before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
}

/// Parses a time, or an age.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        return Ok(time);
    }
    humantime::parse_duration(text)
        .ok()
        .and_then(|ago| Utc::now().checked_sub_signed(chrono::TimeDelta::from_std(ago).ok()?))
        .map(|time| Timestamp(time.timestamp_micros()))
        .ok_or_else(|| "expected a time such as 2026-11-20T10:00:00Z, or an age such as 2h".to_owned())
}

impl CommonFilter {
    /// The given options, by the names of the API.
    fn parameters(&self) -> Vec<(&'static str, String)> {
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
    /// The plugin whose dead letters are selected.
    pub fn plugin(&self) -> Option<&PluginName> {
        self.common.plugin.as_ref()
    }

    /// The filter as the query of a request.
    pub fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.common.parameters());
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        query.finish()
    }
}

impl OpenFilter {
    /// The filter as the body of a request. An empty filter selects all dead letters and requires `all`.
    pub fn body(&self, all: bool) -> Result<DeadLetterSelection, Failure> {
        if self.common.parameters().is_empty() && self.id.is_none() && !all {
            return Err(Failure::usage("no dead letters selected")
                .hint("use a filter such as --plugin NAME or --id N, or --all"));
        }
        let common = &self.common;
        Ok(DeadLetterSelection {
            plugin: common.plugin.as_ref().map(ToString::to_string),
            source: common.source.as_ref().map(ToString::to_string),
            class: common.class.clone(),
            reason: common.reason.clone(),
            since: common.since.map(Timestamp::to_rfc3339),
            until: common.until.map(Timestamp::to_rfc3339),
            id: self.id,
            all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_an_age() {
        assert_eq!(
            parse_time("1970-01-01T01:00:01+01:00").unwrap(),
            Timestamp(1_000_000)
        );
        let two_hours_ago = Timestamp::now().0 - 7_200_000_000;
        assert!((parse_time("2h").unwrap().0 - two_hours_ago).abs() < 60_000_000);
        for bad in ["", "yesterday", "-2h", "2026-11-20", "99999999999999999999h"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_filter_requires_all() {
        let mut filter = OpenFilter::default();
        assert!(filter.body(false).is_err());
        let all = DeadLetterSelection {
            all: true,
            ..DeadLetterSelection::default()
        };
        assert_eq!(filter.body(true).unwrap(), all);
        filter.id = Some(7);
        let one = DeadLetterSelection {
            id: Some(7),
            ..DeadLetterSelection::default()
        };
        assert_eq!(filter.body(false).unwrap(), one);
        let filter = Filter {
            common: CommonFilter {
                reason: Some("no `at`*".into()),
                since: Some(Timestamp(1_000_000)),
                ..CommonFilter::default()
            },
            state: Some("open".into()),
        };
        assert_eq!(
            filter.query(),
            "reason=no+%60at%60*&since=1970-01-01T00%3A00%3A01.000000Z&state=open"
        );
    }
}
