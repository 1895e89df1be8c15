//! Where a table is in the metadata map. The views of all places are the same code.

use std::{collections::BTreeMap, time::Duration};

use floe_log::{Offset, PartitionId, TopicId, topic::Topic, topic_config::TopicConfig};
use floe_meta::{DecodeError, Lookup, Snapshot, Tx};
use floe_view::{BadRecordRule, Command, MetricNames, ProgressRecord, ViewError};

use crate::map::{Rebuild, Table, ViewState};

/// A place for the records of a table.
pub(crate) trait Place: Send + Sync + 'static {
    /// The name of the view that writes it. It is in leases and envelopes, and never changes.
    const VIEW: &'static str;
    /// The names of its metrics.
    const METRICS: MetricNames;
    /// How far it has read.
    type Progress: ProgressRecord;

    fn table(map: &impl Lookup, topic: TopicId) -> Result<Option<Table>, DecodeError>;
    fn state(map: &impl Lookup, topic: TopicId) -> Result<Option<ViewState>, DecodeError>;
    fn put_table(tx: &mut Tx<'_>, topic: TopicId, table: &Table) -> Result<(), ViewError>;
    fn put_state(tx: &mut Tx<'_>, topic: TopicId, state: &ViewState) -> Result<(), ViewError>;
    /// Removes all of its records but the progress.
    fn remove(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError>;
    /// The name of a new table's folder.
    fn folder(map: &impl Lookup, topic: &Topic) -> Result<String, ViewError>;
    /// Whether the topic has a table in this place.
    fn is_wanted(map: &Snapshot, topic: TopicId) -> Result<bool, DecodeError>;
    /// How old a record may be before it is in the table.
    fn freshness(config: &TopicConfig) -> Duration;
    /// What happens to a record that does not fit.
    fn bad_record(config: &TopicConfig) -> BadRecordRule;
    /// The command after which the table is not in this place any more, when it is time for it.
    fn last(
        map: &Snapshot,
        topic: TopicId,
        progress: &BTreeMap<u32, Offset>,
    ) -> Result<Option<Command>, DecodeError>;
    /// The request that it exists for, if it is one that is rebuilt. It is gone when the rebuilding is over.
    fn rebuild(map: &impl Lookup, topic: TopicId) -> Result<Option<Rebuild>, DecodeError>;
    /// Whether it may go on without records that were deleted before it read them.
    fn lose(partition: PartitionId) -> Result<(), ViewError>;
}
