//! Lives of a ring on a disk that loses its power: a process commits, ends at any call of the disk, and the next one
//! finds what the disk has kept. Nothing acknowledged may be lost, and nothing may be there that nobody committed. For
//! tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use bytes::Bytes;
use floe_env::{DiskOver, Env, SimulatedDisk, Timestamp};

use super::{RingJournal, RingOptions};
use crate::journal::{
    AttachedError, Attachment, Change, Commit, Entry, Envelope, Journal, JournalError, Lsn, Outcome,
};

/// Lives of one disk, so that recoveries are cut off too.
const LIVES: usize = 6;
/// Groups that one life commits at most.
const GROUPS_MAX: u64 = 25;

/// What the lives of one disk have met.
#[derive(Debug, Default, Clone, Copy)]
pub struct Met {
    /// Commits that were acknowledged.
    pub acknowledged: u64,
    /// Power cuts, and processes that were killed.
    pub ends: u64,
    /// Starts that were cut off.
    pub starts_cut: u64,
    /// Groups without an answer that were there afterwards.
    pub applied_unanswered: u64,
    /// Groups that were told that they are not applied.
    pub not_applied: u64,
    /// Attachments that were read back.
    pub read_back: u64,
    /// Newest images that have rotted.
    pub images_spoiled: u64,
}

impl Met {
    /// Adds what other disks have met.
    pub fn add(&mut self, other: &Met) {
        self.acknowledged += other.acknowledged;
        self.ends += other.ends;
        self.starts_cut += other.starts_cut;
        self.applied_unanswered += other.applied_unanswered;
        self.not_applied += other.not_applied;
        self.read_back += other.read_back;
        self.images_spoiled += other.images_spoiled;
    }
}

/// Runs the lives of the disk with this seed, in a simulated environment of the same seed.
///
/// # Errors
/// What was lost or invented.
pub fn lives(env: Env, seed: u64) -> Result<Met, String> {
    let mut world = World::new(env, seed);
    for life in 0..LIVES {
        world.live(life).map_err(|wrong| format!("seed {seed}, life {life}: {wrong}"))?;
    }
    // In the end the machine is left alone.
    let last = world.open().map_err(|wrong| format!("seed {seed}, at the end: {wrong}"))?;
    let journal = last.ok_or("the last start was cut off")?;
    world.compare(&journal).map_err(|wrong| format!("seed {seed}, at the end: {wrong}"))?;
    Ok(world.met)
}

type Group = (u128, Vec<(Commit, Option<Bytes>)>);

struct World {
    env: Env,
    disk: SimulatedDisk,
    options: RingOptions,
    /// Every commit that was acknowledged or seen, in order.
    entries: Vec<Entry>,
    attached: BTreeMap<Lsn, Bytes>,
    released: BTreeSet<Lsn>,
    /// The group whose outcome nobody was told.
    unanswered: Option<Group>,
    written: u64,
    /// The serial number of the image that was spoiled last.
    spoiled: u64,
    met: Met,
}

impl World {
    fn new(env: Env, seed: u64) -> World {
        let mut world = World {
            disk: SimulatedDisk::new(seed),
            options: RingOptions {
                first_bytes: 0,
                file_bytes: 0,
                bytes_max: None,
                image_bytes: 0,
                history_bytes: 0,
            },
            env,
            entries: Vec::new(),
            attached: BTreeMap::new(),
            released: BTreeSet::new(),
            unanswered: None,
            written: 0,
            spoiled: 0,
            met: Met::default(),
        };
        let blocks = 6 + world.below(10);
        world.options = RingOptions {
            first_bytes: if world.below(2) == 0 { 3 } else { blocks } * 4096,
            file_bytes: blocks * 4096,
            bytes_max: Some((4 + world.below(5)) * blocks * 4096),
            image_bytes: 200 + world.below(3_000),
            history_bytes: world.below(20_000),
        };
        world
    }

    fn below(&self, end: u64) -> u64 {
        self.env.random_u64() % end
    }

    /// One process, from its start to its end.
    fn live(&mut self, life: usize) -> Result<(), String> {
        if life > 0 && self.below(2) == 0 {
            self.disk.end_after(1 + self.below(6));
        }
        let Some(journal) = self.open()? else {
            self.met.starts_cut += 1;
            self.end();
            return Ok(());
        };
        self.disk.restart();
        self.compare(&journal)?;
        match self.below(4) {
            0 => self.disk.fail_after(1 + self.below(60)),
            1 => {}
            _ => self.disk.end_after(1 + self.below(80)),
        }
        let went_on = self.guarded(|world| world.work(&journal));
        let result = went_on.unwrap_or(Ok(()));
        if self.below(2) == 0 {
            // It is killed instead of being stopped.
            self.disk.end_now();
        }
        let _ = self.guarded(|_| drop(journal));
        self.end();
        result
    }

    /// The process has ended. Mostly the machine loses its power too.
    fn end(&mut self) {
        self.met.ends += 1;
        match self.below(5) {
            0 => self.disk.restart(),
            _ => self.disk.cut_power(),
        }
        if self.below(4) == 0 {
            self.spoil_newest_image();
        }
    }

