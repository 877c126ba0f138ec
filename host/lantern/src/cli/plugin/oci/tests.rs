//! Tests against a small registry over plain HTTP with prepared responses.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use super::*;

const COMPONENT: &[u8] = b"\0asm and the rest";

/// Responses by path.
type Answers = BTreeMap<String, (&'static str, Vec<u8>)>;

/// Serves until the test ends. Returns the address.
fn registry(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &answers);
        }
    });
    address.to_string()
}

fn answer(mut stream: TcpStream, answers: &Answers) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    lines
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .count();
    let path = first.split(' ').nth(1).unwrap();
    let (status, content_type, body) = match answers.get(path) {
        Some((content_type, body)) => ("200 OK", *content_type, body.as_slice()),
        None if path == "/v2/" => ("200 OK", "text/plain", &b""[..]),
        None => ("404 Not Found", "application/json", &br#"{"errors": []}"#[..]),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

fn manifest(digest: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": CONFIG_TYPE, "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": [{"mediaType": LAYER_TYPE, "digest": digest, "size": COMPONENT.len()}],
        "annotations": {SIGNATURE_ANNOTATION: STANDARD.encode("a signature")},
    })
}

/// Pulls from a registry with this manifest, and with these bytes under the digest of [`COMPONENT`].
fn pulled(manifest: &Value, blob: &[u8]) -> Result<Component, String> {
    let digest = Digest::of(COMPONENT).to_string();
    let mut answers = Answers::new();
    let manifest = serde_json::to_vec(manifest).unwrap();
    answers.insert(
        "/v2/me/orders/manifests/0.1.0".into(),
        ("application/vnd.oci.image.manifest.v1+json", manifest),
    );
    answers.insert(
        format!("/v2/me/orders/blobs/{digest}"),
        ("application/octet-stream", blob.to_vec()),
    );
    pull(&format!("{}/me/orders:0.1.0", registry(answers))).map_err(|failure| failure.render())
}

#[test]
fn a_component_is_pulled_with_its_signature() {
    let digest = Digest::of(COMPONENT).to_string();
    let mut described = manifest(&digest);
    let component = pulled(&described, COMPONENT).unwrap();
    assert_eq!(component.bytes, COMPONENT);
    assert_eq!(component.signature.as_deref(), Some(&b"a signature"[..]));
    described["annotations"] = Value::Null;
    assert_eq!(pulled(&described, COMPONENT).unwrap().signature, None);
}

#[test]
fn an_artifact_that_does_not_match_its_manifest_is_rejected() {
    let digest = Digest::of(COMPONENT).to_string();
    let changed = [&COMPONENT[..COMPONENT.len() - 1], b"?"].concat();
    let longer = [COMPONENT, b"and more"].concat();
    for blob in [changed, longer, Vec::new()] {
        let error = pulled(&manifest(&digest), &blob).unwrap_err();
        assert!(error.contains("failed to pull 127.0.0.1"), "{error}");
    }
    let edits: [(&str, Value, &str); 6] = [
        (
            "/config/mediaType",
            json!("application/vnd.oci.image.config.v1+json"),
            "the config has type",
        ),
        ("/layers", json!([]), "found 0"),
        (
            "/layers/0/mediaType",
            json!("application/vnd.oci.image.layer.v1.tar"),
            "the layer has type",
        ),
        (
            "/layers/0/size",
            json!(COMPONENT_BYTES_MAX + 1),
            "a host accepts at most",
        ),
        ("/layers/0/size", json!(-1), "negative"),
        (
            "/annotations/lantern.minisig",
            json!("no base64!"),
            "lantern.minisig",
        ),
    ];
    for (pointer, value, expected) in edits {
        let mut described = manifest(&digest);
        *described.pointer_mut(pointer).unwrap() = value;
        let error = pulled(&described, COMPONENT).unwrap_err();
        assert!(error.contains(expected), "{pointer}: {error}");
    }
}

#[test]
fn a_missing_component_fails_with_a_hint() {
    let registry = registry(Answers::new());
    let missing = pull(&format!("{registry}/me/orders:9.9.9")).unwrap_err().render();
    assert!(
        missing.contains("9.9.9") && missing.contains("docker login"),
        "{missing}"
    );
    let nonsense = pull("NOT A REFERENCE").unwrap_err().render();
    assert!(nonsense.contains("oci://ghcr.io/me/orders:0.1.0"), "{nonsense}");
}

#[test]
fn credentials_come_from_docker() {
    let basic = auth(Ok(DockerCredential::UsernamePassword(
        "me".into(),
        "secret".into(),
    )));
    assert_eq!(basic.unwrap(), RegistryAuth::Basic("me".into(), "secret".into()));
    for none in [
        CredentialRetrievalError::ConfigNotFound,
        CredentialRetrievalError::NoCredentialConfigured,
    ] {
        assert_eq!(auth(Err(none)).unwrap(), RegistryAuth::Anonymous);
    }
    assert!(auth(Ok(DockerCredential::IdentityToken("t".into()))).is_err());
    let image = |text: &str| text.parse::<Reference>().unwrap();
    assert_eq!(server(&image("me/orders:1.0.0")), "https://index.docker.io/v1/");
    assert_eq!(server(&image("ghcr.io/me/orders:1.0.0")), "ghcr.io");
    for (text, plain) in [
        ("localhost:5000/a:1", true),
        ("127.0.0.1:5000/a:1", true),
        ("127.example.org/a:1", false),
    ] {
        assert_eq!(protocol(&image(text)) == ClientProtocol::Http, plain, "{text}");
    }
}
