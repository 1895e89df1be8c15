//! Reads: pages of entries, and everything at a start.

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::DecodeError;
use crate::journal::seal::Fold;
use crate::journal::{Entry, JournalError, Loaded, Lsn};
use crate::limits::{ENTRIES_MAX, POSTGRES_CHUNKS_READ, POSTGRES_DROPPED_READS_MAX, POSTGRES_READ_TIMEOUT};

use super::error::{PostgresOpenError, survives};
use super::image::{self, Pairs};
use super::rows::Page;
use super::seen::Mark;
use super::session::Role;
use super::state::{Lane, Ready, Shared, Tail, refused, unsigned};

/// The entries after `from` that the journal has now, at most `count`. A caller that goes away meanwhile leaves the
/// connection in order: the answer is read and thrown away.
pub(super) async fn history(
    shared: &Shared,
    lane: &Mutex<Lane>,
    from: Lsn,
    count: usize,
) -> Result<Vec<Entry>, JournalError> {
    let mut lane = lane.lock().await;
    // An answer that so many callers did not wait for may never come.
    if lane.borrow().await?.dropped >= POSTGRES_DROPPED_READS_MAX {
        lane.close();
    }
    let ready = lane.borrow().await?;
    ready.dropped += 1;
    let before = shared.link_of(from);
    let (usable, rows) = match timeout(POSTGRES_READ_TIMEOUT, ready.page(from, count)).await {
        Ok(Ok(rows)) => (true, Ok(rows)),
        Ok(Err(error)) => (survives(&error), Err(refused(error))),
        Err(_) => (false, Err(slow())),
    };
    ready.dropped = 0;
    if !usable {
        lane.close();
    }
    Ok(shared.take(from, before, &rows?)?.entries)
}

fn slow() -> JournalError {
    JournalError::NotApplied(format!(
        "PostgreSQL did not answer within {} s",
        POSTGRES_READ_TIMEOUT.as_secs()
    ))
}

/// The head of an image.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) generation: i32,
    pub(super) lsn: Lsn,
    fold: Vec<u8>,
    chunks: i32,
    /// Bytes of all chunks.
    pub(super) bytes: u64,
    /// Bytes of all entries up to the image.
    pub(super) upto: u64,
}

/// The heads of the images, the newest first.
pub(super) async fn heads(ready: &Ready) -> Result<Vec<Head>, PostgresOpenError> {
    let sql = "SELECT generation, lsn, fold, chunks, bytes, upto FROM images ORDER BY lsn DESC";
    let rows = ready.client().query(sql, &[]).await?;
    let head = |row: &tokio_postgres::Row| -> Result<Head, tokio_postgres::Error> {
        Ok(Head {
            generation: row.try_get(0)?,
            lsn: unsigned(row.try_get(1)?),
            fold: row.try_get(2)?,
            chunks: row.try_get(3)?,
            bytes: unsigned(row.try_get(4)?).0,
            upto: unsigned(row.try_get(5)?).0,
        })
    };
    Ok(rows.iter().map(head).collect::<Result<Vec<Head>, _>>()?)
}

/// Why an image was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    /// It is not what was written.
    #[error("the image of the metadata at commit {lsn} is damaged: {reason}")]
    Damaged { lsn: Lsn, reason: String },
    #[error(transparent)]
    Failed(#[from] PostgresOpenError),
}

impl From<tokio_postgres::Error> for ImageError {
    fn from(error: tokio_postgres::Error) -> ImageError {
        ImageError::Failed(error.into())
    }
}

impl From<ImageError> for JournalError {
    fn from(error: ImageError) -> JournalError {
        JournalError::NotApplied(error.to_string())
    }
}

/// Reads an image piece by piece, and compares it with its checksums.
pub(super) struct ImageReader<'a> {
    shared: &'a Shared,
    ready: &'a Ready,
    head: &'a Head,
    fold: Fold,
    sum: u64,
    next: i32,
}

