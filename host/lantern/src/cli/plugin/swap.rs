//! `lantern plugin install`, `activate` and `rollback`: another version comes, and takes over.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::signature::Signature;
use super::{Reference, Short, diff, path, trial};
use crate::cli::author::sign::with_end;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print, print_json};
use lantern_lifecycle::Component;
use lantern_model::schema::PluginName;
use lantern_model::schema::difference::{Difference, Effect};
use lantern_trust::signature::FILE_SUFFIX;

#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The component: a file, - for standard input, where a host has one
    /// (http://HOST:PORT/api/v1/plugins/NAME/component?version=VERSION), or a reference to a registry
    /// (oci://ghcr.io/me/orders:0.1.0; in programs that are built with the feature oci).
    #[arg(value_name = "FILE|-|URL|OCI")]
    file: PathBuf,
    /// Its signature, where it is not beside it as FILE.minisig.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// A file with a token for the host in URL. No other token is sent to it.
    #[arg(long, value_name = "FILE")]
    from_token_file: Option<PathBuf>,
    /// Make it run as well.
    #[arg(long, conflicts_with = "canary")]
    activate: bool,
    /// Try it beside the version that runs, on the last N messages of each stream, and say what would change.
    #[arg(long, value_name = "N")]
    canary: Option<u64>,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ActivateArgs {
    /// The plugin; with @DIGEST (eight digits or more) or @VERSION that version, otherwise its newest.
    #[arg(value_name = "NAME[@VERSION]")]
    plugin: Reference,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// What the host answers.
#[derive(Deserialize, Serialize)]
struct Taken {
    plugin: String,
    version: String,
    digest: String,
    state: String,
    #[serde(default)]
    signature: Signature,
    from: Option<String>,
    effect: Effect,
    differences: Vec<Difference>,
    healed: Option<Healed>,
    restored: Option<i64>,
}

#[derive(Deserialize, Serialize)]
struct Healed {
    tried: u64,
    resolved: u64,
    rows: u64,
}

/// What was installed, and what its canary showed.
#[derive(Serialize)]
struct Tried<'a> {
    installed: &'a Taken,
    canary: &'a trial::Report,
}

pub fn install(args: &InstallArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let mut component = read(args)?;
    if let Some(file) = &args.signature {
        component.signature = Some(read_file(file)?);
    }
    let path = format!("/api/v1/plugins?activate={}", args.activate);
    let taken: Taken = client.post_component(&path, component)?;
    let Some(messages) = args.canary else {
        return say(&taken, args.json);
    };
    let name = PluginName::parse(&taken.plugin).map_err(Failure::usage)?;
    let plugin = Reference { name, version: None };
    let report = trial::try_out(&client, &plugin, &taken.digest, Some(messages), None)?;
    if args.json {
        return print_json(&Tried {
            installed: &taken,
            canary: &report,
        });
    }
    print(&format!(
        "{}\n{}\nto make it run: lantern plugin activate {}@{}\n",
        render(&taken),
        trial::render(&report),
        taken.plugin,
        Short(&taken.digest)
    ))
}

