//! What befalls the requests to a store or a journal: a base rate of each fault, drawn once per run so that
//! runs differ in kind (some have no fault but slowness, some lose every twentieth answer), and spells in
//! which everything is slow, down or full. When a run heals, the weather is calm for good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use floe_env::Env;
use tokio::time::Instant;

use crate::dice::Dice;

/// A request whose answer was lost is told so after this time at most.
const LOST_AFTER_MAX: Duration = Duration::from_secs(3);
/// A request of a dead broker, and a second copy of a request, lands within this time.
const LATE_MAX: Duration = Duration::from_secs(4);

/// A request that hangs takes effect within this time.
pub(crate) const HANGS_MAX: Duration = Duration::from_secs(15);
/// So many spells of a store far away hang.
const HANGING_SPELLS: u64 = 4;

/// What a request will meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Time from the request to its effect.
    pub(crate) before: Duration,
    /// Time from the effect to its answer.
    pub(crate) after: Duration,
    /// How it ends.
    pub(crate) end: End,
    /// A second copy of the request takes effect so much later.
    pub(crate) again: Option<Duration>,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With its effect and its answer.
    Answered,
    /// Refused without effect, and told so.
    Refused,
    /// Refused for lack of room.
    Full,
    /// No effect, no answer.
    LostRequest,
    /// The effect, but no answer.
    LostAnswer,
    /// No answer, and the effect comes after the caller was told that nobody knows.
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

/// Faults of one run at one boundary.
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
}

impl Weather {
    /// Draws the weather of the next `length`. `rough` false gives slowness alone.
    pub(crate) fn draw(env: &Env, length: Duration, rough: bool) -> Weather {
        let dice = Dice::new(env);
        let rate = |choices: &[u64]| if rough { *dice.pick(choices) } else { 0 };
        let latency = Duration::from_micros(*dice.pick(&[300, 2_000, 10_000, 60_000]));
        let (refused, lost_request) = (rate(&[0, 5, 30]), rate(&[0, 2, 15]));
        let (lost_answer, late, again) = (rate(&[0, 5, 40]), rate(&[0, 2, 15]), rate(&[0, 5, 40]));
        let count = if rough { dice.within(0..4) } else { 0 };
        let mut spells: Vec<Spell> = (0..count).map(|_| spell(env, &dice, length)).collect();
        // Where spells meet, the full one goes first: nothing grows in it, whatever else there is.
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
        }
    }

    /// The same with spells in which requests hang for longer than anybody waits for them.
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

    /// No fault but one: from `from` to `to` there is no room.
    #[cfg(test)]
    pub(crate) fn full_once(env: &Env, from: Duration, to: Duration) -> Weather {
        let now = env.monotonic();
        let spells = vec![Spell { from: now + from, to: now + to, kind: Kind::Full }];
        Weather { spells, ..Weather::draw(env, to, false) }
    }

    /// From when to when nothing that grows is taken in.
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

    /// What the next request meets. `grows` says whether it needs room.
    pub(crate) fn fate(&self, grows: bool) -> Fate {
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

    /// Whether the request of a caller who died on the way takes effect, and how much later.
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
