//! The log of one broker: the handle that everything above uses.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use floe_env::{Env, Task, Timestamp};
use floe_meta::{CommitError, CounterKey, DecodeError, Envelope, Lsn, Meta, Snapshot};
use floe_store::Store;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::clean::cleaner::{Cleaned, Cleaner};
use crate::clean::deletion::{self, Below, DeleteError};
use crate::clean::retainer::{Needs, Retained, Retainer};
use crate::clean::retention::Defaults;
use crate::compact::compactor::{CompactionRound, Compactor};
use crate::config::Config;
use crate::error::OpenError;
use crate::format::codec::Compression;
use crate::format::header::{self, BatchError, Blame, Header};
use crate::format::verify::{self, Walked};
use crate::format::wal::WalEntry;
use crate::limits::{
    BATCHES_PER_REQUEST_MAX, DECOMPRESSED_BYTES_PER_REQUEST_MAX, FRAME_BYTES, LARGE_REQUEST_BYTES,
    LINGER_LOCAL, LINGER_REMOTE, STALLED_AFTER, TOPIC_CONFIG_TTL, TOPIC_CONFIGS_MAX, UPLOADS_LOCAL,
    UPLOADS_MAX, UPLOADS_REMOTE, WAITING_SHARE, WALK_APART_BYTES,
};
use crate::map::cluster::Cluster;
use crate::map::deleted::{self, Purged, Trash, Which};
use crate::map::identity::Writer;
use crate::map::ids::{Offset, PartitionId, TopicId};
use crate::map::object::ObjectKind;
use crate::map::partition::{self, Bounds};
use crate::map::topic::{self, NewTopic, Topic, TopicError};
use crate::map::topic_config::{TimeBounds, TopicConfig};
use crate::map::writer_number::WriterNumber;
use crate::merge::merger::{MergeRound, Merger};
use crate::read::attribution::{Attribution, Attributions};
use crate::read::cache::{self, Cache};
use crate::read::damage::{Damaged, Damages, FoundBy};
use crate::read::lookup::Lookups;
use crate::read::pins::Pinned;
use crate::read::reader::Reader;
use crate::read::waiters::Waiters;
use crate::read::walk::{self, At, Read, ReadError};
use crate::start::attached;
use crate::start::begin::{Begun, join};
use crate::start::session::OwnSession;
use crate::start::taken::Fenced;
use crate::start::watch::Watchman;
use crate::write::intake::{Answers, Intake, Pace};
use crate::write::leases::Ids;
use crate::write::order::{Entered, Order};
use crate::write::sequencer::{AppendError, Appended, Uploaded};
use crate::write::uploader::Uploader;
use crate::write::wal_writer::WalWriter;

const PRODUCER_IDS: CounterKey = CounterKey::named("producer");

/// Why no producer id was assigned. The caller may ask again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no producer id was given, ask again: {0}")]
pub struct ProducerIdError(String);

/// Batches of one writer for any partitions.
#[derive(Clone, Debug)]
pub struct Append {
    /// The principal that the broker authenticated, and the client's name for itself.
    pub writer: Writer,
    /// Whole batches with their partitions, each exactly one Kafka RecordBatch v2.
    pub batches: Vec<(PartitionId, Bytes)>,
}

/// The log. Clones share everything. Dropping the last clone ends the background tasks.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    /// On whose behalf this handle reads.
    by: FoundBy,
}

struct Shared {
    env: Env,
    meta: Meta,
    store: Arc<dyn Store>,
    cluster: Cluster,
    intake: Intake,
    order: Order,
    validate_compressed: bool,
    uploader: Uploader,
    fenced: Fenced,
    reader: Reader,
    lookups: Lookups,
    attributions: Attributions,
    waiters: Waiters,
    cleaner: Cleaner,
    retainer: Retainer,
    merger: Merger,
    compactor: Compactor,
    session: OwnSession,
    damages: Damages,
    budget: Arc<Semaphore>,
    /// Half of the budget, shared by large requests.
    budget_large: Arc<Semaphore>,
    budget_bytes: usize,
    topics: Mutex<BTreeMap<TopicId, Known>>,
    /// The task of the WAL writer. `close` awaits it.
    writer: Mutex<Option<Task<()>>>,
    background: Mutex<Vec<Task<()>>>,
}

