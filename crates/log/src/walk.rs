//! The pure parts of reading: extents for an offset or a time, and the batches of an extent.
