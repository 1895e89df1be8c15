//! The job that moves the history on, one round at a time. Only the broker that holds the lease does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Ages, Env, Timestamp};
use floe_log::Log;
use floe_meta::lease::{Lease, LeaseError, Watch};
use floe_meta::{CommitError, DecodeError, Envelope, Lsn, Snapshot, Tx};
use floe_store::{Store, StoreError};
use tokio::time::{Instant, timeout};

use crate::command::{self, Begun, LEASE, Owner};
use crate::error::{HistoryError, Refused};
use crate::limits;
use crate::map::{self, Loose, Part, PlacedPart, Why, object_key};
use crate::names::Names;
use crate::object::{Encoder, decode};
use crate::plan;
use crate::read;

/// The cause in the envelopes of the job's commits.
const CAUSE: &str = "history";
/// How long a PUT may take. It is shorter than the grace of waste.
const PUT_TIMEOUT: Duration = Duration::from_secs(300);

/// What tests and special deployments change. [`crate::limits`] holds the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Commits after the last part at which the next part is written.
    pub commits_due: u64,
    /// Bytes of changes at which it is written earlier.
    pub change_bytes_due: u64,
    /// Commits of one part.
    pub part_commits_max: u64,
    /// The pause between two looks.
    pub pause: Duration,
    /// The time to live of the lease.
    pub lease_ttl: Duration,
    /// How long waste is kept at least.
    pub waste_grace: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            commits_due: limits::COMMITS_DUE,
            change_bytes_due: limits::CHANGE_BYTES_DUE,
            part_commits_max: limits::PART_COMMITS_MAX,
            pause: limits::ROUND_PAUSE,
            lease_ttl: limits::LEASE_TTL,
            waste_grace: limits::WASTE_GRACE,
        }
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Commits whose rows are in the history now.
    pub commits: u64,
    /// Parts that were merged into one.
    pub merged: usize,
    /// Objects that were deleted.
    pub deleted: usize,
    /// Whether more work is due at once.
    pub more: bool,
}

/// The history of a broker. Clones share it.
#[derive(Clone)]
pub struct History {
    log: Log,
    config: Config,
    owner: Owner,
    /// Bytes of changes since the last part, as far as this process has seen them.
    change_bytes: Arc<AtomicU64>,
    /// Serialises the rounds of this process.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// What a round remembers for the next one.
#[derive(Default)]
struct Turn {
    watch: Watch,
    /// Waste, since when it is known.
    waste: Ages<u64>,
    /// The names after the last part, and its number.
    names: Option<(Option<u64>, Names)>,
    /// What the journal was told to forget.
    forgotten: Lsn,
    /// The objects that were damaged or gone, and until when they are left alone. Not more than there are parts.
    barred: BTreeMap<u64, Instant>,
}

impl Turn {
    /// Leaves an object alone for a while that cannot be read, so that others go on.
    fn bar(&mut self, placed: &PlacedPart, error: &HistoryError, now: Instant) {
        if matches!(error, HistoryError::Damaged { .. } | HistoryError::Store(StoreError::NotFound(_))) {
            self.barred.insert(placed.part.number, now + limits::DAMAGED_PAUSE);
        }
    }

    fn is_barred(&self, placed: &PlacedPart, now: Instant) -> bool {
        self.barred.get(&placed.part.number).is_some_and(|until| now < *until)
    }
}

impl History {
    /// The history of a log. Nothing is done before [`History::run`].
    pub fn new(log: Log, config: Config) -> History {
        let name = format!("{:032x}", log.env().random_u128());
        let owner = Owner { name, number: log.writer_number(), ttl: config.lease_ttl };
        let change_bytes = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&change_bytes);
        log.meta().observe(move |applied| {
            let bytes = |change: &floe_meta::Change| {
                change.key.len() + change.value.as_ref().map_or(0, |value| value.len())
            };
            let bytes: usize = applied.changes.iter().map(bytes).sum();
            seen.fetch_add(bytes as u64, Ordering::SeqCst);
        });
        History { log, config, owner, change_bytes, turn: Arc::default() }
    }

    fn env(&self) -> &Env {
        self.log.env()
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.log.store()
    }