/// What appends need to know about a topic, cached until `until`.
#[derive(Clone, Copy)]
struct Known {
    partitions: u32,
    max_message_bytes: usize,
    log_append_time: bool,
    compacted: bool,
    times: TimeBounds,
    until: Instant,
}

impl TimeBounds {
    /// Compares the timestamps of a batch with the broker's clock.
    fn check(self, now: Timestamp, walked: &Walked) -> Result<(), AppendError> {
        let far = |time: i64, side, setting, bound: i64| {
            AppendError::Timestamp(format!(
                "a record's timestamp, {time}, is more than {bound} ms {side} of the broker's clock ({setting}): it is \
                 milliseconds since 1970"
            ))
        };
        let (ahead, behind) = (self.after_max_ms, self.before_max_ms);
        if walked.max_timestamp > now.0.saturating_add(ahead) {
            return Err(far(walked.max_timestamp, "ahead", "message.timestamp.after.max.ms", ahead));
        }
        if walked.min_timestamp < now.0.saturating_sub(behind) {
            return Err(far(walked.min_timestamp, "behind", "message.timestamp.before.max.ms", behind));
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.intake.close();
        floe_env::lock(&self.background).iter().for_each(Task::abort);
    }
}

impl Log {
    /// Opens the log of a broker and starts its tasks. A new cluster gets its identity here.
    pub async fn open(env: Env, meta: Meta, store: Arc<dyn Store>, config: Config) -> Result<Log, OpenError> {
        let pace = pace(&config, store.remote())?;
        let damages = Damages::new(env.clone());
        let Begun { cluster, store, water, former, fenced } =
            join(&env, &meta, store, &damages, &config).await?;
        let session = OwnSession::new(env.clone(), meta.clone(), water.number, &config);
        let cache = Cache::new(env.clone(), Arc::clone(&store), meta.clone(), config.cache);
        let frames = attached::count(&meta, config.sole, &damages);
        let ids = |kind| Ids::new(env.clone(), meta.clone(), kind, water.clone(), config.times);
        let (ids, segments) = (ids(ObjectKind::Wal), ids(ObjectKind::Segment));
        let intake = Intake::new(env.clone(), &pace);
        let order = Order::new(env.clone());
        let uploader =
            Uploader { env: env.clone(), store: Arc::clone(&store), ids: ids.clone(), cache: cache.clone() };
        let writer = WalWriter::new(&uploader, &meta, pace, (&intake, &order), &session, &frames);
        let cleaner = Cleaner::new(&uploader, &meta, &config, former, session.clone(), frames.clone());
        let retainer = Retainer::new(&env, &meta, &config, ids.owner());
        let merger = Merger::new(&uploader, &meta, &intake, segments, session.clone(), &damages, &config);
        let watchman = Watchman {
            env: env.clone(),
            meta: meta.clone(),
            store: Arc::clone(&store),
            water,
            intake: intake.clone(),
            looks: config.sole && !config.journal.is_shared(),
            fenced: Arc::clone(&fenced),
        };
        let mut background = vec![env.spawn("object ids", ids.run()), env.spawn("watch", watchman.run())];
        background.push(env.spawn("session", session.clone().run()));
        background.extend(config.cleaner.then(|| env.spawn("cleaner", cleaner.clone().run())));
        background.extend(merger.start());
        let reader = Reader::new(meta.clone(), cache.clone(), frames.clone(), damages.clone());
        let shared = Shared {
            compactor: Compactor::new(
                &uploader,
                &merger.ids,
                &session,
                &frames,
                &retainer,
                &damages,
                &config,
            ),
            attributions: Attributions::new(env.clone(), meta.clone(), cache, damages.clone()),
            waiters: Waiters::of(&meta),
            meta,
            store,
            cluster,
            intake,
            order,
            validate_compressed: config.validate_compressed,
            uploader,
            fenced,
            lookups: Lookups::new(env.clone(), reader.clone()),
            reader,
            cleaner,
            retainer,
            merger,
            session,
            damages,
            budget: Arc::new(Semaphore::new(config.bytes_in_flight_max)),
            budget_large: Arc::new(Semaphore::new(config.bytes_in_flight_max / 2)),
            budget_bytes: config.bytes_in_flight_max,
            topics: Mutex::default(),
            writer: Mutex::new(Some(env.spawn_vital("wal writer", writer.run()))),
            background: Mutex::new(background),
            env,
        };
        Ok(Log { shared: Arc::new(shared), by: FoundBy::Reader })
    }

