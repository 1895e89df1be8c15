//! The part of the contract that every journal has, and what both parts need.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::*;
use floe_env::{Env, Timestamp, lock};

/// A place where one journal lives. It can be opened again after every handle is dropped.
pub trait Place: Send + Sync {
    /// Opens the journal as a starting process would.
    fn open(&self) -> Arc<dyn Journal>;
}

/// Runs every case.
pub(super) async fn run(env: &Env, fresh: &impl Fn() -> Box<dyn Place>) {
    numbers_and_envelopes(&*fresh()).await;
    conflict(&*fresh()).await;
    lost_answer(&*fresh()).await;
    duplicated_attempt(&*fresh()).await;
    whole_groups(&*fresh()).await;
    restart(&*fresh()).await;
    dropped_in_the_middle(&*fresh()).await;
    following(env, &*fresh()).await;
    long_history(env, &*fresh()).await;
    brokers_race(env, &*fresh()).await;
    faults_on_the_way(env, &*fresh()).await;
    newer_value(env, &*fresh()).await;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note(String);
crate::postcard_record!(Note, 200, 1, u64);

/// The record kind of `Note`, as a newer build would write it.
struct NewerNote;
impl MapRecord for NewerNote {
    const KIND: u8 = 200;
    const VERSION: u8 = 2;
    type Key = u64;
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(0);
    }
    fn decode(_: u8, _: &[u8]) -> Result<NewerNote, DecodeError> {
        Ok(NewerNote)
    }
}

pub(super) fn envelope(time: i64) -> Envelope {
    Envelope {
        time: Timestamp(time),
        principal: "User:ann".into(),
        client_id: "etl".into(),
        run_id: Some("run 7".into()),
        cause: Some("orders/3/12".into()),
        undo_of: (time > 1).then_some(Lsn(1)),
        comment: None,
    }
}

pub(super) fn put(key: &str, value: &str) -> Commit {
    let (key, value) =
        (Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes())));
    Commit {
        envelope: envelope(value.as_ref().map_or(0, |v| v.len() as i64)),
        changes: vec![Change { key, value }],
    }
}

pub(super) fn remove(key: &str) -> Commit {
    let mut commit = put(key, "");
    commit.changes[0].value = None;
    commit
}

pub(super) fn entries(first: u64, attempt: u128, commits: &[Commit]) -> Vec<Entry> {
    let numbered = commits.iter().cloned().zip(first..);
    numbered
        .map(|(Commit { envelope, changes }, lsn)| Entry { lsn: Lsn(lsn), attempt, envelope, changes })
        .collect()
}

/// The map that a journal loads, with its last LSN.
pub(super) async fn load(journal: &dyn Journal) -> (Lsn, BTreeMap<Bytes, Bytes>) {
    let loaded = journal.load().await.expect("a healthy journal loads");
    let mut lsn = loaded.image_lsn;
    let mut map: BTreeMap<Bytes, Bytes> = loaded.image.into_iter().collect();
    for entry in loaded.entries {
        assert_eq!(entry.lsn, lsn.next(), "entries follow the image and each other");
        lsn = entry.lsn;
        for change in entry.changes {
            match change.value {
                Some(value) => map.insert(change.key, value),
                None => map.remove(&change.key),
            };
        }
    }
    (lsn, map)
}

pub(super) fn words(pairs: &[(&'static str, &'static str)]) -> BTreeMap<Bytes, Bytes> {
    pairs.iter().map(|(k, v)| (Bytes::from_static(k.as_bytes()), Bytes::from_static(v.as_bytes()))).collect()
}

pub(super) async fn history(journal: &dyn Journal, from: u64, count: usize) -> Vec<Entry> {
    journal.history(Lsn(from), count).await.expect("a healthy journal has its history")
}

async fn numbers_and_envelopes(place: &dyn Place) {
    let journal = place.open();
    assert_eq!(load(&*journal).await, (Lsn(0), words(&[])));
    assert_eq!(history(&*journal, 0, 10).await, []);
    let one = [put("a", "1")];
    let two = [put("b", "22"), remove("a"), put("c", "333")];
    assert_eq!(journal.commit(Lsn(0), 1, &one).await, Ok(Outcome::Committed(Lsn(1))));
    assert_eq!(journal.commit(Lsn(1), u128::MAX, &two).await, Ok(Outcome::Committed(Lsn(4))));
    assert_eq!(load(&*journal).await, (Lsn(4), words(&[("b", "22"), ("c", "333")])));
    let all = [entries(1, 1, &one), entries(2, u128::MAX, &two)].concat();
    assert_eq!(history(&*journal, 0, 10).await, all);
    assert_eq!(history(&*journal, 1, 2).await, all[1..3]);
    assert_eq!(history(&*journal, 4, 2).await, []);
    assert_eq!(history(&*journal, u64::MAX >> 1, 2).await, []);
}

