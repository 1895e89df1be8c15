//! The rows of a journal entry. Pure: an entry and the names of its time in, rows out.
//!
//! What an entry changed in the metadata map says what happened, because every kind of record has one meaning:
//!
//! ```text
//! extents put with this commit's LSN         append, marker
//! extents put, others removed                rewrite: the same offsets in another place
//! extents removed, the log start moved       trim
//! extents removed, the partition is gone     free
//! topic put with its name, deleted removed   create, undelete; without its name: alter
//! topic removed, deleted removed             delete, purge
//! extents moved to removed records           delete, with the partition and the offsets
//! removed records removed                    undelete with the offsets, if they are a topic now; else purge
//! offset of a group                          group offset
//! table, progress of a view                  table
//! anything else alone                        other
//! ```
//! Everything else that an entry changed is dropped: producers, objects and their leases, trash, sessions, counters,
//! state of views, files of tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use floe_group::{OffsetKey, OffsetRecord};
use floe_log::extent::{Data, Extent, ExtentKey, Outcome, WrittenBy};
use floe_log::partition::Head;
use floe_log::{Offset, PartitionId, TopicId, Writer, deleted, removed, topic};
use floe_meta::key::Key;
use floe_meta::{Change, DecodeError, Entry, Lsn, MapRecord, decode_key, decode_value};
use floe_view::ProgressRecord as _;
use serde_json::json;

use crate::limits::DETAIL_BYTES_MAX;
use crate::names::{Named, Names};
use crate::row::{ChangeKind, Row};

/// The progress of the view that makes tables.
type TableProgress = floe_view::Progress<41>;
/// The kind of a table's record, whose key is the topic's number.
const TABLE: u8 = 40;

/// The rows of an entry, at least one. `names` are those before the entry, and those after it when this returns.
///
/// # Errors
/// A record cannot be read. Then the names have what the entry wrote.
pub fn rows(entry: &Entry, names: &mut Names) -> Result<Vec<Row>, DecodeError> {
    names.write(&entry.changes);
    let found = Found::of(entry)?;
    let mut maker = Maker { entry, names, blank: blank(entry), rows: Vec::new() };
    maker.topics(&found)?;
    maker.logs(&found)?;
    maker.offsets(&found)?;
    maker.tables(&found)?;
    if maker.rows.is_empty() {
        maker.rows.push(maker.blank.clone());
    }
    let rows = maker.rows;
    names.remove(&entry.changes);
    Ok(rows)
}

/// A row of the kind `other`, with what all rows of the entry have.
fn blank(entry: &Entry) -> Row {
    let envelope = &entry.envelope;
    let text = |text: &Option<String>| text.as_deref().map(Arc::from);
    Row {
        lsn: entry.lsn,
        time: envelope.time,
        principal: Arc::clone(&envelope.principal),
        client_id: Arc::clone(&envelope.client_id),
        run_id: text(&envelope.run_id),
        cause: text(&envelope.cause),
        undo_of: envelope.undo_of,
        comment: text(&envelope.comment),
        change: ChangeKind::Other,
        topic: None,
        topic_id: None,
        partition: None,
        first_offset: None,
        offsets: None,
        bytes: None,
        group: None,
        detail: None,
    }
}

/// What an entry changed, by partition and topic.
#[derive(Default)]
struct Found {
    logs: BTreeMap<PartitionId, LogChange>,
    topics: BTreeMap<TopicId, TopicChange>,
    offsets: Vec<(OffsetKey, Option<i64>)>,
    tables: BTreeMap<TopicId, BTreeMap<u32, Offset>>,
}

/// What an entry changed of a partition's log.
#[derive(Default)]
struct LogChange {
    head: Option<Head>,
    put: Vec<(Offset, Extent)>,
    removed: Vec<Offset>,
}

/// What an entry changed of a topic's records.
#[derive(Clone, Copy, Default)]
struct TopicChange {
    put: bool,
    removed: bool,
    named: bool,
    /// The record of a deleted topic was put.
    deleted: bool,
    /// The record of a deleted topic was removed, or that of removed records.
    undeleted: bool,
    /// It was removed records before.
    was_removed: bool,
}