    /// The same log for a reader: damage that this handle meets is told as met by that one.
    #[must_use]
    pub fn on_behalf_of(&self, by: FoundBy) -> Log {
        Log { by, ..self.clone() }
    }

    /// The metadata of this broker.
    pub fn meta(&self) -> &Meta {
        &self.shared.meta
    }

    /// The metadata as it is now, for a reader. As long as it is held, no object of the log is deleted that it refers
    /// to.
    pub fn pin(&self) -> Pinned {
        self.shared.session.pins.pin()
    }

    /// No reader of any broker uses a snapshot before this commit, as far as this broker knows.
    ///
    /// # Errors
    /// The record of a session cannot be read.
    pub fn oldest_in_use(&self) -> Result<Lsn, DecodeError> {
        self.shared.session.oldest_of_all()
    }

    /// The store. Requests through this handle count in the metrics.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Clock, randomness and tasks.
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The id of the cluster as Kafka clients see it: 22 characters.
    pub fn cluster_id(&self) -> String {
        self.shared.cluster.id()
    }

    /// The number of this start, which is part of the name of everything that this process writes.
    pub fn writer_number(&self) -> WriterNumber {
        self.shared.uploader.ids.writer()
    }

    /// Returns when another process has started on the store, with a copy of the metadata or with the same journal.
    /// From then on this log takes no records, and its process should end. Never returns where several brokers share
    /// the journal.
    pub async fn fenced(&self) -> WriterNumber {
        let mut newer = self.shared.fenced.subscribe();
        let seen = newer.wait_for(Option::is_some).await.expect("the log holds the sender");
        (*seen).expect("waited for")
    }

    /// Whether the process before this one lived on after this start, on a copy of the journal. Then nothing that it
    /// may have written since may be deleted.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn former_lived_on(&self) -> Result<bool, OpenError> {
        self.shared.cleaner.former.lived_on().await
    }

    /// Creates a topic. With `validate_only`, only says whether that would work.
    pub async fn create_topic(
        &self,
        who: &Writer,
        new: NewTopic,
        validate_only: bool,
    ) -> Result<Topic, TopicError> {
        if validate_only {
            // The same command on a copy of the map that is thrown away.
            let snapshot = self.shared.meta.snapshot();
            let envelope = Envelope { time: self.shared.env.now(), ..envelope(who) };
            return topic::create(&mut floe_meta::Tx::new(&snapshot, &envelope), &new);
        }
        let created = self.shared.meta.commit(envelope(who), move |tx| topic::create(tx, &new)).await;
        created.map(|committed| committed.reply).map_err(topic_error)
    }

    /// Deletes a topic with its records. It can come back as long as its setting `floe.trash.ms` says, or that of the
    /// broker. The store loses its objects a grace period after that.
    pub async fn delete_topic(&self, who: &Writer, id: TopicId) -> Result<(), TopicError> {
        let trash = self.shared.cleaner.trash;
        let delete = move |tx: &mut floe_meta::Tx<'_>| deleted::delete(tx, id, trash).map(drop);
        let deleted = self.shared.meta.commit_deletion(envelope(who), delete).await;
        self.topics().remove(&id);
        deleted.map(drop).map_err(topic_error)
    }

    /// Brings a deleted topic back, under `new_name` if there is one. Removed records need one.
    pub async fn undelete_topic(
        &self,
        who: &Writer,
        which: Which,
        new_name: Option<String>,
    ) -> Result<Topic, TopicError> {
        let undelete = move |tx: &mut floe_meta::Tx<'_>| deleted::undelete(tx, &which, new_name.as_deref());
        let envelope = Envelope { cause: Some("undelete".to_owned()), ..envelope(who) };
        self.shared.meta.commit(envelope, undelete).await.map(|done| done.reply).map_err(topic_error)
    }

