//! What a run is made of, drawn from its seed: runs differ in kind, not only in their dice (a swarm). A run
//! with a store that never fails finds what a run with every fault at once would bury.

use std::time::Duration;

use floe_env::Env;
use floe_log;
use floe_log::Capacity;
use floe_log::Times;

use super::engine::Opener;
use crate::bug::Bug;
use crate::client::Place;
use crate::dice::Dice;

/// The topic that has a table in most runs; its records are JSON in all.
pub(crate) const TABLE_TOPIC: &str = "orders";
/// The topic that has none.
pub(crate) const PLAIN_TOPIC: &str = "clicks";
/// The topic that is deleted and created again in some runs, with a table or without.
pub(crate) const FLEETING_TOPIC: &str = "visits";
/// Partitions of each topic.
pub(crate) const PARTITIONS: u32 = 2;

/// So many of a thousand runs are brisk: longer, and with grace periods that end while the faults last.
const BRISK: u64 = 150;

/// In so many of a thousand runs a topic is deleted and created again.
const FLEETING: u64 = 250;

/// How long the faults of a run last that has to see the end of grace periods or of time-outs.
const LONG_CHAOS: Duration = Duration::from_secs(40);
/// In so many of a thousand runs the store is far away.
const REMOTE: u64 = 80;
/// There, what is on its way may land this late: longer than all tries of a request and the last one's landing.
const REMOTE_GRACE: Duration = Duration::from_secs(120);

/// What the caller chooses about a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that is drawn comes out of it.
    pub seed: u64,
    /// A bug on purpose.
    pub bug: Option<Bug>,
    /// Keep the text of every event, to find the first difference between two runs.
    pub keep_trace: bool,
    /// What answers statements in a broker, where the caller has such an engine. Then every run has a table.
    pub sql: Option<Opener>,
}

impl Options {
    /// A run of this seed as it should be.
    pub fn seed(seed: u64) -> Options {
        Options { seed, bug: None, keep_trace: false, sql: None }
    }

    /// The same run with a bug in it.
    #[must_use]
    pub fn with(self, bug: Bug) -> Options {
        Options { bug: Some(bug), ..self }
    }

    /// The same run with statements in it.
    #[must_use]
    pub fn asking(self, sql: Opener) -> Options {
        Options { sql: Some(sql), ..self }
    }
}

/// What is drawn for a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How long the faults last.
    pub(crate) chaos: Duration,
    /// Faults of the store beyond slowness.
    pub(crate) rough_store: bool,
    /// The store is far away: requests are made in tries, and in some spells they hang.
    pub(crate) remote: bool,
    /// Faults of the journal beyond slowness.
    pub(crate) rough_journal: bool,
    /// Brokers that live beside each other on one journal.
    pub(crate) brokers: u32,
    /// A broker dies after at most so many polls of its tasks; none: it lives.
    pub(crate) crash_polls_max: Option<u64>,
    /// Longest pause between a broker's death and the next one's start.
    pub(crate) down_max: Duration,
    /// Producers with idempotence and without.
    pub(crate) producers: (u32, u32),
    /// Longest pause of a producer between two windows.
    pub(crate) pause_max: Duration,
    /// Clients lose their connections.
    pub(crate) cuts: bool,
    /// The share of connections that go through the Kafka protocol, in a thousand.
    pub(crate) kafka: u64,
    /// Whether the topic that may have a table has one.
    pub(crate) table: bool,
    /// Whether there is a topic that is deleted and created again, and whether it has a table.
    pub(crate) fleeting: Option<bool>,
    /// How the log of a broker works.
    pub(crate) log: floe_log::Config,
    /// How the views of a broker work.
    pub(crate) lake: floe_lake::Config,
}

impl Plan {
    /// Draws a run.
    pub(crate) fn draw(env: &Env) -> Plan {
        let dice = Dice::new(env);
        let brisk = dice.chance(BRISK);
        let remote = !brisk && dice.chance(REMOTE);
        Plan {
            chaos: if brisk || remote {
                LONG_CHAOS
            } else {
                dice.between(Duration::from_secs(2), Duration::from_secs(7))
            },
            rough_store: dice.chance(750),
            remote,
            rough_journal: dice.chance(600),
            brokers: if dice.chance(250) { 2 } else { 1 },
            crash_polls_max: dice.chance(850).then(|| *dice.pick(&[800, 2_000, 8_000])),
            down_max: *dice.pick(&[Duration::from_millis(20), Duration::from_secs(2)]),
            producers: (u32::from(dice.chance(900)) + 1, u32::from(dice.chance(700))),
            pause_max: match brisk || remote {
                // Over the longer time about as many records.
                true => Duration::from_secs(8),
                false => *dice.pick(&[Duration::from_millis(700), Duration::from_millis(2_000)]),
            },
            cuts: dice.chance(700),
            kafka: *dice.pick(&[0, 800, 1_000]),
            table: dice.chance(600),
            fleeting: dice.chance(FLEETING).then(|| dice.chance(500)),
            log: far(remote, log_config(&dice, brisk)),
            lake: far_lake(remote, lake_config(&dice, brisk)),
        }
    }

