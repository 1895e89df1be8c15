//! The work beside commits: images, letting go of entries, and the room that both leave.
//!
//! Every handle looks now and then, and the first one that finds work does it: an advisory lock keeps the others away.
//! It belongs to the transaction, so a broker that dies gives it back and leaves nothing half done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use floe_env::{Backoff, Env};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::journal::seal::Fold;
use crate::journal::{JournalError, Lsn};
use crate::limits::{
    POSTGRES_CHUNK_PAUSE, POSTGRES_FOLD_BYTES_MAX, POSTGRES_FORGET_ROWS, POSTGRES_IMAGE_RATIO,
    POSTGRES_POLL_MAX, POSTGRES_POLL_MIN,
};

use super::error::PostgresOpenError;
use super::image::{self, Changes, Next};
use super::planted::Planted;
use super::read::{Head, ImageError, ImageReader, heads, page};
use super::seen::Mark;
use super::session::Role;
use super::state::{Lane, Ready, Shared, Tail, refused, signed, unsigned};

/// The first number of the advisory lock of this work: `FLOK`.
const KEEPING: i32 = 0x464c_4f4b;

/// Works until the handle is dropped. It looks over the connection for reads, and opens its own for work.
pub(super) async fn keep(shared: Arc<Shared>, reads: Arc<Mutex<Lane>>) {
    let mut backoff = Backoff::new(&shared.env, POSTGRES_POLL_MIN, POSTGRES_POLL_MAX);
    let mut looked = None;
    loop {
        sleep(jittered(&shared.env, shared.options.look)).await;
        let now = (shared.heard.borrow().last, shared.told.load(Ordering::SeqCst));
        if looked == Some(now) {
            continue;
        }
        match work(&shared, &reads).await {
            Ok(done) => {
                looked = done.then_some(now);
                backoff.reset();
            }
            Err(error) => {
                metrics::counter!("floe_meta_postgres_keeper_failures_total").increment(1);
                tracing::warn!(%error, "the work beside the journal in PostgreSQL failed, trying again");
                backoff.pause().await;
            }
        }
    }
}

/// Half of it to all of it, so that brokers which started together do not look together.
fn jittered(env: &Env, look: Duration) -> Duration {
    let half = look / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(env.random_u64() % nanos.saturating_add(1))
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    image: bool,
    /// The entries up to this one can go.
    forget: Lsn,
}

/// Does what is due. Returns whether nothing is left.
async fn work(shared: &Shared, reads: &Mutex<Lane>) -> Result<bool, JournalError> {
    let (due, first) = {
        let mut lane = reads.lock().await;
        let ready = lane.borrow().await?;
        let first = ready.client().query_opt("SELECT lsn FROM entries ORDER BY lsn LIMIT 1", &[]).await;
        let first = first.and_then(|row| row.map(|row| row.try_get(0)).transpose()).map_err(refused)?;
        (look(shared, ready).await?.1, first.map_or(Lsn(0), unsigned))
    };
    let forgets = first > Lsn(0) && first <= due.forget;
    if !due.image && !forgets {
        return Ok(true);
    }
    let ready = shared.ready(Role::Keeper, None).await?;
    if due.image && write_image(shared, &ready).await? {
        vacuum(&ready, "chunks, images").await?;
    }
    if forgets && forget(shared, &ready).await? {
        vacuum(&ready, "entries, tail").await?;
    }
    Ok(false)
}

async fn look(shared: &Shared, ready: &Ready) -> Result<((Tail, Vec<Head>), Due), PostgresOpenError> {
    let (tail, heads) = (ready.tail().await?, heads(ready).await?);
    let newest = heads.first();
    let behind = tail.bytes.saturating_sub(newest.map_or(0, |head| head.upto));
    metrics::gauge!("floe_meta_unfolded_entries")
        .set(tail.mark.lsn.0.saturating_sub(newest.map_or(0, |head| head.lsn.0)) as f64);
    let image = is_image_due(behind, newest.map_or(0, |head| head.bytes), shared.options.image_bytes);
    let covered: Vec<Lsn> = heads.iter().map(|head| head.lsn).collect();
    let told = Lsn(shared.told.load(Ordering::SeqCst));
    let one_is_enough = shared.plant.has(Planted::ForgetsTooEarly);
    let forget = may_go(told, tail.mark.lsn, &covered, one_is_enough);
    Ok(((tail, heads), Due { image, forget }))
}

/// Whether so many bytes of entries behind an image of so many bytes are worth the next one.
fn is_image_due(behind: u64, image: u64, due_at: u64) -> bool {
    behind > 0 && behind >= due_at.max(image / POSTGRES_IMAGE_RATIO)
}

