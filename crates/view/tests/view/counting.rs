//! A view that counts the records of each partition and the bytes of their values.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use floe_env::lock;
use floe_log::{
    PartitionId, TopicId,
    records::Record,
    topic::Topic,
    topic_config::{TableMode, TopicConfig},
};
use floe_meta::{DecodeError, MapRecord, Snapshot, Tx, put_postcard, take_postcard};
use floe_view::{
    BadRecordRule, Command, Fold, Job, MetricNames, Portion, Progress, Settings, Verdict, View, ViewError,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// The counting view of most tests.
pub(crate) type Counter = Counting<200, 201>;

/// Counts into records of the kind `COUNTS`, with progress of the kind `PROGRESS`.
pub(crate) struct Counting<const COUNTS: u8, const PROGRESS: u8> {
    pub(crate) knobs: Arc<Knobs>,
}

/// What a test changes while the view runs.
pub(crate) struct Knobs {
    pub(crate) rule: Mutex<BadRecordRule>,
    pub(crate) freshness: Mutex<Duration>,
    /// How long preparing takes.
    pub(crate) prepare_time: Mutex<Duration>,
    /// Whether preparing fails.
    pub(crate) fails: AtomicBool,
    /// Whether the next fold panics.
    pub(crate) panics: AtomicBool,
    /// Pieces of a job that are left, how long each takes, and whether the next fails.
    pub(crate) pieces_left: AtomicU64,
    pub(crate) piece_time: Mutex<Duration>,
    pub(crate) piece_fails: AtomicBool,
    /// Whether pieces have nothing to commit.
    pub(crate) pieces_publish_nothing: AtomicBool,
    /// Commits that the runner told the view of.
    pub(crate) commits: AtomicU64,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs {
            rule: Mutex::new(BadRecordRule::DeadLetter),
            freshness: Mutex::new(Duration::from_millis(50)),
            prepare_time: Mutex::default(),
            fails: AtomicBool::default(),
            panics: AtomicBool::default(),
            pieces_left: AtomicU64::default(),
            piece_time: Mutex::default(),
            piece_fails: AtomicBool::default(),
            pieces_publish_nothing: AtomicBool::default(),
            commits: AtomicU64::default(),
        }
    }
}

/// What is counted in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Counts<const KIND: u8> {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl<const KIND: u8> MapRecord for Counts<KIND> {
    const KIND: u8 = KIND;
    const VERSION: u8 = 1;
    type Key = PartitionId;

    fn encode(&self, out: &mut Vec<u8>) {
        put_postcard(self, out);
    }

    fn decode(_version: u8, body: &[u8]) -> Result<Self, DecodeError> {
        take_postcard(body)
    }
}

impl<const COUNTS: u8, const PROGRESS: u8> View for Counting<COUNTS, PROGRESS> {
    const NAME: &'static str = if COUNTS == 200 { "counter" } else { "recounter" };
    const OUTPUT: &'static str = "count";
    const METRICS: MetricNames = MetricNames {
        lag_records: "test_lag_records",
        step_seconds: "test_step_seconds",
        errors: "test_errors_total",
        job_seconds: "test_job_seconds",
        job_errors: "test_job_errors_total",
        stands_still: "test_stands_still_since_seconds",
        commits: "test_commits_total",
        bad_records: "test_bad_records_total",
        lost_records: "test_lost_records_total",
    };

    type Progress = Progress<PROGRESS>;
    type Found = ();
    type Taken = ();
    /// Everything is in the metadata map.
    type Output = ();
    type Fold = Tally<COUNTS>;
    /// The number of the piece.
    type Made = u64;

    fn settings(&self, _map: &Snapshot, topic: &Topic) -> Result<Option<Settings>, DecodeError> {
        Ok((TopicConfig::of(topic).table != TableMode::Off).then(|| Settings {
            freshness: *lock(&self.knobs.freshness),
            gather_bytes: 1 << 20,
            bad_record: *lock(&self.knobs.rule),
        }))
    }

    async fn find(&self, _snapshot: &Snapshot, _topic: &Topic) -> Result<(), ViewError> {
        Ok(())
    }

