//! What a component's file says of where it is from, in the custom sections that `wasm-tools metadata` and registries
//! read and write too. It is for people: a host decides nothing by it.

use std::fmt::Display;
use std::str::FromStr;

use wasm_metadata::{AddMetadata, AddMetadataField, Payload};

use lantern_model::batch::clean_text;

/// Longest value that is shown.
const VALUE_BYTES_MAX: usize = 500;

/// What is said; each may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Metadata {
    /// The component's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub version: Option<String>,
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    /// Who has made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub authors: Option<String>,
    /// An SPDX expression, such as `Apache-2.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub licenses: Option<String>,
    /// The address of its sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub source: Option<String>,
    /// The address of more about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub homepage: Option<String>,
    /// The commit that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub revision: Option<String>,
}

/// Why a file cannot say it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A value is none of its kind.
    #[error("{what} {value:?} cannot be used: {words}")]
    Value {
        /// Which.
        what: &'static str,
        /// It.
        value: String,
        /// Why.
        words: String,
    },
    /// The file is no component.
    #[error("the metadata cannot be written: {0}")]
    File(String),
}

/// Puts metadata into a component; what it does not say stays as it was. The bytes, and so the digest, are others then.
///
/// # Errors
/// When a value is none of its kind (a licence that SPDX does not know, an address that is none).
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
        words: format!("{error:#}"),
    })?;
    Ok(AddMetadataField::Set(parsed))
}

/// What a component says. Nothing where it cannot be read: that is not what makes it a plugin.
pub fn read(component: &[u8]) -> Metadata {
    let Ok(payload) = Payload::from_binary(component) else {
        return Metadata::default();
    };
    let found = payload.metadata();
    Metadata {
        name: shown(found.name.as_ref()),
        version: shown(found.version.as_ref()),
        description: shown(found.description.as_ref()),
        authors: shown(found.authors.as_ref()),
        licenses: shown(found.licenses.as_ref()),
        source: shown(found.source.as_ref()),
        homepage: shown(found.homepage.as_ref()),
        revision: shown(found.revision.as_ref()),
    }
}

/// It comes from outside and goes to terminals.
fn shown(value: Option<&impl Display>) -> Option<String> {
    let text = clean_text(&value?.to_string(), VALUE_BYTES_MAX);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest component.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn what_was_put_in_is_read_again() {
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
    }

    #[test]
    fn what_is_no_licence_and_no_address_is_refused() {
        for (metadata, words) in [
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
            assert!(error.starts_with(words), "{error}");
        }
    }
}
