//! The journal in memory passes the suite, and the suite detects journals that break the contract.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::*;
use floe_meta::conformance::{self, Place};
use floe_meta::*;

struct Memory(MemoryJournal);

impl Place for Memory {
    fn open(&self) -> Arc<dyn Journal> {
        Arc::new(self.0.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn conformance() {
    conformance::run(&Env::simulated(1), || Box::new(Memory(MemoryJournal::new()))).await;
    conformance::run(&Env::simulated(1), || Box::new(Memory(MemoryJournal::carrying()))).await;
    conformance::run(&Env::simulated(1), || Box::new(Memory(MemoryJournal::carrying().dropping()))).await;
}

#[tokio::test]
async fn a_journal_that_drops_holds_no_forgotten_entries() {
    let journal = MemoryJournal::new().dropping();
    let commit = |lsn: u64| {
        let change = Change { key: "key".into(), value: Some(lsn.to_string().into()) };
        [Commit { envelope: Envelope::broker("test"), changes: vec![change] }]
    };
    for lsn in 0..100 {
        let done = journal.commit(Lsn(lsn), 0, &commit(lsn)).await;
        assert_eq!(done, Ok(Outcome::Committed(Lsn(lsn + 1))));
        if lsn % 10 == 9 {
            journal.forget(Lsn(lsn - 2));
        }
    }
    assert_eq!((journal.held(), journal.everything().len()), (3, 3));
    let loaded = journal.load().await.unwrap();
    assert_eq!(loaded.image, [("key".into(), "99".into())]);
    assert_eq!(journal.history(Lsn(97), 10).await.unwrap().len(), 3);
    assert_eq!(journal.history(Lsn(96), 10).await, Err(JournalError::Reload(Lsn(98))));
}

/// One way to break the contract.
#[derive(Debug, Clone, Copy)]
enum Bug {
    /// Applies a group whatever LSN it expected.
    NoExpectation,
    /// Applies an attempt again that comes back after a conflict with itself.
    Twice,
    /// Applies only the first half of every hundredth group.
    HalfGroup,
    /// Keeps the last commit in memory until the next one comes.
    LateDurability,
    /// Answers `NotApplied` for a group that it applied.
    FalseNotApplied,
    /// Writes its own envelope.
    NoEnvelope,
    /// Leaves the first missed entry out of a conflict.
    ShortConflict,
    /// Tells followers only the entries after the next commit.
    SkippingFollow,
    /// Forgets the entries that are in the image.
    ShortHistory,
    /// Keeps attachments in memory only.
    AttachmentsForgotten,
    /// Gives the attachment of one commit to its neighbour.
    AttachmentsMoved,
    /// Keeps the attachments of a group that met a conflict.
    AttachmentsOfConflict,
    /// Answers that it carries more than it takes.
    CarriesMore,
    /// Does not compare attachments with their checksums.
    AttachmentsNotSummed,
    /// Throws away a neighbour of what was released.
    ReleasesOneMore,
    /// Lets go of entries beyond those that are kept elsewhere.
    ForgetsMore,
    /// Lets go of everything once it is told of something.
    ForgetsAtOnce,
    /// Answers with later entries instead of saying that some are gone.
    HidesWhatIsGone,
}

type Group = (Lsn, u128, Vec<Commit>);

#[derive(Clone)]
struct Buggy {
    bug: Bug,
    durable: MemoryJournal,
    /// Known only to this opening of the journal.
    late: Arc<Mutex<Option<Group>>>,
    /// Attachments that only this opening knows.
    forgotten: Arc<Mutex<BTreeMap<Lsn, Bytes>>>,
    calls: Arc<AtomicU64>,
}

impl Place for Buggy {
    fn open(&self) -> Arc<dyn Journal> {
        Arc::new(Buggy { late: Arc::default(), forgotten: Arc::default(), ..self.clone() })
    }
}

impl Buggy {
    fn remember(&self, expected: Lsn, attachments: &[Attachment]) {
        let bytes = |one: &Attachment| Bytes::from(one.pieces.concat());
        let found = attachments.iter().map(|one| (expected.plus(one.commit as usize + 1), bytes(one)));
        self.forgotten.lock().unwrap().extend(found);
    }

    async fn late_commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        let late = self.late.lock().unwrap().replace((expected, attempt, commits.to_vec()));
        if let Some((expected, attempt, commits)) = late {
            self.durable.commit(expected, attempt, &commits).await?;
        }
        Ok(Outcome::Committed(expected.plus(commits.len())))
    }
}

#[async_trait]
impl Journal for Buggy {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.durable.load().await
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.bug {
            Bug::LateDurability => return self.late_commit(expected, attempt, commits).await,
            Bug::NoExpectation => return self.durable.commit(self.durable.lsn(), attempt, commits).await,
            Bug::HalfGroup if call % 7 == 6 && commits.len() > 1 => {
                return self.durable.commit(expected, attempt, &commits[..commits.len() / 2]).await;
            }
            _ => {}
        }
        let mut commits = commits.to_vec();
        if matches!(self.bug, Bug::NoEnvelope) {
            commits.iter_mut().for_each(|commit| commit.envelope = Envelope::broker("journal"));
        }
        let outcome = self.durable.commit(expected, attempt, &commits).await?;
        match (self.bug, outcome) {
            (Bug::Twice, Outcome::Conflict(entries)) if entries[0].attempt == attempt => {
                self.durable.commit(self.durable.lsn(), attempt, &commits).await
            }
            (Bug::FalseNotApplied, _) if call % 5 == 4 => Err(JournalError::NotApplied("so it says".into())),
            (Bug::ShortConflict, Outcome::Conflict(mut entries)) if entries.len() > 1 => {
                entries.remove(0);
                Ok(Outcome::Conflict(entries))
            }
            (_, outcome) => Ok(outcome),
        }
    }

    fn carries(&self) -> u64 {
        self.durable.carries() + u64::from(matches!(self.bug, Bug::CarriesMore))
    }

    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
        let mut attachments = attachments.to_vec();
        match self.bug {
            _ if attachments.is_empty() => {
                return self.commit(expected, attempt, commits).await.map(Carried::of);
            }
            Bug::AttachmentsForgotten => {
                let done = self.commit(expected, attempt, commits).await?;
                if matches!(done, Outcome::Committed(_)) {
                    self.remember(expected, &attachments);
                }
                return Ok(Carried::of(done));
            }
            Bug::AttachmentsMoved => {
                attachments.iter_mut().for_each(|one| one.commit = one.commit.max(1) - 1);
            }
            Bug::AttachmentsNotSummed => {
                attachments.iter_mut().for_each(|one| {
                    *one = Attachment { commit: one.commit, ..Attachment::of(one.pieces.clone()) }
                });
            }
            _ => {}
        }
        attachments.dedup_by_key(|one| one.commit);
        let done = self.durable.commit_with(expected, attempt, commits, &attachments).await?;
        if matches!((self.bug, &done.outcome), (Bug::AttachmentsOfConflict, Outcome::Conflict(_))) {
            self.remember(expected.next(), &attachments);
        }
        Ok(done)
    }

    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        let forgotten = self.forgotten.lock().unwrap().get(&lsn).cloned();
        match forgotten {
            Some(bytes) if range.end <= bytes.len() as u64 && range.start <= range.end => {
                Ok(bytes.slice(range.start as usize..range.end as usize))
            }
            Some(bytes) => Err(AttachedError::Range { lsn, bytes: bytes.len() as u64, range }),
            None => self.durable.attached(lsn, range).await,
        }
    }

    fn released(&self, lsn: Lsn) {
        self.durable.released(lsn);
        if matches!(self.bug, Bug::ReleasesOneMore) {
            self.durable.released(lsn.plus(2));
        }
    }

    fn attachments(&self) -> Vec<Lsn> {
        let forgotten = self.forgotten.lock().unwrap().keys().copied().collect();
        [self.durable.attachments(), forgotten].concat()
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        let from = if matches!(self.bug, Bug::SkippingFollow) { from.next() } else { from };
        self.durable.follow(from).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        let forgotten =
            if matches!(self.bug, Bug::ShortHistory) { self.durable.load().await?.image_lsn } else { Lsn(0) };
        match self.durable.history(from.max(forgotten), count).await {
            Err(JournalError::Reload(kept)) if matches!(self.bug, Bug::HidesWhatIsGone) => {
                self.durable.history(Lsn(kept.0 - 1), count).await
            }
            found => found,
        }
    }

    fn forget(&self, upto: Lsn) {
        match self.bug {
            Bug::ForgetsMore => self.durable.forget(upto.plus(2)),
            Bug::ForgetsAtOnce => self.durable.forget(self.durable.lsn()),
            _ => self.durable.forget(upto),
        }
    }
}

