//! What has to be there before a plugin can be written and run, looked at in order, each finding with what to do about it.
//! Looking changes nothing; what can be mended without asking is mended by [`Finding::mend`].

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::live;
use super::project::Project;
use super::sdk;
use lantern_broker::{BrokerConfig, Link, find_server};

/// The target of plugins in Rust.
const TARGET: &str = "wasm32-unknown-unknown";
/// Less room than this is told. The host itself stops taking in messages at its own reserve.
const ROOM_BYTES: u64 = 1 << 30;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Not needed for everything, or soon a trouble.
    Warning,
    /// Something will not work.
    Wrong,
}

/// What can be mended without asking: nothing of the author's is changed by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// `rustup target add`.
    AddTarget,
    /// The SDK of this program in place of an older one that nobody has changed.
    RenewSdk(PathBuf),
}

/// One thing that was looked at.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub state: State,
    /// In words.
    pub words: String,
    /// What to do about it.
    pub fix: Option<String>,
    /// What can be done about it without asking.
    #[serde(skip)]
    pub remedy: Option<Remedy>,
}

impl Finding {
    fn new(subject: &str, state: State, words: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            state,
            words: words.into(),
            fix: None,
            remedy: None,
        }
    }

    /// All is as it should be.
    pub fn good(subject: &str, words: impl Into<String>) -> Self {
        Self::new(subject, State::Good, words)
    }

    /// Something will not work.
    pub fn wrong(subject: &str, words: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(subject, State::Wrong, words).fix(fix)
    }

    /// Not needed for everything, or a risk.
    pub fn warning(subject: &str, words: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(subject, State::Warning, words).fix(fix)
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }

    /// Does what can be done about it, and says what was done. None where there is nothing that is safe to do.
    ///
    /// # Errors
    /// Why it did not work, in words.
    pub fn mend(&self) -> Option<Result<String, String>> {
        Some(match self.remedy.as_ref()? {
            Remedy::AddTarget => {
                let mut rustup = Command::new("rustup");
                rustup
                    .args(["target", "add", TARGET])
                    .stdin(Stdio::null())
                    .stdout(std::io::stderr());
                match rustup.status() {
                    Ok(status) if status.success() => Ok(format!("added the target {TARGET}")),
                    Ok(status) => Err(format!("`rustup target add {TARGET}` ended with {status}")),
                    Err(error) => Err(format!("rustup cannot be run: {error}")),
                }
            }
            Remedy::RenewSdk(project) => match sdk::write(project) {
                Ok(()) => Ok(format!("put the SDK {} into {}", sdk::version(), sdk::FOLDER)),
                Err(error) => Err(format!("the SDK cannot be written: {error}")),
            },
        })
    }
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// The project; there may be none.
    pub project: PathBuf,
    /// The data directory that a host has, or will have.
    pub data_dir: PathBuf,
    /// A broker that runs.
    pub nats: Option<String>,
    /// The `nats-server` that a host of one's own is to run.
    pub nats_server: Option<PathBuf>,
}

/// Looks at everything.
pub async fn look(places: &Places) -> Vec<Finding> {
    let mut findings = toolchain(&places.project);
    findings.extend(project(&places.project));
    findings.push(match &places.nats {
        Some(url) => broker(url).await,
        None => server(places.nats_server.as_deref()).await,
    });
    findings.extend(data_dir(&places.data_dir));
    findings
}

/// The first line that a program prints when it is run in the project's folder.
fn ask(dir: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let dir = if dir.is_dir() { dir } else { Path::new(".") };
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => Ok(text.lines().next().unwrap_or_default().to_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.lines().next().unwrap_or_default().to_owned())
        }
    }
}

