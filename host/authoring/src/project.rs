//! A plugin project in any language: how its component is built, and its path.
//!
//! Cargo builds a directory with a `Cargo.toml`. A `package.json` names the output of `npm run build` in
//! `"lantern": {"component": FILE}`; a `pyproject.toml` names the `component` and the `build` command (a list of words) in
//! `[tool.lantern]`. A `.wasm` file is a finished component.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use lantern_plugin::{BuildError, Compiled, Speed, Target};

/// A project, by its build method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Project {
    /// A cargo package.
    Cargo(PathBuf),
    /// A project with a build command.
    Command {
        /// Working directory of the command.
        dir: PathBuf,
        /// Program and arguments.
        command: Vec<String>,
        /// Path of the built component.
        component: PathBuf,
        /// Whether the build requires `node_modules`.
        npm: bool,
    },
    /// A finished component.
    Component(PathBuf),
}

/// Why a project could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The path contains no project.
    #[error("no plugin project at {0}")]
    NotFound(PathBuf),
    /// The project file is incomplete or invalid.
    #[error("{path}: {message}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// Description.
        message: String,
    },
    /// Cargo or the component encoder failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The command could not be started.
    #[error("failed to run {program}")]
    Run {
        /// The program.
        program: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The command failed; its message is on standard error.
    #[error("`{0}` failed")]
    Failed(String),
    /// A file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl ProjectError {
    /// What the author can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(_) => Some(
                "use a directory with a Cargo.toml, package.json or pyproject.toml, or a .wasm file; \
                 `lantern plugin new NAME` creates a project"
                    .to_owned(),
            ),
            Self::Build(error) => error.hint().map(str::to_owned),
            Self::Run { program, .. } if program == "npm" => {
                Some("install Node.js 20 or later from https://nodejs.org".to_owned())
            }
            Self::Run { program, .. } => {
                Some(format!("install {program}, or activate its virtual environment"))
            }
            Self::Settings { .. } | Self::Failed(_) | Self::Read { .. } => None,
        }
    }
}

#[derive(Deserialize)]
struct Package {
    lantern: Option<NodeSettings>,
}

#[derive(Deserialize)]
struct NodeSettings {
    component: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PythonSettings {
    component: PathBuf,
    build: Vec<String>,
}

impl Project {
    /// Opens the project at `path`: a directory, its project file, or a component.
    ///
    /// # Errors
    /// If there is no project, or its settings are incomplete.
    pub fn open(path: &Path) -> Result<Self, ProjectError> {
        if path.is_file() {
            let name = path.file_name().unwrap_or_default();
            let dir = path
                .parent()
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            return match name.to_str() {
                Some("Cargo.toml" | "package.json" | "pyproject.toml") => Self::open(dir),
                _ if path.extension().is_some_and(|extension| extension == "wasm") => {
                    Ok(Self::Component(path.to_owned()))
                }
                _ => Err(ProjectError::NotFound(path.to_owned())),
            };
        }
        if path.join("Cargo.toml").is_file() {
            return Ok(Self::Cargo(path.to_owned()));
        }
        let (node, python) = (path.join("package.json"), path.join("pyproject.toml"));
        if node.is_file() {
            return Self::node(path, &node);
        }
        if python.is_file() {
            return Self::python(path, &python);
        }
        Err(ProjectError::NotFound(path.to_owned()))
    }

    fn node(dir: &Path, file: &Path) -> Result<Self, ProjectError> {
        let package: Package =
            serde_json::from_str(&read_text(file)?).map_err(|error| settings(file, &error))?;
        let component = package.lantern.map(|lantern| lantern.component);
        let component = component.ok_or_else(|| {
            settings(
                file,
                &"add the output of `npm run build`: \"lantern\": {\"component\": \"dist/plugin.wasm\"}",
            )
        })?;
        Ok(Self::Command {
            dir: dir.to_owned(),
            command: ["npm", "run", "--silent", "build"].map(str::to_owned).to_vec(),
            component: dir.join(component),
            npm: true,
        })
    }

