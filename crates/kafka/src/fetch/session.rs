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
    /// Its share of [`Sessions::partitions`].
    partitions: usize,
}

/// The sessions of a broker.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: BTreeMap<i32, SessionSlot>,
    /// Of all sessions.
    partitions: usize,
    slots_max: usize,
    partitions_max: usize,
}

impl Sessions {
    /// Room for `slots_max` sessions with `partitions_max` partitions in all.
    pub(crate) fn new(slots_max: usize, partitions_max: usize) -> Sessions {
        Sessions { slots: BTreeMap::new(), partitions: 0, slots_max, partitions_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Plans the answer to a request. The id of a new session is made of `random`.
    ///
    /// # Errors
    /// [`SessionRefusal`]: the client then opens a new session.
    pub(crate) fn plan(&mut self, now: Timestamp, ask: Ask, random: u64) -> Result<Plan, SessionRefusal> {
        if ask.epoch <= 0 {
            if ask.id != 0 {
                self.close(ask.id);
            }
            let id = if ask.epoch == 0 { self.open(now, &ask, random) } else { 0 };
            let session = self.slots.get(&id).map(|slot| slot.session.clone());
            return Ok(Plan::Full { id, session, wants: ask.wants });
        }
        let slot = self.slots.get_mut(&ask.id).ok_or(SessionRefusal::NotFound)?;
        slot.used = now;
        let session = slot.session.clone();
        let mut held = lock(&session);
        if held.epoch != ask.epoch {
            return Err(SessionRefusal::InvalidEpoch);
        }
        if held.by_id != ask.by_id {
            return Err(SessionRefusal::TopicIds);
        }
        held.epoch = if ask.epoch == i32::MAX { 1 } else { ask.epoch + 1 };
        for key in &ask.forgotten {
            held.forget(key);
        }
        for (key, want) in ask.wants {
            held.want(key, want);
        }
        let wants = held.wants();
        drop(held);
        self.partitions = self.partitions + wants.len() - slot.partitions;
        slot.partitions = wants.len();
        if !fits(&wants) || !self.room(now, ask.id) {
            // The client then opens a new session, and gets none if there is no room for it.
            self.close(ask.id);
            return Err(SessionRefusal::NotFound);
        }
        Ok(Plan::Incremental { id: ask.id, session, wants })
    }

    fn open(&mut self, now: Timestamp, ask: &Ask, random: u64) -> i32 {
        let wants = &ask.wants;
        if wants.is_empty() || !fits(wants) || wants.len() > self.partitions_max {
            return 0;
        }
        let mut id = i32::try_from(random >> 33).expect("31 bits").max(1);
        while self.slots.contains_key(&id) {
            id = if id == i32::MAX { 1 } else { id + 1 };
        }
        let session = Arc::new(Mutex::new(Session::new(ask.by_id, wants)));
        self.partitions += wants.len();
        self.slots.insert(id, SessionSlot { session, used: now, partitions: wants.len() });
        if !self.room(now, id) {
            self.close(id);
            return 0;
        }
        id
    }

    fn close(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.partitions -= slot.partitions;
        }
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

    /// A line per request: id/epoch, wanted partitions, forgotten ones; what comes out, in short.
    fn run(sessions: &mut Sessions, at: i64, ask: Ask) -> String {
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
        let mut s = Sessions::new(2, 100);
        assert_eq!(run(&mut s, 0, ask(0, -1, &[(0, 0)], &[])), "full 0: 0@0");
        assert_eq!(run(&mut s, 0, ask(0, 0, &[(0, 0), (1, 5)], &[])), "full 7: 0@0 1@5");
        assert_eq!(run(&mut s, 0, ask(7, 1, &[], &[])), "more 7: 0@0 1@5");
        assert_eq!(run(&mut s, 0, ask(7, 2, &[(1, 6), (2, 9)], &[0])), "more 7: 1@6 2@9");
        assert_eq!(run(&mut s, 0, ask(7, 2, &[], &[])), "InvalidEpoch");
        assert_eq!(run(&mut s, 0, ask(8, 1, &[], &[])), "NotFound");
        let by_id = Ask { by_id: true, ..ask(7, 3, &[], &[]) };
        assert_eq!(run(&mut s, 0, by_id), "TopicIds");
        assert_eq!(run(&mut s, 0, ask(7, -1, &[(3, 3)], &[])), "full 0: 3@3");
        assert_eq!(s.len(), 0, "a final request closes the session");
    }

    #[test]
    fn a_partition_with_records_moves_to_the_end_and_only_news_are_told() {
        let mut s = Sessions::new(2, 100);
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
        assert_eq!(run(&mut s, 0, ask(9, 1, &[], &[])), "more 9: 1@0 2@0 0@0");
    }

    #[test]
    fn the_cache_is_bounded_and_drops_only_the_idle() {
        let mut s = Sessions::new(2, 100);
        assert_eq!(run(&mut s, 0, ask(0, 0, &[(0, 0)], &[])), "full 7: 0@0");
        assert_eq!(run(&mut s, 1, ask(0, 0, &[(0, 0)], &[])), "full 8: 0@0");
        assert_eq!(run(&mut s, 2, ask(0, 0, &[(0, 0)], &[])), "full 0: 0@0");
        assert_eq!(run(&mut s, 119_000, ask(7, 1, &[], &[])), "more 7: 0@0");
        assert_eq!(run(&mut s, 121_000, ask(0, 0, &[(5, 5)], &[])), "full 9: 5@5");
        assert_eq!(run(&mut s, 121_000, ask(8, 1, &[], &[])), "NotFound");
        assert_eq!(s.len(), 2);
        let mut narrow = Sessions::new(9, 3);
        assert_eq!(run(&mut narrow, 0, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 7: 0@0 1@0");
        assert_eq!(run(&mut narrow, 0, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 0: 0@0 1@0");
        assert_eq!(run(&mut narrow, 0, ask(0, 0, &[(0, 0)], &[])), "full 8: 0@0");
    }

    #[test]
    fn sessions_that_grow_are_bounded_and_idle_ones_make_room() {
        let mut s = Sessions::new(9, 4);
        assert_eq!(run(&mut s, 0, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 7: 0@0 1@0");
        assert_eq!(run(&mut s, 1, ask(0, 0, &[(0, 0)], &[])), "full 8: 0@0");
        assert_eq!(run(&mut s, 2, ask(8, 1, &[(1, 0)], &[])), "more 8: 0@0 1@0");
        assert_eq!(run(&mut s, 3, ask(8, 2, &[(2, 0), (3, 0)], &[0])), "NotFound", "it grew beyond all room");
        assert_eq!((s.len(), s.partitions), (1, 2), "and is closed");
        assert_eq!(run(&mut s, 119_000, ask(0, 0, &[(0, 0), (1, 0)], &[])), "full 8: 0@0 1@0");
        // The first was idle for two minutes. It makes room when another grows or is opened.
        assert_eq!(run(&mut s, 120_000, ask(8, 1, &[(2, 0), (3, 0)], &[])), "more 8: 0@0 1@0 2@0 3@0");
        assert_eq!((s.len(), s.partitions), (1, 4));
        assert_eq!(run(&mut s, 240_000, ask(0, 0, &[(0, 0)], &[])), "full 7: 0@0");
        assert_eq!((s.len(), s.partitions), (1, 1));
        assert_eq!(run(&mut s, 240_000, ask(7, -1, &[(0, 0)], &[])), "full 0: 0@0");
        assert_eq!((s.len(), s.partitions), (0, 0));
    }
}
