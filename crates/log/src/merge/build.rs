//! A segment out of the bytes of a plan. Pure.
//!
//! Every batch is compared with its checksums before it is copied, so that no damage is written anew under a sound
//! checksum. What is damaged is named, and nothing is made of the plan.

use std::collections::BTreeMap;

use bytes::Bytes;
use floe_meta::Lsn;

use crate::format::batch::Batch;
use crate::format::header::{self, BatchError, Header};
use crate::format::segment::{Footer, Origin, SegmentBuilder, WriterRun};
use crate::format::stamp;
use crate::map::extent::{Data, Extent, ExtentKey, Place, Spacing, WrittenBy};
use crate::map::identity::Writer;
use crate::map::ids::{ObjectId, Offset, PartitionId, WriterId};
use crate::map::object::ObjectKind;
use crate::merge::lane::Fetched;
use crate::merge::plan::{Plan, Run};
use crate::merge::planted::PlantedBug;
use crate::read::damage::Part;
use crate::read::source::Source;
use crate::write::merged::Swap;

/// Who wrote what, as far as a plan needs it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The writers that extents name.
    pub(crate) writers: BTreeMap<WriterId, Writer>,
    /// The footers of segments whose extents do not name them, or why there is none.
    pub(crate) footers: BTreeMap<ObjectId, Result<Footer, String>>,
}

/// An extent that cannot be read, found by a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) part: Part,
    pub(crate) key: ExtentKey,
    pub(crate) extent: Extent,
    pub(crate) what: String,
}

/// A segment.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) payload: Vec<Bytes>,
    pub(crate) size: u64,
    /// What takes the place of what, a run each.
    pub(crate) swaps: Vec<Swap>,
}

/// Lays out the segment of a plan.
///
/// # Errors
/// All of the plan that is damaged.
pub(crate) fn build(
    plan: &Plan,
    object: ObjectId,
    fetched: &Fetched,
    names: &Names,
    bug: Option<PlantedBug>,
) -> Result<Built, Vec<Damage>> {
    let mut builder = SegmentBuilder::new(object);
    let (mut damages, mut swaps) = (Vec::new(), Vec::new());
    for run in &plan.runs {
        let first = run.extents.first().expect("a run has extents").0;
        builder.begin(run.partition, first);
        let before = damages.len();
        for (base, extent) in &run.extents {
            match extent {
                Extent::Data(data) => {
                    let copied = copy(&mut builder, run.partition, *base, data, fetched, names, bug);
                    if let Err((part, what)) = copied {
                        let key = ExtentKey::new(run.partition, *base);
                        damages.push(Damage { part, key, extent: *extent, what });
                    }
                }
                Extent::Marker(marker) if damages.is_empty() && bug != Some(PlantedBug::ForgetsMarkers) => {
                    builder.push_marker(*base, marker);
                }
                Extent::Marker(_) | Extent::Gap(_) => {}
            }
            if damages.len() > before {
                // The rest is only compared: nothing comes of this segment.
                builder = SegmentBuilder::new(object);
                builder.begin(run.partition, extent.next_offset(*base));
            }
        }
        if damages.is_empty() {
            match swap(&mut builder, run) {
                Some(swap) => swaps.push(swap),
                None => damages.extend(without_records(run)),
            }
        }
        if !damages.is_empty() {
            builder = SegmentBuilder::new(object);
        }
    }
    if !damages.is_empty() {
        return Err(damages);
    }
    let mut payload = builder.take();
    let (rest, size) = builder.finish();
    payload.extend(rest);
    Ok(Built { payload, size, swaps })
}

/// The extents of a run that has no records, although it should.
fn without_records(run: &Run) -> impl Iterator<Item = Damage> {
    run.extents.iter().filter_map(|(base, extent)| {
        extent.data()?;
        let (part, key) = (Part::Records, ExtentKey::new(run.partition, *base));
        Some(Damage { part, key, extent: *extent, what: "it has no records".to_owned() })
    })
}

/// Ends the section of a run. None if it has no records.
fn swap(builder: &mut SegmentBuilder, run: &Run) -> Option<Swap> {
    let data = || run.extents.iter().filter_map(|(_, extent)| extent.data());
    let (last, extent) = run.extents.last().expect("a run has extents");
    let end = extent.next_offset(*last);
    let max_timestamp = data().map(|data| data.max_timestamp).max().unwrap_or(-1);
    let section = builder.end(end, max_timestamp)?;
    let mut writers = data().map(|data| data.written_by);
    let first = writers.next().expect("a run has data");
    // Markers have no writer, and their commits are in the footer.
    let written_by = if writers.all(|other| other == first) { first } else { WrittenBy::Footer };
    let new = vec![(section.key.base, Extent::Data(Data { written_by, ..section.data }))];
    Some(Swap { partition: run.partition, old: run.extents.clone(), new })
}

