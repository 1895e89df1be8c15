//! A store in a local directory. A PUT is synced, data and name, before it returns.
//!
//! ```text
//! <dir>/format          the version of this layout
//! <dir>/lock            held while a process uses the store
//! <dir>/packs/pack-N    WAL objects: regions of preallocated, recycled files (local/region.rs has the format)
//! <dir>/packs/next-N    an empty file: no pack had the number N so far
//! <dir>/tmp/            objects that are being written; emptied at open
//! <dir>/<key>           every other object: a file of its own (tables/…), written aside, synced, renamed
//! ```
//! Keys that begin with `wal/` go into packs, except large objects. Opening the store reads the headers of all
//! packs and rebuilds the index from them. There is no other list of objects.
//!
//! Opening destroys nothing. A file with an unknown name is left alone. A pack with damage is in quarantine: what can
//! be read of it is served, and nothing is written to it any more. An object whose bytes do not match their checksum
//! stays, and reads of it are refused: whether a crash cut it short or it rotted later, only the metadata can tell.
//! [`LocalStore::findings`] names all that.
//!
//! On a full disk, PUTs are refused with [`StoreError::Full`] and everything else stays in service. The last part of
//! the disk is kept for deletions (`floe_env::DiskReserve`). Packs that are no longer needed go back to the file
//! system, and on a disk without much room also the dead parts of the others, but never those in quarantine. A failed
//! sync ends the process (`floe_env::sync_data`).
//!
//! The rest of the folder: open.rs opens the store, region.rs is the format of packs, pack.rs reads and writes them,
//! space.rs says which packs are in use, ready, in quarantine or given back, files.rs keeps the single files,
//! finding.rs is what opening found, looked.rs reads a store that is not opened, failure.rs maps errors.

mod failure;
mod files;
mod finding;
mod looked;
mod open;
mod pack;
mod region;
mod space;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_env::{DiskReserve, DiskRoom, Env, FileLock, Task};
use tokio::sync::{Notify, Semaphore};

use crate::limits::{
    GIVE_BACK_PAUSE, PACK_SHARE_MAX, READS_AT_ONCE_MAX, ROOM_AMPLE_BYTES, ROOM_LOOK_PAUSE, ZERO_AHEAD,
    ZERO_AHEAD_SHARE, ZERO_RETRY_PAUSE,
};
use crate::local::failure::not_applied;
use crate::local::files::Files;
pub use crate::local::finding::Finding;
use crate::local::open::Opened;
pub use crate::local::open::{Inspected, OpenError, inspect};
use crate::local::pack::{Pack, Ready, Region, Zeroing};
use crate::local::region::{BLOCK, RegionHeader, span};
pub use crate::local::space::Options;
use crate::local::space::{Active, Space};
use crate::{Listed, PutIfAbsent, Store, StoreError, check_key, payload_bytes};

/// Keys with this prefix are packed.
const PACKED_PREFIX: &str = "wal/";
/// How often opening asks for the lock, [`LOCK_PAUSE`] apart, before it reports that the store is in use.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The value of `Shared::used` for a full pack.
const USED_WHOLE: u64 = 1_000_000;

/// Objects in a local directory. Clones share the store.
#[derive(Clone)]
pub struct LocalStore {
    env: Env,
    shared: Arc<Shared>,
    /// A permit for each read that may be under way.
    reads: Arc<Semaphore>,
    _filler: Arc<Filler>,
}

struct Shared {
    options: Options,
    packs: PathBuf,
    files: Files,
    disk: DiskReserve,
    env: Env,
    index: Mutex<BTreeMap<String, Arc<Region>>>,
    findings: Vec<Finding>,
    space: Mutex<Space>,
    /// The used part of the pack in use, in units of 1 / `USED_WHOLE`.
    used: AtomicU64,
    /// Notified when room was taken, so that the next pack is prepared in time.
    space_taken: Arc<Notify>,
    /// Notified when room may be given back to the file system.
    room_wanted: Arc<Notify>,
    /// Held until the last request has ended, even if its caller is gone. Only then may another process open the
    /// store. The system releases it with the file.
    _lock: FileLock,
}