    /// Works until the task is dropped.
    pub async fn run(self) {
        loop {
            let pause = match self.round().await {
                Ok(Done { more: true, .. }) => limits::STEP_PAUSE,
                Ok(_) => self.config.pause,
                Err(error) => {
                    metrics::counter!("floe_history_errors_total").increment(1);
                    tracing::warn!(%error, "the history was not moved on, trying again later");
                    self.config.pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Does the next step that is due, lets the journal forget what no reader needs, and deletes waste.
    ///
    /// # Errors
    /// A part of it failed. Everything is as it was, and the next round tries again.
    pub async fn round(&self) -> Result<Done, HistoryError> {
        let mut turn = self.turn.lock().await;
        let mut done = Done::default();
        let stepped = self.step(&mut turn, &mut done).await;
        let forgot = self.forget(&mut turn);
        let cleaned = self.clean(&mut turn, &mut done).await;
        self.report()?;
        match stepped {
            // Another broker does it.
            Err(HistoryError::Commit(CommitError::Refused(Refused::Lease(LeaseError::Held { .. })))) => {}
            stepped => stepped?,
        }
        forgot.and(cleaned)?;
        Ok(done)
    }

    async fn step(&self, turn: &mut Turn, done: &mut Done) -> Result<(), HistoryError> {
        let snapshot = self.log.meta().snapshot();
        let begun = self.env().monotonic();
        turn.watch.look(&snapshot, LEASE, begun)?;
        let stale = turn.watch.stale(begun, self.config.lease_ttl);
        let parts = map::parts(&snapshot)?;
        turn.barred.retain(|_, until| begun < *until);
        let end = parts.last().map_or(Lsn(0), |last| last.part.last);
        let waiting = snapshot.lsn().0.saturating_sub(end.0);
        let is_due = waiting >= self.config.commits_due
            || (waiting > 1 && self.change_bytes.load(Ordering::SeqCst) >= self.config.change_bytes_due);
        if is_due {
            let last = Lsn(snapshot.lsn().0.min(end.0 + self.config.part_commits_max));
            done.commits = self.write(turn, parts.last(), last, stale).await?;
            done.more = true;
        } else if let Some(run) = plan::merge(&parts, &|part| turn.is_barred(part, begun)) {
            self.merge(turn, run, (parts.last() == run.last(), end), stale).await?;
            (done.merged, done.more) = (run.len(), true);
        }
        Ok(())
    }

    /// Writes the rows of the commits after the last part into the next one. Returns how many they are.
    async fn write(
        &self,
        turn: &mut Turn,
        before: Option<&PlacedPart>,
        last: Lsn,
        stale: Option<Lease>,
    ) -> Result<u64, HistoryError> {
        let end = before.map_or(Lsn(0), |before| before.part.last);
        let begun = self.begin(end.next(), end, stale).await?;
        let bytes_before = self.change_bytes.load(Ordering::SeqCst);
        let mut names = self.names(turn, before).await?;
        let mut encoder = Encoder::new()?;
        let mut times: Option<(Timestamp, Timestamp)> = None;
        let journal = (self.env(), self.log.meta());
        let last = read::rows_after(journal, (end, last), &mut names, |rows| {
            for row in rows {
                times = Some((times.map_or(row.time, |(from, _)| from), row.time));
                encoder.push(row)?;
            }
            Ok(encoder.rows() < limits::PART_ROWS_MAX)
        })
        .await?;
        let Some((from, to)) = times else { return Ok(0) };
        let rows = encoder.rows();
        let object = self.env().heavy(|| encoder.finish(Some(&names)))?;
        let part = self.put(begun, object, (rows, last, from, to)).await?;
        self.finish(begun, part, Vec::new()).await?;
        turn.names = Some((Some(begun.number), names));
        self.change_bytes.fetch_sub(bytes_before, Ordering::SeqCst);
        Ok(last.0 - end.0)
    }

    /// Makes one part of neighbours.
    async fn merge(
        &self,
        turn: &mut Turn,
        run: &[PlacedPart],
        (is_last, end): (bool, Lsn),
        stale: Option<Lease>,
    ) -> Result<(), HistoryError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let begun = self.begin(first.first, end, stale).await?;
        let mut encoder = Encoder::new()?;
        let mut names = None;
        for placed in run {
            let object = read::object(self.store(), placed).await;
            let object = object.inspect_err(|error| turn.bar(placed, error, self.env().monotonic()))?;
            let damaged = |reason: String| HistoryError::Damaged { key: placed.key(), reason };
            let rows = encoder.rows();
            let wants_names = is_last && placed == last;
            names = self.env().heavy(|| -> Result<_, HistoryError> {
                let decoded = decode(object, wants_names).map_err(damaged)?;
                for batch in &decoded.batches {
                    encoder.push_batch(batch)?;
                }
                Ok(decoded.names)
            })?;
            if encoder.rows() - rows != placed.part.rows {
                return Err(damaged(format!(
                    "it has {} rows instead of {}",
                    encoder.rows() - rows,
                    placed.part.rows
                )));
            }
        }
        let rows = encoder.rows();
        let object = self.env().heavy(|| encoder.finish(names.as_ref()))?;
        let part = self.put(begun, object, (rows, last.part.last, first.part.from, last.part.to)).await?;
        self.finish(begun, part, run.to_vec()).await
    }

    /// The names after the last part.
    async fn names(&self, turn: &mut Turn, last: Option<&PlacedPart>) -> Result<Names, HistoryError> {
        let number = last.map(|last| last.part.number);
        match turn.names.take() {
            // They are put back when the part that is made with them is in the map.
            Some((found, names)) if found == number => Ok(names),
            _ => read::names(self.store(), last).await,
        }
    }

    fn envelope() -> Envelope {
        Envelope::broker(CAUSE)
    }

    async fn begin(&self, first: Lsn, end: Lsn, stale: Option<Lease>) -> Result<Begun, HistoryError> {
        let owner = self.owner.clone();
        let work = move |tx: &mut Tx<'_>| command::begin(tx, &owner, stale.as_ref(), first, end);
        Ok(self.log.meta().commit(History::envelope(), work).await?.reply)
    }

    async fn put(
        &self,
        begun: Begun,
        object: Bytes,
        (rows, last, from, to): (u64, Lsn, Timestamp, Timestamp),
    ) -> Result<Part, HistoryError> {
        let (bytes, crc) = (object.len() as u64, crc32c::crc32c(&object));
        let key = object_key(begun.first, begun.number);
        let put = timeout(PUT_TIMEOUT, self.store().put(&key, vec![object])).await;
        put.unwrap_or_else(|late| Err(StoreError::Unknown(format!("{key} took too long: {late}"))))?;
        metrics::counter!("floe_history_written_bytes_total").increment(bytes);
        // The number and `since` are those of the commit.
        Ok(Part { last, number: begun.number, bytes, crc, rows, from, to, since: Lsn(0) })
    }

    async fn finish(&self, begun: Begun, part: Part, replaced: Vec<PlacedPart>) -> Result<(), HistoryError> {
        let work = move |tx: &mut Tx<'_>| command::finish(tx, begun, part, &replaced);
        self.log.meta().commit(History::envelope(), work).await?;
        Ok(())
    }

    /// Lets the journal forget the commits whose rows every snapshot in use has in a part.
    fn forget(&self, turn: &mut Turn) -> Result<(), HistoryError> {
        let oldest = self.log.oldest_in_use()?;
        let parts = map::parts(&self.log.meta().snapshot())?;
        let known = parts.iter().take_while(|part| part.part.since <= oldest).last();
        let Some(upto) = known.map(|part| part.part.last).filter(|upto| *upto > turn.forgotten) else {
            return Ok(());
        };
        self.log.meta().forget(upto);
        turn.forgotten = upto;
        Ok(())
    }

    /// Deletes waste whose grace is over and that no snapshot in use refers to.
    async fn clean(&self, turn: &mut Turn, done: &mut Done) -> Result<(), HistoryError> {
        let (snapshot, now) = (self.log.meta().snapshot(), self.env().monotonic());
        let oldest = self.log.oldest_in_use()?;
        let waste = waste(&snapshot)?;
        turn.waste.look(waste.iter().map(|(number, _, _)| *number), now);
        let is_due = |(number, _, lsn): &&(u64, Lsn, Lsn)| {
            *lsn <= oldest && turn.waste.age(number, now) >= self.config.waste_grace
        };
        let due: Vec<_> = waste.iter().filter(is_due).take(limits::WASTE_PER_ROUND).copied().collect();
        for (number, first, _) in &due {
            self.store().delete(&object_key(*first, *number)).await?;
        }
        if !due.is_empty() {
            let numbers: Vec<u64> = due.iter().map(|(number, _, _)| *number).collect();
            let work = move |tx: &mut Tx<'_>| command::forget(tx, &numbers);
            self.log.meta().commit_deletion(History::envelope(), work).await?;
            done.deleted = due.len();
        }
        Ok(())
    }

    fn report(&self) -> Result<(), DecodeError> {
        let snapshot = self.log.meta().snapshot();
        let parts = map::parts(&snapshot)?;
        let end = parts.last().map_or(Lsn(0), |last| last.part.last);
        metrics::gauge!("floe_history_parts").set(parts.len() as f64);
        metrics::gauge!("floe_history_bytes")
            .set(parts.iter().map(|part| part.part.bytes).sum::<u64>() as f64);
        metrics::gauge!("floe_history_commits_waiting").set(snapshot.lsn().0.saturating_sub(end.0) as f64);
        Ok(())
    }
}

/// Waste: the number of each object, its first commit, and the commit at which it became waste.
fn waste(snapshot: &Snapshot) -> Result<Vec<(u64, Lsn, Lsn)>, DecodeError> {
    let mut found = Vec::new();
    for pair in snapshot.range::<Loose>(..) {
        let (number, loose) = pair?;
        if let Why::Waste { lsn, .. } = loose.why {
            found.push((number, loose.first, lsn));
        }
    }
    Ok(found)
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("owner", &self.owner.name).finish_non_exhaustive()
    }
}
