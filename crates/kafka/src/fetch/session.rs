//! Fetch sessions (KIP-227). A client names its partitions once and later sends changes only; the broker answers with
//! changes only. This file is pure: time and ids come from the caller.
//!
//! A session is an optimisation and never a promise. A broker that cannot keep one answers with session id 0, and the
//! client goes on with full requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use floe_env::{Timestamp, lock};
use floe_log::topic::NAME_BYTES_MAX;
use floe_wire::ErrorCode;

use crate::directory::{PartitionRef, TopicRef};
use crate::limits;

/// A client's wish for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    /// The first offset to read.
    pub(crate) offset: i64,
    /// The most bytes to read. But one batch per request comes whatever its size.
    pub(crate) bytes_max: i32,
    /// The leader's epoch that the client knows, -1 for none.
    pub(crate) leader_epoch: i32,
}

/// What the client was last told of one partition. Only a difference is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    /// True when it was told an error.
    pub(crate) failed: bool,
}

/// Why a session cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionRefusal {
    #[error("the fetch session is unknown, start a new one")]
    NotFound,
    #[error("the fetch session epoch is not the expected one, start a new session")]
    InvalidEpoch,
    /// The session was opened with names and the request has ids, or the other way round.
    #[error("the fetch session names topics by another kind of id, start a new one")]
    TopicIds,
}

impl SessionRefusal {
    /// The protocol's code for it.
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            SessionRefusal::NotFound => ErrorCode::FetchSessionIdNotFound,
            SessionRefusal::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
            SessionRefusal::TopicIds => ErrorCode::FetchSessionTopicIdError,
        }
    }
}

/// The session part of a fetch request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// 0 for none.
    pub(crate) id: i32,
    /// -1: full request without a session. 0: full request that opens a session. Else the number of the request in
    /// its session.
    pub(crate) epoch: i32,
    /// True when topics are named by id (version 13 and later).
    pub(crate) by_id: bool,
    /// The partitions of the request in their order.
    pub(crate) wants: Vec<(PartitionRef, Want)>,
    /// Partitions that the client does not want any more.
    pub(crate) forgotten: Vec<PartitionRef>,
}

#[derive(Debug)]
struct SessionPartition {
    want: Want,
    told: Option<Told>,
    rank: u64,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    epoch: i32,
    by_id: bool,
    entries: BTreeMap<PartitionRef, SessionPartition>,
    /// The order in which partitions are served. A partition that got records moves to the end.
    order: BTreeMap<u64, PartitionRef>,
    ranks: u64,
}

impl Session {
    fn new(by_id: bool, wants: &[(PartitionRef, Want)]) -> Session {
        let mut session =
            Session { epoch: 1, by_id, entries: BTreeMap::new(), order: BTreeMap::new(), ranks: 0 };
        for (key, want) in wants {
            session.want(key.clone(), *want);
        }
        session
    }

    /// Takes the changes of a request in. Returns what is wanted now.
    fn take_in(
        &mut self,
        epoch: i32,
        by_id: bool,
        forgotten: &[PartitionRef],
        wants: Vec<(PartitionRef, Want)>,
    ) -> Result<Vec<(PartitionRef, Want)>, SessionRefusal> {
        if self.epoch != epoch {
            return Err(SessionRefusal::InvalidEpoch);
        }
        if self.by_id != by_id {
            return Err(SessionRefusal::TopicIds);
        }
        self.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        for key in forgotten {
            self.forget(key);
        }
        for (key, want) in wants {
            self.want(key, want);
        }
        Ok(self.wants())
    }

    fn want(&mut self, key: PartitionRef, want: Want) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.want = want;
            return;
        }
        self.ranks += 1;
        self.order.insert(self.ranks, key.clone());
        self.entries.insert(key, SessionPartition { want, told: None, rank: self.ranks });
    }

    fn forget(&mut self, key: &PartitionRef) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.rank);
        }
    }

    fn move_last(&mut self, key: &PartitionRef) {
        self.ranks += 1;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let key = self.order.remove(&entry.rank).expect("every entry has its place in the order");
        entry.rank = self.ranks;
        self.order.insert(self.ranks, key);
    }

    /// All wanted partitions in the order in which they are served.
    fn wants(&self) -> Vec<(PartitionRef, Want)> {
        let want = |key: &PartitionRef| (key.clone(), self.entries[key].want);
        self.order.values().map(want).collect()
    }

    /// Whether the partition has news for the client. Remembers what it was told.
    pub(crate) fn tell(&mut self, key: &PartitionRef, told: Told, records: bool) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return true };
        let news = records || told.failed || entry.told != Some(told);
        entry.told = Some(told);
        if records {
            self.move_last(key);
        }
        news
    }
}

