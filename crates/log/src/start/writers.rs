//! Writer numbers, and how far each writer got.
//!
//! ```text
//! floe/writers/<number, 8 digits>
//!     "floe writer 1 " start (32 hex) " " LSN (16 hex) " " ids (16 hex) " " crc32c (8 hex) "\n"
//! ```
//! A start takes the next number by a conditional put, so no two starts ever have the same, also if they have copies of
//! one journal. With each range of object ids, and now and then in between, the writer notes the last LSN that it knows
//! and the end of its ids: its high water. A journal that is below the high water of a writer it knows, or does not
//! know a writer who has taken ids, is older than its store. The objects are never deleted.

use std::sync::Arc;

use bytes::Bytes;
use floe_env::{Backoff, Env};
use floe_meta::{Counter, DecodeError, Lsn, Snapshot};
use floe_store::{PutIfAbsent, Store, StoreError};
use tokio::sync::Mutex;

use crate::error::OpenError;
use crate::limits::{START_PAUSE_MAX, START_PAUSE_MIN, START_TRIES_MAX, WRITERS_COMPARED_MAX};
use crate::map::object;
use crate::map::writer_number::{self, WRITER_NUMBER_MAX, WriterNumber};

const PREFIX: &str = "floe writer 1 ";
/// The text before the checksum.
const CHECKED_BYTES: usize = PREFIX.len() + 32 + 1 + 16 + 1 + 16 + 1;
const BYTES: usize = CHECKED_BYTES + 8 + 1;

/// How far a writer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HighWater {
    /// Random bits of the start, by which it knows its object again.
    start: u128,
    /// The last commit that the writer knew.
    lsn: Lsn,
    /// The count of the last object id that it may use; 0 before its first.
    ids: u64,
}

impl HighWater {
    /// Whether the writer knew a commit after this one.
    pub(crate) fn is_after(&self, lsn: Lsn) -> bool {
        self.lsn > lsn
    }

    pub(crate) fn encode(&self) -> Bytes {
        let text = format!("{PREFIX}{:032x} {:016x} {:016x} ", self.start, self.lsn.0, self.ids);
        assert_eq!(text.len(), CHECKED_BYTES, "every number has its width");
        Bytes::from(format!("{text}{:08x}\n", crc32c::crc32c(text.as_bytes())))
    }

    /// `None` if these are not the bytes that some writer wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<HighWater> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.get(PREFIX.len()..CHECKED_BYTES)?.split(' ');
        let start = u128::from_str_radix(words.next()?, 16).ok()?;
        let lsn = Lsn(u64::from_str_radix(words.next()?, 16).ok()?);
        let ids = u64::from_str_radix(words.next()?, 16).ok()?;
        let found = HighWater { start, lsn, ids };
        (found.encode() == bytes).then_some(found)
    }
}

/// The writer of a key; `None` if it is no such key.
pub(crate) fn number_of_key(key: &str) -> Option<WriterNumber> {
    let digits = key.strip_prefix(floe_store::CLUSTER_FOLDER)?.strip_prefix("writers/")?;
    let number = WriterNumber(digits.parse().ok()?);
    (writer_number::key(number) == key).then_some(number)
}

/// Whether the high water of a writer shows that a journal is older than the store. The journal knows writers up to
/// `known`, ends at `last`, and gave object ids up to `given`.
pub(crate) fn older(
    number: WriterNumber,
    water: &HighWater,
    known: WriterNumber,
    last: Lsn,
    given: u64,
) -> Option<String> {
    // A start that failed between taking its number and noting it in the journal has written nothing. One that went on
    // may have had no ids, because its records ride with its commits.
    if number > known && water.lsn <= last {
        return (water.ids > 0).then(|| {
            format!(
                "writer {} has written to the store, and this metadata knows writers up to {}: another process went on \
                 from a copy of it",
                number.0, known.0
            )
        });
    }
    if water.lsn > last {
        return Some(format!(
            "writer {} had commit {}, and this metadata ends at commit {last}",
            number.0, water.lsn
        ));
    }
    (water.ids > given).then(|| {
        format!(
            "writer {} had object ids up to {}, and this metadata gave ids up to {given}",
            number.0, water.ids
        )
    })
}

/// The writer numbers in a store.
pub(crate) struct Writers<'s> {
    pub(crate) env: &'s Env,
    pub(crate) store: &'s Arc<dyn Store>,
}

