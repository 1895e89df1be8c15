//! Goes through all commits of the run once more. After each, the extents of every partition must be those of its
//! readable offsets, and retention must have taken nothing that the topic keeps.

use std::collections::{BTreeMap, BTreeSet};

use floe_log::extent::{Extent, ExtentKey};
use floe_log::mark::Mark;
use floe_log::partition::Head;
use floe_log::topic;
use floe_log::{Offset, PartitionId, TopicId};
use floe_meta::key::Key;
use floe_meta::lease::Lease;
use floe_meta::{Change, Entry, MapRecord};

use super::super::cluster::Cluster;
use super::super::plan::{COMPACTED_TOPIC, PLAIN_TOPIC, TABLE_TOPIC};
use crate::client::Harness;
use crate::history::Event;

/// The causes of commits that may move a log start.
const MOVERS: [&str; 2] = ["retention", "delete records"];

/// The name of the lease of merging, and the cause of its commits.
const MERGE: &str = "merge";

/// What a topic keeps, as its clients know it.
#[derive(Clone, Copy, Default)]
struct Kept {
    ms: Option<i64>,
    bytes: Option<u64>,
}

/// The map as far as it is about extents, after some commit.
#[derive(Default)]
struct Replay {
    heads: BTreeMap<PartitionId, Head>,
    extents: BTreeMap<ExtentKey, Extent>,
    marks: BTreeMap<PartitionId, Mark>,
    kept: BTreeMap<TopicId, Kept>,
    /// The lease of merging.
    lease: Option<Lease>,
    found: Vec<String>,
}

/// Notes what is wrong.
pub(crate) async fn look(cluster: &Cluster) {
    let running = cluster.broker().await;
    let snapshot = running.log.meta().snapshot();
    let (mut replay, mut retained) = (Replay::default(), Vec::new());
    let compacted = cluster.plan().compacted.map(|topic| (COMPACTED_TOPIC, topic.configs()));
    let others = [TABLE_TOPIC, PLAIN_TOPIC].map(|name| (name, cluster.plan().configs(name)));
    for (name, configs) in others.into_iter().chain(compacted) {
        let topic = topic::by_name(&snapshot, name).expect("a topic can be read").expect("it is there");
        let configs: BTreeMap<_, _> = configs.into_iter().collect();
        let number = |name| configs.get(name).map(|value: &&str| value.parse().expect("a number"));
        let kept =
            Kept { ms: number("retention.ms"), bytes: number("retention.bytes").map(i64::cast_unsigned) };
        if kept.ms.is_some() || kept.bytes.is_some() {
            retained.push(name.to_owned());
        }
        replay.kept.insert(topic.id, kept);
    }
    cluster.commits().await.iter().for_each(|entry| replay.apply(entry));
    cluster.recorder().note(running.number, Event::Extents { what: replay.found, retained });
}

impl Replay {
    fn apply(&mut self, entry: &Entry) {
        let mut touched = BTreeSet::new();
        let heads = of_kind::<Head>(&entry.changes);
        let extents = of_kind::<Extent>(&entry.changes);
        touched.extend(heads.iter().map(|(key, _)| *key));
        touched.extend(extents.iter().map(|(key, _)| key.partition));
        let cause = entry.envelope.cause.as_deref().unwrap_or_default();
        if cause == MOVERS[0] {
            self.judge(entry, &extents);
        }
        self.judge_lease(entry, cause == MERGE && !extents.is_empty());
        for (key, extent) in extents {
            put(&mut self.extents, key, extent);
        }
        for (partition, mark) in of_kind::<Mark>(&entry.changes) {
            put(&mut self.marks, partition, mark);
        }
        let before: Vec<_> = touched.iter().map(|partition| self.heads.get(partition).copied()).collect();
        for (partition, head) in heads {
            put(&mut self.heads, partition, head);
        }
        for (partition, before) in touched.into_iter().zip(before) {
            if let Some(what) = self.wrong(partition, before, MOVERS.contains(&cause)) {
                self.found
                    .push(format!("after commit {} ({cause}), partition {partition}: {what}", entry.lsn));
            }
        }
    }

