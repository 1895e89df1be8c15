//! The simulated journal. It outlives every broker, and its calls are slow, refused, lost or late. As with the store, a
//! call is a task of the world.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use floe_env::Env;
use floe_group::OffsetRecord;
use floe_lake::map::Progress;
use floe_log::PartitionId;
use floe_log::extent::{Extent, ExtentKey, Gap, Marker};
use floe_log::object::{Object, ObjectLease};
use floe_log::partition::Head;
use floe_log::session::Session;
use floe_meta::MemoryJournal;
use floe_meta::key::Key as _;
use floe_meta::{Change, Commit, Entry, Journal, JournalError, Loaded, Lsn, MapRecord, Outcome};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::weather::{End, Weather};
use crate::bug::Bug;
use crate::dice::Dice;
use crate::trace::Trace;

/// The journal of a simulated cluster. A clone is the same journal.
#[derive(Clone)]
pub(crate) struct SimJournal {
    env: Env,
    entries: MemoryJournal,
    weather: Arc<Weather>,
    trace: Trace,
    bug: Option<Bug>,
    commits: Arc<AtomicU64>,
    dice: Dice,
    /// Whether some loads find a rotten bit.
    rots: bool,
    /// The loads that were refused because of one.
    rotten: Arc<AtomicU64>,
}

/// Share of loads that find a rotten bit, in a thousand.
const ROTS: u64 = 200;

impl SimJournal {
    /// An empty journal in the world of `env`.
    pub(crate) fn new(env: &Env, weather: Weather, trace: &Trace, bug: Option<Bug>) -> SimJournal {
        SimJournal {
            env: env.clone(),
            entries: MemoryJournal::new(),
            weather: Arc::new(weather),
            trace: trace.clone(),
            bug,
            commits: Arc::default(),
            dice: Dice::new(env),
            rots: false,
            rotten: Arc::default(),
        }
    }

    /// The same journal, of which some loads find a rotten bit. The next load finds it whole: somebody put a copy back.
    pub(crate) fn rotting(self, rots: bool) -> SimJournal {
        SimJournal { rots, ..self }
    }

    fn rots_share(&self) -> u64 {
        if self.bug == Some(Bug::JournalServesRot) { 1_000 } else { ROTS }
    }

    /// The number of loads that were refused because of a rotten bit.
    pub(crate) fn rotten(&self) -> u64 {
        self.rotten.load(Ordering::SeqCst)
    }

    fn load_rotten(&self) -> Result<Loaded, JournalError> {
        let compared = self.bug != Some(Bug::JournalServesRot);
        // The checkers must see the planted bug, so it hits what clients look at and what no commit has replaced: the
        // newest offset that a group committed.
        let kind = (!compared).then_some(OffsetRecord::KIND);
        let newest = Cell::new(!compared);
        let pick = |count: usize| match newest.replace(false) {
            true => count - 1,
            false => usize::try_from(self.dice.within(0..count as u64)).expect("an index"),
        };
        let loaded = self.entries.load_rotten(pick, kind, compared);
        if loaded.is_err() {
            self.rotten.fetch_add(1, Ordering::SeqCst);
        }
        self.trace.fold(&format!("journal rots {}", loaded.is_err()));
        loaded
    }

    /// A copy of this journal as it is now, under the same weather.
    pub(crate) fn copied(&self) -> SimJournal {
        SimJournal { entries: self.entries.fork(self.entries.lsn()), ..self.clone() }
    }

    /// Everything that was ever committed.
    pub(crate) async fn commits(&self) -> Vec<Entry> {
        self.entries.history(Lsn(0), usize::MAX).await.expect("it is in memory")
    }

    /// A copy from before a lease on object ids of which one names an object now, if there is one.
    pub(crate) async fn restored(&self) -> Option<SimJournal> {
        let entries = self.commits().await;
        let (mut leases, mut objects) = (BTreeMap::new(), BTreeSet::new());
        for (lsn, change) in entries.iter().flat_map(|entry| entry.changes.iter().map(|c| (entry.lsn, c))) {
            let (Some(kind), Some(value)) = (change.key.first(), &change.value) else { continue };
            let id = || u64::from_be_bytes(change.key[1..].try_into().expect("an id has eight bytes"));
            if *kind == Object::KIND {
                objects.insert(id());
            } else if *kind == ObjectLease::KIND {
                let lease = ObjectLease::decode(value[0], &value[1..]).expect("it can be read");
                // A renewal is a put of the same key.
                leases.entry(id()).or_insert((lsn, lease.end.0));
            }
        }
        let used = leases.into_iter().filter(|(first, (_, end))| objects.range(first..end).next().is_some());
        let given: Vec<Lsn> = used.map(|(_, (lsn, _))| lsn).collect();
        let before = (!given.is_empty()).then(|| self.dice.pick(&given).0 - 1).filter(|last| *last > 0)?;
        let upto = Lsn(before - self.dice.within(0..before.div_ceil(2)));
        self.trace.fold(&format!("journal restored up to {upto} of {}", self.entries.lsn()));
        Some(SimJournal { entries: self.entries.fork(upto), ..self.clone() })
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.weather.heal();
    }