impl Found {
    fn of(entry: &Entry) -> Result<Found, DecodeError> {
        let mut found = Found::default();
        let mut named = BTreeSet::new();
        for change in &entry.changes {
            let Some(kind) = change.key.first() else { continue };
            match *kind {
                Extent::KIND => found.extent(change)?,
                Head::KIND => {
                    found.logs.entry(decode_key::<Head>(&change.key)?).or_default().head =
                        value_of::<Head>(change)?;
                }
                OffsetRecord::KIND => {
                    let offset = value_of::<OffsetRecord>(change)?.map(|record| record.offset);
                    found.offsets.push((decode_key::<OffsetRecord>(&change.key)?, offset));
                }
                TableProgress::KIND => {
                    let partition = decode_key::<TableProgress>(&change.key)?;
                    if let Some(progress) = value_of::<TableProgress>(change)? {
                        found
                            .tables
                            .entry(partition.topic)
                            .or_default()
                            .insert(partition.index, progress.next());
                    }
                }
                TABLE => {
                    let topic = TopicId::decode(&change.key[1..])?;
                    found.tables.entry(topic).or_default();
                }
                _ => {}
            }
            if let Some(id) = topic::named_by(change)? {
                named.insert(id);
            }
            found.topic(change)?;
        }
        for id in named {
            found.topics.entry(id).or_default().named = true;
        }
        Ok(found)
    }

    fn extent(&mut self, change: &Change) -> Result<(), DecodeError> {
        let ExtentKey { partition, base } = decode_key::<Extent>(&change.key)?;
        let log = self.logs.entry(partition).or_default();
        match value_of::<Extent>(change)? {
            Some(extent) => log.put.push((base, extent)),
            None => log.removed.push(base),
        }
        Ok(())
    }

    fn topic(&mut self, change: &Change) -> Result<(), DecodeError> {
        let (is_topic, is_deleted) = (topic::is_topic(&change.key), deleted::is_deleted(&change.key));
        if removed::is_removed(&change.key) && change.value.is_none() {
            let found = self.topics.entry(TopicId::decode(&change.key[1..])?).or_default();
            (found.undeleted, found.was_removed) = (true, true);
        }
        if !is_topic && !is_deleted {
            return Ok(());
        }
        let found = self.topics.entry(TopicId::decode(&change.key[1..])?).or_default();
        match (is_topic, change.value.is_some()) {
            (true, true) => found.put = true,
            (true, false) => found.removed = true,
            (false, true) => found.deleted = true,
            (false, false) => found.undeleted = true,
        }
        Ok(())
    }
}

fn value_of<R: MapRecord>(change: &Change) -> Result<Option<R>, DecodeError> {
    change.value.as_ref().map(decode_value::<R>).transpose()
}

struct Maker<'a> {
    entry: &'a Entry,
    names: &'a Names,
    blank: Row,
    rows: Vec<Row>,
}

