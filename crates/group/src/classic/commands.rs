//! The commands of members: join, sync, heartbeat, leave, commit; and the deletion of a group.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::classic::group::{Group, GroupState};
use crate::classic::member::{Member, bytes_of};
use crate::classic::requests::{
    Join, Joined, JoinedMember, Moment, Refusal, Reply, Speaker, Sync, Synced, Waiter,
};
use crate::limits;

impl Group {
    /// A member joins the next generation. The answer is a [`Reply::Join`] for this waiter, now or when the rebalance
    /// ends.
    pub fn join(&mut self, now: Moment, waiter: Waiter, join: Join, out: &mut Vec<Reply>) {
        let answer = match self.join_checks(&join) {
            Err(refusal) => Some(Err(refusal)),
            Ok(()) if join.member_id.is_empty() => self.join_newcomer(now, waiter, join, out),
            Ok(()) => self.join_known(now, waiter, join, out),
        };
        if let Some(answer) = answer {
            out.push(Reply::Join(waiter, answer));
        }
    }

    fn join_checks(&self, join: &Join) -> Result<(), Refusal> {
        if self.state == GroupState::Dead {
            return Err(Refusal::NotAvailable);
        }
        if !limits::GROUP_SESSION_TIMEOUT_MS.contains(&join.session_timeout_ms) {
            return Err(Refusal::InvalidSessionTimeout);
        }
        if join.instance_id.as_ref().is_some_and(|id| id.len() > limits::GROUP_NAME_BYTES_MAX) {
            return Err(Refusal::TooLarge);
        }
        if join.protocol_type.len() > limits::GROUP_PROTOCOL_TYPE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let bytes = bytes_of(&join.protocols);
        if join.protocols.len() > limits::GROUP_PROTOCOLS_MAX || bytes > limits::GROUP_METADATA_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let known = self.members.contains_key(&join.member_id) || self.pending.contains_key(&join.member_id);
        let returns = join.instance_id.as_ref().is_some_and(|id| self.instances.contains_key(id));
        if !known && !returns && self.members.len() + self.pending.len() >= self.rules.members_max {
            return Err(Refusal::GroupFull);
        }
        if self.bytes() + bytes > self.rules.bytes_max {
            return Err(Refusal::TooLarge);
        }
        if !self.accepts_protocols(join) {
            return Err(Refusal::InconsistentProtocol);
        }
        Ok(())
    }

    fn accepts_protocols(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let itself = |member: &Member| {
            member.id == join.member_id
                || (join.instance_id.is_some() && member.instance_id == join.instance_id)
        };
        let shared = |name: &str| {
            self.members.values().filter(|member| !itself(member)).all(|member| member.supports(name))
        };
        self.protocol_type() == join.protocol_type && join.protocols.iter().any(|offer| shared(&offer.name))
    }

    fn join_newcomer(
        &mut self,
        now: Moment,
        waiter: Waiter,
        join: Join,
        out: &mut Vec<Reply>,
    ) -> Option<Result<Joined, Refusal>> {
        let id = join.fresh_id.clone();
        assert!(!id.is_empty(), "the edge makes an id for every join");
        if let Some(instance) = &join.instance_id
            && let Some(old) = self.instances.get(instance).cloned()
        {
            return self.join_replacing(now, waiter, &old, join, out);
        }
        if join.instance_id.is_none() && join.require_known_id {
            self.pending.insert(id.clone(), now.after(session_ms(&join)));
            return Some(Err(Refusal::MemberIdRequired(id)));
        }
        self.add(now, waiter, id, join, out);
        None
    }

    fn join_known(
        &mut self,
        now: Moment,
        waiter: Waiter,
        join: Join,
        out: &mut Vec<Reply>,
    ) -> Option<Result<Joined, Refusal>> {
        if join.instance_id.is_some() && self.pending.contains_key(&join.member_id) {
            // Only dynamic members get ids. A static member is taken over without one.
            return Some(Err(Refusal::UnknownMember));
        }
        if self.pending.remove(&join.member_id).is_some() {
            let id = join.member_id.clone();
            self.add(now, waiter, id, join, out);
            return None;
        }
        let speaker = Speaker { member_id: &join.member_id, instance_id: join.instance_id.as_deref() };
        if let Err(refusal) = self.member_checks(speaker) {
            return Some(Err(refusal));
        }
        let member = &self.members[&join.member_id];
        let same = member.protocols == join.protocols;
        let leads = self.leader.as_deref() == Some(&join.member_id);
        let answered = match self.state {
            // The reply to its last join was lost. It gets the same again.
            GroupState::CompletingRebalance => same,
            // A leader that joins again wants a new assignment.
            GroupState::Stable => same && !leads,
            GroupState::PreparingRebalance => false,
            GroupState::Empty | GroupState::Dead => unreachable!("a member in a group without members"),
        };
        let id = join.member_id.clone();
        if answered {
            let member = self.members.get_mut(&id).expect("checked above");
            member.heard(now);
            return Some(Ok(self.joined(&id)));
        }
        self.update(now, waiter, &id, join, out);
        None
    }

