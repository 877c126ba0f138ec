//! Settings that an operator may set for one plugin: its limits, its dead letters, its automatic rollback, and whether
//! it may import WASI and subscribe to internal subjects. Absent values mean the defaults of the host.
//!
//! The API accepts and the database stores its JSON, so fields are only ever added. The bounds are the same as in the
//! host's own configuration, which uses these constants.

mod units;

pub use units::{ByteSize, parse_size};

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Default linear memory of an instance, in bytes: it holds many batches of messages.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 * MIB;
/// Default time for one message: long enough for any legitimate decoder, short enough that an endless loop causes only
/// a short delay.
pub const MESSAGE_TIME_DEFAULT: Duration = Duration::from_secs(1);
/// Default number of rows in the answer to one message.
pub const ROWS_PER_MESSAGE_DEFAULT: u64 = 1_000;
/// Default bytes of values in the answer to one message.
pub const BYTES_PER_MESSAGE_DEFAULT: u64 = 8 * MIB;
/// Default size of the largest component, in bytes.
pub const MODULE_BYTES_DEFAULT: u64 = 64 * MIB;
/// Default time for compiling a component.
pub const COMPILE_TIME_DEFAULT: Duration = Duration::from_secs(30);
/// Default memory for compiling a component, in bytes.
pub const COMPILE_MEMORY_BYTES_DEFAULT: u64 = GIB;

/// Linear memory of an instance, in bytes.
pub const MEMORY_BYTES: RangeInclusive<u64> = MIB..=4 * GIB;
/// Time for one message.
pub const MESSAGE_TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// Rows in the answer to one message.
pub const ROWS_PER_MESSAGE: RangeInclusive<u64> = 1..=100_000;
/// Bytes of values in the answer to one message.
pub const BYTES_PER_MESSAGE: RangeInclusive<u64> = KIB..=256 * MIB;
/// Open dead letters of one source.
pub const DEAD_LETTERS: RangeInclusive<u64> = 1..=100_000_000;
/// Messages before a swap is judged; no window contains more.
const ROLLBACK_MESSAGES: RangeInclusive<u64> = 1..=1_000_000_000;
/// Seconds for which a swap is monitored: up to thirty days.
const ROLLBACK_WINDOW_S: RangeInclusive<u64> = 1..=30 * 24 * 60 * 60;
/// Percentage points by which the share of rejected messages may grow.
const ROLLBACK_EXCESS_PERCENT: RangeInclusive<u64> = 0..=100;

/// The settings of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Settings)]
pub struct PluginSettings {
    /// Limits of its instances.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: PluginLimitSettings,
    /// Limit of its open dead letters.
    #[serde(skip_serializing_if = "is_default")]
    pub dead_letters: DeadLetterSettings,
    /// The automatic rollback of a new version.
    #[serde(skip_serializing_if = "is_default")]
    pub rollback: RollbackSettings,
    /// Whether it may import WASI, whose interfaces are all empty.
    #[serde(skip_serializing_if = "is_default")]
    pub wasi: bool,
    /// Whether its core NATS sources may subscribe to internal subjects of the broker and its clients, such as `>`,
    /// `$JS.>`, `$SYS.>` and `_INBOX.>`.
    #[serde(skip_serializing_if = "is_default")]
    pub internal_subjects: bool,
}

/// Limits of the instances of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = LimitSettings)]
pub struct PluginLimitSettings {
    /// Linear memory of one instance: a number of bytes, or text with a unit such as `64 MiB`.
    #[serde(
        rename = "memory",
        with = "units::size",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = String, nullable = false, required = false)]
    pub memory_bytes: Option<u64>,
    /// Processor time for one message, and for one call of several: text with a unit, such as `500ms`.
    #[serde(with = "units::time", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, required = false)]
    pub message_time: Option<Duration>,
    /// Rows in the answer to one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rows_per_message: Option<u64>,
    /// Bytes of values in the answer to one message, in the same format as `memory`.
    #[serde(with = "units::size", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, required = false)]
    pub bytes_per_message: Option<u64>,
}

/// Limit of open dead letters of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterSettings {
    /// Maximum open dead letters of each of its sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub max: Option<u64>,
    /// What happens at the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub policy: Option<DeadLetterPolicy>,
}

/// What happens when a source has the maximum number of open dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeadLetterPolicy {
    /// The source stops until an operator acts. Nothing is lost.
    #[default]
    Halt,
    /// The oldest are discarded.
    DropOldest,
}