/// The component, with the signature that is beside it.
fn read(args: &InstallArgs) -> Result<Component, Failure> {
    let file = args.file.as_path();
    if let Some(url) = file.to_str().filter(|text| text.starts_with("http://")) {
        let Some(at) = url.find("/api/") else {
            return Err(Failure::usage(format!("{url} is not an address of a host's API")));
        };
        let (from, path) = url.split_at(at);
        return Client::source(from, args.from_token_file.as_deref())?.get_component(path);
    }
    if args.from_token_file.is_some() {
        return Err(Failure::usage(
            "--from-token-file is for a component that is fetched from http://…",
        ));
    }
    if let Some(reference) = file.to_str().and_then(|text| text.strip_prefix("oci://")) {
        return pull(reference);
    }
    if file.as_os_str() != "-" {
        let beside = with_end(file, FILE_SUFFIX);
        let signature = match std::fs::symlink_metadata(&beside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // Whatever else is in the way, reading says it.
            _ => Some(read_file(&beside)?),
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
        .context("cannot read standard input")
        .map_err(Failure::new)?;
    Ok(bytes.into())
}

#[cfg(feature = "oci")]
use super::oci::pull;

#[cfg(not(feature = "oci"))]
fn pull(reference: &str) -> Result<Component, Failure> {
    let words = "this program cannot pull from registries: it was built without the feature oci";
    Err(Failure::usage(words).hint(format!(
        "build it with cargo build --release --features oci, or pull with wkg oci pull {reference} and install the file"
    )))
}

fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .with_context(|| format!("cannot read {}", file.display()))
        .map_err(Failure::new)
}

pub fn activate(args: &ActivateArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let body = json!({"digest": args.plugin.version});
    let taken: Taken = client.post_json(&path(&args.plugin.name, "/activate"), &body)?;
    say(&taken, args.json)
}

pub fn rollback(args: &RollbackArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let taken: Taken = client.post_json(&path(&args.name, "/rollback"), &json!({}))?;
    say(&taken, args.json)
}

fn say(taken: &Taken, json: bool) -> Result<(), Failure> {
    match json {
        true => print_json(taken),
        false => print(&render(taken)),
    }
}

fn render(taken: &Taken) -> String {
    let Taken {
        plugin,
        version,
        digest,
        state,
        ..
    } = taken;
    let digest = Short(digest);
    let is_new = taken.from.as_ref() != Some(&taken.digest);
    let mut text = match state.as_str() {
        "paused" => format!("{plugin} {version} ({digest}) is the active version, and paused\n"),
        state => format!("{plugin} {version} ({digest}) is {state}\n"),
    };
    if let Some(words) = taken.signature.in_words() {
        text.push_str(&format!("its signature: {words}\n"));
    }
    if let Some(from) = taken.from.as_deref().filter(|_| is_new) {
        text.push_str(&format!("\ncompared with {}:\n", Short(from)));
        text.push_str(&diff::render(&taken.differences, taken.effect));
    }
    if let Some(healed) = taken.healed.as_ref().filter(|healed| healed.tried > 0) {
        let Healed { tried, resolved, .. } = healed;
        text.push_str(&format!("\n{resolved} of {tried} dead letters now decode\n"));
    }
    if let Some(rebuild) = taken.restored {
        text.push_str(&format!(
            "\nthe tables from before rebuild {rebuild} are in use again; messages that were handled since are read again\n"
        ));
    }
    let next = match state.as_str() {
        "active" if is_new && taken.from.is_some() => {
            format!("to go back: lantern plugin rollback {plugin}")
        }
        "active" => format!("to see how it does: lantern plugin show {plugin}"),
        "paused" => format!("to let it go on: lantern plugin resume {plugin}"),
        _ if taken.effect == Effect::NeedsRebuild => {
            format!("it can run when its tables are filled anew: lantern rebuild {plugin}@{digest}")
        }
        _ => format!("to make it run: lantern plugin activate {plugin}@{digest}"),
    };
    text.push_str(&format!("\n{next}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_told_with_what_to_do_next() {
        let mut taken = Taken {
            plugin: "obs".into(),
            version: "1.1.0".into(),
            digest: "sha256:0123456789abcdef".into(),
            state: "installed".into(),
            signature: Signature::default(),
            from: Some("sha256:aaaaaaaaaaaaaaaa".into()),
            effect: Effect::Additive,
            differences: vec![Difference {
                place: "table t, column c".into(),
                words: "is new".into(),
                effect: Effect::Additive,
            }],
            healed: None,
            restored: None,
        };
        assert_eq!(
            render(&taken),
            "\
obs 1.1.0 (0123456789ab) is installed

compared with aaaaaaaaaaaa:
  - table t, column c: is new
tables, columns, indexes or sources are added with the swap

to make it run: lantern plugin activate obs@0123456789ab
"
        );
        taken.signature.state = "missing".into();
        taken.signature.reason = Some("it has no signature".into());
        assert!(render(&taken).contains("\nits signature: missing: it has no signature\n"));
        taken.signature = Signature::default();
        taken.state = "active".into();
        taken.differences.clear();
        taken.effect = Effect::None;
        taken.healed = Some(Healed {
            tried: 41,
            resolved: 37,
            rows: 37,
        });
        assert_eq!(
            render(&taken),
            "\
obs 1.1.0 (0123456789ab) is active

compared with aaaaaaaaaaaa:
  no difference in what they say of themselves

37 of 41 dead letters now decode

to go back: lantern plugin rollback obs
"
        );
    }
}
