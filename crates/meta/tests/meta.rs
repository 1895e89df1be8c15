//! One broker, or several that share a journal: commit, conflict, order, watch, observe.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use floe_env::*;
use floe_meta::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note(String);
postcard_record!(Note, 200, 1, u32);

async fn open(env: &Env, journal: &MemoryJournal) -> Meta {
    Meta::open(env.scope(), Arc::new(journal.clone()), Options::default()).await.expect("the journal loads")
}

fn who() -> Envelope {
    Envelope::client("alice".into(), "test".into())
}

#[tokio::test(start_paused = true)]
async fn brokers_share_a_journal() {
    let env = Env::simulated(1);
    let journal = MemoryJournal::new();
    let (one, two) = (open(&env, &journal).await, open(&env, &journal).await);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    two.observe(move |applied| log.lock().unwrap().push((applied.lsn, applied.keys::<Note>().count())));

    let add = |tx: &mut Tx<'_>| -> Result<u64, DecodeError> {
        let n = tx.next_counter(&CounterKey::named("note"))?;
        tx.put(&(n as u32), &Note(format!("note {n}")));
        Ok(n)
    };
    let mut waiting = Vec::new();
    for i in 0..100 {
        waiting.push(if i % 3 == 0 { one.commit(who(), add) } else { two.commit(who(), add) });
    }
    let mut replies = Vec::new();
    for answer in waiting {
        let done = answer.await.unwrap();
        assert_eq!(done.lsn, Lsn(done.reply));
        assert!(done.snapshot.lsn() >= done.lsn);
        replies.push(done.reply);
    }
    replies.sort_unstable();
    assert_eq!(replies, (1..=100).collect::<Vec<_>>());
    let mut watch = one.watch();
    watch.wait_for(|lsn| *lsn == Lsn(100)).await.unwrap();
    two.watch().wait_for(|lsn| *lsn == Lsn(100)).await.unwrap();
    assert!(one.snapshot().pairs().eq(two.snapshot().pairs()));
    assert_eq!(*seen.lock().unwrap(), (1..=100).map(|n| (Lsn(n), 1)).collect::<Vec<_>>());
    let last = one.snapshot().range::<Note>(..=50).next_back().unwrap().unwrap();
    assert_eq!(last, (50, Note("note 50".into())));

    let history = one.history(Lsn(10), 5).await.unwrap();
    assert_eq!(history.iter().map(|e| e.lsn.0).collect::<Vec<_>>(), [11, 12, 13, 14, 15]);
    assert_eq!(&*history[0].envelope.principal, "alice");

    let refused = one.commit(who(), |_| Err::<(), _>("no")).await.unwrap_err();
    assert_eq!(refused, CommitError::Refused("no"));
    let same = one
        .commit(who(), |tx| {
            tx.put(&1, &Note("note 1".into()));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    assert_eq!((same.lsn, journal.lsn()), (Lsn(100), Lsn(100)));
}

/// Commits a note of a number, unless a journal refuses.
async fn note(meta: &Meta, number: u32) -> Result<Committed<()>, CommitError<DecodeError>> {
    let put = move |tx: &mut Tx<'_>| {
        tx.put(&number, &Note(format!("note {number}")));
        Ok(())
    };
    meta.commit(who(), put).await
}

/// The note with this number takes the place of the broker that follows.
const NEWER: u32 = 99;