fn toolchain(dir: &Path) -> Vec<Finding> {
    let rustc = match ask(dir, "rustc", &["--version"]) {
        Ok(version) => version,
        Err(words) => {
            return vec![Finding::wrong("Rust", words, "install it from https://rustup.rs")];
        }
    };
    let version = rustc.split(' ').nth(1).unwrap_or_default();
    let version = semver::Version::parse(version).ok();
    let needed = sdk::rust_version();
    let enough = match (&version, &needed) {
        (Some(version), Some(needed)) => (version.major, version.minor) >= (needed.major, needed.minor),
        _ => true,
    };
    let mut findings = vec![match enough {
        true => Finding::good("Rust", rustc),
        false => Finding::wrong(
            "Rust",
            format!(
                "{rustc}, and the SDK needs {}",
                needed.map(|needed| needed.to_string()).unwrap_or_default()
            ),
            "run `rustup update`",
        ),
    }];
    if let Err(words) = ask(dir, "cargo", &["--version"]) {
        findings.push(Finding::wrong(
            "cargo",
            words,
            "install Rust from https://rustup.rs",
        ));
    }
    let libraries = ask(dir, "rustc", &["--print", "target-libdir", "--target", TARGET]);
    findings.push(match libraries.is_ok_and(|libraries| Path::new(&libraries).is_dir()) {
        true => Finding::good("target", format!("{TARGET} is installed")),
        false => {
            let finding = Finding::wrong(
                "target",
                format!("{TARGET}, for which plugins are built, is not installed"),
                format!("run `rustup target add {TARGET}`"),
            );
            match ask(dir, "rustup", &["--version"]) {
                Ok(_) => finding.remedy(Remedy::AddTarget),
                Err(_) => finding.fix(
                    "this Rust is not from rustup: install the target's library with the same package manager, \
                     or Rust from https://rustup.rs",
                ),
            }
        }
    });
    findings
}

fn project(dir: &Path) -> Vec<Finding> {
    let project = match Project::open(dir) {
        Ok(project) => project,
        Err(super::project::ProjectError::Nothing(_)) => {
            return vec![Finding::good(
                "project",
                format!("there is none in {}", dir.display()),
            )];
        }
        Err(error) => {
            return vec![Finding::wrong(
                "project",
                error.to_string(),
                error.hint().unwrap_or_default(),
            )];
        }
    };
    match &project {
        Project::Cargo(dir) => cargo_project(dir),
        Project::Command { command, npm, .. } => {
            let program = command.first().map_or("", String::as_str);
            vec![match ask(dir, program, &["--version"]) {
                Ok(version) => Finding::good("project", format!("built with {program} ({version})")),
                Err(words) if *npm => Finding::wrong(
                    "project",
                    words,
                    "install Node.js 20 or later from https://nodejs.org",
                ),
                Err(words) => Finding::wrong(
                    "project",
                    words,
                    format!("install {program}, or activate its environment"),
                ),
            }]
        }
        Project::Component(file) => vec![Finding::good(
            "project",
            format!("{} is a component", file.display()),
        )],
    }
}

fn cargo_project(dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let table: toml::Table = match manifest.parse() {
        Ok(table) => table,
        Err(error) => {
            let error: toml::de::Error = error;
            return vec![Finding::wrong(
                "project",
                format!("Cargo.toml: {error}"),
                "mend it",
            )];
        }
    };
    let kinds = table
        .get("lib")
        .and_then(|lib| lib.get("crate-type"))
        .and_then(|kinds| kinds.as_array());
    let cdylib = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("cdylib")));
    findings.push(match cdylib {
        true => Finding::good("project", format!("a package in {}", dir.display())),
        false => Finding::wrong(
            "project",
            "the package is not built as a cdylib",
            "add to its Cargo.toml: [lib] crate-type = [\"cdylib\", \"rlib\"]",
        ),
    });
    let library = std::fs::read_to_string(dir.join("src/lib.rs")).unwrap_or_default();
    if !library.contains("export!(") {
        findings.push(Finding::wrong(
            "export",
            "src/lib.rs exports no plugin",
            "add `lantern_sdk::export!(YourPlugin);` to src/lib.rs",
        ));
    }
    let written_by = sdk::written_by(dir).unwrap_or_else(|| "an unknown version".to_owned());
    findings.extend(match sdk::state(dir) {
        Ok(sdk::State::Absent) => None,
        Ok(sdk::State::Same) => Some(Finding::good(
            "SDK",
            format!("{}, that of this program", sdk::version()),
        )),
        Ok(sdk::State::Other) => Some(
            Finding::warning(
                "SDK",
                format!(
                    "{} was written by lantern {written_by}, and this is {}",
                    sdk::FOLDER,
                    sdk::version()
                ),
                "run `lantern doctor --fix`, which puts this program's in its place",
            )
            .remedy(Remedy::RenewSdk(dir.to_owned())),
        ),
        Ok(sdk::State::Changed) => Some(Finding::warning(
            "SDK",
            format!("{} was changed by hand", sdk::FOLDER),
            "if that is not meant, remove the folder and run `lantern doctor --fix`",
        )),
        Err(error) => Some(Finding::wrong(
            "SDK",
            format!("{} cannot be read: {error}", sdk::FOLDER),
            "see who owns it",
        )),
    });
    if manifest.contains(sdk::FOLDER) && !dir.join(sdk::FOLDER).is_dir() {
        findings.push(
            Finding::wrong(
                "SDK",
                format!("{} is not there", sdk::FOLDER),
                "run `lantern doctor --fix`, which writes it",
            )
            .remedy(Remedy::RenewSdk(dir.to_owned())),
        );
    }
    findings
}

