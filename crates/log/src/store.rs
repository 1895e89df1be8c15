//! The seam to the object store.
