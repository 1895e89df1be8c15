//! Files of tables that are lost, or have a byte that is not as it was written: an error that names the file and what
//! to do, and never another answer.

use std::sync::Arc;

use floe_env::Env;
use floe_sql::{Config, Sql};
use floe_store::{MemoryStore, Store};
use futures::TryStreamExt;

use crate::world::World;

/// A world whose table `t` is one data file. Returns its key and its bytes.
async fn world_of_one_file(store: &MemoryStore, values: &[String]) -> (World, String, Vec<u8>) {
    let world = World::open(Env::simulated(1), Arc::new(store.clone()), Config::default()).await;
    let topic = world.table("t", 1).await;
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    world.append(&topic, 0, &values).await;
    world.settle().await;
    let keys: Vec<String> = store.keys().into_iter().filter(|key| key.ends_with(".parquet")).collect();
    let [key] = keys.try_into().expect("one commit makes one file");
    let bytes = store.get(&key, None).await.expect("it was just listed");
    (world, key, bytes.to_vec())
}

/// The answer of a statement, as text, or its error. A new engine has read nothing yet.
async fn ask(world: &World, text: &str) -> Result<String, String> {
    let (env, log, lake) = (world.env.clone(), world.log.clone(), world.lake.clone());
    let sql = Sql::new(env, log, lake, Config { threads: 1, ..Config::default() }).expect("it starts");
    ask_of(&sql, text).await
}

async fn ask_of(sql: &Sql, text: &str) -> Result<String, String> {
    let answer = sql.query(text).await.map_err(|error| error.to_string())?;
    let batches: Vec<_> = answer.batches.try_collect().await.map_err(|error| error.to_string())?;
    Ok(format!("{batches:?}"))
}

async fn check_flip(
    world: &World,
    store: &MemoryStore,
    sql: Option<&Sql>,
    file: (&str, &[u8], usize),
    text: &str,
) {
    let (key, bytes, at) = file;
    let mut damaged = bytes.to_vec();
    damaged[at] ^= 1 << (at % 8);
    store.put(key, vec![damaged.into()]).await.expect("memory takes it");
    let answer = match sql {
        Some(sql) => ask_of(sql, text).await,
        None => ask(world, text).await,
    };
    match answer {
        Ok(wrong) => panic!("byte {at} of {} was not missed: {wrong}", bytes.len()),
        Err(error) => {
            assert!(error.contains(key) && error.contains("damaged"), "byte {at}: {error}");
            assert!(error.contains("`floe table rebuild t`") && !error.contains("Parquet error"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_or_damaged_file_is_an_error_that_says_how_the_table_is_made_anew() {
    let store = MemoryStore::new();
    let (world, _, _) = world_of_one_file(&store, &[r#"{"x":1}"#.to_owned()]).await;
    for end in ["-s.avro", "-m.avro", ".parquet"] {
        let keys: Vec<String> = store.keys().into_iter().filter(|key| key.ends_with(end)).collect();
        let [key] = keys.try_into().expect("one commit makes one file of each kind");
        let whole = store.get(&key, None).await.expect("it was just listed");
        for left in [None, Some(whole.slice(..whole.len() / 2))] {
            match left {
                None => store.delete(&key).await.expect("it is deleted"),
                Some(half) => store.put(&key, vec![half]).await.expect("memory takes it"),
            }
            // Nothing that other statements have read is in the caches of this one.
            let (env, log) = (world.env.clone(), world.log.clone());
            let resting = floe_lake::Config { views: false, ..floe_lake::Config::default() };
            let lake = floe_lake::Lake::start(env.clone(), log.clone(), resting);
            let sql = Sql::new(env, log, lake, Config::default()).expect("it starts");
            let error = ask_of(&sql, "select sum(x) from t").await.expect_err("the file is lost");
            assert!(error.contains("table 't' cannot be read") && error.contains(&key), "{error}");
            assert!(error.contains("`floe table rebuild t` makes a table with lost"), "{error}");
        }
        store.put(&key, vec![whole]).await.expect("memory takes it");
    }
    assert!(ask(&world, "select sum(x) from t").await.is_ok(), "the table is whole again");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_of_a_small_file_is_an_error_that_names_it() {
    let store = MemoryStore::new();
    let values: Vec<String> = (0..40).map(|n| format!(r#"{{"x":{n},"y":"text {n}","z":{n}.5}}"#)).collect();
    let (world, key, bytes) = world_of_one_file(&store, &values).await;
    let text = "select sum(x), max(y), sum(z) from t where x >= 0";
    assert!(ask(&world, text).await.expect("it is whole").contains("780"));
    // `floe_lake::checks` tries every byte. Here the engine is asked, which takes longer.
    for at in (0..bytes.len()).step_by(17) {
        check_flip(&world, &store, None, (&key, &bytes, at), text).await;
    }
    for shorter in [0, 7, 20, bytes.len() / 2, bytes.len() - 1] {
        store.put(&key, vec![bytes[..shorter].to_vec().into()]).await.expect("memory takes it");
        let error = ask(&world, text).await.expect_err("it is cut");
        assert!(error.contains(&key), "cut to {shorter}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_of_a_large_file_is_an_error_that_names_it() {
    let store = MemoryStore::new();
    // Text that hardly compresses, so that the file is larger than what the first read takes.
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 11
    };
    let values: Vec<String> = (0..9_000)
        .map(|n| format!(r#"{{"x":{n},"a":"{:016x}{:016x}","b":{}}}"#, next(), next(), next()))
        .collect();
    let (world, key, bytes) = world_of_one_file(&store, &values).await;
    assert!(bytes.len() > 200_000, "{} bytes", bytes.len());
    let text = "select sum(x), max(a), max(b), count(_timestamp), max(_offset), count(_key), max(_partition_id) from t";
    let sql = Sql::new(world.env.clone(), world.log.clone(), world.lake.clone(), Config::default())
        .expect("it starts");
    let whole = ask_of(&sql, text).await.expect("it is whole");
    // One column alone is read in pieces, too, and only they are checked.
    let part = ask_of(&sql, "select sum(x) from t").await.expect("it is whole");
    // The footer is in the cache, so the bytes behind the column chunks are not read again.
    for at in (4..bytes.len() - 20_000).step_by(4_999) {
        check_flip(&world, &store, Some(&sql), (&key, &bytes, at), text).await;
        if let Ok(answer) = ask_of(&sql, "select sum(x) from t").await {
            assert_eq!(answer, part, "byte {at}");
        }
    }
    store.put(&key, vec![bytes.into()]).await.expect("memory takes it");
    assert_eq!(ask_of(&sql, text).await, Ok(whole));
}
