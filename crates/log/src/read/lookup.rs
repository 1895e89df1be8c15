//! Offsets by time: which record is the first from a time on, or has the largest timestamp.
//!
//! The seek index of a large section says which of its parts promise a time (`seeks.rs`); the others are passed over.
//!
//! A lookup scans the extents of its partition in the map, which may be a million, on a thread beside the tasks. Then
//! it reads the extent that it found piece by piece, and walks over the records without keeping them. So it holds one
//! piece ([`LOOKUP_READ_BYTES`], or one batch if that is larger). At most [`LOOKUPS_MAX`] lookups of all connections
//! run at a time; the others wait in FIFO order.

use std::sync::Arc;

use floe_env::{Env, Timestamp};
use floe_meta::{DecodeError, Snapshot};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::format::batch::Batch;
use crate::format::records::RecordsError;
use crate::limits::{DECODED_BYTES_MAX, LOOKUP_READ_BYTES, LOOKUPS_MAX};
use crate::map::extent::{Extent, ExtentKey};
use crate::map::ids::{Offset, PartitionId};
use crate::map::partition::{self, Head};
use crate::read::damage::FoundBy;
use crate::read::reader::Reader;
use crate::read::walk::{self, At, ReadError};

/// Looks offsets up. Clones share the turns.
#[derive(Clone)]
pub(crate) struct Lookups {
    env: Env,
    reader: Reader,
    turns: Arc<Semaphore>,
    /// On whose behalf.
    by: FoundBy,
}

/// An offset and the timestamp of its record.
type Found = Option<(Offset, Timestamp)>;

impl Lookups {
    pub(crate) fn new(env: Env, reader: Reader) -> Lookups {
        Lookups { env, reader, turns: Arc::new(Semaphore::new(LOOKUPS_MAX)), by: FoundBy::Reader }
    }

    /// The same, on somebody's behalf.
    #[must_use]
    pub(crate) fn on_behalf_of(&self, by: FoundBy) -> Lookups {
        Lookups { by, ..self.clone() }
    }

    pub(crate) async fn offset_at(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        at: At,
    ) -> Result<Found, ReadError> {
        let head = partition::head(snapshot, partition)?.ok_or(ReadError::UnknownPartition)?;
        let none = Timestamp(-1);
        match at {
            At::Earliest => Ok(Some((head.log_start, none))),
            At::Latest => Ok(Some((head.next, none))),
            // No record was ever so young.
            At::Timestamp(time) if time.0 > head.max_timestamp => Ok(None),
            At::Timestamp(time) => {
                let _turn = self.turn().await;
                self.of_time(snapshot, partition, head, time).await
            }
            At::MaxTimestamp => {
                let _turn = self.turn().await;
                self.of_max(snapshot, partition, head).await
            }
        }
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.turns.acquire().await.expect("the turns are never closed");
        metrics::gauge!("floe_log_lookups").set((LOOKUPS_MAX - self.turns.available_permits()) as f64);
        turn
    }

    async fn of_time(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        head: Head,
        time: Timestamp,
    ) -> Result<Found, ReadError> {
        let mut from = head.log_start;
        let log_start = head.log_start;
        // The extent's largest timestamp may belong to a record before the log start. In that case the search
        // continues.
        loop {
            let scan = move |map: &Snapshot| walk::extent_at(map, partition, from, time);
            let Some((key, extent)) = self.scan(snapshot, scan).await? else { return Ok(None) };
            let end = extent.next_offset(key.base);
            from = from.max(key.base);
            let found = self.first_at(snapshot, (key, extent), from, log_start, time).await?;
            if found.is_some() {
                return Ok(found);
            }
            from = end;
        }
    }

