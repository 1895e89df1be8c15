//! The one task that changes a broker's map. It takes queued commands and runs them over the map. It commits their
//! changes as one group, and answers them. While one group is made durable, the next one queues up.
//!
//! ```text
//! queue -> run each over the map -> Journal::commit -> publish -> observers -> answers
//!               ^                        |
//!               +-- apply what we missed +-- conflict: another broker was first
//!               +-- take the whole map --+-- reload: the journal has let go of what we missed
//!                                        +-- not applied: the whole group is told so, callers retry
//!                                        +-- unknown: the same attempt again, until the journal tells
//! ```
//! An unknown outcome is resolved before anything else runs. If that takes too long, the callers are answered
//! `Unknown`, and new commands `NotApplied`. Service resumes by itself once the journal answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::command::Queued;
use crate::journal::{
    Attachment, Carried, Change, Commit, Entry, Envelope, Journal, JournalError, Lsn, Outcome,
};
use crate::limits::{
    self, CHANGE_BYTES, COMMAND_BYTES_MAX, CONFLICTS_MAX, GROUP_BYTES_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN,
};
use crate::load::{difference, load};
use crate::published::Published;
use crate::snapshot::Snapshot;
use floe_env::{Backoff, Env, Timestamp};

/// Limits that tests and special deployments change. [`crate::limits`] holds the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commands that may wait in the queue.
    pub queue_commands_max: usize,
    /// Commands that share one commit of the journal at most.
    pub group_commands_max: usize,
    /// How long one call of the journal's commit may take before its outcome counts as unknown.
    pub commit_timeout: Duration,
    /// How long callers wait until an unknown outcome is resolved.
    pub resolve_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            queue_commands_max: limits::QUEUE_COMMANDS_MAX,
            group_commands_max: limits::GROUP_COMMANDS_MAX,
            commit_timeout: limits::COMMIT_TIMEOUT,
            resolve_timeout: limits::RESOLVE_TIMEOUT,
        }
    }
}

pub(crate) struct Committer {
    env: Env,
    shared: Arc<Published>,
    queue: mpsc::Receiver<Box<dyn Queued>>,
    options: Options,
    /// Commands taken from the queue that did not fit into a group.
    waiting: VecDeque<Box<dyn Queued>>,
    /// The map as of the last journal entry that this broker knows.
    map: Snapshot,
    /// The time of that entry.
    time: Timestamp,
}

type Group = Vec<Box<dyn Queued>>;

/// The result of a group if the journal applies it.
struct Plan {
    commits: Vec<Commit>,
    /// The bytes that ride with some of the commits.
    attachments: Vec<Attachment>,
    /// The map after the group.
    map: Snapshot,
    /// The time of the last command.
    time: Timestamp,
    /// For each command the LSN of its commit, or why it is left out. A command that changes nothing has the LSN
    /// before it.
    places: Vec<Result<Lsn, String>>,
}

/// The outcome of one call of the journal.
enum Tried {
    /// The group is durable. These entries of other brokers came after it, and these attachments are in memory.
    Applied(Vec<Entry>, Vec<Bytes>),
    Conflict(Vec<Entry>),
    NotApplied(String),
    Unknown(String),
    /// The journal has let go of what this broker missed. The call was not applied.
    Reload,
    /// As [`Tried::Reload`], and it will never be known whether an earlier call of the attempt was applied.
    Lost,
}

enum Next {
    Command(Option<Box<dyn Queued>>),
    Followed(Vec<Entry>),
    Reload,
}

impl Committer {
    pub(crate) fn new(
        env: Env,
        shared: Arc<Published>,
        queue: mpsc::Receiver<Box<dyn Queued>>,
        options: Options,
        time: Timestamp,
    ) -> Committer {
        let map = shared.snapshot();
        Committer { env, shared, queue, options, waiting: VecDeque::new(), map, time }
    }

