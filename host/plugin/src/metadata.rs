//! The origin metadata in a component's custom sections, which `wasm-tools metadata` and registries also read and
//! write. It is for people: a host decides nothing by it.

use std::fmt::Display;
use std::str::FromStr;

use wasm_metadata::{AddMetadata, AddMetadataField, Payload};
use wasmparser::{Encoding, Parser, Payload as Section};

use lantern_model::batch::clean_text;
pub use lantern_model::metadata::Metadata;

/// Longest displayed value.
const VALUE_BYTES_MAX: usize = 500;

/// Why metadata cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A value has the wrong format.
    #[error("{what} {value:?} cannot be used: {reason}")]
    Value {
        /// The field.
        what: &'static str,
        /// The value.
        value: String,
        /// The cause.
        reason: String,
    },
    /// The file is not a component.
    #[error("the metadata cannot be written: {0}")]
    File(String),
}

/// Adds metadata to a component; fields without a value stay unchanged. This changes the bytes, and so the digest.
///
/// # Errors
/// When a value has the wrong format (an unknown SPDX licence, an invalid URL).
pub fn add(component: &[u8], metadata: &Metadata) -> Result<Vec<u8>, MetadataError> {
    let mut added = AddMetadata::default();
    if let Some(name) = &metadata.name {
        added.name = AddMetadataField::Set(name.clone());
    }
    added.version = field("the version", &metadata.version)?;
    added.description = field("the description", &metadata.description)?;
    added.authors = field("the authors", &metadata.authors)?;
    added.licenses = field("the licence", &metadata.licenses)?;
    added.source = field("the source", &metadata.source)?;
    added.homepage = field("the homepage", &metadata.homepage)?;
    added.revision = field("the revision", &metadata.revision)?;
    if !nests_correctly(component) {
        return Err(MetadataError::File(
            "a section contains another kind of module than it declares".to_owned(),
        ));
    }
    added
        .to_wasm(component)
        .map_err(|error| MetadataError::File(format!("{error:#}")))
}

fn field<T>(what: &'static str, value: &Option<String>) -> Result<AddMetadataField<T>, MetadataError>
where
    T: FromStr + Clone + std::fmt::Debug,
    T::Err: Display,
{
    let Some(value) = value else {
        return Ok(AddMetadataField::Keep);
    };
    let parsed = value.parse().map_err(|error: T::Err| MetadataError::Value {
        what,
        value: value.clone(),
        reason: format!("{error:#}"),
    })?;
    Ok(AddMetadataField::Set(parsed))
}

/// Reads a component's metadata. Empty when it cannot be read, which does not matter for loading a plugin.
pub fn read(component: &[u8]) -> Metadata {
    if !nests_correctly(component) {
        return Metadata::default();
    }
    let Ok(payload) = Payload::from_binary(component) else {
        return Metadata::default();
    };
    let found = payload.metadata();
    Metadata {
        name: displayable(found.name.as_ref()),
        version: displayable(found.version.as_ref()),
        description: displayable(found.description.as_ref()),
        authors: displayable(found.authors.as_ref()),
        licenses: displayable(found.licenses.as_ref()),
        source: displayable(found.source.as_ref()),
        homepage: displayable(found.homepage.as_ref()),
        revision: displayable(found.revision.as_ref()),
    }
}

/// Whether each nested section contains what its kind says: a module or a component. `wasm-metadata` panics where a module
/// contains a component.
fn nests_correctly(component: &[u8]) -> bool {
    let mut expected = None;
    Parser::new(0).parse_all(component).all(|section| match section {
        Ok(Section::ModuleSection { .. }) => {
            expected = Some(Encoding::Module);
            true
        }
        Ok(Section::ComponentSection { .. }) => {
            expected = Some(Encoding::Component);
            true
        }
        Ok(Section::Version { encoding, .. }) => expected.take().is_none_or(|expected| expected == encoding),
        Ok(_) => true,
        Err(_) => false,
    })
}

/// The text is untrusted and displayed on terminals.
fn displayable(value: Option<&impl Display>) -> Option<String> {
    let text = clean_text(&value?.to_string(), VALUE_BYTES_MAX);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest component.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn added_metadata_is_read_back() {
        let metadata = Metadata {
            name: Some("orders".to_owned()),
            version: Some("1.2.3".to_owned()),
            description: Some("Orders as rows.".to_owned()),
            authors: Some("Ann <ann@example.org>".to_owned()),
            licenses: Some("Apache-2.0 OR MIT".to_owned()),
            source: Some("https://example.org/orders".to_owned()),
            homepage: Some("https://example.org/".to_owned()),
            revision: Some("0123abc".to_owned()),
        };
        let component = add(EMPTY, &metadata).unwrap();
        assert_eq!(read(&component), metadata);
        let other = Metadata {
            version: Some("2.0.0".to_owned()),
            ..Metadata::default()
        };
        let component = add(&component, &other).unwrap();
        assert_eq!(read(&component).version.as_deref(), Some("2.0.0"));
        assert_eq!(read(&component).licenses, metadata.licenses);
        assert_eq!(read(b"no component"), Metadata::default());
        // A section for a module, whose content is a component with an empty component in it.
        let inner = [EMPTY, &[4, 8], EMPTY].concat();
        let nested = [EMPTY, &[1, 18], &inner].concat();
        assert_eq!(read(&nested), Metadata::default());
        assert!(matches!(add(&nested, &metadata), Err(MetadataError::File(_))));
    }

    #[test]
    fn an_invalid_licence_or_url_is_rejected() {
        for (metadata, reason) in [
            (
                Metadata {
                    licenses: Some("mine alone".to_owned()),
                    ..Metadata::default()
                },
                "the licence \"mine alone\"",
            ),
            (
                Metadata {
                    source: Some("somewhere".to_owned()),
                    ..Metadata::default()
                },
                "the source \"somewhere\"",
            ),
        ] {
            let error = add(EMPTY, &metadata).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
