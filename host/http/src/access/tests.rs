//! Tests of tokens: creation, expiry, revocation, and the limit on wrong ones.

use axum::http::HeaderValue;

use super::*;
use lantern_store as store;

async fn access(dir: &std::path::Path) -> (Access, Arc<Store>, Reader) {
    let store = Arc::new(Store::open(store::StoreConfig::new(dir)).await.unwrap());
    let reader = Reader::open(store.path().unwrap()).await.unwrap();
    let access = Access::open(Arc::clone(&store), &reader, Config::loopback())
        .await
        .unwrap();
    (access, store, reader)
}

fn name(name: &str) -> TokenName {
    TokenName::parse(name).unwrap()
}

fn with(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
    headers
}

#[tokio::test]
async fn tokens_are_valid_from_creation_to_revocation_or_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let (access, store, reader) = access(dir.path()).await;
    let text = access
        .create(name("ci"), Role::Viewer, &Actor::Local, None, None)
        .await
        .unwrap();
    assert!(text.as_str().starts_with("lantern_") && text.as_str().len() == 8 + 43);
    assert!(!format!("{text:?}").contains(&text.as_str()[8..]));
    let expected = Principal {
        name: name("ci"),
        role: Role::Viewer,
    };
    assert_eq!(access.holder(text.as_str()), Some(expected.clone()));
    let bytes = std::fs::read(store.path().unwrap()).unwrap();
    let secret = text.as_str().as_bytes();
    assert!(
        !bytes.windows(secret.len()).any(|window| window == secret),
        "the text is stored"
    );

    // The token survives a restart.
    let later = Access::open(store, &reader, Config::loopback()).await.unwrap();
    assert_eq!(later.holder(text.as_str()), Some(expected));
    assert!(matches!(
        access
            .create(name("ci"), Role::Operator, &Actor::Local, None, None)
            .await,
        Err(AccessError::Taken(_))
    ));
    access.revoke(&name("ci"), None).await.unwrap();
    assert_eq!(access.holder(text.as_str()), None);
    assert!(matches!(
        access.revoke(&name("ci"), None).await,
        Err(AccessError::Absent(_))
    ));
    let expired = access
        .create(name("old"), Role::Viewer, &Actor::Local, Some(Timestamp(1)), None)
        .await
        .unwrap();
    assert_eq!(access.holder(expired.as_str()), None);
}

#[tokio::test]
async fn the_token_of_the_host_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (access, _, reader) = access(dir.path()).await;
    assert!(matches!(
        access
            .create(name("local"), Role::Viewer, &Actor::Local, None, None)
            .await,
        Err(AccessError::Reserved(_))
    ));
    let first = access.renew_local().await.unwrap();
    let second = access.renew_local().await.unwrap();
    assert_eq!(access.holder(first.as_str()), None);
    assert_eq!(access.holder(second.as_str()).unwrap().role, Role::Operator);
    assert_eq!(reader.tokens().await.unwrap().len(), 1);
}

#[tokio::test]
async fn invalid_tokens_are_rate_limited() {
    let dir = tempfile::tempdir().unwrap();
    let (access, ..) = access(dir.path()).await;
    let good = access.renew_local().await.unwrap();
    let good = with(&format!("bearer {}", good.as_str()));
    assert_eq!(access.authenticate(&HeaderMap::new()).unwrap(), None);
    let mut two = good.clone();
    two.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
    for number in 0..40 {
        let wrong = [
            with("Bearer lantern_x"),
            with("Basic eDp5"),
            with("x"),
            two.clone(),
        ];
        let problem = access.authenticate(&wrong[number % 4]).unwrap_err();
        assert_eq!(
            problem.status().as_u16(),
            if number < 20 { 401 } else { 429 },
            "{number}"
        );
        assert!(access.authenticate(&good).unwrap().is_some());
    }
}
