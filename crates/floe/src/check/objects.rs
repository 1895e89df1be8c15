//! Reads every byte of the log's objects, with a bar on a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use floe_log::check::{self, Fault, Named, Source};
use floe_log::extent::Extent;
use floe_log::object::object_key;
use floe_log::{TopicId, topic};
use floe_meta::{Inspected as Journal, Lsn, Snapshot};
use floe_store::local::Inspected;
use floe_store::{Store, StoreError};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::term::things;

/// Objects that are read at once. Each takes [`floe_log::limits::CHECK_READ_BYTES`], or one batch if that is larger, of
/// memory about twice.
const OBJECTS_AT_ONCE: usize = 4;
/// Damaged runs of records that are kept, so that a lost disk does not take all memory.
const FAULTS_MAX: usize = 100_000;

/// Where the bytes are.
pub(super) enum Place {
    Local(Arc<Inspected>),
    Remote(Arc<dyn Store>),
}

impl Source for Place {
    fn read<'a>(&'a self, key: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        match self {
            Place::Local(inspected) => std::future::ready(inspected.read(key, range)).boxed(),
            Place::Remote(store) => store.get(key, Some(range)),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// One line for each fault that costs something.
    pub(super) damage: Vec<String>,
    /// The same, for programs.
    pub(super) records: Vec<Value>,
    pub(super) notes: Vec<String>,
    pub(super) whole: String,
}

/// Reads the objects that a map names.
///
/// # Errors
/// The store does not answer, or a record of the map cannot be read.
pub(super) async fn check(place: &Place, map: &Snapshot, show: bool) -> Result<Checked> {
    let named = check::objects(map).context("a record of the metadata is damaged")?;
    let (count, bytes) = (named.len(), named.iter().map(|named| named.size).sum::<u64>());
    let bar = if show { bar(bytes)? } else { ProgressBar::hidden() };
    let faults = read(place, map, &named, &bar).await;
    bar.finish_and_clear();
    let faults = faults?;
    let mut checked = Checked::default();
    let mut topics = BTreeMap::new();
    let more = faults.len().saturating_sub(FAULTS_MAX);
    for fault in faults.into_iter().take(FAULTS_MAX) {
        let name = fault.records.map(|records| {
            let id = records.partition.topic;
            topics.entry(id).or_insert_with(|| name_of(map, id)).clone()
        });
        let line = line(&fault, name.as_deref());
        if fault.is_needed {
            checked.records.push(as_json(&fault, name.as_deref()));
            checked.damage.push(line);
        } else {
            checked.notes.push(format!("{line} (no record needs it)"));
        }
    }
    if more > 0 {
        checked.damage.push(format!("and {more} more runs of records"));
    }
    checked.whole =
        format!("every byte of {} of the log was compared: {bytes} bytes", things(count, "object"));
    Ok(checked)
}

/// What the damage of bytes that the journal holds costs.
///
/// # Errors
/// A record of the map cannot be read.
pub(super) fn attached(journal: &Journal) -> Result<Checked> {
    let map = &journal.snapshot;
    let mut checked = Checked::default();
    let places: BTreeMap<Lsn, &str> = journal.damaged.iter().map(|one| (one.lsn, &one.place[..])).collect();
    let mut needed = BTreeSet::new();
    let extents = if places.is_empty() { None } else { Some(map.range::<Extent>(..)) };
    for pair in extents.into_iter().flatten() {
        let (key, extent) = pair?;
        let Some(lsn) = extent.data().map(|data| data.lsn).filter(|_| extent.object().is_none()) else {
            continue;
        };
        let Some(place) = places.get(&lsn) else { continue };
        needed.insert(lsn);
        if checked.records.len() == FAULTS_MAX {
            continue;
        }
        let (topic, index) = (name_of(map, key.partition.topic), key.partition.index);
        let (from, next) = (key.base.0, extent.next_offset(key.base).0);
        let last = next - 1;
        checked.damage.push(format!(
            "commit {lsn}: topic {topic}, partition {index}, offsets {from} to {last}: {place} does not match its \
             checksum"
        ));
        checked.records.push(json!({
            "commit": lsn.0,
            "topic": topic,
            "partition": index,
            "first_offset": from,
            "next_offset": next,
            "why": place,
        }));
    }
    for (lsn, place) in places.iter().filter(|(lsn, _)| !needed.contains(lsn)) {
        checked.notes.push(format!("the bytes of commit {lsn} are damaged: {place} (no record needs them)"));
    }
    let (count, bytes) = (journal.attachments.len(), journal.attachments.values().sum::<u64>());
    checked.whole = format!(
        "every byte that came with {} and is still in the journal was compared: {bytes} bytes",
        things(count, "commit")
    );
    Ok(checked)
}

async fn read(place: &Place, map: &Snapshot, named: &[Named], bar: &ProgressBar) -> Result<Vec<Fault>> {
    let checks = named.iter().map(|named| async move {
        let found = check::object(place, map, named, &|bytes| bar.inc(bytes)).await;
        found.with_context(|| format!("{} cannot be read", object_key(named.id)))
    });
    let mut all = stream::iter(checks).buffered(OBJECTS_AT_ONCE);
    let mut faults = Vec::new();
    while let Some(found) = all.try_next().await? {
        faults.extend(found);
    }
    Ok(faults)
}

/// A bar on standard error, which shows nothing where that is no terminal.
fn bar(bytes: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template(
        "{prefix} {bar:28} {percent:>3} %  {binary_bytes} · {binary_bytes_per_sec}",
    )?;
    Ok(ProgressBar::new(bytes).with_style(style.progress_chars("━━╌")).with_prefix("reading the log"))
}

/// The name of a topic, or its number if it is deleted.
fn name_of(map: &Snapshot, id: TopicId) -> String {
    match topic::by_id(map, id) {
        Ok(Some(topic)) => topic.name,
        Ok(None) | Err(_) => format!("{id} (deleted)"),
    }
}

fn line(fault: &Fault, topic: Option<&str>) -> String {
    let Fault { object, records, what, .. } = fault;
    let key = object_key(*object);
    match records.zip(topic) {
        Some((records, topic)) => {
            let (index, from, last) = (records.partition.index, records.from, records.to.0 - 1);
            format!("{key}: topic {topic}, partition {index}, offsets {from} to {last}: {what}")
        }
        None => format!("{key}: {what}"),
    }
}

fn as_json(fault: &Fault, topic: Option<&str>) -> Value {
    let records = fault.records;
    json!({
        "object": object_key(fault.object),
        "topic": topic,
        "partition": records.map(|records| records.partition.index),
        "first_offset": records.map(|records| records.from.0),
        "next_offset": records.map(|records| records.to.0),
        "why": fault.what,
    })
}