async fn conflict(place: &dyn Place) {
    let journal = place.open();
    let (one, two) = ([put("a", "1")], [put("a", "2"), put("b", "2")]);
    assert_eq!(journal.commit(Lsn(0), 1, &one).await, Ok(Outcome::Committed(Lsn(1))));
    let missed = entries(1, 1, &one);
    assert_eq!(journal.commit(Lsn(0), 2, &two).await, Ok(Outcome::Conflict(missed)));
    assert_eq!(load(&*journal).await, (Lsn(1), words(&[("a", "1")])));
    assert_eq!(journal.commit(Lsn(1), 2, &two).await, Ok(Outcome::Committed(Lsn(3))));
    // Nobody can have seen a commit that does not exist yet.
    assert!(matches!(journal.commit(Lsn(4), 3, &one).await, Err(JournalError::NotApplied(_))));
    assert_eq!(load(&*journal).await, (Lsn(3), words(&[("a", "2"), ("b", "2")])));
}

/// The answer is lost, so the broker sends the same attempt again. The conflict shows that it was applied, even if
/// others have committed since.
async fn lost_answer(place: &dyn Place) {
    let journal = place.open();
    let (ours, theirs) = ([put("a", "1"), put("b", "1")], [put("a", "2")]);
    assert_eq!(journal.commit(Lsn(0), 7, &ours).await, Ok(Outcome::Committed(Lsn(2))));
    assert_eq!(journal.commit(Lsn(0), 7, &ours).await, Ok(Outcome::Conflict(entries(1, 7, &ours))));
    assert_eq!(journal.commit(Lsn(2), 8, &theirs).await, Ok(Outcome::Committed(Lsn(3))));
    let missed = [entries(1, 7, &ours), entries(3, 8, &theirs)].concat();
    assert_eq!(journal.commit(Lsn(0), 7, &ours).await, Ok(Outcome::Conflict(missed)));
    assert_eq!(load(&*journal).await, (Lsn(3), words(&[("a", "2"), ("b", "1")])));
}

/// The same attempt arrives twice at once, as a network may deliver it. It applies once.
async fn duplicated_attempt(place: &dyn Place) {
    let journal = place.open();
    let commits = [put("a", "1")];
    let (first, second) =
        futures::join!(journal.commit(Lsn(0), 7, &commits), journal.commit(Lsn(0), 7, &commits));
    let mut outcomes = [first, second];
    outcomes.sort_by_key(|outcome| !matches!(outcome, Ok(Outcome::Committed(_))));
    assert_eq!(outcomes, [Ok(Outcome::Committed(Lsn(1))), Ok(Outcome::Conflict(entries(1, 7, &commits)))]);
    assert_eq!(history(&*journal, 0, 10).await, entries(1, 7, &commits));
}

async fn whole_groups(place: &dyn Place) {
    let journal = place.open();
    let group: Vec<Commit> = (0..2_000).map(|i| put(&format!("key {i}"), &"v".repeat(i % 50))).collect();
    assert_eq!(journal.commit(Lsn(0), 1, &group).await, Ok(Outcome::Committed(Lsn(2_000))));
    let large = [put("large", &"x".repeat(5 << 20))];
    assert_eq!(journal.commit(Lsn(2_000), 2, &large).await, Ok(Outcome::Committed(Lsn(2_001))));
    let journal = reopen(place, journal).await;
    let all = [entries(1, 1, &group), entries(2_001, 2, &large)].concat();
    assert!(history(&*journal, 0, 3_000).await == all);
    assert_eq!(load(&*journal).await.1.len(), 2_001);
}

pub(super) async fn reopen(place: &dyn Place, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
    // An ending committer drops its handle a moment after the last `Meta` is gone.
    while Arc::strong_count(&journal) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(journal);
    place.open()
}

async fn restart(place: &dyn Place) {
    let mut journal = place.open();
    let mut all = Vec::new();
    for round in 0..5_u64 {
        let commits = [put("round", &round.to_string()), put(&format!("only {round}"), "x")];
        let outcome = journal.commit(Lsn(round * 2), round.into(), &commits).await;
        assert_eq!(outcome, Ok(Outcome::Committed(Lsn(round * 2 + 2))));
        all.extend(entries(round * 2 + 1, round.into(), &commits));
        journal = reopen(place, journal).await;
        assert_eq!(history(&*journal, 0, 100).await, all);
        let (lsn, map) = load(&*journal).await;
        assert_eq!((lsn, map.len()), (Lsn(round * 2 + 2), round as usize + 2));
        // The journal still knows an attempt from before the restart.
        let again = journal.commit(Lsn(round * 2), round.into(), &commits).await;
        assert_eq!(again, Ok(Outcome::Conflict(entries(round * 2 + 1, round.into(), &commits))));
    }
}

