//! The disk on which statements spill, shared out among the workers. What was granted never exceeds the limit, nor the
//! room on the disk: a statement must not fill the disk of the log.

use std::sync::{Arc, Mutex};

use floe_env::{DiskReserve, lock};

use crate::limits::{SPILL_FIRST_BYTES, SPILL_FIRST_SHARE, SPILL_GRANT_SHARE};

/// What all statements may spill. A clone is the same.
#[derive(Clone)]
pub(super) struct Spill(Arc<Shared>);

struct Shared {
    most: u64,
    /// None for tests without a disk.
    disk: Option<DiskReserve>,
    totals: Mutex<Totals>,
}

/// Of all statements together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    granted: u64,
    /// As far as the workers have told.
    spilled: u64,
}

/// What one statement may spill, until it is dropped.
pub(super) struct Grant {
    of: Spill,
    own: Mutex<Totals>,
}

impl Spill {
    pub(super) fn new(most: u64, disk: Option<DiskReserve>) -> Spill {
        Spill(Arc::new(Shared { most, disk, totals: Mutex::default() }))
    }

    /// The part for a statement that begins. It leaves something to those that begin after it, and may grow.
    pub(super) fn grant(&self) -> Grant {
        let grant = Grant { of: self.clone(), own: Mutex::default() };
        grant.take(0, |left| (left / SPILL_FIRST_SHARE).max(SPILL_FIRST_BYTES.min(left / 2)));
        grant
    }

    /// Whether the disk has room for so much more.
    fn has_room(&self, bytes: u64) -> bool {
        let Some(disk) = &self.0.disk else { return true };
        match disk.room() {
            Ok(room) => room.holds(bytes),
            Err(error) => {
                tracing::warn!(%error, "the disk of the spill directory does not answer; statements do not spill");
                false
            }
        }
    }
}

impl Grant {
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.own).granted
    }

    /// The statement has spilled `spilled` bytes, more than half of what it may, and would like to go on. Returns what
    /// it may spill in all.
    pub(super) fn more(&self, spilled: u64) -> u64 {
        self.take(spilled, |left| left / 2)
    }

    /// Takes what `wanted` says of what is left, if the disk has room for it.
    fn take(&self, spilled: u64, wanted: impl Fn(u64) -> u64) -> u64 {
        let (mut totals, mut own) = (lock(&self.of.0.totals), lock(&self.own));
        let spilled = spilled.min(own.granted);
        totals.spilled = totals.spilled + spilled - own.spilled.min(spilled);
        own.spilled = own.spilled.max(spilled);
        let left = self.of.0.most.saturating_sub(totals.granted);
        let part = self.of.0.most.div_ceil(SPILL_GRANT_SHARE).min(left);
        // A disk that has no room for half of it may have room for the part.
        let additional = [part.max(wanted(left)), part].into_iter().find(|additional| {
            *additional > 0 && self.of.has_room(totals.granted + additional - totals.spilled)
        });
        if let Some(additional) = additional {
            totals.granted += additional;
            own.granted += additional;
        } else if self.of.0.most > 0 {
            metrics::counter!("floe_sql_spills_refused_total").increment(1);
        }
        metrics::gauge!("floe_sql_spill_granted_bytes").set(totals.granted as f64);
        own.granted
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let (mut totals, own) = (lock(&self.of.0.totals), lock(&self.own));
        totals.granted = totals.granted.saturating_sub(own.granted);
        totals.spilled = totals.spilled.saturating_sub(own.spilled);
        metrics::gauge!("floe_sql_spill_granted_bytes").set(totals.granted as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_never_exceed_the_limit() {
        let spill = Spill::new(1_600, None);
        let one = spill.grant();
        assert_eq!((one.bytes(), one.more(450)), (800, 1_200));
        let two = spill.grant();
        assert_eq!((two.bytes(), two.more(150), two.more(200), two.more(400)), (200, 300, 350, 375));
        assert_eq!(one.more(1_200), 1_225);
        assert_eq!(*lock(&spill.0.totals), Totals { granted: 1_600, spilled: 1_550 });
        drop(one);
        assert_eq!(two.more(375), 987);
        assert_eq!(*lock(&spill.0.totals), Totals { granted: 987, spilled: 375 });
        drop(two);
        assert_eq!(*lock(&spill.0.totals), Totals::default());
        assert_eq!(Spill::new(0, None).grant().more(0), 0);
    }

    #[test]
    fn sixteen_statements_that_begin_at_once_may_all_spill() {
        let spill = Spill::new(8 << 30, None);
        let grants: Vec<Grant> = (0..16).map(|_| spill.grant()).collect();
        let bytes: Vec<u64> = grants.iter().map(Grant::bytes).collect();
        assert_eq!((bytes[0], bytes.iter().min()), (1 << 30, Some(&SPILL_FIRST_BYTES)));
    }

    #[test]
    fn a_full_disk_grants_nothing() {
        // A reserve that no disk has.
        let disk = DiskReserve::new(std::env::temp_dir(), u64::MAX);
        assert_eq!(Spill::new(u64::MAX / 2, Some(disk)).grant().bytes(), 0);
    }
}
