//! What an open journal in a bucket has in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use floe_env::{Env, Timestamp, lock, watch};
use floe_store::Store;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::group::{Attached, Group};
use super::image::Position;
use super::names::{Floor, Names};
use super::planted::{Planted, planted};
use super::sealed::{Unsound, damaged};
use crate::journal::{Entry, Lsn};
use crate::limits::{self, BUCKET_RECENT_BYTES, BUCKET_RECENT_ENTRIES};

/// What tests and special deployments change. [`crate::limits`] holds the defaults.
#[derive(Debug, Clone)]
pub struct BucketOptions {
    /// The folder of the store that has the journal, without a slash at its end.
    pub folder: String,
    /// The id that the journal must have, if the caller knows it.
    pub expected: Option<u128>,
    /// Whether a journal is made where there is none.
    pub create: bool,
    /// Bytes of the attachments of one group; 0 takes none.
    pub carries: u64,
    /// Entries after the newest image at which the next one is due.
    pub image_entries: u64,
    /// Bytes of entries at which it is due earlier.
    pub image_bytes: u64,
    /// How long a broker rests between two images, while fewer than four times the due entries wait.
    pub image_pause: Duration,
    /// How long it waits at most before it writes an image that is due.
    pub image_jitter: Duration,
    /// Entries that may be let go of before a floor is raised for them.
    pub forget_entries: u64,
    /// How long entries stay below a floor before they are deleted.
    pub grace: Duration,
    /// How long a broker trusts what it knows of the end of the journal. Much less than the grace.
    pub trust: Duration,
    /// The first pause between two looks for the next entry.
    pub poll_min: Duration,
    /// The longest pause between two looks.
    pub poll_max: Duration,
    /// How often the keeper looks whether something is due.
    pub keeper_look: Duration,
}

impl Default for BucketOptions {
    fn default() -> BucketOptions {
        BucketOptions {
            folder: "journal".to_owned(),
            expected: None,
            create: true,
            carries: limits::ATTACHMENTS_BYTES_MAX,
            image_entries: limits::BUCKET_IMAGE_ENTRIES,
            image_bytes: limits::BUCKET_IMAGE_BYTES,
            image_pause: limits::BUCKET_IMAGE_PAUSE,
            image_jitter: limits::BUCKET_IMAGE_JITTER,
            forget_entries: limits::BUCKET_FORGET_ENTRIES,
            grace: limits::BUCKET_GRACE,
            trust: limits::BUCKET_TRUST,
            poll_min: limits::BUCKET_POLL_MIN,
            poll_max: limits::BUCKET_POLL_MAX,
            keeper_look: limits::BUCKET_KEEPER_LOOK,
        }
    }
}

/// A moment by both clocks of a machine. The monotonic one may stand still while the machine sleeps, and the wall clock
/// may be put back; hardly both at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    monotonic: Instant,
    wall: Timestamp,
}

impl Moment {
    pub(super) fn now(env: &Env) -> Moment {
        Moment { monotonic: env.monotonic(), wall: env.now() }
    }

    /// How long ago it was, by the clock that says more.
    pub(super) fn age(self, env: &Env) -> Duration {
        env.monotonic().duration_since(self.monotonic).max(env.now().since(self.wall))
    }
}

/// The last entry that a broker knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) position: Position,
    /// The entry after it had not been let go of at this moment.
    pub(super) confirmed: Moment,
}

/// When to look for the next entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poll {
    pub(super) next: Instant,
    pub(super) pause: Duration,
}

pub(super) struct State {
    /// None before the first load.
    pub(super) tail: Option<Tail>,
    /// The newest entries, one behind the other, up to the tail.
    pub(super) recent: VecDeque<Arc<Group>>,
    recent_bytes: usize,
    recent_commits: usize,
    /// The attachments that were not released, of all entries up to the tail.
    pub(super) attached: BTreeMap<Lsn, Attached>,
    /// How many of them each entry has.
    pub(super) live: BTreeMap<u64, u32>,
    /// Entries whose last attachment was released since the keeper looked.
    pub(super) dead: Vec<u64>,
    /// The highest floor that this broker knows.
    pub(super) floor: Floor,
    /// Floors with the moment at which this broker saw them first. The last one is the highest.
    pub(super) floors: Vec<(Floor, Instant)>,
    /// The last entry of the newest image that this broker knows.
    pub(super) image: u64,
    /// Bytes of the entries after it.
    pub(super) unfolded_bytes: u64,
    pub(super) poll: Poll,
    /// The attempt that this broker sent last.
    pub(super) sent: Option<u128>,
    /// When another broker's entry came.
    pub(super) others: Option<Instant>,
}

