//! Deadlines: what changes in a group by time alone.

use crate::classic::group::{Group, GroupState, JoinTimer};
use crate::classic::member::Member;
use crate::classic::requests::{Moment, Refusal, Reply};

impl Group {
    /// The next time at which [`Group::expire`] changes something. Any command may move it, to either side.
    pub fn next_deadline(&self) -> Option<Moment> {
        let sessions = self.members.values().filter_map(Member::expiry);
        let pending = self.pending.values().copied();
        let join = self.join_timer.map(|timer| timer.deadline);
        let sync = self.sync_deadline;
        sessions.chain(pending).chain(join).chain(sync).min()
    }

    /// Expires everything that was due until `now`.
    pub fn expire(&mut self, now: Moment, out: &mut Vec<Reply>) {
        self.expire_pending(now, out);
        self.expire_sessions(now, out);
        self.expire_sync(now, out);
        self.expire_join(now, out);
        self.check();
    }

    fn expire_pending(&mut self, now: Moment, out: &mut Vec<Reply>) {
        let before = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        if self.pending.len() < before {
            self.complete_if_all_joined(now, out);
        }
    }

    fn expire_sessions(&mut self, now: Moment, out: &mut Vec<Reply>) {
        let due = |member: &&Member| member.expiry().is_some_and(|deadline| deadline <= now);
        let silent: Vec<String> = self.members.values().filter(due).map(|member| member.id.clone()).collect();
        for id in &silent {
            self.remove(id, &Refusal::UnknownMember, out);
        }
        if !silent.is_empty() {
            self.membership_shrank(now, out);
        }
    }

    /// Removes members that joined and never asked for their assignment. They would hold up the others for ever.
    fn expire_sync(&mut self, now: Moment, out: &mut Vec<Reply>) {
        if self.sync_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.sync_deadline = None;
        assert!(
            matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable),
            "syncs follow joins"
        );
        let due = |member: &&Member| member.pending_sync;
        let late: Vec<String> = self.members.values().filter(due).map(|member| member.id.clone()).collect();
        assert!(
            self.state == GroupState::Stable || !late.is_empty(),
            "somebody who joined leads, and has not assigned"
        );
        for id in &late {
            self.remove(id, &Refusal::UnknownMember, out);
        }
        if !late.is_empty() {
            self.membership_shrank(now, out);
        }
    }

    fn expire_join(&mut self, now: Moment, out: &mut Vec<Reply>) {
        let Some(timer) = self.join_timer else { return };
        if timer.deadline > now {
            return;
        }
        match timer.extension_ms {
            Some(left_ms) if self.newcomer && left_ms > 0 => {
                let delay_ms = self.rules.initial_delay_ms.min(left_ms);
                self.newcomer = false;
                let deadline = now.after(delay_ms);
                self.join_timer = Some(JoinTimer { deadline, extension_ms: Some(left_ms - delay_ms) });
            }
            _ => self.complete(now, out),
        }
    }
}