    /// The spans of time in which the journal is full.
    pub(crate) fn full(&self) -> Vec<(Instant, Instant)> {
        self.weather.full()
    }

    /// The fate of a call that does no harm when repeated: slow, refused or lost, never late.
    async fn read(&self, what: &str) -> Result<(), JournalError> {
        let fate = self.weather.fate(false);
        self.trace.fold(&format!("journal {what} {:?}", fate.end));
        tokio::time::sleep(fate.before + fate.after).await;
        match fate.end {
            End::Answered => Ok(()),
            End::Refused | End::Full => Err(JournalError::NotApplied("refused by the weather".to_owned())),
            _ => Err(JournalError::Unknown("the answer was lost".to_owned())),
        }
    }

    /// The commits after the planted bug has touched them.
    fn spoil(&self, mut commits: Vec<Commit>) -> Vec<Commit> {
        if self.bug == Some(Bug::JournalKeepsExtents) {
            let kept = |change: &Change| change.key.first() == Some(&Extent::KIND) && change.value.is_none();
            commits.iter_mut().for_each(|commit| commit.changes.retain(|change| !kept(change)));
        }
        let changes = commits.iter_mut().flat_map(|commit| commit.changes.iter_mut());
        match self.bug {
            Some(Bug::CleanerIgnoresPins) => changes.for_each(forget_readers),
            Some(Bug::JournalLosesMarkers) => changes.for_each(forget_marker),
            _ => {}
        }
        if self.bug == Some(Bug::UndeleteForgetsRecords) {
            let undeletes = |commit: &&mut Commit| commit.envelope.cause.as_deref() == Some("undelete");
            commits.iter_mut().filter(undeletes).for_each(|commit| empty_heads(&mut commit.changes));
        }
        let retains = |commit: &&mut Commit| commit.envelope.cause.as_deref() == Some("retention");
        commits.iter_mut().filter(retains).for_each(|commit| self.spoil_retention(&mut commit.changes));
        let dropped = match self.bug {
            Some(Bug::JournalDropsProgress) => Progress::KIND,
            Some(Bug::JournalDropsGroupOffsets) => OffsetRecord::KIND,
            _ => return commits,
        };
        if self.commits.fetch_add(1, Ordering::SeqCst) % 4 == 3 {
            for commit in &mut commits {
                commit.changes.retain(|change| change.key.first() != Some(&dropped));
            }
        }
        commits
    }

    /// The changes of a commit of retention after the planted bug has touched them.
    fn spoil_retention(&self, changes: &mut Vec<Change>) {
        let of = |change: &Change, kind| change.key.first() == Some(&kind);
        match self.bug {
            Some(Bug::RetentionKeepsExtents) => changes.retain(|change| !of(change, Extent::KIND)),
            Some(Bug::RetentionKeepsStarts) => changes.retain(|change| !of(change, Head::KIND)),
            Some(Bug::RetentionTakesOneMore) => {
                let one_more = |change: &Change| {
                    let value = change.value.as_ref().filter(|_| of(change, Head::KIND))?;
                    let head = Head::decode(value[0], &value[1..]).expect("it can be read");
                    let partition = PartitionId::decode(&change.key[1..]).expect("it can be read");
                    let mut key = vec![Extent::KIND];
                    ExtentKey::new(partition, head.log_start).encode(&mut key);
                    Some(Change { key: key.into(), value: None })
                };
                let more: Vec<Change> = changes.iter().filter_map(one_more).collect();
                changes.extend(more);
            }
            _ => {}
        }
    }
}

/// The record of a change, if it is of this kind and not a removal.
fn record_of<R: MapRecord>(change: &Change) -> Option<R> {
    let value = change.value.as_ref().filter(|_| change.key.first() == Some(&R::KIND))?;
    Some(R::decode(value[0], &value[1..]).expect("it can be read"))
}

