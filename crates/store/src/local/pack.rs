//! Pack files: preallocated files that are overwritten in place. Each object is one region, and a file is reused
//! once all its regions are dead. Everything here blocks; `mod.rs` calls it off the runtime's threads.
//!
//! Why: no metadata of the file system changes. On ext4, overwriting zeroed blocks and syncing costs a tenth of
//! creating, syncing and renaming a file, and an eighth of appending 8 MiB to a growing file.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use floe_env::{DiskReserve, punch_hole, reserve_blocks, sync_data, sync_dir};
use rustix::fs::OFlags;

use crate::StoreError;
use crate::limits::{VERIFY_STEP_BYTES, ZERO_STEP_BYTES};
use crate::local::region::{BLOCK, HEADER_BYTES, PackHeader, RegionHeader, is_damaged, pack_of_live, span};
use crate::payload::too_short;

/// The unit of the number of blocks that the system reports of a file.
const SECTOR: u64 = 512;
/// Slices of one vectored write; Linux allows 1,024.
const SLICES_MAX: usize = 1024;
/// Zeros that fill the last block of a region.
static FILLING: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// A pack file in use.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) number: u64,
    pub(super) header: PackHeader,
    file: File,
    sync: GroupSync,
    /// Regions that the index, a reader, or a writer can still reach.
    regions: AtomicUsize,
    /// Where dead regions are that nobody can reach, and whose room was not given back.
    dead: Mutex<Vec<Range<u64>>>,
}

/// A pack file that is ready for its next use, blank or recycled.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) number: u64,
    pub(super) file: File,
    pub(super) capacity: u64,
}

/// An object inside a pack. While one of these lives, the pack is not reused.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) pack: Arc<Pack>,
    pub(super) header: RegionHeader,
    verified: AtomicBool,
    /// Whether it is marked dead on the disk.
    dead: AtomicBool,
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.dead.load(Ordering::Acquire) {
            self.pack.note_dead(&self.header);
        }
        let before = self.pack.regions.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "region count underflow");
    }
}

/// What a scan of a pack finds.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) regions: Vec<RegionHeader>,
    /// The places of regions whose headers are damaged.
    pub(super) damaged: Vec<u64>,
}

impl Pack {
    /// Begins a new use of a file; its header is durable when this returns.
    pub(super) fn begin(ready: Ready, generation: u64, nonce: u64) -> io::Result<Arc<Pack>> {
        let header = PackHeader { generation, nonce, capacity: ready.capacity };
        ready.file.write_all_at(&header.encode(), 0)?;
        sync(&ready.file);
        Ok(Pack::with_header(ready.number, ready.file, header))
    }

    pub(super) fn with_header(number: u64, file: File, header: PackHeader) -> Arc<Pack> {
        let (sync, regions, dead) = (GroupSync::default(), AtomicUsize::new(0), Mutex::default());
        Arc::new(Pack { number, header, file, sync, regions, dead })
    }

    /// Whether nobody can reach any region, so that the file may be used again.
    pub(super) fn idle(&self) -> bool {
        self.regions.load(Ordering::Acquire) == 0
    }

    /// Notes a dead region that nobody reads any more.
    pub(super) fn note_dead(&self, header: &RegionHeader) {
        floe_env::lock(&self.dead).push(header.offset..header.offset + span(header.length));
    }

    /// Gives the room of dead regions back to the file system. Returns the bytes given.
    ///
    /// Where a header is gone, a scan goes on at the next block, as after a torn write.
    pub(super) fn give_back_dead(&self) -> io::Result<u64> {
        let dead = std::mem::take(&mut *floe_env::lock(&self.dead));
        let mut given = 0;
        for range in joined(dead) {
            let bytes = range.end - range.start;
            // A file system that cannot do it gives the room back with the whole file.
            given += if punch_hole(&self.file, range.start, bytes)? { bytes } else { 0 };
        }
        Ok(given)
    }

    /// Takes the file for its next use, if nobody else holds the pack.
    pub(super) fn into_ready(self: Arc<Pack>) -> Result<Ready, Arc<Pack>> {
        let pack = Arc::try_unwrap(self)?;
        Ok(Ready { number: pack.number, file: pack.file, capacity: pack.header.capacity })
    }

