//! The rows of the table, read back from its Parquet files, and the dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Fields};
use floe_lake::{TableRef, data_file};
use floe_log::Log;
use floe_log::topic;
use floe_log::{Offset, PartitionId};
use floe_schema::FIELD_ID;
use floe_view::dead_letter::topic_of;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::super::cluster::{Cluster, Running};
use super::super::plan::{COMPACTED_TOPIC, Compacted};
use crate::client::Harness;
use crate::client::values::{topic_name, value_of};
use crate::history::Event;
use crate::rows;

/// Without faults, a view reaches the end of the log within this time.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);
/// Most bytes of a batch's records after decompression.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// Waits until every table has caught up with the log, and no job has to rewrite one or to merge files of it.
pub(crate) async fn catch_up(cluster: &Cluster) {
    let caught_up = async {
        loop {
            let running = cluster.broker().await;
            let reader = Arc::clone(&running);
            if behind(&running).is_empty()
                && running.run(async move { is_whole(&reader).await }).await == Some(true)
            {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    if timeout(CATCH_UP_MAX, caught_up).await.is_err() {
        let running = cluster.broker().await;
        let (behind, status) = (behind(&running), running.lake.status());
        cluster.recorder().stuck(format!("a table does not catch up: {behind:?} {status:?}"));
    }
}

/// Whether no table has files that a job has to rewrite or to merge.
async fn is_whole(running: &Running) -> bool {
    if running.lake.status().iter().any(|view| view.job.is_some()) {
        return false;
    }
    let tables = running.lake.tables(&running.log.meta().snapshot()).expect("the tables can be read");
    for table in &tables {
        if !matches!(running.lake.is_rewriting(table).await, Ok(false)) {
            return false;
        }
    }
    true
}

/// Partitions of tables whose progress is behind the high watermark, with both numbers.
fn behind(running: &Running) -> Vec<(String, u32, i64, i64)> {
    let snapshot = running.log.meta().snapshot();
    let tables = running.lake.tables(&snapshot).expect("the tables can be read");
    let partition = |table: &TableRef, index| {
        let bounds = Log::bounds(&snapshot, PartitionId::new(table.topic.id, index));
        let end = bounds.map_or(0, |bounds| bounds.high_watermark.0);
        let progress = table.progress.get(&index).map_or(0, |offset| offset.0);
        (table.name.clone(), index, progress, end)
    };
    let of_table = |table: &TableRef| {
        (0..table.topic.partitions).map(|index| partition(table, index)).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of_table).filter(|(_, _, progress, end)| progress != end).collect()
}

/// Notes the rows in the current snapshot of a topic's table.
pub(crate) async fn rows(cluster: &Cluster, topic: &'static str, incarnation: Option<u128>) {
    let running = cluster.broker().await;
    let snapshot = running.log.meta().snapshot();
    let Ok(Some(table)) = running.lake.table(&snapshot, topic) else {
        return cluster.recorder().stuck(format!("there is no table of {topic}"));
    };
    let progress = table.progress.iter().map(|(partition, offset)| (*partition, offset.0)).collect();
    let reader = Arc::clone(&running);
    let read = async move {
        let rows = read(&reader, &table, rows::of_json).await?;
        Ok::<_, String>((rows, dead(&reader.log, topic).await?))
    };
    let read = running.run(read);
    match read.await {
        Some(Ok((rows, dead))) => {
            let name = topic_name(topic, incarnation);
            let dead = of_incarnation(cluster, &name, incarnation.is_some(), dead);
            cluster.recorder().note(running.number, Event::Rows { topic: name, rows, dead, progress });
        }
        Some(Err(error)) => cluster.recorder().stuck(format!("the table cannot be read: {error}")),
        None => cluster.recorder().stuck("the broker died without a fault".to_owned()),
    }
}

/// Notes the rows in the current snapshot of the compacted topic's table.
pub(crate) async fn keyed_rows(cluster: &Cluster) {
    let running = cluster.broker().await;
    let snapshot = running.log.meta().snapshot();
    let Ok(Some(table)) = running.lake.table(&snapshot, COMPACTED_TOPIC) else {
        return cluster.recorder().stuck(format!("there is no table of {COMPACTED_TOPIC}"));
    };
    let progress = table.progress.get(&Compacted::PLACE.index).map_or(0, |offset| offset.0);
    let reader = Arc::clone(&running);
    match running.run(async move { read(&reader, &table, rows::keyed_of_json).await }).await {
        Some(Ok(rows)) => {
            let (topic, progress) = (COMPACTED_TOPIC.to_owned(), Some(progress));
            cluster.recorder().note(running.number, Event::KeyedRows { topic, rows, progress });
        }
        Some(Err(error)) => cluster.recorder().stuck(format!("the table cannot be read: {error}")),
        None => cluster.recorder().stuck("the broker died without a fault".to_owned()),
    }
}

/// The dead letters of one incarnation. All incarnations of a name share a dead-letter topic. A letter of another
/// incarnation holds another record than the one that is at its offset now.
fn of_incarnation(
    cluster: &Cluster,
    name: &str,
    shared: bool,
    dead: Vec<(u32, i64, String)>,
) -> Vec<(u32, i64)> {
    let history = cluster.recorder().history();
    let finals = history.finals();
    let is_there = |partition: u32, offset: i64, value: &str| {
        let read = finals.get(format!("{name}/{partition}").as_str());
        read.is_some_and(|read| read.records.iter().any(|(at, found)| *at == offset && found == value))
    };
    let kept = dead.into_iter().filter(|(p, offset, value)| !shared || is_there(*p, *offset, value));
    kept.map(|(partition, offset, _)| (partition, offset)).collect()
}

/// Reads the table as an engine does that finds columns by id alone. Replaced columns are gone.
async fn read<T>(
    running: &Running,
    table: &TableRef,
    of_json: fn(&Value) -> Option<T>,
) -> Result<Vec<T>, String> {
    let files = running.lake.data_files(table).await.map_err(|error| error.to_string())?;
    let replaced = table.schema.replaced();
    let mut rows = Vec::new();
    for file in files.iter() {
        let bytes = running.log.store().get(&file.key, None).await.map_err(|error| error.to_string())?;
        let held =
            ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| error.to_string())?;
        if let Some(id) = ids(held.schema().fields()).into_iter().find(|id| replaced.contains_key(id)) {
            return Err(format!("{} holds column {id}, which another has taken the place of", file.key));
        }
        let batches = data_file::read(bytes, &table.schema).map_err(|error| error.to_string())?;
        for batch in &batches {
            for row in rows::objects(batch).map_err(|error| error.to_string())? {
                rows.push(of_json(&row).ok_or_else(|| format!("{} lacks a system column", file.key))?);
            }
        }
    }
    Ok(rows)
}

/// The ids of all columns, including those in structs and lists.
fn ids(fields: &Fields) -> Vec<i32> {
    let mut found = Vec::new();
    for field in fields {
        found.extend(field.metadata().get(FIELD_ID).and_then(|id| id.parse::<i32>().ok()));
        match field.data_type() {
            DataType::Struct(fields) => found.extend(ids(fields)),
            DataType::List(element) => found.extend(ids(&Fields::from(vec![Arc::clone(element)]))),
            _ => {}
        }
    }
    found
}

/// Partition, offset and value of every dead letter of the topics with this name.
async fn dead(log: &Log, topic: &str) -> Result<Vec<(u32, i64, String)>, String> {
    let snapshot = log.meta().snapshot();
    let name = topic_of(topic).ok_or("the topic has no dead letters")?;
    let Some(topic) = topic::by_name(&snapshot, &name).map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for partition in topic.partition_ids() {
        let bounds = Log::bounds(&snapshot, partition).ok_or("a partition without bounds")?;
        let mut next = bounds.log_start;
        while next < bounds.high_watermark {
            let read = log.read(&snapshot, partition, next, RECORDS_BYTES_MAX).await;
            for batch in read.map_err(|error| error.to_string())?.batches {
                for record in batch.records(RECORDS_BYTES_MAX).map_err(|error| error.to_string())? {
                    next = Offset(record.offset.0 + 1);
                    let origin = origin(&record.headers);
                    let (partition, offset) =
                        origin.ok_or("a dead letter that does not say where it is from")?;
                    found.push((partition, offset, value_of(record.value.as_deref().unwrap_or_default())));
                }
            }
        }
    }
    Ok(found)
}

fn origin(headers: &[(bytes::Bytes, Option<bytes::Bytes>)]) -> Option<(u32, i64)> {
    let headers: BTreeMap<&[u8], &[u8]> =
        headers.iter().filter_map(|(key, value)| Some((&key[..], value.as_deref()?))).collect();
    let number = |name: &str| std::str::from_utf8(headers.get(name.as_bytes())?).ok();
    Some((number("floe.partition")?.parse().ok()?, number("floe.offset")?.parse().ok()?))
}
