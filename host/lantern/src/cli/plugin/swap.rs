//! `lantern plugin install`, `activate` and `rollback`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Reference, Short, canary, diff, path, signature};
use crate::cli::author::sign::with_suffix;
use crate::cli::client::{Client, OutputArgs};
use crate::cli::{Failure, print, print_json};
use lantern_api::{Activate, CanaryReport, ChangedVersion, RetryTotals, VersionState};
use lantern_lifecycle::Component;
use lantern_model::schema::PluginName;
use lantern_model::schema::difference::Effect;
use lantern_trust::signature::FILE_SUFFIX;

#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Component: a file, - for standard input, the URL of a component in a host
    /// (http://HOST:PORT/api/v1/plugins/NAME/component?version=VERSION), or a reference to an OCI registry
    /// (oci://ghcr.io/me/orders:0.1.0; requires a build with the feature oci).
    #[arg(value_name = "FILE|-|URL|OCI")]
    file: PathBuf,
    /// Signature file [default: FILE.minisig, if it exists].
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// File with the token for the host in URL. No other token is sent to that host.
    #[arg(long, value_name = "FILE")]
    from_token_file: Option<PathBuf>,
    /// Also activate the version.
    #[arg(long, conflicts_with = "canary")]
    activate: bool,
    /// Run a canary of the version on the last N messages of each stream.
    #[arg(long, value_name = "N")]
    canary: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ActivateArgs {
    /// Plugin, with an optional version: @DIGEST (at least eight digits) or @VERSION [default: the newest].
    #[arg(value_name = "NAME[@VERSION]")]
    plugin: Reference,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Name of the plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    #[command(flatten)]
    output: OutputArgs,
}

/// An installed version with the report of its canary.
#[derive(Serialize)]
struct InstalledWithCanary<'a> {
    installed: &'a ChangedVersion,
    canary: &'a CanaryReport,
}

pub fn install(args: &InstallArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let mut component = read(args)?;
    if let Some(file) = &args.signature {
        component.signature = Some(read_file(file)?);
    }
    let path = format!("/api/v1/plugins?activate={}", args.activate);
    let changed: ChangedVersion = client.post_component(&path, component)?;
    let Some(messages) = args.canary else {
        return args.output.print(&changed, render);
    };
    let name = PluginName::parse(&changed.plugin).map_err(Failure::usage)?;
    let plugin = Reference { name, version: None };
    let report = canary::run_canary(&client, &plugin, &changed.digest, Some(messages), None)?;
    if args.output.json {
        return print_json(&InstalledWithCanary {
            installed: &changed,
            canary: &report,
        });
    }
    print(&render_with_canary(&changed, &report))
}

/// The version, the report, and the command that activates the version; where that needs a rebuild, the report names it.
fn render_with_canary(changed: &ChangedVersion, report: &CanaryReport) -> String {
    let mut text = format!("{}\n{}", render(changed), canary::render(report));
    if !report.needs_rebuild {
        let (plugin, digest) = (&changed.plugin, Short(&changed.digest));
        text.push_str(&format!(
            "\nto activate: lantern plugin activate {plugin}@{digest}\n"
        ));
    }
    text
}

/// Reads the component and its signature.
fn read(args: &InstallArgs) -> Result<Component, Failure> {
    let file = args.file.as_path();
    if let Some(url) = file.to_str().filter(|text| text.starts_with("http://")) {
        let Some(at) = url.find("/api/") else {
            return Err(Failure::usage(format!(
                "invalid URL {url}: not an API path of a host"
            )));
        };
        let (from, path) = url.split_at(at);
        return Client::source(from, args.from_token_file.as_deref())?.get_component(path);
    }
    if args.from_token_file.is_some() {
        return Err(Failure::usage(
            "--from-token-file requires a component URL (http://…)",
        ));
    }
    if let Some(reference) = file.to_str().and_then(|text| text.strip_prefix("oci://")) {
        return pull(reference);
    }
    if file.as_os_str() != "-" {
        let signature_file = with_suffix(file, FILE_SUFFIX);
        let signature = match std::fs::symlink_metadata(&signature_file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // Other errors are reported by the read.
            _ => Some(read_file(&signature_file)?),
        };
        return Ok(Component {
            bytes: read_file(file)?,
            signature,
        });
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .context("failed to read standard input")
        .map_err(Failure::new)?;
    Ok(bytes.into())
}

#[cfg(feature = "oci")]
use super::oci::pull;

#[cfg(not(feature = "oci"))]
fn pull(reference: &str) -> Result<Component, Failure> {
    let message = "this build does not support OCI registries (feature oci)";
    Err(Failure::usage(message).hint(format!(
        "build with `cargo build --release --features oci`, or run `wkg oci pull {reference}` and install the file"
    )))
}

fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .with_context(|| format!("failed to read {}", file.display()))
        .map_err(Failure::new)
}