/// The last entry that can go. It is kept elsewhere, two images have it, and it is not the last of all.
fn may_go(told: Lsn, last: Lsn, covered: &[Lsn], one_is_enough: bool) -> Lsn {
    let images = match covered {
        [_, .., older] => *older,
        [only] if one_is_enough => *only,
        _ => Lsn(0),
    };
    told.min(images).min(Lsn(last.0.saturating_sub(1)))
}

/// Begins a transaction that nobody else of this kind is in, or does not.
async fn begin_alone(shared: &Shared, ready: &Ready) -> Result<bool, PostgresOpenError> {
    ready.client().batch_execute("BEGIN").await?;
    let lock = "SELECT pg_try_advisory_xact_lock($1, $2)";
    let alone: bool =
        ready.client().query_one(lock, &[&KEEPING, &shared.server.lock_key()]).await?.try_get(0)?;
    if !alone {
        ready.client().batch_execute("ROLLBACK").await?;
    }
    Ok(alone)
}

/// Writes the next image over the older of the two, or over a damaged one. Returns whether it did.
async fn write_image(shared: &Shared, ready: &Ready) -> Result<bool, JournalError> {
    if !begin_alone(shared, ready).await? {
        return Ok(false);
    }
    let began = shared.env.monotonic();
    let ((_, heads), due) = look(shared, ready).await?;
    if !due.image {
        ready.client().batch_execute("ROLLBACK").await.map_err(refused)?;
        return Ok(false);
    }
    let mut bases: Vec<Option<&Head>> = heads.iter().map(Some).collect();
    bases.push(None);
    for base in bases {
        // What a try that failed has written is undone, and the lock is kept.
        ready.client().batch_execute("SAVEPOINT image").await.map_err(refused)?;
        match write_over(shared, ready, base).await {
            Ok(lsn) => {
                ready.client().batch_execute("COMMIT").await.map_err(refused)?;
                metrics::counter!("floe_meta_postgres_images_total").increment(1);
                let millis = began.elapsed().as_millis() as u64;
                tracing::info!(lsn = lsn.0, millis, "wrote an image of the metadata");
                return Ok(true);
            }
            Err(WriteError::Image(error @ ImageError::Damaged { .. })) if base.is_some() => {
                metrics::counter!("floe_meta_postgres_damaged_images_total").increment(1);
                tracing::error!(%error, "making the next one of the image before it");
                ready.client().batch_execute("ROLLBACK TO image").await.map_err(refused)?;
            }
            Err(WriteError::Image(error)) => return Err(error.into()),
            Err(WriteError::Journal(error)) => return Err(error),
        }
    }
    unreachable!("the last base is the empty map, which cannot be damaged")
}

enum WriteError {
    Image(ImageError),
    Journal(JournalError),
}

impl From<ImageError> for WriteError {
    fn from(error: ImageError) -> WriteError {
        WriteError::Image(error)
    }
}

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> WriteError {
        WriteError::Image(error.into())
    }
}

/// Writes the image that comes of `base` and the entries behind it, into the generation that `base` does not have.
async fn write_over(shared: &Shared, ready: &Ready, base: Option<&Head>) -> Result<Lsn, WriteError> {
    let mut reader = match base {
        Some(head) => Some(ImageReader::new(shared, ready, head)?),
        None => None,
    };
    let from = reader.as_ref().map_or(Mark::default(), ImageReader::mark);
    let (changes, end, bytes) = changes_after(shared, ready, from).await.map_err(WriteError::Journal)?;
    let upto = base.map_or(0, |head| head.upto) + bytes;
    let generation = base.map_or(0, |head| 1 - head.generation);
    let client = ready.client();
    client.execute("DELETE FROM chunks WHERE generation = $1", &[&generation]).await?;
    let mut writer = ChunkWriter { shared, ready, generation, lsn: end.lsn, chunks: 0, bytes: 0 };
    let mut next = Next::new(changes);
    while let Some(reader) = &mut reader
        && let Some(pairs) = reader.next().await?
    {
        writer.write(next.feed(pairs)).await?;
    }
    writer.write(next.finish()).await?;
    let fold = Fold { lsn: end.lsn, entry: end.link, sum: next.sum }.encode(&shared.id.to_be_bytes());
    let upsert = "INSERT INTO images (generation, lsn, fold, chunks, bytes, upto) VALUES ($1, $2, $3, $4, $5, $6) \
                  ON CONFLICT (generation) DO UPDATE SET lsn = EXCLUDED.lsn, fold = EXCLUDED.fold, \
                  chunks = EXCLUDED.chunks, bytes = EXCLUDED.bytes, upto = EXCLUDED.upto";
    let (lsn, upto, bytes) = (signed(end.lsn), upto as i64, writer.bytes as i64);
    client.execute(upsert, &[&generation, &lsn, &&fold[..], &writer.chunks, &bytes, &upto]).await?;
    Ok(end.lsn)
}