    /// Lets deleted topics go for good that could come back. The store loses their objects after the grace period.
    pub async fn purge_topics(&self, who: &Writer, which: Which) -> Result<Purged, TopicError> {
        let envelope = Envelope { cause: Some("purge".to_owned()), ..envelope(who) };
        let mut purged = Purged::default();
        loop {
            let which = which.clone();
            let purge = move |tx: &mut floe_meta::Tx<'_>| deleted::purge(tx, &which);
            let done = self.shared.meta.commit_deletion(envelope.clone(), purge).await.map_err(topic_error);
            let Purged { topics, bytes, more } = match done {
                Ok(done) => done.reply,
                // Others let the rest go meanwhile.
                Err(TopicError::NothingDeleted(_)) if purged.topics > 0 => return Ok(purged),
                Err(error) => return Err(error),
            };
            purged.topics += topics;
            purged.bytes = purged.bytes.saturating_add(bytes);
            if !more {
                return Ok(purged);
            }
        }
    }

    /// What this broker keeps of deleted topics that do not say it themselves, and of all together.
    pub fn trash(&self) -> Trash {
        self.shared.cleaner.trash
    }

    /// Memory that requests above [`LARGE_REQUEST_BYTES`] share.
    pub fn large_requests_bytes(&self) -> usize {
        self.shared.budget_bytes / 2
    }

    /// Waits until the memory for a request of this size is free. Hold the permit until the append is answered.
    ///
    /// A request larger than the whole budget gets all of it. Requests above [`LARGE_REQUEST_BYTES`] share half of
    /// the budget and wait for that half first, so that a few slow ones cannot stop the small ones.
    pub async fn reserve(&self, bytes: usize) -> Permit {
        let large = match bytes > LARGE_REQUEST_BYTES {
            true => Some(share(&self.shared.budget_large, bytes, self.large_requests_bytes()).await),
            false => None,
        };
        let permit = share(&self.shared.budget, bytes, self.shared.budget_bytes).await;
        let used =
            self.shared.budget_bytes - self.shared.budget.available_permits().min(self.shared.budget_bytes);
        metrics::gauge!("floe_log_reserved_bytes").set(used as f64);
        Permit { _permit: permit, _large: large }
    }

    /// Appends batches. The call fixes the order: of two calls for one partition, the earlier one gets the lower
    /// offsets. The ticket is answered when everything is durable, in the order of the request's batches.
    ///
    /// Dropping the ticket does not cancel the append.
    pub fn append(&self, request: Append) -> AppendTicket {
        self.append_of(request, usize::MAX)
    }

