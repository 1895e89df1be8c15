//! The rules for keys of objects.

use crate::StoreError;
use crate::limits::KEY_BYTES_MAX;

/// Refuses keys that some store could misread: empty, absolute, with `..`, or with odd characters.
///
/// Keys come from Floe, not from users. A refusal is a programming error that must not reach a file system.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=".contains(&byte);
    let parts = key.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if key.len() > KEY_BYTES_MAX || !key.bytes().all(plain) || !parts {
        return Err(StoreError::NotApplied(format!("{key:?} is not a valid object key")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_escape_are_refused() {
        for good in ["wal/00/0000000000000001", "tables/a.b/data/x=1/f.parquet", "a"] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.hidden", "a b", "a\\b", "ä", "a\0", &long]
        {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }
}