    /// A static member joins without an id, perhaps from another process: it takes over the membership of its instance.
    /// Callers that wait for the old id are fenced.
    fn join_replacing(
        &mut self,
        now: Moment,
        waiter: Waiter,
        old: &str,
        join: Join,
        out: &mut Vec<Reply>,
    ) -> Option<Result<Joined, Refusal>> {
        let id = join.fresh_id.clone();
        let led = self.leader.as_deref() == Some(old);
        let mut member = self.members.remove(old).expect("an instance names a member");
        if let Some(waiter) = member.awaiting_join.take() {
            out.push(Reply::Join(waiter, Err(Refusal::FencedInstance)));
        }
        if let Some(waiter) = member.awaiting_sync.take() {
            out.push(Reply::Sync(waiter, Err(Refusal::FencedInstance)));
        }
        member.id.clone_from(&id);
        let instance = member.instance_id.clone().expect("a static member");
        self.instances.insert(instance, id.clone());
        self.members.insert(id.clone(), member);
        if led {
            self.leader = Some(id.clone());
        }
        if self.state != GroupState::Stable {
            self.update(now, waiter, &id, join, out);
            return None;
        }
        let can_skip = join.can_skip_assignment;
        self.refresh(now, &id, join);
        if self.select_protocol().as_deref() != self.protocol.as_deref() {
            self.members.get_mut(&id).expect("just inserted").awaiting_join = Some(waiter);
            self.prepare_or_complete(now, out);
            return None;
        }
        // The assignment stays valid, so the other members need not rejoin.
        let mut joined = self.joined(&id);
        if can_skip {
            joined.skip_assignment = led;
        } else if led {
            // An old client would assign if it were told that it leads. It is told the old id instead.
            joined.leader = old.to_owned();
            joined.members.clear();
        }
        Some(Ok(joined))
    }

    fn add(&mut self, now: Moment, waiter: Waiter, id: String, join: Join, out: &mut Vec<Reply>) {
        assert!(!self.members.contains_key(&id), "member ids are unique");
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        self.arrivals += 1;
        let member = Member {
            id: id.clone(),
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            assignment: Bytes::new(),
            session_timeout_ms: positive(join.session_timeout_ms),
            rebalance_timeout_ms: positive(join.rebalance_timeout_ms),
            protocols: join.protocols,
            arrival: self.arrivals,
            new: true,
            deadline: now.after(limits::GROUP_NEW_MEMBER_JOIN_MS),
            awaiting_join: Some(waiter),
            awaiting_sync: None,
            pending_sync: false,
        };
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members.insert(id.clone(), member);
        self.leader.get_or_insert(id);
        self.newcomer = true;
        self.prepare_or_complete(now, out);
    }

    fn update(&mut self, now: Moment, waiter: Waiter, id: &str, join: Join, out: &mut Vec<Reply>) {
        self.refresh(now, id, join);
        let member = self.members.get_mut(id).expect("only members are updated");
        if let Some(earlier) = member.awaiting_join.replace(waiter) {
            // The member joined again before it had a reply. Only the newer join counts.
            out.push(Reply::Join(earlier, Err(Refusal::RebalanceInProgress)));
        }
        self.prepare_or_complete(now, out);
    }

    fn refresh(&mut self, now: Moment, id: &str, join: Join) {
        let member = self.members.get_mut(id).expect("only members are refreshed");
        member.protocols = join.protocols;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.session_timeout_ms = positive(join.session_timeout_ms);
        member.rebalance_timeout_ms = positive(join.rebalance_timeout_ms);
        if !member.new {
            member.heard(now);
        }
    }