/// What the entries after a place change, where they end, and what they count. It ends early where they are too many
/// for the memory of a broker; the next image has the rest.
async fn changes_after(
    shared: &Shared,
    ready: &Ready,
    from: Mark,
) -> Result<(Changes, Mark, u64), JournalError> {
    let last = ready.tail().await?.mark.lsn;
    let (mut changes, mut end, mut bytes) = (Changes::default(), from, 0);
    while end.lsn < last && bytes < POSTGRES_FOLD_BYTES_MAX {
        let page = page(shared, ready, end).await?;
        let Some(next) = page.end else { break };
        end = next;
        bytes += page.bytes;
        changes.add(page.entries);
    }
    Ok((changes, end, bytes))
}

struct ChunkWriter<'a> {
    shared: &'a Shared,
    ready: &'a Ready,
    generation: i32,
    lsn: Lsn,
    chunks: i32,
    bytes: u64,
}

impl ChunkWriter<'_> {
    async fn write(&mut self, chunks: Vec<Vec<u8>>) -> Result<(), tokio_postgres::Error> {
        for chunk in chunks {
            let crc = image::checksum(self.shared.id, self.lsn, self.chunks.cast_unsigned(), &chunk);
            let insert = "INSERT INTO chunks (generation, chunk, pairs, crc) VALUES ($1, $2, $3, $4)";
            let crc = i64::from(crc);
            self.ready.client().execute(insert, &[&self.generation, &self.chunks, &chunk, &crc]).await?;
            self.chunks += 1;
            self.bytes += chunk.len() as u64;
            sleep(POSTGRES_CHUNK_PAUSE).await;
        }
        Ok(())
    }
}

/// Lets go of entries, the oldest first, in small transactions. Returns whether any went.
async fn forget(shared: &Shared, ready: &Ready) -> Result<bool, PostgresOpenError> {
    let mut gone = 0;
    loop {
        if !begin_alone(shared, ready).await? {
            break;
        }
        let (_, due) = look(shared, ready).await?;
        let delete = "DELETE FROM entries WHERE lsn IN (SELECT lsn FROM entries WHERE lsn <= $1 ORDER BY lsn LIMIT $2)";
        let count = POSTGRES_FORGET_ROWS;
        let deleted = ready.client().execute(delete, &[&signed(due.forget), &count]).await?;
        ready.client().batch_execute("COMMIT").await?;
        metrics::counter!("floe_meta_forgotten_commits_total").increment(deleted);
        gone += deleted;
        if deleted < count.cast_unsigned() {
            break;
        }
    }
    Ok(gone > 0)
}

/// Makes the room of rows that are gone usable again, also where the server's own vacuum is off or slow. A table that
/// somebody else has locked is left out.
async fn vacuum(ready: &Ready, tables: &str) -> Result<(), PostgresOpenError> {
    Ok(ready.client().batch_execute(&format!("VACUUM (SKIP_LOCKED) {tables}")).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_due_for_enough_entries_and_not_for_few_behind_a_large_one() {
        assert!(!is_image_due(0, 0, 0));
        assert!(!is_image_due(99, 0, 100));
        assert!(is_image_due(100, 0, 100));
        assert!(!is_image_due(100, 404, 100));
        assert!(is_image_due(101, 404, 100));
    }

    #[test]
    fn entries_go_when_two_images_and_the_history_have_them_and_never_the_last() {
        let go = |told, last, covered: &[u64]| {
            let covered: Vec<Lsn> = covered.iter().map(|lsn| Lsn(*lsn)).collect();
            may_go(Lsn(told), Lsn(last), &covered, false).0
        };
        assert_eq!(go(50, 100, &[]), 0);
        assert_eq!(go(50, 100, &[90]), 0, "one image is no copy");
        assert_eq!(go(50, 100, &[90, 40]), 40);
        assert_eq!(go(30, 100, &[90, 40]), 30);
        assert_eq!(go(u64::MAX, 100, &[100, 100]), 99);
        assert_eq!(may_go(Lsn(50), Lsn(100), &[Lsn(90)], true), Lsn(50), "the planted bug");
    }

    #[test]
    fn brokers_look_at_different_times() {
        let env = Env::real();
        let look = Duration::from_secs(1);
        let pauses: Vec<Duration> = (0..50).map(|_| jittered(&env, look)).collect();
        assert!(pauses.iter().all(|pause| look / 2 <= *pause && *pause <= look));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
