//! From one generation to the next.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::classic::group::{Group, GroupState, JoinTimer};
use crate::classic::member::Member;
use crate::classic::requests::{Moment, Refusal, Reply};

impl Group {
    /// After a join: starts a rebalance, or ends the running one if all members have joined.
    pub(super) fn prepare_or_complete(&mut self, now: Moment, out: &mut Vec<Reply>) {
        if self.state == GroupState::PreparingRebalance {
            self.complete_if_all_joined(now, out);
        } else {
            self.prepare(now, out);
        }
    }

    fn prepare(&mut self, now: Moment, out: &mut Vec<Reply>) {
        assert!(!self.members.is_empty(), "only members rebalance");
        if self.state == GroupState::CompletingRebalance {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                if let Some(waiter) = member.awaiting_sync.take() {
                    member.heard(now);
                    out.push(Reply::Sync(waiter, Err(Refusal::RebalanceInProgress)));
                }
            }
        }
        let first = self.state == GroupState::Empty;
        self.state = GroupState::PreparingRebalance;
        self.sync_deadline = None;
        let timeout_ms = self.rebalance_timeout_ms();
        if first && self.rules.initial_delay_ms > 0 {
            let delay_ms = self.rules.initial_delay_ms.min(timeout_ms);
            let extension_ms = Some(timeout_ms - delay_ms);
            self.newcomer = false;
            self.join_timer = Some(JoinTimer { deadline: now.after(delay_ms), extension_ms });
            return;
        }
        self.join_timer = Some(JoinTimer { deadline: now.after(timeout_ms), extension_ms: None });
        self.complete_if_all_joined(now, out);
    }

    /// Ends the rebalance when all members have joined. The first rebalance of an empty group always waits its delay,
    /// because nothing says who is still missing.
    pub(super) fn complete_if_all_joined(&mut self, now: Moment, out: &mut Vec<Reply>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        let initial = self.join_timer.is_some_and(|timer| timer.extension_ms.is_some());
        let all = self.members.values().all(|member| member.awaiting_join.is_some());
        if self.members.is_empty() || (all && self.pending.is_empty() && !initial) {
            self.complete(now, out);
        }
    }

    /// Ends the rebalance. Members that did not join are removed. Static members stay until their sessions end.
    pub(super) fn complete(&mut self, now: Moment, out: &mut Vec<Reply>) {
        assert_eq!(self.state, GroupState::PreparingRebalance, "only a rebalance completes");
        let late = |member: &&Member| member.awaiting_join.is_none() && member.instance_id.is_none();
        let late: Vec<String> = self.members.values().filter(late).map(|member| member.id.clone()).collect();
        for id in late {
            self.remove(&id, &Refusal::UnknownMember, out);
        }
        if self.members.is_empty() {
            self.become_empty();
            return;
        }
        if !self.elect_joined_leader() {
            // Only static members are left, and none has joined. It waits on; their sessions will end it.
            let deadline = now.after(self.rebalance_timeout_ms().max(1));
            self.join_timer = Some(JoinTimer { deadline, extension_ms: None });
            return;
        }
        self.generation = next_generation(self.generation);
        self.protocol = self.select_protocol();
        assert!(self.protocol.is_some(), "joins are accepted only with a common protocol");
        self.state = GroupState::CompletingRebalance;
        self.join_timer = None;
        self.newcomer = false;
        self.sync_deadline = Some(now.after(self.rebalance_timeout_ms().max(1)));
        self.answer_joins(now, out);
        self.check();
    }

    fn answer_joins(&mut self, now: Moment, out: &mut Vec<Reply>) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("listed");
            member.assignment = Bytes::new();
            // A static member that did not join stays until its session ends, and owes no sync.
            member.pending_sync = member.awaiting_join.is_some();
            let Some(waiter) = member.awaiting_join.take() else { continue };
            member.new = false;
            member.heard(now);
            let answer = self.joined(&id);
            out.push(Reply::Join(waiter, Ok(answer)));
        }
    }

    /// Removes a member. Its waiting callers get `why`.
    pub(super) fn remove(&mut self, id: &str, why: &Refusal, out: &mut Vec<Reply>) {
        let member = self.members.remove(id).expect("only members are removed");
        if let Some(waiter) = member.awaiting_join {
            out.push(Reply::Join(waiter, Err(why.clone())));
        }
        if let Some(waiter) = member.awaiting_sync {
            out.push(Reply::Sync(waiter, Err(why.clone())));
        }
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            let first = self.members.values().min_by_key(|member| member.arrival);
            self.leader = first.map(|member| member.id.clone());
        }
    }

    /// After removals: the other members rebalance, or the group becomes empty.
    pub(super) fn membership_shrank(&mut self, now: Moment, out: &mut Vec<Reply>) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance if self.members.is_empty() => {
                self.become_empty();
            }
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare(now, out),
            GroupState::PreparingRebalance => self.complete_if_all_joined(now, out),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    fn become_empty(&mut self) {
        assert!(self.members.is_empty(), "members remain");
        self.generation = next_generation(self.generation);
        self.state = GroupState::Empty;
        self.protocol = None;
        self.leader = None;
        self.join_timer = None;
        self.sync_deadline = None;
        self.newcomer = false;
        self.check();
    }

    fn elect_joined_leader(&mut self) -> bool {
        let leads = |id: &String| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_ref().is_some_and(leads) {
            return true;
        }
        let joined = self.members.values().filter(|member| member.awaiting_join.is_some());
        match joined.min_by_key(|member| member.arrival) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// The protocol that all members support and most prefer; of several the first by name.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = self.common_protocols();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let favourite = member.protocols.iter().find(|offer| common.contains(&*offer.name))?;
            *votes.entry(&favourite.name).or_default() += 1;
        }
        let most = votes.values().max().copied()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    /// The protocols that all members support; none without members.
    pub(super) fn common_protocols(&self) -> BTreeSet<&str> {
        let Some(first) = self.members.values().next() else { return BTreeSet::new() };
        let all = |name: &&str| self.members.values().all(|member| member.supports(name));
        first.protocols.iter().map(|offer| &*offer.name).filter(all).collect()
    }

    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }
}

fn next_generation(generation: i32) -> i32 {
    if generation == i32::MAX { 1 } else { generation + 1 }
}
