//! The checks of `lantern doctor` for authors: toolchain, project, broker, data directory. Each finding has a severity and a
//! suggested fix. Checks change nothing; [`Finding::apply_fix`] applies safe fixes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::live;
use super::project::Project;
use super::sdk;
use lantern_broker::{BrokerConfig, Link, find_server};

/// Compiler target of plugins in Rust.
const TARGET: &str = "wasm32-unknown-unknown";
/// Free disk space below which a check warns.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No problem.
    #[serde(rename = "good")]
    Ok,
    /// A risk, or a problem for some commands.
    Warning,
    /// Something does not work.
    #[serde(rename = "wrong")]
    Error,
}

/// A fix that changes no file of the author, and needs no confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AutomaticFix {
    /// `rustup target add`.
    AddTarget,
    /// Replaces an older, unmodified SDK in a project.
    UpdateSdk(PathBuf),
}

/// Result of one check.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// The checked item.
    pub subject: String,
    /// Severity.
    #[serde(rename = "state")]
    pub severity: Severity,
    /// Description.
    #[serde(rename = "words")]
    pub message: String,
    /// Suggested fix.
    pub fix: Option<String>,
    /// Fix that needs no confirmation.
    #[serde(skip)]
    pub automatic_fix: Option<AutomaticFix>,
}

impl Finding {
    fn new(subject: &str, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            severity,
            message: message.into(),
            fix: None,
            automatic_fix: None,
        }
    }

    /// A finding without a problem.
    pub fn ok(subject: &str, message: impl Into<String>) -> Self {
        Self::new(subject, Severity::Ok, message)
    }

    /// An error: something does not work.
    pub fn error(subject: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(subject, Severity::Error, message).fix(fix)
    }

    /// A warning: a risk, or a problem for some commands.
    pub fn warning(subject: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(subject, Severity::Warning, message).fix(fix)
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn automatic_fix(mut self, fix: AutomaticFix) -> Self {
        self.automatic_fix = Some(fix);
        self
    }

    /// Applies the automatic fix and returns a description of the change. `None` if there is no automatic fix.
    ///
    /// # Errors
    /// The description of the failure.
    pub fn apply_fix(&self) -> Option<Result<String, String>> {
        Some(match self.automatic_fix.as_ref()? {
            AutomaticFix::AddTarget => {
                let mut rustup = Command::new("rustup");
                rustup
                    .args(["target", "add", TARGET])
                    .stdin(Stdio::null())
                    .stdout(std::io::stderr());
                match rustup.status() {
                    Ok(status) if status.success() => Ok(format!("installed the target {TARGET}")),
                    Ok(status) => Err(format!("`rustup target add {TARGET}` failed: {status}")),
                    Err(error) => Err(format!("failed to run rustup: {error}")),
                }
            }
            AutomaticFix::UpdateSdk(project) => match sdk::write(project) {
                Ok(()) => Ok(format!("wrote the SDK {} to {}", sdk::version(), sdk::FOLDER)),
                Err(error) => Err(format!("failed to write the SDK: {error}")),
            },
        })
    }
}

/// Locations to check.
#[derive(Clone, Debug)]
pub struct Places {
    /// Directory of a project, which may not exist.
    pub project: PathBuf,
    /// Data directory of a host, which may not exist yet.
    pub data_dir: PathBuf,
    /// URL of a broker.
    pub nats: Option<String>,
    /// Path of the `nats-server` for an embedded broker.
    pub nats_server: Option<PathBuf>,
}

/// Runs all checks.
pub async fn check(places: &Places) -> Vec<Finding> {
    let mut findings = check_toolchain(&places.project);
    findings.extend(check_project(&places.project));
    findings.push(match &places.nats {
        Some(url) => check_broker(url).await,
        None => check_server(places.nats_server.as_deref()).await,
    });
    findings.extend(check_data_dir(&places.data_dir));
    findings
}

/// Runs a program in the project's directory and returns its first line of output.
fn first_line(dir: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let dir = if dir.is_dir() { dir } else { Path::new(".") };
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("failed to run {program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => Ok(text.lines().next().unwrap_or_default().to_owned()),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(errors.lines().next().unwrap_or_default().to_owned())
        }
    }
}