/// How a fetch is served.
#[derive(Debug, Clone)]
pub(crate) enum Plan {
    /// All partitions are answered.
    Full {
        /// Of the new session; 0 without one.
        id: i32,
        session: Option<Arc<Mutex<Session>>>,
        wants: Vec<(PartitionRef, Want)>,
    },
    /// Only partitions with news are answered.
    Incremental { id: i32, session: Arc<Mutex<Session>>, wants: Vec<(PartitionRef, Want)> },
}

#[derive(Debug)]
struct SessionSlot {
    session: Arc<Mutex<Session>>,
    used: Timestamp,
    /// Its share of [`Table::partitions`].
    partitions: usize,
}

/// The sessions of a broker. Their table has a lock that is held for a look-up only: what a request wants of its
/// session is worked out under the session's own lock, so polls of large sessions do not wait for each other.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    slots: BTreeMap<i32, SessionSlot>,
    /// Of all sessions.
    partitions: usize,
    slots_max: usize,
    partitions_max: usize,
}

impl Sessions {
    /// Room for `slots_max` sessions with `partitions_max` partitions in all.
    pub(crate) fn new(slots_max: usize, partitions_max: usize) -> Sessions {
        let table = Table { slots: BTreeMap::new(), partitions: 0, slots_max, partitions_max };
        Sessions { table: Mutex::new(table) }
    }

    /// Plans the answer to a request. The id of a new session is made of `random`.
    ///
    /// # Errors
    /// [`SessionRefusal`]: the client then opens a new session.
    pub(crate) fn plan(&self, now: Timestamp, ask: Ask, random: u64) -> Result<Plan, SessionRefusal> {
        if ask.epoch <= 0 {
            // Made before the table is locked, because it holds every partition.
            let session = (ask.epoch == 0 && fits(&ask.wants)).then(|| Session::new(ask.by_id, &ask.wants));
            let mut table = lock(&self.table);
            if ask.id != 0 {
                table.close(ask.id);
            }
            let opened = session.and_then(|session| table.open(now, session, random));
            table.measure();
            let (id, session) = opened.map_or((0, None), |(id, session)| (id, Some(session)));
            return Ok(Plan::Full { id, session, wants: ask.wants });
        }
        let session = {
            let mut table = lock(&self.table);
            let slot = table.slots.get_mut(&ask.id).ok_or(SessionRefusal::NotFound)?;
            slot.used = now;
            slot.session.clone()
        };
        let changes = !ask.wants.is_empty() || !ask.forgotten.is_empty();
        let wants = lock(&session).take_in(ask.epoch, ask.by_id, &ask.forgotten, ask.wants)?;
        if changes && !(fits(&wants) && lock(&self.table).resize(now, ask.id, &session)) {
            // The client then opens a new session, and gets none if there is no room for it.
            lock(&self.table).close_this(ask.id, &session);
            return Err(SessionRefusal::NotFound);
        }
        Ok(Plan::Incremental { id: ask.id, session, wants })
    }
}

impl Table {
    fn open(&mut self, now: Timestamp, session: Session, random: u64) -> Option<(i32, Arc<Mutex<Session>>)> {
        let partitions = session.entries.len();
        if partitions == 0 || partitions > self.partitions_max {
            return None;
        }
        let mut id = i32::try_from(random >> 33).expect("31 bits").max(1);
        while self.slots.contains_key(&id) {
            id = if id == i32::MAX { 1 } else { id + 1 };
        }
        let session = Arc::new(Mutex::new(session));
        self.partitions += partitions;
        self.slots.insert(id, SessionSlot { session: session.clone(), used: now, partitions });
        if !self.room(now, id) {
            self.close(id);
            return None;
        }
        Some((id, session))
    }

