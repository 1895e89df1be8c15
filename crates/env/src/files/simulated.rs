//! A disk in memory with a volatile cache. A power cut keeps what was synced, and of the rest nothing, a prefix, or any
//! part.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use super::seam::{Disk, DiskFile, assert_blocks};
use crate::disk::DiskRoom;
use crate::lock;
use crate::random::Seeded;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// The process that used the simulated disk has ended: what a panic carries out of the call at which it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOver;

/// A simulated disk. Clones share it. It outlives the processes that use it.
#[derive(Debug, Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
}

struct State {
    random: Seeded,
    inodes: BTreeMap<u64, Inode>,
    /// The names as the running process sees them, and as they are after a power cut.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<Renamed>,
    next_inode: u64,
    /// Calls that change something, so far.
    calls: u64,
    syncs: u64,
    written: u64,
    fault: Option<(u64, Fault)>,
    /// The process has ended, and what is left of it can do nothing more.
    over: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("names", &self.names).field("calls", &self.calls).finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The call fails. A write may be there in part.
    Fails,
    /// The process ends in the call.
    Ends,
}

#[derive(Debug, Default, Clone)]
struct Inode {
    /// What a power cut leaves for sure.
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Whether the length is durable.
    sized: bool,
}

/// A change of names in one directory.
#[derive(Debug, Clone)]
enum Renamed {
    Made(String, u64),
    Moved(String, String),
    Gone(String),
}

impl SimulatedDisk {
    /// An empty disk whose faults follow from the seed.
    pub fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(State {
            random: Seeded::new(seed),
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            next_inode: 0,
            calls: 0,
            syncs: 0,
            written: 0,
            fault: None,
            over: false,
        })))
    }

    /// A copy of the disk as it is, with faults of its own.
    #[must_use]
    pub fn copied(&self, seed: u64) -> SimulatedDisk {
        let state = lock(&self.0);
        SimulatedDisk(Arc::new(Mutex::new(State {
            random: Seeded::new(seed),
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            unsynced_names: state.unsynced_names.clone(),
            fault: None,
            over: false,
            ..*state
        })))
    }

    /// Calls so far that change something or make it durable.
    pub fn calls(&self) -> u64 {
        lock(&self.0).calls
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        lock(&self.0).syncs
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        lock(&self.0).written
    }

    /// The `count`th call from now fails, counted from 1. A sync that fails ends the process.
    pub fn fail_after(&self, count: u64) {
        let mut state = lock(&self.0);
        state.fault = Some((state.calls + count, Fault::Fails));
    }

    /// The process ends in the `count`th call from now, with a panic that carries [`DiskOver`].
    pub fn end_after(&self, count: u64) {
        let mut state = lock(&self.0);
        state.fault = Some((state.calls + count, Fault::Ends));
    }

    /// The process ends now, between two calls. What is left of it can do nothing more.
    pub fn end_now(&self) {
        lock(&self.0).over = true;
    }

    /// Whether the process has ended.
    pub fn is_over(&self) -> bool {
        lock(&self.0).over
    }

    /// The process has ended, however it did; the machine goes on. The next process sees all that was written.
    pub fn restart(&self) {
        let mut state = lock(&self.0);
        (state.over, state.fault) = (false, None);
    }

    /// The machine loses its power. What was not synced is lost in whole or in part.
    pub fn cut_power(&self) {
        lock(&self.0).cut_power();
        self.restart();
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0).names.keys().cloned().collect()
    }

    /// The contents of a file.
    ///
    /// # Panics
    /// It is missing.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = lock(&self.0);
        state.inodes[&state.names[name]].current.clone()
    }

    /// Overwrites a part of a file durably behind the back of the process: rot, or a write that went astray.
    ///
    /// # Panics
    /// It is missing.
    pub fn spoil(&self, name: &str, offset: usize, bytes: &[u8]) {
        let mut state = lock(&self.0);
        let inode = state.names[name];
        let file = state.inodes.get_mut(&inode).expect("names are of files");
        for image in [&mut file.current, &mut file.durable] {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Takes a file away, durably.
    ///
    /// # Panics
    /// It is missing.
    pub fn lose(&self, name: &str) {
        let mut state = lock(&self.0);
        state.names.remove(name).expect("it is there");
        state.durable_names.remove(name);
    }

    /// Counts a call, and tells what becomes of it.
    fn call(&self) -> io::Result<Option<Fault>> {
        let mut state = lock(&self.0);
        if state.over {
            return Err(io::Error::other("the process has ended"));
        }
        state.calls += 1;
        let fault = state.fault.filter(|(at, _)| *at == state.calls).map(|(_, fault)| fault);
        state.over = fault == Some(Fault::Ends);
        Ok(fault)
    }

    /// A call that is done as a whole or not at all.
    fn change(&self, change: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        match self.call()? {
            None => change(&mut lock(&self.0)),
            Some(Fault::Fails) => Err(io::Error::other("the disk fails")),
            Some(Fault::Ends) => {
                let mut state = lock(&self.0);
                if state.random.next().is_multiple_of(2) {
                    let _ = change(&mut state);
                }
                drop(state);
                resume_unwind(Box::new(DiskOver))
            }
        }
    }

    fn end(&self) -> ! {
        lock(&self.0).over = true;
        resume_unwind(Box::new(DiskOver))
    }
}

impl State {
    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn below(&mut self, end: usize) -> usize {
        (self.random.next() % end as u64) as usize
    }

    fn rename(&mut self, renamed: Renamed) {
        apply(&mut self.names, &renamed);
        self.unsynced_names.push(renamed);
    }

    fn cut_power(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced_names);
        let mode = self.below(4);
        let prefix = self.below(unsynced.len() + 1);
        for (at, renamed) in unsynced.iter().enumerate() {
            let kept = match mode {
                0 => false,
                1 => at < prefix,
                2 => self.below(2) == 0,
                _ => true,
            };
            if kept {
                apply(&mut self.durable_names, renamed);
            }
        }
        self.names = self.durable_names.clone();
        let inodes: Vec<u64> = self.inodes.keys().copied().collect();
        for number in inodes {
            let mut inode = self.inodes.remove(&number).expect("it was there");
            self.cut_file(&mut inode);
            self.inodes.insert(number, inode);
        }
    }

    fn cut_file(&mut self, inode: &mut Inode) {
        let unsynced = std::mem::take(&mut inode.unsynced);
        let mode = self.below(4);
        let prefix = self.below(unsynced.iter().map(|(_, bytes)| bytes.len() / SECTOR).sum::<usize>() + 1);
        let mut sector = 0;
        for (offset, bytes) in &unsynced {
            for (at, part) in bytes.chunks(SECTOR).enumerate() {
                let kept = match mode {
                    0 => false,
                    1 => sector < prefix,
                    2 => self.below(2) == 0,
                    _ => true,
                };
                sector += 1;
                if kept {
                    let start = offset + at * SECTOR;
                    inode.durable[start..start + part.len()].copy_from_slice(part);
                }
            }
        }
        if !inode.sized && self.below(2) == 0 {
            inode.durable.clear();
        }
        inode.sized = true;
        inode.current = inode.durable.clone();
    }
}

