//! Compares the store, and the bytes that the journal keeps, with the metadata map.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use floe_lake::map::{Garbage, ViewState};
use floe_lake::{LakeError, TableRef};
use floe_log::extent::{Extent, Place};
use floe_log::object::{Object, ObjectLease, Trash, object_key};
use floe_log::{ObjectId, WriterNumber};
use floe_meta::{Lsn, MapRecord as _, Snapshot};

use super::super::cluster::{Cluster, Running};
use crate::client::Harness;
use crate::history::Event;

/// Notes the objects that are in the store, those that must be there, and those that may be there.
pub(crate) async fn look(cluster: &Cluster) {
    let running = cluster.broker().await;
    let snapshot = running.log.meta().snapshot();
    let mut needed: Vec<String> =
        snapshot.range::<Object>(..).map(|pair| object_key(pair.expect("an object can be read").0)).collect();
    let mut excused = wal_excused(&snapshot);
    match floe_history::map::objects(&snapshot) {
        Ok(objects) => {
            needed.extend(objects.named.into_iter().map(|(key, _)| key));
            excused.extend(objects.loose);
        }
        Err(error) => cluster.recorder().stuck(format!("the history cannot be read: {error}")),
    }
    let stored = cluster.store().keys();
    let mut tables = running.lake.tables(&snapshot).expect("the tables can be read");
    tables.extend(running.lake.tables_of_deleted(&snapshot).expect("the tables can be read"));
    for table in tables {
        excused.extend(lake_unsettled(&snapshot, &table, &stored));
        match lake_known(&running, snapshot.clone(), table).await {
            Ok((keys, waste)) => {
                needed.extend(keys);
                excused.extend(waste);
            }
            Err(error) => {
                cluster.recorder().stuck(format!("the documents of the table cannot be read: {error}"));
            }
        }
    }
    let mut stored = stored;
    stored.extend(cluster.journal().kept().into_iter().map(bytes_of));
    let (of_extents, lately) = needed_bytes(cluster).await;
    needed.extend(of_extents);
    excused.extend(lately);
    for late in overdue(cluster, &snapshot) {
        cluster.recorder().stuck(late);
    }
    cluster.recorder().note(running.number, Event::Objects { stored, needed, excused });
}

/// The name under which the bytes of a commit stand among the objects.
fn bytes_of(lsn: Lsn) -> String {
    format!("the bytes of commit {lsn}")
}

/// The bytes of commits that extents need, and those that no extent has needed since the cleaners had their time.
async fn needed_bytes(cluster: &Cluster) -> (Vec<String>, Vec<String>) {
    let before = cluster.env().now() - cluster.plan().cleaning();
    let mut extents: BTreeMap<Bytes, Lsn> = BTreeMap::new();
    let mut lately = BTreeSet::new();
    for entry in cluster.commits().await {
        let is_late = entry.envelope.time >= before;
        for change in entry.changes.into_iter().filter(|change| change.key.first() == Some(&Extent::KIND)) {
            lately.extend(extents.remove(&change.key).filter(|_| is_late));
            let Some(value) = change.value else { continue };
            let extent = Extent::decode(value[0], &value[1..]).expect("an extent can be read");
            if let Some(data) = extent.data().filter(|data| data.place == Place::Frame) {
                extents.insert(change.key, data.lsn);
            }
        }
    }
    let names = |lsns: BTreeSet<Lsn>| lsns.into_iter().map(bytes_of).collect();
    (names(extents.into_values().collect()), names(lately))
}

/// Objects that have waited for their deletion since before the cleaners had their time.
fn overdue(cluster: &Cluster, snapshot: &Snapshot) -> Vec<String> {
    let before = cluster.env().now() - cluster.plan().cleaning();
    let trash = snapshot.range::<Trash>(..).map(|pair| pair.expect("trash can be read"));
    let trash = trash.filter(|(_, trash)| trash.since < before);
    let trash = trash.map(|(id, _)| format!("object {id} is trash that is not deleted"));
    let garbage = snapshot.range::<Garbage>(..).map(|pair| pair.expect("garbage can be read"));
    let garbage = garbage.filter(|(key, _)| key.since < before);
    let waste = floe_history::map::waste(snapshot).expect("the history can be read");
    let waste = waste.into_iter().filter(|(_, since)| *since < before);
    let waste = waste.map(|(key, _)| format!("{key} is waste that is not deleted"));
    trash.chain(waste).chain(garbage.map(|(_, garbage)| format!("{garbage:?} is not deleted"))).collect()
}

/// Trash, and object ids that somebody may be using.
fn wal_excused(snapshot: &Snapshot) -> Vec<String> {
    let trash = snapshot.range::<Trash>(..).map(|pair| pair.expect("trash can be read").0);
    let leases = snapshot.range::<ObjectLease>(..).flat_map(|pair| {
        let (first, lease) = pair.expect("a lease can be read");
        (first.0..lease.end.0).map(ObjectId)
    });
    trash.chain(leases).map(object_key).collect()
}

/// Files that the table needs, and files that wait for their deletion.
async fn lake_known(
    running: &Running,
    snapshot: Snapshot,
    table: TableRef,
) -> Result<(Vec<String>, Vec<String>), String> {
    let lake = running.lake.clone();
    let known = running.run(async move {
        Ok::<_, LakeError>((lake.everything(&table).await?, lake.waste(&snapshot).await?))
    });
    known.await.ok_or("the broker died")?.map_err(|error| error.to_string())
}

/// Files whose numbers the view may be using.
fn lake_unsettled(snapshot: &Snapshot, table: &TableRef, stored: &[String]) -> Vec<String> {
    let record = snapshot.get::<floe_lake::map::Table>(&table.topic.id).expect("the table can be read");
    let view = snapshot.get::<ViewState>(&table.topic.id).expect("the view can be read");
    let count = WriterNumber::count;
    let used = view.map(|view| record.map_or(0, |table| count(table.next_file))..count(view.numbers_end));
    let unsettled = |key: &&String| used.as_ref().zip(number(key)).is_some_and(|(used, n)| used.contains(&n));
    let folder = format!("lake/{}-", table.topic.id);
    stored.iter().filter(|key| key.starts_with(&folder)).filter(unsettled).cloned().collect()
}

/// The number in the key of a table's file: `lake/<topic>/data/0000000012-1.parquet`, and
/// `lake/<topic>/metadata/00012-<uuid>.metadata.json`.
fn number(key: &str) -> Option<u64> {
    let name = key.strip_prefix("lake/")?.rsplit('/').next()?;
    name.split('-').next()?.parse().ok()
}
