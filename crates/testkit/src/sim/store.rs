//! The simulated store: objects that outlive every broker, behind requests that are slow, refused, lost, late or
//! applied twice. A request is a task of the world, not of the broker. So a request may land after its broker has died.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::Env;
use floe_log::WriterNumber;
use floe_store::MemoryStore;
use floe_store::{Listed, PutIfAbsent, Store, StoreError, payload_bytes};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::oneshot;

use super::weather::{End, Weather};
use crate::bug::Bug;
use crate::trace::Trace;

/// The store of a simulated cluster. A clone is the same store.
#[derive(Clone)]
pub(crate) struct SimStore {
    env: Env,
    objects: MemoryStore,
    weather: Arc<Weather>,
    trace: Trace,
    bug: Option<Bug>,
    puts: Arc<AtomicU64>,
    healed: Arc<AtomicBool>,
    audited: Arc<AtomicBool>,
}

impl SimStore {
    /// An empty store in the world of `env`.
    pub(crate) fn new(env: &Env, weather: Weather, trace: &Trace, bug: Option<Bug>) -> SimStore {
        SimStore {
            env: env.clone(),
            objects: MemoryStore::new(),
            weather: Arc::new(weather),
            trace: trace.clone(),
            bug,
            puts: Arc::default(),
            healed: Arc::default(),
            audited: Arc::default(),
        }
    }

    /// The number of requests that met a fault.
    pub(crate) fn harmed(&self) -> u64 {
        self.weather.harmed()
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.weather.heal();
        self.healed.store(true, Ordering::SeqCst);
    }

    /// From now on, it gives the files that it is asked for.
    pub(crate) fn audit(&self) {
        self.audited.store(true, Ordering::SeqCst);
    }

    /// The keys in the store.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.objects.keys()
    }

    /// Removes everything that a writer put into the store.
    pub(crate) fn forget_writer(&self, writer: WriterNumber) {
        let of_writer =
            |key: &String| floe_log::object::object_of_key(key).is_some_and(|id| id.writer() == writer);
        let keys = self.objects.keys().into_iter().filter(of_writer);
        keys.chain([floe_log::writer_number::key(writer)]).for_each(|key| self.objects.remove(&key));
    }

    /// Sends a request. `apply` is its effect, and runs as often as the weather lets the request land.
    async fn request<T, A, F>(&self, what: String, grows: bool, apply: A) -> Result<T, StoreError>
    where
        T: Send + 'static,
        A: Fn(MemoryStore) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut fate = self.weather.fate(grows);
        if self.bug == Some(Bug::StoreNeverHeals) && grows && self.healed.load(Ordering::SeqCst) {
            fate.end = End::Full;
        }
        self.trace.fold(&format!("store {what} {:?}", fate.end));
        let misplaces = self.bug == Some(Bug::StoreMisplacesLateTries);
        let misplaced = what.strip_prefix("put ").filter(|_| misplaces);
        let misplaced = misplaced.and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        let (answer, answered) = oneshot::channel();
        let (objects, weather, trace) = (self.objects.clone(), self.weather.clone(), self.trace.clone());
        let request = async move {
            tokio::time::sleep(fate.before).await;
            let orphaned = answer.is_closed().then(|| weather.orphaned());
            let applies = match (fate.end, orphaned) {
                (End::Refused | End::Full | End::LostRequest | End::Late(_), _) | (_, Some(None)) => false,
                (_, Some(Some(late))) => {
                    tokio::time::sleep(late).await;
                    true
                }
                _ => true,
            };
            if let (Some(key), Some(Some(_))) = (misplaced, orphaned) {
                let _ = objects.put(&format!("{key}.late"), Vec::new()).await;
                return;
            }
            let result = if applies { Some(apply(objects.clone()).await) } else { None };
            trace.fold(&format!("store {what} applied {applies}"));
            tokio::time::sleep(fate.after).await;
            let told = match (fate.end, result) {
                (End::Answered, Some(result)) => result,
                (End::Refused, _) => Err(StoreError::NotApplied("refused by the weather".to_owned())),
                (End::Full, _) => Err(StoreError::Full("no room in this weather".to_owned())),
                _ => Err(StoreError::Unknown("the answer was lost".to_owned())),
            };
            // Nobody listens if the broker died.
            let _ = answer.send(told);
            let late =
                if let End::Late(late) = fate.end { Some(late) } else { fate.again.filter(|_| applies) };
            if let Some(late) = late {
                tokio::time::sleep(late).await;
                let _ = apply(objects).await;
                trace.fold(&format!("store {what} applied late"));
            }
        };
        // The task belongs to the world. A crash drops this future and leaves the request in flight.
        self.env.spawn("store request", request);
        answered.await.unwrap_or_else(|_| Err(StoreError::Unknown("the world ended".to_owned())))
    }
}

