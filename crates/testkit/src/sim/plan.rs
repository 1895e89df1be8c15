//! The plan of a run, drawn from its seed. Runs differ in kind, not only in their dice (swarm testing): a run whose
//! store never fails finds bugs that a run with every fault at once would hide.

use std::time::Duration;

use floe_env::Env;
use floe_log;
use floe_log::Times;
use floe_log::{Capacity, Compaction, MergeSizes, PlantedBug, PlantedCompactionBug};

use super::engine::Opener;
use crate::bug::Bug;
use crate::client::Place;
use crate::dice::Dice;

/// The topic that has a table in most runs. Its records are JSON in every run.
pub(crate) const TABLE_TOPIC: &str = "orders";
/// The topic without a table.
pub(crate) const PLAIN_TOPIC: &str = "clicks";
/// The topic that is deleted and created again in some runs, with or without a table.
pub(crate) const FLEETING_TOPIC: &str = "visits";
/// The compacted topic, which some runs have. It has one partition.
pub(crate) const COMPACTED_TOPIC: &str = "profiles";
/// How long its tombstones stay.
const DELETE_RETENTIONS: [&str; 3] = ["0", "1500", "6000"];
/// Partitions of each topic.
pub(crate) const PARTITIONS: u32 = 2;

/// Share of brisk runs, in a thousand. They are longer, and their grace periods end while the faults last.
const BRISK: u64 = 150;

/// Share of runs with one broker, in a thousand, in which its data directory comes to harm.
const HARM: u64 = 600;

/// Share of runs, in a thousand, in which a topic is deleted and created again.
const FLEETING: u64 = 250;

/// Share of those, in a thousand, in which it can come back after a deletion.
const COMES_BACK: u64 = 1_000;
/// How long, in milliseconds. Some of these are over before anybody thinks of it.
const TRASH_MS: [&str; 3] = ["1500", "5000", "12000"];
/// How long removed records can come back that are to outlast every grace, in milliseconds.
const KEPT_LONG_MS: &str = "60000";
/// The longest of them.
const TRASH_MAX: Duration = Duration::from_secs(12);

/// The chaos of a run that shows whether a broker goes on beside a copy: longer than it may.
const BESIDE_A_COPY: Duration = Duration::from_secs(90);

/// How long the faults last in a run that must see the end of grace periods or time-outs.
const LONG_CHAOS: Duration = Duration::from_secs(40);
/// Shares of runs, in a thousand, with markers, and with a reader that holds a snapshot.
const MARKS: u64 = 500;
const HOLDS: u64 = 400;
/// Share of runs, in a thousand, with a remote store.
const REMOTE: u64 = 80;
/// Grace for a remote store: longer than all tries of a request and the late landing of the last one.
const REMOTE_GRACE: Duration = Duration::from_secs(120);

/// Share of runs, in a thousand, in which topics keep their records for a while only.
const RETAINS: u64 = 350;
/// The share of those in which the topic with a table does so, too.
const RETAINS_TABLE: u64 = 500;
/// Share of runs, in a thousand, in which a client deletes records.
const DELETES: u64 = 250;
/// What such a topic keeps. Some of these keep nothing for longer than a round takes.
const RETENTIONS: [(&str, &str); 5] = [
    ("retention.ms", "1500"),
    ("retention.ms", "6000"),
    ("retention.bytes", "0"),
    ("retention.bytes", "700"),
    ("retention.bytes", "4000"),
];

/// The caller's choices for a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source of every draw.
    pub seed: u64,
    /// A planted bug.
    pub bug: Option<Bug>,
    /// Keeps the text of every event, to find the first difference between two runs.
    pub keep_trace: bool,
    /// Opens an engine for statements in each broker. Then every run has a table.
    pub sql: Option<Opener>,
}

impl Options {
    /// A run of this seed without a bug.
    pub fn seed(seed: u64) -> Options {
        Options { seed, bug: None, keep_trace: false, sql: None }
    }

    /// The same run with a planted bug.
    #[must_use]
    pub fn with(self, bug: Bug) -> Options {
        Options { bug: Some(bug), ..self }
    }

    /// The same run with statements.
    #[must_use]
    pub fn asking(self, sql: Opener) -> Options {
        Options { sql: Some(sql), ..self }
    }
}

