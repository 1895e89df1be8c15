//! The store against what the metadata map knows of it.

use floe_lake::TableRef;
use floe_lake::record::{Garbage, ViewState};
use floe_log::ids::ObjectId;
use floe_log::object::{Object, ObjectLease, Trash, wal_key};
use floe_meta::Snapshot;

use super::super::cluster::{Cluster, Running};
use super::super::plan::TABLE_TOPIC;
use crate::client::Harness;
use crate::history::Event;

/// Writes down what is in the store, what has to be there and what may be.
pub(crate) async fn look(cluster: &Cluster) {
    let running = cluster.broker().await;
    let snapshot = running.log.meta().snapshot();
    let mut needed: Vec<String> =
        snapshot.range::<Object>(..).map(|pair| wal_key(pair.expect("an object can be read").0)).collect();
    let mut excused = wal_excused(&snapshot);
    let stored = cluster.store().keys();
    if let Some(table) = running.lake.table(&snapshot, TABLE_TOPIC).expect("the table can be read") {
        excused.extend(lake_excused(&snapshot, &table, &stored));
        match lake_needed(&running, table).await {
            Ok(keys) => needed.extend(keys),
            Err(error) => {
                cluster.recorder().stuck(format!("the documents of the table cannot be read: {error}"));
            }
        }
    }
    cluster.recorder().note(running.number, Event::Objects { stored, needed, excused });
}

/// Trash, and ids that somebody may be using.
fn wal_excused(snapshot: &Snapshot) -> Vec<String> {
    let trash = snapshot.range::<Trash>(..).map(|pair| pair.expect("trash can be read").0);
    let leases = snapshot.range::<ObjectLease>(..).flat_map(|pair| {
        let (first, lease) = pair.expect("a lease can be read");
        (first.0..lease.end.0).map(ObjectId)
    });
    trash.chain(leases).map(wal_key).collect()
}

async fn lake_needed(running: &Running, table: TableRef) -> Result<Vec<String>, String> {
    let lake = running.lake.clone();
    let everything = running.run(async move { lake.everything(&table).await }).await;
    everything.ok_or("the broker died")?.map_err(|error| error.to_string())
}

/// Garbage that waits for its grace, and numbers that the view may be using.
fn lake_excused(snapshot: &Snapshot, table: &TableRef, stored: &[String]) -> Vec<String> {
    let garbage = snapshot.range::<Garbage>(..).map(|pair| pair.expect("garbage can be read").1);
    let mut excused = Vec::new();
    let mut numbers = Vec::new();
    for garbage in garbage {
        match garbage {
            Garbage::Files(keys) => excused.extend(keys),
            Garbage::Numbers { from, to, .. } => numbers.push(from..to),
            Garbage::Table(_) => {}
        }
    }
    let record = snapshot.get::<floe_lake::record::Table>(&table.topic.id).expect("the table can be read");
    if let Some(view) = snapshot.get::<ViewState>(&table.topic.id).expect("the view can be read") {
        numbers.push(record.map_or(0, |table| table.next_file)..view.numbers_end);
    }
    let of_numbers =
        |key: &&String| number(key).is_some_and(|n| numbers.iter().any(|range| range.contains(&n)));
    excused.extend(stored.iter().filter(of_numbers).cloned());
    excused
}

/// The number of a file of the table: `lake/<topic>/data/0000000012.parquet`.
fn number(key: &str) -> Option<u64> {
    let name = key.strip_prefix("lake/")?.rsplit('/').next()?;
    name.get(..10)?.parse().ok()
}
