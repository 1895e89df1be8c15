//! Opens the files of a store, and judges them without opening it. Nothing here destroys what it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use floe_env::{DiskReserve, FileLock, sync_dir};
use thiserror::Error;

use crate::StoreError;
use crate::limits::REGIONS_VERIFIED_AT_OPEN;
use crate::local::files::Files;
use crate::local::finding::Finding;
use crate::local::pack::{self, Pack, Ready, Region, Zeroing};
use crate::local::region::{BLOCK, HEADER_BYTES, NewerFormat, PackHeader, PackState, span};
use crate::local::space::{Active, Options, Space};

/// The content of the file `format`.
const FORMAT: &str = "floe local store 1\n";

/// The files in the directory of a store, beside its folders.
const OWN_FILES: &[&str] = &["format", "format.new", "lock"];

/// Why a local store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the store open.
    #[error("{0} is in use by another process, stop that one or choose another directory")]
    InUse(PathBuf),
    /// A newer version wrote the directory, or it is something else.
    #[error(
        "{path} has the format {found:?}, this program knows \"floe local store 1\": \
         use the version of Floe that wrote it"
    )]
    Format {
        /// The file with the format.
        path: PathBuf,
        /// The file's content.
        found: String,
    },
    /// A newer version wrote a pack.
    #[error("{path}: {reason}")]
    NewerPack {
        /// The path of the pack file.
        path: PathBuf,
        /// The version in its header.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot open the store in {path}: {error}")]
    Io {
        /// The directory of the store.
        path: PathBuf,
        /// The error of the file system.
        error: io::Error,
    },
}

/// What is in the directory of a store. No other process may use it meanwhile.
#[derive(Debug)]
pub struct Inspected {
    /// What is not as it should be. Damaged objects are among it, whether a crash cut them short or they rotted.
    pub findings: Vec<Finding>,
    /// Every object with its length.
    pub objects: BTreeMap<String, u64>,
    packed: BTreeMap<String, Arc<Region>>,
    files: Files,
    _lock: FileLock,
}

impl Inspected {
    /// A range of an object, as [`Store::get`](crate::Store::get) has it.
    ///
    /// # Errors
    /// The object is missing, too short or damaged, or the file system refuses.
    pub fn read(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        match self.packed.get(key) {
            Some(region) => region.get(range),
            None => self.files.get(key, Some(range)),
        }
    }

    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.files.path(key)
    }
}

/// Reads everything in the directory of a store that no process uses, and changes nothing.
///
/// # Errors
/// A process uses the store, it is not one of this version of Floe, or the file system refuses.
pub fn inspect(dir: &Path) -> Result<Inspected, OpenError> {
    let io_error = |error| OpenError::Io { path: dir.to_owned(), error };
    // Taking the lock creates its file, and a mistyped directory must not get one.
    dir.join("format").metadata().map_err(io_error)?;
    let lock = lock(dir)?;
    check_format(dir)?;
    let mut loaded = load_packs(&dir.join("packs"), &Options::default(), Depth::Everything)?;
    let files = Files::look(dir);
    let mut objects = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name().into_string().unwrap_or_default();
        match entry.path().is_dir() {
            true if name == "packs" || name == "tmp" => {}
            true => objects.extend(files.list(&name).map_err(io_error)?),
            false if OWN_FILES.contains(&name.as_str()) => {}
            false => loaded.findings.push(Finding::unknown(entry.path())),
        }
    }
    objects.extend(loaded.index.iter().map(|(key, region)| (key.clone(), region.header.length)));
    Ok(Inspected { findings: loaded.findings, objects, packed: loaded.index, files, _lock: lock })
}

/// The parts of a store that was opened.
pub(super) struct Opened {
    pub(super) lock: FileLock,
    pub(super) packs: PathBuf,
    pub(super) files: Files,
    pub(super) disk: DiskReserve,
    pub(super) index: BTreeMap<String, Arc<Region>>,
    pub(super) space: Space,
    pub(super) findings: Vec<Finding>,
}