/// What a compacted topic is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compacted {
    /// How long its tombstones stay, in milliseconds.
    pub(crate) delete_retention_ms: &'static str,
    /// What it keeps, if it does not keep everything that compaction leaves.
    pub(crate) retention: Option<(&'static str, &'static str)>,
    /// Whether a client deletes its records.
    pub(crate) deletes: bool,
    /// Whether it has a table, and if so whether compaction and retention wait for that.
    pub(crate) table: Option<bool>,
}

impl Compacted {
    /// A topic that is compacted and nothing else, with tombstones that stay for long.
    pub(crate) const PLAIN: Compacted =
        Compacted { delete_retention_ms: DELETE_RETENTIONS[2], retention: None, deletes: false, table: None };

    /// That of a seed. Every kind comes with every other one.
    fn of(seed: u64) -> Compacted {
        let choice = |step: u64, count: u64| usize::try_from(seed / step % count).expect("a small number");
        let kind = choice(9, 4);
        Compacted {
            delete_retention_ms: DELETE_RETENTIONS[choice(3, 3)],
            retention: (kind == 2).then(|| RETENTIONS[choice(36, RETENTIONS.len() as u64)]),
            deletes: kind == 1,
            table: [None, Some(true), Some(false)][choice(36, 3)],
        }
    }

    /// Whether its policy lets records go that no later one replaces.
    pub(crate) fn forgets(&self) -> bool {
        self.retention.is_some() || self.deletes
    }

    /// Whether compaction and retention wait for its table.
    pub(crate) fn waits(&self) -> bool {
        self.table == Some(true)
    }

    /// Its settings.
    pub(crate) fn configs(&self) -> Vec<(&'static str, &'static str)> {
        let mut configs = vec![
            ("cleanup.policy", if self.forgets() { "compact,delete" } else { "compact" }),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", self.delete_retention_ms),
            ("floe.retention.wait.for.views", if self.waits() { "true" } else { "false" }),
        ];
        configs.extend(Plan::table_configs(self.table.is_some()));
        configs.extend(self.retention);
        configs
    }

    /// Its only partition.
    pub(crate) const PLACE: Place =
        Place { topic: COMPACTED_TOPIC, table: false, index: 0, incarnation: None };
}

/// The draws of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How long the faults last.
    pub(crate) chaos: Duration,
    /// Whether the store has other faults than slowness.
    pub(crate) rough_store: bool,
    /// Whether the store is remote: requests are made in tries, and in some spells they hang.
    pub(crate) remote: bool,
    /// Whether the journal has other faults than slowness.
    pub(crate) rough_journal: bool,
    /// Whether the journal carries the bytes of commits.
    pub(crate) carries: bool,
    /// The number of brokers that live side by side on one journal.
    pub(crate) brokers: u32,
    /// A broker dies after at most this many polls of its tasks. None: no broker dies.
    pub(crate) crash_polls_max: Option<u64>,
    /// Longest pause between a broker's death and the start of the next one.
    pub(crate) down_max: Duration,
    /// The numbers of producers with idempotence and without.
    pub(crate) producers: (u32, u32),
    /// Longest pause of a producer between two windows.
    pub(crate) pause_max: Duration,
    /// Whether clients lose their connections.
    pub(crate) cuts: bool,
    /// Share of connections through the Kafka protocol, in a thousand.
    pub(crate) kafka: u64,
    /// Whether [`TABLE_TOPIC`] has a table.
    pub(crate) table: bool,
    /// Whether there is a topic that is deleted and created again, and if so whether it has a table.
    pub(crate) fleeting: Option<bool>,
    /// How long that topic can come back, if it can.
    pub(crate) trash_ms: Option<&'static str>,
    /// How long what [`PLAIN_TOPIC`] loses can come back, if it can.
    pub(crate) keeps: Option<&'static str>,
    /// What [`PLAIN_TOPIC`] keeps, if it does not keep everything.
    pub(crate) retention: Option<(&'static str, &'static str)>,
    /// Whether [`TABLE_TOPIC`] keeps the same, and what its table has not read beside.
    pub(crate) retains_table: bool,
    /// Whether a client deletes records of [`PLAIN_TOPIC`].
    pub(crate) deletes: bool,
    /// Whether a lone broker's data directory rots, comes back from a backup, and is copied.
    pub(crate) harm: bool,
    /// Whether a client writes markers.
    pub(crate) marks: bool,
    /// Whether a client holds a snapshot for long.
    pub(crate) holds: bool,
    /// What the compacted topic is, if there is one.
    pub(crate) compacted: Option<Compacted>,
    /// The settings of a broker's log.
    pub(crate) log: floe_log::Config,
    /// The settings of a broker's views.
    pub(crate) lake: floe_lake::Config,
}

