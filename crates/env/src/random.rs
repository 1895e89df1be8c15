//! Randomness: the operating system's, or a generator that a seed determines.

use rand_xoshiro::Xoshiro256StarStar;
use rand_xoshiro::rand_core::{RngCore as _, SeedableRng as _};

use crate::fatal::end_process;

/// Sixty-four bits from the operating system's cryptographic generator. Ids are made of them, which nobody may be able
/// to compute from other ids.
///
/// A system without randomness ends the process: every id that it could make might be another's.
pub(crate) fn of_the_system() -> u64 {
    getrandom::u64().unwrap_or_else(|error| end_process("the operating system gave no random bits", &error))
}

/// The generator of a simulation: the same seed gives the same numbers on every machine.
pub(crate) struct Seeded(Xoshiro256StarStar);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Seeded {
        Seeded(Xoshiro256StarStar::seed_from_u64(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        // Simulations that found something are repeated by their seed, also by later builds.
        let mut seeded = Seeded::new(42);
        let drawn: Vec<u64> = (0..3).map(|_| seeded.next()).collect();
        assert_eq!(drawn, [1_546_998_764_402_558_742, 6_990_951_692_964_543_102, 12_544_586_762_248_559_009]);
        assert_ne!(Seeded::new(43).next(), drawn[0]);
    }

    #[test]
    fn the_system_does_not_repeat_itself() {
        let drawn: BTreeSet<u64> = (0..1_000).map(|_| of_the_system()).collect();
        assert_eq!(drawn.len(), 1_000);
        let ones: u32 = drawn.iter().map(|bits| bits.count_ones()).sum();
        assert!((31_000..33_000).contains(&ones), "{ones} of 64,000 bits are set");
    }
}
