//! `lantern plugin keygen` and `sign`: a component gets a signature beside it, as minisign writes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::cli::{Failure, print};
use lantern_trust::private_files;
use lantern_trust::signature::{FILE_SUFFIX, sign};

/// What is typed after `lantern plugin keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Where the keys are written: NAME.key, which is for you alone, and NAME.pub, which is for everybody.
    #[arg(default_value = "publisher")]
    name: PathBuf,
    /// Do not protect the secret key with a password: for machines that sign, which keep it elsewhere.
    #[arg(long)]
    no_password: bool,
}

/// What is typed after `lantern plugin sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The component; its signature is written beside it, as FILE.minisig.
    file: PathBuf,
    /// The secret key, made by `lantern plugin keygen` or `minisign -G`. Its password is asked for where it has one.
    #[arg(long, value_name = "FILE")]
    secret_key: PathBuf,
    /// What the signature vouches for beside the bytes [default: the time and the file's name].
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

pub fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let [secret, public] = ["key", "pub"].map(|end| with_end(&args.name, &format!(".{end}")));
    for path in [&secret, &public] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Failure::usage(format!("{} is there already", path.display()))
                .hint("a key that is lost cannot be made again; give another name"));
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
        "{}  for you alone: whoever has it signs in your name\n{}  for everybody\n\n{}",
        secret.display(),
        public.display(),
        trust(line)
    ))
}

pub fn run(args: &SignArgs) -> Result<(), Failure> {
    let read = |path: &Path| format!("cannot read {}", path.display());
    let component = fs::read(&args.file).with_context(|| read(&args.file))?;
    let secret_key = fs::read_to_string(&args.secret_key).with_context(|| read(&args.secret_key))?;
    let password = match sign::is_encrypted(&secret_key)? {
        true => Some(ask(&format!("Password of {}: ", args.secret_key.display()))?),
        false => None,
    };
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let signed = sign::sign(&component, &name, &secret_key, password, args.comment.as_deref())?;
    let out = with_end(&args.file, FILE_SUFFIX);
    fs::write(&out, &signed.signature).with_context(|| format!("cannot write {}", out.display()))?;
    print(&format!(
        "{}\n  key  {}\n\n{}",
        out.display(),
        signed.key,
        trust(&signed.public_key)
    ))
}

/// A file's path with something behind its name.
pub fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn trust(public_key: &str) -> String {
    format!("a host that trusts it has in its configuration:\n  plugins.keys = \"{public_key}\"\n")
}

fn new_password() -> Result<String, Failure> {
    let password = ask("Password for the new key: ")?;
    if password.is_empty() {
        return Err(Failure::usage("the password is empty").hint("give --no-password when that is meant"));
    }
    if ask("The same once more: ")? != password {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(password)
}

/// Asks on the terminal, without showing what is typed.
fn ask(question: &str) -> Result<String, Failure> {
    rpassword::prompt_password(question).map_err(|error| {
        let error = anyhow::Error::new(error).context("the password cannot be asked for");
        Failure::new(error).hint("this needs a terminal; machines sign with a key without a password")
    })
}