impl Plan {
    /// Draws the plan of a run.
    pub(crate) fn draw(env: &Env) -> Plan {
        let dice = Dice::new(env);
        let brisk = dice.chance(BRISK);
        let remote = !brisk && dice.chance(REMOTE);
        let brokers = if dice.chance(250) { 2 } else { 1 };
        let harm = brokers == 1 && dice.chance(HARM);
        let plan = Plan {
            chaos: if brisk || remote {
                LONG_CHAOS
            } else {
                dice.between(Duration::from_secs(2), Duration::from_secs(7))
            },
            rough_store: dice.chance(750),
            remote,
            rough_journal: dice.chance(600),
            carries: false,
            brokers,
            crash_polls_max: dice.chance(850).then(|| *dice.pick(&[800, 2_000, 8_000])),
            down_max: *dice.pick(&[Duration::from_millis(20), Duration::from_secs(2)]),
            producers: (u32::from(dice.chance(900)) + 1, u32::from(dice.chance(700))),
            pause_max: match brisk || remote {
                // The longer time gets about as many records.
                true => Duration::from_secs(8),
                false => *dice.pick(&[Duration::from_millis(700), Duration::from_millis(2_000)]),
            },
            cuts: dice.chance(700),
            kafka: *dice.pick(&[0, 800, 1_000]),
            table: dice.chance(600),
            fleeting: dice.chance(FLEETING).then(|| dice.chance(500)),
            harm,
            log: floe_log::Config { sole: brokers == 1, ..far(remote, log_config(&dice, brisk)) },
            lake: far_lake(remote, lake_config(&dice, brisk)),
            retention: dice.chance(RETAINS).then(|| *dice.pick(&RETENTIONS)),
            retains_table: dice.chance(RETAINS_TABLE),
            deletes: dice.chance(DELETES),
            marks: dice.chance(MARKS),
            holds: dice.chance(HOLDS),
            trash_ms: None,
            compacted: None,
            keeps: None,
        };
        let comes_back = plan.fleeting.is_some() && dice.chance(COMES_BACK);
        Plan { trash_ms: comes_back.then(|| *dice.pick(&TRASH_MS)), ..plan }
    }

    /// The settings of a topic that exists for the whole run, as its clients know them.
    pub(crate) fn configs(&self, topic: &str) -> Vec<(&'static str, &'static str)> {
        let is_table = topic == TABLE_TOPIC;
        let mut configs = if is_table { Plan::table_configs(self.table) } else { Vec::new() };
        if !is_table || self.retains_table {
            configs.extend(self.retention);
        }
        if is_table {
            configs.push(("floe.retention.wait.for.views", "true"));
        } else {
            configs.extend(self.keeps.map(|ms| ("floe.trash.ms", ms)));
        }
        configs
    }

    /// Whether records may be deleted.
    pub(crate) fn forgets(&self) -> bool {
        self.retention.is_some() || self.deletes
    }