fn replace<R: MapRecord>(change: &mut Change, record: &R) {
    let mut value = vec![record.version()];
    record.encode(&mut value);
    change.value = Some(value.into());
}

/// A session says that it uses the newest snapshot that there will ever be.
fn forget_readers(change: &mut Change) {
    if let Some(session) = record_of::<Session>(change) {
        replace(change, &Session { oldest: Lsn(u64::MAX), ..session });
    }
}

fn forget_marker(change: &mut Change) {
    if let Some(Extent::Marker(Marker { lsn, .. })) = record_of::<Extent>(change) {
        replace(change, &Extent::Gap(Gap { offsets: 1, lsn }));
    }
}

/// Makes the partitions of a commit end where they begin.
fn empty_heads(changes: &mut [Change]) {
    for change in changes.iter_mut().filter(|change| change.key.first() == Some(&Head::KIND)) {
        let Some(value) = &change.value else { continue };
        let head = Head::decode(value[0], &value[1..]).expect("it can be read");
        let mut body = vec![Head::VERSION];
        Head { next: head.log_start, ..head }.encode(&mut body);
        change.value = Some(body.into());
    }
}

#[async_trait]
impl Journal for SimJournal {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.read("load").await?;
        let mut loaded = match self.rots && !self.weather.is_calm() && self.dice.chance(self.rots_share()) {
            true => self.load_rotten()?,
            false => self.entries.load().await?,
        };
        if self.bug == Some(Bug::JournalForgetsGroupOffsets) && self.weather.is_calm() {
            let kept = |key: &[u8]| key.first() != Some(&OffsetRecord::KIND);
            loaded.image.retain(|(key, _)| kept(key));
            loaded.entries.iter_mut().for_each(|entry| entry.changes.retain(|change| kept(&change.key)));
        }
        Ok(loaded)
    }

    async fn commit(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
    ) -> Result<Outcome, JournalError> {
        let mut fate = self.weather.fate(true);
        let changes: usize = commits.iter().map(|commit| commit.changes.len()).sum();
        let what = format!("journal commit after {expected} of {} with {changes}", commits.len());
        self.trace.fold(&format!("{what} {:?}", fate.end));
        let lies =
            self.bug == Some(Bug::JournalLies) && self.commits.fetch_add(1, Ordering::SeqCst) % 16 == 15;
        if lies {
            // The journal reports the commit as refused, and applies it at once.
            fate.end = End::Late(Duration::ZERO);
        }
        if fate.end == End::Full && self.bug == Some(Bug::JournalHasRoom) {
            fate.end = End::Answered;
        }
        let (answer, answered) = oneshot::channel();
        let (entries, weather, trace) = (self.entries.clone(), self.weather.clone(), self.trace.clone());
        let commits = self.spoil(commits.to_vec());
        let call = async move {
            tokio::time::sleep(fate.before).await;
            let orphaned = answer.is_closed().then(|| weather.orphaned());
            let applies = match (fate.end, orphaned) {
                (End::Refused | End::Full | End::LostRequest | End::Late(_), _) | (_, Some(None)) => false,
                (_, Some(Some(late))) => {
                    tokio::time::sleep(late).await;
                    true
                }
                _ => true,
            };
            let result = if applies { Some(entries.commit(expected, attempt, &commits).await) } else { None };
            trace.fold(&format!("{what} applied {applies}"));
            tokio::time::sleep(fate.after).await;
            let told = match (fate.end, result) {
                (End::Answered, Some(result)) => result,
                (End::Refused, _) => Err(JournalError::NotApplied("refused by the weather".to_owned())),
                // The SQLite journal reports it like this: the transaction was rolled back.
                (End::Full, _) => Err(JournalError::NotApplied("database or disk is full".to_owned())),
                (End::Late(_), _) if lies => Err(JournalError::NotApplied("a lie".to_owned())),
                _ => Err(JournalError::Unknown("the answer was lost".to_owned())),
            };
            let _ = answer.send(told);
            let late =
                if let End::Late(late) = fate.end { Some(late) } else { fate.again.filter(|_| applies) };
            if let Some(late) = late {
                tokio::time::sleep(late).await;
                let applied =
                    matches!(entries.commit(expected, attempt, &commits).await, Ok(Outcome::Committed(_)));
                trace.fold(&format!("{what} applied late {applied}"));
            }
        };
        self.env.spawn("journal commit", call);
        answered.await.unwrap_or_else(|_| Err(JournalError::Unknown("the world ended".to_owned())))
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.read("follow").await?;
        self.entries.follow(from).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.read("history").await?;
        self.entries.history(from, count).await
    }
}