    fn python(dir: &Path, file: &Path) -> Result<Self, ProjectError> {
        let table: toml::Table = read_text(file)?
            .parse()
            .map_err(|error: toml::de::Error| settings(file, &error))?;
        let lantern = table.get("tool").and_then(|tool| tool.get("lantern")).cloned();
        let lantern = lantern.ok_or_else(|| {
            settings(file, &"add the build settings: [tool.lantern] component = \"plugin.wasm\", build = [\"componentize-py\", …]")
        })?;
        let python: PythonSettings = lantern.try_into().map_err(|error| settings(file, &error))?;
        if python.build.is_empty() {
            return Err(settings(file, &"[tool.lantern] build is empty"));
        }
        Ok(Self::Command {
            dir: dir.to_owned(),
            command: python.build,
            component: dir.join(python.component),
            npm: false,
        })
    }

    /// Directory of the project.
    pub fn dir(&self) -> &Path {
        match self {
            Self::Cargo(dir) | Self::Command { dir, .. } => dir,
            Self::Component(file) => file
                .parent()
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        }
    }

    /// Builds the component. The output of the tools goes to standard error.
    ///
    /// # Errors
    /// If the build fails.
    pub fn build(&self, speed: Speed) -> Result<Compiled, ProjectError> {
        match self {
            Self::Cargo(dir) => Ok(lantern_plugin::compile(dir, Target::Bare, speed)?),
            Self::Command {
                dir,
                command,
                component,
                npm,
            } => {
                if *npm && !dir.join("node_modules").is_dir() {
                    run(
                        dir,
                        &["npm", "install", "--no-fund", "--no-audit"].map(str::to_owned),
                    )?;
                }
                run(dir, command)?;
                read_component(component)
            }
            Self::Component(file) => read_component(file),
        }
    }
}

fn run(dir: &Path, command: &[String]) -> Result<(), ProjectError> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(());
    };
    let mut process = Command::new(program);
    // Standard output is reserved for the output of the command.
    let status = process
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .map_err(|source| ProjectError::Run {
            program: program.clone(),
            source,
        })?;
    match status.success() {
        true => Ok(()),
        false => Err(ProjectError::Failed(command.join(" "))),
    }
}

fn read_component(file: &Path) -> Result<Compiled, ProjectError> {
    let bytes = std::fs::read(file).map_err(|source| ProjectError::Read {
        path: file.to_owned(),
        source,
    })?;
    let name = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(Compiled {
        name,
        component: bytes,
    })
}

fn read_text(file: &Path) -> Result<String, ProjectError> {
    std::fs::read_to_string(file).map_err(|source| ProjectError::Read {
        path: file.to_owned(),
        source,
    })
}

fn settings(path: &Path, message: &dyn std::fmt::Display) -> ProjectError {
    ProjectError::Settings {
        path: path.to_owned(),
        message: message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_file_determines_the_build_method() {
        let dir = tempfile::tempdir().unwrap();
        let error = Project::open(dir.path()).unwrap_err();
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("lantern plugin new")),
            "{error}"
        );

        let python = dir.path().join("pyproject.toml");
        std::fs::write(&python, "[project]\nname = 'x'\n").unwrap();
        let error = Project::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("[tool.lantern]"), "{error}");
        std::fs::write(
            &python,
            "[tool.lantern]\ncomponent = 'x.wasm'\nbuild = ['true']\n",
        )
        .unwrap();
        let project = Project::open(dir.path()).unwrap();
        let error = project.build(Speed::Full).err().unwrap();
        assert!(error.to_string().ends_with("x.wasm"), "{error}");
        std::fs::write(dir.path().join("x.wasm"), "w").unwrap();
        assert_eq!(project.build(Speed::Full).unwrap().component, b"w");

        let node = dir.path().join("package.json");
        std::fs::write(&node, "{}").unwrap();
        let error = Project::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("\"lantern\""), "{error}");
        std::fs::write(&node, r#"{"lantern": {"component": "dist/x.wasm"}}"#).unwrap();
        assert!(matches!(
            Project::open(&node).unwrap(),
            Project::Command { npm: true, component, .. } if component.ends_with("dist/x.wasm")
        ));

        std::fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        assert!(matches!(Project::open(dir.path()).unwrap(), Project::Cargo(_)));
        let file = dir.path().join("x.wasm");
        assert_eq!(Project::open(&file).unwrap(), Project::Component(file));
    }
}
