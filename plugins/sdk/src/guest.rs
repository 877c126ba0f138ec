//! The two exports of the component, for any [`Plugin`].

use std::marker::PhantomData;

use crate::bindings::exports::lantern::projection::projector::{Guest, Manifest, Message as Sent, Outcome};
use crate::manifest;
use crate::{Message, Plugin, Timestamp};

/// The exports of the plugin `P`.
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Plugin> Guest for Exported<P> {
    fn describe() -> Manifest {
        log_panics();
        manifest::of_plugin::<P>()
    }

    fn project(source: u32, messages: Vec<Sent>) -> Vec<Outcome> {
        log_panics();
        let source = &P::SOURCES[source as usize];
        let mut outcomes = Vec::with_capacity(messages.len());
        for sent in messages {
            let message = Message {
                subject: &sent.subject,
                sequence: sent.sequence,
                published: Timestamp::from_micros(sent.published),
                headers: &sent.headers,
                payload: &sent.payload,
            };
            outcomes.push(source.handle(&message));
        }
        outcomes
    }
}

/// Installs a panic hook that writes message and location to the host's log, because a trap contains neither. Called by each
/// export, effective once.
fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| {
                crate::log::line(crate::log::Level::Error, format_args!("{panic}"));
            }));
        });
    }
}

/// Exports a [`Plugin`] as the plugin of this package, with the name, version and description of `Cargo.toml`. Use it once per
/// package.
///
/// ```
/// use lantern_sdk::prelude::*;
///
/// lantern_sdk::export!(Nothing);
///
/// struct Nothing;
///
/// impl Plugin for Nothing {
///     const SOURCES: Sources<Self> = &[Source::core("all", &[">"], |_, _| Ok(()))];
///     const WRITES: Writes = &[];
/// }
/// # assert_eq!(lantern_sdk::native::describe::<Nothing>().name, "lantern-sdk");
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ident) => {
        impl $crate::Package for $plugin {
            const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
            const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
            const DOC: &'static str = ::core::env!("CARGO_PKG_DESCRIPTION");
        }

        // In a native build the plugin may be unused, and the compiler would report dead code.
        const _: fn() -> $crate::native::Manifest = $crate::native::describe::<$plugin>;

        // Only for wasm: a native program may link several plugins, whose exports would have the same names.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::guest::Exported<$plugin>;
    $crate::bindings::export_projector!(Exported with_types_in $crate::bindings);
        };
    };
}