impl Maker<'_> {
    fn row(&self, change: ChangeKind, topic: TopicId) -> Result<Row, DecodeError> {
        let Some(Named { name, id, removed }) = self.names.topic(topic)? else {
            return Ok(Row { change, topic_id: Some(topic.0), ..self.blank.clone() });
        };
        let detail = removed.map(|id| json!({"removed": id.to_string()}).to_string().into());
        Ok(Row { change, topic: Some(name), topic_id: Some(id.0), detail, ..self.blank.clone() })
    }

    fn row_of(&self, change: ChangeKind, partition: PartitionId) -> Result<Row, DecodeError> {
        Ok(Row { partition: Some(partition.index), ..self.row(change, partition.topic)? })
    }

    fn topics(&mut self, found: &Found) -> Result<(), DecodeError> {
        for (id, change) in &found.topics {
            let TopicChange { put, removed, named, deleted, undeleted, was_removed } = *change;
            let kind = match (put, removed || deleted, undeleted) {
                (true, _, true) => ChangeKind::Undelete,
                (true, _, false) if named => ChangeKind::Create,
                (true, _, false) => ChangeKind::Alter,
                (false, true, _) => ChangeKind::Delete,
                (false, false, true) => ChangeKind::Purge,
                (false, false, false) => continue,
            };
            let row = self.row(kind, *id)?;
            let row = if put { Row { detail: self.settings(*id)?, ..row } } else { row };
            self.rows.push(row);
            if put && was_removed {
                self.returned(*id, found)?;
            }
        }
        Ok(())
    }

    /// The offsets that came back with a topic that was removed records.
    fn returned(&mut self, id: TopicId, found: &Found) -> Result<(), DecodeError> {
        let of_topic = found.logs.range(PartitionId::new(id, 0)..=PartitionId::new(id, u32::MAX));
        for (partition, log) in of_topic {
            let Some(head) = log.head.filter(|head| head.next > head.log_start) else { continue };
            let row = self.row_of(ChangeKind::Undelete, *partition)?;
            let offsets = Some(head.next.0.abs_diff(head.log_start.0));
            self.rows.push(Row {
                first_offset: Some(head.log_start.0),
                offsets,
                bytes: Some(head.bytes),
                ..row
            });
        }
        Ok(())
    }

    /// The partitions and settings of a topic.
    fn settings(&self, id: TopicId) -> Result<Option<Arc<str>>, DecodeError> {
        let Some(found) = topic::by_id(self.names, id)? else { return Ok(None) };
        let mut fields: serde_json::Map<String, serde_json::Value> =
            found.configs.into_iter().map(|(name, value)| (name, value.into())).collect();
        fields.insert("partitions".to_owned(), found.partitions.into());
        let text = serde_json::Value::Object(fields).to_string();
        Ok(Some(text[..text.floor_char_boundary(DETAIL_BYTES_MAX)].into()))
    }

    fn logs(&mut self, found: &Found) -> Result<(), DecodeError> {
        let mut freed = BTreeSet::new();
        for (partition, log) in &found.logs {
            let of_topic = found.topics.get(&partition.topic).copied().unwrap_or_default();
            let (fresh, moved): (Vec<_>, Vec<_>) =
                log.put.iter().copied().partition(|(_, extent)| is_fresh(self.entry.lsn, extent, log));
            self.appended(*partition, &fresh)?;
            if let (Some((first, _)), Some((base, extent))) = (moved.first(), moved.last()) {
                let row = self.row_of(self.moved(*partition, found)?, *partition)?;
                let offsets = extent.next_offset(*base).0.abs_diff(first.0);
                let bytes = moved.iter().map(|(_, extent)| extent.bytes()).sum();
                let first_offset = Some(first.0);
                self.rows.push(Row { first_offset, offsets: Some(offsets), bytes: Some(bytes), ..row });
            }
            match log.head {
                // The heads of a topic that is made, or comes back, are part of it.
                Some(head) if log.put.is_empty() && !of_topic.put => {
                    self.trimmed(*partition, head, &log.removed)?;
                }
                None if log.put.is_empty() && !log.removed.is_empty() => {
                    freed.insert(partition.topic);
                }
                // Retention may remove extents in the commit that rewrites others.
                _ => {}
            }
        }
        for topic in freed {
            let row = self.row(ChangeKind::Free, topic)?;
            self.rows.push(row);
        }
        Ok(())
    }

    /// What it means that extents of a partition came that are not new: their bytes are in another place, or another
    /// topic lost them to its removed records.
    fn moved(&self, to: PartitionId, found: &Found) -> Result<ChangeKind, DecodeError> {
        let named = self.names.topic(to.topic)?.filter(|named| named.removed.is_some());
        let Some(Named { id, .. }) = named else { return Ok(ChangeKind::Rewrite) };
        let lost = found.logs.get(&PartitionId::new(id, to.index));
        let is_lost = found.logs[&to].removed.is_empty() && lost.is_some_and(|log| !log.removed.is_empty());
        Ok(if is_lost { ChangeKind::Delete } else { ChangeKind::Rewrite })
    }

    fn trimmed(&mut self, partition: PartitionId, head: Head, removed: &[Offset]) -> Result<(), DecodeError> {
        let start = head.log_start;
        let offsets = removed.iter().min().map(|first| start.0.saturating_sub(first.0).max(0).unsigned_abs());
        let row = self.row_of(ChangeKind::Trim, partition)?;
        self.rows.push(Row { first_offset: Some(start.0), offsets, ..row });
        Ok(())
    }

    /// A row for each run of neighbours of one writer.
    fn appended(&mut self, partition: PartitionId, fresh: &[(Offset, Extent)]) -> Result<(), DecodeError> {
        let mut run: Option<(WrittenBy, Row)> = None;
        for (base, extent) in fresh {
            let data = match extent {
                Extent::Data(data) => data,
                Extent::Marker(marker) => {
                    self.rows.extend(run.take().map(|(_, row)| row));
                    let outcome = match marker.outcome {
                        Outcome::Commit => "commit",
                        Outcome::Abort => "abort",
                    };
                    let detail = format!("{outcome} of producer {}", marker.producer_id);
                    let row = self.row_of(ChangeKind::Marker, partition)?;
                    let (first_offset, offsets) = (Some(base.0), Some(1));
                    self.rows.push(Row { first_offset, offsets, detail: Some(detail.into()), ..row });
                    continue;
                }
                Extent::Gap(_) => continue,
            };
            if let Some((writer, row)) = &mut run
                && *writer == data.written_by
                && row
                    .first_offset
                    .zip(row.offsets)
                    .is_some_and(|(first, n)| first.checked_add_unsigned(n) == Some(base.0))
            {
                row.offsets = row.offsets.map(|offsets| offsets + data.offsets);
                row.bytes = row.bytes.map(|bytes| bytes + data.bytes);
                continue;
            }
            self.rows.extend(run.take().map(|(_, row)| row));
            run = Some((data.written_by, self.append(partition, *base, data)?));
        }
        self.rows.extend(run.map(|(_, row)| row));
        Ok(())
    }

    fn append(&self, partition: PartitionId, base: Offset, data: &Data) -> Result<Row, DecodeError> {
        let row = self.row_of(ChangeKind::Append, partition)?;
        let row =
            Row { first_offset: Some(base.0), offsets: Some(data.offsets), bytes: Some(data.bytes), ..row };
        let WrittenBy::One(id) = data.written_by else { return Ok(row) };
        let writer = self.names.writer(id)?;
        let Writer { principal, client_id } = writer.ok_or_else(|| {
            DecodeError::corrupt(format!("commit {} names writer {id}, whom nobody knows", self.entry.lsn))
        })?;
        Ok(Row { principal, client_id, ..row })
    }

    fn offsets(&mut self, found: &Found) -> Result<(), DecodeError> {
        for (key, offset) in &found.offsets {
            let row = self.row_of(ChangeKind::GroupOffset, key.partition)?;
            self.rows.push(Row { group: Some(key.group.as_str().into()), first_offset: *offset, ..row });
        }
        Ok(())
    }

    fn tables(&mut self, found: &Found) -> Result<(), DecodeError> {
        for (topic, progress) in &found.tables {
            let row = self.row(ChangeKind::Table, *topic)?;
            if progress.is_empty() {
                self.rows.push(row.clone());
            }
            for (partition, next) in progress {
                let (partition, first_offset) = (Some(*partition), Some(next.0));
                self.rows.push(Row { partition, first_offset, ..row.clone() });
            }
        }
        Ok(())
    }
}

/// Whether an extent came with this commit. Those of format level 1 do not know their commit: they came if nothing else
/// of the partition left.
fn is_fresh(lsn: Lsn, extent: &Extent, log: &LogChange) -> bool {
    let of = match extent {
        Extent::Data(data) => data.lsn,
        Extent::Marker(marker) => marker.lsn,
        Extent::Gap(_) => return false,
    };
    of == lsn || (of == Lsn(0) && log.removed.is_empty() && log.head.is_some())
}
