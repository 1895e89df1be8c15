//! Entries as rows, and back. Pure: bytes in, values out. What comes back is compared with its checksum and its link.

use crate::journal::entry::{decode_changes, decode_envelope, encode_changes, encode_envelope};
use crate::journal::seal;
use crate::journal::{Commit, Entry, JournalError, Lsn};
use crate::limits::{GROUP_COMMITS_MAX, POSTGRES_ENTRY_BYTES, POSTGRES_GROUP_BYTES_MAX};

use super::seen::{Astray, Mark, link};

/// A group as the columns of its rows.
pub(super) struct Columns {
    pub(super) envelopes: Vec<Vec<u8>>,
    pub(super) changes: Vec<Vec<u8>>,
    crcs: Vec<u32>,
    /// What the group adds to the journal, in bytes.
    pub(super) bytes: u64,
}

impl Columns {
    /// The rows of a group that follows `expected`.
    pub(super) fn of(expected: Lsn, attempt: u128, commits: &[Commit]) -> Result<Columns, JournalError> {
        if commits.len() > GROUP_COMMITS_MAX {
            return Err(JournalError::NotApplied(format!(
                "the group has {} commits, more than {GROUP_COMMITS_MAX}: split it",
                commits.len()
            )));
        }
        let mut columns = Columns { envelopes: Vec::new(), changes: Vec::new(), crcs: Vec::new(), bytes: 0 };
        for (place, commit) in commits.iter().enumerate() {
            let (envelope, changes) = (encode_envelope(&commit.envelope), encode_changes(&commit.changes));
            columns.crcs.push(seal::of_entry(expected.plus(place + 1), attempt, &envelope, &changes));
            columns.bytes += bytes_of(envelope.len(), changes.len());
            columns.envelopes.push(envelope);
            columns.changes.push(changes);
        }
        match columns.bytes > POSTGRES_GROUP_BYTES_MAX {
            true => Err(JournalError::NotApplied(format!(
                "the group takes {} bytes of the journal, more than {POSTGRES_GROUP_BYTES_MAX}: split it",
                columns.bytes
            ))),
            false => Ok(columns),
        }
    }

    /// The checksums, as the database keeps them.
    pub(super) fn crcs(&self) -> Vec<i64> {
        self.crcs.iter().map(|crc| i64::from(*crc)).collect()
    }

    /// The links of the rows behind an entry with the link `before`.
    pub(super) fn links(&self, before: u32) -> Vec<u32> {
        let chain = self.crcs.iter().scan(before, |before, crc| {
            *before = link(*before, *crc);
            Some(*before)
        });
        chain.collect()
    }
}

/// What an entry counts of the journal's bytes.
fn bytes_of(envelope: usize, changes: usize) -> u64 {
    envelope as u64 + changes as u64 + POSTGRES_ENTRY_BYTES
}

/// A row as the database has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) lsn: i64,
    pub(super) attempt: &'a [u8],
    pub(super) envelope: &'a [u8],
    pub(super) changes: &'a [u8],
    pub(super) crc: i64,
    pub(super) link: i64,
}

/// Entries that follow each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The last of them, if there is one.
    pub(super) end: Option<Mark>,
    /// What they count of the journal's bytes.
    pub(super) bytes: u64,
}

/// Why rows are not the entries that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRows {
    /// The first ones are gone; this is the first that is kept.
    #[error("the journal keeps the commits from {0} on")]
    Gone(Lsn),
    /// They follow another history than the one that this process has seen.
    #[error(transparent)]
    Astray(#[from] Astray),
    /// A row does not match its checksum, or one is missing.
    #[error(
        "the journal is damaged in the database: {0}. Restore the database from a backup that has all commits"
    )]
    Damaged(String),
}

impl From<BadRows> for JournalError {
    fn from(bad: BadRows) -> JournalError {
        match bad {
            BadRows::Gone(kept) => JournalError::Reload(kept),
            other => JournalError::NotApplied(other.to_string()),
        }
    }
}

/// The entries of these rows, which follow `from`. `before` is the link of `from`, if somebody knows it.
pub(super) fn read<'a>(
    from: Lsn,
    before: Option<u32>,
    rows: impl Iterator<Item = Row<'a>>,
) -> Result<Page, BadRows> {
    let mut page = Page::default();
    for row in rows {
        let (entry, crc) = entry(row).map_err(BadRows::Damaged)?;
        let due = page.end.map_or(from, |end| end.lsn).next();
        if entry.lsn != due {
            return Err(match page.end {
                None if entry.lsn > due => BadRows::Gone(entry.lsn),
                _ => BadRows::Damaged(format!("commit {due} is missing, {} follows", entry.lsn)),
            });
        }
        let found = u32::try_from(row.link).map_err(|_| damaged(row.lsn))?;
        match (page.end, before) {
            (Some(end), _) if found != link(end.link, crc) => return Err(damaged(row.lsn)),
            (None, Some(before)) if found != link(before, crc) => return Err(Astray::Differs(from).into()),
            _ => {}
        }
        page.bytes += bytes_of(row.envelope.len(), row.changes.len());
        page.end = Some(Mark { lsn: entry.lsn, link: found });
        page.entries.push(entry);
    }
    Ok(page)
}

fn damaged(lsn: i64) -> BadRows {
    BadRows::Damaged(format!("commit {lsn} does not follow the one before it"))
}