    /// The newest of two images rots, and no two in a row do. The other one must do.
    fn spoil_newest_image(&mut self) {
        let names = self.disk.names();
        let serial =
            |name: &str| u64::from_str_radix(name.strip_prefix("image/0")?.split_once('-')?.1, 16).ok();
        let images = names.iter().filter_map(|name| Some((serial(name)?, name)));
        let images: Vec<(u64, &String)> = images.filter(|(serial, _)| *serial > self.spoiled).collect();
        if let [.., _, (serial, newest)] = images[..] {
            let at = self.below(100) as usize;
            self.disk.spoil(newest, at, &[!self.disk.contents(newest)[at]]);
            (self.spoiled, self.met.images_spoiled) = (serial, self.met.images_spoiled + 1);
        }
    }

    /// Runs until the process ends; `None` if it did.
    fn guarded<T>(&mut self, run: impl FnOnce(&mut World) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(done) => Some(done),
            Err(panic) if panic.is::<DiskOver>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn open(&mut self) -> Result<Option<RingJournal>, String> {
        let opened = self
            .guarded(|world| RingJournal::open_on(&world.env, Arc::new(world.disk.clone()), world.options));
        match opened {
            None => Ok(None),
            // What is left of a process that has ended cannot open anything.
            Some(Err(_)) if self.disk.is_over() => Ok(None),
            Some(Err(error)) => Err(format!("the start was refused: {error}")),
            Some(Ok(journal)) => Ok(Some(journal)),
        }
    }

    fn work(&mut self, journal: &RingJournal) -> Result<(), String> {
        for _ in 0..self.below(GROUPS_MAX) {
            match self.below(12) {
                0 => journal.rest(),
                1 => self.read_one(journal)?,
                2 => self.meet_a_conflict(journal)?,
                _ => {
                    let before = self.met.not_applied;
                    self.commit(journal)?;
                    if self.met.not_applied > before && self.below(3) == 0 {
                        return Ok(());
                    }
                }
            }
            self.release_some(journal);
        }
        Ok(())
    }

    fn commit(&mut self, journal: &RingJournal) -> Result<(), String> {
        let group = self.group();
        let (attempt, commits) = group.clone();
        let attachments = attachments(&commits);
        let plain: Vec<Commit> = commits.iter().map(|(commit, _)| commit.clone()).collect();
        let expected = Lsn(self.entries.len() as u64);
        self.unanswered = Some(group);
        let done = now(journal.commit_with(expected, attempt, &plain, &attachments));
        match done.map(|done| done.outcome) {
            Ok(Outcome::Committed(last)) if last == expected.plus(plain.len()) => {
                self.met.acknowledged += plain.len() as u64;
                self.adopt();
                Ok(())
            }
            Err(JournalError::NotApplied(_)) => {
                self.met.not_applied += 1;
                self.unanswered = None;
                Ok(())
            }
            other => Err(format!("a commit after {expected} was answered {other:?}")),
        }
    }

    /// A group of some commits, of which some bring bytes.
    fn group(&mut self) -> Group {
        let count = 1 + self.below(4);
        let commits = (0..count).map(|_| {
            self.written += 1;
            let key = format!("key {:03}", self.below(40));
            let value = (self.below(5) > 0).then(|| Bytes::from(format!("value {}", self.written)));
            let mut envelope = Envelope::client("User:ann".into(), "etl".into());
            envelope.time = Timestamp(self.written as i64);
            let commit = Commit { envelope, changes: vec![Change { key: key.into(), value }] };
            (commit, (self.below(3) > 0).then(|| self.bytes()))
        });
        let commits = commits.collect();
        (self.env.random_u128(), commits)
    }

    fn bytes(&self) -> Bytes {
        let length = if self.below(4) == 0 { self.below(5_000) } else { self.below(200) };
        let seed = self.env.random_u64();
        (0..length).map(|at| (seed >> (at % 57)) as u8 ^ at as u8).collect::<Vec<u8>>().into()
    }

    /// The unanswered group is there.
    fn adopt(&mut self) {
        let (attempt, commits) = self.unanswered.take().expect("there is one");
        for (commit, bytes) in commits {
            let lsn = Lsn(self.entries.len() as u64).next();
            let Commit { envelope, changes } = commit;
            self.entries.push(Entry { lsn, attempt, envelope, changes });
            if let Some(bytes) = bytes {
                self.attached.insert(lsn, bytes);
            }
        }
    }

    /// Releases most of what is old.
    fn release_some(&mut self, journal: &RingJournal) {
        let newest = self.entries.len() as u64;
        let old = self.attached.keys().copied().filter(|lsn| lsn.0 + 8 < newest && lsn.0 % 16 != 0);
        let old: Vec<Lsn> = old.filter(|lsn| !self.released.contains(lsn)).collect();
        for lsn in old {
            journal.released(lsn);
            self.released.insert(lsn);
        }
    }

    fn read_one(&mut self, journal: &RingJournal) -> Result<(), String> {
        let kept: Vec<Lsn> =
            self.attached.keys().copied().filter(|lsn| !self.released.contains(lsn)).collect();
        if kept.is_empty() {
            return Ok(());
        }
        let lsn = kept[self.below(kept.len() as u64) as usize];
        self.read(journal, lsn)
    }

    fn read(&mut self, journal: &RingJournal, lsn: Lsn) -> Result<(), String> {
        let bytes = &self.attached[&lsn];
        let found = now(journal.attached(lsn, 0..bytes.len() as u64));
        self.met.read_back += 1;
        match found.as_ref() == Ok(bytes) {
            true => Ok(()),
            false => Err(format!("lost: the bytes of commit {lsn} are {:?}", found.map(|bytes| bytes.len()))),
        }
    }

    fn meet_a_conflict(&mut self, journal: &RingJournal) -> Result<(), String> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let expected = self.below(self.entries.len() as u64);
        let (attempt, commits) = self.group();
        let plain: Vec<Commit> = commits.iter().map(|(commit, _)| commit.clone()).collect();
        let done = now(journal.commit_with(Lsn(expected), attempt, &plain, &attachments(&commits)));
        match done.map(|done| done.outcome) {
            Ok(Outcome::Conflict(missed)) if missed == self.entries[expected as usize..] => Ok(()),
            // It brings too much.
            Err(JournalError::NotApplied(_)) => Ok(()),
            other => Err(format!("a late commit after {expected} was answered {other:?}")),
        }
    }

