//! Bugs that tests plant into the journal in a bucket, to show that its checks see them. Outside of tests there are
//! none.

/// A bug on purpose. Each one is a mistake that somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// A broker that slept creates the next number without a look at the floor.
    NoCheckBefore,
    /// An answer that came late is believed without a look at the floor.
    NoCheckAfter,
    /// An answer that came late, and can no longer be judged, is said to have had no effect.
    LateHadNoEffect,
    /// A broker that slept believes what it reads without a look at the floor.
    ReadsUnchecked,
    /// Old entries are read without a look at the floor.
    HistoryUnchecked,
    /// Entries are deleted without a floor.
    NoFloor,
    /// Entries are deleted as soon as the floor is there.
    NoGrace,
    /// Entries are deleted although their attachments are needed.
    ForgetsAttachments,
    /// Entries are deleted that the deleter has not read.
    SweepsAhead,
    /// The floor passes the older of the two images.
    OneImage,
    /// An image counts before anybody has read it back.
    ImageUnread,
    /// The floor goes past what was told.
    ForgetsMore,
    /// An entry is taken that does not follow the one before.
    NoChain,
    /// A damaged entry counts as missing.
    SkipsDamage,
    /// An unknown outcome is answered as if it were none.
    UnknownIsNotApplied,
    /// A load that finds none of the images that it listed does not look whether there are newer ones by then.
    ImagesListedOnce,
    /// Attachments are not compared with their checksums.
    Unsummed,
}

crate::journal::planted::of_thread!(Planted);
