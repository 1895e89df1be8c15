//! The state of an idempotent producer in one partition.
