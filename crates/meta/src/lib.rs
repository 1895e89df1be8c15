//! The metadata map behind a small journal, and the seam to clock, randomness and tasks.
