//! Randomness.

/// xoshiro256** (Blackman and Vigna), seeded by splitmix64: small, fast, and the same on every machine.
pub(crate) struct Generator([u64; 4]);

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        let mut state = seed;
        Generator(std::array::from_fn(|_| splitmix(&mut state)))
    }

    /// Seeds from the randomness that the operating system gave the standard library for its hash maps.
    #[allow(clippy::disallowed_types, reason = "its keys come from the system, which is what is wanted here")]
    pub(crate) fn of_the_system() -> Generator {
        use std::hash::{BuildHasher, RandomState};
        let state = RandomState::new();
        Generator(std::array::from_fn(|lane| {
            state.hash_one((lane, std::process::id())) | u64::from(lane == 0)
        }))
    }

    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