    /// Compares everything that a start finds with what was acknowledged.
    fn compare(&mut self, journal: &RingJournal) -> Result<(), String> {
        let found = self.history(journal)?;
        let known = self.entries.len();
        if found.len() > known && self.unanswered.is_some() {
            self.met.applied_unanswered += 1;
            self.adopt();
        }
        self.unanswered = None;
        let upto = Lsn(found.len() as u64);
        if found != self.entries {
            return Err(match found.len() < known {
                true => format!("lost: commits end at {upto} of {known}"),
                false => format!("phantom: {known} commits were made, and {upto} others are there"),
            });
        }
        if journal.lsn() != upto {
            return Err(format!("the journal ends at {}, its history at {upto}", journal.lsn()));
        }
        let loaded = now(journal.load()).map_err(|error| format!("lost: {error}"))?;
        let mut map: BTreeMap<Bytes, Bytes> = loaded.image.into_iter().collect();
        let mut lsn = loaded.image_lsn;
        for entry in &loaded.entries {
            if entry.lsn != lsn.next() {
                return Err(format!("lost: commit {} follows {lsn}", entry.lsn));
            }
            lsn = entry.lsn;
            apply(&mut map, entry);
        }
        let mut expected = BTreeMap::new();
        self.entries.iter().for_each(|entry| apply(&mut expected, entry));
        if (lsn, &map) != (upto, &expected) {
            return Err(format!("phantom: the map at {lsn} is not that of {upto} commits"));
        }
        self.compare_attachments(journal)
    }

    fn compare_attachments(&mut self, journal: &RingJournal) -> Result<(), String> {
        let listed = journal.attachments();
        for lsn in &listed {
            if !self.attached.contains_key(lsn) {
                return Err(format!("phantom: commit {lsn} brought no bytes and has some"));
            }
            if self.released.contains(lsn) {
                journal.released(*lsn);
            }
        }
        let needed: Vec<Lsn> =
            self.attached.keys().copied().filter(|lsn| !self.released.contains(lsn)).collect();
        needed.into_iter().try_for_each(|lsn| self.read(journal, lsn))?;
        let beyond = Lsn(self.entries.len() as u64).next();
        match now(journal.attached(beyond, 0..0)) {
            Err(AttachedError::None(_)) => Ok(()),
            other => Err(format!("phantom: commit {beyond} has bytes: {other:?}")),
        }
    }

    fn history(&self, journal: &RingJournal) -> Result<Vec<Entry>, String> {
        let mut found: Vec<Entry> = Vec::new();
        loop {
            let from = Lsn(found.len() as u64);
            let more =
                now(journal.history(from, 1 + self.below(50) as usize)).map_err(|error| error.to_string())?;
            if more.is_empty() {
                return Ok(found);
            }
            if more[0].lsn != from.next() {
                return Err(format!("lost: commit {} follows {from}", more[0].lsn));
            }
            found.extend(more);
        }
    }
}

fn apply(map: &mut BTreeMap<Bytes, Bytes>, entry: &Entry) {
    for Change { key, value } in &entry.changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn attachments(commits: &[(Commit, Option<Bytes>)]) -> Vec<Attachment> {
    let brought = (0..).zip(commits).filter_map(|(at, (_, bytes))| Some((at, bytes.clone()?)));
    brought.map(|(commit, bytes)| Attachment { commit, ..Attachment::of(vec![bytes]) }).collect()
}

/// The answer of a call, which on a simulated disk comes at once.
fn now<T>(call: impl Future<Output = T>) -> T {
    use futures::FutureExt as _;
    call.now_or_never().expect("nothing waits on a simulated disk")
}