    pub(super) fn joined(&self, id: &str) -> Joined {
        let leader = self.leader.clone().expect("a generation has a leader");
        let protocol = self.protocol.clone().expect("a generation has a protocol");
        let member = |member: &Member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(&protocol),
        };
        let members = if leader == id { self.members.values().map(member).collect() } else { Vec::new() };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type().to_owned(),
            protocol: protocol.clone(),
            leader,
            member_id: id.to_owned(),
            skip_assignment: false,
            members,
        }
    }

    /// A member asks for its assignment; the leader brings all assignments. The answer is a [`Reply::Sync`].
    pub fn sync(&mut self, now: Moment, waiter: Waiter, sync: Sync, out: &mut Vec<Reply>) {
        if let Err(refusal) = self.sync_checks(&sync) {
            out.push(Reply::Sync(waiter, Err(refusal)));
            return;
        }
        let leads = self.leader.as_deref() == Some(&sync.member_id);
        let member = self.members.get_mut(&sync.member_id).expect("checked");
        member.pending_sync = false;
        if self.state == GroupState::Stable {
            member.heard(now);
            let answer = self.synced(&sync.member_id);
            out.push(Reply::Sync(waiter, Ok(answer)));
            return;
        }
        assert_eq!(self.state, GroupState::CompletingRebalance, "checked");
        if let Some(earlier) = member.awaiting_sync.replace(waiter) {
            out.push(Reply::Sync(earlier, Err(Refusal::RebalanceInProgress)));
        }
        if leads {
            self.assign(now, sync.assignments, out);
        }
    }

    fn sync_checks(&self, sync: &Sync) -> Result<(), Refusal> {
        let speaker = Speaker { member_id: &sync.member_id, instance_id: sync.instance_id.as_deref() };
        self.generation_checks(speaker, sync.generation)?;
        let other = |given: &Option<String>, ours: &str| given.as_deref().is_some_and(|given| given != ours);
        if other(&sync.protocol_type, self.protocol_type()) || other(&sync.protocol, self.protocol()) {
            return Err(Refusal::InconsistentProtocol);
        }
        if self.state == GroupState::PreparingRebalance {
            return Err(Refusal::RebalanceInProgress);
        }
        let given: usize = sync.assignments.iter().map(|(_, bytes)| bytes.len()).sum();
        if self.bytes() + given > self.rules.bytes_max {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    fn assign(&mut self, now: Moment, assignments: Vec<(String, Bytes)>, out: &mut Vec<Reply>) {
        let mut given: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        self.state = GroupState::Stable;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("listed");
            // A copy: a slice would keep the whole frame of the leader's request alive.
            member.assignment = Bytes::copy_from_slice(&given.remove(&id).unwrap_or_default());
            if let Some(waiter) = member.awaiting_sync.take() {
                member.heard(now);
                let answer = self.synced(&id);
                out.push(Reply::Sync(waiter, Ok(answer)));
            }
        }
        self.check();
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type().to_owned(),
            protocol: self.protocol().to_owned(),
            assignment: self.members[id].assignment.clone(),
        }
    }

    /// Keeps the session of a member alive.
    ///
    /// # Errors
    /// [`Refusal::RebalanceInProgress`] asks the member to join again. It stays a member.
    pub fn heartbeat(&mut self, now: Moment, speaker: Speaker<'_>, generation: i32) -> Result<(), Refusal> {
        self.generation_checks(speaker, generation)?;
        self.members.get_mut(speaker.member_id).expect("checked").heard(now);
        match self.state {
            GroupState::PreparingRebalance => Err(Refusal::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Removes a member, by its id, or a static member by its instance id alone.
    ///
    /// # Errors
    /// [`Refusal::UnknownMember`] and [`Refusal::FencedInstance`].
    pub fn leave(&mut self, now: Moment, speaker: Speaker<'_>, out: &mut Vec<Reply>) -> Result<(), Refusal> {
        if self.state == GroupState::Dead {
            return Err(Refusal::NotAvailable);
        }
        if speaker.instance_id.is_none() && self.pending.remove(speaker.member_id).is_some() {
            self.complete_if_all_joined(now, out);
            return Ok(());
        }
        let id = match speaker.instance_id {
            Some(instance) if speaker.member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(Refusal::UnknownMember)?
            }
            _ => {
                self.member_checks(speaker)?;
                speaker.member_id.to_owned()
            }
        };
        self.remove(&id, &Refusal::UnknownMember, out);
        self.membership_shrank(now, out);
        Ok(())
    }

    /// Checks whether this speaker may commit offsets, and keeps its session alive. Generation -1 comes from tools and
    /// from consumers that assign partitions to themselves. They may commit while the group has no members.
    ///
    /// # Errors
    /// The reason for which the commit is refused.
    pub fn commit(&mut self, now: Moment, speaker: Speaker<'_>, generation: i32) -> Result<(), Refusal> {
        if generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        self.generation_checks(speaker, generation)?;
        self.members.get_mut(speaker.member_id).expect("checked").heard(now);
        match self.state {
            GroupState::CompletingRebalance => Err(Refusal::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Ends the group. Commands that still hold it are refused.
    ///
    /// # Errors
    /// [`Refusal::NotEmpty`] while it has members.
    pub fn delete(&mut self) -> Result<(), Refusal> {
        if !self.members.is_empty() {
            return Err(Refusal::NotEmpty);
        }
        self.pending.clear();
        self.state = GroupState::Dead;
        Ok(())
    }

    fn generation_checks(&self, speaker: Speaker<'_>, generation: i32) -> Result<(), Refusal> {
        if self.state == GroupState::Dead {
            return Err(Refusal::NotAvailable);
        }
        self.member_checks(speaker)?;
        if generation != self.generation {
            return Err(Refusal::IllegalGeneration);
        }
        Ok(())
    }

    fn member_checks(&self, speaker: Speaker<'_>) -> Result<(), Refusal> {
        if let Some(instance) = speaker.instance_id {
            match self.instances.get(instance) {
                None => return Err(Refusal::UnknownMember),
                Some(id) if id != speaker.member_id => return Err(Refusal::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(speaker.member_id) { Ok(()) } else { Err(Refusal::UnknownMember) }
    }
}

fn session_ms(join: &Join) -> u64 {
    positive(join.session_timeout_ms)
}

fn positive(ms: i32) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
