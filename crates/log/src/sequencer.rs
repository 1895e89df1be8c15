//! The pure function that turns an uploaded WAL object and the metadata map into offsets and extents.
