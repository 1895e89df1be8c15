//! Bugs that tests plant into the ring, to show that its checks see them. Outside of tests there are none.

/// A bug on purpose. Each one is a mistake that somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// A commit is answered before its sync.
    AnswersBeforeSync,
    /// A start takes frames of an earlier use of a file.
    TakesOldFrames,
    /// A start takes a frame that does not follow the one before.
    NoChain,
    /// A start takes an unproven frame without a look at its bytes.
    PayloadUnread,
    /// A start ends the log at a bad frame although later ones prove that it was acknowledged.
    CutsAcknowledged,
    /// A file is used again when only the newer image covers it.
    ReusedTooEarly,
    /// A file is used again although bytes in it are needed.
    ForgetsAttachments,
    /// An image has commits that are not durable yet.
    ImageAhead,
    /// A failed write leaves its frame.
    NoVoid,
    /// A start leaves the remains of a torn frame behind which it goes on elsewhere.
    RemainsKept,
    /// The log goes past a file that is too small, and leaves nothing in it.
    PassedUnmarked,
    /// A seal is not synced before the log goes on in another file.
    SealUnsynced,
    /// A file gets its name before its contents are durable.
    NamedTooEarly,
    /// A start builds on names that may not be durable.
    NamesUnsynced,
    /// Entries leave the ring although no history has them.
    NoHistory,
}

crate::journal::planted::of_thread!(Planted);