/// The automatic rollback of a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackSettings {
    /// Whether automatic rollback is enabled (default: true).
    #[serde(skip_serializing_if = "is_true")]
    pub enabled: bool,
    /// Messages that the new version must have handled before it is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub messages_min: Option<u64>,
    /// Seconds after the swap for which the version is monitored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub window_s: Option<u64>,
    /// Percentage points by which its share of rejected messages may exceed the previous version's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub excess_percent: Option<u64>,
}

impl Default for RollbackSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            messages_min: None,
            window_s: None,
            excess_percent: None,
        }
    }
}

impl PluginSettings {
    /// Parses and checks the JSON of settings.
    ///
    /// # Errors
    /// The parse error if it is not valid settings JSON, else all values that are out of bounds.
    pub fn from_json(json: &str) -> Result<Self, Vec<String>> {
        let settings: Self = serde_json::from_str(json).map_err(|error| vec![error.to_string()])?;
        settings.check()?;
        Ok(settings)
    }

    /// Sets one value by its path, such as `limits.memory`, from an operator's text. Empty text resets it to the
    /// default. Does not check bounds, so that several values can be set and then checked together.
    ///
    /// # Errors
    /// When the setting does not exist or the text is not a valid value; the settings are then unchanged.
    pub fn set(&mut self, path: &str, text: &str) -> Result<(), String> {
        use serde_json::Value;
        let at_path = |error: String| format!("{path}: {error}");
        let mut whole = serde_json::to_value(&*self).map_err(|error| at_path(error.to_string()))?;
        let mut at = &mut whole;
        for key in path.split('.') {
            let Value::Object(table) = at else {
                return Err(at_path("there is no such setting".to_owned()));
            };
            at = table
                .entry(key)
                .or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
        *at = match text {
            "" => Value::Null,
            // Anything except numbers and booleans is text: sizes, durations and names need no quotes.
            _ => match serde_json::from_str(text) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
                _ => Value::String(text.to_owned()),
            },
        };
        drop_nulls(&mut whole);
        *self = serde_json::from_value(whole).map_err(|error| at_path(error.to_string()))?;
        Ok(())
    }

