//! How a log works: what its opener may choose.

use std::time::Duration;

use crate::limits::{
    BYTES_IN_FLIGHT_MAX, CACHE_COLD_BYTES, CACHE_TAIL_BYTES, CLEANER_LEASE, CLEANER_PAUSE, LEASE_IDS,
    LEASE_TTL, OBJECT_BYTES, TRASH_GRACE,
};
use crate::read::cache::Capacity;

/// How a broker's log works. `Config::default()` serves; tests make it small and fast.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A WAL object closes at this size.
    pub object_bytes: usize,
    /// How long the first request of an object waits for others. Without: not at all on a local store, 100 ms on a
    /// remote one. Zero means: only as long as another upload is under way.
    pub linger: Option<Duration>,
    /// Uploads at one time. Without: what fits the store.
    pub uploads_max: Option<usize>,
    /// Bytes of requests that may be in memory, see [`Log::reserve`].
    pub bytes_in_flight_max: usize,
    /// The memory between readers and the store.
    pub cache: Capacity,
    /// Leases on object ids, and when objects are deleted.
    pub times: Times,
    /// Whether this broker cleans; in a cluster one does, whichever takes the lease.
    pub cleaner: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            object_bytes: OBJECT_BYTES,
            linger: None,
            uploads_max: None,
            bytes_in_flight_max: BYTES_IN_FLIGHT_MAX,
            cache: Capacity { tail: CACHE_TAIL_BYTES, cold: CACHE_COLD_BYTES },
            times: Times {
                lease_ids: LEASE_IDS,
                lease_ttl: LEASE_TTL,
                trash_grace: TRASH_GRACE,
                cleaner_pause: CLEANER_PAUSE,
                cleaner_lease: CLEANER_LEASE,
            },
            cleaner: true,
        }
    }
}

/// How ids are leased and objects cleaned away. Times.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Ids of one lease.
    pub lease_ids: u64,
    /// How long a lease lasts without renewal; renewed after a third of it.
    pub lease_ttl: Duration,
    /// How long trash is kept for readers that still hold an old snapshot, and for uploads that are still on their
    /// way. Longer than any request to the store can take.
    pub trash_grace: Duration,
    /// Pause between two rounds of the cleaner.
    pub cleaner_pause: Duration,
    /// How long a broker has the cleaner's job without showing that it lives; longer than a round should take.
    pub cleaner_lease: Duration,
}