#[tokio::test(start_paused = true)]
async fn behind_the_commit_that_closes_a_fence_comes_none_of_that_broker() {
    for fenced in [true, false] {
        let (env, journal) = (Env::simulated(1), MemoryJournal::new());
        let (older, newer) = (open(&env, &journal).await, open(&env, &journal).await);
        let fence = older.fence();
        older.observe(move |applied| {
            if fenced && applied.keys::<Note>().any(|key| key == Ok(NEWER)) {
                fence.close("a newer broker has begun".to_owned());
            }
        });
        note(&older, 1).await.unwrap();
        // Both at once: the older one has not followed when it runs its command.
        let (began, late) = tokio::join!(note(&newer, NEWER), note(&older, 2));
        let began = began.unwrap().lsn;
        let late_is_before = late.as_ref().is_ok_and(|late| late.lsn < began);
        let after = note(&older, 3).await;
        let entries = journal.everything();
        let of_older: Vec<Lsn> =
            entries.iter().filter(|entry| entry.lsn > began).map(|entry| entry.lsn).collect();
        // Without the fence, which the second round leaves out, the same test finds commits behind.
        assert_eq!(of_older.is_empty(), fenced, "{of_older:?}");
        if fenced {
            assert!(late_is_before || late.is_err());
            let refused = after.unwrap_err();
            assert_eq!(refused, CommitError::NotApplied("a newer broker has begun".to_owned()));
            assert_eq!(older.fence().reason(), Some("a newer broker has begun"));
            let nothing = older.commit(who(), |_| Ok::<_, DecodeError>(7)).await.unwrap();
            assert_eq!(nothing.reply, 7, "what changes nothing is answered");
            note(&newer, 4).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_catches_up_has_what_others_had_committed() {
    let (env, journal) = (Env::simulated(1), MemoryJournal::new());
    let (one, two) = (open(&env, &journal).await, open(&env, &journal).await);
    one.catch_up().await.unwrap();
    for number in 1..=20 {
        let committed = note(&one, number).await.unwrap();
        two.catch_up().await.unwrap();
        assert!(two.snapshot().lsn() >= committed.lsn);
    }
    assert_eq!(journal.lsn(), Lsn(20), "it commits nothing");
}

/// A clock that was ahead is put right, also while no broker runs: the time of commits never goes back.
#[tokio::test(start_paused = true)]
async fn the_time_of_commits_never_goes_back() {
    let env = Env::simulated(1);
    let journal = MemoryJournal::new();
    let write = async |meta: &Meta, n: u32| {
        let put = move |tx: &mut Tx<'_>| {
            tx.put(&n, &Note(format!("note {n}")));
            Ok::<_, DecodeError>(tx.now())
        };
        meta.commit(who(), put).await.unwrap().reply
    };
    let (one, two) = (open(&env, &journal).await, open(&env, &journal).await);
    let before = write(&one, 1).await;
    let year = Duration::from_secs(365 * 86_400);
    env.set_wall_clock_ahead(i64::try_from(year.as_millis()).unwrap());
    let ahead = write(&one, 2).await;
    assert!(ahead >= before + year);
    env.set_wall_clock_ahead(0);
    // The same broker, another one, and one that begins now.
    assert_eq!(write(&one, 3).await, ahead);
    assert_eq!(write(&two, 4).await, ahead);
    assert_eq!(write(&open(&env, &journal).await, 5).await, ahead);
    let history = one.history(Lsn(0), 10).await.unwrap();
    assert!(history.is_sorted_by_key(|entry| entry.envelope.time), "{history:?}");
    // When the clock has caught up, it counts again.
    env.set_wall_clock_ahead(2 * i64::try_from(year.as_millis()).unwrap());
    assert!(write(&two, 6).await >= before + year * 2);
}

/// A journal whose answers the test scripts.
#[derive(Clone, Default)]
struct Scripted {
    journal: MemoryJournal,
    mode: Arc<Mutex<Mode>>,
    groups: Arc<Mutex<Vec<usize>>>,
}

#[derive(Clone, Copy, Default)]
enum Mode {
    #[default]
    Fine,
    /// Refuses, certainly without effect.
    Full,
    /// Has room left for deletions only.
    NearlyFull,
    /// Never answers and does nothing.
    Gone,
    /// Applies the group and answers that the outcome is not known.
    Mute,
}

impl Scripted {
    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

#[async_trait]
impl Journal for Scripted {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.journal.load().await
    }
    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        let mode = *self.mode.lock().unwrap();
        self.groups.lock().unwrap().push(commits.len());
        match mode {
            Mode::Full => Err(JournalError::NotApplied("the disk is full".into())),
            Mode::Gone => std::future::pending().await,
            Mode::Fine | Mode::NearlyFull => self.journal.commit(expected, attempt, commits).await,
            Mode::Mute => {
                self.journal.commit(expected, attempt, commits).await?;
                Err(JournalError::Unknown("who knows".into()))
            }
        }
    }
    async fn follow(&self, _: Lsn) -> Result<Vec<Entry>, JournalError> {
        std::future::pending().await
    }
    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.journal.history(from, count).await
    }
    fn only_deletions(&self) -> Option<String> {
        matches!(*self.mode.lock().unwrap(), Mode::NearlyFull).then(|| "delete topics".to_owned())
    }
}