/// A committer gives up after one poll, and the journal is opened again. The group is present as a whole or not at
/// all, and the attempt tells which.
async fn dropped_in_the_middle(place: &dyn Place) {
    let mut expected = Lsn(0);
    for round in 0..20_u128 {
        let journal = place.open();
        let commits = [put("a", "1"), put(&format!("{round}"), "2"), remove("a")];
        let mut call = journal.commit(expected, round, &commits);
        let polled = futures::poll!(call.as_mut());
        assert!(!matches!(polled, std::task::Poll::Ready(Err(_))), "{polled:?}");
        drop(call);
        let journal = reopen(place, journal).await;
        let last = load(&*journal).await.0;
        assert!(last == expected || last == expected.plus(3), "half a group: {last} after {expected}");
        let applied = last != expected;
        match journal.commit(expected, round, &commits).await {
            Ok(Outcome::Committed(_)) => assert!(!applied),
            Ok(Outcome::Conflict(entries)) => assert!(applied && entries.iter().all(|e| e.attempt == round)),
            Err(error) => panic!("{error}"),
        }
        expected = expected.plus(3);
        assert_eq!(load(&*journal).await.0, expected);
    }
}

async fn following(env: &Env, place: &dyn Place) {
    let journal = place.open();
    let commits = [put("a", "1"), put("b", "1")];
    let follower = journal.clone();
    let task = env.spawn("follower", async move { follower.follow(Lsn(1)).await });
    // A follower that gives up leaves nothing behind.
    assert!(futures::poll!(journal.follow(Lsn(0)).as_mut()).is_pending());
    assert_eq!(journal.commit(Lsn(0), 1, &commits).await, Ok(Outcome::Committed(Lsn(2))));
    let all = entries(1, 1, &commits);
    assert_eq!(task.await.expect("the follower ends"), Ok(all[1..].to_vec()));
    assert_eq!(journal.follow(Lsn(0)).await, Ok(all));
}

/// A history long enough that the journal folds its past. The map is the same after every restart, and nothing is
/// forgotten that nobody said is kept elsewhere.
async fn long_history(env: &Env, place: &dyn Place) {
    const COMMITS: u64 = 3_000;
    let mut model = BTreeMap::new();
    let mut journal = place.open();
    for round in 0..3 {
        for start in (round * COMMITS..(round + 1) * COMMITS).step_by(100) {
            let group: Vec<Commit> =
                (start..start + 100).map(|i| churn(&mut model, env.random_u64(), i)).collect();
            let outcome = journal.commit(Lsn(start), start.into(), &group).await;
            assert_eq!(outcome, Ok(Outcome::Committed(Lsn(start + 100))));
        }
        // Gives time to a journal that works beside commits.
        tokio::time::sleep(Duration::from_millis(300 * round)).await;
        journal = reopen(place, journal).await;
        assert!(load(&*journal).await == (Lsn((round + 1) * COMMITS), model.clone()));
        let early = history(&*journal, 5, 3).await;
        assert_eq!(early.iter().map(|e| e.lsn.0).collect::<Vec<_>>(), [6, 7, 8]);
    }
}

pub(super) fn churn(model: &mut BTreeMap<Bytes, Bytes>, random: u64, i: u64) -> Commit {
    let key = format!("{:03}", random % 200);
    let commit = if random >> 32 & 3 == 0 { remove(&key) } else { put(&key, &i.to_string()) };
    let Change { key, value } = commit.changes[0].clone();
    match value {
        Some(value) => model.insert(key, value),
        None => model.remove(&key),
    };
    commit
}

pub(super) async fn open_meta(env: &Env, journal: Arc<dyn Journal>) -> Meta {
    let options = Options { commit_timeout: Duration::from_millis(500), ..Options::default() };
    Meta::open(env.scope(), journal, options).await.expect("a healthy journal opens")
}

pub(super) fn add(tx: &mut Tx<'_>) -> Result<u64, DecodeError> {
    let number = tx.next_counter(&CounterKey::named("note"))?;
    assert!(tx.get::<Note>(&number)?.is_none(), "a counter gives no number twice");
    tx.put(&number, &Note(format!("note {number}")));
    Ok(number)
}