    /// How long what a topic loses can come back, in most runs in which it loses something. The seed decides, not the
    /// dice. A planted bug says it itself.
    pub(crate) fn keeping(&self, seed: u64, bug: Option<Bug>) -> Option<&'static str> {
        let ms = TRASH_MS.get(usize::try_from(seed / 2 % 4).expect("it is small")).copied();
        ms.filter(|_| self.forgets() && bug.is_none())
    }

    /// The same plan, in every other run with a journal that carries bytes. The seed decides, not the dice, so that the
    /// other runs stay as they are. A planted bug has a journal of its kind.
    pub(crate) fn carrying(self, seed: u64, bug: Option<Bug>) -> Plan {
        let carries = match bug {
            Some(
                Bug::JournalForgetsBytes
                | Bug::JournalReleasesEarly
                | Bug::JournalKeepsReleased
                | Bug::JournalCountsBytesAsObjects,
            ) => true,
            Some(_) => false,
            // A remote store is shared, and so is its journal.
            None => seed % 2 == 1 && !self.remote,
        };
        Plan { carries, ..self }
    }

    /// The same plan, in every third run with a compacted topic. The seed decides, not the dice, so that the other runs
    /// stay as they are.
    pub(crate) fn compacting(self, seed: u64, bug: Option<Bug>) -> Plan {
        let planted = match bug {
            Some(Bug::CompactionKeepsOlder) => Some(PlantedCompactionBug::KeepsOlder),
            Some(Bug::CompactionKeepsSome) => Some(PlantedCompactionBug::KeepsSome),
            Some(Bug::CompactionDropsTombstones) => Some(PlantedCompactionBug::DropsTombstones),
            Some(Bug::CompactionDropsNewest) => Some(PlantedCompactionBug::DropsNewest),
            _ => None,
        };
        let choice = usize::try_from(seed / 3 % 3).expect("a small number");
        let compacted = seed.is_multiple_of(3).then(|| Compacted::of(seed));
        let compacted = match bug {
            // Tombstones that should stay for long are missed soon.
            _ if planted.is_some() => Some(Compacted::PLAIN),
            Some(Bug::ReaderSkipsBatch) => Some(Compacted::PLAIN),
            Some(Bug::CompactionWaitsForNobody) => Some(Compacted { table: Some(true), ..Compacted::PLAIN }),
            _ => compacted,
        };
        // A map of few keys takes several passes, and a small object several commits.
        let compaction = Compaction {
            pause: Duration::from_millis(700),
            map_bytes: 24 * [4, 8, 1_000][choice],
            object_bytes: [1, 600, 1 << 20][choice],
            small_bytes: 0,
            small_pause: Duration::ZERO,
            planted,
        };
        let log = floe_log::Config { compaction, ..self.log };
        Plan { compacted, log, ..self }
    }

    /// The same plan, changed so that a planted bug can show itself.
    pub(crate) fn with(self, bug: Option<Bug>) -> Plan {
        match bug {
            Some(Bug::JournalReleasesEarly | Bug::JournalKeepsReleased) => {
                Plan { retention: Some(("retention.bytes", "700")), ..self }
            }
            Some(Bug::WireAnswersForDeleted | Bug::JournalKeepsExtents) => {
                Plan { fleeting: self.fleeting.or(Some(false)), ..self }
            }
            Some(Bug::UndeleteForgetsRecords) => {
                Plan { fleeting: self.fleeting.or(Some(false)), trash_ms: Some(TRASH_MS[1]), ..self }
            }
            Some(Bug::StoreMisplacesLateTries) => {
                let (log, lake) = (far(true, self.log), far_lake(true, self.lake));
                // No broker dies here, so a caller that gave up has run out of time.
                Plan { remote: true, chaos: LONG_CHAOS, crash_polls_max: None, log, lake, ..self }
            }
            // Retention alone decides nothing here: the rot is to be seen in a group. It comes with a load, so there
            // are many.
            Some(Bug::JournalServesRot) => Plan {
                retention: None,
                deletes: false,
                chaos: LONG_CHAOS,
                crash_polls_max: Some(2_000),
                ..self.harmed(true)
            },
            Some(
                Bug::RetentionTakesOneMore
                | Bug::RetentionKeepsExtents
                | Bug::RetentionKeepsStarts
                | Bug::RetentionIsHasty,
            ) => Plan { retention: Some(("retention.bytes", "700")), ..self },
            Some(Bug::RemovalForgetsExtent) => {
                Plan { retention: Some(("retention.bytes", "700")), keeps: Some(TRASH_MS[2]), ..self }
            }
            // The objects are gone before the records come back.
            Some(Bug::RemovalFreesToo) => Plan {
                retention: Some(("retention.bytes", "700")),
                keeps: Some(KEPT_LONG_MS),
                chaos: LONG_CHAOS,
                remote: false,
                ..self
            },
            // Records go while the reader holds its snapshot, its broker lives, and another one cleans.
            Some(Bug::CleanerIgnoresPins) => Plan {
                brokers: 2,
                harm: false,
                holds: true,
                deletes: true,
                crash_polls_max: None,
                // It reads from the store.
                log: floe_log::Config {
                    sole: false,
                    cache: Capacity { tail: 2_000, cold: 2_000, ..self.log.cache },
                    ..self.log
                },
                ..self
            },
            Some(Bug::WireShowsMarkers | Bug::JournalLosesMarkers) => Plan { marks: true, ..self },
            Some(Bug::MergeSwapsBatches) => self.misled(PlantedBug::SwapsBatches),
            Some(Bug::MergeForgetsMarkers) => Plan { marks: true, ..self.misled(PlantedBug::ForgetsMarkers) },
            Some(Bug::MergeIgnoresLease) => self.misled(PlantedBug::IgnoresLease),
            // Such a broker takes whatever journal it finds.
            Some(Bug::OldJournalIsContinued) => self.harmed(false),
            // No broker dies here, so a copy finds the original alive.
            Some(Bug::StoreHidesWriters) => {
                Plan { remote: false, crash_polls_max: None, chaos: BESIDE_A_COPY, ..self.harmed(true) }
            }
            _ => self,
        }
    }

    /// The same plan with a bug of merging, which keeps nobody from merging soon.
    fn misled(self, bug: PlantedBug) -> Plan {
        let log = floe_log::Config { merge: HASTY, planted: Some(bug), ..self.log };
        Plan { log, retention: None, deletes: false, ..self }
    }

    /// The same plan with one broker whose data directory comes to harm.
    fn harmed(self, sole: bool) -> Plan {
        let log = floe_log::Config { sole, ..self.log };
        Plan { brokers: 1, harm: true, log, crash_polls_max: self.crash_polls_max.or(Some(2_000)), ..self }
    }

    /// The settings of a broker's history. The seed decides, not the dice, so that runs stay as they are beside it.
    pub(crate) fn history(&self, seed: u64) -> floe_history::Config {
        floe_history::Config {
            commits_due: 10 + seed % 50,
            part_commits_max: 40 + seed % 150,
            pause: Duration::from_millis(200),
            lease_ttl: self.log.times.cleaner_lease,
            waste_grace: self.log.times.trash_grace,
            ..floe_history::Config::default()
        }
    }

    /// Time for the cleaners, longer than everything that must be over before nothing is left to clean. That is the
    /// leases and sessions of dead brokers (on objects, tables and the cleaners' jobs), the grace of late garbage, and
    /// a few rounds.
    pub(crate) fn cleaning(&self) -> Duration {
        let (log, lake) = (&self.log.times, &self.lake);
        let of_log =
            log.lease_ttl + log.session_ttl + log.cleaner_lease + log.trash_grace + 6 * log.cleaner_pause;
        let of_log = of_log + self.trash_ms.map_or(Duration::ZERO, |_| TRASH_MAX);
        // What came back is deleted again, and can come back as long.
        let of_log = of_log + self.keeps.map_or(Duration::ZERO, |_| 2 * TRASH_MAX);
        // The cleaner of the lake has its job for as long as the grace.
        let of_lake = floe_view::limits::LEASE_TTL
            + floe_view::limits::SUPERVISE_INTERVAL
            + 2 * lake.garbage_grace
            + 4 * lake.clean_interval;
        // The table of a deleted topic becomes garbage when the topic goes for good.
        of_log.max(of_lake + self.trash_ms.map_or(Duration::ZERO, |_| TRASH_MAX + 2 * log.cleaner_pause))
    }

    /// The settings of a broker's Kafka front.
    pub(crate) fn kafka_config(&self) -> floe_kafka::Config {
        floe_kafka::Config {
            auto_create_topics: false,
            group_initial_delay: Duration::from_millis(100),
            ..floe_kafka::Config::default()
        }
    }

    /// The partitions of [`FLEETING_TOPIC`] if the run has it, without an incarnation.
    pub(crate) fn fleeting_places(&self) -> Vec<Place> {
        let place = |table| move |index| Place { topic: FLEETING_TOPIC, table, index, incarnation: None };
        self.fleeting.map_or_else(Vec::new, |table| (0..PARTITIONS).map(place(table)).collect())
    }

    /// The settings of [`FLEETING_TOPIC`].
    pub(crate) fn fleeting_configs(&self, table: bool) -> Vec<(&'static str, &'static str)> {
        let trash = self.trash_ms.map(|ms| ("floe.trash.ms", ms));
        Plan::table_configs(table).into_iter().chain(trash).collect()
    }

    /// The settings of a topic with or without a table.
    pub(crate) fn table_configs(table: bool) -> Vec<(&'static str, &'static str)> {
        vec![("floe.table", if table { "json" } else { "off" }), ("floe.table.freshness.ms", "1000")]
    }

    /// All partitions that exist for the whole run.
    pub(crate) fn places() -> Vec<Place> {
        let topics = [TABLE_TOPIC, PLAIN_TOPIC];
        topics
            .iter()
            .flat_map(|topic| {
                (0..PARTITIONS).map(|index| {
                    let table = *topic == TABLE_TOPIC;
                    Place { topic, table, index, incarnation: None }
                })
            })
            .collect()
    }
}

