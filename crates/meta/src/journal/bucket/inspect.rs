//! A look at a journal in a bucket that changes nothing, for `floe check`.
//!
//! Read are the first object, every image with all its parts, the entries behind the newest whole one, and every byte
//! that came with a commit and is still needed. Entries below that image were read when they were folded into it; they
//! are the history, and a start does not read them.

use std::sync::Arc;

use floe_env::{Env, lock};
use floe_store::{Store, StoreError};
use futures::StreamExt;

use super::error::BucketOpenError;
use super::images::Unread;
use super::open::find;
use super::state::{BucketOptions, Core};
use crate::journal::inspected::{DamagedAttachment, Inspected};
use crate::journal::{AttachedError, Lsn};
use crate::limits::BUCKET_INSPECTED_READS;
use crate::load::fold;

/// What such a look cannot see.
const UNPROVED: &str = "\
    nothing marks the last entry of a journal in a bucket: that the newest entries were not removed \
    shows only in the high water of the writers and in the objects of the log";

/// Reads the journal of a store, and changes nothing. Brokers may write to it meanwhile: it is that of some moment.
///
/// # Errors
/// There is none, it is not the expected one, or the store does not answer.
pub async fn inspect_bucket(
    env: &Env,
    store: Arc<dyn Store>,
    options: BucketOptions,
) -> Result<Inspected, BucketOpenError> {
    let options = BucketOptions { create: false, ..options };
    let (names, journal, _) = find(env, &store, &options).await?;
    let core = Core::new(env, store, names, options, journal);
    let mut found = Inspected { notes: vec![UNPROVED.to_owned()], ..Inspected::default() };
    match core.load(true).await {
        Ok(loaded) => match fold(loaded) {
            Ok((snapshot, _)) => (found.last, found.snapshot) = (snapshot.lsn(), snapshot),
            Err(error) => found.journal.push(error.to_string()),
        },
        Err(error) => found.journal.push(error.to_string()),
    }
    if found.journal.is_empty() {
        core.inspect_attached(&mut found).await?;
    }
    core.inspect_images(&mut found).await?;
    Ok(found)
}

impl Core {
    /// Reads every byte that rode with a commit and was not released.
    async fn inspect_attached(&self, found: &mut Inspected) -> Result<(), BucketOpenError> {
        let kept: Vec<(Lsn, u64)> =
            lock(&self.state).attached.iter().map(|(lsn, attached)| (*lsn, attached.bytes)).collect();
        let reads = kept
            .into_iter()
            .map(|(lsn, bytes)| async move { (lsn, bytes, self.attached(lsn, 0..bytes).await) });
        let mut reads = futures::stream::iter(reads).buffered(BUCKET_INSPECTED_READS);
        while let Some((lsn, bytes, read)) = reads.next().await {
            found.attachments.insert(lsn, bytes);
            match read {
                Ok(_) => {}
                Err(AttachedError::Damaged { lsn, place }) => {
                    found.damaged.push(DamagedAttachment { lsn, place });
                }
                // Released by a broker, or lost: the comparison with the map says whether a record needs it.
                Err(AttachedError::Failed { .. }) if self.is_gone(lsn).await => {
                    found.attachments.remove(&lsn);
                }
                Err(error) => return Err(unanswered(error.to_string())),
            }
        }
        Ok(())
    }

    async fn is_gone(&self, lsn: Lsn) -> bool {
        let number = lock(&self.state).attached.get(&lsn).map(|attached| attached.number);
        match number {
            Some(number) => {
                let size = self.store.size(&self.names.entry(number)).await;
                matches!(size, Err(StoreError::NotFound(_)))
            }
            None => true,
        }
    }

    /// Reads every image, so that a damaged one is named although the others are enough.
    async fn inspect_images(&self, found: &mut Inspected) -> Result<(), BucketOpenError> {
        for name in self.list_images().await.map_err(|error| unanswered(error.to_string()))? {
            match self.verify_image(name).await {
                Ok(_) => {}
                Err(Unread::Unsound(error)) => found.notes.push(format!(
                    "{} is not whole: {error}. A start takes another one, and a broker writes the next",
                    self.store.url(&self.names.image(name))
                )),
                Err(Unread::Failed(error)) => return Err(unanswered(error.to_string())),
            }
        }
        Ok(())
    }
}

fn unanswered(reason: String) -> BucketOpenError {
    BucketOpenError::Store(StoreError::NotApplied(reason))
}
