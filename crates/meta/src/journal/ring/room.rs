//! The room of the disk. The files of a ring are written over and need none; new files, images and parts of the history
//! do, and the last of it is kept for deletions.

use std::io;

use floe_env::{DiskRoom, lock};

use super::state::Core;
use super::store::Unread;
use crate::limits::RING_ROOM_LOOK;

impl Core {
    /// The room of the disk: that of now, or what was seen a moment ago if that was enough. The metrics get it, too.
    ///
    /// # Errors
    /// The file system does not answer.
    pub(super) fn room(&self) -> io::Result<DiskRoom> {
        let now = self.env.monotonic();
        let seen = *lock(&self.room);
        if let Some((at, room)) = seen
            && room.holds(0)
            && now.duration_since(at) < RING_ROOM_LOOK
        {
            return Ok(room);
        }
        let room = self.disk.room()?;
        metrics::gauge!("floe_meta_disk_free_bytes").set(room.free as f64);
        metrics::gauge!("floe_meta_only_deletions").set(f64::from(room.only_deletions()));
        *lock(&self.room) = Some((now, room));
        Ok(room)
    }

    /// Whether the disk has no room for one more of the largest files.
    ///
    /// # Errors
    /// The file system does not answer.
    pub(super) fn is_short(&self) -> io::Result<bool> {
        Ok(!self.room()?.holds(self.options.file_bytes))
    }

    /// Why only deletions may be committed now, if so.
    pub(super) fn only_deletions(&self) -> Option<String> {
        match self.room() {
            Ok(room) => room.only_deletions().then(|| {
                format!(
                    "the disk of the metadata is nearly full, the last {} bytes are kept for deletions: delete topics \
                     or free some space",
                    room.free
                )
            }),
            Err(error) => {
                // The commit itself finds out whether the disk takes it.
                tracing::warn!(%error, "cannot tell how full the disk of the metadata is");
                None
            }
        }
    }

    /// Makes room for a commit that found none, if there is a part of the disk that is kept for that. The committer
    /// lets only deletions come this far. Returns whether it did.
    pub(super) fn give_up_reserve(&self) -> bool {
        self.disk.give_up_reserve().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot give the reserve for deletions up");
            false
        })
    }
}

