//! The places of tables: one runs, or is rebuilt beside the running one.

use std::{collections::BTreeMap, time::Duration};

use floe_log::{
    Offset, PartitionId, TopicId,
    topic::Topic,
    topic_config::{BadRecord, TopicConfig},
};
use floe_meta::{DecodeError, Lookup, Snapshot, Tx};
use floe_view::{BadRecordRule, Command, MetricNames, ViewError, progress_of};

use crate::{
    command,
    error::TableError,
    map::{Progress, Rebuild, RebuildProgress, Table, ViewState},
    place::Place,
};

/// The table that readers see.
pub(crate) struct Running;

impl Place for Running {
    const VIEW: &'static str = command::VIEW;
    const METRICS: MetricNames = MetricNames {
        lag_records: "floe_lake_lag_records",
        step_seconds: "floe_lake_step_seconds",
        errors: "floe_lake_errors_total",
        job_seconds: "floe_lake_job_seconds",
        job_errors: "floe_lake_job_errors_total",
        stands_still: "floe_lake_stands_still_since_seconds",
        commits: "floe_lake_commits_total",
        bad_records: "floe_lake_bad_records_total",
        lost_records: "floe_lake_lost_records_total",
    };

    type Progress = Progress;

    fn table(map: &impl Lookup, topic: TopicId) -> Result<Option<Table>, DecodeError> {
        map.get::<Table>(&topic)
    }

    fn state(map: &impl Lookup, topic: TopicId) -> Result<Option<ViewState>, DecodeError> {
        map.get::<ViewState>(&topic)
    }

    fn put_table(tx: &mut Tx<'_>, topic: TopicId, table: &Table) -> Result<(), ViewError> {
        tx.put(&topic, table);
        Ok(())
    }

    fn put_state(tx: &mut Tx<'_>, topic: TopicId, state: &ViewState) -> Result<(), ViewError> {
        tx.put(&topic, state);
        Ok(())
    }

    fn remove(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
        if tx.get::<Table>(&topic)?.is_some() {
            tx.delete::<Table>(&topic);
        }
        if tx.get::<ViewState>(&topic)?.is_some() {
            tx.delete::<ViewState>(&topic);
        }
        // A request that nobody has taken up; the view of any other removes it.
        if tx.get::<Rebuild>(&topic)?.is_some_and(|rebuild| rebuild.state.is_none()) {
            tx.delete::<Rebuild>(&topic);
            for partition in progress_of::<RebuildProgress>(tx, topic)?.into_keys() {
                tx.delete::<RebuildProgress>(&PartitionId::new(topic, partition));
            }
        }
        Ok(())
    }

    fn folder(_map: &impl Lookup, topic: &Topic) -> Result<String, ViewError> {
        Ok(topic.name.clone())
    }

    fn is_wanted(_map: &Snapshot, _topic: TopicId) -> Result<bool, DecodeError> {
        Ok(true)
    }

    fn freshness(config: &TopicConfig) -> Duration {
        Duration::from_millis(config.table_freshness_ms)
    }

    fn bad_record(config: &TopicConfig) -> BadRecordRule {
        match config.table_bad_record {
            BadRecord::DeadLetter => BadRecordRule::DeadLetter,
            BadRecord::Skip => BadRecordRule::Skip,
        }
    }

    fn last(
        _map: &Snapshot,
        _topic: TopicId,
        _progress: &BTreeMap<u32, Offset>,
    ) -> Result<Option<Command>, DecodeError> {
        Ok(None)
    }

    fn rebuild(_map: &impl Lookup, _topic: TopicId) -> Result<Option<Rebuild>, DecodeError> {
        Ok(None)
    }

    fn lose(_partition: PartitionId) -> Result<(), ViewError> {
        Ok(())
    }
}

/// A table that is made anew from the log. It takes the place of the running one when it has caught up with it.
pub(crate) struct Beside;

impl Place for Beside {
    const VIEW: &'static str = command::REBUILD_VIEW;
    const METRICS: MetricNames = MetricNames {
        lag_records: "floe_lake_rebuild_lag_records",
        step_seconds: "floe_lake_rebuild_step_seconds",
        errors: "floe_lake_rebuild_errors_total",
        job_seconds: "floe_lake_rebuild_job_seconds",
        job_errors: "floe_lake_rebuild_job_errors_total",
        stands_still: "floe_lake_rebuild_stands_still_since_seconds",
        commits: "floe_lake_rebuild_commits_total",
        bad_records: "floe_lake_rebuild_bad_records_total",
        lost_records: "floe_lake_rebuild_lost_records_total",
    };

    type Progress = RebuildProgress;

    fn table(map: &impl Lookup, topic: TopicId) -> Result<Option<Table>, DecodeError> {
        Ok(map.get::<Rebuild>(&topic)?.and_then(|rebuild| rebuild.table))
    }

    fn state(map: &impl Lookup, topic: TopicId) -> Result<Option<ViewState>, DecodeError> {
        Ok(map.get::<Rebuild>(&topic)?.and_then(|rebuild| rebuild.state))
    }

    fn put_table(tx: &mut Tx<'_>, topic: TopicId, table: &Table) -> Result<(), ViewError> {
        let rebuild = requested(tx, topic)?;
        tx.put(&topic, &Rebuild { table: Some(table.clone()), ..rebuild });
        Ok(())
    }

    fn put_state(tx: &mut Tx<'_>, topic: TopicId, state: &ViewState) -> Result<(), ViewError> {
        let rebuild = requested(tx, topic)?;
        tx.put(&topic, &Rebuild { state: Some(state.clone()), ..rebuild });
        Ok(())
    }

    fn remove(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
        if tx.get::<Rebuild>(&topic)?.is_some() {
            tx.delete::<Rebuild>(&topic);
        }
        Ok(())
    }

    fn folder(map: &impl Lookup, topic: &Topic) -> Result<String, ViewError> {
        Ok(map.get::<Rebuild>(&topic.id)?.ok_or_else(not_requested)?.name)
    }

    fn is_wanted(map: &Snapshot, topic: TopicId) -> Result<bool, DecodeError> {
        Ok(map.get::<Rebuild>(&topic)?.is_some())
    }

    /// It waits for nothing: it has to overtake the running table.
    fn freshness(_config: &TopicConfig) -> Duration {
        Duration::ZERO
    }

    /// The letters are in the dead-letter topic already.
    fn bad_record(_config: &TopicConfig) -> BadRecordRule {
        BadRecordRule::Skip
    }

    fn last(
        map: &Snapshot,
        topic: TopicId,
        progress: &BTreeMap<u32, Offset>,
    ) -> Result<Option<Command>, DecodeError> {
        let is_time = command::covers(progress, &progress_of::<Progress>(map, topic)?);
        Ok(is_time.then(|| Box::new(move |tx: &mut Tx<'_>| command::end_rebuild(tx, topic)) as Command))
    }

    fn rebuild(map: &impl Lookup, topic: TopicId) -> Result<Option<Rebuild>, DecodeError> {
        map.get::<Rebuild>(&topic)
    }

    /// The running table may have their rows.
    fn lose(partition: PartitionId) -> Result<(), ViewError> {
        Err(TableError::Overtaken(partition).into())
    }
}

fn requested(tx: &Tx<'_>, topic: TopicId) -> Result<Rebuild, ViewError> {
    tx.get::<Rebuild>(&topic)?.ok_or_else(not_requested)
}

fn not_requested() -> ViewError {
    ViewError::Stale("the rebuilding is over".to_owned())
}