pub(super) fn open(dir: &Path, options: &Options) -> Result<Opened, OpenError> {
    let io_error = |error| OpenError::Io { path: dir.to_owned(), error };
    std::fs::create_dir_all(dir).map_err(io_error)?;
    let dir = dir.canonicalize().map_err(io_error)?;
    match dir.parent().map_or(Ok(()), sync_dir) {
        // A process cannot have created `dir` in a parent that it may not read.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        synced => synced.map_err(io_error)?,
    }
    let lock = lock(&dir)?;
    check_format(&dir)?;
    let packs = dir.join("packs");
    std::fs::create_dir_all(&packs).map_err(io_error)?;
    let mut loaded = load_packs(&packs, options, Depth::Ends)?;
    let disk = DiskReserve::new(&dir, options.disk_reserve_bytes);
    let files = Files::open(&dir, disk.clone(), &mut loaded.findings).map_err(io_error)?;
    sync_dir(&dir).map_err(io_error)?;
    for finding in &loaded.findings {
        tracing::warn!(%finding, "the store is not as it should be");
    }
    let space = &loaded.space;
    if space.ready.is_empty() && space.active.is_none() && space.quarantined.is_empty() {
        // The first pack of a new store is small and zero-filled at once, so that the first writes are fast.
        let (number, capacity) = loaded.space.new_pack(options);
        loaded.space.ready.push(zero_at_once(&packs, &disk, number, capacity).map_err(io_error)?);
    }
    metrics::gauge!("floe_store_packs_quarantined").set(loaded.space.quarantined.len() as f64);
    let Loaded { index, space, findings } = loaded;
    Ok(Opened { lock, packs, files, disk, index, space, findings })
}

fn lock(dir: &Path) -> Result<FileLock, OpenError> {
    let taken = FileLock::take(&dir.join("lock"));
    let taken = taken.map_err(|error| OpenError::Io { path: dir.to_owned(), error })?;
    taken.map_err(|_holder| OpenError::InUse(dir.to_owned()))
}