fn apply(names: &mut BTreeMap<String, u64>, renamed: &Renamed) {
    match renamed {
        Renamed::Made(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        // The name may be one of those that a power cut lost.
        Renamed::Moved(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Renamed::Gone(name) => {
            names.remove(name);
        }
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inode = 0;
        self.change(|state| {
            inode = state.next_inode;
            state.next_inode += 1;
            let zeros = vec![0; bytes as usize];
            let file = Inode { durable: zeros.clone(), current: zeros, unsynced: Vec::new(), sized: false };
            state.inodes.insert(inode, file);
            state.rename(Renamed::Made(name.to_owned(), inode));
            Ok(())
        })?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = lock(&self.0).find(name)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            state.find(from)?;
            state.rename(Renamed::Moved(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.find(name)?;
            state.rename(Renamed::Gone(name.to_owned()));
            Ok(())
        })
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let inside = format!("{directory}/");
        let state = lock(&self.0);
        Ok(state.names.keys().filter_map(|name| name.strip_prefix(&inside)).map(str::to_owned).collect())
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, directory: &str) {
        let inside = format!("{directory}/");
        let of_it = |renamed: &Renamed| match renamed {
            Renamed::Made(name, _) | Renamed::Gone(name) => name.starts_with(&inside),
            Renamed::Moved(from, to) => from.starts_with(&inside) || to.starts_with(&inside),
        };
        let synced = self.change(|state| {
            let (synced, left) = std::mem::take(&mut state.unsynced_names).into_iter().partition(of_it);
            state.unsynced_names = left;
            let synced: Vec<Renamed> = synced;
            synced.iter().for_each(|renamed| apply(&mut state.durable_names, renamed));
            Ok(())
        });
        if synced.is_err() {
            self.end();
        }
    }

    fn room(&self) -> io::Result<DiskRoom> {
        Ok(DiskRoom::of(0, 0, 0))
    }

    fn end_process(&self, _: &str, _: &dyn Display) -> ! {
        self.end()
    }
}

impl DiskFile for SimulatedFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.disk.0).inodes[&self.inode].current.len() as u64)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert_blocks(bytes, offset);
        let fault = self.disk.call()?;
        let mut state = lock(&self.disk.0);
        let sectors = bytes.len() / SECTOR;
        let written = match fault {
            None => bytes.len(),
            Some(_) if state.below(4) == 0 => bytes.len(),
            Some(_) => state.below(sectors + 1) * SECTOR,
        };
        state.written += written as u64;
        let file = state.inodes.get_mut(&self.inode).expect("a file is there as long as it is open");
        let (start, end) = (offset as usize, offset as usize + written);
        if end > file.current.len() {
            file.current.resize(end, 0);
            file.durable.resize(end, 0);
            file.sized = false;
        }
        file.current[start..end].copy_from_slice(&bytes[..written]);
        file.unsynced.push((start, bytes[..written].to_vec()));
        drop(state);
        match fault {
            None => Ok(()),
            Some(Fault::Fails) => Err(io::Error::other("the disk fails")),
            Some(Fault::Ends) => resume_unwind(Box::new(DiskOver)),
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        assert_blocks(into, offset);
        let state = lock(&self.disk.0);
        let current = &state.inodes[&self.inode].current;
        let found = current.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn sync(&self) {
        let synced = self.disk.change(|state| {
            state.syncs += 1;
            let file = state.inodes.get_mut(&self.inode).expect("a file is there as long as it is open");
            for (offset, bytes) in file.unsynced.drain(..) {
                file.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            file.sized = true;
            Ok(())
        });
        if synced.is_err() {
            self.disk.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::files::{BlockBuffer, DISK_BLOCK};

    fn block(byte: u8) -> BlockBuffer {
        let mut block = BlockBuffer::zeroed(DISK_BLOCK);
        block.as_mut_slice().fill(byte);
        block
    }

    #[test]
    fn what_was_synced_stays_and_of_the_rest_any_part() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let disk = SimulatedDisk::new(seed);
            let file = disk.create("ring/a", 2 * DISK_BLOCK as u64).unwrap();
            disk.sync_dir("ring");
            file.write_at(block(1).as_slice(), 0).unwrap();
            file.sync();
            file.write_at(block(2).as_slice(), 0).unwrap();
            file.write_at(block(3).as_slice(), DISK_BLOCK as u64).unwrap();
            disk.create("ring/b", 0).unwrap();
            disk.rename("ring/b", "ring/c").unwrap();
            disk.cut_power();
            let kept = disk.contents("ring/a");
            assert!(kept[..DISK_BLOCK].iter().all(|byte| [1, 2].contains(byte)));
            assert!(kept[DISK_BLOCK..].iter().all(|byte| [0, 3].contains(byte)));
            let sectors: Vec<u8> = kept.chunks(SECTOR).map(|sector| sector[0]).collect();
            seen.insert((sectors, disk.names()));
        }
        assert!(seen.len() > 60, "{} of 200 power cuts differ", seen.len());
        let names: BTreeSet<_> = seen.into_iter().map(|(_, names)| names).collect();
        assert_eq!(names.len(), 3, "without a new file, and with each of its names");
    }

    #[test]
    fn calls_fail_and_end_where_they_are_told_to() {
        let disk = SimulatedDisk::new(1);
        let file = disk.create("ring/a", DISK_BLOCK as u64).unwrap();
        disk.fail_after(2);
        file.sync();
        assert!(file.write_at(block(1).as_slice(), 0).is_err());
        file.write_at(block(1).as_slice(), 0).unwrap();
        for in_the_sync in [true, false] {
            if in_the_sync {
                disk.fail_after(1);
            } else {
                disk.end_after(1);
            }
            let ended = catch_unwind(AssertUnwindSafe(|| file.sync())).unwrap_err();
            assert_eq!(ended.downcast_ref::<DiskOver>(), Some(&DiskOver));
            assert!(file.write_at(block(1).as_slice(), 0).is_err() && disk.is_over());
            disk.cut_power();
        }
    }
}
