//! Every byte of a segment.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use floe_store::StoreError;

use crate::check::faults::Faults;
use crate::check::reading::Reading;
use crate::format::header::{self, HEADER_BYTES, Header};
use crate::format::seek::{self, INDEX_BYTES_MAX, Intervals, SeekIndex};
use crate::format::segment::{self, Footer, HEAD_BYTES, TAIL_BYTES, WriterRun};
use crate::format::stamp;
use crate::map::extent::{Data, Extent, ExtentKey, Place, Spacing, WrittenBy};
use crate::map::ids::{ObjectId, Offset};
use crate::read::source::footer_end;
use floe_meta::Lsn;

/// A section, as the footer or the map has it.
struct Section {
    key: ExtentKey,
    data: Data,
    /// Bytes of the index behind it, if the footer tells.
    index_bytes: Option<u64>,
    /// Its runs, if the footer tells.
    runs: Option<Vec<WriterRun>>,
    is_needed: bool,
}

/// Checks a segment.
///
/// # Errors
/// It is missing, shorter than the map says, or cannot be read.
pub(super) async fn check(
    reading: &mut Reading<'_>,
    id: ObjectId,
    extents: &[(ExtentKey, Data)],
    faults: &mut Faults,
) -> Result<(), StoreError> {
    let size = reading.size;
    if size < (HEAD_BYTES + TAIL_BYTES) as u64 {
        return Err(StoreError::Corrupt(format!("a segment of {size} bytes")));
    }
    let footer = match footer(reading).await? {
        Ok(footer) if footer.object == id => Some(footer),
        Ok(footer) => {
            let other = footer.object;
            faults
                .object(format!("its footer says that it is {other}: nobody can tell who wrote its records"));
            None
        }
        Err(what) => {
            faults.object(format!("{what}: its records can be read, and nobody can tell who wrote them"));
            None
        }
    };
    let head = reading.next(0..HEAD_BYTES as u64).await?;
    if head[..] != segment::head() {
        faults.object("its first bytes are not those of a segment; readers do not need them".to_owned());
    }
    let sections = match &footer {
        Some(footer) => of_footer(footer, id, extents, faults),
        None => extents.iter().map(|(key, data)| of_map(*key, *data)).collect(),
    };
    for section in sections {
        check_section(reading, section, faults).await?;
    }
    Ok(())
}

/// The footer, or what is wrong with it.
async fn footer(reading: &Reading<'_>) -> Result<Result<Footer, String>, StoreError> {
    let end = footer_end(reading.size, |range| reading.apart(range)).await?;
    Ok(end.and_then(|end| Footer::decode(reading.size, &end)).map_err(|error| error.to_string()))
}

/// The sections that the footer lists. Names the extents of the map that are none of them.
fn of_footer(
    footer: &Footer,
    id: ObjectId,
    extents: &[(ExtentKey, Data)],
    faults: &mut Faults,
) -> Vec<Section> {
    let mut needed: BTreeMap<u64, (ExtentKey, Data)> = BTreeMap::new();
    let mut sections = Vec::with_capacity(footer.sections.len());
    for (key, data) in extents {
        let listed = footer.section(data.position).filter(|listed| {
            // Extents of records that were removed are under the id of another topic.
            let (of_map, of_footer) = ((key.partition.index, key.base), listed.key);
            of_map == (of_footer.partition.index, of_footer.base)
                && (listed.bytes, listed.offsets) == (data.bytes, data.offsets)
        });
        match listed {
            Some(_) => drop(needed.insert(data.position, (*key, *data))),
            None => {
                faults.extent(
                    *key,
                    data,
                    "its footer has no such section where the metadata has one".to_owned(),
                );
                sections.push(of_map(*key, *data));
            }
        }
    }
    for listed in &footer.sections {
        let runs = footer.runs(listed).collect::<Result<Vec<_>, _>>();
        let runs = runs.map_err(|error| faults.object(error.to_string())).ok();
        let index_bytes = Some(listed.index_bytes);
        let found = needed.get(&listed.position).copied();
        let is_needed = found.is_some();
        let (key, data) = found.unwrap_or_else(|| {
            let data = Data {
                place: Place::Object(id),
                position: listed.position,
                bytes: listed.bytes,
                offsets: listed.offsets,
                spacing: Spacing::Stamped,
                max_timestamp: listed.max_timestamp,
                written_by: WrittenBy::Footer,
                lsn: Lsn(0),
            };
            (listed.key, data)
        });
        sections.push(Section { key, data, index_bytes, runs, is_needed });
    }
    sections.sort_by_key(|section| section.data.position);
    sections
}

/// A section whose footer does not tell of it.
fn of_map(key: ExtentKey, data: Data) -> Section {
    Section { key, data, index_bytes: None, runs: None, is_needed: true }
}