pub fn activate(args: &ActivateArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let body = Activate {
        digest: args.plugin.version.clone(),
    };
    let changed: ChangedVersion = client.post_json(&path(&args.plugin.name, "/activate"), &body)?;
    args.output.print(&changed, render)
}

pub fn rollback(args: &RollbackArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let changed: ChangedVersion = client.post_json(&path(&args.name, "/rollback"), &json!({}))?;
    args.output.print(&changed, render)
}

fn render(changed: &ChangedVersion) -> String {
    let ChangedVersion {
        plugin,
        version,
        digest,
        state,
        ..
    } = changed;
    let digest = Short(digest);
    let is_new = changed.from.as_ref() != Some(&changed.digest);
    let mut text = match state {
        VersionState::Paused => format!("{plugin} {version} ({digest}) is active and paused\n"),
        state => format!("{plugin} {version} ({digest}) is {}\n", state.as_str()),
    };
    if let Some(signature) = signature::describe(&changed.signature) {
        text.push_str(&format!("signature: {signature}\n"));
    }
    if let Some(from) = changed.from.as_deref().filter(|_| is_new) {
        text.push_str(&format!("\ndifferences from {}:\n", Short(from)));
        text.push_str(&diff::render(&changed.differences, changed.effect));
    }
    if let Some(RetryTotals {
        retried, resolved, ..
    }) = changed.retry.filter(|retry| retry.retried > 0)
    {
        text.push_str(&format!("\nresolved {resolved} of {retried} dead letters\n"));
    }
    if changed.retry_continues {
        text.push_str("the host retries the remaining dead letters in the background\n");
    }
    if let Some(rebuild) = changed.restored {
        text.push_str(&format!(
            "\nrestored the tables from before rebuild {rebuild}; the host reads later messages again\n"
        ));
    }
    let next = match state {
        VersionState::Active if is_new && changed.from.is_some() => {
            format!("to roll back: lantern plugin rollback {plugin}")
        }
        VersionState::Active => format!("to see its status: lantern plugin show {plugin}"),
        VersionState::Paused => format!("to resume: lantern plugin resume {plugin}"),
        _ if changed.effect == Effect::NeedsRebuild => {
            format!("activation requires a rebuild: lantern rebuild {plugin}@{digest}")
        }
        _ => format!("to activate: lantern plugin activate {plugin}@{digest}"),
    };
    text.push_str(&format!("\n{next}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_api::{Signature, SignatureState};
    use lantern_model::schema::difference::Difference;

    #[test]
    fn a_changed_version_is_rendered_with_the_next_command() {
        let mut changed = ChangedVersion {
            plugin: "obs".into(),
            version: "1.1.0".into(),
            digest: "sha256:0123456789abcdef".into(),
            state: VersionState::Installed,
            signature: Signature::default(),
            from: Some("sha256:aaaaaaaaaaaaaaaa".into()),
            effect: Effect::Additive,
            differences: vec![Difference {
                place: "table t, column c".into(),
                change: "is new".into(),
                effect: Effect::Additive,
            }],
            retry: None,
            retry_continues: false,
            restored: None,
        };
        assert_eq!(
            render(&changed),
            "\
obs 1.1.0 (0123456789ab) is installed

differences from aaaaaaaaaaaa:
  - table t, column c: is new
activation adds tables, columns, indexes or sources

to activate: lantern plugin activate obs@0123456789ab
"
        );
        changed.signature.state = SignatureState::Missing;
        changed.signature.reason = Some("it has no signature".into());
        assert!(render(&changed).contains("\nsignature: missing: it has no signature\n"));
        changed.signature = Signature::default();
        changed.state = VersionState::Active;
        changed.differences.clear();
        changed.effect = Effect::None;
        changed.retry = Some(RetryTotals {
            retried: 41,
            resolved: 37,
            ..RetryTotals::default()
        });
        assert_eq!(
            render(&changed),
            "\
obs 1.1.0 (0123456789ab) is active

differences from aaaaaaaaaaaa:
  no differences

resolved 37 of 41 dead letters

to roll back: lantern plugin rollback obs
"
        );
        changed.retry_continues = true;
        assert!(
            render(&changed).contains("\nthe host retries the remaining dead letters in the background\n")
        );
    }
}