/// Objects of a few batches, several uploads at once, a cache that is too small, and a cleaner in a hurry. In a brisk
/// run, garbage of a dead broker is old enough for deletion while the faults last. The grace is longer than the delays
/// of the weather.
fn log_config(dice: &Dice, brisk: bool) -> floe_log::Config {
    let seconds = |normal: u64, in_haste: u64| Duration::from_secs(if brisk { in_haste } else { normal });
    let times = Times {
        lease_ids: *dice.pick(&[2, 8, 64]),
        lease_ttl: seconds(12, 5),
        session_ttl: seconds(10, 4),
        trash_grace: seconds(20, 9),
        cleaner_pause: seconds(4, 1),
        cleaner_lease: seconds(40, 5),
        retention_pause: seconds(2, 1),
        merge_pause: Duration::from_millis(*dice.pick(&[100, 500, 1_500])),
    };
    floe_log::Config {
        object_bytes: *dice.pick(&[500, 5_000, 1 << 20]),
        linger: *dice.pick(&[None, Some(Duration::ZERO), Some(Duration::from_millis(50))]),
        uploads_max: *dice.pick(&[None, Some(1), Some(4)]),
        cache: Capacity {
            tail: *dice.pick(&[2_000, 1 << 20]),
            cold: *dice.pick(&[2_000, 1 << 20]),
            reads: 64 << 10,
        },
        times,
        merge: merge_sizes(dice),
        // Topics that can come back say so themselves.
        trash: floe_log::deleted::Trash { ms: 0, ..Default::default() },
        ..floe_log::Config::default()
    }
}