    pub(super) fn region(self: &Arc<Pack>, header: RegionHeader, verified: bool) -> Arc<Region> {
        self.regions.fetch_add(1, Ordering::AcqRel);
        let (verified, dead) = (AtomicBool::new(verified), AtomicBool::new(false));
        Arc::new(Region { pack: Arc::clone(self), header, verified, dead })
    }

    /// All regions of this use, in the order of their places.
    ///
    /// Regions are written concurrently, so a region that a crash tore may lie before an acknowledged one. Where
    /// the scan finds no header, it continues at the next block.
    pub(super) fn scan(&self) -> io::Result<Scanned> {
        self.scan_to(self.header.capacity)
    }

    fn scan_to(&self, end: u64) -> io::Result<Scanned> {
        let mut found = Scanned::default();
        let mut window = Window::default();
        let mut at = BLOCK;
        while at + BLOCK <= end {
            let block = window.block(&self.file, at)?;
            match RegionHeader::decode(block, &self.header, at) {
                Some(region) => {
                    at += span(region.length);
                    found.regions.push(region);
                }
                None => {
                    if is_damaged(block, &self.header, at) {
                        found.damaged.push(at);
                    }
                    at += BLOCK;
                }
            }
        }
        Ok(found)
    }
}

impl Region {
    /// Writes header and payload. They are durable only after [`Region::sync`].
    ///
    /// If that fails, the region is killed at once: its header may be on the disk already, and the next start would
    /// find a living object there that nothing refers to and nobody deletes.
    pub(super) fn write(&self, payload: &[Bytes]) -> io::Result<()> {
        let written = self.write_live(payload);
        if written.is_err()
            && let Err(error) = self.kill()
        {
            let (pack, key) = (self.pack.number, &self.header.key);
            tracing::warn!(pack, key, %error, "the room of a failed write is lost until its pack is used again");
        }
        written
    }

    fn write_live(&self, payload: &[Bytes]) -> io::Result<()> {
        let header = self.header.encode(&self.pack.header);
        let used = HEADER_BYTES as u64 + self.header.length;
        let filling = (span(self.header.length) - used) as usize;
        let mut slices = Vec::with_capacity(payload.len() + 2);
        slices.push(IoSlice::new(&header));
        slices.extend(payload.iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)));
        slices.push(IoSlice::new(&FILLING[..filling]));
        write_all_vectored_at(&self.pack.file, &mut slices, self.header.offset)
    }

    /// Returns once everything written to this pack before the call is durable.
    pub(super) fn sync(&self) {
        self.pack.sync.sync(&self.pack.file);
    }

    /// Marks the region dead, durably.
    pub(super) fn kill(&self) -> io::Result<()> {
        let dead = RegionHeader { live: false, ..self.header.clone() };
        self.pack.file.write_all_at(&dead.encode(&self.pack.header), self.header.offset)?;
        self.sync();
        self.dead.store(true, Ordering::Release);
        Ok(())
    }

    /// A range of the object.
    pub(super) fn get(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (key, length) = (&self.header.key, self.header.length);
        if range.start > range.end || range.end > length {
            return Err(StoreError::Corrupt(too_short(key, &range, length)));
        }
        match self.read(range.start, range.end - range.start) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(StoreError::Corrupt(format!("the checksum of {key} does not match its bytes"))),
            Err(error) => Err(StoreError::NotApplied(format!("cannot read {key}: {error}"))),
        }
    }

    /// The bytes `start .. start + length` of the payload. The caller has checked them against its length. The
    /// first read of a region that this process did not write verifies the checksum of the whole payload.
    pub(super) fn read(&self, start: u64, length: u64) -> io::Result<Option<Bytes>> {
        assert!(start + length <= self.header.length, "a read stays inside its region");
        if !self.verified.load(Ordering::Acquire) {
            return self.read_verified(start, length);
        }
        self.read_raw(start, length).map(Some)
    }

    /// Reads the whole payload step by step, and keeps what is asked for: a slice of the whole would keep all of it in
    /// memory. `None` if the checksum does not match.
    fn read_verified(&self, start: u64, length: u64) -> io::Result<Option<Bytes>> {
        let mut step = vec![0; VERIFY_STEP_BYTES.min(self.header.length) as usize];
        let mut wanted = Vec::with_capacity(length as usize);
        let (mut at, mut crc) = (0, 0);
        while at < self.header.length {
            let step = &mut step[..VERIFY_STEP_BYTES.min(self.header.length - at) as usize];
            self.read_at(step, at)?;
            crc = crc32c::crc32c_append(crc, step);
            let end = at + step.len() as u64;
            let (from, to) = (start.clamp(at, end) - at, (start + length).clamp(at, end) - at);
            wanted.extend_from_slice(&step[from as usize..to as usize]);
            at = end;
        }
        if crc != self.header.crc {
            return Ok(None);
        }
        assert_eq!(wanted.len() as u64, length, "the payload holds what was asked for");
        self.verified.store(true, Ordering::Release);
        Ok(Some(Bytes::from(wanted)))
    }

    /// Whether the payload is what was put. Reads it once.
    pub(super) fn verify(&self) -> io::Result<bool> {
        Ok(self.read(0, 0)?.is_some())
    }

    fn read_raw(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; length as usize];
        self.read_at(&mut bytes, start)?;
        Ok(Bytes::from(bytes))
    }

    fn read_at(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        self.pack.file.read_exact_at(bytes, self.header.offset + HEADER_BYTES as u64 + start)
    }
}

