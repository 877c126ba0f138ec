//! Downloads components from an OCI registry, in the layout of `wkg oci push`: a manifest whose config has the type
//! [`CONFIG_TYPE`], with the component as its only layer and the signature as an annotation. The registry is not trusted:
//! the digest in the manifest verifies the component, and the host decides whether it may run.
//!
//! Requires the feature `oci`.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures_util::StreamExt as _;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::cli::{Failure, block_on};
use lantern_lifecycle::Component;
use lantern_plugin::Digest;
use lantern_trust::signature::SIGNATURE_BYTES_MAX;

/// Media type of a component's config, which lists its imports and exports.
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";

/// Media type of the component layer.
const LAYER_TYPE: &str = "application/wasm";

/// Annotation of the manifest with the `.minisig` file in base64.
const SIGNATURE_ANNOTATION: &str = "lantern.minisig";

/// Largest component that a host can be configured to accept, in bytes.
const COMPONENT_BYTES_MAX: u64 = 1 << 30;

/// Connect timeout.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Read timeout.
const READ_TIME: Duration = Duration::from_secs(60);

/// Why a component could not be downloaded.
#[derive(Debug, thiserror::Error)]
enum PullError {
    /// The registry is unreachable, rejects the request, or sends bytes with a wrong digest.
    #[error("the request to the registry failed")]
    Registry(#[source] OciDistributionError),
    /// The response ended early.
    #[error("the registry closed the response early")]
    Broken(#[source] std::io::Error),
    /// The artifact is not a component.
    #[error("not a component in the layout of wkg: {0}")]
    Layout(String),
    /// Larger than any host accepts.
    #[error("the component has {bytes} bytes; a host accepts at most {COMPONENT_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    /// The bytes do not have the digest of the manifest.
    #[error("the component does not match its manifest: {0}")]
    Digest(String),
    /// Docker stores an identity token, which would have to be exchanged first.
    #[error(
        "docker has only an identity token for this registry, which is not supported; log in with a user name and a password or access token"
    )]
    IdentityToken,
    /// The credentials of docker cannot be read.
    #[error("failed to read docker's credentials for this registry")]
    Credentials(#[source] CredentialRetrievalError),
}

/// Downloads a component by its reference, such as `ghcr.io/me/orders:0.1.0`.
///
/// # Errors
/// A [`Failure`] if the reference is invalid, the registry rejects the request, or the artifact is not a component.
pub fn pull(reference: &str) -> Result<Component, Failure> {
    let image: Reference = reference.parse().map_err(|error| {
        Failure::usage(format!("invalid component reference {reference:?}: {error}"))
            .hint("use oci://REGISTRY/NAME:VERSION, such as oci://ghcr.io/me/orders:0.1.0")
    })?;
    // The library uses the default provider of the process. An error means that another part has already set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pulled = block_on(async {
        let auth = auth(docker_credential::get_credential(server(&image)))?;
        fetch(&image, &auth).await
    })?;
    pulled.map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("failed to pull {image}"));
        Failure::new(error).hint(
            "to log in to the registry: docker login REGISTRY; to publish a component: wkg oci push REFERENCE FILE",
        )
    })
}

/// Name under which docker stores the credentials of a registry.
fn server(image: &Reference) -> &str {
    match image.registry() {
        "docker.io" => "https://index.docker.io/v1/",
        registry => registry,
    }
}

/// Anonymous if docker has no credentials.
fn auth(known: Result<DockerCredential, CredentialRetrievalError>) -> Result<RegistryAuth, PullError> {
    match known {
        Ok(DockerCredential::UsernamePassword(name, password)) => Ok(RegistryAuth::Basic(name, password)),
        Ok(DockerCredential::IdentityToken(_)) => Err(PullError::IdentityToken),
        Err(
            CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError
            | CredentialRetrievalError::NoCredentialConfigured,
        ) => Ok(RegistryAuth::Anonymous),
        Err(error) => Err(PullError::Credentials(error)),
    }
}

/// Plain HTTP for a registry on this machine, as docker does.
fn protocol(image: &Reference) -> ClientProtocol {
    let registry = image.registry();
    let name = registry.rsplit_once(':').map_or(registry, |(name, _)| name);
    let is_loopback = |name: &str| name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback());
    match name == "localhost" || name == "[::1]" || is_loopback(name) {
        true => ClientProtocol::Http,
        false => ClientProtocol::Https,
    }
}

async fn fetch(image: &Reference, auth: &RegistryAuth) -> Result<Component, PullError> {
    let client = Client::try_from(ClientConfig {
        protocol: protocol(image),
        platform_resolver: None,
        connect_timeout: Some(CONNECT_TIME),
        read_timeout: Some(READ_TIME),
        user_agent: concat!("lantern/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    });
    let client = client.map_err(PullError::Registry)?;
    let pulled = client.pull_image_manifest(image, auth).await;
    let (manifest, _) = pulled.map_err(PullError::Registry)?;
    let (layer, bytes) = component_layer(&manifest)?;
    let signature = signature(&manifest)?;
    let stream = client.pull_blob_stream(image, layer).await;
    let mut stream = stream.map_err(PullError::Registry)?;
    let mut component = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(PullError::Broken)?;
        if (component.len() + chunk.len()) as u64 > bytes {
            return Err(PullError::Digest(format!("more than {bytes} bytes")));
        }
        component.extend_from_slice(&chunk);
    }
    // The library checks the digest as well, but the integrity of the component depends on this check.
    let digest = Digest::of(&component).to_string();
    if digest != layer.digest {
        return Err(PullError::Digest(format!(
            "expected {}, got {digest}",
            layer.digest
        )));
    }
    Ok(Component {
        bytes: component,
        signature,
    })
}

/// The component layer and its size.
fn component_layer(manifest: &OciImageManifest) -> Result<(&OciDescriptor, u64), PullError> {
    if manifest.config.media_type != CONFIG_TYPE {
        return Err(PullError::Layout(format!(
            "the config has type {:?}, expected {CONFIG_TYPE:?}",
            manifest.config.media_type
        )));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(PullError::Layout(format!(
            "expected one layer, found {}",
            manifest.layers.len()
        )));
    };
    if layer.media_type != LAYER_TYPE {
        return Err(PullError::Layout(format!(
            "the layer has type {:?}, expected {LAYER_TYPE:?}",
            layer.media_type
        )));
    }
    match u64::try_from(layer.size) {
        Ok(bytes @ ..=COMPONENT_BYTES_MAX) => Ok((layer, bytes)),
        Ok(bytes) => Err(PullError::TooLarge { bytes }),
        Err(_) => Err(PullError::Layout("the size is negative".to_owned())),
    }
}

fn signature(manifest: &OciImageManifest) -> Result<Option<Vec<u8>>, PullError> {
    let annotations = manifest.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(SIGNATURE_ANNOTATION)) else {
        return Ok(None);
    };
    match STANDARD.decode(text) {
        Ok(signature) if signature.len() <= SIGNATURE_BYTES_MAX => Ok(Some(signature)),
        _ => Err(PullError::Layout(format!(
            "the annotation {SIGNATURE_ANNOTATION} is not a .minisig file in base64"
        ))),
    }
}

#[cfg(test)]
mod tests;
