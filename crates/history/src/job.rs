//! The job that moves the history on, one round at a time. Only the broker that holds the lease does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Ages, Env, Timestamp, lock};
use floe_log::Log;
use floe_meta::lease::{Lease, LeaseError, Watch};
use floe_meta::{CommitError, DecodeError, Envelope, Lsn, Tx};
use floe_store::{Store, StoreError};
use tokio::time::{Instant, timeout};

use crate::command::{self, Begun, LEASE, Owner};
use crate::error::{HistoryError, Refused};
use crate::limits;
use crate::map::{self, Part, PlacedPart, Waste, object_key};
use crate::names::Names;
use crate::object::{Encoder, decode};
use crate::plan;
use crate::publish::{self, Due, Keeps, Of};
use crate::read;
use crate::waiting::{Waiting, bytes_of};

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
    /// Time after which it is written however few commits wait, but for [`limits::FRESH_COMMITS_MIN`].
    pub freshness: Duration,
    /// Commits of one part.
    pub part_commits_max: u64,
    /// Snapshots of the Iceberg table that are kept.
    pub snapshots_kept: usize,
    /// How long they are kept.
    pub snapshot_age: Duration,
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
            freshness: limits::FRESHNESS,
            part_commits_max: limits::PART_COMMITS_MAX,
            snapshots_kept: limits::SNAPSHOTS_KEPT,
            snapshot_age: limits::SNAPSHOT_AGE,
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
    /// Snapshots of the table that were published, and others that expired.
    pub published: usize,
    /// Whether more work is due at once.
    pub more: bool,
}