impl LocalStore {
    /// Opens the store in `dir` and starts to prepare packs. Creates `dir` if it is missing.
    pub async fn open(env: Env, dir: impl Into<PathBuf>, options: Options) -> Result<LocalStore, OpenError> {
        assert!(options.pack_bytes_first.is_multiple_of(BLOCK), "packs consist of whole blocks");
        assert!(options.pack_bytes_first >= 4 * BLOCK, "a pack holds at least a few objects");
        let dir: PathBuf = dir.into();
        let mut patience = LOCK_TRIES;
        let shared = loop {
            let dir = dir.clone();
            match env.blocking(move || open::open(&dir, &options)).await {
                // The last requests of a store that was just dropped may still be in flight.
                Err(OpenError::InUse(_)) if patience > 0 => {
                    patience -= 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                opened => break Arc::new(Shared::new(env.clone(), options, opened?)),
            }
        };
        let filler = Arc::new(Filler::start(&env, options, &shared));
        let reads = Arc::new(Semaphore::new(READS_AT_ONCE_MAX));
        Ok(LocalStore { env, shared, reads, _filler: filler })
    }

    /// The keys of all objects in packs, in order, for checkers and `floe doctor`.
    pub fn packed_keys(&self) -> Vec<String> {
        self.shared.index().keys().cloned().collect()
    }

    /// What opening found that is not as it should be, and left alone.
    pub fn findings(&self) -> &[Finding] {
        &self.shared.findings
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> T + Send + 'static) -> T {
        let shared = Arc::clone(&self.shared);
        self.env.blocking(move || work(&shared)).await
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn put(&self, key: &str, payload: Vec<Bytes>) -> Result<(), StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |shared| shared.noting_full(shared.put(&key, &payload))).await
    }

    async fn put_if_absent(&self, key: &str, payload: Vec<Bytes>) -> Result<PutIfAbsent, StoreError> {
        check_key(key)?;
        if key.starts_with(PACKED_PREFIX) {
            return Err(StoreError::NotApplied(
                "WAL objects have unique keys and are not put conditionally".into(),
            ));
        }
        let key = key.to_owned();
        let put = move |shared: &Shared| shared.files.put_if_absent(shared.aside(), &key, &payload);
        self.blocking(move |shared| shared.noting_full(put(shared))).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        let turn = Arc::clone(&self.reads).acquire_owned().await.expect("the semaphore is never closed");
        metrics::gauge!("floe_store_local_reads")
            .set((READS_AT_ONCE_MAX - self.reads.available_permits()) as f64);
        self.blocking(move |shared| {
            // A read whose caller is gone still takes its thread.
            let _turn = turn;
            shared.get(&key, range)
        })
        .await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        check_key(key)?;
        let packed = self.shared.index().get(key).map(|region| region.header.length);
        if let Some(length) = packed {
            return Ok(length);
        }
        let key = key.to_owned();
        self.blocking(move |shared| shared.files.size(&key)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |shared| shared.delete(&key)).await
    }

    async fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        check_key(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.blocking(move |shared| shared.list(&prefix, &after, count)).await
    }

    async fn room(&self) -> Option<DiskRoom> {
        // A write says why the disk does not answer.
        self.blocking(|shared| shared.disk.room().ok()).await
    }

    fn url(&self, key: &str) -> String {
        format!("file://{}", self.shared.files.path(key).display())
    }

    fn remote(&self) -> bool {
        false
    }
}

impl Shared {
    fn new(env: Env, options: Options, opened: Opened) -> Shared {
        let Opened { lock, packs, files, disk, index, space, findings } = opened;
        Shared {
            options,
            packs,
            files,
            disk,
            env,
            index: Mutex::new(index),
            findings,
            space: Mutex::new(space),
            used: AtomicU64::new(0),
            space_taken: Arc::new(Notify::new()),
            room_wanted: Arc::new(Notify::new()),
            _lock: lock,
        }
    }

