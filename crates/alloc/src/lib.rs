//! The allocator of the broker: mimalloc, and how long it keeps what was freed.
//!
//! The system's allocator keeps freed frames in arenas of each thread. mimalloc gives large buffers back, and it builds
//! in seconds where jemalloc takes minutes. But it gives them back after a second, and a produce of 1 MiB batches takes
//! each buffer again within a few: the kernel then clears and maps every page anew. Such a produce of 1 GiB took 37,300
//! minor faults, 10,900 when freed memory was kept for ten seconds, and 51 when it was kept for ever.
//!
//! This is the only crate of ours with unsafe code: one call into C.

use std::ffi::{c_int, c_long};
use std::time::Duration;

pub use mimalloc::MiMalloc as Allocator;

/// How long memory that was freed stays with the process, after [`keep_freed`].
pub const FREED_KEPT: Duration = Duration::from_secs(60);

/// `mi_option_purge_delay` of `mimalloc.h`, in milliseconds.
const PURGE_DELAY: c_int = 15;

/// Keeps what is freed for [`FREED_KEPT`]: for a process that serves, and takes the same buffers again and again. The
/// environment variable `MIMALLOC_PURGE_DELAY`, in milliseconds, goes first.
pub fn keep_freed() {
    let milliseconds = c_long::try_from(FREED_KEPT.as_millis()).unwrap_or(c_long::MAX);
    #[expect(unsafe_code, reason = "the option has no other setter")]
    // SAFETY: the number is that of an option, and mimalloc allows any value of it at any time.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, milliseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the option is not in the bindings, so its value tells whether it is the right one.
    #[test]
    fn the_option_is_the_delay_of_a_second() {
        let delay = || {
            #[expect(unsafe_code, reason = "the option has no other getter")]
            // SAFETY: the number is that of an option.
            unsafe {
                libmimalloc_sys::mi_option_get(PURGE_DELAY)
            }
        };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            assert_eq!(delay(), 1_000);
            keep_freed();
            assert_eq!(delay(), 60_000);
        }
    }
}
