//! Extents: a contiguous run of offsets of one partition inside one object.
