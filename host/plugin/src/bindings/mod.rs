//! The versions of the contract. Each has its own file; the rest of the host sees only the host's types and the choice
//! made here.

#[cfg(test)]
mod tests;
mod v0_1;
#[cfg(test)]
mod v0_2_test;

use std::fmt;

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Result, Store};

use super::guest_state::GuestState;
use super::wasi;
use lantern_model::batch::{Delivery, Outcome};
use lantern_model::schema::{RawManifest, Source};

/// A contract version that this host supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// `lantern:projection@0.1.0`
    V0_1,
    /// `lantern:projection@0.2.0-test`
    #[cfg(test)]
    V0_2Test,
}

impl Contract {
    /// All versions, the newest last.
    pub const ALL: &[Self] = &[
        Self::V0_1,
        #[cfg(test)]
        Self::V0_2Test,
    ];

    /// The interface that a plugin of this version exports.
    pub(super) fn export(self) -> &'static str {
        match self {
            Self::V0_1 => v0_1::EXPORT,
            #[cfg(test)]
            Self::V0_2Test => v0_2_test::EXPORT,
        }
    }

    /// The only interface that a plugin of this version may import, besides WASI where that is allowed.
    pub(super) fn import(self) -> &'static str {
        match self {
            Self::V0_1 => v0_1::IMPORT,
            #[cfg(test)]
            Self::V0_2Test => v0_2_test::IMPORT,
        }
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V0_1 => f.write_str("lantern:projection@0.1.0"),
            #[cfg(test)]
            Self::V0_2Test => f.write_str("lantern:projection@0.2.0-test"),
        }
    }
}

/// How a source's messages are passed to a plugin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub wants_headers: bool,
    /// Whether the source has positions; without them, the plugin receives sequence 0.
    pub has_positions: bool,
}

impl From<&Source> for Shape {
    fn from(source: &Source) -> Self {
        Self {
            wants_headers: source.wants_headers,
            has_positions: source.origin.is_replayable(),
        }
    }
}

/// A component with matching imports and exports, ready to be instantiated.
pub(super) enum Pre {
    V0_1(v0_1::Pre),
    #[cfg(test)]
    V0_2Test(v0_2_test::Pre),
}

impl Pre {
    /// Links a component. Fails when its functions have other types than the contract requires.
    pub fn link(contract: Contract, engine: &Engine, component: &Component, wasi: bool) -> Result<Self> {
        let mut linker = Linker::new(engine);
        if wasi {
            wasi::link(&mut linker)?;
        }
        match contract {
            Contract::V0_1 => {
                v0_1::link(&mut linker)?;
                v0_1::Pre::new(linker.instantiate_pre(component)?).map(Self::V0_1)
            }
            #[cfg(test)]
            Contract::V0_2Test => {
                v0_2_test::link(&mut linker)?;
                v0_2_test::Pre::new(linker.instantiate_pre(component)?).map(Self::V0_2Test)
            }
        }
    }

    /// Creates an instance in `store`. Code of the guest may run.
    pub fn instantiate(&self, store: &mut Store<GuestState>) -> Result<Guest> {
        match self {
            Self::V0_1(pre) => pre.instantiate(store).map(Guest::V0_1),
            #[cfg(test)]
            Self::V0_2Test(pre) => pre.instantiate(store).map(Guest::V0_2Test),
        }
    }
}

/// An instance's functions.
pub(super) enum Guest {
    V0_1(v0_1::Guest),
    #[cfg(test)]
    V0_2Test(v0_2_test::Guest),
}

impl Guest {
    pub fn describe(&self, store: &mut Store<GuestState>) -> Result<RawManifest> {
        match self {
            Self::V0_1(guest) => v0_1::describe(guest, store),
            #[cfg(test)]
            Self::V0_2Test(guest) => v0_2_test::describe(guest, store),
        }
    }

    pub fn project(
        &self,
        store: &mut Store<GuestState>,
        source: u32,
        shape: Shape,
        deliveries: &[Delivery],
    ) -> Result<Vec<Outcome>> {
        match self {
            Self::V0_1(guest) => v0_1::project(guest, store, source, shape, deliveries),
            #[cfg(test)]
            Self::V0_2Test(guest) => v0_2_test::project(guest, store, deliveries),
        }
    }
}