    /// The same as [`Log::append`], of batches that lie in one buffer of so many bytes. The tail keeps a large one that
    /// is nearly all of it as it is, without a copy.
    pub fn append_of(&self, request: Append, buffer: usize) -> AppendTicket {
        let Append { writer, batches } = request;
        let mut results: Vec<Option<Result<Appended, AppendError>>> = Vec::with_capacity(batches.len());
        let taken = batches.len().min(BATCHES_PER_REQUEST_MAX);
        let (mut entries, mut entered) = (Vec::with_capacity(taken), Vec::with_capacity(taken));
        let snapshot = self.shared.meta.snapshot();
        let mut decompressed_left = DECOMPRESSED_BYTES_PER_REQUEST_MAX;
        for (at, (partition, bytes)) in batches.into_iter().enumerate() {
            if at >= BATCHES_PER_REQUEST_MAX {
                results.push(Some(Err(self.beyond(partition, &bytes))));
                continue;
            }
            match self.ordered(&snapshot, &writer, partition, bytes, &mut decompressed_left) {
                Ok((entry, place)) => {
                    entries.push(entry);
                    entered.push(place);
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        metrics::counter!("floe_log_appended_batches_total").increment(entries.len() as u64);
        let bytes: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
        metrics::counter!("floe_log_appended_bytes_total").increment(bytes as u64);
        cache::keep_alone(&mut entries, buffer);
        let answers = match entries.is_empty() {
            true => None,
            false => Some(self.push(entries, entered)),
        };
        AppendTicket { results, answers }
    }

    /// Queues batches. If the queue is full, they failed as if their object had.
    fn push(
        &self,
        entries: Vec<WalEntry>,
        entered: Vec<Option<Entered>>,
    ) -> Result<oneshot::Receiver<Answers>, AppendError> {
        let queued = self.shared.intake.push(entries, entered.clone());
        if let Err(error) = &queued {
            entered.into_iter().flatten().for_each(|entered| self.shared.order.leave(entered, Err(error)));
        }
        queued
    }

    /// Uploads batches without assigning offsets. The caller commits [`Uploaded`] with
    /// [`crate::write::sequencer::sequence`] inside a commit of its own, within minutes. Batches may exceed the
    /// topic's `max.message.bytes`: that limit is for producers, and a caller that derives records from others
    /// cannot send less.
    pub async fn upload(&self, request: Append) -> Result<Uploaded, AppendError> {
        let snapshot = self.shared.meta.snapshot();
        let entry = |(partition, bytes): (PartitionId, Bytes)| {
            let known = self.known(&snapshot, partition.topic)?;
            let header = header::validate(&bytes).map_err(|error| refused(&error))?;
            self.entry(&known, &request.writer, partition, header, bytes)
        };
        let entries = request.batches.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        self.shared.uploader.upload_detached(entries).await
    }

    /// Reads batches from `from` on, as they were at `snapshot`. Returns at least one batch if there is one, then
    /// as many as fit `max_bytes`; none at the high watermark. The first batch may begin before `from`.
    pub async fn read(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Read, ReadError> {
        let read = self.shared.reader.read(self.by, snapshot, partition, from, max_bytes).await;
        read.map_err(|error| self.now(partition, from, error))
    }

    /// The error of a read of an old snapshot, in the light of the current one.
    fn now(&self, partition: PartitionId, from: Offset, error: ReadError) -> ReadError {
        match error {
            ReadError::Corrupt(_) | ReadError::Gone { .. } => self.removed(partition, from).unwrap_or(error),
            error => error,
        }
    }

    /// Whether records that cannot be read have been removed since the reader took its snapshot, longer ago than the
    /// cleaner's grace. Then nothing is damaged.
    fn removed(&self, partition: PartitionId, from: Offset) -> Option<ReadError> {
        let error = walk::check(&self.shared.meta.snapshot(), partition, from).err()?;
        matches!(error, ReadError::OutOfRange { .. } | ReadError::UnknownPartition).then_some(error)
    }

    /// Returns when one of the partitions has a high watermark above its given offset, or no longer exists.
    pub fn wait(&self, partitions: &[(PartitionId, Offset)]) -> impl Future<Output = ()> + Send + use<> {
        self.shared.waiters.wait(&self.shared.meta, partitions)
    }

    /// The readable bounds of a partition; `None` if it does not exist.
    pub fn bounds(snapshot: &Snapshot, partition: PartitionId) -> Option<Bounds> {
        match partition::head(snapshot, partition) {
            Ok(head) => head.map(|head| head.bounds()),
            Err(error) => {
                // Reads of this partition report the damage. Here the partition looks as if it did not exist.
                tracing::error!(%partition, %error, "the head of a partition cannot be read");
                None
            }
        }
    }

    /// Looks up an offset; `None` if no record matches. The timestamp is -1 for the earliest and the latest
    /// offset.
    pub async fn offset_at(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        at: At,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        self.shared.lookups.on_behalf_of(self.by).offset_at(snapshot, partition, at).await
    }

    /// Who wrote the offsets of a range, and in which commits, as of `snapshot`, in at most `runs_max` runs.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub async fn attribution(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        range: Range<Offset>,
        runs_max: usize,
    ) -> Result<Attribution, ReadError> {
        let found = self.shared.attributions.of(self.by, snapshot, partition, range.clone(), runs_max).await;
        found.map_err(|error| self.now(partition, range.start, error))
    }

    /// Whether appends are likely to succeed, judged by the last one. Callers use it to decide whether to send more.
    ///
    /// # Errors
    /// Why the last append failed, for [`limits::TROUBLE_TIME`](crate::limits::TROUBLE_TIME) after the failure.
    pub fn writable(&self) -> Result<(), String> {
        if let Some(time) = self.shared.meta.stalled().filter(|time| *time >= STALLED_AFTER) {
            return Err(format!(
                "the metadata journal has not finished a write for {} seconds: nothing can be acknowledged",
                time.as_secs()
            ));
        }
        self.shared.intake.trouble().map_or(Ok(()), Err)
    }

    /// A new producer id, never assigned before, and its first epoch, 0.
    pub async fn producer_id(&self, who: &Writer) -> Result<(i64, i16), ProducerIdError> {
        let take = |tx: &mut floe_meta::Tx<'_>| tx.next_counter(&PRODUCER_IDS);
        let given = self.shared.meta.commit(envelope(who), take).await;
        let number = given.map_err(|error| ProducerIdError(error.to_string()))?.reply;
        Ok((i64::try_from(number).expect("a counter of 63 bits does not run out"), 0))
    }

    /// Runs one round of the cleaner now: ends expired leases and deletes old trash.
    pub async fn clean(&self) -> Result<Cleaned, String> {
        self.shared.cleaner.round().await.map_err(|error| error.to_string())
    }

    /// Lets records go that are older or more than their topics keep, or that a later one of their key replaces, from
    /// now on. Call it once, when the views are known that this has to wait for.
    pub fn enforce_retention(&self, needs: Vec<Needs>) {
        let retainer = &self.shared.retainer;
        if retainer.needs.set(needs).is_ok() && retainer.competes {
            let env = &self.shared.env;
            let mut background = floe_env::lock(&self.shared.background);
            background.push(env.spawn("retention", retainer.clone().run()));
            background.push(env.spawn("compaction", self.shared.compactor.clone().run()));
        }
    }

    /// Runs one round of retention now.
    pub async fn retain(&self) -> Result<Retained, String> {
        self.shared.retainer.round().await.map_err(|error| error.to_string())
    }

    /// Merges once, if a merge is due.
    pub async fn merge(&self) -> Result<MergeRound, String> {
        self.shared.merger.round().await.map_err(|error| error.to_string())
    }

    /// Records of a topic that this process could not read, whoever tried, in the order of partitions and offsets. They
    /// stay where they are.
    pub fn damage(&self, topic: TopicId) -> Vec<Damaged> {
        self.shared.damages.of_topic(&self.shared.meta.snapshot(), topic)
    }

    /// Runs one round of compaction now.
    pub async fn compact(&self) -> Result<CompactionRound, String> {
        self.shared.compactor.round().await.map_err(|error| error.to_string())
    }

    /// How long topics keep their records that do not say it themselves.
    pub fn retention_defaults(&self) -> Defaults {
        self.shared.retainer.defaults
    }

    /// Deletes the records of partitions below an offset each, and returns the first offsets that are left. Of a
    /// partition with more extents than one commit removes, a failure may leave some of them deleted.
    pub async fn delete_records(&self, who: &Writer, below: &[Below]) -> Vec<Result<Offset, DeleteError>> {
        let envelope = Envelope { cause: Some("delete records".to_owned()), ..envelope(who) };
        deletion::delete(&self.shared.meta, &envelope, below).await
    }

    /// Completes the appends in flight and gives the leases back. Refuses appends from now on.
    pub async fn close(self) {
        self.shared.intake.close();
        let writer = floe_env::lock(&self.shared.writer).take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer did not end in order");
        }
        floe_env::lock(&self.shared.background).iter().for_each(Task::abort);
        self.shared.merger.close().await;
        self.shared.compactor.close().await;
        // Both take their ids there.
        self.shared.merger.ids.close().await;
        self.shared.session.close().await;
        // Last, because it notes the last commit in the store.
        self.shared.uploader.ids.close().await;
    }

    /// Validates a client's batch, and lets it in behind the others of its producer.
    fn ordered(
        &self,
        snapshot: &Snapshot,
        writer: &Writer,
        partition: PartitionId,
        bytes: Bytes,
        decompressed_left: &mut u64,
    ) -> Result<(WalEntry, Option<Entered>), AppendError> {
        let known = self.known(snapshot, partition.topic)?;
        if bytes.len() > known.max_message_bytes {
            return Err(AppendError::TooLarge { size: bytes.len(), max: known.max_message_bytes });
        }
        let mut bytes = bytes;
        let mut header = header::validate(&bytes).map_err(|error| refused(&error))?;
        if header.base_offset != 0 {
            return Err(refused(&BatchError::BaseOffset(header.base_offset)));
        }
        if header.is_log_append_time() {
            // A client cannot say that the times are the broker's: the largest would be that of all records, whatever
            // the topic allows. Kafka takes the batch and that bit from it.
            bytes = header::without_append_time(&bytes);
            header = header::validate(&bytes).map_err(|error| refused(&error))?;
        }
        self.look_inside(&known, &mut header, &bytes, decompressed_left)?;
        let mut entry = self.entry(&known, writer, partition, header, bytes)?;
        let entered = self.shared.order.enter(partition, &header)?;
        entry.follows = entered.is_some_and(|(_, follows)| follows);
        Ok((entry, entered.map(|(entered, _)| entered)))
    }

    /// Refuses a batch beyond those that one request may hold. It holds back the later batches of its producer, as a
    /// failed one does.
    fn beyond(&self, partition: PartitionId, bytes: &Bytes) -> AppendError {
        metrics::counter!("floe_log_appends_refused_total", "limit" => "batches of a request").increment(1);
        let error = AppendError::TooManyBatches;
        if let Ok(header) = header::validate(bytes)
            && let Ok(Some((entered, _))) = self.shared.order.enter(partition, &header)
        {
            self.shared.order.leave(entered, Err(&error));
        }
        error
    }

    /// Checks what a batch says about its records, by a walk over them. The largest timestamp found replaces the
    /// client's in `header`. Without a walk, the client's timestamps are checked.
    fn look_inside(
        &self,
        known: &Known,
        header: &mut Header,
        bytes: &[u8],
        left: &mut u64,
    ) -> Result<(), AppendError> {
        let codec = header.compression().map_err(|error| refused(&error))?;
        let mut walk = || verify::walk(header, codec, bytes, left);
        let walked = if codec != Compression::None && !self.shared.validate_compressed {
            Ok(Walked::claimed(header))
        } else if bytes.len() >= WALK_APART_BYTES {
            self.shared.env.heavy(walk)
        } else {
            walk()
        };
        let walked = walked.map_err(|error| {
            metrics::counter!("floe_log_undecodable_batches_total").increment(1);
            match error.blame() {
                Blame::Undecodable => AppendError::Undecodable(error.to_string()),
                Blame::Transport | Blame::Client => AppendError::Invalid(error.to_string()),
            }
        })?;
        if let Some(index) = walked.keyless.filter(|_| known.compacted) {
            let reason = format!("record {index} has no key, and the topic is compacted by key");
            return Err(AppendError::Invalid(reason));
        }
        if !known.log_append_time {
            known.times.check(self.shared.env.now(), &walked)?;
        }
        header.max_timestamp = walked.max_timestamp;
        Ok(())
    }

    /// The form in which a validated batch is stored.
    fn entry(
        &self,
        known: &Known,
        writer: &Writer,
        partition: PartitionId,
        mut header: Header,
        mut bytes: Bytes,
    ) -> Result<WalEntry, AppendError> {
        if partition.index >= known.partitions {
            return Err(AppendError::UnknownPartition);
        }
        if known.log_append_time {
            bytes = header::with_append_time(&bytes, self.shared.env.now().0);
            header = Header::parse(&bytes).map_err(|error| refused(&error))?;
        }
        Ok(WalEntry { partition, writer: writer.clone(), header, bytes, follows: false, alone: false })
    }

    /// The topic's limits, looked up at most once per [`TOPIC_CONFIG_TTL`]: a changed setting takes that long to
    /// apply.
    fn known(&self, snapshot: &Snapshot, id: TopicId) -> Result<Known, AppendError> {
        let now = self.shared.env.monotonic();
        if let Some(known) = self.topics().get(&id).filter(|known| known.until > now) {
            return Ok(*known);
        }
        let topic =
            topic::by_id(snapshot, id).map_err(|error| AppendError::Unavailable(error.to_string()))?;
        let topic = topic.ok_or(AppendError::UnknownPartition)?;
        let config = TopicConfig::of(&topic);
        let known = Known {
            partitions: topic.partitions,
            max_message_bytes: config.max_message_bytes,
            log_append_time: config.log_append_time,
            compacted: config.compacted,
            times: config.times,
            until: now + TOPIC_CONFIG_TTL,
        };
        let mut topics = self.topics();
        if topics.len() >= TOPIC_CONFIGS_MAX {
            topics.clear();
        }
        topics.insert(id, known);
        Ok(known)
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<TopicId, Known>> {
        floe_env::lock(&self.shared.topics)
    }
}

/// Memory reserved for a request. Dropping it releases the memory.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    _large: Option<OwnedSemaphorePermit>,
}

/// A future of the answers to an append.
#[derive(Debug)]
pub struct AppendTicket {
    /// Results known in advance: batches refused before they were queued.
    results: Vec<Option<Result<Appended, AppendError>>>,
    /// The answers for the other batches, or why they were not queued.
    answers: Option<Result<oneshot::Receiver<Answers>, AppendError>>,
}

impl Future for AppendTicket {
    type Output = Vec<Result<Appended, AppendError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let queued = self.results.iter().filter(|result| result.is_none()).count();
        let answers = match &mut self.answers {
            None => Vec::new(),
            Some(Err(error)) => vec![Err(error.clone()); queued],
            Some(Ok(receiver)) => match Pin::new(receiver).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(answers)) => answers,
                Poll::Ready(Err(_)) => {
                    vec![Err(AppendError::Unknown("the broker ended before the answer".into())); queued]
                }
            },
        };
        assert_eq!(answers.len(), queued, "each queued batch has one answer");
        let mut answers = answers.into_iter();
        let results = std::mem::take(&mut self.results);
        let merged = results
            .into_iter()
            .map(|known| known.or_else(|| answers.next()).expect("as many as were queued"));
        Poll::Ready(merged.collect())
    }
}