async fn check_section(
    reading: &mut Reading<'_>,
    section: Section,
    faults: &mut Faults,
) -> Result<(), StoreError> {
    let Section { key, data, index_bytes, runs, is_needed } = section;
    let partition = key.partition;
    let (end, end_offset) = (data.end(), Extent::Data(data).next_offset(key.base));
    let (mut position, mut next) = (data.position, key.base);
    let (mut intervals, mut following) = (Intervals::new(), Following::new(runs.as_deref()));
    // Where damage began. Only the next sound batch tells where it ends.
    let (mut is_whole, mut lost): (_, Option<(Offset, String)>) = (true, None);
    while position < end {
        let head = reading.next(position..end.min(position + HEADER_BYTES as u64)).await?;
        let header = match begins(&head, &key, next..end_offset, end - position) {
            Ok(header) => header,
            Err(what) => {
                is_whole = false;
                // The index tells where the next batch begins that it knows.
                let known = index(reading, key, data, index_bytes).await?;
                let later = known.and_then(|index| index.behind(position));
                let (offset, at) = later.unwrap_or((end_offset, end));
                lost.get_or_insert((next, format!("at byte {position}: {what}")));
                (position, next) = (at, offset.max(next));
                continue;
            }
        };
        let batch = reading.next(position..position + header.size as u64).await?;
        let first = Offset(header.base_offset);
        if let Some((from, what)) = lost.take() {
            faults.records(partition, from..first, what, is_needed);
        }
        next = first.plus(header.offsets());
        if let Err(error) = header::verify_checksum(&header, &batch) {
            // What it says of its offsets may be what has changed.
            (is_whole, next) = (false, first.plus(1));
            lost = Some((first, format!("at byte {position}: {error}")));
        }
        intervals.note(first, &header);
        following.pass(first, next);
        position += header.size as u64;
    }
    if let Some((from, what)) = lost {
        faults.records(partition, from..end_offset, what, is_needed);
    }
    if is_whole && let Some(what) = following.end() {
        faults.records(partition, key.base..end_offset, what.to_owned(), is_needed);
    }
    let behind = end + index_bytes.unwrap_or(INDEX_BYTES_MAX as u64);
    let found = reading.next(end..behind.min(reading.size)).await?;
    let sound = intervals.encode(key, data.position);
    let wrong = match is_whole {
        true if index_bytes.is_some() => found[..] != sound,
        true => !found.starts_with(&sound),
        false => seek::check(key, data.position, &found).is_err(),
    };
    if wrong {
        let what = "its seek index is damaged; its records can be read from their start".to_owned();
        faults.records(partition, key.base..end_offset, what, is_needed);
    }
    Ok(())
}

/// The header of a batch of a section, if the bytes begin with one. It lies within the offsets, and within so many
/// bytes.
fn begins(head: &Bytes, key: &ExtentKey, offsets: Range<Offset>, left: u64) -> Result<Header, String> {
    let header = Header::parse(head).map_err(|error| error.to_string())?;
    if !stamp::is_sound(key.partition, head) {
        return Err("the sum of the first bytes of a batch is wrong".to_owned());
    }
    let end = header.base_offset.checked_add(i64::from(header.offsets()));
    let is_within = header.base_offset >= offsets.start.0 && end.is_some_and(|end| end <= offsets.end.0);
    if !is_within || header.size as u64 > left {
        return Err(format!("a batch says that it begins at {}", header.base_offset));
    }
    Ok(header)
}

/// The index of a section, if it is sound.
async fn index(
    reading: &Reading<'_>,
    key: ExtentKey,
    data: Data,
    bytes: Option<u64>,
) -> Result<Option<SeekIndex>, StoreError> {
    let end = data.end() + bytes.unwrap_or(INDEX_BYTES_MAX as u64);
    let bytes = reading.apart(data.end()..end.min(reading.size)).await?;
    Ok(SeekIndex::decode(key, &data, &bytes).ok())
}

/// Compares batches with the runs that say who wrote them: these begin and end with batches, and cover all of them.
struct Following<'r> {
    runs: Option<std::slice::Iter<'r, WriterRun>>,
    open: Option<&'r WriterRun>,
    /// The end of the last batch.
    last: Option<Offset>,
    wrong: Option<&'static str>,
}

impl<'r> Following<'r> {
    fn new(runs: Option<&'r [WriterRun]>) -> Following<'r> {
        Following { runs: runs.map(<[_]>::iter), open: None, last: None, wrong: None }
    }

    fn pass(&mut self, first: Offset, after: Offset) {
        let Some(runs) = &mut self.runs else { return };
        if self.open.is_none_or(|open| first >= open.end) {
            if self.open.is_some_and(|open| self.last != Some(open.end)) {
                self.wrong = Some("a run of its footer ends within a batch");
            }
            self.open = runs.next();
            if self.open.is_none_or(|open| open.first != first) {
                self.wrong = Some("a batch is of no run of its footer");
            }
        }
        self.last = Some(after);
    }

    /// What is wrong with the runs.
    fn end(mut self) -> Option<&'static str> {
        let runs = self.runs.as_mut()?;
        if self.wrong.is_none()
            && (runs.next().is_some() || self.open.is_some_and(|open| self.last != Some(open.end)))
        {
            self.wrong = Some("a run of its footer has no batches");
        }
        self.wrong
    }
}
