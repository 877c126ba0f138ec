//! Components from an OCI registry, in the layout of `wkg oci push`: a manifest whose config is of type
//! [`CONFIG_TYPE`], with the component as its one layer. A signature comes as an annotation of the manifest. Nothing of a
//! registry is believed but what the digests in the manifest prove; whether the component may run is for the host to say.
//!
//! Only in programs that are built with the feature `oci`.

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

use crate::cli::{Failure, commands};
use lantern_lifecycle::Component;
use lantern_plugin::Digest;
use lantern_trust::signature::SIGNATURE_BYTES_MAX;

/// The type of a component's config, which says its imports and exports; nobody here needs them.
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";

/// The type of the layer that is the component.
const LAYER_TYPE: &str = "application/wasm";

/// The manifest's annotation with the `.minisig` file in base64.
const SIGNATURE_ANNOTATION: &str = "lantern.minisig";

/// The largest component that a host can be told to take, in bytes.
const COMPONENT_BYTES_MAX: u64 = 1 << 30;

/// Longest time to connect to a registry.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Longest time that a registry may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
enum PullError {
    /// The registry cannot be reached, refuses, or sends something else than its digests say.
    #[error("the registry does not give it")]
    Registry(#[source] OciDistributionError),
    /// The answer ended early.
    #[error("the registry does not give all of it")]
    Broken(#[source] std::io::Error),
    /// It is there, and something else.
    #[error("it is not a component as wkg publishes them: {0}")]
    Layout(String),
    /// More than a host could take.
    #[error("it has {bytes} bytes, and a host takes at most {COMPONENT_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    /// The bytes are not those that the manifest names.
    #[error("what the registry sent is not what its manifest names: {0}")]
    Digest(String),
    /// Docker has one that would first have to be exchanged for another.
    #[error(
        "docker keeps an identity token for this registry, which is of no use here; log in with a name and a password or an access token"
    )]
    IdentityToken,
    /// The credentials of docker cannot be had.
    #[error("docker's credentials for this registry cannot be read")]
    Credentials(#[source] CredentialRetrievalError),
}

/// Gets a component by its reference, such as `ghcr.io/me/orders:0.1.0`.
///
/// # Errors
/// A [`Failure`] that says what the registry does not have, or sends.
pub fn pull(reference: &str) -> Result<Component, Failure> {
    let image: Reference = reference.parse().map_err(|error| {
        Failure::usage(format!(
            "{reference:?} is not the reference of a component: {error}"
        ))
        .hint("give oci://REGISTRY/NAME:VERSION, such as oci://ghcr.io/me/orders:0.1.0")
    })?;
    // The library takes the one that the process has; that a part of the process has set it already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pulled = commands::block_on(async {
        let auth = auth(docker_credential::get_credential(server(&image)))?;
        fetch(&image, &auth).await
    })?;
    pulled.map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("cannot pull {image}"));
        Failure::new(error).hint(
            "where the registry asks who you are: docker login REGISTRY; wkg oci push REFERENCE FILE publishes one",
        )
    })
}

/// The name under which docker keeps the credentials of a registry.
fn server(image: &Reference) -> &str {
    match image.registry() {
        "docker.io" => "https://index.docker.io/v1/",
        registry => registry,
    }
}

/// As nobody, where docker has no credentials.
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

/// A registry on this machine speaks plain HTTP, as it does for docker.
fn protocol(image: &Reference) -> ClientProtocol {
    let registry = image.registry();
    let name = registry.rsplit_once(':').map_or(registry, |(name, _)| name);
    let is_here = |name: &str| name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback());
    match name == "localhost" || name == "[::1]" || is_here(name) {
        true => ClientProtocol::Http,
        false => ClientProtocol::Https,
    }
}

async fn fetch(image: &Reference, auth: &RegistryAuth) -> Result<Component, PullError> {
    let client = Client::try_from(ClientConfig {
        protocol: protocol(image),
        platform_resolver: None,
        connect_timeout: Some(CONNECT_TIME),
        read_timeout: Some(SILENCE),
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
            return Err(PullError::Digest(format!("it has more than {bytes} bytes")));
        }
        component.extend_from_slice(&chunk);
    }
    // The library has checked it as well; this is what everything hangs on.
    let digest = Digest::of(&component).to_string();
    if digest != layer.digest {
        return Err(PullError::Digest(format!("{digest} instead of {}", layer.digest)));
    }
    Ok(Component {
        bytes: component,
        signature,
    })
}

/// The layer that is the component, and its size.
fn component_layer(manifest: &OciImageManifest) -> Result<(&OciDescriptor, u64), PullError> {
    if manifest.config.media_type != CONFIG_TYPE {
        return Err(PullError::Layout(format!(
            "its config is {:?}, and not {CONFIG_TYPE:?}",
            manifest.config.media_type
        )));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(PullError::Layout(format!(
            "it has {} layers, and not one",
            manifest.layers.len()
        )));
    };
    if layer.media_type != LAYER_TYPE {
        return Err(PullError::Layout(format!(
            "its layer is {:?}, and not {LAYER_TYPE:?}",
            layer.media_type
        )));
    }
    match u64::try_from(layer.size) {
        Ok(bytes @ ..=COMPONENT_BYTES_MAX) => Ok((layer, bytes)),
        Ok(bytes) => Err(PullError::TooLarge { bytes }),
        Err(_) => Err(PullError::Layout("its size is negative".to_owned())),
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
            "its annotation {SIGNATURE_ANNOTATION} is not a .minisig file in base64"
        ))),
    }
}

#[cfg(test)]
mod tests;
