//! From one metadata document to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    error::Error,
    metadata::{Document, MAIN_BRANCH, MetadataLog, Reference, SnapshotLog, TableMetadata, check},
    schema::Schema,
    snapshot::Snapshot,
};

/// The property that says how many earlier metadata documents a document names.
const PREVIOUS_VERSIONS_MAX: &str = "write.metadata.previous-versions-max";

/// How many it names without that property.
const PREVIOUS_VERSIONS: usize = 100;

/// What a commit changes.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The next state of the table.
    pub snapshot: Snapshot,
    /// Its schema, numbered by [`TableMetadata::number`].
    pub schema: Schema,
    /// The ids of the snapshots that go, the oldest ones.
    pub expired: BTreeSet<i64>,
    /// Properties that are set. The others stay.
    pub properties: BTreeMap<String, String>,
    /// The URL of the document that the commit begins with.
    pub metadata_file: String,
}

impl TableMetadata {
    /// The schema under the number that the table has for it: that of the same columns, or the next.
    #[must_use]
    pub fn number(&self, schema: Schema) -> Schema {
        let known = self.0.schemas.iter().find(|known| known.fields() == schema.fields());
        let last = self.0.schemas.iter().map(Schema::schema_id).max().unwrap_or(-1);
        let id = known.map_or(last.saturating_add(1), Schema::schema_id);
        schema.with_schema_id(id)
    }

    /// The document after a commit, and the earlier documents that it does not name any more.
    ///
    /// Schemas that no snapshot has are dropped: a table that widens often would carry every schema it ever had.
    ///
    /// # Errors
    /// The snapshot is not newer than the table, or the document would contradict itself.
    pub fn commit(&self, commit: Commit) -> Result<(TableMetadata, Vec<MetadataLog>), Error> {
        let Commit { snapshot, schema, expired, properties, metadata_file } = commit;
        let (id, time) = (snapshot.snapshot_id, snapshot.timestamp_ms);
        let mut next = self.0.clone();
        if snapshot.sequence_number <= next.last_sequence_number || time < next.last_updated_ms {
            return Err(Error::Metadata(format!("snapshot {id} is older than the table")));
        }
        next.metadata_log.push(MetadataLog { metadata_file, timestamp_ms: next.last_updated_ms });

        match next.schemas.iter().find(|known| known.schema_id() == schema.schema_id()) {
            Some(known) if *known == schema => {}
            Some(_) => {
                return Err(Error::Metadata(format!("two schemas have the id {}", schema.schema_id())));
            }
            None => next.schemas.push(schema.clone()),
        }
        next.current_schema_id = schema.schema_id();
        next.last_column_id = next.last_column_id.max(schema.highest_field_id());

        next.last_sequence_number = snapshot.sequence_number;
        next.last_updated_ms = time;
        next.snapshots.push(snapshot);
        next.current_snapshot_id = Some(id);
        next.snapshot_log.push(SnapshotLog { snapshot_id: id, timestamp_ms: time });
        let branch = || BTreeMap::from([("type".to_owned(), Value::from("branch"))]);
        let main = next.refs.entry(MAIN_BRANCH.to_owned());
        main.or_insert_with(|| Reference { snapshot_id: id, kept: branch() }).snapshot_id = id;

        next.close(&expired, properties)
    }

    /// The document without these snapshots, none of which is the current one, and the earlier documents that it does
    /// not name any more. `time_ms` is not before the last commit.
    ///
    /// # Errors
    /// The document would contradict itself.
    pub fn expire(
        &self,
        expired: &BTreeSet<i64>,
        properties: BTreeMap<String, String>,
        metadata_file: String,
        time_ms: i64,
    ) -> Result<(TableMetadata, Vec<MetadataLog>), Error> {
        let mut next = self.0.clone();
        next.metadata_log.push(MetadataLog { metadata_file, timestamp_ms: next.last_updated_ms });
        next.last_updated_ms = time_ms.max(next.last_updated_ms);
        next.close(expired, properties)
    }
}

impl Document {
    /// Drops what a commit does not keep, and sets its properties.
    fn close(
        self,
        expired: &BTreeSet<i64>,
        properties: BTreeMap<String, String>,
    ) -> Result<(TableMetadata, Vec<MetadataLog>), Error> {
        let mut next = self;
        next.snapshots.retain(|snapshot| !expired.contains(&snapshot.snapshot_id));
        next.refs.retain(|_, reference| !expired.contains(&reference.snapshot_id));
        // A history with a gap would say that a snapshot was current while the one in the gap was.
        let gap = next.snapshot_log.iter().rposition(|log| expired.contains(&log.snapshot_id));
        next.snapshot_log.drain(..gap.map_or(0, |gap| gap + 1));
        let mut used: BTreeSet<i32> =
            next.snapshots.iter().filter_map(|snapshot| snapshot.schema_id).collect();
        used.insert(next.current_schema_id);
        next.schemas.retain(|schema| used.contains(&schema.schema_id()));

        next.properties.extend(properties);
        let kept = next.properties.get(PREVIOUS_VERSIONS_MAX).and_then(|kept| kept.parse().ok());
        let kept = kept.unwrap_or(PREVIOUS_VERSIONS).max(1);
        let forgotten = next.metadata_log.len().saturating_sub(kept);
        let forgotten = next.metadata_log.drain(..forgotten).collect();
        check(&next)?;
        Ok((TableMetadata(next), forgotten))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Field, Operation, Primitive, Summary, Type};