    /// Passes on the outcome of a write. One that found no room asks for some.
    fn noting_full<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(outcome, Err(StoreError::Full(_))) {
            metrics::counter!("floe_store_full_total").increment(1);
            self.room_wanted.notify_one();
            self.space_taken.notify_one();
        }
        outcome
    }

    fn put(&self, key: &str, payload: &[Bytes]) -> Result<(), StoreError> {
        let length = payload_bytes(payload);
        let packed = key.starts_with(PACKED_PREFIX) && span(length) <= self.packed_bytes_max();
        if !packed {
            return self.files.put(self.aside(), key, payload);
        }
        // A ready pack has room, but the commit that makes the object visible would be refused.
        let room = self.disk.room().map_err(|error| not_applied(&error))?;
        if room.only_deletions() {
            return Err(not_applied(&room.full(length)));
        }
        let crc = payload.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        let region = match self.allocate(key, length, crc) {
            Ok(region) => region,
            // There is no room for a pack, but perhaps for this one object.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return self.files.put(self.aside(), key, payload);
            }
            Err(error) => return Err(not_applied(&error)),
        };
        region.write(payload).map_err(|error| not_applied(&error))?;
        region.sync();
        let replaced = self.index().insert(key.to_owned(), region);
        match replaced {
            Some(old) => old.kill().map_err(|error| StoreError::Unknown(error.to_string())),
            None => Ok(()),
        }
    }

    fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let region = self.index().get(key).cloned();
        let Some(region) = region else {
            return self.files.get(key, range);
        };
        region.get(range.unwrap_or(0..region.header.length))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let region = self.index().get(key).cloned();
        let Some(region) = region else {
            return self.files.delete(key);
        };
        // Marked dead before the index forgets it. Otherwise a second try could not find the region, and the next
        // start would.
        region.kill().map_err(|error| StoreError::Unknown(error.to_string()))?;
        let mut index = self.index();
        if index.get(key).is_some_and(|current| Arc::ptr_eq(current, &region)) {
            index.remove(key);
        }
        self.room_wanted.notify_one();
        Ok(())
    }

    /// Gives packs that nobody needs back to the file system, and on a disk without much room also the dead parts of
    /// the others.
    fn give_back(&self) {
        let (short, tight) = match self.disk.room() {
            Ok(room) => (!room.holds(0), !room.holds(ROOM_AMPLE_BYTES)),
            Err(error) => return tracing::warn!(%error, "cannot tell how full the disk is"),
        };
        let in_use = {
            let mut space = self.space();
            space.recycle();
            space.thin_out(&self.options, short);
            if tight { space.in_use() } else { Vec::new() }
        };
        let given = self.give_surplus_back().and_then(|packs| {
            let dead = in_use.iter().map(|pack| pack.give_back_dead()).sum::<io::Result<u64>>()?;
            Ok(packs + dead)
        });
        match given {
            Ok(0) => {}
            Ok(bytes) => {
                metrics::counter!("floe_store_given_back_bytes_total").increment(bytes);
                tracing::info!(bytes, "gave room back to the file system");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot give room back to the file system, trying again later");
            }
        }
    }

    fn give_surplus_back(&self) -> io::Result<u64> {
        let mut given = 0;
        loop {
            // Not under the lock: removing a large file takes a while.
            let next = self.space().surplus.pop_front();
            let Some(pack) = next else { return Ok(given) };
            let capacity = pack.capacity;
            pack.remove(&self.packs)?;
            given += capacity;
        }
    }

    fn list(&self, prefix: &str, after: &str, count: usize) -> Result<Vec<Listed>, StoreError> {
        let unreadable = |error: io::Error| StoreError::NotApplied(format!("cannot list {prefix}: {error}"));
        let mut found = self.files.list(prefix).map_err(unreadable)?;
        let begin = format!("{prefix}/");
        let index = self.index();
        let packed = index.range(begin.clone()..).take_while(|(key, _)| key.starts_with(&begin));
        found.extend(packed.map(|(key, region)| (key.clone(), region.header.length)));
        drop(index);
        let wanted = found.into_iter().filter(|(key, _)| key.as_str() > after).take(count);
        Ok(wanted.map(|(key, bytes)| Listed { key, bytes }).collect())
    }

    /// The largest packed object, with its header and filling. Larger ones become files of their own. The smallest
    /// pack has room for two.
    fn packed_bytes_max(&self) -> u64 {
        (self.options.pack_bytes_max / PACK_SHARE_MAX).min(self.options.pack_bytes_first / 2 - BLOCK)
    }

    /// Allocates a region that nobody else writes to.
    fn allocate(&self, key: &str, length: u64, crc: u32) -> io::Result<Arc<Region>> {
        let mut space = self.space();
        let bytes = span(length);
        let fits = |active: &Active| active.next + bytes <= active.pack.header.capacity;
        if !space.active.as_ref().is_some_and(fits) {
            let pack = self.next_pack(&mut space)?;
            let sealed = space.active.replace(Active { pack, next: BLOCK });
            space.sealed.extend(sealed.map(|active| active.pack));
        }
        let active = space.active.as_mut().expect("a pack with room was just made active");
        let header = RegionHeader { live: true, offset: active.next, length, crc, key: key.to_owned() };
        active.next += bytes;
        assert!(active.next <= active.pack.header.capacity, "a region ends inside its pack");
        self.used.store(active.next * USED_WHOLE / active.pack.header.capacity, Ordering::Relaxed);
        self.space_taken.notify_one();
        Ok(active.pack.region(header, true))
    }

    fn next_pack(&self, space: &mut Space) -> io::Result<Arc<Pack>> {
        space.recycle();
        let ready = match space.ready.pop() {
            Some(ready) => ready,
            None => self.unzeroed_pack(space)?,
        };
        let generation = space.generation_next;
        space.generation_next += 1;
        metrics::gauge!("floe_store_packs_in_use").set(space.sealed.len() as f64 + 1.0);
        Pack::begin(ready, generation, self.env.random_u64())
    }

    /// Creates a pack when no zero-filled one is ready. It is ready at once, but slower to write to.
    fn unzeroed_pack(&self, space: &mut Space) -> io::Result<Ready> {
        metrics::counter!("floe_store_packs_unzeroed_total").increment(1);
        tracing::debug!("no zero-filled pack is ready, taking a fresh one");
        let (number, capacity) = space.new_pack(&self.options);
        let created = pack::create_unzeroed(&self.packs, &self.disk, number, capacity);
        if created.is_err() {
            space.capacity_next = self.options.pack_bytes_first;
        }
        created
    }

    /// The used part of the pack in use, from 0 to 1.
    fn used_share(&self) -> f64 {
        self.used.load(Ordering::Relaxed) as f64 / USED_WHOLE as f64
    }

    /// Number and size of the pack to prepare now; `None` if enough are ready.
    fn wanted_pack(&self) -> Option<(u64, u64)> {
        let mut space = self.space();
        space.recycle();
        (space.ready.len() < self.options.packs_ahead).then(|| space.new_pack(&self.options))
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Region>>> {
        floe_env::lock(&self.index)
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        floe_env::lock(&self.space)
    }

    /// A name for a file being written, which no other write uses.
    fn aside(&self) -> u64 {
        self.env.random_u64()
    }
}

