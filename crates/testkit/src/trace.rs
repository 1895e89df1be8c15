//! The hash of a run. Every event is folded into one number with its virtual time, so that two runs are compared by
//! sixteen bytes. The hash is FNV-1a with 128 bits: not for secrets, and the same on every machine.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use floe_env::Env;
use tokio::time::Instant;

use floe_env::lock;

const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The running hash of a run. A clone is the same hash.
#[derive(Clone)]
pub struct Trace(Arc<Inner>);

struct Inner {
    env: Env,
    begin: Instant,
    state: Mutex<State>,
}

struct State {
    hash: u128,
    events: u64,
    /// The events as text, to find the first difference between two runs.
    kept: Option<String>,
}

impl Trace {
    /// A new hash. With `keep`, it keeps the events as text too.
    pub fn new(env: &Env, keep: bool) -> Trace {
        let state = State { hash: OFFSET_BASIS, events: 0, kept: keep.then(String::new) };
        Trace(Arc::new(Inner { env: env.clone(), begin: env.monotonic(), state: Mutex::new(state) }))
    }

    /// Milliseconds of virtual time since the run began.
    pub fn at(&self) -> u64 {
        self.at_of(self.0.env.monotonic())
    }

    /// Milliseconds of virtual time from the start of the run to `moment`.
    pub fn at_of(&self, moment: Instant) -> u64 {
        u64::try_from((moment - self.0.begin).as_millis()).expect("a run takes less than for ever")
    }

    /// Folds one event in.
    pub fn fold(&self, event: &str) {
        let at = self.at();
        let mut state = lock(&self.0.state);
        let mut hash = state.hash;
        for byte in at.to_le_bytes().iter().chain(event.as_bytes()) {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
        state.hash = hash;
        state.events += 1;
        if let Some(kept) = &mut state.kept {
            writeln!(kept, "{at} {event}").expect("a string takes everything");
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u128 {
        lock(&self.0.state).hash
    }

    /// Number of events so far.
    pub fn events(&self) -> u64 {
        lock(&self.0.state).events
    }

    /// The events as text, if they are kept.
    pub fn text(&self) -> Option<String> {
        lock(&self.0.state).kept.clone()
    }
}