/// What the parts of an open journal share.
pub(super) struct Core {
    pub(super) env: Env,
    pub(super) store: Arc<dyn Store>,
    pub(super) names: Names,
    pub(super) options: BucketOptions,
    pub(super) journal: u128,
    pub(super) state: Mutex<State>,
    /// The last commit that this broker knows.
    pub(super) last: watch::Sender<Lsn>,
    /// Held by the one commit that is under way.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Held by the one look for new entries, or load, that is under way.
    pub(super) reading: tokio::sync::Mutex<()>,
    /// The commits up to this one are kept elsewhere.
    pub(super) forget: AtomicU64,
    /// Wakes the keeper.
    pub(super) nudge: Notify,
    /// Since when a PUT has been under way.
    pub(super) under_way: Mutex<Option<Instant>>,
}

impl Core {
    pub(super) fn new(
        env: &Env,
        store: Arc<dyn Store>,
        names: Names,
        options: BucketOptions,
        journal: u128,
    ) -> Core {
        let poll = Poll { next: env.monotonic(), pause: options.poll_min };
        Core {
            env: env.clone(),
            store,
            names,
            options,
            journal,
            state: Mutex::new(State::new(poll)),
            last: watch::Sender::new(Lsn(0)),
            writing: tokio::sync::Mutex::new(()),
            reading: tokio::sync::Mutex::new(()),
            forget: AtomicU64::new(0),
            nudge: Notify::new(),
            under_way: Mutex::new(None),
        }
    }

    /// The tail, of a journal that was loaded.
    pub(super) fn tail(&self) -> Tail {
        lock(&self.state).tail.expect("the journal was loaded")
    }

    /// Whether nobody can be sure any more what came after a moment.
    pub(super) fn is_old(&self, confirmed: Moment) -> bool {
        confirmed.age(&self.env) > self.options.trust
    }

    /// Takes entries over that follow the tail, up to one that does not. Those that it has already are left out.
    pub(super) fn advance(&self, groups: Vec<Group>) -> Result<(), (u64, Unsound)> {
        let now = self.env.monotonic();
        let mut state = lock(&self.state);
        let advanced = groups.into_iter().try_for_each(|group| {
            let number = group.head.number;
            state.advance(Arc::new(group), now).map_err(|error| (number, error))
        });
        let due = self.image_is_due(&state);
        drop(state);
        self.publish();
        if due {
            self.nudge.notify_one();
        }
        advanced
    }

    /// Wakes those who wait for new commits.
    pub(super) fn publish(&self) {
        let last = self.tail().position.last;
        if *self.last.borrow() < last {
            self.last.send_modify(|known| *known = (*known).max(last));
        }
    }

    /// Notes that the entry after `number` had not been let go of at `moment`, if that is the tail.
    pub(super) fn note_confirmed(&self, number: u64, moment: Moment) {
        if let Some(tail) = &mut lock(&self.state).tail
            && tail.position.number == number
            && tail.confirmed.monotonic < moment.monotonic
        {
            tail.confirmed = moment;
        }
    }

    /// Notes floors that this broker has seen.
    pub(super) fn note_floors(&self, floors: &[Floor]) {
        let now = self.env.monotonic();
        let mut state = lock(&self.state);
        for floor in floors {
            if state.floors.last().is_none_or(|(highest, _)| highest < floor) {
                state.floors.push((*floor, now));
            }
            state.floor = state.floor.max(*floor);
        }
    }

    /// Whether so much follows the newest image that a start would read for long.
    pub(super) fn image_is_due(&self, state: &State) -> bool {
        let Some(tail) = &state.tail else { return false };
        let entries = tail.position.number.saturating_sub(state.image);
        entries > 0
            && (entries >= self.options.image_entries || state.unfolded_bytes >= self.options.image_bytes)
    }
}

impl State {
    fn new(poll: Poll) -> State {
        State {
            tail: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_commits: 0,
            attached: BTreeMap::new(),
            live: BTreeMap::new(),
            dead: Vec::new(),
            floor: Floor::LOWEST,
            floors: Vec::new(),
            image: 0,
            unfolded_bytes: 0,
            poll,
            sent: None,
            others: None,
        }
    }

    fn advance(&mut self, group: Arc<Group>, now: Instant) -> Result<(), Unsound> {
        let tail = self.tail.as_mut().expect("the journal was loaded");
        if group.head.number <= tail.position.number {
            return Ok(());
        }
        follows(&tail.position, &group)?;
        tail.position = position_of(&group);
        if self.sent != Some(group.head.attempt) {
            self.others = Some(now);
        }
        self.attach(&group);
        self.keep_recent(group);
        Ok(())
    }