/// Copies the batches of an extent.
fn copy(
    builder: &mut SegmentBuilder,
    partition: PartitionId,
    base: Offset,
    data: &Data,
    fetched: &Fetched,
    names: &Names,
    bug: Option<PlantedBug>,
) -> Result<(), (Part, String)> {
    let of_bytes = |what| (Part::Bytes, what);
    let of_writers = |what| (Part::Writers, what);
    let bytes = fetched.bytes(Source::of(data), data.position..data.end()).map_err(of_bytes)?;
    let end = Extent::Data(*data).next_offset(base);
    let mut batches = batches(partition, base, end, data, &bytes).map_err(of_bytes)?;
    if bug == Some(PlantedBug::SwapsBatches) && batches.len() > 1 {
        swap_bytes(&mut batches);
    }
    let mut origins = Origins::of(data, names).map_err(of_writers)?;
    for batch in &batches {
        let (writer, lsn) = origins.of_batch(batch).map_err(of_writers)?;
        builder.push(batch, Origin { writer, lsn });
    }
    Ok(())
}

/// The first two batches that cover as many offsets each get the bytes of the other.
fn swap_bytes(batches: &mut [Batch]) {
    for at in 1..batches.len() {
        let (one, two) = (batches[at - 1].clone(), batches[at].clone());
        if one.header().offsets() == two.header().offsets() {
            let moved = |to: &Batch, from: &Batch| Batch::new(to.base_offset, from.bytes.clone());
            if let (Ok(first), Ok(second)) = (moved(&one, &two), moved(&two, &one)) {
                (batches[at - 1], batches[at]) = (first, second);
                return;
            }
        }
    }
}

/// The batches of an extent, each compared with its checksums.
fn batches(
    partition: PartitionId,
    base: Offset,
    end: Offset,
    data: &Data,
    bytes: &Bytes,
) -> Result<Vec<Batch>, String> {
    let is_segment = data.place.object().is_some_and(|id| id.kind() == ObjectKind::Segment);
    let (mut batches, mut at, mut next) = (Vec::new(), 0, base);
    while at < bytes.len() {
        let damaged = |error: BatchError| format!("at offset {next}: {error}");
        let rest = bytes.slice(at..);
        let header = Header::parse(&rest).map_err(damaged)?;
        if header.size > rest.len() {
            return Err(damaged(BatchError::Truncated { have: rest.len(), need: header.size }));
        }
        let begin = match data.spacing {
            Spacing::Counted => next,
            Spacing::Stamped => Offset(header.base_offset),
        };
        let batch_end = begin.0.checked_add(i64::from(header.offsets()));
        if begin < next || batch_end.is_none_or(|batch_end| batch_end > end.0) {
            return Err(format!("at offset {next}: a batch says that it begins at {begin}"));
        }
        let rest = rest.slice(..header.size);
        if is_segment && !stamp::is_sound(partition, &rest) {
            return Err(format!("at offset {next}: the sum of the first bytes of a batch is wrong"));
        }
        header::verify_checksum(&header, &rest).map_err(damaged)?;
        at += header.size;
        let batch = Batch::new(begin, rest).map_err(damaged)?;
        next = batch.next_offset();
        batches.push(batch);
    }
    match data.spacing == Spacing::Stamped || next == end {
        true => Ok(batches),
        false => Err("its batches do not hold the offsets that they should".to_owned()),
    }
}

/// Who wrote the batches of an extent, in order.
enum Origins<'n> {
    One(Option<&'n Writer>, Lsn),
    Several { runs: Vec<WriterRun>, at: usize },
}

impl<'n> Origins<'n> {
    fn of(data: &Data, names: &'n Names) -> Result<Origins<'n>, String> {
        let WrittenBy::One(writer) = data.written_by else { return Origins::of_footer(data, names) };
        let is_segment = data.place.object().is_some_and(|id| id.kind() == ObjectKind::Segment);
        if is_segment {
            // Its commits are in the footer.
            return Origins::of_footer(data, names);
        }
        let unknown = || format!("its writer {writer} has no name");
        Ok(Origins::One(Some(names.writers.get(&writer).ok_or_else(unknown)?), data.lsn))
    }

    fn of_footer(data: &Data, names: &'n Names) -> Result<Origins<'n>, String> {
        let Place::Object(object) = data.place else { return Err("it does not name its writer".to_owned()) };
        let footer = names.footers.get(&object).ok_or("the footer of its object was not read")?;
        let footer = footer.as_ref().map_err(|error| format!("the footer of its object: {error}"))?;
        let section = footer.section(data.position).ok_or("the footer of its object does not have it")?;
        let runs = footer.runs(section).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        Ok(Origins::Several { runs, at: 0 })
    }

    fn of_batch(&mut self, batch: &Batch) -> Result<(Option<&Writer>, Lsn), String> {
        match self {
            Origins::One(writer, lsn) => Ok((*writer, *lsn)),
            Origins::Several { runs, at } => {
                while runs.get(*at).is_some_and(|run| run.end <= batch.base_offset) {
                    *at += 1;
                }
                let run = runs.get(*at).filter(|run| run.first <= batch.base_offset);
                let run = run.ok_or_else(|| {
                    format!("the footer of its object does not say who wrote offset {}", batch.base_offset)
                })?;
                Ok((run.writer.as_ref(), run.lsn))
            }
        }
    }
}
