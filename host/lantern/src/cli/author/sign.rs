//! `lantern plugin keygen` and `sign`: create keys and signatures in the format of minisign.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::cli::{Failure, print};
use lantern_trust::private_files;
use lantern_trust::signature::{FILE_SUFFIX, sign};

/// Arguments of `lantern plugin keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Base name of the key files: NAME.key (secret) and NAME.pub (public).
    #[arg(default_value = "publisher")]
    name: PathBuf,
    /// Create a secret key without a password, for automated signing.
    #[arg(long)]
    no_password: bool,
}

/// Arguments of `lantern plugin sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// Component; the signature is written to FILE.minisig.
    file: PathBuf,
    /// Secret key from `lantern plugin keygen` or `minisign -G`. The command asks for its password, if it has one.
    #[arg(long, value_name = "FILE")]
    secret_key: PathBuf,
    /// Signed comment [default: time and file name].
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

pub fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let [secret, public] = ["key", "pub"].map(|extension| with_suffix(&args.name, &format!(".{extension}")));
    for path in [&secret, &public] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Failure::usage(format!("{} already exists", path.display()))
                .hint("choose another name; an overwritten key cannot be restored"));
        }
    }
    let password = match args.no_password {
        true => None,
        false => Some(new_password()?),
    };
    let keys = sign::make_keys(password)?;
    private_files::create(&secret, &keys.secret, private_files::OWNER_ONLY).map_err(Failure::new)?;
    private_files::create(&public, &keys.public, 0o644).map_err(Failure::new)?;
    let line = keys.public.lines().nth(1).unwrap_or_default();
    print(&format!(
        "{}  secret key; keep it private\n{}  public key\n\n{}",
        secret.display(),
        public.display(),
        trust(line)
    ))
}

pub fn run(args: &SignArgs) -> Result<(), Failure> {
    let read = |path: &Path| format!("failed to read {}", path.display());
    let component = fs::read(&args.file).with_context(|| read(&args.file))?;
    let secret_key = fs::read_to_string(&args.secret_key).with_context(|| read(&args.secret_key))?;
    let password = match sign::is_encrypted(&secret_key)? {
        true => Some(ask(&format!("Password of {}: ", args.secret_key.display()))?),
        false => None,
    };
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let signed = sign::sign(&component, &name, &secret_key, password, args.comment.as_deref())?;
    let out = with_suffix(&args.file, FILE_SUFFIX);
    fs::write(&out, &signed.signature).with_context(|| format!("failed to write {}", out.display()))?;
    print(&format!(
        "{}\n  key  {}\n\n{}",
        out.display(),
        signed.key,
        trust(&signed.public_key)
    ))
}

/// Appends a suffix to the name of a file.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn trust(public_key: &str) -> String {
    format!("to trust this key, set in the configuration of the host:\n  plugins.keys = \"{public_key}\"\n")
}

fn new_password() -> Result<String, Failure> {
    let password = ask("Password for the new key: ")?;
    if password.is_empty() {
        return Err(
            Failure::usage("the password is empty").hint("use --no-password for a key without a password")
        );
    }
    if ask("Repeat the password: ")? != password {
        return Err(Failure::usage("the passwords do not match"));
    }
    Ok(password)
}

/// Asks on the terminal, without echo.
fn ask(question: &str) -> Result<String, Failure> {
    rpassword::prompt_password(question).map_err(|error| {
        let error = anyhow::Error::new(error).context("failed to read the password");
        Failure::new(error)
            .hint("a password requires a terminal; for automated signing use a key without a password")
    })
}