    fn attach(&mut self, group: &Group) {
        for (lsn, attached) in &group.attached {
            self.attach_one(*lsn, attached.clone());
        }
    }

    fn attach_one(&mut self, lsn: Lsn, attached: Attached) {
        let number = attached.number;
        if self.attached.insert(lsn, attached).is_none() {
            *self.live.entry(number).or_default() += 1;
        }
    }

    fn keep_recent(&mut self, group: Arc<Group>) {
        self.unfolded_bytes += group.weight() as u64;
        self.recent_bytes += group.weight();
        self.recent_commits += group.entries.len();
        self.recent.push_back(group);
        while self.recent.len() > 1
            && (self.recent_bytes > BUCKET_RECENT_BYTES || self.recent_commits > BUCKET_RECENT_ENTRIES)
        {
            let oldest = self.recent.pop_front().expect("there are some");
            self.recent_bytes -= oldest.weight();
            self.recent_commits -= oldest.entries.len();
        }
    }

    /// Takes what a load found. What was released before stays released.
    pub(super) fn install(
        &mut self,
        image: Position,
        listed: Vec<(Lsn, Attached)>,
        groups: &[Arc<Group>],
        confirmed: Moment,
    ) {
        let position = groups.last().map_or(image, |group| position_of(group));
        let known = self.tail.map_or(Lsn(0), |tail| tail.position.last);
        if self.tail.is_some_and(|tail| tail.position.number > position.number) {
            return;
        }
        let before = std::mem::take(&mut self.attached);
        self.live.clear();
        let ours = groups.iter().flat_map(|group| group.attached.iter().cloned());
        for (lsn, attached) in listed.into_iter().chain(ours) {
            if lsn > known || before.contains_key(&lsn) {
                self.attach_one(lsn, attached);
            }
        }
        self.recent.clear();
        (self.recent_bytes, self.recent_commits, self.unfolded_bytes) = (0, 0, 0);
        self.image = self.image.max(image.number);
        groups.iter().for_each(|group| self.keep_recent(Arc::clone(group)));
        self.tail = Some(Tail { position, confirmed });
    }

    /// Nothing needs the attachment of this commit any more. Whether it was the last one of its entry.
    pub(super) fn release(&mut self, lsn: Lsn) -> bool {
        let Some(attached) = self.attached.remove(&lsn) else { return false };
        let left = self.live.get_mut(&attached.number).expect("it counts the attachments");
        *left -= 1;
        if *left > 0 {
            return false;
        }
        self.live.remove(&attached.number);
        self.dead.push(attached.number);
        true
    }

    /// Notes the newest image.
    pub(super) fn note_image(&mut self, number: u64) {
        if number > self.image {
            self.image = number;
            let after = self.recent.iter().filter(|group| group.head.number > number);
            self.unfolded_bytes = after.map(|group| group.weight() as u64).sum();
        }
    }

    /// The entries from one on, if they are in memory.
    pub(super) fn recent_from(&self, number: u64) -> Option<impl Iterator<Item = &Arc<Group>>> {
        let front = self.recent.front().map(|group| group.head.number)?;
        let skip = usize::try_from(number.checked_sub(front)?).ok()?;
        Some(self.recent.iter().skip(skip))
    }
}

/// Refuses an entry that does not follow a position.
pub(super) fn follows(position: &Position, group: &Group) -> Result<(), Unsound> {
    let head = &group.head;
    if head.number != position.number + 1 {
        return Err(damaged(format!("entry {} is not due", head.number)));
    }
    let chained = head.before == position.link && head.first == position.last.next();
    match chained || planted(Planted::NoChain) {
        true => Ok(()),
        false => Err(damaged("it does not follow the entry before")),
    }
}

/// Where a journal goes on behind an entry.
pub(super) fn position_of(group: &Group) -> Position {
    Position { number: group.head.number, last: group.head.last(), link: group.head.link() }
}

/// Adds the entries of a group after `from` to an answer. Whether the answer may take more.
pub(super) fn collect(group: &Group, from: Lsn, room: &mut Room, out: &mut Vec<Entry>) -> bool {
    let skip = usize::try_from((from.0 + 1).saturating_sub(group.head.first.0)).unwrap_or(usize::MAX);
    let some = group.entries.iter().skip(skip).take(room.entries);
    let before = out.len();
    out.extend(some.cloned());
    room.entries -= out.len() - before;
    room.bytes = room.bytes.saturating_sub(group.weight());
    room.entries > 0 && room.bytes > 0
}

/// What an answer may still take. A group that was begun is taken as a whole, but for the limit of entries.
pub(super) struct Room {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}
