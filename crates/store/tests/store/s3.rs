//! The S3 store against a real S3 server over HTTP.

use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use floe_store::s3::{Config, Credentials, S3Store};
use floe_store::{PutIfAbsent, Store, StoreError};
use s3s::S3ErrorCode;

use crate::s3_server::{ACCESS_KEY, BUCKET, Fault, Operation, SECRET_KEY, Server};

async fn world() -> (Env, Server, S3Store) {
    let env = Env::real();
    let server = Server::start(&env).await;
    let store = S3Store::new(env.clone(), server.bucket("some/prefix")).expect("the settings are right");
    (env, server, store)
}

fn pieces(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

const EMPTY: &[u8] = b"";

#[tokio::test]
async fn objects_are_put_read_in_ranges_and_deleted_under_the_prefix() {
    let (_env, server, store) = world().await;
    store.put("wal/1/a", pieces(&["hello ", "", "world"])).await.expect("put");
    assert_eq!(server.keys(), ["some/prefix/wal/1/a"]);
    assert_eq!(server.checksums(), 1, "the payload's checksum goes along");
    assert_eq!(store.url("wal/1/a"), format!("s3://{BUCKET}/some/prefix/wal/1/a"));
    assert!(store.remote());
    assert_eq!(store.get("wal/1/a", None).await.as_deref(), Ok(&b"hello world"[..]));
    assert_eq!(store.get("wal/1/a", Some(6..11)).await.as_deref(), Ok(&b"world"[..]));
    assert_eq!(store.get("wal/1/a", Some(3..3)).await.as_deref(), Ok(EMPTY));
    assert_eq!(store.size("wal/1/a").await, Ok(11));
    for beyond in [6..12, 11..12, 100..200] {
        let read = store.get("wal/1/a", Some(beyond.clone())).await;
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{beyond:?}: {read:?}");
    }
    store.delete("wal/1/a").await.expect("deleted");
    store.delete("wal/1/a").await.expect("deleted already");
    assert_eq!(store.get("wal/1/a", None).await, Err(StoreError::NotFound("wal/1/a".into())));
    assert_eq!(store.size("wal/1/a").await, Err(StoreError::NotFound("wal/1/a".into())));
    assert!(matches!(store.put("../escape", pieces(&["x"])).await, Err(StoreError::NotApplied(_))));
}

#[tokio::test]
async fn of_many_conditional_puts_one_wins() {
    let (_env, _server, store) = world().await;
    for round in 0..20 {
        let key = format!("entries/{round}");
        let texts: Vec<String> = (0..8).map(|writer| format!("writer {writer}")).collect();
        let puts = texts.iter().map(|text| store.put_if_absent(&key, vec![Bytes::from(text.clone())]));
        let outcomes: Vec<PutIfAbsent> = futures::future::join_all(puts)
            .await
            .into_iter()
            .map(|outcome| outcome.expect("decided"))
            .collect();
        let winners: Vec<usize> = (0..8).filter(|writer| outcomes[*writer] == PutIfAbsent::Created).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        let kept = store.get(&key, None).await.expect("it is there");
        assert_eq!(kept, texts[winners[0]].as_bytes());
    }
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_and_never_guessed() {
    use Operation::Put;
    let (_env, server, store) = world().await;
    let lost = [
        Fault::ErrorAfter(S3ErrorCode::InternalError),
        Fault::ErrorAfter(S3ErrorCode::SlowDown),
        Fault::SilenceAfter,
        Fault::ErrorBefore(S3ErrorCode::ServiceUnavailable),
        Fault::SilenceBefore,
    ];
    for (number, fault) in lost.into_iter().enumerate() {
        let key = format!("a/{number}");
        // The first try has its effect and no answer. The second meets its echo, and must recognise it as its own.
        server.inject(Put, fault.clone());
        let created = store.put_if_absent(&key, pieces(&["mine"])).await;
        assert_eq!(created, Ok(PutIfAbsent::Created), "{fault:?}");
        server.inject(Put, fault.clone());
        let exists = store.put_if_absent(&key, pieces(&["another's"])).await;
        assert_eq!(exists, Ok(PutIfAbsent::Exists), "{fault:?}");
        // An overwriting PUT of the same bytes is simply repeated.
        server.inject(Put, fault.clone());
        assert_eq!(store.put(&format!("b/{number}"), pieces(&["x"])).await, Ok(()), "{fault:?}");
    }
}

#[tokio::test]
async fn outcomes_have_three_values() {
    use Operation::{Get, Head, Put};
    let (env, server, store) = world().await;
    let all_tries = |operation, fault: Fault| (0..3).for_each(|_| server.inject(operation, fault.clone()));

    all_tries(Put, Fault::ErrorAfter(S3ErrorCode::InternalError));
    assert!(matches!(store.put("k", pieces(&["x"])).await, Err(StoreError::Unknown(_))));
    assert_eq!(server.keys().len(), 1, "it was there all the same");
    all_tries(Put, Fault::SilenceBefore);
    assert!(matches!(store.put("k", pieces(&["x"])).await, Err(StoreError::Unknown(_))));
    server.inject(Put, Fault::ErrorBefore(S3ErrorCode::AccessDenied));
    assert!(matches!(store.put("k", pieces(&["x"])).await, Err(StoreError::NotApplied(_))));
    // Refused after a lost try, which may still have had its effect.
    server.inject(Put, Fault::SilenceAfter);
    server.inject(Put, Fault::ErrorBefore(S3ErrorCode::AccessDenied));
    assert!(matches!(store.put("k", pieces(&["x"])).await, Err(StoreError::Unknown(_))));

    // Reads are repeated, and a broken body does not count as a short object.
    server.plant("some/prefix/r", Bytes::from(vec![7; 100_000]));
    server.inject(Get, Fault::HalfBody);
    server.inject(Get, Fault::ErrorBefore(S3ErrorCode::SlowDown));
    assert_eq!(store.get("r", None).await.map(|bytes| bytes.len()), Ok(100_000));
    all_tries(Get, Fault::HalfBody);
    assert!(matches!(store.get("r", Some(0..50_000)).await, Err(StoreError::NotApplied(_))));
    all_tries(Head, Fault::SilenceBefore);
    assert!(matches!(store.size("r").await, Err(StoreError::NotApplied(_))));

    // Nobody listens, so certainly nothing happened.
    let endpoint = server.endpoint.clone();
    drop(server);
    let config =
        Config { endpoint: Some(endpoint.replace("http://127.0.0.1", "http://127.0.0.2")), ..config_of() };
    let nobody = S3Store::new(env, config).expect("the settings are right");
    assert!(matches!(nobody.put("k", pieces(&["x"])).await, Err(StoreError::NotApplied(_))));
}

fn config_of() -> Config {
    Config {
        region: Some("us-east-1".into()),
        credentials: Some(Credentials {
            access_key_id: ACCESS_KEY.into(),
            secret_access_key: SECRET_KEY.into(),
        }),
        tries_max: 2,
        retry_pause: Duration::from_millis(1),
        ..Config::new(BUCKET)
    }
}

#[tokio::test]
async fn wrong_keys_and_buckets_are_refused_for_good() {
    let (env, server, _store) = world().await;
    let mut wrong = server.bucket("");
    wrong.credentials =
        Some(Credentials { access_key_id: ACCESS_KEY.into(), secret_access_key: "not it".into() });
    assert!(!format!("{wrong:?}").contains("not it"), "secrets are not shown");
    let store = S3Store::new(env.clone(), wrong).expect("the settings are formally right");
    assert!(matches!(store.put("k", pieces(&["x"])).await, Err(StoreError::NotApplied(_))));
    let other = Config { bucket: "another-bucket".into(), ..server.bucket("") };
    let store = S3Store::new(env.clone(), other).expect("the settings are formally right");
    assert!(matches!(store.put("k", pieces(&["x"])).await, Err(StoreError::NotApplied(_))));
    assert!(server.keys().is_empty());
    for prefix in ["/x", "x/", "a//b", ".."] {
        assert!(S3Store::new(env.clone(), server.bucket(prefix)).is_err(), "{prefix}");
    }
}
