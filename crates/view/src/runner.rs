//! The view of one topic: read from the progress, fold, prepare, commit output and progress in one journal entry.
//!
//! ```text
//!  own ──▶ wait for records ──▶ gather ──▶ fold ──▶ prepare ──▶ commit ──▶ (again)
//!   ▲                                                  │
//!   └──── back off, load the output again ◀── failed ──┘
//! ```

use std::{sync::Arc, time::Duration};

use floe_env::{Backoff, LogLines};
use floe_log::{Log, PartitionId, TopicId, topic::Topic};
use floe_meta::Snapshot;
use floe_meta::lease::{LeaseError, Watch};
use metrics::{counter, gauge, histogram};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::{
    contract::{BadRecordRule, Fold, Portion, Settings, View},
    dead_letter::{self, DeadLetter},
    error::ViewError,
    gapless::gapless,
    gather::{self, Gathered},
    intake::{Intake, Taken},
    jobs::Jobs,
    labels::{self, TopicGauge, TopicLabel},
    lag, limits,
    memory::Share,
    outcome,
    ownership::{self, Owned, lease_name},
    progress::ReadRanges,
    shared::Shared,
};

/// When the store fails, the views of all tables fail.
static FAILED_LINES: LogLines = LogLines::new(limits::TOPIC_LINES_PER_MINUTE, Duration::from_secs(60));
static BAD_LINES: LogLines = LogLines::new(limits::TOPIC_LINES_PER_MINUTE, Duration::from_secs(60));
static ENDED_LINES: LogLines = LogLines::new(limits::TOPIC_LINES_PER_MINUTE, Duration::from_secs(60));

/// What a step did.
enum Step {
    /// There may be more to do at once.
    Behind,
    /// Everything is committed that was there when the step began.
    Done,
    /// The topic is gone, or has no such view any more.
    Gone,
}

/// The view of one topic, run by one task.
pub(crate) struct TopicRunner<V: View> {
    shared: Arc<Shared<V>>,
    topic: TopicId,
    name: String,
    /// In metrics.
    label: TopicLabel,
    lag_records: TopicGauge,
    lease: String,
    /// None while another process owns the view, or what is known of the output may be wrong.
    owned: Option<Owned<V>>,
    /// The lease while another process holds it.
    watch: Watch,
    /// The partition where the next step begins.
    first: u32,
    /// Since when there have been records that no commit has taken.
    since: Option<Instant>,
    /// How long a commit takes: the longest of late.
    step_time: Duration,
    /// The background work of the output.
    jobs: Jobs<V>,
    /// Why the last step failed, as the metric has it.
    stands_still: Option<&'static str>,
}

/// The records of one commit.
struct Round<T> {
    taken: Taken<T>,
    read: ReadRanges,
    /// Records of these offsets that were deleted before they were read.
    lost: u64,
    /// Whether there was more than one commit takes.
    full: bool,
    memory: Share,
}

type Folded<V> = <<V as View>::Fold as Fold>::Folded;

impl<V: View> Drop for TopicRunner<V> {
    fn drop(&mut self) {
        if let Some(why) = self.stands_still {
            self.measure_still(why, None);
        }
    }
}

impl<V: View> TopicRunner<V> {
    pub(crate) fn new(shared: Arc<Shared<V>>, topic: &Topic) -> TopicRunner<V> {
        let lease = lease_name(V::NAME, topic.id);
        let name = topic.name.clone();
        let label = labels::label_of(&name);
        TopicRunner {
            jobs: Jobs::new(&shared),
            shared,
            topic: topic.id,
            name,
            lag_records: TopicGauge::new(V::METRICS.lag_records, &label),
            label,
            lease,
            owned: None,
            watch: Watch::default(),
            first: 0,
            since: None,
            step_time: Duration::ZERO,
            stands_still: None,
        }
    }

