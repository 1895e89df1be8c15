//! A start: from the newest sound image, frame by frame, to the end of the log. It changes nothing that it does not
//! understand.
//!
//! A frame that is not whole is either torn, and then it was never acknowledged, or damaged. Later frames tell: one
//! that knew the due commit to be durable proves that it was acknowledged, and the start is refused. Otherwise the log
//! ends there.

use std::collections::BTreeMap;
use std::sync::Arc;

use floe_env::{BlockBuffer, Disk};

use super::error::RingOpenError;
use super::file::{FileHeader, NoHeader, PREPARING, Position, RING, RingFile, number_of};
use super::frame::{BLOCK, HEADER_BYTES, Header, Kind, Link, MetaPart, NoFrame, Place};
use super::planted::{Planted, planted};
use crate::journal::{Entry, Lsn};
use crate::limits::RING_STEP_BYTES;

/// The files by their generation.
pub(super) type Files = BTreeMap<u64, Arc<RingFile>>;

/// An attachment that a start found behind the image.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) lsn: Lsn,
    pub(super) generation: u64,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) crc: u32,
    pub(super) verified: bool,
}

/// The log behind an image.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) entries: Vec<Entry>,
    pub(super) meta_bytes: u64,
    pub(super) attachments: Vec<Found>,
    pub(super) end: Position,
    /// A frame lies where the log ends. It must become void before the log can go on in another file.
    pub(super) remains: bool,
    /// The last frame is a seal.
    pub(super) sealed: bool,
}

/// The names of files that were never finished.
pub(super) fn unfinished_files(disk: &dyn Disk) -> std::io::Result<Vec<String>> {
    let names = disk.list(RING)?;
    let unfinished = names.iter().filter(|name| name.starts_with(PREPARING));
    Ok(unfinished.map(|name| format!("{RING}/{name}")).collect())
}

/// Opens all files.
pub(super) fn open_files(disk: &dyn Disk, journal: u64) -> Result<Files, RingOpenError> {
    let mut files = Files::new();
    for name in disk.list(RING)? {
        let full = format!("{RING}/{name}");
        let Some(number) = number_of(&name) else { continue };
        let file = disk.open(&full)?;
        let mut block = BlockBuffer::zeroed(BLOCK as usize);
        let bytes = file.bytes()?;
        if bytes < BLOCK {
            return Err(RingOpenError::DamagedHeader { file: full });
        }
        file.read_at(block.as_mut_slice(), 0)?;
        let header = match FileHeader::decode(block.as_slice()) {
            Ok(header) if header.capacity == bytes && bytes.is_multiple_of(BLOCK) => header,
            Ok(_) | Err(NoHeader::Damaged) => return Err(RingOpenError::DamagedHeader { file: full }),
            Err(NoHeader::Newer(found)) => return Err(RingOpenError::NewerFormat { file: full, found }),
        };
        if header.journal != journal {
            return Err(RingOpenError::Foreign(full));
        }
        if files.insert(header.generation, Arc::new(RingFile::new(number, header, file))).is_some() {
            return Err(RingOpenError::Foreign(full));
        }
    }
    Ok(files)
}

/// A frame of the chain.
struct Step {
    header: Header,
    meta: MetaPart,
}

impl Step {
    /// Where the log goes on behind it.
    fn end(&self) -> Position {
        let place = self.header.place;
        Position {
            lsn: self.header.last(),
            generation: place.generation,
            frame: place.offset,
            next: place.offset + self.header.frame_bytes(),
            link: self.header.link(),
        }
    }
}

/// Follows the log from an image to its end.
pub(super) fn recover(files: &Files, image: Position) -> Result<Recovered, RingOpenError> {
    check_contiguous(files, image)?;
    let mut walk = Walk { files, at: image, steps: Vec::new(), durable: image.lsn, cut: None };
    while walk.step()? {}
    if walk.steps.is_empty() {
        // A frame that follows the last one before the image would prove that the ring has it.
        check_image(files, image)?;
    }
    walk.cut_unproven(image)?;
    walk.refuse_damage()?;
    let remains = walk.has_remains()?;
    Ok(walk.recovered(image, remains))
}

/// The files that hold the log behind an image have neighbouring generations, from the image's own.
fn check_contiguous(files: &Files, image: Position) -> Result<(), RingOpenError> {
    let mut due = image.generation;
    for generation in files.range(image.generation..).map(|(generation, _)| *generation) {
        if generation != due {
            return Err(RingOpenError::LostFile(due));
        }
        due = generation + 1;
    }
    match due == image.generation {
        true => Err(RingOpenError::LostFile(due)),
        false => Ok(()),
    }
}