    fn schema(ids: &[i32]) -> Schema {
        let field = |id: &i32| Field {
            id: *id,
            name: format!("c{id}"),
            required: false,
            field_type: Type::Primitive(Primitive::Long),
            doc: None,
        };
        Schema::new(0, ids.iter().map(field).collect()).unwrap()
    }

    fn table() -> TableMetadata {
        let properties = BTreeMap::from([(PREVIOUS_VERSIONS_MAX.to_owned(), "3".to_owned())]);
        TableMetadata::new(Uuid::from_u128(7), "file:///t/", schema(&[1]), 4, properties, 100)
    }

    /// The commit number `n` of a table, with these columns.
    fn commit(base: &TableMetadata, n: i64, ids: &[i32], expired: &[i64]) -> Commit {
        let schema = base.number(schema(ids));
        let summary = Summary { operation: Operation::Append, additional_properties: BTreeMap::new() };
        let snapshot = Snapshot {
            snapshot_id: 10 * n,
            parent_snapshot_id: base.current_snapshot().map(|parent| parent.snapshot_id),
            sequence_number: base.next_sequence_number(),
            timestamp_ms: 100 + n,
            manifest_list: format!("file:///t/{n}-s.avro"),
            summary,
            schema_id: Some(schema.schema_id()),
        };
        let properties = BTreeMap::from([("last".to_owned(), n.to_string())]);
        let metadata_file = format!("file:///t/{}.json", n - 1);
        Commit { snapshot, schema, expired: expired.iter().copied().collect(), properties, metadata_file }
    }

    #[test]
    fn commits_follow_each_other() {
        let mut table = table();
        assert_eq!((table.location(), table.current_snapshot()), ("file:///t", None));
        let mut forgotten = Vec::new();
        for n in 1..=6 {
            let expired: &[i64] = if n == 5 { &[10, 20] } else { &[] };
            let columns: &[i32] = if n < 3 { &[1] } else { &[1, 9] };
            let (next, gone) = table.commit(commit(&table, n, columns, expired)).unwrap();
            forgotten.extend(gone.into_iter().map(|log| (log.metadata_file, log.timestamp_ms)));
            let text = next.document().unwrap().to_string();
            assert_eq!(TableMetadata::read(text.as_bytes()).unwrap(), next);
            table = next;
        }
        let ids: Vec<i64> = table.snapshots().iter().map(|snapshot| snapshot.snapshot_id).collect();
        assert_eq!(ids, [30, 40, 50, 60]);
        let log: Vec<(i64, i64)> =
            table.snapshot_log().iter().map(|log| (log.snapshot_id, log.timestamp_ms)).collect();
        assert_eq!(log, [(30, 103), (40, 104), (50, 105), (60, 106)]);
        assert_eq!(table.current_snapshot().unwrap().snapshot_id, 60);
        assert_eq!(table.refs()[MAIN_BRANCH].snapshot_id, 60);
        assert_eq!((table.last_updated_ms(), table.next_sequence_number()), (106, 7));
        let names: Vec<&str> = table.metadata_log().iter().map(|log| log.metadata_file.as_str()).collect();
        assert_eq!(names, ["file:///t/3.json", "file:///t/4.json", "file:///t/5.json"]);
        let name = |n: i64| (format!("file:///t/{n}.json"), 100 + n);
        assert_eq!(forgotten, [name(0), name(1), name(2)]);
        // No snapshot has the first schema any more.
        assert_eq!(table.schemas().iter().map(Schema::schema_id).collect::<Vec<_>>(), [1]);
        assert_eq!(table.0.last_column_id, 9);
        assert_eq!(table.properties()["last"], "6");
    }

    #[test]
    fn a_gap_in_the_middle_ends_the_history_before_it() {
        let mut table = table();
        for n in 1..=4 {
            let expired: &[i64] = if n == 4 { &[20] } else { &[] };
            table = table.commit(commit(&table, n, &[1], expired)).unwrap().0;
        }
        assert_eq!(table.snapshots().len(), 3);
        let log: Vec<i64> = table.snapshot_log().iter().map(|log| log.snapshot_id).collect();
        assert_eq!(log, [30, 40]);
    }

    #[test]
    fn a_schema_keeps_its_number_and_a_new_one_gets_the_next() {
        let base = table();
        assert_eq!(base.number(schema(&[1]).with_schema_id(7)).schema_id(), 0);
        assert_eq!(base.number(schema(&[1, 2])).schema_id(), 1);
        let (next, _) = base.commit(commit(&base, 1, &[1, 2], &[])).unwrap();
        assert_eq!(next.current_schema().schema_id(), 1);
        // The first schema is gone with the snapshots that had it, but its number is not taken again.
        assert_eq!(next.number(schema(&[1])).schema_id(), 2);
    }

    #[test]
    fn a_commit_that_contradicts_the_table_is_refused() {
        let base = table();
        let (base, _) = base.commit(commit(&base, 1, &[1], &[])).unwrap();
        let why = |change: &dyn Fn(&mut Commit)| {
            let mut commit = commit(&base, 2, &[1], &[]);
            change(&mut commit);
            base.commit(commit).unwrap_err().to_string()
        };
        assert!(why(&|commit| commit.snapshot.sequence_number = 1).contains("older"));
        assert!(why(&|commit| commit.snapshot.timestamp_ms = 100).contains("older"));
        assert!(why(&|commit| commit.snapshot.snapshot_id = 10).contains("one id"));
        assert!(why(&|commit| commit.schema = schema(&[3])).contains("two schemas"));
        assert!(why(&|commit| commit.expired = BTreeSet::from([20])).contains("no snapshot 20"));
    }
}