    /// The first record of an extent that is not older than `time`, at `from` or behind it, and not before `log_start`.
    async fn first_at(
        &self,
        snapshot: &Snapshot,
        (key, extent): (ExtentKey, Extent),
        mut from: Offset,
        log_start: Offset,
        time: Timestamp,
    ) -> Result<Found, ReadError> {
        let end = extent.next_offset(key.base);
        while from < end {
            let next = self.reader.next_at(snapshot, (key, extent), from, time).await?;
            let Some(next) = next else { return Ok(None) };
            from = next;
            let mut batches = self.piece(snapshot, key.partition, &mut from).await?;
            batches.retain(|batch| batch.base_offset < end);
            let find = move || walk::record_at(&batches, log_start, time, DECODED_BYTES_MAX);
            let found = self.env.blocking(find).await;
            let found = found.map_err(|error| self.corrupt(snapshot, key.partition, next, &error))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn of_max(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        head: Head,
    ) -> Result<Found, ReadError> {
        let (mut best, mut from): (Found, _) = (None, head.log_start);
        // The record with the largest timestamp of this extent may be below the log start.
        let first = walk::extents(snapshot, partition, from)?.next().transpose()?;
        if let Some((key, extent)) = first.filter(|(key, _)| key.base < head.log_start) {
            best = self.max_of(snapshot, (key, extent), from).await?;
            from = extent.next_offset(key.base);
        }
        let scan = move |map: &Snapshot| walk::extent_of_max(map, partition, from);
        let Some((key, extent)) = self.scan(snapshot, scan).await? else { return Ok(best) };
        if best.is_some_and(|(_, time)| time.0 >= extent.max_timestamp()) {
            return Ok(best);
        }
        let found = self.max_of(snapshot, (key, extent), key.base).await?;
        Ok(found.or(best))
    }

    /// The first record with the largest timestamp of an extent, at `begin` or behind it.
    async fn max_of(
        &self,
        snapshot: &Snapshot,
        (key, extent): (ExtentKey, Extent),
        begin: Offset,
    ) -> Result<Found, ReadError> {
        let promised = self.reader.max_from(snapshot, (key, extent), begin).await?;
        if let Some(time) = promised.filter(|time| time.0 >= 0) {
            let found = self.first_at(snapshot, (key, extent), begin, begin, time).await?;
            // Headers are the clients'. If none of them keeps what it promises, all have to be looked at.
            if found.is_some() {
                return Ok(found);
            }
        }
        let end = extent.next_offset(key.base);
        let (mut from, mut best): (_, Found) = (begin, None);
        while from < end {
            let better = Timestamp(best.map_or(0, |(_, best)| best.0.saturating_add(1)));
            let next = self.reader.next_at(snapshot, (key, extent), from, better).await?;
            let Some(next) = next else { break };
            from = next;
            let mut batches = self.piece(snapshot, key.partition, &mut from).await?;
            batches.retain(|batch| batch.base_offset < end);
            let find = move || walk::record_of_max(&batches, begin, DECODED_BYTES_MAX);
            let found = self.env.blocking(find).await;
            let found = found.map_err(|error| self.corrupt(snapshot, key.partition, next, &error))?;
            if found.is_some_and(|(_, time)| best.is_none_or(|(_, best)| time > best)) {
                best = found;
            }
        }
        Ok(best)
    }

    /// Runs a scan of the map on a thread beside the tasks.
    async fn scan<F>(&self, snapshot: &Snapshot, scan: F) -> Result<Option<(ExtentKey, Extent)>, ReadError>
    where
        F: FnOnce(&Snapshot) -> Result<Option<(ExtentKey, Extent)>, DecodeError> + Send + 'static,
    {
        let snapshot = snapshot.clone();
        Ok(self.env.blocking(move || scan(&snapshot)).await?)
    }

    /// The error for batches from an offset on whose bytes are not those that were stored.
    fn corrupt(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        at: Offset,
        error: &RecordsError,
    ) -> ReadError {
        let error = ReadError::Corrupt(error.to_string());
        self.reader.note(self.by, snapshot, partition, at, &error);
        error
    }

    /// The next batches, and moves `from` behind them.
    async fn piece(
        &self,
        snapshot: &Snapshot,
        partition: PartitionId,
        from: &mut Offset,
    ) -> Result<Vec<Batch>, ReadError> {
        let read = self.reader.read(self.by, snapshot, partition, *from, LOOKUP_READ_BYTES).await?;
        let last = read.batches.last();
        let last = last.ok_or_else(|| {
            ReadError::Corrupt(format!("{partition} has no batch at {from} before its high watermark"))
        })?;
        *from = last.next_offset();
        Ok(read.batches)
    }
}
