//! A model of several brokers on one bucket, in which requests are lost, refused, or hang for longer than the grace,
//! brokers sleep and start anew, and entries are let go of all the time. Checked: every broker folds one history, no
//! attempt is applied twice or after it was refused, none that was acknowledged is lost, and all bytes can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Env, lock};
use floe_store::MemoryStore;
use tokio::time::timeout;

use super::bed::*;
use super::planted::{Planted, plant};
use super::{BucketJournal, BucketOptions};
use crate::journal::{
    AttachedError, Attachment, Carried, Commit, Entry, Journal, JournalError, Lsn, Outcome,
};

const BROKERS: u64 = 3;
/// Runs of the test. A look before a release takes more.
const SEEDS: u64 = 250;
/// Runs after which a planted bug must have been seen.
const SEEDS_PER_BUG: u64 = 100;

type Map = BTreeMap<Bytes, Bytes>;

/// What everybody has seen and was told.
#[derive(Default)]
struct Seen {
    /// Every entry that any broker has seen.
    entries: BTreeMap<Lsn, Entry>,
    /// The commits of each attempt that was sent.
    sent: BTreeMap<u128, usize>,
    /// Attempts that were said to have no effect.
    denied: BTreeSet<u128>,
    /// Attempts that were acknowledged, with their last commits.
    acknowledged: BTreeMap<u128, Lsn>,
    /// The bytes of acknowledged commits.
    attached: BTreeMap<Lsn, Bytes>,
    released: BTreeSet<Lsn>,
}

impl Seen {
    fn see(&mut self, entry: &Entry) {
        assert!(self.sent.contains_key(&entry.attempt), "nobody sent {:x}", entry.attempt);
        assert!(!self.denied.contains(&entry.attempt), "commit {} was said to have no effect", entry.lsn);
        if let Some(known) = self.entries.get(&entry.lsn) {
            assert!(known == entry, "two brokers see two commits {}", entry.lsn);
        } else {
            let of_it = self.entries.values().filter(|known| known.attempt == entry.attempt).count();
            assert!(
                of_it < self.sent[&entry.attempt],
                "an attempt was applied twice, again at {}",
                entry.lsn
            );
            self.entries.insert(entry.lsn, entry.clone());
        }
    }

    fn deny(&mut self, attempt: u128) {
        let applied = self.entries.values().any(|entry| entry.attempt == attempt);
        assert!(!applied, "an attempt that was applied is said to have no effect");
        self.denied.insert(attempt);
    }

    /// The map up to a commit, if all before it were seen.
    fn map(&self, upto: Lsn) -> Option<Map> {
        let mut map = Map::new();
        for lsn in 1..=upto.0 {
            apply(&mut map, self.entries.get(&Lsn(lsn))?);
        }
        Some(map)
    }
}

fn apply(map: &mut Map, entry: &Entry) {
    for change in &entry.changes {
        match &change.value {
            Some(value) => map.insert(change.key.clone(), value.clone()),
            None => map.remove(&change.key),
        };
    }
}

/// One broker, with the map as it has folded it.
struct Broker {
    env: Env,
    way: Way,
    options: BucketOptions,
    journal: BucketJournal,
    seen: Arc<Mutex<Seen>>,
    last: Lsn,
    map: Map,
}

fn short_options() -> BucketOptions {
    BucketOptions {
        carries: 100_000,
        image_entries: 3,
        image_pause: Duration::ZERO,
        image_jitter: Duration::from_millis(200),
        grace: seconds(8),
        trust: seconds(2),
        poll_max: seconds(1),
        keeper_look: Duration::from_millis(500),
        ..options()
    }
}

impl Broker {
    async fn start(env: &Env, way: Way, seen: Arc<Mutex<Seen>>) -> Broker {
        let options = short_options();
        let journal = open(&way, &options).await;
        let (env, map) = (env.clone(), Map::new());
        let mut broker = Broker { env, way, options, journal, seen, last: Lsn(0), map };
        broker.reload().await;
        broker
    }

