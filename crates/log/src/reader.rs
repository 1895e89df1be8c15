//! Reads: extents to ranged GETs to stamped batches.