/// The same ranges in order, with neighbours joined.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Coalesces syncs: one sync serves all writes that finished before it began.
#[derive(Debug, Default)]
struct GroupSync {
    state: Mutex<SyncState>,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct SyncState {
    begun: u64,
    finished: u64,
    running: bool,
}

impl GroupSync {
    fn sync(&self, file: &File) {
        let mut state = self.lock();
        // A running sync may have begun before our write finished, so only the next one counts.
        let needed = state.begun + 1;
        while state.finished < needed {
            if state.running {
                state = self.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.begun += 1;
            let current = state.begun;
            drop(state);
            sync(file);
            state = self.lock();
            state.running = false;
            state.finished = current;
            self.finished.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, SyncState> {
        floe_env::lock(&self.state)
    }
}

/// Reads blocks of a file in order, and fetches a whole window when they are neighbours.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
    wanted: u64,
}

impl Window {
    fn block(&mut self, file: &File, at: u64) -> io::Result<&[u8; HEADER_BYTES]> {
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + HEADER_BYTES as u64 > end {
            // After a jump over a region one block is enough. Steps through blank blocks fetch more each time.
            self.wanted = if at == end { (self.wanted * 2).min(1 << 20) } else { BLOCK };
            let length = file.metadata()?.len();
            let available = length.saturating_sub(at).min(self.wanted.max(BLOCK));
            self.bytes.resize(available as usize, 0);
            file.read_exact_at(&mut self.bytes, at)?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        let block = self.bytes.get(from..from + HEADER_BYTES);
        block.and_then(|block| block.try_into().ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the pack is shorter than its header says")
        })
    }
}

/// The path of pack `number`.
pub(super) fn pack_path(packs: &Path, number: u64) -> PathBuf {
    packs.join(format!("pack-{number:08}"))
}

/// The number in the name of a pack file.
pub(super) fn pack_number(path: &Path) -> Option<u64> {
    number_after("pack-", path)
}

/// Whether this is the name of a pack file that is being zero-filled.
pub(super) fn is_zeroing(path: &Path) -> bool {
    number_after("zeroing-", path).is_some()
}

/// The number in the name of the file that says which number comes next.
pub(super) fn next_number(path: &Path) -> Option<u64> {
    number_after("next-", path)
}

/// Remembers that `number` is given, before a file has it. A pack that was moved away must not find another one in its
/// place when it is put back. Whoever makes the pack syncs the directory.
fn give(packs: &Path, number: u64) -> io::Result<()> {
    let name = |number| packs.join(format!("next-{number:08}"));
    File::create(name(number + 1))?;
    match std::fs::remove_file(name(number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number of a name that this module gives; `None` for any other name, however similar.
fn number_after(prefix: &str, path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number: u64 = name.strip_prefix(prefix)?.parse().ok()?;
    (name == format!("{prefix}{number:08}")).then_some(number)
}

impl Ready {
    /// Whether the file has all its blocks. One with holes would take room while objects are written, and slowly.
    pub(super) fn is_whole(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.blocks() * SECTOR >= self.capacity)
    }

    /// Removes the file.
    pub(super) fn remove(self, packs: &Path) -> io::Result<()> {
        std::fs::remove_file(pack_path(packs, self.number))?;
        sync_dir(packs)
    }
}

/// Opens an existing pack file.
pub(super) fn open_pack(packs: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(pack_path(packs, number))
}

/// The header that a file should have, by the living regions in it. A file that seems unused and has one must not be
/// written to, because a damaged header says nothing about the rest. Without `whole`, looks only at the place of the
/// first region.
pub(super) fn header_by_regions(file: &File, capacity: u64, whole: bool) -> io::Result<Option<PackHeader>> {
    let mut window = Window::default();
    let end = if whole { capacity } else { capacity.min(2 * BLOCK) };
    let (mut at, mut newest) = (BLOCK, None);
    while at + BLOCK <= end {
        newest = newest.max(pack_of_live(window.block(file, at)?, at));
        at += BLOCK;
    }
    Ok(newest.map(|(generation, nonce)| PackHeader { generation, nonce, capacity }))
}

/// Creates a pack file at once, without zeroing. The room is reserved, so a full disk shows here and not while an
/// object is written. The first write to each block is slow.
pub(super) fn create_unzeroed(
    packs: &Path,
    disk: &DiskReserve,
    number: u64,
    capacity: u64,
) -> io::Result<Ready> {
    give(packs, number)?;
    let path = pack_path(packs, number);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let reserved = reserve(&file, disk, capacity).and_then(|()| file.set_len(capacity));
    if let Err(error) = reserved {
        std::fs::remove_file(&path)?;
        return Err(error);
    }
    sync(&file);
    sync_dir(packs)?;
    Ok(Ready { number, file, capacity })
}

/// The zeros of one step, aligned so that the system can write them past its page cache.
#[repr(align(4096))]
struct Zeros([u8; ZERO_STEP_BYTES as usize]);
static ZEROS: Zeros = Zeros([0; ZERO_STEP_BYTES as usize]);

/// A pack file that is being zero-filled. It has a name of its own until it is complete.
#[derive(Debug)]
pub(super) struct Zeroing {
    number: u64,
    capacity: u64,
    written: u64,
    file: File,
    /// The same file opened past the page cache, if the file system can do that. The zeros then take no memory, and
    /// no sync at each step is needed to keep the disk's queue short.
    direct: Option<File>,
    path: PathBuf,
}

impl Zeroing {
    pub(super) fn begin(packs: &Path, disk: &DiskReserve, number: u64, capacity: u64) -> io::Result<Zeroing> {
        give(packs, number)?;
        let path = packs.join(format!("zeroing-{number:08}"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(&path).ok();
        let zeroing = Zeroing { number, capacity, written: 0, file, direct, path };
        if let Err(error) = reserve(&zeroing.file, disk, capacity) {
            zeroing.give_up();
            return Err(error);
        }
        Ok(zeroing)
    }

    /// Writes the next step to the disk. Returns true when the file is complete.
    pub(super) fn step(&mut self) -> io::Result<bool> {
        let bytes = ZERO_STEP_BYTES.min(self.capacity - self.written);
        self.write(&ZEROS.0[..bytes as usize])?;
        self.written += bytes;
        Ok(self.written == self.capacity)
    }

    fn write(&mut self, zeros: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.write_all_at(zeros, self.written) {
                // The file system accepts the flag but cannot do it.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                written => return written,
            }
        }
        self.file.write_all_at(zeros, self.written)?;
        sync(&self.file);
        Ok(())
    }

    /// The zero-filled part, from 0 to 1.
    pub(super) fn share(&self) -> f64 {
        self.written as f64 / self.capacity as f64
    }

    /// Gives the complete file its name.
    pub(super) fn finish(self, packs: &Path) -> io::Result<Ready> {
        assert_eq!(self.written, self.capacity, "only a complete pack is ready");
        sync(&self.file);
        std::fs::rename(&self.path, pack_path(packs, self.number))?;
        sync_dir(packs)?;
        Ok(Ready { number: self.number, file: self.file, capacity: self.capacity })
    }

    pub(super) fn give_up(self) {
        // Nothing depends on the file. If it cannot be removed now, the next opening removes it.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a half-zeroed pack file");
        }
    }
}

/// Reserves room on the disk for a file. The last part of the disk is left for deletions. File systems that cannot
/// reserve report a full disk at a write.
pub(super) fn reserve(file: &File, disk: &DiskReserve, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let room = disk.room()?;
    if !room.holds(bytes) {
        return Err(room.full(bytes));
    }
    allocate(file, bytes)
}

/// Reserves room on the disk, also in the part that is left for deletions.
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    reserve_blocks(file, bytes).map(drop)
}

/// Makes the writes to a file of the store durable, or ends the process.
pub(super) fn sync(file: &File) {
    sync_data(file, "the store");
}

/// Writes all slices at `offset`, in as few calls as the kernel allows.
pub(super) fn write_all_vectored_at(
    file: &File,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let batch = &slices[..slices.len().min(SLICES_MAX)];
        let written = match rustix::io::pwritev(file, batch, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        offset += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags};

    use super::*;

    /// A pack whose file cannot grow to its size, so that writes behind the end fail.
    fn cut_off_pack(file_bytes: u64) -> Arc<Pack> {
        let memory =
            rustix::fs::memfd_create("pack", MemfdFlags::ALLOW_SEALING).expect("the system has memfd");
        let file = File::from(memory);
        file.set_len(file_bytes).expect("it grows");
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).expect("it is sealed");
        Pack::with_header(1, file, PackHeader { generation: 1, nonce: 7, capacity: 1 << 20 })
    }

    fn region(pack: &Arc<Pack>, length: u64, crc: u32, verified: bool) -> Arc<Region> {
        let header = RegionHeader { live: true, offset: BLOCK, length, crc, key: "wal/1".into() };
        pack.region(header, verified)
    }

    #[test]
    fn a_region_whose_write_failed_is_dead_at_once() {
        let pack = cut_off_pack(8 * BLOCK);
        let payload = Bytes::from(vec![5; 20 * BLOCK as usize]);
        let region = region(&pack, payload.len() as u64, crc32c::crc32c(&payload), true);
        assert!(region.write(&[payload]).is_err(), "the payload goes beyond the end of the file");
        let found = pack.scan_to(8 * BLOCK).expect("the file can be read").regions;
        assert_eq!(
            found.iter().map(|region| region.live).collect::<Vec<_>>(),
            [false],
            "its header was written"
        );
    }

    #[test]
    fn the_first_read_verifies_the_whole_and_keeps_what_was_asked_for() {
        let pack = cut_off_pack(1 << 20);
        let length = 2 * VERIFY_STEP_BYTES + 1_000;
        let payload: Bytes = (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into();
        let crc = crc32c::crc32c(&payload);
        region(&pack, length, crc, true).write(std::slice::from_ref(&payload)).expect("there is room");
        let edges =
            [0, 1, VERIFY_STEP_BYTES, VERIFY_STEP_BYTES + 1, 2 * VERIFY_STEP_BYTES, length - 1, length];
        for (index, &start) in edges.iter().enumerate() {
            for &end in &edges[index..] {
                let unverified = region(&pack, length, crc, false);
                let first =
                    unverified.read(start, end - start).expect("it can be read").expect("it is sound");
                let again =
                    unverified.read(start, end - start).expect("it can be read").expect("it is sound");
                assert_eq!((&first, &again), (&payload.slice(start as usize..end as usize), &first));
            }
        }
        let damaged = region(&pack, length, crc ^ 1, false);
        assert_eq!(damaged.read(0, 1).expect("it can be read"), None);
    }

    #[test]
    fn neighbours_are_joined() {
        assert_eq!(joined(vec![8..12, 0..4, 4..8, 20..24]), [0..12, 20..24]);
        assert!(joined(Vec::new()).is_empty());
    }
}
