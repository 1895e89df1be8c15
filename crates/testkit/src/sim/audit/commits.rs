//! The history of commits, read as a statement would read it: the parts of a pinned snapshot, and the journal after
//! them.

use std::sync::Arc;
use std::time::Duration;

use floe_env::Env;
use floe_history::read;
use floe_history::{ChangeKind, HistoryError, Names, Row, decode};
use floe_log::Log;
use floe_meta::{Entry, Lsn};
use tokio::time::sleep;

use super::super::cluster::Cluster;
use crate::check::commits::MARKER;
use crate::client::Harness;
use crate::history::{CommitRow, Event};

/// So many reads may fail without any fault.
const READS_MAX: u32 = 20;

/// Notes all rows.
pub(crate) async fn look(cluster: &Cluster) {
    let mut found = Err("no broker answered".to_owned());
    for _ in 0..READS_MAX {
        let running = cluster.broker().await;
        let (env, log) = (running.env.clone(), running.log.clone());
        match running.run(async move { rows(&env, &log).await }).await {
            Some(Ok(rows)) => {
                found = Ok(rows);
                break;
            }
            Some(Err(error)) => found = Err(error.to_string()),
            None => {}
        }
        sleep(Duration::from_millis(100)).await;
    }
    let event = match found {
        Ok((last, rows)) => {
            let wrong = compare(&rows, &cluster.commits().await, last);
            Event::Commits { last: last.0, rows: rows.iter().map(told).collect(), wrong }
        }
        Err(error) => Event::Commits { last: 0, rows: Vec::new(), wrong: vec![error] },
    };
    cluster.recorder().note(0, event);
}

/// Where the rows differ from those of all entries that the journal ever had.
fn compare(rows: &[Row], entries: &[Entry], last: Lsn) -> Vec<String> {
    let mut names = Names::default();
    let mut due = Vec::with_capacity(rows.len());
    for entry in entries.iter().take_while(|entry| entry.lsn <= last) {
        due.extend(floe_history::rows(entry, &mut names).expect("an entry can be read"));
    }
    let lsn =
        |row: Option<&Row>| row.map_or("none".to_owned(), |row| format!("{:?} of {}", row.change, row.lsn));
    match (0..rows.len().max(due.len())).find(|at| rows.get(*at) != due.get(*at)) {
        None => Vec::new(),
        Some(at) => vec![format!("row {at} is {}, due is {}", lsn(rows.get(at)), lsn(due.get(at)))],
    }
}

async fn rows(env: &Env, log: &Log) -> Result<(Lsn, Vec<Row>), HistoryError> {
    let pinned = log.pin();
    let parts = read::parts(&*pinned)?;
    let mut rows = Vec::new();
    for placed in &parts {
        let object = read::object(log.store(), placed).await?;
        let damaged = |reason: String| HistoryError::Damaged { key: placed.key(), reason };
        rows.extend(decode(object, false).and_then(|decoded| decoded.rows()).map_err(damaged)?);
    }
    let mut names = read::names(log.store(), parts.last()).await?;
    let range = (read::end(&*pinned)?, pinned.lsn());
    let take = |more: Vec<Row>| {
        rows.extend(more);
        Ok(true)
    };
    read::rows_after((env, log.meta()), range, &mut names, take).await?;
    Ok((pinned.lsn(), rows))
}

fn told(row: &Row) -> CommitRow {
    let is_append = matches!(row.change, ChangeKind::Append | ChangeKind::Marker);
    let name = row.topic.clone().unwrap_or_else(|| Arc::from("?"));
    let place = row.topic_id.zip(row.partition).filter(|_| is_append);
    CommitRow {
        lsn: row.lsn.0,
        partition: place.map(|(topic, partition)| format!("{name}#{topic}/{partition}")),
        client: if row.change == ChangeKind::Marker { MARKER.to_owned() } else { row.client_id.to_string() },
        base: row.first_offset.unwrap_or(-1),
        offsets: row.offsets.unwrap_or(0),
    }
}