/// The history of a broker. Clones share it.
#[derive(Clone)]
pub struct History {
    log: Log,
    config: Config,
    owner: Owner,
    /// The commits that wait for a part, from the first one that this process has seen.
    waiting: Arc<Mutex<Waiting>>,
    /// The commit before that one.
    seen_from: Lsn,
    begun: Instant,
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
    /// Whether the commits are counted that waited when this process began.
    counted: bool,
    /// The table as it was last published.
    table: Option<publish::Known>,
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
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let counting = Arc::clone(&waiting);
        let before = log.meta().observe(move |applied| {
            lock(&counting).add(applied.lsn, bytes_of(applied.changes));
        });
        let (seen_from, begun) = (before.lsn(), log.env().monotonic());
        History { log, config, owner, waiting, seen_from, begun, turn: Arc::default() }
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
        let published = self.publish(&mut turn, &mut done).await;
        let forgot = self.forget(&mut turn);
        let cleaned = self.clean(&mut turn, &mut done).await;
        self.report()?;
        for worked in [stepped, published] {
            match worked {
                // Another broker does it.
                Err(HistoryError::Commit(CommitError::Refused(Refused::Lease(LeaseError::Held {
                    ..
                })))) => {}
                worked => worked?,
            }
        }
        forgot.and(cleaned)?;
        Ok(done)
    }

    /// Whether the next part is due that begins after `before`.
    async fn is_due(
        &self,
        turn: &mut Turn,
        before: Option<&PlacedPart>,
        now: Lsn,
    ) -> Result<bool, HistoryError> {
        let end = before.map_or(Lsn(0), |before| before.part.last);
        let commits = now.0.saturating_sub(end.0);
        if commits >= self.config.commits_due {
            return Ok(true);
        }
        let age = match before {
            Some(before) => self.env().now().0.saturating_sub(before.part.to.0),
            None => i64::try_from((self.env().monotonic() - self.begun).as_millis()).unwrap_or(i64::MAX),
        };
        let freshness = i64::try_from(self.config.freshness.as_millis()).unwrap_or(i64::MAX);
        if commits >= limits::FRESH_COMMITS_MIN && age >= freshness {
            return Ok(true);
        }
        self.count(turn, end).await?;
        Ok(commits > 1 && lock(&self.waiting).after(end) >= self.config.change_bytes_due)
    }

    /// Counts, once, the commits that waited already when this process began. They are fewer than make a part due.
    async fn count(&self, turn: &mut Turn, end: Lsn) -> Result<(), HistoryError> {
        let (mut at, mut bytes) = (end, 0_u64);
        while !turn.counted && at < self.seen_from && bytes < self.config.change_bytes_due {
            let entries = self.log.meta().history(at, limits::ENTRIES_AT_ONCE).await?;
            let Some(last) = entries.last() else {
                return Err(HistoryError::Gap { due: at.next(), found: at });
            };
            at = last.lsn;
            let before = entries.iter().take_while(|entry| entry.lsn <= self.seen_from);
            bytes += before.map(|entry| bytes_of(&entry.changes)).sum::<u64>();
        }
        if !turn.counted && end < self.seen_from {
            lock(&self.waiting).add_before(end.next(), self.seen_from, bytes);
        }
        turn.counted = true;
        Ok(())
    }

    async fn step(&self, turn: &mut Turn, done: &mut Done) -> Result<(), HistoryError> {
        let snapshot = self.log.meta().snapshot();
        let begun = self.env().monotonic();
        turn.watch.look(&snapshot, LEASE, begun)?;
        let stale = turn.watch.stale(begun, self.config.lease_ttl);
        let parts = map::parts(&snapshot)?;
        turn.barred.retain(|_, until| begun < *until);
        let end = parts.last().map_or(Lsn(0), |last| last.part.last);
        let is_due = self.is_due(turn, parts.last(), snapshot.lsn()).await?;
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
        self.put_bytes(&key, object).await?;
        // The number and `since` are those of the commit.
        Ok(Part { last, number: begun.number, bytes, crc, rows, from, to, since: Lsn(0) })
    }

    async fn finish(&self, begun: Begun, part: Part, replaced: Vec<PlacedPart>) -> Result<(), HistoryError> {
        let work = move |tx: &mut Tx<'_>| command::finish(tx, begun, part, &replaced);
        self.log.meta().commit(History::envelope(), work).await?;
        Ok(())
    }

    /// Publishes the parts as an Iceberg table, or lets its old snapshots expire, if either is due.
    async fn publish(&self, turn: &mut Turn, done: &mut Done) -> Result<(), HistoryError> {
        let snapshot = self.log.meta().snapshot();
        let (parts, table) = (map::parts(&snapshot)?, map::table(&snapshot)?);
        let age_ms = u64::try_from(self.config.snapshot_age.as_millis()).unwrap_or(u64::MAX);
        let keeps = Keeps { snapshots: self.config.snapshots_kept, age_ms };
        let Some(due) = publish::due(table.as_ref(), &parts, keeps, self.env().now()) else { return Ok(()) };
        let now = self.env().monotonic();
        turn.watch.look(&snapshot, LEASE, now)?;
        let stale = turn.watch.stale(now, self.config.lease_ttl);
        let end = parts.last().map_or(Lsn(0), |last| last.part.last);
        let (owner, place) = (self.owner.clone(), (parts.len(), end));
        let avro = publish::documents_max(table.as_ref(), &parts);
        let work = move |tx: &mut Tx<'_>| command::begin_documents(tx, &owner, stale.as_ref(), place, avro);
        let mut begun = self.log.meta().commit(History::envelope(), work).await?.reply;
        let known = match (turn.table.take(), &table) {
            (Some(known), Some(table)) if known.is_of(table) => Some(known),
            (_, Some(table)) => match publish::read(self.store(), &snapshot, table).await {
                Err(error @ HistoryError::Damaged { .. }) => {
                    tracing::warn!(%error, "the table of the history begins anew from its parts");
                    None
                }
                known => Some(known?),
            },
            (_, None) => None,
        };
        let due = if known.is_some() { due } else { Due::Snapshot };
        let of =
            Of { env: self.env(), store: self.store(), snapshot: &snapshot, parts: &parts, table, keeps };
        let Some(next) = publish::prepare(of, due, known.as_ref(), &mut begun).await? else { return Ok(()) };
        for (key, bytes) in next.files {
            self.put_bytes(&key, bytes).await?;
        }
        let published = next.published;
        let work = move |tx: &mut Tx<'_>| command::publish(tx, &begun, &published);
        self.log.meta().commit(History::envelope(), work).await?;
        turn.table = Some(next.known);
        done.published += 1;
        Ok(())
    }

    async fn put_bytes(&self, key: &str, bytes: Bytes) -> Result<(), HistoryError> {
        let length = bytes.len() as u64;
        let put = timeout(PUT_TIMEOUT, self.store().put(key, vec![bytes])).await;
        put.unwrap_or_else(|late| Err(StoreError::Unknown(format!("{key} took too long: {late}"))))?;
        metrics::counter!("floe_history_written_bytes_total").increment(length);
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
        let waste = map::wasted(&snapshot)?;
        turn.waste.look(waste.iter().map(|waste| waste.number), now);
        let is_due = |waste: &&Waste| {
            waste.lsn <= oldest && turn.waste.age(&waste.number, now) >= self.config.waste_grace
        };
        let due: Vec<&Waste> = waste.iter().filter(is_due).take(limits::WASTE_PER_ROUND).collect();
        for waste in &due {
            self.store().delete(&waste.key).await?;
        }
        if !due.is_empty() {
            let numbers: Vec<u64> = due.iter().map(|waste| waste.number).collect();
            done.deleted = due.len();
            let work = move |tx: &mut Tx<'_>| command::forget(tx, &numbers);
            self.log.meta().commit_deletion(History::envelope(), work).await?;
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
        let published = map::table(&snapshot)?.map_or(Lsn(0), |table| table.end);
        metrics::gauge!("floe_history_commits_unpublished").set(end.0.saturating_sub(published.0) as f64);
        Ok(())
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("owner", &self.owner.name).finish_non_exhaustive()
    }
}
