//! The memory of a process, as the system counts it (`proc(5)`).

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::limits::WORKER_STATM_BYTES;

/// Where the system tells the memory of a process.
pub(super) struct Statm(PathBuf);

impl Statm {
    pub(super) fn of(pid: u32) -> Statm {
        Statm(PathBuf::from(format!("/proc/{pid}/statm")))
    }

    pub(super) fn own() -> Statm {
        Statm(PathBuf::from("/proc/self/statm"))
    }

    /// Bytes of memory that the process shares with no other; none if it has ended.
    pub(super) fn private_bytes(&self) -> Option<u64> {
        let mut text = [0; WORKER_STATM_BYTES];
        // An open file for each worker would be one descriptor less for a client.
        let length = File::open(&self.0).ok()?.read(&mut text).ok()?;
        private_pages(std::str::from_utf8(&text[..length]).ok()?).map(|pages| pages * page_bytes())
    }
}

/// The pages of a process that are not of files and not shared: the second field of `statm` without the third.
fn private_pages(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1);
    let resident: u64 = fields.next()?.parse().ok()?;
    let shared: u64 = fields.next()?.parse().ok()?;
    Some(resident.saturating_sub(shared))
}

/// Bytes of a page of memory. The kernel tells every process in its auxiliary vector, as pairs of words.
fn page_bytes() -> u64 {
    static BYTES: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
        const AT_PAGESZ: u64 = 6;
        let vector = std::fs::read("/proc/self/auxv").unwrap_or_default();
        let words: Vec<u64> = vector
            .chunks_exact(size_of::<u64>())
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let found = words.chunks_exact(2).find(|pair| pair[0] == AT_PAGESZ);
        found.map_or(4_096, |pair| pair[1])
    });
    *BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_what_is_resident_and_not_shared() {
        assert_eq!(private_pages("9000 300 120 5 0 700 0\n"), Some(180));
        assert_eq!(private_pages("9000 100 120 5 0 700 0\n"), Some(0));
        assert_eq!(private_pages("9000"), None);
        assert_eq!(private_pages("a b c"), None);
        assert!(page_bytes().is_power_of_two() && page_bytes() >= 4_096);
    }

    #[test]
    fn the_memory_of_this_process_grows_with_what_it_writes() {
        let before = Statm::own().private_bytes().unwrap();
        // Other tests give memory back meanwhile.
        let text = std::hint::black_box(vec![1_u8; 128 << 20]);
        let after = Statm::of(std::process::id()).private_bytes().unwrap();
        assert!(after >= before + (64 << 20), "{before} and {after}");
        drop(text);
        assert_eq!(Statm::of(u32::MAX).private_bytes(), None);
    }
}