/// The last frame before the image is in the ring.
fn check_image(files: &Files, image: Position) -> Result<(), RingOpenError> {
    if image.frame == 0 {
        return Ok(());
    }
    let file = &files[&image.generation];
    let older = |reason: String| RingOpenError::Older { image: image.lsn, reason };
    match read_header(file, image.frame)? {
        Ok(header) if header.link() == image.link && header.last() == image.lsn => Ok(()),
        Ok(header) => Err(older(format!("{} has commit {} there", file.name(), header.last()))),
        Err(reason) => Err(older(format!("{} at byte {}: {reason}", file.name(), image.frame))),
    }
}

struct Walk<'a> {
    files: &'a Files,
    at: Position,
    steps: Vec<Step>,
    /// The last commit that some frame of the chain knows to be durable.
    durable: Lsn,
    /// The place of a frame in the chain that is not whole.
    cut: Option<Place>,
}

impl Walk<'_> {
    /// Takes the next frame, here or at the begin of the next file.
    fn step(&mut self) -> Result<bool, RingOpenError> {
        let here = self.at;
        let next_file = Position { generation: here.generation + 1, next: BLOCK, ..here };
        for place in [here, next_file] {
            if let Some(step) = self.frame(place)? {
                self.durable = self.durable.max(step.header.durable);
                self.at = step.end();
                self.steps.push(step);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The frame that follows in the chain, if it is at this place. Its payload is not looked at.
    fn frame(&self, place: Position) -> Result<Option<Step>, RingOpenError> {
        let Some(file) = self.files.get(&place.generation) else { return Ok(None) };
        if place.next + BLOCK > file.header.capacity {
            return Ok(None);
        }
        let header = match read_header(file, place.next)? {
            Ok(header) => header,
            Err(NoFrame::Newer(found)) => {
                return Err(RingOpenError::NewerFormat { file: file.name(), found });
            }
            Err(_) => return Ok(None),
        };
        let follows = (header.before == place.link && header.first == place.lsn.next())
            || planted(Planted::NoChain)
            || planted(Planted::TakesOldFrames);
        if header.kind == Kind::Void || !follows {
            return Ok(None);
        }
        let meta = read_meta(file, &header)?;
        Ok(meta.ok().map(|meta| Step { header, meta }))
    }

    /// Looks at the bytes of every frame that nothing proves to be durable, and ends the log at the first that is not
    /// whole.
    fn cut_unproven(&mut self, image: Position) -> Result<(), RingOpenError> {
        for at in 0..self.steps.len() {
            let Step { header, meta } = &self.steps[at];
            if header.last() <= self.durable || planted(Planted::PayloadUnread) {
                continue;
            }
            let file = &self.files[&header.place.generation];
            if !payload_is_sound(file, header, meta)? {
                // If it lies in the next file, the log goes on in this one, and writes over it when it gets there.
                self.cut = Some(header.place);
                self.steps.truncate(at);
                self.at = self.steps.last().map_or(image, Step::end);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Refuses a log whose due commit was acknowledged: some frame behind its end knew it to be durable.
    fn refuse_damage(&self) -> Result<(), RingOpenError> {
        if planted(Planted::CutsAcknowledged) {
            return Ok(());
        }
        let due = self.at.lsn.next();
        for (generation, file) in self.files.range(self.at.generation..) {
            let from = if *generation == self.at.generation { self.at.next } else { BLOCK };
            if let Some(offset) = find_witness(file, from, due)? {
                let here = (self.at.generation, self.at.next);
                let (generation, offset_due) =
                    self.cut.map_or(here, |place| (place.generation, place.offset));
                return Err(RingOpenError::Damaged {
                    file: self.files[&generation].name(),
                    offset: offset_due,
                    due,
                    witness: format!("the frame at byte {offset} of {}", file.name()),
                });
            }
        }
        Ok(())
    }

    /// Whether a frame of this use of the file lies where the log ends.
    fn has_remains(&self) -> Result<bool, RingOpenError> {
        let file = &self.files[&self.at.generation];
        if self.at.next + BLOCK > file.header.capacity {
            return Ok(false);
        }
        Ok(read_header(file, self.at.next)?.is_ok_and(|header| header.kind != Kind::Void))
    }

    fn recovered(self, image: Position, remains: bool) -> Recovered {
        let sealed = self.steps.last().is_some_and(|step| step.header.kind == Kind::Seal);
        let mut found = Recovered {
            entries: Vec::new(),
            meta_bytes: 0,
            attachments: Vec::new(),
            end: self.at,
            remains,
            sealed,
        };
        for Step { header, meta } in self.steps {
            let file = &self.files[&header.place.generation];
            file.reaches(header.last());
            found.meta_bytes += u64::from(header.meta_bytes);
            let verified = header.last() > self.durable;
            found.attachments.extend(meta.attachments.iter().map(|listed| Found {
                lsn: header.first.plus(listed.commit as usize),
                generation: header.place.generation,
                offset: listed.range(&header).start,
                bytes: listed.bytes,
                crc: listed.crc,
                verified,
            }));
            found.entries.extend(meta.entries);
        }
        // Nothing tells how far the files before the image reach, but not beyond it.
        for (generation, file) in self.files {
            if *generation <= image.generation {
                file.reaches(image.lsn);
            }
        }
        found
    }
}

fn read_header(file: &RingFile, offset: u64) -> Result<Result<Header, NoFrame>, RingOpenError> {
    let mut block = BlockBuffer::zeroed(BLOCK as usize);
    file.file.read_at(block.as_mut_slice(), offset)?;
    Ok(decode_header(file, offset, block.as_slice()))
}

fn decode_header(file: &RingFile, offset: u64, block: &[u8]) -> Result<Header, NoFrame> {
    let mut place = file.header.place(offset);
    if planted(Planted::TakesOldFrames) {
        // What the header says of itself, whatever use of the file it is of.
        let number =
            |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes were cut"));
        (place.generation, place.nonce) = (number(24), number(40));
    }
    let header = Header::decode(block, &place, file.header.capacity - offset)?;
    Ok(Header { place: file.header.place(offset), ..header })
}

/// Reads the entries of a frame.
pub(super) fn read_meta(
    file: &RingFile,
    header: &Header,
) -> Result<Result<MetaPart, NoFrame>, RingOpenError> {
    let bytes = HEADER_BYTES as u64 + u64::from(header.meta_bytes);
    let mut blocks = BlockBuffer::zeroed(bytes.next_multiple_of(BLOCK) as usize);
    file.file.read_at(blocks.as_mut_slice(), header.place.offset)?;
    Ok(header.decode_meta(&blocks.as_slice()[HEADER_BYTES..bytes as usize]))
}

fn payload_is_sound(file: &RingFile, header: &Header, meta: &MetaPart) -> Result<bool, RingOpenError> {
    for listed in &meta.attachments {
        let range = listed.range(header);
        let sum = sum_of(&*file.file, range.start, range.end)?;
        if sum != listed.crc {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The CRC-32C of a part of a file, read in steps.
pub(super) fn sum_of(file: &dyn floe_env::DiskFile, start: u64, end: u64) -> std::io::Result<u32> {
    let (mut at, mut crc) = (start, 0);
    let mut blocks = BlockBuffer::default();
    while at < end {
        let from = at / BLOCK * BLOCK;
        let to = end.next_multiple_of(BLOCK).min(from + RING_STEP_BYTES);
        blocks.resize((to - from) as usize);
        file.read_at(blocks.as_mut_slice(), from)?;
        let upto = to.min(end);
        crc = crc32c::crc32c_append(crc, &blocks.as_slice()[(at - from) as usize..(upto - from) as usize]);
        at = upto;
    }
    Ok(crc)
}

/// The place of a frame at or behind `from` that knew commit `due` to be durable.
fn find_witness(file: &RingFile, from: u64, due: Lsn) -> Result<Option<u64>, RingOpenError> {
    let mut at = from;
    let mut blocks = BlockBuffer::default();
    while at < file.header.capacity {
        let bytes = RING_STEP_BYTES.min(file.header.capacity - at);
        blocks.resize(bytes as usize);
        file.file.read_at(blocks.as_mut_slice(), at)?;
        for (index, block) in blocks.as_slice().chunks(BLOCK as usize).enumerate() {
            let offset = at + index as u64 * BLOCK;
            match decode_header(file, offset, block) {
                Ok(header) if header.durable >= due => return Ok(Some(offset)),
                Err(NoFrame::Newer(found)) => {
                    return Err(RingOpenError::NewerFormat { file: file.name(), found });
                }
                _ => {}
            }
        }
        at += bytes;
    }
    Ok(None)
}

/// What the first frame of a journal says of the one before it.
pub(super) const NO_LINK: Link = Link { attempt: 0, crc: 0 };
