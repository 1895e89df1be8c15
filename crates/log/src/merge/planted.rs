//! Bugs on purpose.

/// A bug of merging, for tests of those who have to find it. No broker has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Two batches of an extent change places.
    SwapsBatches,
    /// Markers are left out.
    ForgetsMarkers,
    /// The commit does not look at the lease.
    IgnoresLease,
}