    /// Serves until every [`crate::Meta`] is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            match self.next().await {
                Next::Command(None) => return,
                Next::Command(Some(first)) => {
                    let group = self.take_group(first);
                    self.commit_group(group).await;
                }
                Next::Followed(entries) => self.absorb(entries),
                Next::Reload => self.reload().await,
            }
        }
    }

    async fn next(&mut self) -> Next {
        if let Some(command) = self.waiting.pop_front() {
            return Next::Command(Some(command));
        }
        tokio::select! {
            biased;
            command = self.queue.recv() => Next::Command(command),
            followed = follow(&self.env, &*self.shared.journal, self.map.lsn()) => {
                followed.map_or(Next::Reload, Next::Followed)
            }
        }
    }

    fn take_group(&mut self, first: Box<dyn Queued>) -> Group {
        let mut group = vec![first];
        while group.len() < self.options.group_commands_max {
            let Some(command) = self.waiting.pop_front().or_else(|| self.queue.try_recv().ok()) else {
                break;
            };
            group.push(command);
        }
        metrics::gauge!("floe_meta_queue_commands").set((self.queue.len() + self.waiting.len()) as f64);
        group
    }

    async fn commit_group(&mut self, mut group: Group) {
        let began = self.env.monotonic();
        for _ in 0..CONFLICTS_MAX {
            let plan = self.run_group(&mut group);
            if plan.commits.is_empty() {
                return answer(plan, group);
            }
            let attempt = self.env.random_u128();
            match self.submit(&plan, attempt).await {
                Tried::Applied(others, held) => {
                    metrics::histogram!("floe_meta_commit_seconds").record(began.elapsed().as_secs_f64());
                    tell_stored(&plan, &mut group, held);
                    self.publish(&plan);
                    answer(plan, group);
                    return self.absorb(others);
                }
                Tried::Conflict(entries) => {
                    metrics::counter!("floe_meta_conflicts_total").increment(1);
                    self.absorb(entries);
                }
                Tried::Reload => self.reload().await,
                Tried::Lost => {
                    let reason = "the journal has let go of the commits among which it would be";
                    tracing::error!(commands = group.len(), "outcome of a metadata commit will not be known");
                    group.into_iter().for_each(|command| command.unknown(reason));
                    return self.reload().await;
                }
                Tried::NotApplied(reason) => {
                    metrics::counter!("floe_meta_not_applied_total").increment(1);
                    tracing::warn!(commands = group.len(), reason, "metadata commit not applied");
                    return group.into_iter().for_each(|command| command.not_applied(&reason));
                }
                Tried::Unknown(reason) => {
                    tracing::error!(
                        commands = group.len(),
                        reason,
                        "outcome of a metadata commit is not known"
                    );
                    group.into_iter().for_each(|command| command.unknown(&reason));
                    return self.outlast(&plan, attempt).await;
                }
            }
        }
        let reason = format!("other brokers committed first {CONFLICTS_MAX} times, try again later");
        group.into_iter().for_each(|command| command.not_applied(&reason));
    }

    /// Runs the commands one after another, each over the result of the earlier ones. Commands that do not fit into
    /// the group go back to the front of the queue.
    fn run_group(&mut self, group: &mut Group) -> Plan {
        let (map, time) = (self.map.clone(), self.time);
        let mut plan = Plan { commits: Vec::new(), attachments: Vec::new(), map, time, places: Vec::new() };
        let only_deletions = self.shared.journal.only_deletions();
        let carries = self.shared.journal.carries();
        let (mut group_bytes, mut attached_bytes) = (0, 0);
        for command in group.iter_mut() {
            let brings = command.attachment().map_or(0, |attachment| attachment.bytes);
            if group_bytes > GROUP_BYTES_MAX || (attached_bytes > 0 && attached_bytes + brings > carries) {
                break;
            }
            if command.attachment().is_some() && (brings > carries || carries == 0) {
                plan.places
                    .push(Err(format!("the command brings {brings} bytes, the journal carries {carries}")));
                continue;
            }
            // The wall clock may go back when somebody puts it right. The time of commits never does; within one
            // millisecond, and for as long as the clock is behind, LSNs give the order.
            plan.time = plan.time.max(self.env.now());
            let changes = command.run(&plan.map, plan.time);
            if let Some(reason) = self.shared.fence.reason().filter(|_| !changes.is_empty()) {
                metrics::counter!("floe_meta_fenced_total").increment(1);
                plan.places.push(Err(reason.to_owned()));
                continue;
            }
            let bytes = changes.iter().map(bytes_of).sum::<usize>();
            if bytes > COMMAND_BYTES_MAX {
                plan.places.push(Err(format!(
                    "the command changes {bytes} bytes of metadata, more than {COMMAND_BYTES_MAX}: split it"
                )));
                continue;
            }
            if let Some(reason) = &only_deletions
                && !changes.is_empty()
                && !command.is_deletion()
            {
                metrics::counter!("floe_meta_refused_for_deletions_total").increment(1);
                plan.places.push(Err(reason.clone()));
                continue;
            }
            if !changes.is_empty() {
                plan.map.apply(plan.map.lsn().next(), &changes);
                if let Some(attachment) = command.attachment() {
                    attached_bytes += brings;
                    let commit = u32::try_from(plan.commits.len()).expect("groups are bounded");
                    plan.attachments.push(Attachment { commit, ..attachment.clone() });
                }
                group_bytes += bytes + text_bytes(command.envelope());
                plan.commits.push(Commit { envelope: command.envelope().clone(), changes });
            }
            plan.places.push(Ok(plan.map.lsn()));
        }
        for command in group.drain(plan.places.len()..).rev() {
            self.waiting.push_front(command);
        }
        plan
    }

    /// Commits. If the journal does not tell the outcome, asks again until the resolve timeout.
    async fn submit(&mut self, plan: &Plan, attempt: u128) -> Tried {
        let mut tried = self.attempt(plan, attempt).await;
        let began = self.env.monotonic();
        let mut backoff = Backoff::new(&self.env, RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        while let Tried::Unknown(reason) = &tried {
            metrics::counter!("floe_meta_unknown_total").increment(1);
            if began.elapsed() >= self.options.resolve_timeout {
                break;
            }
            tracing::warn!(reason, "outcome of a metadata commit is not known, asking again");
            backoff.pause().await;
            tried = self.attempt(plan, attempt).await.resolved();
        }
        tried
    }

    /// Keeps asking after the callers were told that the outcome is not known. Refuses new commands meanwhile.
    async fn outlast(&mut self, plan: &Plan, attempt: u128) {
        let began = self.env.monotonic();
        let tried = loop {
            self.waiting.drain(..).for_each(refuse);
            let asked = async {
                sleep(RETRY_PAUSE_MAX).await;
                timeout(
                    self.options.commit_timeout,
                    self.shared.journal.commit_with(
                        self.map.lsn(),
                        attempt,
                        &plan.commits,
                        &plan.attachments,
                    ),
                )
                .await
            };
            let called = tokio::select! {
                biased;
                called = asked => called,
                () = refuse_all(&mut self.queue) => return,
            };
            match Tried::of(called, plan, attempt).resolved() {
                Tried::Unknown(reason) => {
                    tracing::warn!(reason, "outcome of a metadata commit is still not known");
                }
                known => break known,
            }
        };
        tracing::info!(seconds = began.elapsed().as_secs(), "metadata commits again");
        match tried {
            Tried::Applied(others, _) => {
                self.publish(plan);
                self.absorb(others);
            }
            Tried::Conflict(entries) => self.absorb(entries),
            Tried::Reload | Tried::Lost => self.reload().await,
            Tried::NotApplied(_) | Tried::Unknown(_) => unreachable!("the outcome is resolved"),
        }
    }

    async fn attempt(&mut self, plan: &Plan, attempt: u128) -> Tried {
        let journal = &self.shared.journal;
        let call = journal.commit_with(self.map.lsn(), attempt, &plan.commits, &plan.attachments);
        Tried::of(timeout(self.options.commit_timeout, call).await, plan, attempt)
    }

    /// Makes this broker's own group visible.
    fn publish(&mut self, plan: &Plan) {
        let first = self.map.lsn();
        self.map = plan.map.clone();
        self.time = plan.time;
        metrics::counter!("floe_meta_groups_total").increment(1);
        metrics::counter!("floe_meta_commits_total").increment(plan.commits.len() as u64);
        let commits = plan.commits.iter().enumerate();
        self.shared
            .publish(&self.map, commits.map(|(i, c)| (first.plus(i + 1), &c.envelope, &c.changes[..])));
    }

    /// Takes the map as the journal has it. Until it can, commands that wait are refused.
    async fn reload(&mut self) {
        metrics::counter!("floe_meta_reloads_total").increment(1);
        let mut backoff = Backoff::new(&self.env, RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        let (map, time) = loop {
            let journal = Arc::clone(&self.shared.journal);
            let reason = match timeout(self.options.commit_timeout, load(&*journal)).await {
                Ok(Ok(loaded)) => break loaded,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the journal did not answer in time".to_owned(),
            };
            tracing::warn!(reason, "cannot load the metadata anew, trying again");
            self.waiting.drain(..).for_each(refuse);
            tokio::select! {
                biased;
                () = backoff.pause() => {}
                () = refuse_all(&mut self.queue) => return,
            }
        };
        if map.lsn() <= self.map.lsn() {
            return;
        }
        tracing::info!(from = self.map.lsn().0, to = map.lsn().0, "took the metadata as a whole");
        let changes = difference(&self.map, &map);
        self.time = self.time.max(time);
        self.map = map;
        let mut envelope = Envelope::broker("reload");
        envelope.time = self.time;
        self.shared.publish(&self.map, std::iter::once((self.map.lsn(), &envelope, &changes[..])));
    }

    /// Makes commits of other brokers visible.
    fn absorb(&mut self, mut entries: Vec<Entry>) {
        entries.retain(|entry| entry.lsn > self.map.lsn());
        if entries.is_empty() {
            return;
        }
        for entry in &entries {
            self.map.apply(entry.lsn, &entry.changes);
            self.time = self.time.max(entry.envelope.time);
        }
        metrics::counter!("floe_meta_followed_total").increment(entries.len() as u64);
        self.shared.publish(&self.map, entries.iter().map(|e| (e.lsn, &e.envelope, &e.changes[..])));
    }
}

impl Tried {
    fn of(
        called: Result<Result<Carried, JournalError>, tokio::time::error::Elapsed>,
        plan: &Plan,
        attempt: u128,
    ) -> Tried {
        match called {
            Ok(Ok(Carried { outcome: Outcome::Committed(last), held })) => {
                assert_eq!(last, plan.map.lsn(), "the journal numbers commits as we do");
                Tried::Applied(Vec::new(), held)
            }
            Ok(Ok(Carried { outcome: Outcome::Conflict(entries), .. })) => {
                Tried::of_conflict(entries, plan, attempt)
            }
            Ok(Err(JournalError::NotApplied(reason))) => Tried::NotApplied(reason),
            Ok(Err(JournalError::Unknown(reason))) => Tried::Unknown(reason),
            Ok(Err(JournalError::Reload(_))) => Tried::Reload,
            Err(_) => Tried::Unknown("the journal did not answer in time".to_owned()),
        }
    }

    /// An attempt applies only right after the LSN that it expected. So either the first missed entries are ours,
    /// or the attempt was not applied and never will be.
    fn of_conflict(mut entries: Vec<Entry>, plan: &Plan, attempt: u128) -> Tried {
        assert!(!entries.is_empty(), "a conflict shows what was missed");
        if entries[0].attempt != attempt {
            return Tried::Conflict(entries);
        }
        let others = entries.split_off(plan.commits.len());
        assert!(entries.iter().all(|entry| entry.attempt == attempt), "a group is applied as a whole");
        Tried::Applied(others, Vec::new())
    }

    /// After an unknown outcome, `NotApplied` describes only the later call and resolves nothing.
    fn resolved(self) -> Tried {
        match self {
            Tried::NotApplied(reason) => Tried::Unknown(reason),
            Tried::Reload => Tried::Lost,
            other => other,
        }
    }
}

/// Waits for commits of other brokers. None if the journal has let go of them.
async fn follow(env: &Env, journal: &dyn Journal, from: Lsn) -> Option<Vec<Entry>> {
    let mut backoff = Backoff::new(env, RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
    loop {
        match journal.follow(from).await {
            Ok(entries) if !entries.is_empty() => return Some(entries),
            Ok(_) => {}
            Err(JournalError::Reload(_)) => return None,
            Err(error) => tracing::warn!(%error, "cannot follow the journal, trying again"),
        }
        backoff.pause().await;
    }
}

/// What a change takes of a group's room.
fn bytes_of(change: &Change) -> usize {
    CHANGE_BYTES + change.key.len() + change.value.as_ref().map_or(0, |value| value.len())
}

/// What an envelope takes of it.
fn text_bytes(envelope: &Envelope) -> usize {
    let texts = [&envelope.run_id, &envelope.cause, &envelope.comment].into_iter().flatten();
    envelope.principal.len() + envelope.client_id.len() + texts.map(String::len).sum::<usize>()
}

/// Tells the commands that brought bytes that these are durable.
fn tell_stored(plan: &Plan, group: &mut Group, held: Vec<Bytes>) {
    if plan.attachments.is_empty() {
        return;
    }
    let mut held = held.into_iter();
    let before = Lsn(plan.map.lsn().0 - plan.commits.len() as u64);
    let mut attached = plan.attachments.iter().map(|one| before.plus(one.commit as usize + 1)).peekable();
    for (command, place) in group.iter_mut().zip(&plan.places) {
        let brought = command.attachment().is_some();
        if let (true, Ok(lsn)) = (brought, place)
            && attached.next_if_eq(lsn).is_some()
        {
            command.stored(*lsn, held.next());
        }
    }
}

fn answer(plan: Plan, group: Group) {
    assert_eq!(plan.places.len(), group.len(), "every command has its place");
    for (command, place) in group.into_iter().zip(plan.places) {
        match place {
            Ok(lsn) => command.durable(lsn, &plan.map),
            Err(reason) => command.not_applied(&reason),
        }
    }
}

fn refuse(command: Box<dyn Queued>) {
    command.not_applied("the metadata journal does not answer, try again later");
}

/// Refuses commands until every sender is gone.
async fn refuse_all(queue: &mut mpsc::Receiver<Box<dyn Queued>>) {
    while let Some(command) = queue.recv().await {
        refuse(command);
    }
}
