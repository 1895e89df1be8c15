//! Opens a ring: makes a new one, or finds where the log of an old one ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use floe_env::{BlockBuffer, Disk, Env};
use tokio::sync::watch;

use super::commit::write_block;
use super::error::RingOpenError;
use super::file::{FileHeader, IMAGES, Position, RING, RingFile, prepare};
use super::frame::{BLOCK, Header, Kind};
use super::keeper::{HISTORY, image_name, numbers_of};
use super::pages::{Kept, PagesHeader, PagesKind};
use super::past::read_image;
use super::planted::{Planted, planted};
use super::recovery::{Files, NO_LINK, Recovered, open_files, recover, unfinished_files};
use super::state::{Core, Index, Keeper, Located, Past, Preparer, RingOptions, Tail};
use super::store::{PagesFile, PagesName, PagesSink, Unread, WRITING};
use super::under_way::UnderWay;
use crate::error::DecodeError;
use crate::journal::Lsn;

/// Opens the ring of a disk, and makes one if there is none.
pub(super) fn open(
    env: &Env,
    disk: Arc<dyn Disk>,
    carries: bool,
    options: RingOptions,
) -> Result<Core, RingOpenError> {
    for directory in [RING, IMAGES, HISTORY] {
        disk.create_dir(directory)?;
        // A process that was killed may have given names that are not durable yet. This one builds on them.
        if !planted(Planted::NamesUnsynced) {
            disk.sync_dir(directory);
        }
    }
    for directory in [IMAGES, HISTORY] {
        if disk.list(directory)?.iter().any(|name| name == WRITING) {
            disk.remove(&format!("{directory}/{WRITING}"))?;
        }
    }
    if image_names(&*disk)?.is_empty() {
        make(env, &*disk, options)?;
    }
    let (mut images, kept) = open_images(&*disk)?;
    let newest = images.last().expect("without an image nothing is opened").header;
    let (history, gone) = open_history(&*disk, &newest)?;
    for name in gone.iter().chain(&unfinished_files(&*disk)?) {
        disk.remove(name)?;
    }
    let files = open_files(&*disk, newest.journal)?;
    let found = recover(&files, newest.position)?;
    // Where the newest image was damaged, the one before the older may be left, to which the ring does not reach back.
    images.retain(|image| files.contains_key(&image.header.position.generation));
    let preparer = Preparer {
        number: files.values().map(|file| file.number).max().unwrap_or(0),
        generation: files.keys().next_back().copied().unwrap_or(0),
        spare_since: None,
    };
    let images_ever = image_names(&*disk)?.iter().map(|(_, serial)| *serial).max().unwrap_or(0);
    let at = found.end;
    let (index, ready) = settle(&files, &found, &kept);
    let tail = begin(env, &*disk, &index, at, &found);
    let last = watch::Sender::new(at.lsn);
    let Recovered { entries, meta_bytes, .. } = found;
    let past =
        Past { entries: entries.into_iter().map(Arc::new).collect(), meta_bytes, end: at, images, history };
    let bytes_max = options.limit(disk.size()?);
    Ok(Core {
        env: env.clone(),
        disk,
        options,
        journal: newest.journal,
        bytes_max,
        carries: if carries { options.carries() } else { 0 },
        tail: Mutex::new(tail),
        keeper: Mutex::new(Keeper { images: images_ever, wrote: env.monotonic() }),
        preparer: Mutex::new(preparer),
        past: Mutex::new(past),
        index: Mutex::new(index),
        ready: Mutex::new(ready),
        last,
        forget: AtomicU64::new(0),
        under_way: UnderWay::new(env),
        hurry: AtomicBool::new(false),
        room: Mutex::default(),
        crowd: Mutex::default(),
    })
}