fn check_format(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join("format");
    let io_error = |error| OpenError::Io { path: dir.to_owned(), error };
    match std::fs::read(&path) {
        Ok(found) if found == FORMAT.as_bytes() => Ok(()),
        Ok(found) => {
            Err(OpenError::Format { path, found: String::from_utf8_lossy(&found).trim_end().to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Written aside and renamed, because a half-written file would be refused for ever.
            let aside = dir.join("format.new");
            std::fs::write(&aside, FORMAT).map_err(io_error)?;
            pack::sync(&File::open(&aside).map_err(io_error)?);
            std::fs::rename(&aside, &path).map_err(io_error)
        }
        Err(error) => Err(io_error(error)),
    }
}

fn zero_at_once(packs: &Path, disk: &DiskReserve, number: u64, capacity: u64) -> io::Result<Ready> {
    let mut zeroing = Zeroing::begin(packs, disk, number, capacity)?;
    while !zeroing.step()? {}
    zeroing.finish(packs)
}

/// How much of the packs is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The headers of all regions, and the last payloads of the packs that were written last.
    Ends,
    /// Every byte, and nothing is changed.
    Everything,
}

/// The contents of the pack files.
struct Loaded {
    index: BTreeMap<String, Arc<Region>>,
    space: Space,
    findings: Vec<Finding>,
}

/// A pack in use.
struct Used {
    pack: Arc<Pack>,
    /// Why nothing may be written to it.
    damage: Option<String>,
}

fn load_packs(packs: &Path, options: &Options, depth: Depth) -> Result<Loaded, OpenError> {
    let io_error = |error| OpenError::Io { path: packs.to_owned(), error };
    let mut space = Space::empty(options);
    let mut findings = Vec::new();
    let mut used: BTreeMap<(u64, u64), Used> = BTreeMap::new();
    let (numbers, number_next) = pack_numbers(packs, depth, &mut findings).map_err(io_error)?;
    space.number_next = space.number_next.max(number_next);
    for number in numbers {
        let path = pack::pack_path(packs, number);
        let file = pack::open_pack(packs, number).map_err(io_error)?;
        let capacity = file.metadata().map_err(io_error)?.len();
        space.number_next = space.number_next.max(number + 1);
        space.capacity_next = space.capacity_next.max((capacity * 2).min(options.pack_bytes_max));
        let state = read_header(&file, capacity).map_err(io_error)?;
        let state =
            state.map_err(|newer| OpenError::NewerPack { path: path.clone(), reason: newer.to_string() })?;
        let by_regions = match state {
            PackState::Used(_) => None,
            PackState::Blank => pack::header_by_regions(&file, capacity, false).map_err(io_error)?,
            PackState::Torn => pack::header_by_regions(&file, capacity, true).map_err(io_error)?,
        };
        let (header, damage) = match (state, by_regions) {
            (PackState::Used(header), _) if header.capacity <= capacity => (header, None),
            (PackState::Used(header), _) => {
                let what =
                    format!("it has {capacity} bytes, its header says {}; the rest is lost", header.capacity);
                (PackHeader { capacity, ..header }, Some(what))
            }
            (_, Some(header)) => {
                (header, Some("its header is damaged; its objects were found without it".to_owned()))
            }
            // A pack must have room for the largest packed object. A smaller file comes from other options.
            (PackState::Blank, None) if capacity >= options.pack_bytes_first => {
                space.ready.push(Ready { number, file, capacity });
                continue;
            }
            (PackState::Blank, None) => {
                if depth != Depth::Everything {
                    std::fs::remove_file(&path).map_err(io_error)?;
                }
                continue;
            }
            (PackState::Torn, None) => {
                let what = "it has no header of a pack and no objects; the file is left alone".to_owned();
                findings.push(Finding { path, what, key: None });
                continue;
            }
        };
        space.generation_next = space.generation_next.max(header.generation + 1);
        let pack = Pack::with_header(number, file, header);
        used.insert((header.generation, number), Used { pack, damage });
    }
    let index = index_packs(packs, used, depth, &mut space, &mut findings).map_err(io_error)?;
    Ok(Loaded { index, space, findings })
}

/// Finds the regions of all packs, oldest use first, and decides where the next region goes.
fn index_packs(
    packs: &Path,
    used: BTreeMap<(u64, u64), Used>,
    depth: Depth,
    space: &mut Space,
    findings: &mut Vec<Finding>,
) -> io::Result<BTreeMap<String, Arc<Region>>> {
    let mut index = BTreeMap::new();
    let mut uses = BTreeSet::new();
    let count = used.len();
    for (position, Used { pack, mut damage }) in used.into_values().enumerate() {
        let path = pack::pack_path(packs, pack.number);
        if !uses.insert((pack.header.generation, pack.header.nonce)) {
            let what = "it is a copy of another pack; the file is left alone".to_owned();
            findings.push(Finding { path, what, key: None });
            continue;
        }
        let scanned = pack.scan()?;
        if !scanned.damaged.is_empty() {
            let (count, first) = (scanned.damaged.len(), scanned.damaged[0]);
            damage = Some(format!("{count} headers of objects are damaged, the first at byte {first}"));
        }
        // Writes may have been in flight in the last pack, and in the one before if it was left just then.
        let unsettled = depth == Depth::Everything || position + 2 >= count;
        let verify_from = match depth {
            Depth::Everything => 0,
            Depth::Ends => scanned.regions.len().saturating_sub(REGIONS_VERIFIED_AT_OPEN),
        };
        let next = scanned.regions.last().map_or(BLOCK, |last| last.offset + span(last.length));
        for (place, header) in scanned.regions.into_iter().enumerate() {
            if !header.live {
                pack.note_dead(&header);
                continue;
            }
            let region = pack.region(header, false);
            let checked = unsettled && place >= verify_from;
            let older: Option<&Arc<Region>> = index.get(&region.header.key);
            if (checked || older.is_some()) && !region.verify()? {
                let key = Some(region.header.key.clone());
                let what = format!(
                    "object {} does not match its checksum: a crash cut it short, or it rotted",
                    region.header.key
                );
                findings.push(Finding { path: path.clone(), what, key });
                if older.is_some() {
                    continue;
                }
            }
            // A newer and whole object of the same key: a crash came between its write and the end of the older one.
            let replaced: Option<Arc<Region>> = index.insert(region.header.key.clone(), region);
            if let Some(older) = replaced.filter(|_| depth != Depth::Everything) {
                older.kill()?;
            }
        }
        if let Some(what) = damage {
            let what = format!("{what}; what is whole in it is served, and nothing new is written to it");
            findings.push(Finding { path, what, key: None });
            space.quarantined.push(pack);
            space.sealed.extend(space.active.take().map(|active| active.pack));
            continue;
        }
        let sealed = space.active.replace(Active { pack, next });
        space.sealed.extend(sealed.map(|active| active.pack));
    }
    Ok(index)
}

fn read_header(file: &File, capacity: u64) -> io::Result<Result<PackState, NewerFormat>> {
    if capacity < BLOCK {
        return Ok(Ok(PackState::Torn));
    }
    let mut block = [0; HEADER_BYTES];
    file.read_exact_at(&mut block, 0)?;
    Ok(PackHeader::decode(&block))
}

/// The numbers of the pack files, in order. Removes files that were being zero-filled.
fn pack_numbers(packs: &Path, depth: Depth, findings: &mut Vec<Finding>) -> io::Result<(Vec<u64>, u64)> {
    let (mut numbers, mut next) = (Vec::new(), 0);
    let entries = match std::fs::read_dir(packs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth == Depth::Everything => {
            return Ok((numbers, next));
        }
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let is_file = entry.file_type()?.is_file();
        match pack::pack_number(&path).filter(|_| is_file) {
            Some(number) => numbers.push(number),
            None if is_file && pack::is_zeroing(&path) => {
                if depth != Depth::Everything {
                    std::fs::remove_file(&path)?;
                }
            }
            None => match pack::next_number(&path).filter(|_| is_file) {
                Some(number) => next = next.max(number),
                None => findings.push(Finding::unknown(path)),
            },
        }
    }
    numbers.sort_unstable();
    Ok((numbers, next))
}