    /// Runs until the topic is gone or has no such view any more.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(&self.shared.env, limits::BACKOFF_MIN, limits::BACKOFF_MAX);
        let mut behind = false;
        loop {
            match self.step(behind).await {
                Ok(Step::Gone) | Err(ViewError::TopicGone | ViewError::Closed) => break,
                Ok(step) => {
                    behind = matches!(step, Step::Behind);
                    backoff.reset();
                    self.report(None);
                }
                Err(ViewError::Lease(LeaseError::Held { .. })) => {
                    self.owned = None;
                    let left = self.watch.left(self.shared.env.monotonic(), limits::LEASE_TTL);
                    sleep(left.clamp(limits::BACKOFF_MIN, limits::LEASE_TTL)).await;
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    counter!(V::METRICS.errors, "topic" => self.label.value.clone()).increment(1);
                    if let Some(left_out) = FAILED_LINES.next(self.shared.env.monotonic()) {
                        warn!(
                            topic = %self.name,
                            %error,
                            pause_ms = pause.as_millis(),
                            left_out,
                            "a view's step failed, it will be tried again"
                        );
                    }
                    if matches!(error, ViewError::Lease(_) | ViewError::Stale(_)) {
                        self.owned = None;
                    }
                    self.report(Some(&error));
                    sleep(pause).await;
                }
            }
        }
        self.report(None);
        if let Some(left_out) = ENDED_LINES.next(self.shared.env.monotonic()) {
            info!(topic = %self.name, left_out, "the view has ended");
        }
    }

    /// Notes how the last step went.
    fn report(&mut self, error: Option<&ViewError>) {
        let now = self.shared.env.now();
        let since = self.shared.status.report(self.topic, now, error.map(ToString::to_string));
        let why = error.map(ViewError::kind);
        if let Some(before) = self.stands_still.filter(|before| Some(*before) != why) {
            self.measure_still(before, None);
        }
        if let Some(why) = why {
            #[expect(clippy::cast_precision_loss, reason = "a metric")]
            self.measure_still(why, Some(since.0 as f64 / 1000.0));
        }
        self.stands_still = why;
    }

    fn measure_still(&self, why: &'static str, since: Option<f64>) {
        let value = labels::still(&self.label, self.topic, why, since);
        gauge!(V::METRICS.stands_still, "topic" => self.label.value.clone(), "why" => why).set(value);
    }

    /// One commit, or the wait for something to commit.
    async fn step(&mut self, behind: bool) -> Result<Step, ViewError> {
        let snapshot = self.shared.log.meta().snapshot();
        let Some((topic, _)) = self.shared.topic(&snapshot, self.topic)? else { return Ok(Step::Gone) };
        self.own(&snapshot, &topic).await?;
        self.tend_jobs(&topic).await?;
        if self.end(&snapshot, &topic).await? {
            return Ok(Step::Gone);
        }
        if self.lag(&snapshot, &topic) == 0 {
            self.since = None;
            // What failed before may have been mended by others, as a table is that was made anew.
            self.report(None);
            if !self.wait(&topic).await {
                return Ok(Step::Done);
            }
        }
        // Kept until a commit takes the records: a failed step does not gather again.
        let since = *self.since.get_or_insert_with(|| self.shared.env.monotonic());
        if !behind {
            self.gather(since).await?;
        }
        let shared = Arc::clone(&self.shared);
        let memory = shared.memory.share().await;
        let snapshot = shared.log.pin();
        let Some((topic, settings)) = shared.topic(&snapshot, self.topic)? else { return Ok(Step::Gone) };
        // The wait may have been long: another process may own the view by now.
        self.own(&snapshot, &topic).await?;
        let begun = shared.env.monotonic();
        // The memory is held until the commit.
        let Round { taken, read, lost, full, memory: _memory } =
            self.read(&snapshot, &topic, &settings, memory).await?;
        let Taken { folded, bad, stopped } = taken;
        if read.is_empty() {
            // Behind a bad record there is nothing to do but to wait for another rule.
            if let Some(stopped) = stopped {
                return Err(stopped);
            }
            self.since = None;
            return Ok(Step::Done);
        }
        self.commit(&topic, settings.bad_record, &read, folded, &bad).await?;
        self.note_lost(lost);
        self.since = None;
        self.lag(&snapshot, &topic);
        let took = shared.env.monotonic() - begun;
        self.step_time = took.max(self.step_time / 2);
        histogram!(V::METRICS.step_seconds, "topic" => self.label.value.clone()).record(took.as_secs_f64());
        match stopped {
            Some(stopped) => Err(stopped),
            None if full => Ok(Step::Behind),
            None => Ok(Step::Done),
        }
    }

    /// Makes sure that this process owns the view and knows its output.
    async fn own(&mut self, snapshot: &Snapshot, topic: &Topic) -> Result<(), ViewError> {
        let held = ownership::epoch_of(snapshot, &self.lease, &self.shared.owner)?;
        if self.owned.as_ref().is_none_or(|owned| held != Some(owned.epoch)) {
            self.owned = None;
            let now = self.shared.env.monotonic();
            self.watch.look(snapshot, &self.lease, now)?;
            let stale = self.watch.stale(now, limits::LEASE_TTL);
            self.owned = Some(ownership::take_over(&self.shared, snapshot, topic, stale).await?);
        }
        self.shared.view.check(topic, &self.owned().output)
    }

    /// Commits the last command of the view, if it is at its end.
    async fn end(&mut self, snapshot: &Snapshot, topic: &Topic) -> Result<bool, ViewError> {
        let Owned { epoch, progress, .. } = self.owned();
        let Some(command) = self.shared.view.last(snapshot, topic, progress)? else { return Ok(false) };
        match outcome::commit(&self.shared, topic, *epoch, &ReadRanges::new(), None, command).await {
            Ok(()) => Ok(true),
            Err(ViewError::NotYet) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adopts the piece of a job that is done, or keeps the lease for it, and begins the next.
    async fn tend_jobs(&mut self, topic: &Topic) -> Result<(), ViewError> {
        let epoch = self.owned().epoch;
        if let Some(made) = self.jobs.take(&self.shared, topic, epoch).await {
            let owned = self.owned.as_mut().expect("a step owns the view before it does anything else");
            let (read, progress) = (ReadRanges::new(), owned.progress.clone());
            let portion = Portion { topic, epoch, read: &read, progress: &progress, bad_records: 0 };
            if let Some((output, command)) = self.shared.view.adopt(portion, &mut owned.output, made).await? {
                outcome::commit(&self.shared, topic, epoch, &read, None, command).await?;
                let before = std::mem::replace(&mut owned.output, output);
                self.shared.view.committed(topic, &before, &owned.output);
            }
        }
        if self.jobs.wants_renewal(self.shared.env.monotonic()) {
            outcome::renew(&self.shared, topic, epoch).await?;
        }
        let owned = self.owned.as_ref().expect("a step owns the view before it does anything else");
        let job = self.jobs.begin(&self.shared, topic, owned);
        self.shared.status.job(self.topic, job);
        Ok(())
    }

    fn owned(&self) -> &Owned<V> {
        self.owned.as_ref().expect("a step owns the view before it does anything else")
    }

    /// Records that are not committed yet; noted in the metric and in the status.
    fn lag(&self, snapshot: &Snapshot, topic: &Topic) -> u64 {
        let lag = lag::records(snapshot, topic, &self.owned().progress);
        self.lag_records.set(lag);
        self.shared.status.behind(self.topic, lag);
        lag
    }

    /// Waits until a partition has records that are not committed yet; `false` if a topic changed first, or a job needs
    /// the runner.
    async fn wait(&mut self, topic: &Topic) -> bool {
        let owned = self.owned();
        let positions: Vec<_> = topic.partition_ids().map(|p| (p, owned.next(p.index))).collect();
        let mut changed = self.shared.topics_changed.subscribe();
        tokio::select! {
            biased;
            () = self.shared.log.wait(&positions) => true,
            _ = changed.changed() => false,
            () = self.jobs.wait() => false,
        }
    }

    /// Lets records gather until their time is over, counted from `since`, or until there are enough bytes of them.
    async fn gather(&mut self, since: Instant) -> Result<(), ViewError> {
        let mut gathered = Gathered::since(self.owned().progress.clone());
        loop {
            let snapshot = self.shared.log.meta().snapshot();
            // Settings may have changed in the meantime.
            let Some((topic, settings)) = self.shared.topic(&snapshot, self.topic)? else { return Ok(()) };
            self.lag(&snapshot, &topic);
            self.tend_jobs(&topic).await?;
            let time = gather::time(settings.freshness, self.step_time);
            let left = time.saturating_sub(self.shared.env.monotonic() - since);
            if left.is_zero() || gathered.reaches(settings.gather_bytes, &snapshot, &topic)? {
                return Ok(());
            }
            sleep(left.min(limits::GATHER_LOOK_INTERVAL)).await;
        }
    }

    /// Reads and folds the records of one commit.
    async fn read(
        &mut self,
        snapshot: &Snapshot,
        topic: &Topic,
        settings: &Settings,
        mut memory: Share,
    ) -> Result<Round<Folded<V>>, ViewError> {
        let owned = self.owned();
        let mut intake = Intake::new(self.shared.view.fold(topic, &owned.output), settings.bad_record);
        let bytes_max = self.shared.config.commit_bytes;
        let (mut read, mut lost) = (ReadRanges::new(), 0);
        let (mut first, mut full) = (self.first, false);
        for step in 0..topic.partitions {
            let partition = PartitionId::new(topic.id, (self.first + step) % topic.partitions);
            let from = owned.next(partition.index);
            let Some(bounds) = Log::bounds(snapshot, partition) else { continue };
            let begin = from.max(bounds.log_start);
            if begin > from {
                self.shared.view.lose(partition)?;
                lost += (begin.0 - from.0).cast_unsigned();
            }
            let (mut at, mut stopped, mut room) = (begin, false, true);
            while at < bounds.high_watermark && intake.bytes() < bytes_max && !stopped && room {
                let read = self.shared.log.read(snapshot, partition, at, limits::READ_BYTES).await?;
                let batches = gapless(partition, at, read.batches)?;
                let work = move || {
                    let mut intake = intake;
                    let filled = intake.fill(partition, &batches, at, bytes_max)?;
                    Ok::<_, ViewError>((intake, filled))
                };
                let filled;
                (intake, filled) = compute(&self.shared, work).await?;
                assert!(filled.stopped || filled.next > at, "a read moves on");
                (at, stopped) = (filled.next, filled.stopped);
                room = memory.cover(intake.bytes());
            }
            if at > from {
                read.insert(partition.index, (from, at));
            }
            if at < bounds.high_watermark && !stopped || !room {
                // A partition that had its part of this commit is last in the next: it does not starve the others.
                let had_its_part = u32::from(at > begin);
                (first, full) = ((partition.index + had_its_part) % topic.partitions, true);
                break;
            }
        }
        let taken = compute(&self.shared, move || intake.finish()).await?;
        self.first = first;
        Ok(Round { taken, read, lost, full, memory })
    }

    /// Says how many records the last commit passed over because they had been deleted from the log.
    fn note_lost(&self, lost: u64) {
        if lost > 0 {
            counter!(V::METRICS.lost_records, "topic" => self.label.value.clone()).increment(lost);
            self.shared.status.lost(self.topic, lost);
            error!(topic = %self.name, lost, "records were deleted from the log before the view read them");
        }
    }

    /// Commits what was folded, the records of the offsets `read`.
    async fn commit(
        &mut self,
        topic: &Topic,
        rule: BadRecordRule,
        read: &ReadRanges,
        folded: Folded<V>,
        bad: &[DeadLetter],
    ) -> Result<(), ViewError> {
        let Shared { view, log, .. } = &*self.shared;
        let owned = self.owned.as_mut().expect("a step owns the view before it does anything else");
        let mut progress = owned.progress.clone();
        progress.extend(read.iter().map(|(partition, (_, to))| (*partition, *to)));
        let bad_records = bad.len() as u64;
        let portion = Portion { topic, epoch: owned.epoch, read, progress: &progress, bad_records };
        let (output, command) = view.prepare(portion, &mut owned.output, folded).await?;
        // Last, because the object of the letters is kept for some minutes only, and preparing may take longer.
        let letters = match rule {
            BadRecordRule::DeadLetter => dead_letter::upload(log, V::NAME, topic, bad).await?,
            BadRecordRule::Skip | BadRecordRule::Stop => None,
        };
        outcome::commit(&self.shared, topic, owned.epoch, read, letters, command).await?;
        let before = std::mem::replace(&mut owned.output, output);
        owned.progress = progress;
        view.committed(topic, &before, &owned.output);
        counter!(V::METRICS.commits, "topic" => self.label.value.clone()).increment(1);
        counter!(V::METRICS.bad_records, "topic" => self.label.value.clone()).increment(bad_records);
        if let Some(first) = bad.first()
            && let Some(left_out) = BAD_LINES.next(self.shared.env.monotonic())
        {
            let (at, reason) = first.place_and_reason();
            warn!(topic = %self.name, bad_records, first = at, reason, ?rule, left_out, "records do not fit");
        }
        Ok(())
    }
}

/// Runs work that takes a core, when it is this view's turn. Nobody waits for the store while it has the turn.
async fn compute<V: View, T: Send + 'static>(
    shared: &Shared<V>,
    work: impl FnOnce() -> Result<T, ViewError> + Send + 'static,
) -> Result<T, ViewError> {
    let _turn = shared.working.acquire().await.map_err(|_| ViewError::Closed)?;
    shared.env.blocking(work).await
}
