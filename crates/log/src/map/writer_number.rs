//! The number of a start of a broker. It is part of the name of every object and file that this process writes, so two
//! processes never share a name, even if each believes that the journal is its own (`start/writers.rs`).
//!
//! ```text
//! number   bits 0 to 39: counts, by the journal   bits 40 to 62: the writer number
//! ```
//! The ids of objects and the numbers of a table's files are such numbers. What was written before there were writer
//! numbers has 0. Bit 63 is left to ids of objects, for their kind.

use floe_meta::key::{Key, put_u64};
use floe_meta::{DecodeError, Lookup, Tx, postcard_record};
use serde::{Deserialize, Serialize};

const COUNT_BITS: u32 = 40;
/// The largest part that counts. At a thousand objects a second it lasts for 34 years.
pub(crate) const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// The bit above a number.
pub(crate) const NUMBER_BITS: u32 = u64::BITS - 1;
/// The largest writer number: a start every minute for 15 years.
pub const WRITER_NUMBER_MAX: u64 = (1 << (NUMBER_BITS - COUNT_BITS)) - 1;

/// The number of a start of a broker, from 1. As a record of the map: the highest number that this journal knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriterNumber(pub u64);

postcard_record!(WriterNumber, 20, 1, ());

impl Key for WriterNumber {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.0);
    }
    fn decode(bytes: &[u8]) -> Result<WriterNumber, DecodeError> {
        u64::decode(bytes).map(WriterNumber)
    }
}

impl WriterNumber {
    /// The number that is `count` for this writer.
    ///
    /// # Panics
    /// When a count does not fit: a journal never counts that far.
    pub fn number(self, count: u64) -> u64 {
        assert!(count <= COUNT_MAX, "a journal never counts to 2^40");
        assert!(self.0 <= WRITER_NUMBER_MAX, "a broker with a larger number does not start");
        self.0 << COUNT_BITS | count
    }

    /// The writer of a number.
    pub fn of(number: u64) -> WriterNumber {
        WriterNumber(number >> COUNT_BITS)
    }

    /// The part of a number that counts.
    pub fn count(number: u64) -> u64 {
        number & COUNT_MAX
    }
}

/// The key of a writer's object in the store, which says how far it got.
pub fn key(number: WriterNumber) -> String {
    format!("{}writers/{:08}", floe_store::CLUSTER_FOLDER, number.0)
}

/// The highest writer number that the map knows; 0 before the first.
///
/// # Errors
/// The record cannot be read.
pub fn known(map: &impl Lookup) -> Result<WriterNumber, DecodeError> {
    Ok(map.get::<WriterNumber>(&())?.unwrap_or_default())
}

/// Command: notes that a process has this number.
///
/// # Errors
/// The record cannot be read.
pub fn note(tx: &mut Tx<'_>, number: WriterNumber) -> Result<(), DecodeError> {
    if number > known(tx)? {
        tx.put(&(), &number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_two_writers_never_meet_and_grow() {
        let (first, second) = (WriterNumber(1), WriterNumber(2));
        assert_eq!(first.number(7), 0x0000_0100_0000_0007, "persisted: it never changes");
        assert!(first.number(COUNT_MAX) < second.number(0));
        assert_eq!(WriterNumber(0).number(7), 7);
        let last = WriterNumber(WRITER_NUMBER_MAX).number(COUNT_MAX);
        assert_eq!(
            (last, WriterNumber::of(last).0, WriterNumber::count(last)),
            (u64::MAX >> 1, WRITER_NUMBER_MAX, COUNT_MAX)
        );
    }
}