    /// Counts the partitions of a session again. `false` if there is no room for it.
    fn resize(&mut self, now: Timestamp, id: i32, session: &Arc<Mutex<Session>>) -> bool {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| Arc::ptr_eq(&slot.session, session)) else {
            return false; // it was closed meanwhile
        };
        // Nobody locks the table while they hold a session, so this waits for a plan of this session at most.
        let partitions = lock(session).entries.len();
        self.partitions = self.partitions + partitions - slot.partitions;
        slot.partitions = partitions;
        let room = self.room(now, id);
        self.measure();
        room
    }

    fn close(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.partitions -= slot.partitions;
        }
    }

    /// Closes a session, unless another has its id by now.
    fn close_this(&mut self, id: i32, session: &Arc<Mutex<Session>>) {
        if self.slots.get(&id).is_some_and(|slot| Arc::ptr_eq(&slot.session, session)) {
            self.close(id);
        }
        self.measure();
    }

    /// Whether the sessions are within their limits. If not, idle ones are dropped in LRU order first; `kept` stays.
    fn room(&mut self, now: Timestamp, kept: i32) -> bool {
        let idle_ms = i64::try_from(limits::FETCH_SESSION_IDLE.as_millis()).expect("a short time");
        while self.slots.len() > self.slots_max || self.partitions > self.partitions_max {
            let others = self.slots.iter().filter(|(id, _)| **id != kept);
            let Some((&id, slot)) = others.min_by_key(|(id, slot)| (slot.used.0, **id)) else { return false };
            if now.0.saturating_sub(slot.used.0) < idle_ms {
                return false;
            }
            self.close(id);
        }
        true
    }

    fn measure(&self) {
        metrics::gauge!("floe_kafka_fetch_sessions").set(self.slots.len() as f64);
        metrics::gauge!("floe_kafka_fetch_session_partitions").set(self.partitions as f64);
    }
}

