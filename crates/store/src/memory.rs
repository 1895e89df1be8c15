//! A store in memory, for tests and the simulation. It is as durable as its process. The brokers of a simulated
//! cluster share one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{CLUSTER_FOLDER, Listed, PutIfAbsent, Store, StoreError, check_key, concat, slice};

/// Objects in an ordered map. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// The keys of all objects in order, except those below [`CLUSTER_FOLDER`]. Checkers use them: is every object
    /// referenced, leased or in its grace period?
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys().filter(|key| !key.starts_with(CLUSTER_FOLDER)).cloned().collect()
    }

    /// Removes an object at once, for tests.
    pub fn remove(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Plants an object or replaces its bytes, for tests of damage.
    pub fn plant(&self, key: &str, bytes: Bytes) {
        self.lock().insert(key.to_owned(), bytes);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // Each critical section makes one call, so a panic cannot leave the map half changed.
        floe_env::lock(&self.objects)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        check_key(key)?;
        self.lock().insert(key.to_owned(), concat(&payload));
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        check_key(key)?;
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(PutIfAbsent::Exists);
        }
        objects.insert(key.to_owned(), concat(&payload));
        Ok(PutIfAbsent::Created)
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let object = self.lock().get(key).cloned();
        match object {
            Some(object) => slice(key, &object, range).map(|bytes| Bytes::copy_from_slice(&bytes)),
            None => Err(StoreError::NotFound(key.to_owned())),
        }
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        match self.lock().get(key) {
            Some(object) => Ok(object.len() as u64),
            None => Err(StoreError::NotFound(key.to_owned())),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        check_key(prefix)?;
        let begin = format!("{prefix}/");
        let objects = self.lock();
        let inside = objects.range(begin.clone()..).take_while(|(key, _)| key.starts_with(&begin));
        let listed = inside.filter(|(key, _)| key.as_str() > after).take(count);
        Ok(listed.map(|(key, object)| Listed { key: key.clone(), bytes: object.len() as u64 }).collect())
    }

    fn url(&self, key: &str) -> String {
        format!("memory:///{key}")
    }

    fn remote(&self) -> bool {
        false
    }
}