async fn server(named: Option<&Path>) -> Finding {
    match find_server(named).await {
        Ok((path, version)) => Finding::good("nats-server", format!("{version} at {}", path.display())),
        Err(error) => Finding::warning(
            "nats-server",
            error.to_string(),
            "needed where a host runs its own broker, as `lantern plugin dev` does: install nats-server 2.10 or later \
             (https://nats.io/download)",
        ),
    }
}

/// Whether a broker can be reached and has JetStream.
pub async fn broker(url: &str) -> Finding {
    let broker = match live::connect(BrokerConfig::remote(url)).await {
        Ok(broker) => broker,
        Err(error) => {
            let hint = error
                .hint()
                .unwrap_or("see that it runs, and that its port can be reached");
            return Finding::wrong("broker", error.to_string(), hint);
        }
    };
    let link = broker.link().borrow().clone();
    broker.stop().await;
    match link {
        Link::Connected(server) if server.jetstream => Finding::good(
            "broker",
            format!("nats-server {} at {}", server.version, server.url),
        ),
        Link::Connected(server) => Finding::wrong(
            "broker",
            format!(
                "nats-server {} at {} has no JetStream",
                server.version, server.url
            ),
            "start it with -js, or `jetstream {}` in its configuration",
        ),
        _ => Finding::wrong("broker", "the connection broke again", "see the broker's log"),
    }
}

fn data_dir(dir: &Path) -> Vec<Finding> {
    let there = dir.is_dir();
    // What is not there yet is made in the nearest folder that is.
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let Some(nearest) = absolute.ancestors().find(|folder| folder.is_dir()) else {
        return vec![Finding::wrong(
            "data",
            format!("{} cannot be made", dir.display()),
            "choose another --data-dir",
        )];
    };
    let probe = nearest.join(format!(".lantern-doctor-{}", std::process::id()));
    let writable = std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe));
    let mut findings = vec![match writable {
        Ok(()) if there => Finding::good("data", format!("{} can be written", dir.display())),
        Ok(()) => Finding::good(
            "data",
            format!("{} is not there yet, and can be made", dir.display()),
        ),
        Err(error) => Finding::wrong(
            "data",
            format!("{} cannot be written: {error}", nearest.display()),
            "run as its owner, or choose another --data-dir",
        ),
    }];
    if let Ok(room) = rustix::fs::statvfs(nearest) {
        let bytes = room.f_bavail.saturating_mul(room.f_frsize);
        let words = format!(
            "{:.1} GiB free for {}",
            bytes as f64 / f64::from(1 << 30),
            dir.display()
        );
        findings.push(match bytes >= ROOM_BYTES {
            true => Finding::good("disk", words),
            false => Finding::warning(
                "disk",
                words,
                "make room: a host takes in nothing more when the disk is nearly full",
            ),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_that_cannot_become_a_plugin_is_told_why() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("Cargo.toml"), "[package]\nname = 'x'\n").unwrap();
        std::fs::write(dir.path().join("src/lib.rs"), "").unwrap();
        let findings = cargo_project(dir.path());
        let fixes: Vec<&str> = findings
            .iter()
            .filter_map(|finding| finding.fix.as_deref())
            .collect();
        assert!(fixes[0].contains("crate-type"), "{fixes:?}");
        assert!(fixes[1].contains("export!"), "{fixes:?}");
        assert!(findings.iter().all(|finding| finding.state == State::Wrong));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let findings = data_dir(Path::new("/proc/nowhere"));
        assert_eq!(findings[0].state, State::Wrong, "{findings:?}");
        let dir = tempfile::tempdir().unwrap();
        let findings = data_dir(&dir.path().join("a/b"));
        assert_eq!(findings[0].state, State::Good, "{findings:?}");
        assert!(
            std::fs::read_dir(dir.path()).unwrap().next().is_none(),
            "nothing is left behind"
        );
    }
}
