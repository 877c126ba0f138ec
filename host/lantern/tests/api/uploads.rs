//! Components that a client uploads: their limit, repeated uploads, and signatures.

use std::collections::BTreeSet;

use super::plugins::{WASM, files};
use super::scene::{Scene, bearer};
use super::*;

#[tokio::test]
async fn an_upload_is_limited_in_size() {
    let scene = Scene::near().await;
    let before = scene.contents();
    let token = bearer(&scene.operator);
    let limit = lantern_plugin::Limits::default().module_bytes;
    let length = (limit + 1).to_string();
    let said = [
        ("authorization", token.as_str()),
        ("content-type", WASM),
        ("content-length", length.as_str()),
    ];
    let (status, _) = scene.call("POST", "/api/v1/plugins", &said, Body::empty()).await;
    assert_eq!(status, 413);
    // The same body without a Content-Length header.
    let (status, _) = scene
        .call(
            "POST",
            "/api/v1/plugins",
            &said[..2],
            Body::from(vec![0; limit + 1]),
        )
        .await;
    assert_eq!(status, 413);
    assert_eq!(scene.contents(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_uploads_of_one_component_are_one_version() {
    let scene = Arc::new(Scene::near().await);
    let mut sending = tokio::task::JoinSet::new();
    for index in 0..50 {
        let scene = Arc::clone(&scene);
        let query = if index % 2 == 0 { "?activate=true" } else { "" };
        sending.spawn(async move { scene.install(b'a', query).await["digest"].clone() });
    }
    let digests: BTreeSet<String> = sending.join_all().await.iter().map(Value::to_string).collect();
    assert_eq!(digests.len(), 1);
    let detail = get_json(&scene.api, "/api/v1/plugins/evolving").await;
    assert_eq!(detail["versions"].as_array().unwrap().len(), 1);
    assert_eq!(detail["state"], "active");
    let components = scene.database.dir.path().join("components");
    assert_eq!(files(&components).len(), 1);
    let uploads = scene.audit(1_000);
    let done = uploads
        .iter()
        .filter(|entry| entry.contains("plugin.install done"));
    assert_eq!(done.count(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_sent_in_a_header_and_an_unsigned_component_is_rejected() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let trusted = lantern_trust::signature::TrustedKey::parse(&keys.pk.to_base64()).unwrap();
    let id = trusted.id().to_string();
    let mut database = Database::new();
    database.signatures = lantern_trust::signature::Policy {
        rule: lantern_trust::signature::Rule::Require,
        keys: vec![trusted],
    };
    let scene = Scene::over(database, lantern_http::Config::loopback()).await;
    let before = scene.contents();
    let component = evolving::version(b'a');
    let signature = minisign::sign(None, &keys.sk, &component[..], Some("orders 1.0.0"), None)
        .unwrap()
        .into_string();
    let token = bearer(&scene.operator);
    let send = async |signature: Option<&str>| {
        let mut headers = vec![("authorization", token.as_str()), ("content-type", WASM)];
        headers.extend(signature.map(|signature| ("lantern-signature", signature)));
        let body = Body::from(component.clone());
        let (status, text) = scene
            .call("POST", "/api/v1/plugins?activate=true", &headers, body)
            .await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let (status, missing) = send(None).await;
    assert_eq!(status, 422, "{missing}");
    assert_eq!(missing["type"], "urn:lantern:problem:signature-refused");
    assert_eq!(missing["detail"], "it has no signature");
    assert!(missing["hint"].as_str().unwrap().contains("lantern plugin sign"));
    let too_large = STANDARD.encode(vec![b'x'; 10_001]);
    for bad in ["not base64!", "untrusted comment: raw", &too_large] {
        let (status, answer) = send(Some(bad)).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.to_string().contains("Lantern-Signature"), "{answer}");
    }
    let other = signature.replace("orders 1.0.0", "orders 2.0.0");
    let (status, changed) = send(Some(&STANDARD.encode(other))).await;
    assert_eq!(status, 422);
    assert!(changed["detail"].as_str().unwrap().contains(&id), "{changed}");
    assert_eq!(scene.contents(), before);
    let audit = scene.audit(5);
    assert!(
        audit[0].starts_with("acts plugin.install refused its signature"),
        "{audit:?}"
    );
    assert!(
        audit[4].starts_with("acts plugin.install refused it has no signature"),
        "{audit:?}"
    );

    let encoded = STANDARD.encode(&signature);
    let (status, taken) = send(Some(&encoded)).await;
    assert_eq!(status, 201, "{taken}");
    let good = serde_json::json!({"state": "good", "key": id, "comment": "orders 1.0.0", "reason": null});
    assert_eq!(taken["signature"], good);
    let detail = get_json(&scene.api, "/api/v1/plugins/evolving").await;
    assert_eq!(detail["versions"][0]["signature"], good);
    let request = Request::builder()
        .uri("/api/v1/plugins/evolving/component?version=1.0.0")
        .header("host", "localhost:7070")
        .header("authorization", &token)
        .body(Body::empty())
        .unwrap();
    let response = scene.api.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["lantern-signature"], encoded.as_str());
}