    /// Compares what retention removes with what the topic keeps. The broker's clock was not ahead of the commit's.
    fn judge(&mut self, entry: &Entry, changes: &[(ExtentKey, Option<Extent>)]) {
        for (key, _) in changes.iter().filter(|(_, extent)| extent.is_none()) {
            let Some(extent) = self.extents.get(key) else { continue };
            let kept = self.kept.get(&key.partition.topic).copied().unwrap_or_default();
            let end = extent.next_offset(key.base);
            let last = ExtentKey::new(key.partition, Offset(i64::MAX));
            let rest: u64 =
                self.extents.range(ExtentKey::new(key.partition, end)..=last).map(|(_, e)| e.bytes()).sum();
            let mark = self.marks.get(&key.partition).filter(|mark| end <= mark.next).map(|mark| mark.time.0);
            let told = (extent.max_timestamp() >= 0).then_some(extent.max_timestamp());
            let since = told.into_iter().chain(mark).min();
            let is_old = |ms| since.is_some_and(|since| entry.envelope.time.0 - since > ms);
            if !kept.ms.is_some_and(is_old) && kept.bytes.is_none_or(|bytes| rest < bytes) {
                let (partition, base, lsn) = (key.partition, key.base, entry.lsn);
                self.found
                    .push(format!("commit {lsn} took the extent of {partition} at {base}, which stays"));
            }
        }
    }

    /// Whoever merges renews the lease in the same commit, under the epoch in force.
    fn judge_lease(&mut self, entry: &Entry, merges: bool) {
        let leases = of_kind::<Lease>(&entry.changes);
        let lease = leases.into_iter().find(|(name, _)| name == MERGE).and_then(|(_, lease)| lease);
        let epoch = |lease: &Option<Lease>| lease.as_ref().filter(|l| l.owner.is_some()).map(|l| l.epoch);
        if merges && (lease.is_none() || epoch(&lease) != epoch(&self.lease)) {
            self.found.push(format!("commit {} merges without the lease in force", entry.lsn));
        }
        self.lease = lease.or(self.lease.take());
    }

    /// What is wrong with a partition that a commit has touched.
    fn wrong(&self, partition: PartitionId, before: Option<Head>, moves: bool) -> Option<String> {
        let head = self.heads.get(&partition)?;
        if let Some(before) = before {
            if head.log_start < before.log_start || head.next < before.next {
                return Some(format!("it was {before:?} and is {head:?}"));
            }
            if head.log_start > before.log_start && !moves {
                return Some(format!("its log start moved to {}", head.log_start));
            }
        }
        let all = ExtentKey::new(partition, Offset(i64::MIN))..=ExtentKey::new(partition, Offset(i64::MAX));
        let (mut next, mut bytes) = (head.log_start, 0);
        for (key, extent) in self.extents.range(all) {
            let end = extent.next_offset(key.base);
            let begins = key.base == next || (next == head.log_start && key.base < next);
            if !begins || end <= next {
                return Some(format!("an extent is at {} and the last one ends at {next}", key.base));
            }
            (next, bytes) = (end, bytes + extent.bytes());
        }
        (next != head.next || bytes != head.bytes)
            .then(|| format!("its extents end at {next} and have {bytes} bytes, and it is {head:?}"))
    }
}

/// The changes of one kind of records.
fn of_kind<R: MapRecord>(changes: &[Change]) -> Vec<(R::Key, Option<R>)> {
    let changes = changes.iter().filter(|change| change.key.first() == Some(&R::KIND));
    let read = |change: &Change| {
        let key = R::Key::decode(&change.key[1..]).expect("a key can be read");
        let value = change.value.as_ref().map(|value| R::decode(value[0], &value[1..]));
        (key, value.transpose().expect("a record can be read"))
    };
    changes.map(read).collect()
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
