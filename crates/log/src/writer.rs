//! The open WAL object: fill, close, upload, commit in order.