fn check_toolchain(dir: &Path) -> Vec<Finding> {
    let rustc = match first_line(dir, "rustc", &["--version"]) {
        Ok(version) => version,
        Err(error) => {
            return vec![Finding::error(
                "Rust",
                error,
                "install Rust from https://rustup.rs",
            )];
        }
    };
    let version = rustc.split(' ').nth(1).unwrap_or_default();
    let version = semver::Version::parse(version).ok();
    let needed = sdk::rust_version();
    let is_recent = match (&version, &needed) {
        (Some(version), Some(needed)) => (version.major, version.minor) >= (needed.major, needed.minor),
        _ => true,
    };
    let mut findings = vec![match is_recent {
        true => Finding::ok("Rust", rustc),
        false => Finding::error(
            "Rust",
            format!(
                "{rustc}; the SDK requires {}",
                needed.map(|needed| needed.to_string()).unwrap_or_default()
            ),
            "run `rustup update`",
        ),
    }];
    if let Err(error) = first_line(dir, "cargo", &["--version"]) {
        findings.push(Finding::error(
            "cargo",
            error,
            "install Rust from https://rustup.rs",
        ));
    }
    let libraries = first_line(dir, "rustc", &["--print", "target-libdir", "--target", TARGET]);
    findings.push(match libraries.is_ok_and(|libraries| Path::new(&libraries).is_dir()) {
        true => Finding::ok("target", format!("{TARGET} is installed")),
        false => {
            let finding = Finding::error(
                "target",
                format!("the compiler target {TARGET} of plugins is not installed"),
                format!("run `rustup target add {TARGET}`"),
            );
            match first_line(dir, "rustup", &["--version"]) {
                Ok(_) => finding.automatic_fix(AutomaticFix::AddTarget),
                Err(_) => finding.fix(
                    "rustup is not installed: install the standard library of the target with the package manager of Rust, \
                     or install Rust from https://rustup.rs",
                ),
            }
        }
    });
    findings
}

fn check_project(dir: &Path) -> Vec<Finding> {
    let project = match Project::open(dir) {
        Ok(project) => project,
        Err(super::project::ProjectError::NotFound(_)) => {
            return vec![Finding::ok("project", format!("no project in {}", dir.display()))];
        }
        Err(error) => {
            return vec![Finding::error(
                "project",
                error.to_string(),
                error.hint().unwrap_or_default(),
            )];
        }
    };
    match &project {
        Project::Cargo(dir) => check_cargo_project(dir),
        Project::Command { command, npm, .. } => {
            let program = command.first().map_or("", String::as_str);
            vec![match first_line(dir, program, &["--version"]) {
                Ok(version) => Finding::ok("project", format!("built with {program} ({version})")),
                Err(error) if *npm => Finding::error(
                    "project",
                    error,
                    "install Node.js 20 or later from https://nodejs.org",
                ),
                Err(error) => Finding::error(
                    "project",
                    error,
                    format!("install {program}, or activate its environment"),
                ),
            }]
        }
        Project::Component(file) => vec![Finding::ok(
            "project",
            format!("{} is a component", file.display()),
        )],
    }
}

fn check_cargo_project(dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let table: toml::Table = match manifest.parse() {
        Ok(table) => table,
        Err(error) => {
            let error: toml::de::Error = error;
            return vec![Finding::error(
                "project",
                format!("Cargo.toml: {error}"),
                "fix the file",
            )];
        }
    };
    let kinds = table
        .get("lib")
        .and_then(|lib| lib.get("crate-type"))
        .and_then(|kinds| kinds.as_array());
    let cdylib = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("cdylib")));
    findings.push(match cdylib {
        true => Finding::ok("project", format!("cargo package in {}", dir.display())),
        false => Finding::error(
            "project",
            "the package does not build a cdylib",
            "add to Cargo.toml: [lib] crate-type = [\"cdylib\", \"rlib\"]",
        ),
    });
    let library = std::fs::read_to_string(dir.join("src/lib.rs")).unwrap_or_default();
    if !library.contains("export!(") {
        findings.push(Finding::error(
            "export",
            "src/lib.rs exports no plugin",
            "add `lantern_sdk::export!(YourPlugin);` to src/lib.rs",
        ));
    }
    findings.extend(check_sdk(dir, &manifest));
    findings
}

/// Checks the SDK in a cargo project.
fn check_sdk(dir: &Path, manifest: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let written_by = sdk::written_by(dir).unwrap_or_else(|| "an unknown version".to_owned());
    findings.extend(match sdk::state(dir) {
        Ok(sdk::SdkState::Absent) => None,
        Ok(sdk::SdkState::Same) => Some(Finding::ok("SDK", format!("{}, up to date", sdk::version()))),
        Ok(sdk::SdkState::OtherVersion) => Some(
            Finding::warning(
                "SDK",
                format!(
                    "{} is from lantern {written_by}; this is lantern {}",
                    sdk::FOLDER,
                    sdk::version()
                ),
                "run `lantern doctor --fix` to update it",
            )
            .automatic_fix(AutomaticFix::UpdateSdk(dir.to_owned())),
        ),
        Ok(sdk::SdkState::Modified) => Some(Finding::warning(
            "SDK",
            format!("{} was modified", sdk::FOLDER),
            "to restore it, remove the directory and run `lantern doctor --fix`",
        )),
        Err(error) => Some(Finding::error(
            "SDK",
            format!("failed to read {}: {error}", sdk::FOLDER),
            "check its owner and permissions",
        )),
    });
    if manifest.contains(sdk::FOLDER) && !dir.join(sdk::FOLDER).is_dir() {
        findings.push(
            Finding::error(
                "SDK",
                format!("{} does not exist", sdk::FOLDER),
                "run `lantern doctor --fix` to create it",
            )
            .automatic_fix(AutomaticFix::UpdateSdk(dir.to_owned())),
        );
    }
    findings
}