/// Whether something was not done because the disk is full.
pub(super) fn is_full<T, E: AsIo>(done: &Result<T, E>) -> bool {
    let error = done.as_ref().err().and_then(AsIo::as_io);
    error.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

/// An error that may be one of the disk.
pub(super) trait AsIo {
    fn as_io(&self) -> Option<&io::Error>;
}

impl AsIo for io::Error {
    fn as_io(&self) -> Option<&io::Error> {
        Some(self)
    }
}

impl AsIo for Unread {
    fn as_io(&self) -> Option<&io::Error> {
        match self {
            Unread::Io(error) => Some(error),
            Unread::Damaged(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use floe_env::{Disk, DiskFile, Env, SimulatedDisk};
    use futures::FutureExt as _;

    use super::*;
    use crate::journal::ring::{RingJournal, RingOptions};
    use crate::journal::{Attachment, Change, Commit, Envelope, Journal, JournalError, Lsn, Outcome};
    use crate::limits::RING_SPARE_TIME;

    const BLOCK: u64 = 4096;
    const DISK_BYTES: u64 = 1_600 * BLOCK;
    const RESERVE: u64 = 240 * BLOCK;
    const BALLAST: u64 = 60 * BLOCK;
    const OPTIONS: RingOptions = RingOptions {
        first_bytes: 8 * BLOCK,
        file_bytes: 8 * BLOCK,
        bytes_max: Some(1 << 30),
        image_bytes: 1 << 20,
        history_bytes: 1 << 20,
    };

    /// A disk that others use too.
    #[derive(Debug, Clone)]
    struct Small(SimulatedDisk, Arc<Mutex<Others>>);

    #[derive(Debug, Default)]
    struct Others {
        bytes: u64,
        ballast: bool,
    }

    #[derive(Debug)]
    struct SmallFile(Arc<dyn DiskFile>, Small);

    impl Small {
        fn free(&self) -> u64 {
            let used: u64 = self.0.names().iter().map(|name| self.0.contents(name).len() as u64).sum();
            let Others { bytes, ballast } = *lock(&self.1);
            DISK_BYTES.saturating_sub(used + bytes + if ballast { BALLAST } else { 0 })
        }
        fn take(&self, bytes: u64) -> io::Result<()> {
            if bytes <= self.free() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
        fn fill(&self) {
            let free = self.free();
            lock(&self.1).bytes += free;
        }
        fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
            Arc::new(SmallFile(file, self.clone()))
        }
    }

    impl Disk for Small {
        fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
            self.take(bytes)?;
            Ok(self.file(self.0.create(name, bytes)?))
        }
        fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
            Ok(self.file(self.0.open(name)?))
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn list(&self, directory: &str) -> io::Result<Vec<String>> {
            self.0.list(directory)
        }
        fn create_dir(&self, directory: &str) -> io::Result<()> {
            self.0.create_dir(directory)
        }
        fn sync_dir(&self, directory: &str) {
            self.0.sync_dir(directory);
        }
        fn room(&self) -> io::Result<DiskRoom> {
            Ok(DiskRoom { free: self.free(), reserve: RESERVE })
        }
        fn tend_reserve(&self) -> io::Result<()> {
            let room = self.room()?;
            lock(&self.1).ballast |= room.holds(BALLAST);
            Ok(())
        }
        fn give_up_reserve(&self) -> io::Result<bool> {
            Ok(std::mem::take(&mut lock(&self.1).ballast))
        }
        fn end_process(&self, what: &str, why: &dyn std::fmt::Display) -> ! {
            self.0.end_process(what, why)
        }
    }

    impl DiskFile for SmallFile {
        fn bytes(&self) -> io::Result<u64> {
            self.0.bytes()
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.1.take((offset + bytes.len() as u64).saturating_sub(self.0.bytes()?))?;
            self.0.write_at(bytes, offset)
        }
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(into, offset)
        }
        fn sync(&self) {
            self.0.sync();
        }
    }

    fn commit(journal: &RingJournal, bytes: usize) -> Result<Lsn, JournalError> {
        let last = journal.lsn();
        let change = Change { key: format!("key {}", last.0 % 5).into(), value: Some("value".into()) };
        let group = [Commit { envelope: Envelope::broker("test"), changes: vec![change] }];
        let attachments = match bytes {
            0 => Vec::new(),
            bytes => vec![Attachment::of(vec![Bytes::from(vec![7; bytes])])],
        };
        let done = journal.commit_with(last, u128::from(last.0), &group, &attachments);
        match done.now_or_never().expect("it does not wait")?.outcome {
            Outcome::Committed(lsn) => Ok(lsn),
            Outcome::Conflict(_) => panic!("nobody else commits"),
        }
    }

    /// Bytes stay out of the reserve, commits without bytes take from it, and at the end they take the ballast. What
    /// they wrote is reused then, so they go on as long as it takes.
    #[tokio::test(start_paused = true)]
    async fn a_full_disk_takes_deletions_until_there_is_room_again() {
        let disk = Small(SimulatedDisk::new(1), Arc::default());
        let journal = RingJournal::open_on(&Env::simulated(1), Arc::new(disk.clone()), OPTIONS).unwrap();
        let refused = loop {
            if let Err(error) = commit(&journal, 5_000) {
                break error;
            }
        };
        assert!(refused.to_string().contains("are kept for deletions"), "{refused}");
        assert!(
            lock(&disk.1).ballast && journal.only_deletions().is_none(),
            "{} bytes are free",
            disk.free()
        );
        // Another program takes the rest.
        disk.fill();
        tokio::time::sleep(RING_ROOM_LOOK).await;
        assert!(journal.only_deletions().is_some_and(|reason| reason.contains("delete topics")));
        for number in 0..200 {
            commit(&journal, 0).unwrap_or_else(|error| panic!("deletion {number}: {error}"));
        }
        assert!(!lock(&disk.1).ballast, "it is given up");
        let last = journal.lsn();
        drop(journal);
        let journal = RingJournal::open_on(&Env::simulated(1), Arc::new(disk.clone()), OPTIONS).unwrap();
        assert_eq!(journal.lsn(), last);
        // The deletions have freed something, and the other program ends.
        journal.attachments().into_iter().for_each(|lsn| journal.released(lsn));
        lock(&disk.1).bytes = 0;
        for _ in 0..100 {
            let lsn = commit(&journal, 5_000).unwrap();
            journal.released(lsn);
        }
        assert!(journal.only_deletions().is_none());
        // The ring gives back what it does not need, and the ballast is made again.
        tokio::time::sleep(RING_SPARE_TIME).await;
        for _ in 0..2 {
            commit(&journal, 0).unwrap();
        }
        assert!(lock(&disk.1).ballast, "{} bytes are free", disk.free());
    }
}
