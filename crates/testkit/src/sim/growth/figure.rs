//! What is counted.

use std::fmt;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Records of the metadata map.
    MapRecords,
    /// Bytes of its keys and values.
    MapBytes,
    /// Extents in it.
    Extents,
    /// Objects in it.
    Objects,
    /// Objects in it that wait for their deletion.
    Trash,
    /// Parts of the history.
    HistoryParts,
    /// Their bytes.
    HistoryBytes,
    /// Entries that the journal holds.
    JournalEntries,
    /// Commits whose bytes the journal keeps.
    JournalBytes,
    /// Objects of the log in the store.
    LogFiles,
    /// Their bytes.
    LogBytes,
    /// Files of tables in the store, documents among them.
    TableFiles,
    /// Objects of the history in the store.
    HistoryFiles,
    /// Everything else in the store.
    OtherFiles,
}

impl Figure {
    /// All of them.
    pub const ALL: [Figure; 14] = [
        Figure::MapRecords,
        Figure::MapBytes,
        Figure::Extents,
        Figure::Objects,
        Figure::Trash,
        Figure::HistoryParts,
        Figure::HistoryBytes,
        Figure::JournalEntries,
        Figure::JournalBytes,
        Figure::LogFiles,
        Figure::LogBytes,
        Figure::TableFiles,
        Figure::HistoryFiles,
        Figure::OtherFiles,
    ];

    /// What it may grow by whatever part of it that is; none if it is not judged.
    pub(super) fn slack(self) -> Option<u64> {
        match self {
            Figure::HistoryBytes => None,
            Figure::MapBytes | Figure::LogBytes => Some(20_000),
            Figure::JournalEntries => Some(600),
            Figure::MapRecords | Figure::TableFiles => Some(100),
            Figure::Extents | Figure::Objects | Figure::Trash | Figure::JournalBytes | Figure::LogFiles => {
                Some(60)
            }
            Figure::HistoryParts | Figure::HistoryFiles | Figure::OtherFiles => Some(30),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Figure::MapRecords => "records of the map",
            Figure::MapBytes => "bytes of the map",
            Figure::Extents => "extents",
            Figure::Objects => "objects",
            Figure::Trash => "trash",
            Figure::HistoryParts => "parts of the history",
            Figure::HistoryBytes => "bytes of the history",
            Figure::JournalEntries => "entries of the journal",
            Figure::JournalBytes => "commits with bytes in the journal",
            Figure::LogFiles => "files of the log",
            Figure::LogBytes => "bytes of these",
            Figure::TableFiles => "files of tables",
            Figure::HistoryFiles => "files of the history",
            Figure::OtherFiles => "other files",
        })
    }
}