/// The tasks. They end with the last handle of the store.
struct Filler([Task<()>; 3]);

impl Filler {
    fn start(env: &Env, options: Options, store: &Arc<Shared>) -> Filler {
        let fill = fill(env.clone(), options, Arc::downgrade(store));
        let give_back = give_back(env.clone(), Arc::downgrade(store));
        let look = look_at_room(env.clone(), store.disk.clone());
        Filler([
            env.spawn("local store filler", fill),
            env.spawn("local store giver", give_back),
            env.spawn("local store room", look),
        ])
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.0.iter().for_each(Task::abort);
    }
}

/// Measures the free room of the disk. Other programs change it, also while nobody writes here.
async fn look_at_room(env: Env, disk: DiskReserve) {
    loop {
        let disk = disk.clone();
        // A write says why the disk does not answer.
        if let Ok(room) = env.blocking(move || disk.room()).await {
            metrics::gauge!("floe_store_disk_free_bytes").set(room.free as f64);
        }
        tokio::time::sleep(ROOM_LOOK_PAUSE).await;
    }
}

/// Gives room back after deletions, and when a write found none. Does not keep the store open.
async fn give_back(env: Env, store: Weak<Shared>) {
    loop {
        let Some(shared) = store.upgrade() else { return };
        let room_wanted = Arc::clone(&shared.room_wanted);
        env.blocking(move || shared.give_back()).await;
        tokio::time::sleep(GIVE_BACK_PAUSE).await;
        room_wanted.notified().await;
    }
}

