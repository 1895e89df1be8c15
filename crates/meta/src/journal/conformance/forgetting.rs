//! The part of the contract that is about entries that are kept elsewhere. A journal may keep them all the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{Env, lock, watch};

use super::entries::*;
use crate::*;

/// How often a case looks whether the journal has let go of entries.
const LOOKS: u32 = 200;

/// Runs every case.
pub(super) async fn run(env: &Env, fresh: &impl Fn() -> Box<dyn Place>) {
    never_more_than_told(env, &*fresh()).await;
    the_last_commit_stays(env, &*fresh()).await;
    a_broker_that_missed_them_takes_the_map(env, &*fresh()).await;
    an_attempt_among_them_stays_unknown(env, &*fresh()).await;
}

/// What a journal must still know, and what it may have let go of.
struct Model {
    all: Vec<Entry>,
    told: Lsn,
    map: BTreeMap<Bytes, Bytes>,
}

impl Model {
    async fn commit(&mut self, journal: &dyn Journal, env: &Env, count: u64) {
        let last = self.all.len() as u64;
        let group: Vec<Commit> =
            (last..last + count).map(|i| churn(&mut self.map, env.random_u64(), i)).collect();
        let outcome = journal.commit(Lsn(last), last.into(), &group).await;
        assert_eq!(outcome, Ok(Outcome::Committed(Lsn(last + count))));
        self.all.extend(entries(last + 1, last.into(), &group));
    }

