//! The head of a partition: next offset, log start, size.
