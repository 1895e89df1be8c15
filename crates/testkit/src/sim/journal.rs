//! The simulated journal. It outlives every broker, and its calls are slow, refused, lost or late. As with the store, a
//! call is a task of the world.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_group::OffsetRecord;
use floe_history::map::Part;
use floe_lake::map::Progress;
use floe_log::ObjectId;
use floe_log::PartitionId;
use floe_log::extent::{Extent, ExtentKey, Gap, Marker, Place};
use floe_log::object::{Object, ObjectLease, Trash};
use floe_log::partition::Head;
use floe_log::session::Session;
use floe_meta::MemoryJournal;
use floe_meta::key::Key as _;
use floe_meta::{
    AttachedError, Attachment, Carried, Change, Commit, Entry, Journal, JournalError, Loaded, Lsn, MapRecord,
    Outcome,
};
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
    /// For planted bugs: the commits that have the bytes of extents.
    extents: Arc<Mutex<BTreeMap<ExtentKey, Lsn>>>,
    /// Whether some loads find a rotten bit.
    rots: bool,
    /// Whether it has little room for bytes of commits, and says so.
    crowds: bool,
    /// The loads that were refused because of one.
    rotten: Arc<AtomicU64>,
}

/// The causes of commits that take records of topics.
const TAKES: [&str; 2] = ["retention", "delete records"];

/// Bytes that the journal carries with a group of commits. Some requests of a run are larger.
const CARRIES: u64 = 1_500;

/// The journal is crowded while it carries the bytes of more commits than this.
const CROWDED: usize = 12;

/// Share of loads that find a rotten bit, in a thousand.
const ROTS: u64 = 200;

impl SimJournal {
    /// An empty journal in the world of `env`. It carries no bytes.
    pub(crate) fn new(env: &Env, weather: Weather, trace: &Trace, bug: Option<Bug>) -> SimJournal {
        SimJournal {
            env: env.clone(),
            entries: MemoryJournal::new(),
            weather: Arc::new(weather),
            trace: trace.clone(),
            bug,
            commits: Arc::default(),
            dice: Dice::new(env),
            extents: Arc::default(),
            rots: false,
            crowds: false,
            rotten: Arc::default(),
        }
    }

    /// The same journal, which carries bytes of commits if it `carries`.
    pub(crate) fn carrying(self, carries: bool) -> SimJournal {
        let entries = if carries { MemoryJournal::carrying_at_most(CARRIES) } else { MemoryJournal::new() };
        SimJournal { entries, ..self }
    }

    /// The same journal, which lets go of the memory of commits that are forgotten.
    pub(crate) fn dropping(self) -> SimJournal {
        SimJournal { entries: self.entries.clone().dropping(), ..self }
    }

    /// The number of commits that it holds.
    pub(crate) fn held(&self) -> u64 {
        self.entries.held() as u64
    }

    /// The same journal, which has little room for bytes of commits if it `crowds`.
    pub(crate) fn crowding(self, crowds: bool) -> SimJournal {
        SimJournal { crowds, ..self }
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
        self.entries.everything()
    }