    /// The same with what a planted bug needs to show itself.
    pub(crate) fn with(self, bug: Option<Bug>) -> Plan {
        match bug {
            Some(Bug::WireAnswersForDeleted | Bug::JournalKeepsExtents) => {
                Plan { fleeting: self.fleeting.or(Some(false)), ..self }
            }
            Some(Bug::StoreMisplacesLateTries) => {
                let (log, lake) = (far(true, self.log), far_lake(true, self.lake));
                // Nobody dies: whoever does not wait any more has run out of time.
                Plan { remote: true, chaos: LONG_CHAOS, crash_polls_max: None, log, lake, ..self }
            }
            _ => self,
        }
    }

    /// Longer than everything takes that has to be over before nothing is left to clean: the leases of the dead, on
    /// objects, tables and the cleaners' jobs, the grace of what became garbage only then, and a few rounds.
    pub(crate) fn cleaning(&self) -> Duration {
        let (log, lake) = (&self.log.times, &self.lake);
        let of_log = log.lease_ttl + log.cleaner_lease + log.trash_grace + 6 * log.cleaner_pause;
        // The cleaner of the lake has its job for as long as the grace.
        let of_lake = floe_view::limits::LEASE_TTL
            + floe_view::limits::SUPERVISE_INTERVAL
            + 2 * lake.garbage_grace
            + 4 * lake.clean_interval;
        of_log.max(of_lake)
    }

    /// How the Kafka front of a broker works.
    pub(crate) fn kafka_config(&self) -> floe_kafka::Config {
        floe_kafka::Config {
            auto_create_topics: false,
            group_initial_delay: Duration::from_millis(100),
            ..floe_kafka::Config::default()
        }
    }

    /// The partitions of the topic that is deleted and created again, if there is one; of no incarnation yet.
    pub(crate) fn fleeting_places(&self) -> Vec<Place> {
        let place = |table| move |index| Place { topic: FLEETING_TOPIC, table, index, incarnation: None };
        self.fleeting.map_or_else(Vec::new, |table| (0..PARTITIONS).map(place(table)).collect())
    }

    /// The settings of a topic that may have a table.
    pub(crate) fn table_configs(table: bool) -> Vec<(&'static str, &'static str)> {
        vec![("floe.table", if table { "json" } else { "off" }), ("floe.table.freshness.ms", "1000")]
    }

    /// All partitions of the run that are always there.
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

/// Objects of a few batches, several uploads at once, a cache that is too small, and a cleaner in a hurry. Brisk: what
/// a dead broker left is old enough to be deleted while the faults last. The grace is longer than the weather delays.
fn log_config(dice: &Dice, brisk: bool) -> floe_log::Config {
    let seconds = |normal: u64, in_haste: u64| Duration::from_secs(if brisk { in_haste } else { normal });
    let times = Times {
        lease_ids: *dice.pick(&[2, 8, 64]),
        lease_ttl: seconds(12, 5),
        trash_grace: seconds(20, 9),
        cleaner_pause: seconds(4, 1),
        cleaner_lease: seconds(40, 5),
    };
    floe_log::Config {
        object_bytes: *dice.pick(&[500, 5_000, 1 << 20]),
        linger: *dice.pick(&[None, Some(Duration::ZERO), Some(Duration::from_millis(50))]),
        uploads_max: *dice.pick(&[None, Some(1), Some(4)]),
        cache: Capacity { tail: *dice.pick(&[2_000, 1 << 20]), cold: *dice.pick(&[2_000, 1 << 20]) },
        times,
        ..floe_log::Config::default()
    }
}

/// With a grace that is longer than what is on its way to a store far away takes.
fn far(remote: bool, mut config: floe_log::Config) -> floe_log::Config {
    if remote {
        config.times.trash_grace = REMOTE_GRACE;
    }
    config
}

/// The same for the views.
fn far_lake(remote: bool, config: floe_lake::Config) -> floe_lake::Config {
    let garbage_grace = if remote { REMOTE_GRACE } else { config.garbage_grace };
    floe_lake::Config { garbage_grace, ..config }
}

/// How views work: as above.
fn lake_config(dice: &Dice, brisk: bool) -> floe_lake::Config {
    let seconds = |normal: u64, in_haste: u64| Duration::from_secs(if brisk { in_haste } else { normal });
    floe_lake::Config {
        views_at_work: 1,
        snapshots_kept: if brisk { 2 } else { *dice.pick(&[2, 100]) },
        garbage_grace: seconds(30, 9),
        clean_interval: seconds(8, 2),
        ..floe_lake::Config::default()
    }
}
