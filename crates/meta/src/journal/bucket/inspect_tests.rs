//! `inspect_bucket` names every kind of damage, and changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use floe_env::Env;
use floe_store::{MemoryStore, Store};

use super::bed::{Way, commit_some, keys, options, put, simulate};
use super::inspect::inspect_bucket;
use super::{BucketJournal, BucketOptions};
use crate::journal::inspected::Inspected;
use crate::journal::{Attachment, Journal, Lsn};

/// A journal with two images, some entries behind them, and bytes that rode with its last two commits.
async fn filled(env: &Env) -> (MemoryStore, BucketJournal) {
    let store = MemoryStore::new();
    let journal = Way::new(env, &store).open(options()).await;
    commit_some(&journal, 10).await;
    for round in 0..2_u8 {
        let (last, bytes) = (journal.lsn(), Attachment::of(vec![vec![round; 100_000].into()]));
        journal
            .commit_with(last, u128::from(round) + 7, &[put("bytes", "1")], &[bytes])
            .await
            .expect("commits");
    }
    (store, journal)
}

async fn look(env: &Env, store: &MemoryStore) -> Inspected {
    inspect_bucket(env, Arc::new(store.clone()), BucketOptions::default()).await.expect("the store answers")
}

async fn entry(store: &MemoryStore, back: usize) -> (String, Vec<u8>) {
    let names = keys(store, "entries").await;
    let key = format!("journal/entries/{}", names[names.len() - 1 - back]);
    let bytes = store.get(&key, None).await.expect("it is there").to_vec();
    (key, bytes)
}

#[test]
fn a_look_at_a_whole_journal_finds_everything_and_changes_nothing() {
    simulate(async {
        let env = Env::simulated(3);
        let (store, journal) = filled(&env).await;
        drop(journal);
        let before = store.keys();
        let found = look(&env, &store).await;
        assert_eq!((found.last, found.snapshot.lsn()), (Lsn(12), Lsn(12)));
        assert_eq!(found.attachments.values().copied().collect::<Vec<_>>(), [100_000, 100_000]);
        assert!(found.journal.is_empty() && found.damaged.is_empty() && found.image.is_empty(), "{found:?}");
        assert_eq!(found.notes.len(), 1, "what it cannot prove: {:?}", found.notes);
        assert_eq!(store.keys(), before);
        let other = BucketOptions { expected: Some(5), ..BucketOptions::default() };
        let refused =
            inspect_bucket(&env, Arc::new(store.clone()), other).await.expect_err("another journal");
        assert!(refused.to_string().contains("another cluster"), "{refused}");
        let none = inspect_bucket(&env, Arc::new(MemoryStore::new()), BucketOptions::default()).await;
        assert!(none.expect_err("there is none").to_string().contains("no journal"));
    });
}

#[test]
fn a_look_names_damaged_bytes_a_damaged_entry_a_missing_one_and_a_damaged_image() {
    simulate(async {
        let env = Env::simulated(4);
        let (store, journal) = filled(&env).await;
        drop(journal);
        let (key, whole) = entry(&store, 0).await;
        let mut rotten = whole.clone();
        *rotten.last_mut().expect("it has bytes") ^= 1;
        store.plant(&key, rotten.into());
        let found = look(&env, &store).await;
        assert_eq!(found.damaged.iter().map(|one| one.lsn).collect::<Vec<_>>(), [Lsn(12)]);
        assert!(found.journal.is_empty(), "the commit stands: {:?}", found.journal);

        let mut rotten = whole.clone();
        let at = rotten.windows(5).position(|bytes| bytes == b"bytes").expect("the key of its change");
        rotten[at] ^= 1;
        store.plant(&key, rotten.into());
        assert!(!look(&env, &store).await.journal.is_empty(), "a damaged entry");
        store.plant(&key, whole.into());

        let (key, whole) = entry(&store, 1).await;
        store.remove(&key);
        assert!(!look(&env, &store).await.journal.is_empty(), "a missing entry, and one behind it");
        store.plant(&key, whole.into());

        let images = keys(&store, "images").await;
        let key = format!("journal/images/{}", images.last().expect("there are images"));
        store.plant(&key, Bytes::from_static(b"no image"));
        let found = look(&env, &store).await;
        assert!(found.journal.is_empty(), "the other image is enough: {:?}", found.journal);
        assert!(found.notes.iter().any(|note| note.contains(&key)), "{:?}", found.notes);
    });
}
