//! The view of one topic: read from progress, decode, write, commit output and progress in one journal entry.
//!
//! ```text
//!  own ──▶ wait for records ──▶ gather ──▶ encode ──▶ PUT files ──▶ commit ──▶ (again)
//!   ▲                                                     │
//!   └─── back off, read the table's record again ◀── failed
//! ```
//! One step is one commit. A step that fails leaves nothing visible; its files go to the garbage with the
//! next commit, or are found by their numbers ([`crate::layout`]). When it is not known whether a commit was
//! applied, the view asks the journal before it does anything else.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use floe_log::{
    Log, Offset, PartitionId, TopicId,
    batch::Batch,
    topic::{self, Topic},
    topic_config::{TableMode, TopicConfig},
    walk::ReadError,
};
use floe_meta::{Envelope, Lease, LeaseError, Snapshot, Tx};
use floe_schema::Kind;
use metrics::{counter, gauge, histogram};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::{
    command::{self, Taken, lease_name},
    commit::{self, Numbers},
    data_file::FileError,
    encode::{Encoder, Output},
    error::ViewError,
    files::Base,
    limits,
    map::Table,
    prepare::{self, Read, State},
    running::gather::Gathered,
    shared::Shared,
};

/// What a step did.
enum Step {
    /// There may be more to do at once.
    Behind,
    /// Everything that was there when it began is in the table.
    Done,
    /// The view has ended.
    Gone,
}

/// The view of one topic, run by one task.
pub(crate) struct View {
    shared: Arc<Shared>,
    topic: TopicId,
    name: String,
    lease: String,
    state: Option<State>,
    /// The partition where the next step begins.
    first: u32,
    /// Since when there have been records that no commit has taken.
    since: Option<Instant>,
}

