//! Planted bugs: each makes one part of the world misbehave as a real bug would, so that a test can show that a checker
//! sees it. What sees which is written once, in [`Bug::seen_by`].

/// A bug on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The store acknowledges some objects and does not keep them.
    StoreForgets,
    /// A PUT that lands when nobody waits for it any more lands under another key.
    StoreMisplacesLateTries,
    /// The journal says that it refused what it applies a moment later.
    JournalLies,
    /// A journal without room acknowledges all the same.
    JournalHasRoom,
    /// On their way, some refusals that may be tried again become final.
    WireRefusesForGood,
    /// On its way, a repeated batch loses its producer: the sequencer cannot know it again.
    WireForgetsProducer,
    /// On their way, two sends of one connection change places.
    WireSwapsSends,
    /// On their way, some fetched batches are stamped one offset too high.
    WireShiftsOffsets,
    /// Some reads are answered with a high watermark of the past.
    WireStaleWatermark,
    /// The journal drops what groups commit.
    JournalDropsGroupOffsets,
    /// A broker that starts when the faults have ended finds no offsets of groups.
    JournalForgetsGroupOffsets,
    /// On their way, failed reads of a topic that is deleted and created again become answers.
    WireAnswersForDeleted,
    /// When a topic is deleted, the journal keeps its extents.
    JournalKeepsExtents,
    /// Deletions of the log's objects are acknowledged and not done.
    CleanerForgets,
    /// Deletions of the lake's files are acknowledged and not done.
    LakeCleanerForgets,
    /// The journal drops the progress of views, so their output is made twice.
    JournalDropsProgress,
    /// The faults of the store never end.
    StoreNeverHeals,
    /// A task of a broker panics, and nobody awaits it.
    TaskPanics,
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
        Bug::WireRefusesForGood,
        Bug::WireForgetsProducer,
        Bug::WireSwapsSends,
        Bug::WireShiftsOffsets,
        Bug::WireStaleWatermark,
        Bug::JournalDropsGroupOffsets,
        Bug::JournalForgetsGroupOffsets,
        Bug::WireAnswersForDeleted,
        Bug::JournalKeepsExtents,
        Bug::CleanerForgets,
        Bug::LakeCleanerForgets,
        Bug::JournalDropsProgress,
        Bug::StoreNeverHeals,
        Bug::TaskPanics,
        Bug::SqlDropsRow,
    ];

    /// The checker that must see it.
    pub fn seen_by(self) -> &'static str {
        match self {
            Bug::StoreForgets => "lost",
            Bug::JournalLies => "phantom",
            Bug::JournalHasRoom | Bug::WireRefusesForGood => "refused",
            Bug::WireForgetsProducer => "duplicated",
            Bug::WireSwapsSends => "reordered",
            Bug::WireShiftsOffsets => "offsets",
            Bug::WireStaleWatermark => "watermark",
            Bug::JournalDropsGroupOffsets | Bug::JournalForgetsGroupOffsets => "group",
            Bug::WireAnswersForDeleted | Bug::JournalKeepsExtents => "topics",
            Bug::StoreMisplacesLateTries | Bug::CleanerForgets | Bug::LakeCleanerForgets => "objects",
            Bug::JournalDropsProgress => "table",
            Bug::StoreNeverHeals | Bug::TaskPanics => "live",
            Bug::SqlDropsRow => "sql",
        }
    }
}
