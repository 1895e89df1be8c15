//! A store that is only looked at, as the layers above read one.

use std::ops::{Bound, Range};

use async_trait::async_trait;
use bytes::Bytes;

use crate::local::open::Inspected;
use crate::{Listed, PutIfAbsent, Store, StoreError, check_key};

/// What is there, for whoever reads through the trait. Nothing is written.
#[async_trait]
impl Store for Inspected {
    async fn put(&self, key: &str, _payload: Vec<Bytes>) -> Result<(), StoreError> {
        Err(only_read(key))
    }

    async fn put_if_absent(&self, key: &str, _payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        Err(only_read(key))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let whole = 0..self.size(key).await?;
        self.read(key, range.unwrap_or(whole))
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.objects.get(key).copied().ok_or_else(|| StoreError::NotFound(key.to_owned()))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        Err(only_read(key))
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        check_key(prefix)?;
        let begin = format!("{prefix}/");
        let from = if after < begin.as_str() {
            Bound::Included(begin.clone())
        } else {
            Bound::Excluded(after.to_owned())
        };
        let inside = self.objects.range((from, Bound::Unbounded));
        let inside = inside.take_while(|(key, _)| key.starts_with(&begin)).take(count);
        Ok(inside.map(|(key, bytes)| Listed { key: key.clone(), bytes: *bytes }).collect())
    }

    fn url(&self, key: &str) -> String {
        format!("file://{}", self.path(key).display())
    }

    fn remote(&self) -> bool {
        false
    }
}

fn only_read(key: &str) -> StoreError {
    StoreError::NotApplied(format!("{key} is not written: this store is only looked at"))
}
