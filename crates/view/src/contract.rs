//! What a view is: the trait that it implements, and what it gives to the runner.

use std::{collections::BTreeMap, future::Future, time::Duration};

use floe_log::{Offset, PartitionId, TopicId, records::Record, topic::Topic};
use floe_meta::{DecodeError, Snapshot, Tx};
use futures::future::BoxFuture;

use crate::{
    error::ViewError,
    progress::{ProgressRecord, ReadRanges},
};

/// A view: what it makes of the records of a topic, and how that becomes visible. One value serves all topics.
///
/// The runner calls [`settings`](View::settings) to learn which topics have the view. It takes the lease of each, calls
/// [`find`](View::find), [`take_over`](View::take_over) and [`open`](View::open), and then repeats: fold the records of
/// one commit, [`prepare`](View::prepare), commit.
pub trait View: Send + Sync + 'static {
    /// Its name, in lower case. It is part of the names of leases and of the comments in envelopes, which are
    /// persisted: it never changes.
    const NAME: &'static str;
    /// What it makes of a topic, as a word in the comments of envelopes: `table`.
    const OUTPUT: &'static str;
    /// The names of the runner's metrics for this view.
    const METRICS: MetricNames;

    /// Its progress, with a kind of its own.
    type Progress: ProgressRecord;
    /// What is read of a topic's output before the lease is taken.
    type Found: Send;
    /// What the take-over gives to the new owner.
    type Taken: Send + 'static;
    /// What the owner of a topic keeps in memory of its output, as of the last commit.
    type Output: Send + Sync;
    /// What takes in the records of one commit.
    type Fold: Fold;
    /// What a piece of a job makes. A view without jobs has [`std::convert::Infallible`].
    type Made: Send + 'static;

    /// How the view of this topic works; none if the topic has no such view.
    ///
    /// # Errors
    /// A record of the map cannot be read.
    fn settings(&self, map: &Snapshot, topic: &Topic) -> Result<Option<Settings>, DecodeError>;

    /// Reads what the take-over will need and may fail to read, before anything is taken. It may be outdated when the
    /// lease is taken.
    fn find(
        &self,
        snapshot: &Snapshot,
        topic: &Topic,
    ) -> impl Future<Output = Result<Self::Found, ViewError>> + Send;

    /// Reads what the last owner left, in the journal entry that takes the lease. Pure: no I/O.
    ///
    /// # Errors
    /// The lease is not taken.
    fn take_over(tx: &mut Tx<'_>, topic: &Topic, epoch: u64) -> Result<Self::Taken, ViewError>;

    /// Makes the output ready for the first commit of this owner.
    fn open(
        &self,
        topic: &Topic,
        epoch: u64,
        found: Self::Found,
        taken: Self::Taken,
    ) -> impl Future<Output = Result<Self::Output, ViewError>> + Send;

    /// Says whether the output still serves the topic's settings.
    ///
    /// # Errors
    /// It does not; no step is made until it does.
    fn check(&self, _topic: &Topic, _output: &Self::Output) -> Result<(), ViewError> {
        Ok(())
    }

    /// Says whether the view may go on without records of a partition that were deleted before it read them.
    ///
    /// # Errors
    /// It may not; no step is made.
    fn lose(&self, _partition: PartitionId) -> Result<(), ViewError> {
        Ok(())
    }

    /// An empty fold for one commit.
    fn fold(&self, topic: &Topic, output: &Self::Output) -> Self::Fold;

    /// Makes the output of one commit durable without making it visible. Returns the output as it is after the commit,
    /// and the command that publishes it. `output` is as the last commit left it, and stays so if this one fails.
    ///
    /// The runner commits the command together with the progress and the dead letters. It checks the lease, the topic
    /// and the progress itself.
    fn prepare(
        &self,
        portion: Portion<'_>,
        output: &mut Self::Output,
        folded: <Self::Fold as Fold>::Folded,
    ) -> impl Future<Output = Result<(Self::Output, Command), ViewError>> + Send;

    /// The next piece of background work that the output needs and that no step waits for; none while it needs none. It
    /// is asked for often, so it is quick, and the work does the rest.
    fn job(&self, _topic: &Topic, _output: &Self::Output) -> Option<Job<Self::Made>> {
        None
    }

    /// Makes what a piece has made a part of the output, as [`prepare`](View::prepare) does with records. The portion
    /// has none. Without a command nothing is committed: the piece only told the owner something, or the output has
    /// moved on since it began.
    fn adopt(
        &self,
        portion: Portion<'_>,
        output: &mut Self::Output,
        made: Self::Made,
    ) -> impl Future<Output = Result<Option<(Self::Output, Command)>, ViewError>> + Send;

    /// The last command of a view that exists for a while, such as one that rebuilds an output beside the running one.
    /// It is asked for before each step; none while the view goes on. `progress` is that of the output.
    ///
    /// The command may find that the map has moved on and refuse with [`ViewError::NotYet`]: then the view goes on.
    ///
    /// # Errors
    /// A record of the map cannot be read.
    fn last(
        &self,
        _map: &Snapshot,
        _topic: &Topic,
        _progress: &BTreeMap<u32, Offset>,
    ) -> Result<Option<Command>, DecodeError> {
        Ok(None)
    }

    /// Told after each commit, for metrics.
    fn committed(&self, _topic: &Topic, _before: &Self::Output, _now: &Self::Output) {}

    /// Removes the output of a deleted topic, in the journal entry that removes its progress and its lease. Pure.
    ///
    /// # Errors
    /// Nothing is removed.
    fn forget(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError>;
}

/// Takes in the records of one commit. No I/O: it runs beside the tasks, because it may compute for long.
pub trait Fold: Send + 'static {
    /// What it makes of the records.
    type Folded: Send + 'static;

    /// Takes in one record.
    ///
    /// # Errors
    /// The step fails. A record that does not fit is no error but a [`Verdict::Bad`].
    fn push(&mut self, partition: PartitionId, record: &Record) -> Result<Verdict, ViewError>;

    /// Bytes of records taken in so far; they bound the commit.
    fn bytes(&self) -> usize;

    /// Ends the fold.
    ///
    /// # Errors
    /// The step fails.
    fn finish(self) -> Result<Self::Folded, ViewError>;
}