async fn open_scripted(options: Options) -> (Scripted, Meta) {
    let journal = Scripted::default();
    let meta = Meta::open(Env::simulated(1), Arc::new(journal.clone()), options).await.unwrap();
    (journal, meta)
}

fn add(tx: &mut Tx<'_>) -> Result<u64, DecodeError> {
    tx.next_counter(&CounterKey::named("note"))
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_refuses_the_whole_group_and_service_returns() {
    let (journal, meta) = open_scripted(Options::default()).await;
    journal.set(Mode::Full);
    let refused = "the disk is full".to_owned();
    let (write, read) = (meta.commit(who(), add), meta.commit(who(), |tx| tx.get::<Note>(&1)));
    assert_eq!(write.await.unwrap_err(), CommitError::NotApplied(refused.clone()));
    assert_eq!(read.await.unwrap_err(), CommitError::NotApplied(refused));
    // A command that changes nothing needs no journal, and reads still work.
    assert_eq!(meta.commit(who(), |tx| tx.get::<Note>(&1)).await.unwrap().reply, None);
    assert_eq!(meta.snapshot().lsn(), Lsn(0));
    journal.set(Mode::Fine);
    assert_eq!(meta.commit(who(), add).await.unwrap().reply, 1);
}

#[tokio::test(start_paused = true)]
async fn near_the_end_of_the_disk_only_deletions_are_committed() {
    let (journal, meta) = open_scripted(Options::default()).await;
    meta.commit(who(), |tx| {
        tx.put(&1, &Note("one".into()));
        Ok::<_, DecodeError>(())
    })
    .await
    .unwrap();
    journal.set(Mode::NearlyFull);
    let (before, deletion, after) = (
        meta.commit(who(), add),
        meta.commit_deletion(who(), |tx| {
            tx.delete::<Note>(&1);
            Ok::<_, DecodeError>(())
        }),
        meta.commit(who(), |tx| tx.get::<Note>(&1)),
    );
    assert_eq!(before.await.unwrap_err(), CommitError::NotApplied("delete topics".to_owned()));
    assert_eq!(deletion.await.unwrap().lsn, Lsn(2));
    assert_eq!(after.await.unwrap().reply, None, "a command that changes nothing takes no room");
    journal.set(Mode::Fine);
    assert_eq!(meta.commit(who(), add).await.unwrap().reply, 1, "what was refused left nothing");
}

/// `applied`: 1 if the attempt that its callers gave up applies in the end, otherwise 0.
async fn outlast(mode: Mode, applied: u64) {
    let options = Options { resolve_timeout: Duration::from_secs(30), ..Options::default() };
    let (journal, meta) = open_scripted(options).await;
    assert_eq!(meta.commit(who(), add).await.unwrap().reply, 1);
    journal.set(mode);
    let doubtful = meta.commit(who(), add);
    tokio::task::yield_now().await;
    let queued = meta.commit(who(), add);
    assert!(matches!(doubtful.await.unwrap_err(), CommitError::Unknown(_)));
    assert!(matches!(queued.await.unwrap_err(), CommitError::NotApplied(_)));
    assert!(matches!(meta.commit(who(), add).await.unwrap_err(), CommitError::NotApplied(_)));
    // The snapshot shows nothing that may not be durable.
    assert_eq!(meta.snapshot().lsn(), Lsn(1));
    journal.set(Mode::Fine);
    // The committer pursues the unknown attempt until the journal tells its outcome. Here it is applied.
    meta.watch().wait_for(|lsn| *lsn == Lsn(2)).await.unwrap();
    assert_eq!(meta.commit(who(), add).await.unwrap().reply, 3);
    assert_eq!(journal.journal.lsn(), Lsn(2 + applied));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_stays_unknown_is_resolved_before_anything_new() {
    outlast(Mode::Gone, 1).await;
    outlast(Mode::Mute, 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_queue_and_the_groups_are_bounded() {
    let options = Options { queue_commands_max: 10, group_commands_max: 4, ..Options::default() };
    let (journal, meta) = open_scripted(options).await;
    let asked: Vec<_> = (0..12).map(|_| meta.commit(who(), add)).collect();
    let answers = futures::future::join_all(asked).await;
    let replies: Vec<_> = answers.iter().flatten().map(|done| (done.reply, done.lsn.0)).collect();
    assert_eq!(replies, (1..=10).map(|n| (n, n)).collect::<Vec<_>>());
    let refused = "10 metadata commands are waiting already, try again later".to_owned();
    assert!(
        answers[10..].iter().all(|a| a.as_ref().unwrap_err() == &CommitError::NotApplied(refused.clone()))
    );
    assert_eq!(*journal.groups.lock().unwrap(), [4, 4, 2]);

    // A large group takes no further command. A command that is too large is refused alone.
    let write = |key: u32, megabytes: usize| {
        meta.commit(who(), move |tx| {
            tx.put(&key, &Note("x".repeat(megabytes << 20)));
            Ok::<_, ()>(())
        })
    };
    let (a, b, c, d) = (write(1, 5), write(2, 5), write(3, 1), write(4, 33));
    assert_eq!(
        [a.await.unwrap().lsn, b.await.unwrap().lsn, c.await.unwrap().lsn],
        [Lsn(11), Lsn(12), Lsn(13)]
    );
    assert!(matches!(d.await.unwrap_err(), CommitError::NotApplied(reason) if reason.contains("split it")));
    assert_eq!(journal.groups.lock().unwrap()[3..], [2, 1]);
    assert_eq!(meta.snapshot().get::<Note>(&4), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn observers_miss_nothing_and_come_before_the_answer() {
    let (_, meta) = open_scripted(Options::default()).await;
    meta.commit(who(), add).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let from = meta.observe(move |applied| {
        assert!(applied.snapshot.lsn() >= applied.lsn);
        assert!(applied.touches::<Counter>());
        assert!(!applied.touches::<Note>());
        assert_eq!(applied.keys::<Counter>().map(Result::unwrap).next(), Some(CounterKey::named("note")));
        log.lock().unwrap().push((applied.lsn, applied.envelope.time));
    });
    assert_eq!(from.lsn(), Lsn(1));
    let asked: Vec<_> = (0..5).map(|_| meta.enqueue(who(), add)).collect();
    for answer in asked {
        let lsn = answer.await.unwrap().lsn;
        assert!(seen.lock().unwrap().iter().any(|(seen, _)| *seen == lsn));
    }
    let lsns: Vec<_> = seen.lock().unwrap().iter().map(|(lsn, _)| lsn.0).collect();
    assert_eq!(lsns, [2, 3, 4, 5, 6]);
    assert!(seen.lock().unwrap().iter().all(|(_, time)| *time == SIMULATION_EPOCH));
}

#[tokio::test(start_paused = true)]
async fn envelopes_are_bounded_and_a_journal_with_a_gap_is_refused() {
    let (journal, meta) = open_scripted(Options::default()).await;
    let long: Arc<str> = "ä".repeat(5_000).into();
    let mut envelope = Envelope::client(long.clone(), long.clone());
    envelope.comment = Some(format!("x{long}"));
    meta.commit(envelope, add).await.unwrap();
    let kept = journal.history(Lsn(0), 1).await.unwrap().remove(0).envelope;
    let lengths = [kept.principal.len(), kept.client_id.len(), kept.comment.unwrap().len()];
    assert_eq!(lengths, [limits::ENVELOPE_TEXT_BYTES_MAX, limits::ENVELOPE_TEXT_BYTES_MAX, 4_095]);

    struct Gap(MemoryJournal);
    #[async_trait]
    impl Journal for Gap {
        async fn load(&self) -> Result<Loaded, JournalError> {
            let mut loaded = self.0.load().await?;
            loaded.entries.remove(0);
            Ok(loaded)
        }
        async fn commit(&self, _: Lsn, _: u128, _: &[Commit]) -> Result<Outcome, JournalError> {
            unreachable!("it is not opened")
        }
        async fn follow(&self, _: Lsn) -> Result<Vec<Entry>, JournalError> {
            unreachable!("it is not opened")
        }
        async fn history(&self, _: Lsn, _: usize) -> Result<Vec<Entry>, JournalError> {
            unreachable!("it is not opened")
        }
    }
    meta.commit(who(), add).await.unwrap();
    let gap =
        Meta::open(Env::simulated(1), Arc::new(Gap(journal.journal)), Options::default()).await.unwrap_err();
    assert_eq!(gap.to_string(), "the journal is corrupt: entry 2 where 1 was due");
}