/// Takes `bytes` of a budget, at most `most`, once they are free.
async fn share(budget: &Arc<Semaphore>, bytes: usize, most: usize) -> OwnedSemaphorePermit {
    let share = u32::try_from(bytes.min(most)).unwrap_or(u32::MAX);
    Arc::clone(budget).acquire_many_owned(share).await.expect("the budget is never closed")
}

fn envelope(who: &Writer) -> Envelope {
    Envelope::client(who.principal.clone(), who.client_id.clone())
}

fn refused(error: &BatchError) -> AppendError {
    match error.blame() {
        Blame::Transport => AppendError::Corrupt(error.to_string()),
        Blame::Client => AppendError::Invalid(error.to_string()),
        Blame::Undecodable => AppendError::Undecodable(error.to_string()),
    }
}

fn topic_error(error: CommitError<TopicError>) -> TopicError {
    match error {
        CommitError::Refused(error) => error,
        CommitError::NotApplied(reason) => TopicError::Unavailable(reason),
        CommitError::Unknown(reason) => TopicError::Unknown(reason),
        CommitError::Closed => TopicError::Unknown("the broker is shutting down".into()),
    }
}

fn pace(config: &Config, remote: bool) -> Result<Pace, OpenError> {
    if config.object_bytes == 0 || config.uploads_max == Some(0) || config.bytes_in_flight_max == 0 {
        return Err(OpenError::Config("object_bytes, uploads_max and bytes_in_flight_max are at least 1"));
    }
    if config.bytes_in_flight_max > Semaphore::MAX_PERMITS {
        return Err(OpenError::Config("bytes_in_flight_max is out of range"));
    }
    if config.uploads_max.is_some_and(|uploads| uploads > UPLOADS_MAX) {
        return Err(OpenError::Config("uploads_max is at most 64"));
    }
    if config.times.lease_ids == 0 {
        return Err(OpenError::Config("lease_ids is at least 1"));
    }
    config.merge.check().map_err(OpenError::Config)?;
    Ok(Pace {
        object_bytes: config.object_bytes,
        frame_bytes: config.object_bytes.min(FRAME_BYTES),
        linger: config.linger.unwrap_or(if remote { LINGER_REMOTE } else { LINGER_LOCAL }),
        uploads_max: config.uploads_max.unwrap_or(if remote { UPLOADS_REMOTE } else { UPLOADS_LOCAL }),
        waiting_bytes_max: config.bytes_in_flight_max.saturating_mul(WAITING_SHARE),
    })
}
