//! The lowest floor alone: brokers that die run commands over one journal. Each command appends one value to a list. At
//! the end the list must hold every acknowledged value once, in the order of its client, and no refused value.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use floe_env::Env;
use floe_meta::{CommitError, Envelope, Meta, Options, postcard_record};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::journal::SimJournal;
use super::weather::Weather;
use crate::dice::Dice;
use crate::trace::Trace;
use floe_env::lock;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct List(Vec<u64>);
postcard_record!(List, 200, 1, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Refused,
    Unknown,
}

type Fates = Arc<Mutex<BTreeMap<u64, Fate>>>;

/// The life of a broker: it opens, its client commits value after value, it dies.
async fn life(env: Env, journal: SimJournal, fates: Fates, client: u64) {
    let dice = Dice::new(&env);
    for number in 0..6 {
        let scope = env.scope();
        scope.crash_at_poll(dice.within(1..400));
        let (inside, journal, fates) = (scope.clone(), journal.clone(), fates.clone());
        let work = scope.spawn("life", async move {
            let Ok(meta) = Meta::open(inside.clone(), Arc::new(journal), Options::default()).await else {
                return;
            };
            for step in 0..40 {
                let value = client * 1_000_000 + number * 1_000 + step;
                lock(&fates).insert(value, Fate::Unknown);
                let key = u32::from(Dice::new(&inside).chance(500));
                let done = meta.commit(Envelope::broker("test"), move |tx| append(tx, key, value));
                let fate = match done.await {
                    Ok(_) => Fate::Kept,
                    Err(CommitError::NotApplied(_) | CommitError::Refused(_)) => Fate::Refused,
                    Err(CommitError::Unknown(_) | CommitError::Closed) => Fate::Unknown,
                };
                lock(&fates).insert(value, fate);
            }
        });
        tokio::select! {
            biased;
            _ = work => {}
            () = scope.crashed() => {}
        }
        scope.abort_all();
        sleep(dice.wait(Duration::from_secs(1))).await;
    }
}

fn append(tx: &mut floe_meta::Tx<'_>, key: u32, value: u64) -> Result<(), floe_meta::DecodeError> {
    let mut list = tx.get::<List>(&key)?.unwrap_or_default();
    list.0.push(value);
    tx.put(&key, &list);
    Ok(())
}

async fn world(seed: u64) {
    let env = Env::simulated(seed);
    let trace = Trace::new(&env, false);
    let weather = Weather::draw(&env, Duration::from_secs(10), true);
    let journal = SimJournal::new(&env, weather, &trace, None);
    let fates = Fates::default();
    let lives: Vec<_> = (1..=3)
        .map(|client| env.spawn("life", life(env.clone(), journal.clone(), fates.clone(), client)))
        .collect();
    for life in lives {
        life.await.expect("a life ends by itself");
    }
    journal.heal();
    // Late commits have landed by then.
    sleep(Duration::from_secs(20)).await;
    let meta = Meta::open(env.clone(), Arc::new(journal), Options::default()).await.expect("opens");
    let snapshot = meta.snapshot();
    let lists: Vec<List> = snapshot.range::<List>(..).map(|pair| pair.expect("decodes").1).collect();
    let mut kept: Vec<u64> = lists.iter().flat_map(|list| list.0.iter().copied()).collect();
    kept.sort_unstable();
    assert!(kept.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: a command was applied twice");
    for (value, fate) in lock(&fates).iter() {
        let there = kept.binary_search(value).is_ok();
        assert!(*fate != Fate::Kept || there, "seed {seed}: acknowledged {value} is lost");
        assert!(*fate != Fate::Refused || !there, "seed {seed}: refused {value} is there");
    }
    for list in &lists {
        for client in 1..=3 {
            let of_client: Vec<_> = list.0.iter().filter(|value| *value / 1_000_000 == client).collect();
            assert!(of_client.is_sorted(), "seed {seed}: commands of client {client} are out of order");
        }
    }
}

#[test]
fn commands_are_applied_once_whatever_dies() {
    for seed in 0..60 {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(world(seed));
    }
}