/// Keeps packs ready by zero-filling new ones step by step. Does not keep the store open.
async fn fill(env: Env, options: Options, store: Weak<Shared>) {
    let mut failing = false;
    loop {
        let Some(shared) = store.upgrade() else { return };
        let space_taken = Arc::clone(&shared.space_taken);
        let looking = Arc::clone(&shared);
        let wanted = env.blocking(move || looking.wanted_pack()).await;
        let (packs, disk) = (shared.packs.clone(), shared.disk.clone());
        drop(shared);
        let Some((number, capacity)) = wanted else {
            space_taken.notified().await;
            continue;
        };
        match zero_in_steps(&env, &space_taken, &store, (packs, disk), number, capacity).await {
            Ok(ready) => {
                let Some(shared) = store.upgrade() else { return };
                shared.space().ready.push(ready);
                metrics::counter!("floe_store_packs_zeroed_total").increment(1);
                failing = false;
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot prepare a pack file, trying again until it works");
                }
                failing = true;
                if let Some(shared) = store.upgrade() {
                    // A small pack may still fit on a disk that is nearly full.
                    shared.space().capacity_next = options.pack_bytes_first;
                }
                tokio::time::sleep(ZERO_RETRY_PAUSE).await;
            }
        }
    }
}

async fn zero_in_steps(
    env: &Env,
    space_taken: &Notify,
    store: &Weak<Shared>,
    (packs, disk): (PathBuf, DiskReserve),
    number: u64,
    capacity: u64,
) -> io::Result<Ready> {
    let (folder, reserve) = (packs.clone(), disk.clone());
    let mut zeroing = env.blocking(move || Zeroing::begin(&folder, &reserve, number, capacity)).await?;
    loop {
        let step = move || {
            let done = zeroing.step();
            (zeroing, done)
        };
        let (stepped, done) = env.blocking(step).await;
        zeroing = stepped;
        match done {
            Ok(true) => return env.blocking(move || zeroing.finish(&packs)).await,
            Ok(false) => {
                // As slowly as the pack in use allows, because each step delays the syncs of others.
                let enough = |used: f64| zeroing.share() > used * ZERO_AHEAD + ZERO_AHEAD_SHARE;
                while store.upgrade().is_some_and(|shared| enough(shared.used_share())) {
                    space_taken.notified().await;
                    let short = match disk.room() {
                        Ok(room) if room.holds(0) => continue,
                        Ok(room) => room.full(0),
                        Err(error) => error,
                    };
                    // Others need the room that this pack has reserved.
                    zeroing.give_up();
                    return Err(short);
                }
            }
            Err(error) => {
                zeroing.give_up();
                return Err(error);
            }
        }
    }
}
