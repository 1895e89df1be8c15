//! All groups of a broker in memory: their deadlines, their bytes, and the members that wait for replies.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use crate::classic::{Group, GroupState, Joined, Moment, Refusal, Reply, Synced, Waiter};
use crate::limits;

#[derive(Default)]
pub(crate) struct Groups {
    pub(crate) slots: BTreeMap<String, GroupSlot>,
    /// The alarm of each group with a deadline. An alarm is never later than the deadline.
    alarms: BTreeSet<(Moment, String)>,
    pub(crate) sleepers: BTreeMap<Waiter, Sleeper>,
    waiters: u64,
    /// Metadata and assignment bytes of all groups.
    pub(crate) bytes: usize,
}

pub(crate) struct GroupSlot {
    pub(crate) group: Group,
    pub(crate) alarm: Option<Moment>,
    /// Its share of [`Groups::bytes`].
    pub(crate) bytes: usize,
}

pub(crate) enum Sleeper {
    Join(oneshot::Sender<Result<Joined, Refusal>>),
    Sync(oneshot::Sender<Result<Synced, Refusal>>),
}

impl Groups {
    pub(crate) fn sleep(&mut self, sleeper: Sleeper) -> Waiter {
        self.waiters += 1;
        let waiter = Waiter(self.waiters);
        self.sleepers.insert(waiter, sleeper);
        waiter
    }

    pub(crate) fn answer(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            // A closed channel means that the member's connection is gone. Its session timeout will remove it.
            match reply {
                Reply::Join(waiter, answer) => match self.sleepers.remove(&waiter) {
                    Some(Sleeper::Join(send)) => drop(send.send(answer)),
                    _ => unreachable!("a join is answered once, to the one who waits for it"),
                },
                Reply::Sync(waiter, answer) => match self.sleepers.remove(&waiter) {
                    Some(Sleeper::Sync(send)) => drop(send.send(answer)),
                    _ => unreachable!("a sync is answered once, to the one who waits for it"),
                },
            }
        }
    }

    /// Counts the bytes of a group again after a change.
    pub(crate) fn weigh(&mut self, name: &str) {
        let slot = self.slots.get_mut(name).expect("only known groups are weighed");
        let bytes = slot.group.bytes();
        self.bytes = self.bytes + bytes - std::mem::replace(&mut slot.bytes, bytes);
        self.gauge();
    }

    /// Sets the alarm of a group to its next deadline; true when it is now the first of all alarms.
    pub(crate) fn rearm(&mut self, name: &str) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        let next = slot.group.next_deadline();
        if next == slot.alarm {
            return false;
        }
        if let Some(old) = slot.alarm.take() {
            self.alarms.remove(&(old, name.to_owned()));
        }
        slot.alarm = next;
        let Some(next) = next else { return false };
        self.alarms.insert((next, name.to_owned()));
        self.alarms.first().is_some_and(|first| first.0 == next)
    }

    /// Refuses more metadata and assignments while the broker has its maximum. The limit is the broker's: on this
    /// refusal clients try again, while they would give up on a full group.
    pub(crate) fn room_for_bytes(&self) -> Result<(), Refusal> {
        if self.bytes < limits::GROUPS_BYTES_MAX {
            return Ok(());
        }
        metrics::counter!("floe_kafka_groups_refused_total", "limit" => "bytes").increment(1);
        Err(Refusal::NotAvailable)
    }

    /// Makes room for one more group, if need be by forgetting one without members. Its offsets are in the map.
    pub(crate) fn room(&mut self) -> Result<(), Refusal> {
        if self.slots.len() < limits::GROUPS_MAX {
            return Ok(());
        }
        let idle = self.slots.iter().find(|(_, slot)| slot.group.idle()).map(|(name, _)| name.clone());
        let Some(name) = idle else {
            metrics::counter!("floe_kafka_groups_refused_total", "limit" => "groups").increment(1);
            return Err(Refusal::NotAvailable);
        };
        self.forget(&name);
        Ok(())
    }

    /// Forgets a group that no member joined, so that a refused join leaves no group behind.
    pub(crate) fn tidy(&mut self, name: &str) {
        let group = &self.slots.get(name).expect("only known groups are tidied").group;
        if group.state() == GroupState::Empty && group.fresh() && group.idle() {
            self.forget(name);
        }
    }

    pub(crate) fn forget(&mut self, name: &str) {
        let slot = self.slots.remove(name).expect("only known groups are forgotten");
        self.bytes -= slot.bytes;
        if let Some(alarm) = slot.alarm {
            self.alarms.remove(&(alarm, name.to_owned()));
        }
        self.gauge();
    }

    fn gauge(&self) {
        metrics::gauge!("floe_kafka_groups").set(self.slots.len() as f64);
        metrics::gauge!("floe_kafka_groups_bytes").set(self.bytes as f64);
    }

    /// Expires everything that was due until `now`; returns the next alarm.
    pub(crate) fn expire(&mut self, now: Moment) -> Option<Moment> {
        while let Some((alarm, name)) = self.alarms.first().cloned() {
            if alarm > now {
                return Some(alarm);
            }
            self.alarms.pop_first();
            let slot = self.slots.get_mut(&name).expect("an alarm belongs to a group");
            slot.alarm = None;
            let mut replies = Vec::new();
            slot.group.expire(now, &mut replies);
            self.weigh(&name);
            self.rearm(&name);
            self.answer(replies);
            self.tidy(&name);
        }
        None
    }
}