impl<'a> ImageReader<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        ready: &'a Ready,
        head: &'a Head,
    ) -> Result<ImageReader<'a>, ImageError> {
        let damaged = |error: DecodeError| ImageError::Damaged { lsn: head.lsn, reason: error.to_string() };
        let fold = Fold::decode(&shared.id.to_be_bytes(), &head.fold).map_err(damaged)?;
        if fold.lsn != head.lsn {
            return Err(damaged(DecodeError::corrupt("its head is that of another image")));
        }
        Ok(ImageReader { shared, ready, head, fold, sum: 0, next: 0 })
    }

    /// The place in the history at which the image is.
    pub(super) fn mark(&self) -> Mark {
        Mark { lsn: self.fold.lsn, link: self.fold.entry }
    }

    /// The next pairs; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Pairs>, ImageError> {
        if self.next == self.head.chunks {
            return match self.sum == self.fold.sum {
                true => Ok(None),
                false => Err(self.damaged("a value is missing")),
            };
        }
        let sql = "SELECT chunk, pairs, crc FROM chunks WHERE generation = $1 AND chunk >= $2 ORDER BY chunk LIMIT $3";
        let count = POSTGRES_CHUNKS_READ;
        let rows = self.ready.client().query(sql, &[&self.head.generation, &self.next, &count]).await?;
        if rows.is_empty() {
            return Err(self.damaged(&format!("chunk {} of {} is missing", self.next, self.head.chunks)));
        }
        let mut pairs = Vec::new();
        for row in &rows {
            let (number, bytes, crc): (i32, &[u8], i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if number != self.next || number == self.head.chunks {
                return Err(self.damaged(&format!("chunk {number} is there, and {} is due", self.next)));
            }
            let found = image::checksum(self.shared.id, self.head.lsn, number.cast_unsigned(), bytes);
            if i64::from(found) != crc {
                return Err(self.damaged(&format!("chunk {number} does not match its checksum")));
            }
            let read = image::decode(bytes).map_err(|error| self.damaged(&error.to_string()))?;
            self.sum = self.sum.wrapping_add(image::sum_of(&read));
            pairs.extend(read);
            self.next += 1;
        }
        Ok(Some(pairs))
    }

    fn damaged(&self, reason: &str) -> ImageError {
        ImageError::Damaged { lsn: self.head.lsn, reason: reason.to_owned() }
    }
}

/// Everything: the newest sound image, and the entries after it. It has a connection of its own, and one view of the
/// database, so an image that is written meanwhile and entries that leave do not disturb it.
pub(super) async fn load(shared: &Shared) -> Result<Loaded, JournalError> {
    let ready = shared.ready(Role::Reads, None).await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    ready.client().batch_execute(begin).await.map_err(refused)?;
    let Tail { mark: tail, .. } = ready.tail().await?;
    let heads = heads(&ready).await?;
    let (image, at) = read_newest(shared, &ready, &heads).await?;
    let mut loaded = Loaded { image, image_lsn: at.lsn, entries: Vec::new() };
    let mut end = at;
    while end.lsn < tail.lsn {
        let page = page(shared, &ready, end).await?;
        end = page.end.ok_or_else(|| missing(end.lsn.next()))?;
        loaded.entries.extend(page.entries);
    }
    if end != tail {
        return Err(missing(tail.lsn));
    }
    shared.note(end);
    Ok(loaded)
}

/// The entries after a place whose link is known. Here none of them may be gone.
pub(super) async fn page(shared: &Shared, ready: &Ready, from: Mark) -> Result<Page, JournalError> {
    let rows = timeout(POSTGRES_READ_TIMEOUT, ready.page(from.lsn, ENTRIES_MAX)).await;
    let rows = rows.map_err(|_| slow())?.map_err(refused)?;
    match shared.take(from.lsn, Some(from.link), &rows) {
        Err(JournalError::Reload(_)) => Err(missing(from.lsn.next())),
        page => page,
    }
}

fn missing(lsn: Lsn) -> JournalError {
    JournalError::NotApplied(format!(
        "the journal is damaged in the database: commit {lsn} is not there, and no sound image has it. Restore the \
         database from a backup that has all commits"
    ))
}

/// The first image that is sound, or none at the beginning of everything.
async fn read_newest(
    shared: &Shared,
    ready: &Ready,
    heads: &[Head],
) -> Result<(Vec<(Bytes, Bytes)>, Mark), JournalError> {
    for head in heads {
        match read_whole(shared, ready, head).await {
            Err(error @ ImageError::Damaged { .. }) => {
                metrics::counter!("floe_meta_postgres_damaged_images_total").increment(1);
                tracing::error!(%error, "taking the image before it");
            }
            other => return Ok(other?),
        }
    }
    Ok((Vec::new(), Mark::default()))
}

async fn read_whole(shared: &Shared, ready: &Ready, head: &Head) -> Result<(Pairs, Mark), ImageError> {
    let mut reader = ImageReader::new(shared, ready, head)?;
    let mut all = Vec::new();
    while let Some(pairs) = timeout(POSTGRES_READ_TIMEOUT, reader.next())
        .await
        .map_err(|_| PostgresOpenError::Refused("the image was not read in time".to_owned()))??
    {
        all.extend(pairs);
    }
    Ok((all, reader.mark()))
}