    /// Checks that every value is within its bounds.
    ///
    /// # Errors
    /// One message per value out of bounds, each beginning with the setting's path.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let (limits, rollback) = (&self.limits, &self.rollback);
        let time = |time: &Duration| humantime::format_duration(*time).to_string();
        let size = |bytes: &u64| ByteSize(*bytes).to_string();
        let mut one =
            |path, value, bounds| problems.extend(out_of_bounds(path, value, &bounds, u64::to_string));
        one(
            "limits.rows_per_message",
            limits.rows_per_message,
            ROWS_PER_MESSAGE,
        );
        one("dead_letters.max", self.dead_letters.max, DEAD_LETTERS);
        one("rollback.messages_min", rollback.messages_min, ROLLBACK_MESSAGES);
        one("rollback.window_s", rollback.window_s, ROLLBACK_WINDOW_S);
        one(
            "rollback.excess_percent",
            rollback.excess_percent,
            ROLLBACK_EXCESS_PERCENT,
        );
        problems.extend(out_of_bounds(
            "limits.memory",
            limits.memory_bytes,
            &MEMORY_BYTES,
            size,
        ));
        problems.extend(out_of_bounds(
            "limits.message_time",
            limits.message_time,
            &MESSAGE_TIME,
            time,
        ));
        problems.extend(out_of_bounds(
            "limits.bytes_per_message",
            limits.bytes_per_message,
            &BYTES_PER_MESSAGE,
            size,
        ));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_true(value: &bool) -> bool {
    *value
}

/// Removes values that were reset.
fn drop_nulls(value: &mut serde_json::Value) {
    if let serde_json::Value::Object(table) = value {
        table.retain(|_, value| !value.is_null());
        table.values_mut().for_each(drop_nulls);
    }
}

/// The error message for a value out of bounds.
fn out_of_bounds<T: PartialOrd, W: Display>(
    path: &str,
    value: Option<T>,
    bounds: &RangeInclusive<T>,
    display: impl Fn(&T) -> W,
) -> Option<String> {
    let value = value.filter(|value| !bounds.contains(value))?;
    Some(format!(
        "{path}: {} is out of range; give a value from {} to {}",
        display(&value),
        display(bounds.start()),
        display(bounds.end())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_round_trip(json: &str) -> PluginSettings {
        let settings = PluginSettings::from_json(json).unwrap();
        assert_eq!(serde_json::to_string(&settings).unwrap(), json);
        settings
    }

    #[test]
    fn default_settings_are_empty_json() {
        assert_eq!(check_round_trip("{}"), PluginSettings::default());
        assert!(PluginSettings::default().rollback.enabled);
        let same = r#"{"limits":{},"rollback":{"enabled":true},"wasi":false}"#;
        assert_eq!(
            PluginSettings::from_json(same).unwrap(),
            PluginSettings::default()
        );
    }

    #[test]
    fn all_settings_survive_a_json_round_trip() {
        let settings = check_round_trip(
            r#"{"limits":{"memory":"128 MiB","message_time":"1s 500ms","rows_per_message":5,"bytes_per_message":"1500 B"},"dead_letters":{"max":7,"policy":"drop-oldest"},"rollback":{"enabled":false,"messages_min":100,"window_s":600,"excess_percent":3},"wasi":true}"#,
        );
        assert_eq!(settings.limits.memory_bytes, Some(128 << 20));
        assert_eq!(settings.limits.message_time, Some(Duration::from_millis(1_500)));
        assert_eq!(settings.dead_letters.policy, Some(DeadLetterPolicy::DropOldest));
        let numbers = PluginSettings::from_json(r#"{"limits":{"memory":2097152}}"#).unwrap();
        assert_eq!(numbers.limits.memory_bytes, Some(2 << 20));
    }

    #[test]
    fn unknown_settings_and_values_are_rejected() {
        for (json, words) in [
            (r#"{"limit":{}}"#, "unknown field `limit`"),
            (
                r#"{"limits":{"memory_bytes":1}}"#,
                "unknown field `memory_bytes`, expected one of `memory`",
            ),
            (r#"{"limits":{"memory":"64 mib"}}"#, "\"64 mib\" is not a size"),
            (r#"{"limits":{"memory":-1}}"#, "such as \"64 MiB\""),
            (r#"{"limits":{"message_time":"5"}}"#, "\"5\" is not a duration"),
            (
                r#"{"dead_letters":{"policy":"forget"}}"#,
                "unknown variant `forget`",
            ),
            (r#"{"wasi":"yes"}"#, "expected a boolean"),
            ("[1]", "invalid"),
        ] {
            let problems = PluginSettings::from_json(json).unwrap_err();
            assert!(problems[0].contains(words), "{words:?} is not in {problems:?}");
        }
    }

    #[test]
    fn all_values_out_of_bounds_are_reported_at_once() {
        let json = r#"{"limits":{"memory":"1 B","message_time":"2m","rows_per_message":0,"bytes_per_message":"1 GiB"},"dead_letters":{"max":0},"rollback":{"messages_min":0,"window_s":0,"excess_percent":101}}"#;
        let problems = PluginSettings::from_json(json).unwrap_err();
        assert_eq!(problems.len(), 8, "{problems:?}");
        for words in [
            "limits.memory: 1 B is out of range; give a value from 1 MiB to 4 GiB",
            "limits.message_time: 2m is out of range; give a value from 1ms to 1m",
            "rollback.excess_percent: 101 is out of range; give a value from 0 to 100",
        ] {
            assert!(
                problems.iter().any(|problem| problem == words),
                "{words:?} is not in {problems:?}"
            );
        }
    }

    #[test]
    fn one_setting_of_a_section_does_not_set_another() {
        let mut settings = PluginSettings::default();
        settings.set("rollback.excess_percent", "1").unwrap();
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(json, r#"{"rollback":{"excess_percent":1}}"#);
        assert!(PluginSettings::from_json(&json).unwrap().rollback.enabled);
    }

    #[test]
    fn single_values_are_set_from_text() {
        let mut settings = PluginSettings::default();
        for (path, text) in [
            ("limits.memory", "32 MiB"),
            ("limits.message_time", "250ms"),
            ("limits.rows_per_message", "9"),
            ("dead_letters.policy", "drop-oldest"),
            ("rollback.enabled", "false"),
            ("wasi", "true"),
        ] {
            settings.set(path, text).unwrap();
        }
        assert_eq!(settings.limits.memory_bytes, Some(32 << 20));
        assert!(settings.wasi && !settings.rollback.enabled);
        for path in ["limits", "dead_letters.policy", "rollback.enabled", "wasi"] {
            settings.set(path, "").unwrap();
        }
        assert_eq!(settings, PluginSettings::default());
        for (path, text, words) in [
            ("limits.memroy", "1", "limits.memroy: unknown field `memroy`"),
            ("wasi.more", "1", "wasi.more: "),
            ("limits.memory", "much", "limits.memory: \"much\" is not a size"),
            ("", "1", "unknown field ``"),
        ] {
            let problem = settings.set(path, text).unwrap_err();
            assert!(problem.contains(words), "{words:?} is not in {problem:?}");
            assert_eq!(settings, PluginSettings::default());
        }
    }
}
