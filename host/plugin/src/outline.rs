//! A look at a file from outside: is it a component, which version of the contract does it speak, what does it want
//! from its host? No code is compiled and nothing is validated here; this is for saying early and in words why a file is
//! no plugin. What it may really do is decided by linking.

use wasmparser::{ComponentExternName, Parser, Payload};

use super::bindings::Contract;
use super::wasi;

/// What a component says about its surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub contract: Contract,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// Why a file is not even worth compiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    /// The bytes are something else than a component.
    #[error("this is no WebAssembly component: {0}")]
    NotAComponent(String),
    /// It exports no version of the contract.
    #[error("the component does not export a projector of the contract ({})", known())]
    NoContract {
        /// What it exports instead.
        exports: Vec<String>,
    },
    /// It exports a version that this host does not speak.
    #[error("the component speaks {}, and this host speaks {}", exports.join(", "), known())]
    UnknownContract {
        /// The projectors that it exports.
        exports: Vec<String>,
    },
    /// It exports several versions.
    #[error("the component exports several projectors, and a plugin has exactly one: {}", exports.join(", "))]
    SeveralContracts {
        /// The projectors that it exports.
        exports: Vec<String>,
    },
    /// It wants more from its host than a plugin gets.
    #[error("the component imports {}; a plugin may import {allowed} and nothing else", imports.join(", "))]
    ForbiddenImports {
        /// All imports beyond the allowed one.
        imports: Vec<String>,
        /// The one that is allowed.
        allowed: &'static str,
    },
}

impl OutlineError {
    /// What the author or the operator can do about it.
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
            Self::ForbiddenImports { .. } => Some("a plugin is a function of its messages alone"),
            Self::UnknownContract { .. } => {
                Some("a newer host may speak it; or build it with a matching lantern-sdk")
            }
            Self::SeveralContracts { .. } => None,
        }
    }
}

const PROJECTOR: &str = "lantern:projection/projector@";

/// The interfaces that a component asks its host for.
///
/// # Errors
/// When the bytes are no plugin, with or without WASI.
pub fn imports(component: &[u8]) -> Result<Vec<String>, OutlineError> {
    Outline::read(component, true).map(|outline| outline.imports)
}

fn known() -> String {
    let names: Vec<String> = Contract::ALL.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl Outline {
    /// Reads the names of a component's imports and exports. `wasi` says whether it may import that.
    pub fn read(bytes: &[u8], wasi: bool) -> Result<Self, OutlineError> {
        refuse_other_formats(bytes).map_err(|words| OutlineError::NotAComponent(words.to_owned()))?;
        let (imports, exports) = surface(bytes).map_err(|error| {
            let words = if error.message().contains("unexpected end") {
                format!(
                    "the file ends too early, at byte {}; was it copied only in part?",
                    bytes.len()
                )
            } else {
                error.to_string()
            };
            OutlineError::NotAComponent(words)
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

/// Refuses imports that a plugin does not get.
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

fn refuse_other_formats(bytes: &[u8]) -> Result<(), &'static str> {
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    let text = bytes.trim_ascii_start();
    if bytes.is_empty() {
        Err("the file is empty")
    } else if bytes.starts_with(MODULE) {
        Err("it is a core module, which has to be encoded as a component first")
    } else if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        Err("it is precompiled code, which is never accepted, since no one can check it")
    } else if bytes.starts_with(b"\x7fELF") {
        Err("it is a native program or library (ELF)")
    } else if bytes.starts_with(b"PK\x03\x04") {
        Err("it is a zip archive")
    } else if text.starts_with(b"(module") || text.starts_with(b"(component") || text.starts_with(b";;") {
        Err("it is WebAssembly text; only the binary form is accepted")
    } else if !bytes.starts_with(b"\0asm") {
        Err("it does not begin as WebAssembly does")
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
                    imports.push(name_of(import?.name));
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(name_of(export?.name));
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// Names go into errors and the API, so they are cleaned here, once.
fn name_of(name: ComponentExternName<'_>) -> String {
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
