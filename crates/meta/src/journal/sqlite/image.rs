//! The rows of an image: the map folded up to an entry.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use crate::journal::seal::{self, Fold};

/// The values of an image. Each must match its checksum, and all together `sum`.
pub(super) fn read_image(image: &Connection, sum: u64) -> Result<Vec<(Bytes, Bytes)>, String> {
    let (mut pairs, mut found) = (Vec::new(), 0u64);
    let mut read = || -> rusqlite::Result<Result<(), String>> {
        let mut statement = image.prepare("SELECT key, value, crc FROM map ORDER BY key")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (key, value, crc): (Vec<u8>, Vec<u8>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if crc != i64::from(seal::of_value(&key, &value)) {
                let kind = key.first().copied().unwrap_or_default();
                return Ok(Err(format!("the checksum of a value of kind {kind} does not match its bytes")));
            }
            found = found.wrapping_add(crc.cast_unsigned());
            pairs.push((key.into(), value.into()));
        }
        Ok(Ok(()))
    };
    read().map_err(|error| error.to_string())??;
    match found == sum {
        true => Ok(pairs),
        false => Err("a value is missing, or one is there that should not be".to_owned()),
    }
}

/// Writes changes into the image. `fold` says how far it goes then; its sum is still that of before. Returns the whole.
pub(super) fn write_image(
    image: &mut Connection,
    id: &[u8],
    changes: &BTreeMap<&[u8], Option<&[u8]>>,
    mut fold: Fold,
) -> rusqlite::Result<Fold> {
    let transaction = image.transaction()?;
    {
        let mut find = transaction.prepare_cached("SELECT crc FROM map WHERE key = ?1")?;
        let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO map VALUES(?1, ?2, ?3)")?;
        let mut delete = transaction.prepare_cached("DELETE FROM map WHERE key = ?1")?;
        for (key, value) in changes {
            let former: Option<u32> = find.query_row(params![key], |row| row.get(0)).optional()?;
            fold.sum = fold.sum.wrapping_sub(former.unwrap_or(0).into());
            match value {
                Some(value) => {
                    let crc = seal::of_value(key, value);
                    fold.sum = fold.sum.wrapping_add(crc.into());
                    put.execute(params![key, value, crc])?
                }
                None => delete.execute(params![key])?,
            };
        }
        transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'fold'", [&fold.encode(id)[..]])?;
    }
    transaction.commit()?;
    Ok(fold)
}

/// The record of an image: how far it goes, and what it holds.
pub(super) fn fold_of(image: &Connection, id: &[u8]) -> Result<Fold, String> {
    let read = || -> rusqlite::Result<(Vec<u8>, Vec<u8>)> { Ok((meta(image, "id")?, meta(image, "fold")?)) };
    let (image_id, fold) = read().map_err(|error| error.to_string())?;
    if image_id != id {
        return Err("it belongs to another journal".to_owned());
    }
    Fold::decode(id, &fold).map_err(|error| error.to_string())
}

/// A value that a file has under a name.
pub(super) fn meta<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
}