/// Several brokers commit over one journal. Every command sees all earlier ones.
async fn brokers_race(env: &Env, place: &dyn Place) {
    let journal = place.open();
    let mut brokers = Vec::new();
    for _ in 0..3 {
        brokers.push(open_meta(env, journal.clone()).await);
    }
    let mut replies = Vec::new();
    for _ in 0..20 {
        let asked: Vec<_> = brokers.iter().map(|meta| meta.commit(envelope(0), add)).collect();
        for answer in futures::future::join_all(asked).await {
            let done = answer.expect("conflicts are run again");
            assert_eq!(done.lsn.0, done.reply, "one commit for one number");
            replies.push(done.reply);
        }
    }
    replies.sort_unstable();
    assert!(replies.iter().copied().eq(1..=60));
    for meta in &brokers {
        meta.watch().wait_for(|lsn| *lsn == Lsn(60)).await.expect("every broker follows");
        assert!(meta.snapshot().pairs().eq(brokers[0].snapshot().pairs()));
    }
}

/// The fate of one commit call between a broker and its journal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The call is applied; the answer is lost.
    LostAnswer,
    /// The call never arrives.
    LostCall,
    /// The call arrives twice; the broker sees the second answer.
    Twice,
    /// The call is applied and never answered.
    Silence,
    Fine,
}

pub(super) struct Faulty {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) faults: Mutex<VecDeque<Fault>>,
}

#[async_trait]
impl Journal for Faulty {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.journal.load().await
    }
    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        Ok(self.commit_with(expected, attempt, commits, &[]).await?.outcome)
    }
    fn carries(&self) -> u64 {
        self.journal.carries()
    }
    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        let fault = lock(&self.faults).pop_front().unwrap_or(Fault::Fine);
        if matches!(fault, Fault::LostCall) {
            return Err(JournalError::Unknown("lost call".into()));
        }
        let outcome = self.journal.commit_with(expected, attempt, commits, attachments).await?;
        match fault {
            Fault::LostAnswer => Err(JournalError::Unknown("lost answer".into())),
            Fault::Silence => std::future::pending().await,
            Fault::Twice => self.journal.commit_with(expected, attempt, commits, attachments).await,
            Fault::Fine | Fault::LostCall => Ok(outcome),
        }
    }
    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        self.journal.attached(lsn, range).await
    }
    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.journal.follow(from).await
    }
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.journal.history(from, count).await
    }
    fn forget(&self, upto: Lsn) {
        self.journal.forget(upto);
    }
}

/// Calls and answers are lost and doubled. Every command is applied once and answered with its own result.
async fn faults_on_the_way(env: &Env, place: &dyn Place) {
    use Fault::*;
    let journal = place.open();
    let faults =
        [LostAnswer, LostCall, LostCall, Twice, Fine, Silence, LostCall, LostAnswer, LostAnswer, Twice];
    let faulty = Arc::new(Faulty { journal: journal.clone(), faults: Mutex::new(faults.into()) });
    let (meta, other) = (open_meta(env, faulty).await, open_meta(env, journal.clone()).await);
    let mut expected = 0;
    for round in 0..10 {
        // Now and then another broker commits in between.
        if round % 3 == 1 {
            other.commit(envelope(0), add).await.expect("the other broker has no faults");
            expected += 1;
        }
        let asked: Vec<_> = (0..3).map(|_| meta.commit(envelope(0), add)).collect();
        for answer in asked {
            expected += 1;
            let done = answer.await.expect("every fault is resolved");
            assert_eq!((done.reply, done.lsn), (expected, Lsn(expected)));
        }
    }
    assert_eq!(history(&*journal, 0, 100).await.len() as u64, expected);
}

async fn newer_value(env: &Env, place: &dyn Place) {
    let journal = place.open();
    let meta = open_meta(env, journal.clone()).await;
    let write = |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
        tx.put(&1, &NewerNote);
        Ok(())
    };
    meta.commit(envelope(0), write).await.expect("the newer build writes");
    drop(meta);
    let meta = open_meta(env, reopen(place, journal).await).await;
    let newer = DecodeError::NewerVersion { kind: 200, found: 2, known: 1 };
    assert_eq!(meta.snapshot().get::<Note>(&1), Err(newer.clone()));
    assert_eq!(meta.snapshot().range::<Note>(..).next(), Some(Err(newer.clone())));
    let refused = meta.commit(envelope(0), |tx| tx.get::<Note>(&1)).await.expect_err("it is not guessed");
    assert_eq!(refused, CommitError::Refused(newer));
}
