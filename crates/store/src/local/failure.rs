//! Turns an error of the file system into an error of the store.

use std::io;

use crate::StoreError;

pub(super) fn not_applied(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
        _ => StoreError::NotApplied(error.to_string()),
    }
}
