//! What the bytes of an extent are read from.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use floe_meta::{AttachedError, Lsn, Meta};
use floe_store::{Store, StoreError};

use crate::format::segment::{self, SegmentError};
use crate::limits::FOOTER_READ_BYTES;
use crate::map::extent::{Data, Place};
use crate::map::ids::ObjectId;
use crate::map::object::object_key;

/// An object in the store, or the bytes that ride with a commit in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Object(ObjectId),
    Frame(Lsn),
}

impl Source {
    pub(crate) fn of(data: &Data) -> Source {
        match data.place {
            Place::Object(object) => Source::Object(object),
            Place::Frame => Source::Frame(data.lsn),
        }
    }

    /// Bytes of it, from the store or from the journal.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub(crate) async fn fetch(
        self,
        store: &dyn Store,
        meta: &Meta,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        match self {
            Source::Object(object) => store.get(&object_key(object), Some(range)).await,
            Source::Frame(lsn) => meta.attached(lsn, range).await.map_err(|error| {
                let text = error.to_string();
                match error {
                    AttachedError::None(_) => StoreError::NotFound(text),
                    AttachedError::Range { .. } | AttachedError::Damaged { .. } => StoreError::Corrupt(text),
                    AttachedError::Failed { .. } => StoreError::NotApplied(text),
                }
            }),
        }
    }
}

/// The last bytes of a segment of `size` bytes: its footer, and maybe some in front. Reads them with one request, or
/// with two if the footer is large.
///
/// # Errors
/// What `read` says, and inside, that the bytes are not the end of a segment.
pub(crate) async fn footer_end<E, F>(
    size: u64,
    mut read: impl FnMut(Range<u64>) -> F,
) -> Result<Result<Bytes, SegmentError>, E>
where
    F: Future<Output = Result<Bytes, E>>,
{
    let end = read(size.saturating_sub(FOOTER_READ_BYTES)..size).await?;
    match segment::footer_bytes(&end) {
        Ok(length) if length > size => Ok(Err(SegmentError::FooterSize(length))),
        Ok(length) if length > end.len() as u64 => read(size - length..size).await.map(Ok),
        Ok(_) => Ok(Ok(end)),
        Err(error) => Ok(Err(error)),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Object(object) => write!(f, "object {object}"),
            Source::Frame(lsn) => write!(f, "the bytes of commit {lsn}"),
        }
    }
}