    /// The commits whose bytes it keeps.
    pub(crate) fn kept(&self) -> Vec<Lsn> {
        self.entries.attachments()
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

    /// The number of requests that met a fault.
    pub(crate) fn harmed(&self) -> u64 {
        self.weather.harmed()
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

    /// The attachments that the planted bug acknowledges without keeping them.
    fn forgets(&self, attachments: &[Attachment]) -> Vec<u32> {
        let forgets = self.bug == Some(Bug::JournalForgetsBytes)
            && !attachments.is_empty()
            && self.commits.fetch_add(1, Ordering::SeqCst) % 4 == 3;
        if forgets { attachments.iter().map(|attachment| attachment.commit).collect() } else { Vec::new() }
    }

    /// Releases the bytes of a commit with the first of its extents.
    fn release_early(&self, commits: &[Commit]) {
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            let is_removed = change.key.first() == Some(&Extent::KIND) && change.value.is_none();
            let Some(key) = is_removed.then(|| ExtentKey::decode(&change.key[1..]).expect("it can be read"))
            else {
                continue;
            };
            if let Some(lsn) = floe_env::lock(&self.extents).get(&key) {
                self.entries.released(*lsn);
            }
        }
    }

    /// Notes which extents are in which commits, and counts these as objects if that is the planted bug.
    fn note_extents(&self, expected: Lsn, commits: &mut [Commit]) {
        for (commit, lsn) in commits.iter_mut().zip(expected.0 + 1..) {
            let mut extents = 0;
            for change in &commit.changes {
                let value = change.value.as_ref().filter(|_| change.key.first() == Some(&Extent::KIND));
                let Some(value) = value else { continue };
                let extent = Extent::decode(value[0], &value[1..]).expect("it can be read");
                if extent.data().is_some_and(|data| data.place == Place::Frame && data.lsn == Lsn(lsn)) {
                    let key = ExtentKey::decode(&change.key[1..]).expect("it can be read");
                    floe_env::lock(&self.extents).insert(key, Lsn(lsn));
                    extents += 1;
                }
            }
            if extents > 0 && self.bug == Some(Bug::JournalCountsBytesAsObjects) {
                let object = Object::raw(1, extents);
                let (mut key, mut value) = (vec![Object::KIND], vec![object.version()]);
                ObjectId(lsn).encode(&mut key);
                object.encode(&mut value);
                commit.changes.push(Change { key: key.into(), value: Some(value.into()) });
            }
        }
    }

    /// The commits after the planted bug has touched them.
    fn spoil(&self, expected: Lsn, mut commits: Vec<Commit>) -> Vec<Commit> {
        match self.bug {
            Some(Bug::JournalReleasesEarly) => {
                self.release_early(&commits);
                self.note_extents(expected, &mut commits);
            }
            Some(Bug::JournalCountsBytesAsObjects) => self.note_extents(expected, &mut commits),
            _ => {}
        }
        if self.bug == Some(Bug::JournalKeepsExtents) {
            let kept = |change: &Change| change.key.first() == Some(&Extent::KIND) && change.value.is_none();
            commits.iter_mut().for_each(|commit| commit.changes.retain(|change| !kept(change)));
        }
        let changes = commits.iter_mut().flat_map(|commit| commit.changes.iter_mut());
        match self.bug {
            Some(Bug::CleanerIgnoresPins) => changes.for_each(forget_readers),
            Some(Bug::JournalLosesMarkers) => changes.for_each(forget_marker),
            Some(Bug::HistoryLosesACommit) => changes.for_each(|change| end_part(change, Lsn::next)),
            Some(Bug::HistoryRepeatsACommit) => {
                changes.for_each(|change| end_part(change, |last| Lsn(last.0 - 1)));
            }
            _ => {}
        }
        if self.bug == Some(Bug::UndeleteForgetsRecords) {
            let undeletes = |commit: &&mut Commit| commit.envelope.cause.as_deref() == Some("undelete");
            commits.iter_mut().filter(undeletes).for_each(|commit| empty_heads(&mut commit.changes));
        }
        if matches!(self.bug, Some(Bug::RemovalForgetsExtent | Bug::RemovalFreesToo)) {
            for (commit, lsn) in commits.iter_mut().zip(expected.0 + 1..) {
                self.spoil_removal(commit, Lsn(lsn));
            }
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

    /// A commit that takes records of a topic after the planted bug has touched it.
    fn spoil_removal(&self, commit: &mut Commit, lsn: Lsn) {
        let takes = commit.envelope.cause.as_deref().is_some_and(|cause| TAKES.contains(&cause));
        if !takes {
            return;
        }
        // Nothing else puts extents there.
        if self.bug == Some(Bug::RemovalForgetsExtent) {
            let last = commit.changes.iter().rposition(|change| record_of::<Extent>(change).is_some());
            last.map(|last| commit.changes.remove(last));
            return;
        }
        let objects: BTreeSet<ObjectId> =
            commit.changes.iter().filter_map(|change| record_of::<Extent>(change)?.object()).collect();
        for id in objects {
            let mut key = vec![Object::KIND];
            id.encode(&mut key);
            commit.changes.push(Change { key: key.clone().into(), value: None });
            key[0] = Trash::KIND;
            let mut trash = Change { key: key.into(), value: None };
            replace(&mut trash, &Trash { since: commit.envelope.time, size: 1, lsn });
            commit.changes.push(trash);
        }
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

/// A part says that it ends at another commit than its last one.
fn end_part(change: &mut Change, at: impl Fn(Lsn) -> Lsn) {
    if let Some(part) = record_of::<Part>(change) {
        replace(change, &Part { last: at(part.last), ..part });
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
        Ok(self.commit_with(expected, attempt, commits, &[]).await?.outcome)
    }

    fn carries(&self) -> u64 {
        self.entries.carries()
    }

    async fn commit_with(
        &self,
        expected: Lsn,
        attempt: u128,
        commits: &[Commit],
        attachments: &[Attachment],
    ) -> Result<Carried, JournalError> {
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
        let commits = self.spoil(expected, commits.to_vec());
        let attachments = attachments.to_vec();
        let forgets = self.forgets(&attachments);
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
            let result = match applies {
                true => Some(entries.commit_with(expected, attempt, &commits, &attachments).await),
                false => None,
            };
            forgets.iter().for_each(|at| entries.released(expected.plus(*at as usize + 1)));
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
                let applied = entries
                    .commit_with(expected, attempt, &commits, &attachments)
                    .await
                    .is_ok_and(|carried| matches!(carried.outcome, Outcome::Committed(_)));
                trace.fold(&format!("{what} applied late {applied}"));
            }
        };
        self.env.spawn("journal commit", call);
        answered.await.unwrap_or_else(|_| Err(JournalError::Unknown("the world ended".to_owned())))
    }

    async fn attached(&self, lsn: Lsn, range: Range<u64>) -> Result<Bytes, AttachedError> {
        let read = self.read("bytes").await;
        read.map_err(|error| AttachedError::Failed { lsn, reason: error.to_string() })?;
        self.entries.attached(lsn, range).await
    }

    fn released(&self, lsn: Lsn) {
        self.trace.fold(&format!("journal released {lsn}"));
        if self.bug != Some(Bug::JournalKeepsReleased) {
            self.entries.released(lsn);
        }
    }

    /// So records go into objects again and again, and the merger takes what is not due.
    fn crowded(&self) -> bool {
        self.crowds && self.entries.attachments().len() > CROWDED
    }

    fn attachments(&self) -> Vec<Lsn> {
        self.entries.attachments()
    }

    async fn follow(&self, from: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.read("follow").await?;
        self.entries.follow(from).await
    }

    async fn history(&self, from: Lsn, count: usize) -> Result<Vec<Entry>, JournalError> {
        self.read("history").await?;
        self.entries.history(from, count).await
    }

    fn forget(&self, upto: Lsn) {
        self.trace.fold(&format!("journal forgets up to {upto}"));
        let upto = if self.bug == Some(Bug::JournalForgetsMore) { upto.plus(10) } else { upto };
        self.entries.forget(upto);
    }
}
