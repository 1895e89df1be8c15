//! The bounded block cache.