    /// Compares everything that the journal says. Returns whether it has let go of something.
    async fn check(&self, journal: &dyn Journal) -> bool {
        let last = self.all.len() as u64;
        assert!(load(journal).await == (Lsn(last), self.map.clone()), "the map is whole");
        let told = self.told.0.min(last - 1);
        let mut gone = false;
        for from in [0, 1, told / 2, told.saturating_sub(1), told, told + 1, last - 1, last] {
            let due = &self.all[(from as usize).min(self.all.len())..];
            let answers = [
                journal.history(Lsn(from), 5).await.map(|found| (found, 5)),
                match journal.commit(Lsn(from), 1, &[]).await {
                    Ok(Outcome::Conflict(found)) => Ok((found, usize::MAX)),
                    Ok(Outcome::Committed(_)) => Ok((Vec::new(), 0)),
                    Err(error) => Err(error),
                },
            ];
            for answer in answers {
                match answer {
                    Ok((found, count)) => {
                        assert!(found == due[..count.min(due.len())], "none is left out after {from}");
                    }
                    Err(JournalError::Reload(kept)) => {
                        gone = true;
                        assert!(from < told, "commit {} was not to be forgotten", from + 1);
                        assert!(kept.0 > from + 1 && kept.0 <= told + 1, "{kept} after {from}, told {told}");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            if from < last {
                match journal.follow(Lsn(from)).await {
                    Ok(found) => assert!(!found.is_empty() && due.starts_with(&found), "after {from}"),
                    Err(JournalError::Reload(_)) => assert!(from < told, "commit {}", from + 1),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        gone
    }
}

async fn never_more_than_told(env: &Env, place: &dyn Place) {
    let mut journal = place.open();
    let mut model = Model { all: Vec::new(), told: Lsn(0), map: BTreeMap::new() };
    for round in 1..4_u64 {
        for _ in 0..10 {
            model.commit(&*journal, env, 100).await;
        }
        model.told = Lsn(round * 1_000 - 250 * (round % 2));
        journal.forget(model.told);
        // It may be told again, and less.
        journal.forget(Lsn(model.told.0 / 2));
        for _ in 0..LOOKS {
            if model.check(&*journal).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        model.commit(&*journal, env, 3).await;
        model.check(&*journal).await;
        journal = reopen(place, journal).await;
        model.check(&*journal).await;
    }
}

/// However much it is told: the next commit gets the next number, also after a restart.
async fn the_last_commit_stays(env: &Env, place: &dyn Place) {
    let mut journal = place.open();
    let mut model = Model { all: Vec::new(), told: Lsn(0), map: BTreeMap::new() };
    for _ in 0..3 {
        model.commit(&*journal, env, 7).await;
        model.told = Lsn(u64::MAX >> 1);
        journal.forget(model.told);
        for _ in 0..3 {
            model.check(&*journal).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let last = model.all.last().expect("it has commits");
        assert_eq!(history(&*journal, last.lsn.0 - 1, 9).await, std::slice::from_ref(last));
        journal = reopen(place, journal).await;
        model.check(&*journal).await;
    }
}

/// A journal whose followers hear nothing for a while. It may also be silent meanwhile: then the first commit is
/// applied, and no call is answered.
struct Deaf {
    journal: Arc<dyn Journal>,
    hears: watch::Sender<bool>,
    silent: bool,
    applied: AtomicBool,
}

impl Deaf {
    fn new(journal: &Arc<dyn Journal>, silent: bool) -> Arc<Deaf> {
        let (hears, applied) = (watch::Sender::new(false), AtomicBool::new(false));
        Arc::new(Deaf { journal: Arc::clone(journal), hears, silent, applied })
    }

    async fn hear(&self) {
        let mut heard = self.hears.subscribe();
        let _ = heard.wait_for(|hears| *hears).await;
    }
}

#[async_trait]
impl Journal for Deaf {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.journal.load().await
    }
    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        if self.silent && !self.applied.swap(true, Ordering::SeqCst) {
            self.journal.commit(expected, attempt, commits).await?;
            self.hear().await;
            return Err(JournalError::Unknown("lost answer".into()));
        }
        if self.silent {
            self.hear().await;
        }
        self.journal.commit(expected, attempt, commits).await
    }
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.hear().await;
        self.journal.follow(from).await
    }
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.journal.history(from, count).await
    }
}

/// Commits through one broker until the journal has let go of what another one missed, if it ever does.
async fn forget_after(journal: &dyn Journal, meta: &Meta, from: Lsn) -> bool {
    for _ in 0..LOOKS {
        for _ in 0..10 {
            meta.commit(envelope(0), add).await.expect("it has no faults");
        }
        journal.forget(Lsn(meta.snapshot().lsn().0 - 5));
        tokio::time::sleep(Duration::from_millis(10)).await;
        if matches!(journal.history(from, 1).await, Err(JournalError::Reload(_))) {
            return true;
        }
    }
    false
}

/// Whatever it missed: the next command of the broker runs over all of it, and observers hear of every key.
async fn a_broker_that_missed_them_takes_the_map(env: &Env, place: &dyn Place) {
    let journal = place.open();
    let hard_of_hearing = Deaf::new(&journal, false);
    let (meta, other) =
        (open_meta(env, hard_of_hearing.clone()).await, open_meta(env, journal.clone()).await);
    let heard = Arc::new(Mutex::new((Vec::new(), 0)));
    let hearing = Arc::clone(&heard);
    meta.observe(move |applied| {
        let mut heard = lock(&hearing);
        heard.0.push(applied.lsn);
        heard.1 += applied.keys::<Note>().count() as u64;
    });
    let first = meta.commit(envelope(0), add).await.expect("it is the first");
    let forgot = forget_after(&*journal, &other, first.lsn).await;
    let last = other.snapshot().lsn();
    let done = meta.commit(envelope(0), add).await.expect("it runs over what it missed");
    assert_eq!((done.reply, done.lsn), (last.0 + 1, last.next()));
    {
        let heard = lock(&heard);
        assert!(heard.0.is_sorted() && heard.0.last() == Some(&done.lsn), "in order, up to its own");
        assert_eq!(heard.1, done.reply, "every key once");
        assert!(!forgot || heard.0.len() < last.0 as usize, "as one");
    }
    // It hears of the rest as well.
    hard_of_hearing.hears.send_replace(true);
    let done = other.commit(envelope(0), add).await.expect("it follows");
    meta.watch().wait_for(|lsn| *lsn == done.lsn).await.expect("every broker follows");
    assert!(meta.snapshot().pairs().eq(other.snapshot().pairs()));
}

/// The answer of a commit is lost, and when the broker asks again, the entries are gone that would tell. Nothing is
/// done twice, and the broker goes on.
async fn an_attempt_among_them_stays_unknown(env: &Env, place: &dyn Place) {
    let journal = place.open();
    let hard_of_hearing = Deaf::new(&journal, true);
    let (meta, other) =
        (open_meta(env, hard_of_hearing.clone()).await, open_meta(env, journal.clone()).await);
    let asked = env.spawn("unknown", meta.commit(envelope(0), add));
    other.watch().wait_for(|lsn| *lsn == Lsn(1)).await.expect("the commit is there");
    let forgot = forget_after(&*journal, &other, Lsn(0)).await;
    let last = other.snapshot().lsn();
    hard_of_hearing.hears.send_replace(true);
    match asked.await.expect("it ends") {
        Ok(done) => assert!(!forgot && done.lsn == Lsn(1), "only the entries could tell"),
        Err(CommitError::Unknown(_)) => assert!(forgot, "the entries tell"),
        Err(error) => panic!("{error}"),
    }
    let done = meta.commit(envelope(0), add).await.expect("it goes on");
    assert_eq!((done.reply, done.lsn), (last.0 + 1, last.next()), "the attempt was applied once");
}
