//! The log over the S3 store, against a real S3 server over HTTP.

use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_log::PartitionId;
use floe_meta::{Journal, MemoryJournal};
use floe_store::Store;
use floe_store::s3::S3Store;
use s3s::S3ErrorCode;

use crate::s3_server::{Fault, Operation, Server};
use crate::world::{append, config, open, topic, values};

#[tokio::test]
async fn a_log_lives_on_s3() {
    let env = Env::real();
    let server = Server::start(&env).await;
    let store = S3Store::new(env.clone(), server.bucket("some/prefix")).expect("the settings are right");
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let store: Arc<dyn Store> = Arc::new(store);
    let config = floe_log::Config { linger: Some(Duration::from_millis(5)), ..config() };
    let log = open(&env, &journal, Arc::clone(&store), config).await;
    let topic = topic(&log, "t", 1).await;
    let partition = PartitionId::new(topic.id, 0);
    server.inject(Operation::Put, Fault::ErrorAfter(S3ErrorCode::InternalError));
    for number in 0..5 {
        append(&log, partition, &[&format!("v{number}")]).await.expect("appended");
    }
    let fresh = open(&env.scope(), &journal, store, config).await;
    let expected: Vec<(i64, String)> = (0..5).map(|number| (number, format!("v{number}"))).collect();
    let before = server.requests(Operation::Get);
    assert_eq!(values(&fresh, partition).await, expected);
    assert_eq!(server.requests(Operation::Get) - before, 5, "one ranged GET per object");
    log.close().await;
    fresh.close().await;
}
