//! `lantern gaps`: messages that were lost before the host read them, with the reason.

use std::process::ExitCode;

use clap::Args;
use url::form_urlencoded::Serializer;

use super::client::OutputArgs;
use super::{Failure, plugin, table};
use lantern_api::Gap;
use lantern_model::schema::{PluginName, SourceName};

/// Largest page of the API.
const PAGE_MAX: usize = 1_000;

#[derive(Debug, Args)]
pub struct GapsArgs {
    /// Only gaps of this plugin.
    #[arg(long, value_name = "NAME", value_parser = PluginName::parse)]
    plugin: Option<PluginName>,
    /// Only gaps of this source.
    #[arg(long, value_name = "NAME", value_parser = SourceName::parse)]
    source: Option<SourceName>,
    /// Maximum number of gaps, newest first.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &GapsArgs) -> Result<ExitCode, Failure> {
    let client = args.output.open()?;
    let gaps: Vec<Gap> = client.newest(&list(args), args.limit, PAGE_MAX)?;
    if gaps.is_empty() {
        plugin::require(&client, args.plugin.as_ref())?;
    }
    args.output.print(&gaps[..], render)?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &GapsArgs) -> String {
    let mut query = Serializer::new(String::new());
    if let Some(plugin) = &args.plugin {
        query.append_pair("plugin", plugin.as_str());
    }
    if let Some(source) = &args.source {
        query.append_pair("source", source.as_str());
    }
    format!("/api/v1/gaps?{}", query.finish())
}

fn render(gaps: &[Gap]) -> String {
    if gaps.is_empty() {
        return "no gaps: no message was lost before it was read\n".to_owned();
    }
    let head = [
        "noticed",
        "plugin/source",
        "epoch",
        "stream",
        "sequences",
        "missing",
        "reason",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(gaps.iter().map(|gap| {
        let Gap {
            first_sequence: first,
            last_sequence: last,
            ..
        } = gap;
        vec![
            table::to_the_second(&gap.recorded_at),
            format!("{}/{}", gap.plugin, gap.source),
            gap.epoch.to_string(),
            gap.stream.clone().unwrap_or_else(|| "-".into()),
            match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            },
            // Messages on other subjects of the stream may be among them.
            match gap.exact {
                true => gap.missing.to_string(),
                false => format!("up to {}", gap.missing),
            },
            gap.reason.clone(),
        ]
    }));
    table::align(&rows, &[false, false, true, false, true, true], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_listed_with_the_number_of_missing_messages() {
        let gap = |first, last, exact| Gap {
            id: 1,
            plugin: "obs-events".into(),
            source: "obs".into(),
            epoch: 1,
            origin: 1,
            stream: Some("OBS_EVENTS".into()),
            first_sequence: first,
            last_sequence: last,
            missing: last - first + 1,
            exact,
            reason: "the stream begins later".into(),
            recorded_at: "2026-11-20T10:00:00.123456Z".into(),
        };
        assert_eq!(
            render(&[gap(5, 5, true), gap(1, 3, false)]),
            "\
noticed               plugin/source   epoch  stream      sequences  missing  reason
2026-11-20T10:00:00Z  obs-events/obs      1  OBS_EVENTS          5        1  the stream begins later
2026-11-20T10:00:00Z  obs-events/obs      1  OBS_EVENTS        1-3  up to 3  the stream begins later
"
        );
        assert!(render(&[]).starts_with("no gaps"));
    }
}
