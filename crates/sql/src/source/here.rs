//! The log, the lake and the store of this process.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use floe_env::{Env, Lru, Timestamp, lock};
use floe_history::map::PlacedPart;
use floe_history::{Encoder, HistoryError, read};
use floe_lake::{Batches, Lake, LakeError, TableRef, TailSchema, TailSpan};
use floe_log::extent::Extent;
use floe_log::{Log, Pinned, TopicId, walk};
use floe_meta::{DecodeError, Lsn, Snapshot};
use floe_query::{Kind, QueryError};
use floe_store::Store;

use crate::limits::{DESCRIBED_COLUMNS_MAX, TAIL_COLUMN_BYTES, TAIL_PARTITION_BYTES, TAIL_SCHEMAS_BYTES};
use crate::source::{Described, Reads, Source, Sources, Table};
use crate::told;

/// The log and the lake of this process. A clone is the same.
#[derive(Clone)]
pub(crate) struct Here {
    env: Env,
    log: Log,
    lake: Lake,
    tails: Arc<Tails>,
}

impl Here {
    pub(crate) fn new(env: Env, log: Log, lake: Lake) -> Here {
        Here { env, log, lake, tails: Arc::new(Tails::new(TAIL_SCHEMAS_BYTES)) }
    }

    /// The cut now.
    pub(crate) fn cut_now(&self) -> Cut {
        let (snapshot, now) = (self.log.pin(), self.env.now());
        Cut { snapshot, now, log: self.log.clone(), lake: self.lake.clone(), tails: self.tails.clone() }
    }

    /// The store of the log.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.log.store().clone()
    }
}

impl Sources for Here {
    fn cut(&self) -> Arc<dyn Source> {
        Arc::new(self.cut_now())
    }

    fn files(&self) -> Arc<dyn Reads> {
        Arc::new(OfStore(self.store()))
    }
}

struct OfStore(Arc<dyn Store>);

#[async_trait]
impl Reads for OfStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, String> {
        self.0.get(key, Some(range)).await.map_err(|error| error.to_string())
    }
}

/// One snapshot of the metadata. As long as it lives, nothing is deleted that it refers to.
pub(crate) struct Cut {
    snapshot: Pinned,
    now: Timestamp,
    log: Log,
    lake: Lake,
    tails: Arc<Tails>,
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cut({:?})", self.snapshot.lsn())
    }
}

#[async_trait]
impl Source for Cut {
    fn lsn(&self) -> Lsn {
        self.snapshot.lsn()
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    async fn described(&self) -> Result<Described, QueryError> {
        let tables = self.lake.tables(&self.snapshot).map_err(|error| {
            QueryError::new(Kind::Unavailable, format!("the tables cannot be listed: {error}"))
        })?;
        let columns = tables.iter().map(|table| table.schema.columns().len()).sum();
        let of = |table: TableRef| {
            let schema = (columns <= DESCRIBED_COLUMNS_MAX).then_some(table.schema);
            (table.name, schema)
        };
        Ok(Described { tables: tables.into_iter().map(of).collect(), columns })
    }

    async fn table(&self, name: &str) -> Result<Option<Table>, QueryError> {
        let found = self.lake.table(&self.snapshot, name).map_err(|error| unreadable(name, &error))?;
        let Some(table) = found else { return Ok(None) };
        let files = self.lake.data_files(&table).await.map_err(|error| unreadable(name, &error))?;
        let spans = Lake::tail_spans(&self.snapshot, &table);
        let tail_bytes = stored_bytes(&self.snapshot, &spans)
            .map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
        let TableRef { name, schema, topic, .. } = table;
        Ok(Some(Table { name, topic: topic.id, schema, files, spans, tail_bytes }))
    }

    fn batches(&self) -> Arc<dyn Batches> {
        self.lake.batches(&self.snapshot)
    }

    async fn history(&self) -> Result<Vec<PlacedPart>, QueryError> {
        read::parts(&*self.snapshot).map_err(|error| no_history(&error.into()))
    }

    async fn recent(&self) -> Result<Bytes, QueryError> {
        self.recent_rows().await.map_err(|error| no_history(&error))
    }

    async fn learned(&self, topic: TopicId) -> Option<TailSchema> {
        self.tails.get(topic)
    }

    async fn learn(&self, topic: TopicId, seen: &TailSchema) {
        self.tails.put(topic, seen.clone());
    }
}

impl Cut {
    /// The snapshot is pinned, so the journal still has these commits.
    async fn recent_rows(&self) -> Result<Bytes, HistoryError> {
        let parts = read::parts(&*self.snapshot)?;
        let mut names = read::names(self.log.store(), parts.last()).await?;
        let mut encoder = Encoder::new()?;
        let range = (read::end(&*self.snapshot)?, self.snapshot.lsn());
        read::rows_after((self.log.env(), self.log.meta()), range, &mut names, |rows| {
            for row in rows {
                encoder.push(row)?;
            }
            Ok(true)
        })
        .await?;
        Ok(self.log.env().heavy(|| encoder.finish(None))?)
    }
}

fn no_history(error: &HistoryError) -> QueryError {
    QueryError::new(Kind::Unavailable, format!("system.commits cannot be read: {error}"))
}

/// Bytes of the extents of a tail, as stored.
///
/// # Errors
/// The metadata map is damaged.
fn stored_bytes(snapshot: &Snapshot, spans: &[TailSpan]) -> Result<u64, DecodeError> {
    let mut bytes = 0;
    for span in spans.iter().filter(|span| span.from < span.to) {
        for extent in walk::extents(snapshot, span.partition, span.from)? {
            let (_, extent): (_, Extent) = extent?;
            bytes += extent.bytes();
        }
    }
    Ok(bytes)
}

fn unreadable(table: &str, error: &LakeError) -> QueryError {
    let end = if error.is_damage() { format!("; {}", told::rebuild(table)) } else { String::new() };
    QueryError::new(Kind::Unavailable, format!("table '{table}' cannot be read: {error}{end}"))
}

/// What statements have learned of long tails, so that the next statement need not decode all of them to plan.
struct Tails(Mutex<Lru<TopicId, TailSchema>>);

impl Tails {
    fn new(bytes_max: usize) -> Tails {
        Tails(Mutex::new(Lru::new(bytes_max)))
    }

    fn get(&self, topic: TopicId) -> Option<TailSchema> {
        lock(&self.0).get(&topic).cloned()
    }

    fn put(&self, topic: TopicId, seen: TailSchema) {
        let columns = seen.table.columns_used() + seen.schema.columns_used();
        let bytes = columns * TAIL_COLUMN_BYTES + seen.ends.len() * TAIL_PARTITION_BYTES;
        let evicted = lock(&self.0).insert(topic, seen, bytes);
        drop(evicted);
    }
}
