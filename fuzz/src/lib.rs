//! Fuzz targets: one function per parser of untrusted input.
//!
//! A target fails by panicking, including its assertions: accepted values must be valid, and must round-trip. `cargo xtask fuzz`
//! runs the targets with libFuzzer. `cargo test` runs the corpora in `corpus/TARGET`; inputs that failed once are added there.

mod broker;
mod files;
mod http;
mod schema;

/// Runs one input.
pub type Target = fn(&[u8]);

/// All targets by name. Each has a folder in `corpus/`; a file in `dictionaries/` is optional.
pub const TARGETS: [(&str, Target); 12] = [
    ("headers", broker::headers),
    ("lines", broker::lines),
    ("outbox", broker::outbox),
    ("manifest", schema::manifest),
    ("description", schema::description),
    ("component", schema::component),
    ("selection", http::selection),
    ("search", http::search),
    ("cursor", http::cursor),
    ("configuration", files::configuration),
    ("fixture", files::fixture),
    ("signature", files::signature),
];

/// The valid UTF-8 prefix of the input, because text parsers receive only UTF-8.
fn text(input: &[u8]) -> &str {
    match std::str::from_utf8(input) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&input[..error.valid_up_to()]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_input_of_the_corpora_passes() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let mut inputs: Vec<_> = folder
                .read_dir()
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
                .map(|entry| entry.unwrap().path())
                .collect();
            inputs.sort();
            assert!(!inputs.is_empty(), "target {name} has no corpus");
            for input in inputs {
                // Names the input if the target panics.
                println!("{}", input.display());
                target(&std::fs::read(&input).unwrap());
            }
            target(b"");
        }
    }
}