async fn check_server(path: Option<&Path>) -> Finding {
    match find_server(path).await {
        Ok((path, version)) => Finding::ok("nats-server", format!("{version} at {}", path.display())),
        Err(error) => Finding::warning(
            "nats-server",
            error.to_string(),
            "an embedded broker, as in `lantern plugin dev`, requires nats-server 2.10 or later \
             (https://nats.io/download)",
        ),
    }
}

/// Checks that a broker is reachable and has JetStream.
pub async fn check_broker(url: &str) -> Finding {
    let broker = match live::connect(BrokerConfig::remote(url)).await {
        Ok(broker) => broker,
        Err(error) => {
            let hint = error
                .hint()
                .unwrap_or("check that it is running and its port is reachable");
            return Finding::error("broker", error.to_string(), hint);
        }
    };
    let link = broker.link().borrow().clone();
    broker.stop().await;
    match link {
        Link::Connected(server) if server.jetstream => Finding::ok(
            "broker",
            format!("nats-server {} at {}", server.version, server.url),
        ),
        Link::Connected(server) => Finding::error(
            "broker",
            format!(
                "nats-server {} at {} has no JetStream",
                server.version, server.url
            ),
            "start it with -js, or set `jetstream {}` in its configuration",
        ),
        _ => Finding::error("broker", "the connection was lost", "check the log of the broker"),
    }
}

fn check_data_dir(dir: &Path) -> Vec<Finding> {
    let exists = dir.is_dir();
    // A missing directory will be created in its nearest existing ancestor.
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let Some(nearest) = absolute.ancestors().find(|folder| folder.is_dir()) else {
        return vec![Finding::error(
            "data",
            format!("{} cannot be created", dir.display()),
            "choose another --data-dir",
        )];
    };
    let probe = nearest.join(format!(".lantern-doctor-{}", std::process::id()));
    let writable = std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe));
    let mut findings = vec![match writable {
        Ok(()) if exists => Finding::ok("data", format!("{} is writable", dir.display())),
        Ok(()) => Finding::ok(
            "data",
            format!("{} does not exist yet and can be created", dir.display()),
        ),
        Err(error) => Finding::error(
            "data",
            format!("{} is not writable: {error}", nearest.display()),
            "run as its owner, or choose another --data-dir",
        ),
    }];
    if let Ok(space) = rustix::fs::statvfs(nearest) {
        let bytes = space.f_bavail.saturating_mul(space.f_frsize);
        let message = format!(
            "{:.1} GiB free for {}",
            bytes as f64 / f64::from(1 << 30),
            dir.display()
        );
        findings.push(match bytes >= FREE_BYTES_MIN {
            true => Finding::ok("disk", message),
            false => Finding::warning(
                "disk",
                message,
                "free disk space; the host stops reading messages when the disk is nearly full",
            ),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_that_builds_no_plugin_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("Cargo.toml"), "[package]\nname = 'x'\n").unwrap();
        std::fs::write(dir.path().join("src/lib.rs"), "").unwrap();
        let findings = check_cargo_project(dir.path());
        let fixes: Vec<&str> = findings
            .iter()
            .filter_map(|finding| finding.fix.as_deref())
            .collect();
        assert!(fixes[0].contains("crate-type"), "{fixes:?}");
        assert!(fixes[1].contains("export!"), "{fixes:?}");
        assert!(findings.iter().all(|finding| finding.severity == Severity::Error));
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_an_error() {
        let findings = check_data_dir(Path::new("/proc/nowhere"));
        assert_eq!(findings[0].severity, Severity::Error, "{findings:?}");
        let dir = tempfile::tempdir().unwrap();
        let findings = check_data_dir(&dir.path().join("a/b"));
        assert_eq!(findings[0].severity, Severity::Ok, "{findings:?}");
        assert!(
            std::fs::read_dir(dir.path()).unwrap().next().is_none(),
            "nothing is left behind"
        );
    }
}
