//! Examines a file from outside: whether it is a component, its contract version, and its imports. Nothing is compiled
//! or validated; this step gives early and clear errors for files that are not plugins. Linking decides what the
//! component may do.

use wasmparser::{ComponentExternName, Parser, Payload};

use super::bindings::Contract;
use super::wasi;

/// The imports and exports of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub contract: Contract,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// Why a file is not worth compiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    /// The bytes are not a component.
    #[error("this is not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// It exports no contract version.
    #[error("the component does not export a projector of the contract ({})", supported())]
    NoContract {
        /// Its exports.
        exports: Vec<String>,
    },
    /// It exports a version that this host does not support.
    #[error("the component uses {}, and this host supports {}", exports.join(", "), supported())]
    UnknownContract {
        /// The exported projectors.
        exports: Vec<String>,
    },
    /// It exports several versions.
    #[error("the component exports several projectors, and a plugin has exactly one: {}", exports.join(", "))]
    SeveralContracts {
        /// The exported projectors.
        exports: Vec<String>,
    },
    /// It has imports that a plugin does not get.
    #[error("the component imports {}; a plugin may import {allowed} and nothing else", imports.join(", "))]
    ForbiddenImports {
        /// All forbidden imports.
        imports: Vec<String>,
        /// The allowed import.
        allowed: &'static str,
    },
}

impl OutlineError {
    /// A remedy for the author or the operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotAComponent(_) | Self::NoContract { .. } => Some(
                "build plugins with `lantern plugin build PATH`, and end the crate with `lantern_sdk::export!`",
            ),
            // Where WASI is allowed, none of these is forbidden.
            Self::ForbiddenImports { imports, .. } if imports.iter().all(|import| wasi::provides(import)) => {
                Some(
                    "build it for the target wasm32-unknown-unknown, which imports nothing; or allow it WASI, with \
                     everything in it empty: `lantern plugin set NAME wasi=true`",
                )
            }
            Self::ForbiddenImports { imports, .. }
                if imports.iter().any(|import| import.starts_with("wasi:")) =>
            {
                Some(
                    "build it for the target wasm32-unknown-unknown, which imports nothing; of WASI only cli, clocks, \
                     filesystem, io, random and sockets 0.2 can be allowed",
                )
            }
            Self::ForbiddenImports { .. } => Some("a plugin is a function of its messages only"),
            Self::UnknownContract { .. } => {
                Some("a newer host may support it; or build it with a matching lantern-sdk")
            }
            Self::SeveralContracts { .. } => None,
        }
    }
}

const PROJECTOR: &str = "lantern:projection/projector@";

/// The imported interfaces of a component.
///
/// # Errors
/// When the bytes are not a plugin, even with WASI allowed.
pub fn imports(component: &[u8]) -> Result<Vec<String>, OutlineError> {
    Outline::read(component, true).map(|outline| outline.imports)
}

fn supported() -> String {
    let names: Vec<String> = Contract::ALL.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl Outline {
    /// Reads the names of a component's imports and exports. `wasi` states whether it may import WASI.
    pub fn read(bytes: &[u8], wasi: bool) -> Result<Self, OutlineError> {
        reject_other_formats(bytes).map_err(|reason| OutlineError::NotAComponent(reason.to_owned()))?;
        let (imports, exports) = surface(bytes).map_err(|error| {
            let reason = if error.message().contains("unexpected end") {
                format!(
                    "the file is truncated at byte {}; was it copied completely?",
                    bytes.len()
                )
            } else {
                error.to_string()
            };
            OutlineError::NotAComponent(reason)
        })?;
        let contract = choose(&exports)?;
        check_imports(contract, &imports, wasi)?;
        Ok(Self {
            contract,
            imports,
            exports,
        })
    }
}

/// Rejects imports that a plugin does not get.
pub(super) fn check_imports(contract: Contract, imports: &[String], wasi: bool) -> Result<(), OutlineError> {
    let allowed = contract.import();
    let forbidden: Vec<String> = imports
        .iter()
        .filter(|import| *import != allowed && !(wasi && wasi::provides(import)))
        .cloned()
        .collect();
    if forbidden.is_empty() {
        Ok(())
    } else {
        Err(OutlineError::ForbiddenImports {
            imports: forbidden,
            allowed,
        })
    }
}

fn reject_other_formats(bytes: &[u8]) -> Result<(), &'static str> {
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    let text = bytes.trim_ascii_start();
    if bytes.is_empty() {
        Err("the file is empty")
    } else if bytes.starts_with(MODULE) {
        Err("it is a core module, which must be encoded as a component first")
    } else if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        Err("it is precompiled code, which is never accepted, because it cannot be validated")
    } else if bytes.starts_with(b"\x7fELF") {
        Err("it is a native program or library (ELF)")
    } else if bytes.starts_with(b"PK\x03\x04") {
        Err("it is a zip archive")
    } else if text.starts_with(b"(module") || text.starts_with(b"(component") || text.starts_with(b";;") {
        Err("it is WebAssembly text; only the binary form is accepted")
    } else if !bytes.starts_with(b"\0asm") {
        Err("it does not begin with the WebAssembly magic number")
    } else {
        Ok(())
    }
}

/// The names of the outermost component's imports and exports.
fn surface(bytes: &[u8]) -> wasmparser::Result<(Vec<String>, Vec<String>)> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(clean_name(import?.name));
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(clean_name(export?.name));
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// Names appear in errors and in the API, so they are cleaned here, once.
fn clean_name(name: ComponentExternName<'_>) -> String {
    lantern_model::batch::clean_text(name.name, 200)
}

fn choose(exports: &[String]) -> Result<Contract, OutlineError> {
    let projectors: Vec<&String> = exports
        .iter()
        .filter(|export| export.starts_with(PROJECTOR))
        .collect();
    let named = || projectors.iter().map(|export| (*export).clone()).collect();
    match projectors.as_slice() {
        [] => Err(OutlineError::NoContract {
            exports: exports.to_vec(),
        }),
        [one] => match Contract::ALL
            .iter()
            .find(|contract| contract.export() == one.as_str())
        {
            Some(contract) => Ok(*contract),
            None => Err(OutlineError::UnknownContract { exports: named() }),
        },
        _ => Err(OutlineError::SeveralContracts { exports: named() }),
    }
}