/// Another data file of the same table with as many rows, if there is one.
async fn twin(objects: &MemoryStore, key: &str) -> String {
    let folder = &key[..key.rfind('/').map_or(0, |at| at + 1)];
    let rows = rows(objects, key).await;
    for other in objects.keys().into_iter().filter(|other| other.starts_with(folder) && other != key) {
        if rows.is_some() && self::rows(objects, &other).await == rows {
            return other;
        }
    }
    key.to_owned()
}

/// How many rows a data file has.
async fn rows(objects: &MemoryStore, key: &str) -> Option<i64> {
    let file = ParquetRecordBatchReaderBuilder::try_new(objects.get(key, None).await.ok()?).ok()?;
    Some(file.metadata().file_metadata().num_rows())
}

#[async_trait]
impl Store for SimStore {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        let what = format!("put {key} {}", payload_bytes(&payload));
        let number = self.puts.fetch_add(1, Ordering::SeqCst);
        let forgets = self.bug == Some(Bug::StoreForgets) && number % 40 == 39;
        let key = key.to_owned();
        self.request(what, true, move |objects| {
            let (key, payload) = (key.clone(), payload.clone());
            async move { if forgets { Ok(()) } else { objects.put(&key, payload).await } }
        })
        .await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        let what = format!("create {key} {}", payload_bytes(&payload));
        let key = key.to_owned();
        self.request(what, true, move |objects| {
            let (key, payload) = (key.clone(), payload.clone());
            async move { objects.put_if_absent(&key, payload).await }
        })
        .await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let what = format!("get {key} {range:?}");
        let confuses = self.bug == Some(Bug::StoreConfusesFiles) && !self.audited.load(Ordering::SeqCst);
        let confuses = confuses && key.ends_with(".parquet");
        let key = key.to_owned();
        self.request(what, false, move |objects| {
            let (key, range) = (key.clone(), range.clone());
            async move {
                let given = if confuses { twin(&objects, &key).await } else { key };
                objects.get(&given, range).await
            }
        })
        .await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        let what = format!("size {key}");
        if self.bug == Some(Bug::StoreHidesWriters) && key.starts_with("floe/writers/") {
            return Err(StoreError::NotFound(key.to_owned()));
        }
        let key = key.to_owned();
        self.request(what, false, move |objects| {
            let key = key.clone();
            async move { objects.size(&key).await }
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let what = format!("delete {key}");
        let forgets = match self.bug {
            Some(Bug::CleanerForgets) => key.starts_with("wal/"),
            Some(Bug::LakeCleanerForgets) => key.starts_with("lake/"),
            _ => false,
        };
        let key = key.to_owned();
        self.request(what, false, move |objects| {
            let key = key.clone();
            async move { if forgets { Ok(()) } else { objects.delete(&key).await } }
        })
        .await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        let what = format!("list {prefix} after {after}");
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.request(what, false, move |objects| {
            let (prefix, after) = (prefix.clone(), after.clone());
            async move { objects.list(&prefix, &after, count).await }
        })
        .await
    }

    fn url(&self, key: &str) -> String {
        self.objects.url(key)
    }

    fn remote(&self) -> bool {
        self.objects.remote()
    }
}
