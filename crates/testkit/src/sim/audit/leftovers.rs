//! The metadata of deleted topics that is still in the map.

use std::collections::BTreeMap;

use floe_group::OffsetRecord;
use floe_lake::map::{Progress, Table, ViewState};
use floe_log::TopicId;
use floe_log::compacted::Compacted;
use floe_log::extent::Extent;
use floe_log::partition::Head;
use floe_log::producer::Producer;
use floe_log::{deleted, remains};
use floe_meta::lease::Lease;
use floe_meta::{MapRecord, Snapshot};

use super::super::cluster::Cluster;
use crate::client::Harness;
use crate::history::Event;

/// Notes the leftovers.
pub(crate) async fn look(cluster: &Cluster) {
    let running = cluster.broker().await;
    let snapshot = running.log.meta().snapshot();
    let mut found = BTreeMap::new();
    count::<Head>(&snapshot, "partitions", |key| key.topic, &mut found);
    count::<Extent>(&snapshot, "extents", |key| key.partition.topic, &mut found);
    count::<Compacted>(&snapshot, "ends of compaction", |key| key.topic, &mut found);
    count::<Producer>(&snapshot, "producers", |key| key.partition.topic, &mut found);
    count::<OffsetRecord>(&snapshot, "offsets of groups", |key| key.partition.topic, &mut found);
    count::<Table>(&snapshot, "a table", |key| *key, &mut found);
    count::<ViewState>(&snapshot, "a view", |key| *key, &mut found);
    count::<Progress>(&snapshot, "progress", |key| key.topic, &mut found);
    count::<Lease>(&snapshot, "a lease", |key| leased(key), &mut found);
    let known = |id| deleted::exists(&snapshot, TopicId(id)).expect("a topic can be read");
    let left = found.into_iter().filter(|((id, _), _)| *id != NO_TOPIC && !known(*id));
    let mut what: Vec<String> =
        left.map(|((id, what), count)| format!("{what} ({count}) of the deleted topic {id}")).collect();
    if remains::any(&snapshot) {
        what.push("the remains of a deleted topic".to_owned());
    }
    what.extend(deleted::miscounted(&snapshot).expect("deleted topics can be read"));
    what.extend(floe_log::miscounted_writers(&snapshot).expect("writers can be read"));
    what.extend(floe_log::miscounted_producers(&snapshot).expect("producers can be read"));
    cluster.recorder().note(running.number, Event::Leftovers { what });
}

/// Stands for no topic.
const NO_TOPIC: u64 = u64::MAX;

/// The topic of the view that holds the lease with this name.
fn leased(name: &str) -> TopicId {
    let id = name.strip_prefix("view/lake/").and_then(|id| id.parse().ok());
    TopicId(id.unwrap_or(NO_TOPIC))
}

fn count<R: MapRecord>(
    snapshot: &Snapshot,
    what: &'static str,
    topic: impl Fn(&R::Key) -> TopicId,
    found: &mut BTreeMap<(u64, &'static str), u64>,
) {
    for pair in snapshot.range::<R>(..) {
        let (key, _) = pair.expect("a record can be read");
        *found.entry((topic(&key).0, what)).or_default() += 1;
    }
}
