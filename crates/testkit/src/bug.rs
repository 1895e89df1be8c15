//! Planted bugs. Each one makes one part of the world misbehave as a real bug would, so that a test can show that a
//! checker sees it. [`Bug::seen_by`] names the checker of each bug.

/// A bug on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The store acknowledges some objects and does not keep them.
    StoreForgets,
    /// A PUT that lands after its caller gave up lands under another key.
    StoreMisplacesLateTries,
    /// The journal says that it refused a commit, and applies it a moment later.
    JournalLies,
    /// A full journal acknowledges commits all the same.
    JournalHasRoom,
    /// The journal acknowledges some commits before the bytes that they bring are durable, and loses these.
    JournalForgetsBytes,
    /// The bytes of a commit are released with the first of its extents.
    JournalReleasesEarly,
    /// The journal keeps the bytes that nobody needs.
    JournalKeepsReleased,
    /// The bytes of a commit count as an object.
    JournalCountsBytesAsObjects,
    /// The network turns some retriable refusals into final ones.
    WireRefusesForGood,
    /// The network takes the producer out of a repeated batch, so the sequencer cannot recognize it.
    WireForgetsProducer,
    /// The network swaps two sends of one connection.
    WireSwapsSends,
    /// The network stamps some fetched batches one offset too high.
    WireShiftsOffsets,
    /// Some reads get a high watermark of the past.
    WireStaleWatermark,
    /// The journal drops the offsets that groups commit.
    JournalDropsGroupOffsets,
    /// A broker that starts after the faults finds no group offsets.
    JournalForgetsGroupOffsets,
    /// The network turns failed reads of a deleted topic into answers.
    WireAnswersForDeleted,
    /// The journal keeps the extents of a deleted topic.
    JournalKeepsExtents,
    /// A topic comes back without its records.
    UndeleteForgetsRecords,
    /// The last extent that a topic loses does not get to its removed records.
    RemovalForgetsExtent,
    /// What a topic loses is kept, and its objects are freed all the same.
    RemovalFreesToo,
    /// Retention removes the extent behind those that it should.
    RetentionTakesOneMore,
    /// Retention moves the log start and leaves the extents.
    RetentionKeepsExtents,
    /// Retention removes extents and leaves the log start.
    RetentionKeepsStarts,
    /// Brokers keep less than the topic says.
    RetentionIsHasty,
    /// Deletions of the log's objects are acknowledged and not done.
    CleanerForgets,
    /// The journal lets every session say that it uses no old snapshot, so the cleaners wait for no reader.
    CleanerIgnoresPins,
    /// The network shows markers as if they were records.
    WireShowsMarkers,
    /// The journal makes gaps of markers.
    JournalLosesMarkers,
    /// Two batches change places in a merge.
    MergeSwapsBatches,
    /// A merge leaves markers out.
    MergeForgetsMarkers,
    /// A merge is committed whoever has its lease.
    MergeIgnoresLease,
    /// Of two records of a key, compaction keeps the older one.
    CompactionKeepsOlder,
    /// Compaction leaves some records that it should not.
    CompactionKeepsSome,
    /// Compaction drops tombstones before their time is over.
    CompactionDropsTombstones,
    /// Compaction drops the newest record of a partition.
    CompactionDropsNewest,
    /// Compaction does not wait for the table although the topic says so.
    CompactionWaitsForNobody,
    /// Whoever follows a compacted topic does not get some of its batches.
    ReaderSkipsBatch,
    /// The journal lets go of more commits than it may.
    JournalForgetsMore,
    /// A part of the history says that it ends with the commit after its last one.
    HistoryLosesACommit,
    /// A part of the history says that it ends before its last commit.
    HistoryRepeatsACommit,
    /// Deletions of the lake's files are acknowledged and not done.
    LakeCleanerForgets,
    /// The journal drops the progress of views, so they produce their output twice.
    JournalDropsProgress,
    /// The faults of the store never end.
    StoreNeverHeals,
    /// A task of a broker panics, and nobody awaits the task.
    TaskPanics,
    /// A journal serves a committed offset that has rotted.
    JournalServesRot,
    /// A broker goes on with a journal that is older than its store.
    OldJournalIsContinued,
    /// The store gives another data file of the lake for some, so a merge repeats rows and drops others.
    StoreConfusesFiles,
    /// The store hides which writer numbers are taken, so no broker sees a newer one.
    StoreHidesWriters,
    /// Some answers of SQL lack a row.
    SqlDropsRow,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::StoreForgets,
        Bug::StoreMisplacesLateTries,
        Bug::JournalLies,
        Bug::JournalHasRoom,
        Bug::JournalForgetsBytes,
        Bug::JournalReleasesEarly,
        Bug::JournalKeepsReleased,
        Bug::JournalCountsBytesAsObjects,
        Bug::WireRefusesForGood,
        Bug::WireForgetsProducer,
        Bug::WireSwapsSends,
        Bug::WireShiftsOffsets,
        Bug::WireStaleWatermark,
        Bug::JournalDropsGroupOffsets,
        Bug::JournalForgetsGroupOffsets,
        Bug::WireAnswersForDeleted,
        Bug::JournalKeepsExtents,
        Bug::UndeleteForgetsRecords,
        Bug::RemovalForgetsExtent,
        Bug::RemovalFreesToo,
        Bug::RetentionTakesOneMore,
        Bug::RetentionKeepsExtents,
        Bug::RetentionKeepsStarts,
        Bug::RetentionIsHasty,
        Bug::CleanerForgets,
        Bug::CleanerIgnoresPins,
        Bug::WireShowsMarkers,
        Bug::JournalLosesMarkers,
        Bug::MergeSwapsBatches,
        Bug::MergeForgetsMarkers,
        Bug::MergeIgnoresLease,
        Bug::CompactionKeepsOlder,
        Bug::CompactionKeepsSome,
        Bug::CompactionDropsTombstones,
        Bug::CompactionDropsNewest,
        Bug::CompactionWaitsForNobody,
        Bug::ReaderSkipsBatch,
        Bug::JournalForgetsMore,
        Bug::HistoryLosesACommit,
        Bug::HistoryRepeatsACommit,
        Bug::LakeCleanerForgets,
        Bug::JournalDropsProgress,
        Bug::StoreNeverHeals,
        Bug::TaskPanics,
        Bug::JournalServesRot,
        Bug::OldJournalIsContinued,
        Bug::StoreConfusesFiles,
        Bug::StoreHidesWriters,
        Bug::SqlDropsRow,
    ];

    /// The name of the checker that must see this bug.
    pub fn seen_by(self) -> &'static str {
        match self {
            Bug::StoreForgets | Bug::JournalForgetsBytes | Bug::JournalReleasesEarly => "lost",
            Bug::JournalLies => "phantom",
            Bug::JournalHasRoom | Bug::WireRefusesForGood => "refused",
            Bug::WireForgetsProducer => "duplicated",
            Bug::WireSwapsSends => "reordered",
            Bug::WireShiftsOffsets => "offsets",
            Bug::WireStaleWatermark => "watermark",
            Bug::JournalDropsGroupOffsets | Bug::JournalForgetsGroupOffsets | Bug::JournalServesRot => {
                "group"
            }
            Bug::WireAnswersForDeleted | Bug::JournalKeepsExtents => "topics",
            Bug::StoreMisplacesLateTries
            | Bug::CleanerForgets
            | Bug::LakeCleanerForgets
            | Bug::JournalKeepsReleased
            | Bug::JournalCountsBytesAsObjects => "objects",
            Bug::UndeleteForgetsRecords
            | Bug::RetentionTakesOneMore
            | Bug::RetentionKeepsExtents
            | Bug::RetentionKeepsStarts
            | Bug::RetentionIsHasty => "starts",
            Bug::CleanerIgnoresPins => "held",
            Bug::RemovalForgetsExtent | Bug::RemovalFreesToo => "removed",
            Bug::WireShowsMarkers => "phantom",
            Bug::JournalLosesMarkers => "lost",
            Bug::MergeSwapsBatches => "offsets",
            Bug::MergeForgetsMarkers => "lost",
            Bug::MergeIgnoresLease => "starts",
            Bug::CompactionKeepsOlder
            | Bug::CompactionKeepsSome
            | Bug::CompactionDropsTombstones
            | Bug::CompactionDropsNewest => "compacted",
            Bug::CompactionWaitsForNobody => "folded",
            Bug::ReaderSkipsBatch => "followed",
            Bug::JournalForgetsMore | Bug::HistoryLosesACommit | Bug::HistoryRepeatsACommit => "commits",
            Bug::JournalDropsProgress | Bug::StoreConfusesFiles => "table",
            Bug::StoreNeverHeals | Bug::TaskPanics | Bug::StoreHidesWriters => "live",
            Bug::OldJournalIsContinued => "lost",
            Bug::SqlDropsRow => "sql",
        }
    }
}
