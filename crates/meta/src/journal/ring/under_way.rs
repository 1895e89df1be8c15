//! How long the disk has been busy with what a commit waits for. A disk that hangs blocks the thread of the commit, so
//! others have to see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use floe_env::Env;
use tokio::time::Instant;

/// The present write with its sync, if there is one. One is under way at a time.
#[derive(Debug)]
pub(super) struct UnderWay {
    opened: Instant,
    /// When it began, in microseconds since then and one more; 0 if there is none.
    since: AtomicU64,
}

/// A write that is under way. Dropping it ends it.
pub(super) struct Going<'a>(&'a UnderWay);

impl UnderWay {
    pub(super) fn new(env: &Env) -> UnderWay {
        UnderWay { opened: env.monotonic(), since: AtomicU64::new(0) }
    }

    fn micros(&self, env: &Env) -> u64 {
        let passed = env.monotonic().duration_since(self.opened).as_micros();
        u64::try_from(passed).expect("microseconds do not run out") + 1
    }

    /// A write begins.
    pub(super) fn begin(&self, env: &Env) -> Going<'_> {
        self.since.store(self.micros(env), Ordering::Relaxed);
        Going(self)
    }

    /// How long the present one has taken so far.
    pub(super) fn time(&self, env: &Env) -> Option<Duration> {
        match self.since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Duration::from_micros(self.micros(env).saturating_sub(since))),
        }
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::sync::{Arc, Mutex};

    use floe_env::{Disk, DiskFile, DiskRoom, SimulatedDisk, lock};

    use super::*;
    use crate::journal::ring::{RingJournal, RingOptions};
    use crate::journal::{Change, Commit, Envelope, Journal, Lsn, Outcome};

    /// A disk whose syncs hang once it is told to, until it is told to go on.
    #[derive(Debug, Clone)]
    struct Hanging(SimulatedDisk, Arc<Mutex<Option<Receiver<()>>>>);

    #[derive(Debug)]
    struct HangingFile(Arc<dyn DiskFile>, Arc<Mutex<Option<Receiver<()>>>>);

    impl Hanging {
        fn hang(&self) -> SyncSender<()> {
            let (go_on, wait) = sync_channel(1);
            *lock(&self.1) = Some(wait);
            go_on
        }
        fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
            Arc::new(HangingFile(file, Arc::clone(&self.1)))
        }
    }

    impl Disk for Hanging {
        fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
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
            self.0.room()
        }
        fn end_process(&self, what: &str, why: &dyn std::fmt::Display) -> ! {
            self.0.end_process(what, why)
        }
    }

    impl DiskFile for HangingFile {
        fn bytes(&self) -> io::Result<u64> {
            self.0.bytes()
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(into, offset)
        }
        fn sync(&self) {
            if let Some(wait) = lock(&self.1).take() {
                wait.recv().expect("it is told to go on");
            }
            self.0.sync();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_hangs_is_seen_while_it_does() {
        let (env, disk) = (Env::real(), Hanging(SimulatedDisk::new(1), Arc::default()));
        let options = RingOptions { first_bytes: 1 << 16, file_bytes: 1 << 16, ..RingOptions::default() };
        let journal = Arc::new(RingJournal::open_on(&env, Arc::new(disk.clone()), options).unwrap());
        assert_eq!(journal.stalled(), None);
        let go_on = disk.hang();
        let committing = Arc::clone(&journal);
        let committed = env.spawn("a commit", async move {
            let change = Change { key: "key".into(), value: None };
            let group = [Commit { envelope: Envelope::broker("test"), changes: vec![change] }];
            committing.commit(Lsn(0), 1, &group).await
        });
        while journal.stalled().is_none_or(|time| time < Duration::from_millis(20)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        go_on.send(()).unwrap();
        assert_eq!(committed.await, Ok(Ok(Outcome::Committed(Lsn(1)))));
        assert_eq!(journal.stalled(), None);
    }
}
