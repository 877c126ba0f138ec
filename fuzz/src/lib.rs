//! Fuzz targets: one function for each place where Lantern parses untrusted bytes.
//!
//! A target fails by a panic, also one of its own assertions: what was accepted must keep its promises, and what is written
//! must be read back as it was. `cargo xtask fuzz` drives the targets with libFuzzer. The corpora in `corpus/TARGET` run
//! with every `cargo test` as well; an input that once failed is added there.

mod broker;
mod files;
mod http;
mod schema;

/// Runs one input.
pub type Target = fn(&[u8]);

/// All targets by name. Each has a folder in `corpus/`, and may have a file in `dictionaries/`.
pub const TARGETS: [(&str, Target); 11] = [
    ("headers", broker::headers),
    ("lines", broker::lines),
    ("outbox", broker::outbox),
    ("manifest", schema::manifest),
    ("description", schema::description),
    ("component", schema::component),
    ("selection", http::selection),
    ("cursor", http::cursor),
    ("configuration", files::configuration),
    ("fixture", files::fixture),
    ("signature", files::signature),
];

/// The input as text: what is not UTF-8 never reaches a parser of text.
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
                // A panic below does not name the input; this line does, and is shown when the test fails.
                println!("{}", input.display());
                target(&std::fs::read(&input).unwrap());
            }
            target(b"");
        }
    }
}