/// Whether a session may keep these partitions. There must not be too many, and no name may be longer than a topic's:
/// clients choose the names, and they stay in memory.
fn fits(wants: &[(PartitionRef, Want)]) -> bool {
    let sane = |key: &PartitionRef| match &key.topic {
        TopicRef::Name(name) => name.len() <= NAME_BYTES_MAX,
        TopicRef::Id(_) => true,
    };
    wants.len() <= limits::FETCH_SESSION_PARTITIONS_MAX && wants.iter().all(|(key, _)| sane(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> PartitionRef {
        PartitionRef { topic: TopicRef::Name("t".into()), partition }
    }

    fn want(partition: i32, offset: i64) -> (PartitionRef, Want) {
        (key(partition), Want { offset, bytes_max: 1, leader_epoch: -1 })
    }

    fn ask(id: i32, epoch: i32, wants: &[(i32, i64)], forgotten: &[i32]) -> Ask {
        let wants = wants.iter().map(|(partition, offset)| want(*partition, *offset)).collect();
        let forgotten = forgotten.iter().map(|partition| key(*partition)).collect();
        Ask { id, epoch, by_id: false, wants, forgotten }
    }

    /// Sessions, and partitions of all sessions.
    fn sizes(sessions: &Sessions) -> (usize, usize) {
        let table = lock(&sessions.table);
        let counted: usize = table.slots.values().map(|slot| lock(&slot.session).entries.len()).sum();
        assert_eq!(counted, table.partitions);
        (table.slots.len(), table.partitions)
    }

    /// A line per request: id/epoch, wanted partitions, forgotten ones; what comes out, in short.
    fn run(sessions: &Sessions, at: i64, ask: Ask) -> String {
        let show = |wants: &[(PartitionRef, Want)]| {
            let one = |(key, want): &(PartitionRef, Want)| format!("{}@{}", key.partition, want.offset);
            wants.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        match sessions.plan(Timestamp(at), ask, 7 << 33) {
            Ok(Plan::Full { id, session, wants }) => {
                assert_eq!(id != 0, session.is_some());
                format!("full {id}: {}", show(&wants))
            }
            Ok(Plan::Incremental { id, wants, .. }) => format!("more {id}: {}", show(&wants)),
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    #[test]
    fn a_session_from_its_first_request_to_its_last() {
        let s = Sessions::new(2, 100);
        assert_eq!(run(&s, 0, ask(0, -1, &[(0, 0)], &[])), "full 0: 0@0");
        assert_eq!(run(&s, 0, ask(0, 0, &[(0, 0), (1, 5)], &[])), "full 7: 0@0 1@5");
        assert_eq!(run(&s, 0, ask(7, 1, &[], &[])), "more 7: 0@0 1@5");
        assert_eq!(run(&s, 0, ask(7, 2, &[(1, 6), (2, 9)], &[0])), "more 7: 1@6 2@9");
        assert_eq!(run(&s, 0, ask(7, 2, &[], &[])), "InvalidEpoch");
        assert_eq!(run(&s, 0, ask(8, 1, &[], &[])), "NotFound");
        let by_id = Ask { by_id: true, ..ask(7, 3, &[], &[]) };
        assert_eq!(run(&s, 0, by_id), "TopicIds");
        assert_eq!(run(&s, 0, ask(7, -1, &[(3, 3)], &[])), "full 0: 3@3");
        assert_eq!(sizes(&s).0, 0, "a final request closes the session");
    }

    #[test]
    fn a_partition_with_records_moves_to_the_end_and_only_news_are_told() {
        let s = Sessions::new(2, 100);
        let all = [(0, 0), (1, 0), (2, 0)];
        let Ok(Plan::Full { session: Some(session), .. }) =
            s.plan(Timestamp(0), ask(0, 0, &all, &[]), 9 << 33)
        else {
            panic!("a session was asked for")
        };
        let told = Told { high_watermark: 3, log_start: 0, failed: false };
        {
            let mut held = lock(&session);
            assert!(held.tell(&key(0), told, true), "records are news");
            assert!(held.tell(&key(1), told, false), "the first word is news");
            assert!(!held.tell(&key(1), told, false), "the same again is not");
            assert!(held.tell(&key(1), Told { high_watermark: 4, ..told }, false), "a new high watermark is");
            assert!(held.tell(&key(2), Told { failed: true, ..told }, false), "an error always is");
            assert!(held.tell(&key(2), Told { failed: true, ..told }, false), "an error always is");
        }
        assert_eq!(run(&s, 0, ask(9, 1, &[], &[])), "more 9: 1@0 2@0 0@0");
    }

    #[test]
    fn the_cache_is_bounded_and_drops_only_the_idle() {
        let s = Sessions::new(2, 100);
        assert_eq!(run(&s, 0, ask(0, 0, &[(0, 0)], &[])), "full 7: 0@0");
        assert_eq!(run(&s, 1, ask(0, 0, &[(0, 0)], &[])), "full 8: 0@0");
        assert_eq!(run(&s, 2, ask(0, 0, &[(0, 0)], &[])), "full 0: 0@0");
        assert_eq!(run(&s, 119_000, ask(7, 1, &[], &[])), "more 7: 0@0");
        assert_eq!(run(&s, 121_000, ask(0, 0, &[(5, 5)], &[])), "full 9: 5@5");
        assert_eq!(run(&s, 121_000, ask(8, 1, &[], &[])), "NotFound");
        assert_eq!(sizes(&s).0, 2);
        let narrow = Sessions::new(9, 3);
        assert_eq!(run(&narrow, 0, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 7: 0@0 1@0");
        assert_eq!(run(&narrow, 0, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 0: 0@0 1@0");
        assert_eq!(run(&narrow, 0, ask(0, 0, &[(0, 0)], &[])), "full 8: 0@0");
    }

    #[test]
    fn sessions_that_grow_are_bounded_and_idle_ones_make_room() {
        let s = Sessions::new(9, 4);
        assert_eq!(run(&s, 0, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 7: 0@0 1@0");
        assert_eq!(run(&s, 1, ask(0, 0, &[(0, 0)], &[])), "full 8: 0@0");
        assert_eq!(run(&s, 2, ask(8, 1, &[(1, 0)], &[])), "more 8: 0@0 1@0");
        assert_eq!(run(&s, 3, ask(8, 2, &[(2, 0), (3, 0)], &[0])), "NotFound", "it grew beyond all room");
        assert_eq!(sizes(&s), (1, 2), "and is closed");
        assert_eq!(run(&s, 119_000, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 8: 0@0 1@0");
        // The first was idle for two minutes. It makes room when another grows or is opened.
        assert_eq!(run(&s, 120_000, ask(8, 1, &[(2, 0), (3, 0)], &[])), "more 8: 0@0 1@0 2@0 3@0");
        assert_eq!(sizes(&s), (1, 4));
        assert_eq!(run(&s, 240_000, ask(0, 0, &[(0, 0)], &[])), "full 7: 0@0");
        assert_eq!(sizes(&s), (1, 1));
        assert_eq!(run(&s, 240_000, ask(7, -1, &[(0, 0)], &[])), "full 0: 0@0");
        assert_eq!(sizes(&s), (0, 0));
    }

    /// A poll of one session waits for no other session, and not for their table while it works.
    #[test]
    fn a_session_at_work_holds_up_no_other() {
        let s = Sessions::new(9, 100);
        assert_eq!(run(&s, 0, ask(0, 0, &[(0, 0)], &[])), "full 7: 0@0");
        assert_eq!(run(&s, 0, ask(0, 0, &[(5, 0)], &[])), "full 8: 5@0");
        let first = lock(&s.table).slots[&7].session.clone();
        let at_work = lock(&first);
        assert_eq!(run(&s, 0, ask(8, 1, &[(6, 0)], &[])), "more 8: 5@0 6@0");
        assert_eq!(run(&s, 0, ask(0, 0, &[(9, 0)], &[])), "full 9: 9@0");
        drop(at_work);
    }
}
