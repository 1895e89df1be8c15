//! Whether the store's disk is so full that deleted topics and removed records have to go before their time. Pure: no
//! clock, no I/O.
//!
//! ```text
//! free beside the reserve   >= 2 reserves   nothing
//!                           <  2 reserves   after a while, the oldest go until there would be 3 reserves
//!                           0               objects are refused (floe_env::DiskRoom)
//! ```
//! Room comes back only when objects have been deleted, minutes later. So what is under way counts as free, and a full
//! disk does not empty the trash before the first of it has helped.

use floe_env::DiskRoom;
use floe_meta::{DecodeError, Lookup, Lsn};
use tokio::time::Instant;

use crate::limits::{
    DELETED_PER_COMMIT, TRASH_YIELDS_AFTER, TRASH_YIELDS_BELOW_RESERVES, TRASH_YIELDS_UP_TO_RESERVES,
};
use crate::map::deleted::Deleted;
use crate::map::ids::TopicId;
use crate::map::object::Trash;
use crate::map::remains;

/// Since when the disk has been nearly full.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    since: Option<Instant>,
}

impl Pressure {
    /// How many bytes must become free, at a look that found this room; none if it is not known.
    pub(crate) fn look(&mut self, room: Option<DiskRoom>, now: Instant) -> u64 {
        let low = room.filter(|room| room.beside() < times(room, TRASH_YIELDS_BELOW_RESERVES));
        let Some(room) = low else {
            self.since = None;
            return 0;
        };
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < TRASH_YIELDS_AFTER {
            return 0;
        }
        times(&room, TRASH_YIELDS_UP_TO_RESERVES).saturating_sub(room.beside())
    }
}

fn times(room: &DiskRoom, reserves: u64) -> u64 {
    room.reserve.saturating_mul(reserves)
}

/// Deleted topics that go so that `bytes` become free: the first ones, as far as what is being deleted is not enough.
/// Nobody knows how much that is while extents are being freed, so then none go.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn first(
    map: &impl Lookup,
    all: &[Deleted],
    bytes: u64,
) -> Result<Vec<(TopicId, Lsn)>, DecodeError> {
    if bytes == 0 || remains::any(map) {
        return Ok(Vec::new());
    }
    let mut left = bytes;
    for pair in map.range::<Trash>(..) {
        left = left.saturating_sub(pair?.1.size);
    }
    Ok(first_of(all, left))
}

fn first_of(all: &[Deleted], bytes: u64) -> Vec<(TopicId, Lsn)> {
    let (mut left, mut found) = (bytes, Vec::new());
    // One without bytes would make no room.
    for deleted in all.iter().filter(|deleted| deleted.bytes > 0) {
        if left == 0 || found.len() == DELETED_PER_COMMIT {
            break;
        }
        left = left.saturating_sub(deleted.bytes);
        found.push((deleted.topic.id, deleted.lsn));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_blip_is_no_pressure() {
        let begun = floe_env::Env::simulated(1).monotonic();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let room = |free| Some(DiskRoom { free, reserve: 100 });
        let mut pressure = Pressure::default();
        let mut look = |free, seconds| pressure.look(room(free), at(seconds));
        assert_eq!(look(300, 0), 0);
        assert_eq!(look(299, 10), 0, "it has just become full");
        assert_eq!(look(300, 29), 0);
        assert_eq!(look(150, 30), 0, "it was not full all the time");
        assert_eq!(look(150, 49), 0);
        assert_eq!(look(150, 50), 250);
        assert_eq!(look(250, 60), 150);
        assert_eq!(look(0, 80), 300);
        assert_eq!(pressure.look(None, at(90)), 0);
        assert_eq!(pressure.look(room(0), at(100)), 0, "nobody knows what was meanwhile");
        let without = Some(DiskRoom { free: 0, reserve: 0 });
        assert_eq!(pressure.look(without, at(200)), 0, "the operator wants no reserve");
    }
}