/// The entry of a row, and its checksum.
fn entry(row: Row<'_>) -> Result<(Entry, u32), String> {
    let bad = |what: &str| format!("commit {} {what}", row.lsn);
    let lsn = Lsn(u64::try_from(row.lsn).map_err(|_| bad("has a number below zero"))?);
    let attempt: [u8; 16] = row.attempt.try_into().map_err(|_| bad("has no attempt of 16 bytes"))?;
    let attempt = u128::from_be_bytes(attempt);
    let crc = seal::of_entry(lsn, attempt, row.envelope, row.changes);
    if i64::from(crc) != row.crc {
        return Err(bad("does not match its checksum"));
    }
    let envelope = decode_envelope(row.envelope).map_err(|error| bad(&format!("cannot be read: {error}")))?;
    let changes = decode_changes(row.changes).map_err(|error| bad(&format!("cannot be read: {error}")))?;
    Ok((Entry { lsn, attempt, envelope, changes }, crc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Change, Envelope};

    fn commit(key: &'static str) -> Commit {
        let change = Change { key: key.into(), value: Some("value".into()) };
        Commit { envelope: Envelope::broker("test"), changes: vec![change] }
    }

    /// Five commits of two groups, as columns with the links of their rows.
    struct Table(Vec<Columned>);

    /// LSN, attempt, envelope, changes, checksum, link.
    type Columned = (i64, [u8; 16], Vec<u8>, Vec<u8>, i64, i64);

    impl Table {
        fn new() -> Table {
            let mut table = Vec::new();
            let mut before = 0;
            for (first, attempt, keys) in [(0, 7_u128, ["a", "b"].as_slice()), (2, 8, &["c", "d", "e"])] {
                let commits: Vec<Commit> = keys.iter().map(|key| commit(key)).collect();
                let columns = Columns::of(Lsn(first), attempt, &commits).unwrap();
                let links = columns.links(before);
                before = *links.last().unwrap();
                let crcs = columns.crcs();
                for (at, (envelope, changes)) in
                    columns.envelopes.into_iter().zip(columns.changes).enumerate()
                {
                    let lsn = first as i64 + at as i64 + 1;
                    let row = (lsn, attempt.to_be_bytes(), envelope, changes, crcs[at], i64::from(links[at]));
                    table.push(row);
                }
            }
            Table(table)
        }

        fn rows(&self) -> impl Iterator<Item = Row<'_>> {
            self.0.iter().map(|(lsn, attempt, envelope, changes, crc, link)| Row {
                lsn: *lsn,
                attempt,
                envelope,
                changes,
                crc: *crc,
                link: *link,
            })
        }

        fn link(&self, lsn: usize) -> u32 {
            if lsn == 0 { 0 } else { self.0[lsn - 1].5 as u32 }
        }
    }

    #[test]
    fn rows_come_back_as_the_entries_that_they_were() {
        let table = Table::new();
        for from in 0..=5_usize {
            for before in [None, Some(table.link(from))] {
                let page = read(Lsn(from as u64), before, table.rows().skip(from)).unwrap();
                let found: Vec<(u64, u128)> =
                    page.entries.iter().map(|entry| (entry.lsn.0, entry.attempt)).collect();
                assert_eq!(found, [(1, 7), (2, 7), (3, 8), (4, 8), (5, 8)][from..]);
                let end = Mark { lsn: Lsn(5), link: table.link(5) };
                assert_eq!(page.end, (from < 5).then_some(end));
                assert!(page.entries.iter().all(|entry| entry.changes[0].value.as_deref() == Some(b"value")));
            }
        }
    }

    #[test]
    fn what_is_gone_is_told_from_what_is_damaged() {
        let table = Table::new();
        assert_eq!(read(Lsn(0), Some(0), table.rows().skip(2)), Err(BadRows::Gone(Lsn(3))));
        let hole = read(Lsn(0), Some(0), table.rows().filter(|row| row.lsn != 3));
        assert!(
            matches!(&hole, Err(BadRows::Damaged(what)) if what.contains("commit 3 is missing")),
            "{hole:?}"
        );
        let twice = read(Lsn(0), Some(0), table.rows().chain(table.rows()));
        assert!(matches!(twice, Err(BadRows::Damaged(_))), "{twice:?}");
        let reload: JournalError = BadRows::Gone(Lsn(3)).into();
        assert_eq!(reload, JournalError::Reload(Lsn(3)));
    }

    #[test]
    fn rows_of_another_history_are_found() {
        let table = Table::new();
        let other = read(Lsn(2), Some(table.link(2) ^ 1), table.rows().skip(2));
        assert_eq!(other, Err(BadRows::Astray(Astray::Differs(Lsn(2)))));
        let mut changed = Table::new();
        changed.0[3].5 ^= 1;
        assert!(matches!(read(Lsn(0), None, changed.rows()), Err(BadRows::Damaged(_))));
    }

    #[test]
    fn every_changed_byte_of_a_row_is_found() {
        let sound = Table::new();
        let lengths = [16, sound.0[1].2.len(), sound.0[1].3.len()];
        for (column, length) in lengths.into_iter().enumerate() {
            for at in 0..length {
                let mut table = Table::new();
                let (_, attempt, envelope, changes, _, _) = &mut table.0[1];
                [&mut attempt[..], &mut envelope[..], &mut changes[..]][column][at] ^= 4;
                let found = read(Lsn(0), Some(0), table.rows());
                assert!(matches!(found, Err(BadRows::Damaged(_))), "byte {at} of column {column}");
            }
        }
        let mut table = Table::new();
        table.0[1].0 = -2;
        assert!(matches!(read(Lsn(0), Some(0), table.rows()), Err(BadRows::Damaged(_))));
    }

    #[test]
    fn a_group_of_too_many_bytes_is_refused() {
        let mut large = commit("a");
        large.changes[0].value = Some(vec![0; POSTGRES_GROUP_BYTES_MAX as usize].into());
        assert!(matches!(Columns::of(Lsn(0), 1, &[large]), Err(JournalError::NotApplied(_))));
    }
}