    fn take_over(_tx: &mut Tx<'_>, _topic: &Topic, _epoch: u64) -> Result<(), ViewError> {
        Ok(())
    }

    async fn open(&self, _topic: &Topic, _epoch: u64, (): (), (): ()) -> Result<(), ViewError> {
        Ok(())
    }

    fn fold(&self, _topic: &Topic, (): &()) -> Tally<COUNTS> {
        Tally { counts: BTreeMap::new(), bytes: 0, panics: self.knobs.panics.swap(false, Ordering::SeqCst) }
    }

    async fn prepare(
        &self,
        _portion: Portion<'_>,
        (): &mut (),
        tally: BTreeMap<PartitionId, Counts<COUNTS>>,
    ) -> Result<((), Command), ViewError> {
        let pause = *lock(&self.knobs.prepare_time);
        sleep(pause).await;
        if self.knobs.fails.load(Ordering::SeqCst) {
            return Err(ViewError::output(std::io::Error::other("planted")));
        }
        // It adds to what is there, so that a commit that is made twice shows.
        let command = move |tx: &mut Tx<'_>| {
            for (partition, more) in &tally {
                let Counts { records, bytes } = tx.get::<Counts<COUNTS>>(partition)?.unwrap_or_default();
                let sum = Counts { records: records + more.records, bytes: bytes + more.bytes };
                tx.put::<Counts<COUNTS>>(partition, &sum);
            }
            Ok(())
        };
        Ok(((), Box::new(command)))
    }

    fn job(&self, _topic: &Topic, (): &()) -> Option<Job<u64>> {
        let (left, pieces) = (self.knobs.pieces_left.load(Ordering::SeqCst), Arc::clone(&self.knobs));
        let work = async move {
            let pause = *lock(&pieces.piece_time);
            sleep(pause).await;
            if pieces.piece_fails.swap(false, Ordering::SeqCst) {
                return Err(ViewError::output(std::io::Error::other("planted")));
            }
            Ok(left)
        };
        (left > 0).then(|| Job { name: "count down", work: Box::pin(work) })
    }

    async fn adopt(
        &self,
        portion: Portion<'_>,
        (): &mut (),
        made: u64,
    ) -> Result<Option<((), Command)>, ViewError> {
        assert!(portion.read.is_empty(), "a piece takes in no records");
        self.knobs.pieces_left.store(made - 1, Ordering::SeqCst);
        let command: Command = Box::new(|_: &mut Tx<'_>| Ok(()));
        Ok((!self.knobs.pieces_publish_nothing.load(Ordering::SeqCst)).then_some(((), command)))
    }

    fn committed(&self, _topic: &Topic, (): &(), (): &()) {
        self.knobs.commits.fetch_add(1, Ordering::SeqCst);
    }

    fn forget(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
        let range = PartitionId::new(topic, 0)..=PartitionId::new(topic, u32::MAX);
        let known: Vec<_> = tx.range::<Counts<COUNTS>>(range).collect::<Result<_, _>>()?;
        for (partition, _) in known {
            tx.delete::<Counts<COUNTS>>(&partition);
        }
        Ok(())
    }
}

/// The counts of one commit.
pub(crate) struct Tally<const COUNTS: u8> {
    counts: BTreeMap<PartitionId, Counts<COUNTS>>,
    bytes: usize,
    panics: bool,
}

impl<const COUNTS: u8> Fold for Tally<COUNTS> {
    type Folded = BTreeMap<PartitionId, Counts<COUNTS>>;

    fn push(&mut self, partition: PartitionId, record: &Record) -> Result<Verdict, ViewError> {
        assert!(!self.panics, "planted");
        let value = record.value.as_deref().unwrap_or_default();
        if is_bad(value) {
            return Ok(Verdict::Bad("it says so itself".to_owned()));
        }
        let counts = self.counts.entry(partition).or_default();
        counts.records += 1;
        counts.bytes += value.len() as u64;
        self.bytes += value.len();
        Ok(Verdict::Taken)
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn finish(self) -> Result<Self::Folded, ViewError> {
        Ok(self.counts)
    }
}

/// Whether the view takes no such record.
pub(crate) fn is_bad(value: &[u8]) -> bool {
    value.starts_with(b"bad")
}