    fn draw(&self, below: u64) -> u64 {
        self.env.random_u64() % below
    }

    fn absorb(&mut self, entries: &[Entry]) {
        for entry in entries {
            lock(&self.seen).see(entry);
            if entry.lsn > self.last {
                assert_eq!(entry.lsn, self.last.next(), "a commit is left out");
                apply(&mut self.map, entry);
                self.last = entry.lsn;
            }
        }
    }

    async fn reload(&mut self) {
        let loaded = loop {
            match timeout(seconds(60), self.journal.load()).await {
                Ok(Ok(loaded)) => break loaded,
                Ok(Err(JournalError::NotApplied(reason))) => {
                    assert!(!reason.contains("Put the") && !reason.contains("put "), "{reason}");
                }
                Ok(Err(JournalError::Reload(_))) | Err(_) => {}
                Ok(Err(error)) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let image: Map = loaded.image.into_iter().collect();
        if let Some(map) = lock(&self.seen).map(loaded.image_lsn) {
            assert!(map == image, "the image of {} is another map", loaded.image_lsn);
        }
        assert!(loaded.image_lsn.plus(loaded.entries.len()) >= self.last, "a load goes back");
        (self.last, self.map) = (loaded.image_lsn, image);
        self.absorb(&loaded.entries);
    }

    async fn restart(&mut self) {
        self.journal = open(&self.way, &self.options).await;
        self.last = Lsn(0);
        self.reload().await;
    }

    fn group(&self) -> (Vec<Commit>, Vec<Attachment>) {
        let count = 1 + self.draw(3) as u32;
        let commit = |_| put(&format!("key {}", self.draw(12)), &self.env.random_u64().to_string());
        let commits = (0..count).map(commit).collect();
        let ride = |place: u32| {
            let bytes = Bytes::from(vec![self.draw(256) as u8; self.draw(300) as usize]);
            Attachment { commit: place, ..Attachment::of(vec![bytes]) }
        };
        (commits, (0..count).filter(|_| self.draw(4) == 0).map(ride).collect())
    }

    /// Sends one group until it knows what came of it, as a committer does.
    async fn commit(&mut self) {
        let attempt = self.env.random_u128();
        let (commits, attachments) = self.group();
        let expected = self.last;
        lock(&self.seen).sent.insert(attempt, commits.len());
        let mut unknown = false;
        for _ in 0..40 {
            let call = self.journal.commit_with(expected, attempt, &commits, &attachments);
            // Now and then the caller gives up in the middle.
            let patience = Duration::from_millis(200 + self.draw(20_000));
            match timeout(patience, call).await {
                Ok(Ok(Carried { outcome: Outcome::Committed(last), .. })) => {
                    assert_eq!(last, expected.plus(commits.len()));
                    return self.applied(attempt, &commits, &attachments, &[]);
                }
                Ok(Ok(Carried { outcome: Outcome::Conflict(entries), .. })) => {
                    assert!(!entries.is_empty() && entries[0].lsn == expected.next());
                    if entries[0].attempt != attempt {
                        lock(&self.seen).deny(attempt);
                        return self.absorb(&entries);
                    }
                    assert!(unknown, "an attempt that was never sent was applied");
                    return self.applied(attempt, &commits, &attachments, &entries);
                }
                Ok(Err(JournalError::Reload(_))) => {
                    if !unknown {
                        lock(&self.seen).deny(attempt);
                    }
                    return self.reload().await;
                }
                Ok(Err(JournalError::NotApplied(reason))) => {
                    assert!(!reason.contains("Put the"), "{reason}");
                    if !unknown {
                        return lock(&self.seen).deny(attempt);
                    }
                }
                Ok(Err(JournalError::Unknown(_))) | Err(_) => unknown = true,
            }
            tokio::time::sleep(Duration::from_millis(self.draw(500))).await;
        }
        // It goes on without knowing.
        self.restart().await;
    }

    fn applied(&mut self, attempt: u128, commits: &[Commit], attachments: &[Attachment], found: &[Entry]) {
        let expected = self.last;
        let ours: Vec<Entry> = (1..)
            .zip(commits)
            .map(|(place, commit)| {
                let Commit { envelope, changes } = commit.clone();
                Entry { lsn: expected.plus(place), attempt, envelope, changes }
            })
            .collect();
        assert!(found.is_empty() || found.starts_with(&ours), "a group is applied as a whole");
        let mut seen = lock(&self.seen);
        seen.acknowledged.insert(attempt, expected.plus(commits.len()));
        for attachment in attachments {
            seen.attached.insert(expected.plus(attachment.commit as usize + 1), attachment.joined());
        }
        drop(seen);
        self.absorb(&ours);
        self.absorb(found);
    }

    async fn follow(&mut self) {
        match timeout(Duration::from_millis(self.draw(5_000)), self.journal.follow(self.last)).await {
            Ok(Ok(entries)) => {
                assert!(!entries.is_empty(), "a follower wakes for something");
                self.absorb(&entries);
            }
            Ok(Err(JournalError::Reload(_))) => self.reload().await,
            Ok(Err(JournalError::NotApplied(reason))) => assert!(!reason.contains("Put the"), "{reason}"),
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => {}
        }
    }

    async fn look_back(&mut self) {
        let from = Lsn(self.draw(self.last.0 + 1));
        match self.journal.history(from, 4).await {
            Ok(entries) => entries.iter().for_each(|entry| lock(&self.seen).see(entry)),
            Err(JournalError::NotApplied(reason)) => assert!(!reason.contains("Put the"), "{reason}"),
            Err(_) => {}
        }
    }

    /// Every broker says itself what nothing needs any more: the map that all have tells it.
    fn release(&self) {
        let mut seen = lock(&self.seen);
        if self.draw(3) == 0 {
            let known: Vec<Lsn> = seen.attached.range(..=self.last).map(|(lsn, _)| *lsn).collect();
            if let Some(lsn) = known.get(self.draw(known.len().max(1) as u64) as usize) {
                seen.attached.remove(lsn);
                seen.released.insert(*lsn);
            }
        }
        let released: Vec<Lsn> = seen.released.range(..=self.last).copied().collect();
        drop(seen);
        released.iter().for_each(|lsn| self.journal.released(*lsn));
    }

    async fn read_attached(&self) {
        let some = {
            let seen = lock(&self.seen);
            let known: Vec<_> =
                seen.attached.range(..=self.last).map(|(lsn, bytes)| (*lsn, bytes.clone())).collect();
            known.get(self.draw(known.len().max(1) as u64) as usize).cloned()
        };
        let Some((lsn, bytes)) = some else { return };
        match self.journal.attached(lsn, 0..bytes.len() as u64).await {
            Ok(found) => assert!(found == bytes, "the attachment of {lsn} is another one"),
            Err(AttachedError::Failed { reason, .. }) if reason.contains("stormy") => {}
            Err(error) => assert!(lock(&self.seen).released.contains(&lsn), "{error}"),
        }
    }

    async fn step(&mut self) {
        self.release();
        match self.draw(20) {
            0..10 => self.commit().await,
            10..13 => self.follow().await,
            13 => self.look_back().await,
            14 | 15 => self.read_attached().await,
            16 => self.journal.forget(Lsn(self.last.0.saturating_sub(self.draw(8)))),
            17 if self.draw(3) == 0 => self.restart().await,
            18 => tokio::time::sleep(seconds(self.draw(30))).await,
            _ => tokio::time::sleep(Duration::from_millis(self.draw(3_000))).await,
        }
    }
}

async fn open(way: &Way, options: &BucketOptions) -> BucketJournal {
    loop {
        match BucketJournal::open(&way.env, Arc::new(way.clone()), options.clone()).await {
            Ok(journal) => return journal,
            Err(error) => assert!(error.to_string().contains("stormy"), "{error}"),
        }
    }
}

/// What a run had in it, so that the test can tell that it was worth something.
#[derive(Debug, Default)]
struct Worth {
    commits: u64,
    deleted: u64,
    acknowledged: usize,
}

async fn run(seed: u64, steps: usize) -> Worth {
    let env = Env::simulated(seed);
    let store = MemoryStore::new();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let weather = Weather { lost: 30, refused: 20, slow: 20, slowest: seconds(25) };
    let mut tasks = Vec::new();
    for _ in 0..BROKERS {
        let (scope, seen) = (env.scope(), Arc::clone(&seen));
        let way = Way::new(&scope, &store);
        *lock(&way.weather) = weather;
        tasks.push(env.spawn("broker", async move {
            let mut broker = Broker::start(&scope, way, seen).await;
            for _ in 0..steps {
                broker.step().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap_or_else(|_| panic!("seed {seed}: {:?}", env.panics()));
    }
    // The weather clears up, and what is under way ends.
    tokio::time::sleep(seconds(60)).await;
    let way = Way::new(&env.scope(), &store);
    let last = Broker::start(&env, way, Arc::clone(&seen)).await;
    let (acknowledged, attached) = check_end(&lock(&seen), &last);
    for (lsn, bytes) in &attached {
        let found = last.journal.attached(*lsn, 0..bytes.len() as u64).await;
        assert_eq!(found.as_ref(), Ok(bytes), "the attachment of {lsn}");
    }
    let number = last.journal.core.tail().position.number;
    let deleted = number.saturating_sub(keys(&store, "entries").await.len() as u64);
    Worth { commits: last.last.0, deleted, acknowledged }
}

/// Compares the journal with what everybody was told. Returns the number of acknowledged attempts, and the bytes that
/// must be there.
fn check_end(seen: &Seen, last: &Broker) -> (usize, BTreeMap<Lsn, Bytes>) {
    for (attempt, lsn) in &seen.acknowledged {
        assert!(*lsn <= last.last, "commit {lsn} was acknowledged and is lost");
        let found = seen.entries.get(lsn).map(|entry| entry.attempt);
        assert_eq!(found, Some(*attempt), "commit {lsn} was acknowledged and is another one");
    }
    if let Some(map) = seen.map(last.last) {
        assert!(map == last.map, "the map is not the fold of what was seen");
    }
    (seen.acknowledged.len(), seen.attached.clone())
}

#[test]
fn brokers_on_one_bucket_fold_one_history_in_any_weather() {
    let mut sum = Worth::default();
    for seed in 0..SEEDS {
        let worth = simulate(run(seed, 25));
        sum.commits += worth.commits;
        sum.deleted += worth.deleted;
        sum.acknowledged += worth.acknowledged;
    }
    assert!(
        sum.commits > 20 * SEEDS && sum.acknowledged as u64 > 10 * SEEDS && sum.deleted > SEEDS,
        "{sum:?}"
    );
}

/// The model sees mistakes that somebody could make. Not every seed has the luck.
#[test]
fn the_model_sees_planted_bugs() {
    use Planted::*;
    let bugs = [NoCheckAfter, LateHadNoEffect, ReadsUnchecked, ForgetsAttachments, UnknownIsNotApplied];
    let sees = |bug| {
        plant(Some(bug));
        let seen = (0..SEEDS_PER_BUG)
            .any(|seed| catch_unwind(AssertUnwindSafe(|| simulate(run(seed, 60)))).is_err());
        plant(None);
        seen
    };
    let unseen: Vec<Planted> = bugs.into_iter().filter(|bug| !sees(*bug)).collect();
    assert!(unseen.is_empty(), "{unseen:?} were not seen");
}