/// Sizes by which everything is merged soon.
const HASTY: MergeSizes = MergeSizes {
    segment_bytes: 3_000,
    small_bytes: 300,
    small_objects: 3,
    long_bytes: 400,
    pool_bytes: 6_000,
};

/// Segments of some batches. In some runs they are merged soon and again, in others seldom.
fn merge_sizes(dice: &Dice) -> MergeSizes {
    let segment_bytes = *dice.pick(&[1_500, 6_000, 30_000]);
    MergeSizes {
        segment_bytes,
        small_bytes: *dice.pick(&[200, 700]),
        small_objects: *dice.pick(&[2, 4, 10]),
        long_bytes: *dice.pick(&[100, 800]),
        pool_bytes: segment_bytes * *dice.pick(&[1, 3]),
    }
}

/// Sets the grace of a remote store: longer than requests are in flight.
fn far(remote: bool, mut config: floe_log::Config) -> floe_log::Config {
    if remote {
        config.times.trash_grace = REMOTE_GRACE;
    }
    config
}

/// Sets the same grace for the views.
fn far_lake(remote: bool, config: floe_lake::Config) -> floe_lake::Config {
    let garbage_grace = if remote { REMOTE_GRACE } else { config.garbage_grace };
    floe_lake::Config { garbage_grace, ..config }
}

/// The settings of the views, in the spirit of [`log_config`].
fn lake_config(dice: &Dice, brisk: bool) -> floe_lake::Config {
    let seconds = |normal: u64, in_haste: u64| Duration::from_secs(if brisk { in_haste } else { normal });
    floe_lake::Config {
        views_at_work: 1,
        snapshots_kept: if brisk { 2 } else { *dice.pick(&[2, 100]) },
        // So that jobs rewrite tables, too.
        step_rewrite_bytes: if brisk { 0 } else { floe_lake::limits::STEP_REWRITE_BYTES },
        // So that files are merged soon and often.
        merge_files: if brisk { 2 } else { 3 },
        garbage_grace: seconds(30, 9),
        clean_interval: seconds(8, 2),
        ..floe_lake::Config::default()
    }
}
