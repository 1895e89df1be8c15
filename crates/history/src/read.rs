//! Reads the history: objects of parts, and rows of the entries after them.

use std::sync::Arc;

use bytes::Bytes;
use floe_env::Env;
use floe_meta::{JournalError, Lsn, Meta};
use floe_store::Store;

use crate::error::HistoryError;
use crate::limits::{ENTRIES_AT_ONCE, OBJECT_BYTES_MAX};
use crate::map::PlacedPart;
use crate::names::Names;
use crate::object::names_of;
use crate::row::Row;
use crate::rows::rows;

pub use crate::map::{end, parts};

/// The object of a part, compared with its checksum.
///
/// # Errors
/// The store does not answer, or the object is damaged or gone.
pub async fn object(store: &Arc<dyn Store>, placed: &PlacedPart) -> Result<Bytes, HistoryError> {
    let key = placed.key();
    let damaged = |reason: String| HistoryError::Damaged { key: key.clone(), reason };
    if placed.part.bytes > OBJECT_BYTES_MAX {
        return Err(damaged(format!("the map says that it has {} bytes", placed.part.bytes)));
    }
    let object = store.get(&key, None).await?;
    if object.len() as u64 != placed.part.bytes {
        return Err(damaged(format!("it has {} bytes instead of {}", object.len(), placed.part.bytes)));
    }
    match crc32c::crc32c(&object) == placed.part.crc {
        true => Ok(object),
        false => Err(damaged("its checksum does not match its bytes".to_owned())),
    }
}

/// The names as they are after the last part; those before the first commit if there is none.
///
/// # Errors
/// As [`object`].
pub async fn names(store: &Arc<dyn Store>, last: Option<&PlacedPart>) -> Result<Names, HistoryError> {
    let Some(last) = last else { return Ok(Names::default()) };
    let damaged = |reason: String| HistoryError::Damaged { key: last.key(), reason };
    let names = names_of(object(store, last).await?).map_err(damaged)?;
    names.ok_or_else(|| damaged("it has no names".to_owned()))
}

/// Gives the rows of the commits after `from`, up to `last`, to `take`, commit by commit. Ends early when that returns
/// false. The names are those after `from`, and those after the last commit when this returns, which it names.
///
/// # Errors
/// The journal does not have the commits, or one of them cannot be read.
pub async fn rows_after(
    (env, meta): (&Env, &Meta),
    (from, last): (Lsn, Lsn),
    names: &mut Names,
    mut take: impl FnMut(Vec<Row>) -> Result<bool, HistoryError>,
) -> Result<Lsn, HistoryError> {
    let mut at = from;
    while at < last {
        let entries = match meta.history(at, ENTRIES_AT_ONCE).await {
            Err(JournalError::Reload(found)) => return Err(HistoryError::Gap { due: at.next(), found }),
            entries => entries?,
        };
        if entries.is_empty() {
            return Err(HistoryError::Gap { due: at.next(), found: at });
        }
        let taken = env.heavy(|| -> Result<bool, HistoryError> {
            for entry in entries.iter().take_while(|entry| entry.lsn <= last) {
                if entry.lsn != at.next() {
                    return Err(HistoryError::Gap { due: at.next(), found: entry.lsn });
                }
                let goes_on = take(rows(entry, names)?)?;
                at = entry.lsn;
                if !goes_on {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        if !taken? {
            break;
        }
    }
    Ok(at)
}