/// Some case of the suite finds each planted bug.
#[tokio::test(start_paused = true)]
async fn the_suite_sees_planted_bugs() {
    use Bug::*;
    let bugs = [
        NoExpectation,
        Twice,
        HalfGroup,
        LateDurability,
        FalseNotApplied,
        NoEnvelope,
        ShortConflict,
        SkippingFollow,
        ShortHistory,
        AttachmentsForgotten,
        AttachmentsMoved,
        AttachmentsOfConflict,
        CarriesMore,
        AttachmentsNotSummed,
        ReleasesOneMore,
        ForgetsMore,
        ForgetsAtOnce,
        HidesWhatIsGone,
    ];
    let env = Env::simulated(1);
    for bug in bugs {
        let scope = env.scope();
        let task = env.spawn("suite", async move {
            let fresh = || -> Box<dyn Place> {
                Box::new(Buggy {
                    bug,
                    durable: MemoryJournal::carrying(),
                    late: Arc::default(),
                    forgotten: Arc::default(),
                    calls: Arc::default(),
                })
            };
            conformance::run(&scope, fresh).await;
        });
        // A broken journal may also keep the suite waiting for ever.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(600), task).await;
        assert!(!matches!(ended, Ok(Ok(()))), "{bug:?} was not seen");
    }
}
