//! One row of the history.

use std::sync::Arc;

use floe_env::Timestamp;
use floe_meta::Lsn;

/// What a row says about a commit. A commit has at least one row; `first_offset` and `offsets` mean what the kind says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The commit.
    pub lsn: Lsn,
    /// The time of the commit. It never goes back.
    pub time: Timestamp,
    /// Who wrote the records; of everything but records, who made the commit.
    pub principal: Arc<str>,
    /// The name that the client gave itself.
    pub client_id: Arc<str>,
    /// The run that the commit belongs to.
    pub run_id: Option<Arc<str>>,
    /// The cause of the commit.
    pub cause: Option<Arc<str>>,
    /// The commit that it undoes.
    pub undo_of: Option<Lsn>,
    /// A comment for people.
    pub comment: Option<Arc<str>>,
    /// What was done.
    pub change: ChangeKind,
    /// The topic's name at that time; none if it had left for good.
    pub topic: Option<Arc<str>>,
    /// The topic's number, which is never used twice.
    pub topic_id: Option<u64>,
    /// The partition.
    pub partition: Option<u32>,
    /// An offset.
    pub first_offset: Option<i64>,
    /// How many offsets from there on.
    pub offsets: Option<u64>,
    /// Bytes of batches.
    pub bytes: Option<u64>,
    /// The consumer group.
    pub group: Option<Arc<str>>,
    /// More about it: the settings of a topic, the end of a transaction.
    pub detail: Option<Arc<str>>,
}

/// What was done. The words are in objects of the store: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// Records were appended: offsets from the first on, by one writer.
    Append,
    /// A transaction ended in this partition; its marker took this offset.
    Marker,
    /// Bytes were merged or compacted: the offsets are the same ones, in another place.
    Rewrite,
    /// The log of a partition begins later: with the first offset. So many offsets before it went with this commit, if
    /// that is known.
    Trim,
    /// Extents of a topic that is gone were freed.
    Free,
    /// A topic was created; the detail has its partitions and settings.
    Create,
    /// The settings or the partitions of a topic changed; the detail has all of them as they are now.
    Alter,
    /// A topic was deleted. With a partition: records of it were removed that can come back.
    Delete,
    /// A deleted topic came back. With a partition: removed records did, as a topic of their own.
    Undelete,
    /// A deleted topic left for good, or removed records did.
    Purge,
    /// A group committed this offset, or lost the one that it had.
    GroupOffset,
    /// The table of a topic took in everything below this offset, or changed its files.
    Table,
    /// Something that has no topic: a lease, a session, an object id.
    Other,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [ChangeKind; 13] = [
        ChangeKind::Append,
        ChangeKind::Marker,
        ChangeKind::Rewrite,
        ChangeKind::Trim,
        ChangeKind::Free,
        ChangeKind::Create,
        ChangeKind::Alter,
        ChangeKind::Delete,
        ChangeKind::Undelete,
        ChangeKind::Purge,
        ChangeKind::GroupOffset,
        ChangeKind::Table,
        ChangeKind::Other,
    ];

    /// The word in the column `change`.
    pub const fn word(self) -> &'static str {
        match self {
            ChangeKind::Append => "append",
            ChangeKind::Marker => "marker",
            ChangeKind::Rewrite => "rewrite",
            ChangeKind::Trim => "trim",
            ChangeKind::Free => "free",
            ChangeKind::Create => "create",
            ChangeKind::Alter => "alter",
            ChangeKind::Delete => "delete",
            ChangeKind::Undelete => "undelete",
            ChangeKind::Purge => "purge",
            ChangeKind::GroupOffset => "group offset",
            ChangeKind::Table => "table",
            ChangeKind::Other => "other",
        }
    }

    /// The kind of a word.
    pub fn of(word: &str) -> Option<ChangeKind> {
        ChangeKind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_they_were() {
        let words = ChangeKind::ALL.map(ChangeKind::word).join(", ");
        let golden = "append, marker, rewrite, trim, free, create, alter, delete, undelete, purge, group offset, table, \
                      other";
        assert_eq!(words, golden, "persisted: they never change");
        assert!(ChangeKind::ALL.iter().all(|kind| ChangeKind::of(kind.word()) == Some(*kind)));
        assert_eq!(ChangeKind::of("appended"), None);
    }
}