impl Writers<'_> {
    /// The highest number that was taken, from `known` on, which was.
    pub(crate) async fn highest(&self, known: WriterNumber) -> Result<WriterNumber, OpenError> {
        // Numbers are taken one after the other and never deleted.
        let (mut taken, mut step) = (known.0, 1);
        while self.exists(WriterNumber(taken + step)).await? {
            taken += step;
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if self.exists(WriterNumber(taken + step)).await? {
                taken += step;
            }
        }
        Ok(WriterNumber(taken))
    }

    /// Refuses a journal that some writer shows to be older than the store.
    pub(crate) async fn compare(
        &self,
        snapshot: &Snapshot,
        known: WriterNumber,
        highest: WriterNumber,
    ) -> Result<(), OpenError> {
        let unreadable = |error: DecodeError| OpenError::Metadata(error.to_string());
        let given = snapshot.get::<Counter>(&object::IDS).map_err(unreadable)?.unwrap_or_default().0;
        for number in known.0..=highest.0 {
            if number == 0 || highest.0 - number >= WRITERS_COMPARED_MAX {
                continue;
            }
            let number = WriterNumber(number);
            let Some(water) = self.high_water(number).await? else { continue };
            let reason = older(number, &water, known, snapshot.lsn(), given);
            if let Some(reason) = reason {
                return Err(OpenError::Older { url: self.store.url(&writer_number::key(number)), reason });
            }
        }
        Ok(())
    }

    /// Takes a number above `highest`.
    pub(crate) async fn take(&self, highest: WriterNumber) -> Result<(WriterNumber, HighWater), OpenError> {
        let water = HighWater { start: self.env.random_u128(), lsn: Lsn(0), ids: 0 };
        let mut number = WriterNumber(highest.0 + 1);
        let mut backoff = Backoff::new(self.env, START_PAUSE_MIN, START_PAUSE_MAX);
        let mut tries = 0;
        loop {
            if number.0 > WRITER_NUMBER_MAX {
                return Err(OpenError::Store(format!("all {WRITER_NUMBER_MAX} writer numbers are used up")));
            }
            let error =
                match self.store.put_if_absent(&writer_number::key(number), vec![water.encode()]).await {
                    Ok(PutIfAbsent::Created) => return Ok((number, water)),
                    Ok(PutIfAbsent::Exists) => None,
                    Err(error) => Some(error),
                };
            // The object decides: it may be ours, from a try whose answer was lost. No number is left out, because a
            // search for the highest stops at the first that is free.
            match self.high_water(number).await? {
                Some(found) if found == water => return Ok((number, water)),
                Some(_) => number = WriterNumber(number.0 + 1),
                None => {
                    tries += 1;
                    if tries >= START_TRIES_MAX {
                        let reason = error.map(|error| error.to_string());
                        return Err(OpenError::Store(
                            reason.unwrap_or_else(|| "no writer number was given".into()),
                        ));
                    }
                    backoff.pause().await;
                }
            }
        }
    }

    /// Takes a number above `highest` for this process.
    pub(crate) async fn begin(&self, highest: WriterNumber) -> Result<OwnWater, OpenError> {
        let (number, water) = self.take(highest).await?;
        tracing::info!(number = number.0, "took a writer number");
        Ok(OwnWater::new(Arc::clone(self.store), number, water))
    }

    async fn exists(&self, number: WriterNumber) -> Result<bool, OpenError> {
        let key = writer_number::key(number);
        let size = self.retry(|| self.store.size(&key)).await?;
        Ok(size.is_some())
    }

    /// How far a writer got; `None` if there is no such writer.
    pub(crate) async fn high_water(&self, number: WriterNumber) -> Result<Option<HighWater>, OpenError> {
        let key = writer_number::key(number);
        let Some(bytes) = self.retry(|| self.store.get(&key, None)).await? else { return Ok(None) };
        match HighWater::decode(&bytes[..bytes.len().min(BYTES + 1)]) {
            Some(water) => Ok(Some(water)),
            None => {
                Err(OpenError::Store(format!("{} is damaged, restore it from a copy", self.store.url(&key))))
            }
        }
    }

    /// Repeats a read while the store does not answer it. `None`: there is no such object.
    pub(crate) async fn retry<T, F>(&self, mut read: impl FnMut() -> F) -> Result<Option<T>, OpenError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::new(self.env, START_PAUSE_MIN, START_PAUSE_MAX);
        for _ in 1..START_TRIES_MAX {
            match read().await {
                Ok(found) => return Ok(Some(found)),
                Err(StoreError::NotFound(_)) => return Ok(None),
                Err(error) => {
                    tracing::debug!(%error, "the store did not answer, trying again");
                    backoff.pause().await;
                }
            }
        }
        match read().await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(OpenError::Store(error.to_string())),
        }
    }
}

/// The high water of this process. Clones share it.
#[derive(Clone)]
pub(crate) struct OwnWater {
    pub(crate) number: WriterNumber,
    store: Arc<dyn Store>,
    /// The last one that was written. Held while the next is being written, so that none overtakes another.
    written: Arc<Mutex<HighWater>>,
}

impl OwnWater {
    fn new(store: Arc<dyn Store>, number: WriterNumber, water: HighWater) -> OwnWater {
        OwnWater { number, store, written: Arc::new(Mutex::new(water)) }
    }

    /// Raises the high water, durably.
    pub(crate) async fn raise(&self, lsn: Lsn, ids: u64) -> Result<(), StoreError> {
        let mut written = self.written.lock().await;
        let raised = HighWater { lsn: lsn.max(written.lsn), ids: ids.max(written.ids), ..*written };
        if raised == *written {
            return Ok(());
        }
        self.store.put(&writer_number::key(self.number), vec![raised.encode()]).await?;
        *written = raised;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores carry this text, so it never changes.
    #[test]
    fn golden() {
        let water = HighWater { start: 7, lsn: Lsn(300), ids: 512 };
        let text = format!(
            "floe writer 1 00000000000000000000000000000007 000000000000012c 0000000000000200 {GOLDEN_CRC}\n"
        );
        assert_eq!(water.encode(), text);
        assert_eq!(writer_number::key(WriterNumber(12)), "floe/writers/00000012");
        assert_eq!(HighWater::decode(text.as_bytes()), Some(water));
        for at in 0..BYTES {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(HighWater::decode(&bytes), None, "byte {at}");
        }
        assert_eq!(HighWater::decode(b""), None);
    }

    const GOLDEN_CRC: &str = "3d51ba36";

    #[tokio::test(start_paused = true)]
    async fn numbers_are_found_and_taken_once() {
        let env = Env::simulated(1);
        let store: Arc<dyn Store> = Arc::new(floe_store::MemoryStore::new());
        let writers = Writers { env: &env, store: &store };
        for taken in 0..40 {
            for known in [0, taken / 2, taken] {
                assert_eq!(writers.highest(WriterNumber(known)).await.unwrap(), WriterNumber(taken));
            }
            let (number, _) = writers.take(WriterNumber(taken / 3 * 3)).await.unwrap();
            assert_eq!(number, WriterNumber(taken + 1));
        }
    }
}