/// The records of one commit.
struct Round {
    output: Output,
    read: Read,
    /// Whether there was more than one commit takes.
    full: bool,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>, topic: &Topic) -> View {
        let lease = lease_name(topic.id);
        View { shared, topic: topic.id, name: topic.name.clone(), lease, state: None, first: 0, since: None }
    }

    /// Runs until the topic is gone or is no table any more.
    pub(crate) async fn run(mut self) {
        let mut pause = limits::BACKOFF_MIN;
        let mut behind = false;
        loop {
            match self.step(behind).await {
                Ok(Step::Gone) | Err(ViewError::TopicGone | ViewError::Closed) => break,
                Ok(step) => {
                    behind = matches!(step, Step::Behind);
                    pause = limits::BACKOFF_MIN;
                    self.shared.report(self.topic, None);
                }
                Err(ViewError::Lease(LeaseError::Held { expires, .. })) => {
                    self.state = None;
                    let left = expires.since(self.shared.env.now());
                    sleep(left.clamp(limits::BACKOFF_MIN, limits::LEASE_TTL)).await;
                }
                Err(error) => {
                    counter!("floe_lake_errors_total", "topic" => self.name.clone()).increment(1);
                    warn!(topic = %self.name, %error, pause_ms = pause.as_millis(), "a view's step failed, it will be tried again");
                    if matches!(error, ViewError::Lease(_) | ViewError::Stale(_)) {
                        self.state = None;
                    }
                    self.shared.report(self.topic, Some(error.to_string()));
                    sleep(pause).await;
                    pause = (pause * 2).min(limits::BACKOFF_MAX);
                }
            }
        }
        info!(topic = %self.name, "the view has ended");
    }

    /// One commit, or the wait for something to commit.
    async fn step(&mut self, behind: bool) -> Result<Step, ViewError> {
        let snapshot = self.shared.log.meta().snapshot();
        let Some((topic, config)) = self.topic(&snapshot)? else { return Ok(Step::Gone) };
        self.own(&snapshot, &topic, &config).await?;
        if self.lag(&snapshot, &topic) == 0 {
            self.since = None;
            if !self.wait(&topic).await {
                return Ok(Step::Done);
            }
        }
        // Kept until a commit has them: what failed is not late once more.
        let since = *self.since.get_or_insert_with(|| self.shared.env.monotonic());
        if !behind {
            self.gather(since).await?;
        }
        let shared = Arc::clone(&self.shared);
        let _working = shared.working.acquire().await.map_err(|_| ViewError::Closed)?;
        let snapshot = self.shared.log.meta().snapshot();
        let Some((topic, config)) = self.topic(&snapshot)? else { return Ok(Step::Gone) };
        // The wait may have been long: another broker may own the table by now.
        self.own(&snapshot, &topic, &config).await?;
        let begun = self.shared.env.monotonic();
        let round = self.encode(&snapshot, &topic, &config).await?;
        if round.read.is_empty() {
            self.since = None;
            return Ok(Step::Done);
        }
        let full = round.full;
        let state = self.state.as_mut().expect("the view owns its table");
        prepare::publish(&self.shared, state, &topic, &config, round.output, round.read).await?;
        self.since = None;
        self.lag(&snapshot, &topic);
        histogram!("floe_lake_step_seconds", "topic" => self.name.clone())
            .record(begun.elapsed().as_secs_f64());
        Ok(if full { Step::Behind } else { Step::Done })
    }

    /// The topic, if it still is a table.
    fn topic(&self, snapshot: &Snapshot) -> Result<Option<(Topic, TopicConfig)>, ViewError> {
        let topic = topic::by_id(snapshot, self.topic)?;
        let with_config = topic.map(|topic| {
            let config = TopicConfig::of(&topic);
            (topic, config)
        });
        Ok(with_config.filter(|(_, config)| config.table != TableMode::Off))
    }

    /// Records that are not in the table yet; noted in the metric.
    fn lag(&self, snapshot: &Snapshot, topic: &Topic) -> u64 {
        let state = self.state.as_ref().expect("the view owns its table");
        let behind = |partition: PartitionId| {
            let end = Log::bounds(snapshot, partition).map_or(0, |bounds| bounds.high_watermark.0);
            (end - state.at(partition.index).0).max(0).cast_unsigned()
        };
        let lag = topic.partition_ids().map(behind).sum();
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        gauge!("floe_lake_lag_records", "topic" => self.name.clone()).set(lag as f64);
        lag
    }

    /// Waits until a partition has records that are not in the table; `false` when the topic changed meanwhile.
    async fn wait(&self, topic: &Topic) -> bool {
        let state = self.state.as_ref().expect("the view owns its table");
        let positions: Vec<_> = topic.partition_ids().map(|p| (p, state.at(p.index))).collect();
        let mut changed = self.shared.topics_changed.subscribe();
        tokio::select! {
            biased;
            () = self.shared.log.wait(&positions) => true,
            _ = changed.changed() => false,
        }
    }

    /// Lets records gather until half of the freshness has passed `since` the first of them was seen, or until there
    /// are enough for a data file, or as many as SQL should have to read from the log.
    async fn gather(&self, since: Instant) -> Result<(), ViewError> {
        let state = self.state.as_ref().expect("the view owns its table");
        let mut gathered = Gathered::since(state.progress.clone());
        loop {
            let snapshot = self.shared.log.meta().snapshot();
            // Settings may have changed in the meantime.
            let Some((topic, config)) = self.topic(&snapshot)? else { return Ok(()) };
            self.lag(&snapshot, &topic);
            let pause = Duration::from_millis(config.table_freshness_ms / 2);
            let left = pause.saturating_sub(self.shared.env.monotonic() - since);
            let enough = config.table_file_bytes.min(self.shared.config.gather_bytes);
            if left.is_zero() || gathered.reaches(enough, &snapshot, &topic)? {
                return Ok(());
            }
            sleep(left.min(limits::GATHER_LOOK_INTERVAL)).await;
        }
    }

    /// Makes sure that this process owns the table and knows its state.
    async fn own(
        &mut self,
        snapshot: &Snapshot,
        topic: &Topic,
        config: &TopicConfig,
    ) -> Result<(), ViewError> {
        let wanted = match config.table {
            TableMode::Raw => Kind::Raw,
            TableMode::Json | TableMode::Off => Kind::Json,
        };
        let held = snapshot.get::<Lease>(&self.lease)?;
        let held = held.filter(|lease| lease.owner.as_deref() == Some(&*self.shared.owner));
        let known = self.state.as_ref().zip(held).is_some_and(|(state, lease)| state.epoch == lease.epoch);
        if !known {
            self.state = None;
            self.take_over(snapshot, topic, wanted).await?;
        }
        let made = self.state.as_ref().expect("taken over above").schema.kind();
        if made != wanted {
            let word = |kind| if kind == Kind::Raw { "raw" } else { "json" };
            return Err(ViewError::Mode { made: word(made), wanted: word(wanted) });
        }
        Ok(())
    }

    async fn take_over(&mut self, snapshot: &Snapshot, topic: &Topic, kind: Kind) -> Result<(), ViewError> {
        // Read first: while the store fails nothing is taken, as every taking uses up numbers.
        let found = match snapshot.get::<Table>(&topic.id)? {
            Some(table) => Some(self.shared.files(&table.name, topic.id).load(table).await?),
            None => None,
        };
        let (id, owner) = (topic.id, self.shared.owner.clone());
        let envelope = Envelope::broker(&format!("lake view of {}", topic.name));
        let command = move |tx: &mut Tx<'_>| command::take_over(tx, id, kind, &owner);
        let taken = self.shared.log.meta().commit(envelope, command).await;
        let Taken { epoch, table, view, progress } = taken.map_err(ViewError::from_commit)?.reply;
        let mut numbers = Numbers { next: view.numbers_end - limits::NUMBERS_LEASED, end: view.numbers_end };
        info!(topic = %self.name, epoch, "took over the view");
        let base = match (table, found) {
            (Some(table), Some(found)) if found.table == table => found,
            (Some(table), _) => self.shared.files(&table.name, id).load(table).await?,
            (None, _) => self.create(topic, &view.schema, &mut numbers, epoch).await?,
        };
        let loose = numbers.next;
        self.state = Some(State { epoch, base, schema: view.schema, progress, numbers, loose });
        Ok(())
    }

    /// Makes the table, without a snapshot, so that catalogs list it before its first row.
    async fn create(
        &self,
        topic: &Topic,
        schema: &floe_schema::TableSchema,
        numbers: &mut Numbers,
        epoch: u64,
    ) -> Result<Base, ViewError> {
        let env = &self.shared.env;
        let files = self.shared.files(&topic.name, topic.id);
        let next = commit::create(&files, numbers, env.random_u128(), &topic.name, schema, env.now())?;
        prepare::put_all(&files, next.files).await?;
        let (id, table) = (topic.id, next.base.table.clone());
        let envelope = Envelope::broker(&format!("lake table of {}", topic.name));
        let command = move |tx: &mut Tx<'_>| command::create(tx, id, epoch, &table);
        // If the answer is lost the state is, too: taking over again finds the table or makes another.
        self.shared.log.meta().commit(envelope, command).await.map_err(ViewError::from_commit)?;
        Ok(next.base)
    }

    /// Reads and encodes the records of one commit.
    async fn encode(
        &mut self,
        snapshot: &Snapshot,
        topic: &Topic,
        config: &TopicConfig,
    ) -> Result<Round, ViewError> {
        let state = self.state.as_ref().expect("the view owns its table");
        let file_bytes = usize::try_from(config.table_file_bytes).unwrap_or(usize::MAX);
        let mut encoder = Encoder::new(state.schema.clone(), file_bytes);
        let bytes_max = self.shared.config.commit_bytes;
        let mut read = BTreeMap::new();
        let mut full = false;
        for step in 0..topic.partitions {
            let partition = PartitionId::new(topic.id, (self.first + step) % topic.partitions);
            let from = state.at(partition.index);
            let Some(bounds) = Log::bounds(snapshot, partition) else { continue };
            let begin = self.not_below(partition, from, bounds.log_start);
            let mut at = begin;
            while at < bounds.high_watermark && encoder.bytes() < bytes_max {
                let read = self.shared.log.read(snapshot, partition, at, limits::READ_BYTES).await?;
                let batches = gapless(partition, at, read.batches)?;
                let work = move || {
                    let mut encoder = encoder;
                    let next = encoder.fill(partition, &batches, at, bytes_max)?;
                    Ok::<_, FileError>((encoder, next))
                };
                let next;
                (encoder, next) = self.shared.env.blocking(work).await?;
                assert!(next > at, "a read moves on");
                at = next;
            }
            if at > from {
                read.insert(partition.index, (from, at));
            }
            if at < bounds.high_watermark {
                // Who had a part of this commit is last in the next: a busy partition does not starve the others.
                let had_its_part = u32::from(at > begin);
                (self.first, full) = ((partition.index + had_its_part) % topic.partitions, true);
                break;
            }
        }
        let output = self.shared.env.blocking(move || encoder.finish()).await?;
        Ok(Round { output, read, full })
    }

    /// Where reading begins. Records that were deleted before they were read are lost to the table: never silently.
    fn not_below(&self, partition: PartitionId, from: Offset, log_start: Offset) -> Offset {
        if from < log_start {
            let lost = (log_start.0 - from.0).cast_unsigned();
            counter!("floe_lake_lost_records_total", "topic" => self.name.clone()).increment(lost);
            error!(%partition, %from, %log_start, "records were deleted from the log before they were in the table");
        }
        from.max(log_start)
    }
}