/// A piece of background work. It is bounded in bytes by the view, because its result stays in memory until it is
/// adopted, and it makes nothing visible. It is dropped when the view of the topic ends.
pub struct Job<M> {
    /// What it does, as a word for metrics and logs.
    pub name: &'static str,
    /// The work.
    pub work: BoxFuture<'static, Result<M, ViewError>>,
}

impl<M: 'static> Job<M> {
    /// The same job, whose pieces make something of what it makes.
    #[must_use]
    pub fn map<T>(self, of: fn(M) -> T) -> Job<T>
    where
        T: 'static,
    {
        let Job { name, work } = self;
        Job { name, work: Box::pin(async move { work.await.map(of) }) }
    }
}

/// What a fold says of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken in.
    Taken,
    /// It does not fit, for this reason. [`BadRecordRule`] says what happens to it.
    Bad(String),
}

/// What happens to a record that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecordRule {
    /// The view commits what comes before it, and stops reading its partition until the rule changes.
    Stop,
    /// It is counted and left out.
    Skip,
    /// It goes to the dead-letter topic with the reason, in the commit that moves the progress past it.
    DeadLetter,
}

/// How the view of one topic works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How old a record may be before it is in the output. Records gather for as long as that allows.
    pub freshness: Duration,
    /// Bytes of the log, as stored, that end the gathering before its time.
    pub gather_bytes: u64,
    /// What happens to bad records.
    pub bad_record: BadRecordRule,
}

/// The part of a topic's log that one commit takes in.
#[derive(Clone, Copy, Debug)]
pub struct Portion<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// The epoch of the owner's lease.
    pub epoch: u64,
    /// The offsets of each partition that has some in it.
    pub read: &'a ReadRanges,
    /// The progress of every partition after the commit.
    pub progress: &'a BTreeMap<u32, Offset>,
    /// Records in it that do not fit.
    pub bad_records: u64,
}

/// Publishes an output: pure, and run again if another commit came first.
pub type Command = Box<dyn FnMut(&mut Tx<'_>) -> Result<(), ViewError> + Send>;

/// The names of the metrics that the runner keeps for a view. Each has the label `topic` ([`crate::topic_label`]).
#[derive(Clone, Copy, Debug)]
pub struct MetricNames {
    /// Gauge: records that are not committed yet; the sum of topics that share a label.
    pub lag_records: &'static str,
    /// Histogram: seconds from the first read of a step to its commit.
    pub step_seconds: &'static str,
    /// Counter: failed steps.
    pub errors: &'static str,
    /// Histogram: seconds of a piece of a job, with the label `job`; the wait for a turn counts.
    pub job_seconds: &'static str,
    /// Counter: pieces of jobs that failed, with the label `job`.
    pub job_errors: &'static str,
    /// Gauge: when the view began to stand still, in seconds since 1970, with the label `why`
    /// ([`crate::ViewError::kind`]); 0 once it goes on. A view that never failed has none. Of topics that share a
    /// label, the one counts that has stood longest.
    pub stands_still: &'static str,
    /// Counter: commits.
    pub commits: &'static str,
    /// Counter: records that did not fit.
    pub bad_records: &'static str,
    /// Counter: records that were deleted from the log before the view read them, by retention or by a client.
    pub lost_records: &'static str,
}
