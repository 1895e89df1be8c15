//! The settings of a log.

use std::time::Duration;

use crate::claim::JournalId;
use crate::clean::retention::Defaults;
use crate::compact::filter::PlantedBug as PlantedCompactionBug;
use crate::limits::{
    BYTES_IN_FLIGHT_MAX, CACHE_COLD_BYTES, CACHE_TAIL_BYTES, CLEANER_LEASE, CLEANER_PAUSE,
    COMPACTION_MAP_BYTES, COMPACTION_OBJECT_BYTES, COMPACTION_PAUSE, COMPACTION_SMALL_BYTES,
    COMPACTION_SMALL_PAUSE, LEASE_IDS, LEASE_TTL, MERGE_PAUSE, OBJECT_BYTES, READS_BYTES_MAX,
    RETENTION_BYTES, RETENTION_MS, RETENTION_PAUSE, SESSION_TTL, TRASH_GRACE, VALIDATE_COMPRESSED,
};
use crate::map::deleted::Trash;
use crate::map::format_level::{self, FormatLevel};
use crate::merge::planted::PlantedBug;
use crate::merge::sizes::Sizes;
use crate::read::cache::Capacity;

/// The settings of one broker's log. The default suits a broker; tests use small and fast values.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A WAL object closes at this size.
    pub object_bytes: usize,
    /// How long the first request of an object waits for others. Zero: only while another upload is in flight.
    /// `None`: zero on a local store, 100 ms on a remote one.
    pub linger: Option<Duration>,
    /// Uploads in flight at most. `None`: 2 to a local store, 16 to a remote one.
    pub uploads_max: Option<usize>,
    /// Bytes of requests that may be in memory, see [`Log::reserve`](crate::Log::reserve).
    pub bytes_in_flight_max: usize,
    /// The capacity of the cache between readers and the store.
    pub cache: Capacity,
    /// The times of leases on object ids, of the cleaner, of retention and of merging.
    pub times: Times,
    /// Whether compressed batches are decompressed once to find those that no consumer could decode. Uncompressed ones
    /// are always looked at.
    pub validate_compressed: bool,
    /// Whether this process alone may use the journal. Then its start ends the leases of the process before, refuses a
    /// journal that is older than the store, and a newer writer ends it. Where the journal is in a data directory, its
    /// lock keeps others out; where it is shared, the start takes the place of the process before.
    pub sole: bool,
    /// Which journal this is. The claim of the store names it.
    pub journal: JournalId,
    /// Whether this broker competes for the leases of the cleaner, of retention and of merging. In a cluster, only the
    /// holder of a lease does its work.
    pub cleaner: bool,
    /// How long topics keep their records that do not say it themselves.
    pub retention: Defaults,
    /// What is kept of deleted topics.
    pub trash: Trash,
    /// The sizes by which merging goes.
    pub merge: Sizes,
    /// A bug of merging on purpose, for tests of those who have to find it.
    #[doc(hidden)]
    pub planted: Option<PlantedBug>,
    /// What compaction may use, and when it runs.
    pub compaction: Compaction,
    /// The highest format level that this broker takes part in. A map of a higher one is refused.
    pub format_level: FormatLevel,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            object_bytes: OBJECT_BYTES,
            linger: None,
            uploads_max: None,
            bytes_in_flight_max: BYTES_IN_FLIGHT_MAX,
            cache: Capacity { tail: CACHE_TAIL_BYTES, cold: CACHE_COLD_BYTES, reads: READS_BYTES_MAX },
            times: Times {
                lease_ids: LEASE_IDS,
                lease_ttl: LEASE_TTL,
                trash_grace: TRASH_GRACE,
                session_ttl: SESSION_TTL,
                cleaner_pause: CLEANER_PAUSE,
                cleaner_lease: CLEANER_LEASE,
                retention_pause: RETENTION_PAUSE,
                merge_pause: MERGE_PAUSE,
            },
            validate_compressed: VALIDATE_COMPRESSED,
            sole: false,
            journal: JournalId::Local,
            cleaner: true,
            retention: Defaults { ms: RETENTION_MS, bytes: RETENTION_BYTES },
            trash: Trash::default(),
            merge: Sizes::default(),
            planted: None,
            compaction: Compaction::default(),
            format_level: format_level::NEWEST,
        }
    }
}

/// What compaction may use, and when it runs.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// Pause between two rounds.
    pub pause: Duration,
    /// Bytes of the map of keys and offsets of a pass.
    pub map_bytes: usize,
    /// Bytes of the batches that one commit writes, or one extent if that is larger.
    pub object_bytes: u64,
    /// Less dirty bytes of a partition than this wait for `small_pause`.
    pub small_bytes: u64,
    /// How long after the last pass of a partition.
    pub small_pause: Duration,
    /// A bug on purpose, for tests of those who have to find it.
    #[doc(hidden)]
    pub planted: Option<PlantedCompactionBug>,
}

impl Compaction {
    /// The default, with less memory where so many bytes are less: for the map and for an object together.
    pub fn within(bytes: usize) -> Compaction {
        let default = Compaction::default();
        let object_bytes = default.object_bytes.min(bytes as u64 / 3 * 2);
        Compaction { map_bytes: default.map_bytes.min(bytes / 3), object_bytes, ..default }
    }
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction {
            pause: COMPACTION_PAUSE,
            map_bytes: COMPACTION_MAP_BYTES,
            object_bytes: COMPACTION_OBJECT_BYTES,
            small_bytes: COMPACTION_SMALL_BYTES,
            small_pause: COMPACTION_SMALL_PAUSE,
            planted: None,
        }
    }
}

/// The times of leases on object ids, of the cleaner, of retention and of merging.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Object ids per lease.
    pub lease_ids: u64,
    /// How long a lease lasts without renewal. It is renewed after a third of this.
    pub lease_ttl: Duration,
    /// How long trash is kept at least: for uploads still in flight, and as a second defence for readers. Must exceed
    /// the longest request to the store.
    pub trash_grace: Duration,
    /// How long a session lasts without renewal. It is renewed after a quarter of this.
    pub session_ttl: Duration,
    /// Pause between two rounds of the cleaner.
    pub cleaner_pause: Duration,
    /// How long the leases of the cleaner, of retention and of merging last without renewal; longer than a round of the
    /// cleaner should take.
    pub cleaner_lease: Duration,
    /// Pause between two rounds of retention.
    pub retention_pause: Duration,
    /// Pause between two looks for a merge that is due.
    pub merge_pause: Duration,
}