/// The images that there are, in order.
pub(super) fn image_names(disk: &dyn Disk) -> Result<Vec<(u64, u64)>, RingOpenError> {
    let mut names: Vec<(u64, u64)> = disk.list(IMAGES)?.iter().filter_map(|name| numbers_of(name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Makes an empty ring: a file, and the image that says where its log begins.
fn make(env: &Env, disk: &dyn Disk, options: RingOptions) -> Result<(), RingOpenError> {
    let reason =
        |text: &str| RingOpenError::NoImage { directory: IMAGES.to_owned(), reason: text.to_owned() };
    if !disk.list(HISTORY)?.is_empty() {
        return Err(reason("there is a history"));
    }
    for name in disk.list(RING)? {
        let name = format!("{RING}/{name}");
        // A start that was cut off has left it. A frame would be of a journal that has lost its images.
        let file = disk.open(&name)?;
        if file.bytes()? >= 2 * BLOCK {
            let mut block = BlockBuffer::zeroed(BLOCK as usize);
            file.read_at(block.as_mut_slice(), BLOCK)?;
            if block.as_slice().iter().any(|byte| *byte != 0) {
                return Err(reason(&format!("{name} has commits")));
            }
        }
        disk.remove(&name)?;
    }
    let header = FileHeader {
        journal: env.random_u64(),
        generation: 1,
        nonce: env.random_u64(),
        capacity: options.first_bytes.min(options.file_bytes),
    };
    prepare(disk, 1, header, planted(Planted::NamedTooEarly), &|| ())?;
    let position = Position { lsn: Lsn(0), generation: 1, frame: 0, next: BLOCK, link: NO_LINK };
    let header = PagesHeader { kind: PagesKind::Image, journal: header.journal, first: Lsn(1), position };
    let sink = PagesSink::begin(disk, IMAGES, &image_name(Lsn(0), 0), &header, &|| ())?;
    match sink.finish(false) {
        Ok(_) => Ok(()),
        Err(Unread::Io(error)) => Err(error.into()),
        Err(Unread::Damaged(error)) => Err(reason(&error.to_string())),
    }
}

/// The newest image that is sound, with the one before it, and the attachments that it lists.
fn open_images(disk: &dyn Disk) -> Result<(Vec<PagesFile>, Vec<Kept>), RingOpenError> {
    let mut names = image_names(disk)?;
    let mut damaged = Vec::new();
    while let Some((lsn, serial)) = names.pop() {
        let name = format!("{IMAGES}/{}", image_name(Lsn(lsn), serial));
        let read = PagesFile::open(disk, &name).and_then(|image| Ok((read_image(&image)?.1, image)));
        let (kept, newest) = match read {
            Ok((_, image)) if image.header.position.lsn != Lsn(lsn) => {
                damaged.push(format!("{name} is the image of another commit"));
                continue;
            }
            Ok(read) => read,
            Err(Unread::Damaged(DecodeError::NewerVersion { found, .. })) => {
                return Err(RingOpenError::NewerFormat { file: name, found: found.into() });
            }
            Err(error) => {
                tracing::warn!(image = name, %error, "an image of the metadata is damaged, the one before is taken");
                damaged.push(format!("{name}: {error}"));
                continue;
            }
        };
        let mut images: Vec<PagesFile> = Vec::new();
        while let Some((lsn, serial)) = names.pop() {
            let name = format!("{IMAGES}/{}", image_name(Lsn(lsn), serial));
            match PagesFile::open(disk, &name) {
                Ok(older) if older.header.journal != newest.header.journal => {
                    return Err(RingOpenError::Foreign(name));
                }
                Ok(older) if images.is_empty() => images.push(older),
                // It was to be removed when the process ended.
                Ok(_) => disk.remove(&name)?,
                Err(Unread::Damaged(DecodeError::NewerVersion { found, .. })) => {
                    return Err(RingOpenError::NewerFormat { file: name, found: found.into() });
                }
                Err(error) => damaged.push(format!("{name}: {error}")),
            }
        }
        images.push(newest);
        set_aside(disk, &damaged)?;
        return Ok((images, kept));
    }
    Err(RingOpenError::no_image(&damaged))
}

/// Keeps damaged images under another name, so that they are not read again.
fn set_aside(disk: &dyn Disk, damaged: &[String]) -> Result<(), RingOpenError> {
    for text in damaged {
        set_one_aside(disk, text.split([':', ' ']).next().unwrap_or_default())?;
    }
    Ok(())
}

/// Keeps an image under another name, which is returned.
pub(super) fn set_one_aside(disk: &dyn Disk, name: &str) -> std::io::Result<String> {
    let aside = format!("{IMAGES}/damaged-{}", name.rsplit('/').next().unwrap_or_default());
    disk.rename(name, &aside)?;
    disk.sync_dir(IMAGES);
    Ok(aside)
}

/// The parts of the history, which have every commit up to the image, from the one on that the image names, and the
/// names of those that nothing needs.
pub(super) fn open_history(
    disk: &dyn Disk,
    image: &PagesHeader,
) -> Result<(Vec<PagesName>, Vec<String>), RingOpenError> {
    let (journal, upto) = (image.journal, image.position.lsn);
    let names = disk.list(HISTORY)?;
    let mut parts: Vec<(u64, u64)> = names.iter().filter_map(|name| numbers_of(name)).collect();
    // Of two parts that begin with the same commit, the longer one has replaced the other.
    parts.sort_unstable_by_key(|(first, last)| (*first, u64::MAX - last));
    let (mut due, mut found, mut gone) = (image.first.0, Vec::new(), Vec::new());
    for (first, last) in parts {
        let name = format!("{HISTORY}/{first:016x}-{last:016x}");
        if last < due {
            gone.push(name);
            continue;
        }
        if first != due {
            return Err(RingOpenError::History(format!("commit {due} is due where {name} begins")));
        }
        let part = PagesFile::open(disk, &name)
            .map_err(|error| RingOpenError::History(format!("{name}: {error}")))?;
        let PagesHeader { kind, journal: of, first: begins, position } = part.header;
        if of != journal || kind != PagesKind::History || begins.0 != first || position.lsn.0 != last {
            return Err(RingOpenError::Foreign(name));
        }
        due = last + 1;
        found.push(part.closed());
    }
    match due > upto.0 {
        true => Ok((found, gone)),
        false => {
            Err(RingOpenError::History(format!("it ends before commit {due}, and the image has {upto}")))
        }
    }
}

/// Puts every file and attachment in its place.
fn settle(files: &Files, found: &Recovered, kept: &[Kept]) -> (Index, VecDeque<Arc<RingFile>>) {
    let at = found.end;
    let used =
        files.range(..=at.generation).map(|(generation, file)| (*generation, Arc::clone(file))).collect();
    let ready = files.range(at.generation + 1..).map(|(_, file)| Arc::clone(file)).collect();
    let mut index = Index { files: used, attachments: BTreeMap::new(), lost: BTreeMap::new() };
    let of_image =
        kept.iter().map(|kept| (kept.lsn, kept.generation, kept.offset, kept.bytes, kept.crc, false));
    let of_log = found.attachments.iter();
    let of_log = of_log.map(|at| (at.lsn, at.generation, at.offset, at.bytes, at.crc, at.verified));
    for (lsn, generation, offset, bytes, crc, verified) in of_image.chain(of_log) {
        let Some(file) = index.files.get(&generation).cloned() else {
            index.lost.insert(lsn, Kept { lsn, generation, offset, bytes, crc });
            continue;
        };
        file.one_more();
        let located = Located { file, offset, bytes, crc, verified: AtomicBool::new(verified) };
        index.attachments.insert(lsn, Arc::new(located));
    }
    (index, ready)
}

/// Makes durable what was found, before anybody sees it.
fn begin(env: &Env, disk: &dyn Disk, index: &Index, at: Position, found: &Recovered) -> Tail {
    let file = Arc::clone(&index.files[&at.generation]);
    // A process that was killed may have left bytes that are not on the disk yet.
    file.file.sync();
    let mut buffer = BlockBuffer::default();
    if found.remains && !planted(Planted::RemainsKept) {
        let place = file.header.place(at.next);
        let header = Header::empty(Kind::Void, place, env.random_u128(), at.link, at.lsn);
        if let Err(error) = write_block(&file, &header, &mut buffer) {
            disk.end_process("the remains of a frame of the journal cannot be taken back", &error);
        }
        file.file.sync();
    }
    Tail { file, at, sealed: found.sealed, seal_unsynced: false, buffer }
}
