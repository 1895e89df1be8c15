//! The weather: the faults of requests to a store or a journal. The base rate of each fault is drawn once per run, so
//! that runs differ in kind: some have no fault but slowness, some lose every twentieth answer. In spells, everything
//! is slow, down or full. After healing, the weather is calm for good.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use floe_env::Env;
use tokio::time::Instant;

use crate::dice::Dice;

/// The caller hears of a lost answer within this time.
const LOST_AFTER_MAX: Duration = Duration::from_secs(3);
/// A request of a dead broker, or the second copy of a request, lands within this time.
const LATE_MAX: Duration = Duration::from_secs(4);

/// A hanging request takes effect within this time.
pub(crate) const HANGS_MAX: Duration = Duration::from_secs(15);
/// The number of spells in which requests to a remote store hang.
const HANGING_SPELLS: u64 = 4;

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Time from the request to its effect.
    pub(crate) before: Duration,
    /// Time from the effect to the answer.
    pub(crate) after: Duration,
    /// How it ends.
    pub(crate) end: End,
    /// If set, a second copy of the request takes effect this much later.
    pub(crate) again: Option<Duration>,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It has its effect and its answer.
    Answered,
    /// It has no effect, and the answer says so.
    Refused,
    /// It has no effect, and the answer says that there is no room.
    Full,
    /// It has no effect and no answer.
    LostRequest,
    /// It has its effect, but no answer.
    LostAnswer,
    /// It has no answer. Its effect comes this long after the caller heard of an unknown outcome.
    Late(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slow,
    Down,
    Full,
    Hangs,
}

#[derive(Debug)]
struct Spell {
    from: Instant,
    to: Instant,
    kind: Kind,
}

/// The faults of one run at one boundary.
#[derive(Debug)]
pub(crate) struct Weather {
    env: Env,
    dice: Dice,
    latency: Duration,
    refused: u64,
    lost_request: u64,
    lost_answer: u64,
    late: u64,
    again: u64,
    spells: Vec<Spell>,
    calm: AtomicBool,
    /// Requests that were refused, lost or late, or that came twice.
    harmed: AtomicU64,
}

impl Weather {
    /// Draws the weather of the next `length`. If `rough` is false, the only fault is slowness.
    pub(crate) fn draw(env: &Env, length: Duration, rough: bool) -> Weather {
        let dice = Dice::new(env);
        let rate = |choices: &[u64]| if rough { *dice.pick(choices) } else { 0 };
        let latency = Duration::from_micros(*dice.pick(&[300, 2_000, 10_000, 60_000]));
        let (refused, lost_request) = (rate(&[0, 5, 30]), rate(&[0, 2, 15]));
        let (lost_answer, late, again) = (rate(&[0, 5, 40]), rate(&[0, 2, 15]), rate(&[0, 5, 40]));
        let count = if rough { dice.within(0..4) } else { 0 };
        let mut spells: Vec<Spell> = (0..count).map(|_| spell(env, &dice, length)).collect();
        // Full spells go first where spells overlap: nothing may grow in them, whatever the other spell is.
        spells.sort_by_key(|spell| spell.kind != Kind::Full);
        let calm = AtomicBool::new(false);
        Weather {
            env: env.clone(),
            dice,
            latency,
            refused,
            lost_request,
            lost_answer,
            late,
            again,
            spells,
            calm,
            harmed: AtomicU64::new(0),
        }
    }

    /// The number of requests that were refused, lost or late, or that came twice.
    pub(crate) fn harmed(&self) -> u64 {
        self.harmed.load(Ordering::SeqCst)
    }

    /// Adds spells in which requests hang for longer than any caller waits.
    pub(crate) fn hanging(mut self, length: Duration) -> Weather {
        let spells = (0..HANGING_SPELLS).map(|_| {
            let from = self.env.monotonic() + self.dice.between(Duration::ZERO, length);
            let to = from + self.dice.between(Duration::from_secs(2), HANGS_MAX);
            Spell { from, to, kind: Kind::Hangs }
        });
        let spells: Vec<Spell> = spells.collect();
        self.spells.extend(spells);
        self
    }

    /// Weather with one fault: there is no room between `from` and `to`.
    #[cfg(test)]
    pub(crate) fn full_once(env: &Env, from: Duration, to: Duration) -> Weather {
        let now = env.monotonic();
        let spells = vec![Spell { from: now + from, to: now + to, kind: Kind::Full }];
        Weather { spells, ..Weather::draw(env, to, false) }
    }

    /// The spans of time in which nothing may grow.
    pub(crate) fn full(&self) -> Vec<(Instant, Instant)> {
        let full = self.spells.iter().filter(|spell| spell.kind == Kind::Full);
        full.map(|spell| (spell.from, spell.to)).collect()
    }

    /// Ends all faults for good.
    pub(crate) fn heal(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// Whether the faults have ended.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Draws the fate of the next request. `grows` says whether it needs room.
    pub(crate) fn fate(&self, grows: bool) -> Fate {
        let fate = self.draw_fate(grows);
        if fate.end != End::Answered || fate.again.is_some() {
            self.harmed.fetch_add(1, Ordering::SeqCst);
        }
        fate
    }

    fn draw_fate(&self, grows: bool) -> Fate {
        let fate = |before, after, end| Fate { before, after, end, again: None };
        if self.is_calm() {
            let half = Duration::from_micros(200);
            return fate(half, half, End::Answered);
        }
        let (before, after) = (self.dice.wait(self.latency), self.dice.wait(self.latency));
        let now = self.env.monotonic();
        match self.spells.iter().find(|spell| spell.from <= now && now < spell.to).map(|spell| spell.kind) {
            Some(Kind::Slow) => return fate(before, after + self.dice.wait(LOST_AFTER_MAX), End::Answered),
            Some(Kind::Down) if self.dice.chance(500) => return fate(before, after, End::Refused),
            Some(Kind::Down) => return fate(before, self.lost(), End::LostRequest),
            Some(Kind::Hangs) if self.dice.chance(500) => {
                let hangs = self.dice.between(Duration::from_secs(2), HANGS_MAX);
                return fate(hangs, after, End::Answered);
            }
            Some(Kind::Full) if grows => return fate(before, after, End::Full),
            _ => {}
        }
        let again = self.dice.chance(self.again).then(|| self.late());
        let end = self.end();
        let told = if matches!(end, End::Answered | End::Refused) { after } else { self.lost() };
        Fate { before, after: told, end, again }
    }

    fn end(&self) -> End {
        let faults = [
            (self.refused, End::Refused),
            (self.lost_request, End::LostRequest),
            (self.lost_answer, End::LostAnswer),
            (self.late, End::Late(self.late())),
        ];
        let mut die = self.dice.within(0..1_000);
        for (rate, end) in faults {
            if die < rate {
                return end;
            }
            die -= rate;
        }
        End::Answered
    }

    /// Draws whether the request of a dead caller takes effect, and how much later.
    pub(crate) fn orphaned(&self) -> Option<Duration> {
        self.dice.chance(500).then(|| self.late())
    }

    fn lost(&self) -> Duration {
        self.dice.wait(LOST_AFTER_MAX)
    }

    fn late(&self) -> Duration {
        self.dice.wait(LATE_MAX)
    }
}

fn spell(env: &Env, dice: &Dice, length: Duration) -> Spell {
    let from = env.monotonic() + dice.between(Duration::ZERO, length);
    let to = from + dice.between(Duration::from_millis(50), Duration::from_secs(4));
    Spell { from, to, kind: *dice.pick(&[Kind::Slow, Kind::Slow, Kind::Down, Kind::Full]) }
}