/// The batches of a read at `at` below the high watermark. Every offset there has a batch: what is missing is damage,
/// and to go on behind it would leave records out of the table without a word.
pub(crate) fn gapless(
    partition: PartitionId,
    at: Offset,
    batches: Vec<Batch>,
) -> Result<Vec<Batch>, ReadError> {
    let mut next = at;
    for batch in &batches {
        if batch.base_offset > next {
            break;
        }
        next = batch.next_offset();
    }
    let end = batches.last().map(Batch::next_offset);
    if end == Some(next) {
        return Ok(batches);
    }
    Err(ReadError::Corrupt(format!("the log of {partition} has no record at offset {next}")))
}

#[cfg(test)]
mod tests {
    use floe_log::{codec::Compression, records::Builder};

    use super::*;

    #[test]
    fn a_hole_in_the_log_is_not_skipped() {
        let partition = PartitionId::new(TopicId(1), 0);
        let batch = |base: i64, count: usize| {
            let mut builder = Builder::new(Compression::None);
            for _ in 0..count {
                builder.push(0, None, Some(b"v"), &[]);
            }
            Batch::new(Offset(base), builder.build()).unwrap()
        };
        let check = |batches: Vec<Batch>, missing: Option<i64>| {
            let found = gapless(partition, Offset(5), batches).err();
            let wanted = missing.map(|at| format!("the log of {partition} has no record at offset {at}"));
            assert_eq!(found, wanted.map(ReadError::Corrupt));
        };
        check(vec![batch(5, 2), batch(7, 1)], None);
        check(vec![batch(3, 3), batch(6, 1)], None);
        check(vec![], Some(5));
        check(vec![batch(6, 1)], Some(5));
        check(vec![batch(3, 4), batch(8, 1)], Some(7));
    }
}
