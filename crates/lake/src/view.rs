//! The lake's view: a topic as an Iceberg table. The runner of `floe_view` drives it.

use std::{sync::Arc, time::Duration};

use floe_log::{
    TopicId,
    topic::Topic,
    topic_config::{BadRecord, TableMode, TopicConfig},
};
use floe_meta::{Envelope, Snapshot, Tx};
use floe_schema::{Kind, TableSchema};
use floe_view::{BadRecordRule, Command, Job, MetricNames, Portion, Settings, View, ViewError, topic_label};
use metrics::counter;

use crate::{
    command::{self, Taken},
    commit::{self, Numbers},
    encode::{EncodedRows, Encoder},
    error::TableError,
    files::Base,
    limits,
    map::{Progress, Table},
    prepare::{self, OwnedTable},
    rewrite::{self, Clean, Rewritten},
    shared::Shared,
};

/// The view of every topic that is a table.
pub(crate) struct TableView {
    pub(crate) shared: Arc<Shared>,
}

impl View for TableView {
    const NAME: &'static str = command::VIEW;
    const OUTPUT: &'static str = "table";
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
    type Found = Option<Base>;
    type Taken = Taken;
    type Output = OwnedTable;
    type Fold = Encoder;
    type Made = Rewritten;

    fn settings(&self, topic: &Topic) -> Option<Settings> {
        let config = TopicConfig::of(topic);
        (config.table != TableMode::Off).then(|| Settings {
            freshness: Duration::from_millis(config.table_freshness_ms),
            gather_bytes: config.table_file_bytes.min(self.shared.config.gather_bytes),
            bad_record: match config.table_bad_record {
                BadRecord::DeadLetter => BadRecordRule::DeadLetter,
                BadRecord::Skip => BadRecordRule::Skip,
            },
        })
    }

    /// The table's documents. While the store fails nothing is taken, because every take-over uses up numbers.
    async fn find(&self, snapshot: &Snapshot, topic: &Topic) -> Result<Option<Base>, ViewError> {
        Ok(match snapshot.get::<Table>(&topic.id)? {
            Some(table) => Some(self.shared.files(&table.name, topic.id).load(table).await?),
            None => None,
        })
    }

    fn take_over(tx: &mut Tx<'_>, topic: &Topic, epoch: u64) -> Result<Taken, ViewError> {
        command::take_over(tx, topic, kind(topic), epoch)
    }

    async fn open(
        &self,
        topic: &Topic,
        epoch: u64,
        found: Option<Base>,
        taken: Taken,
    ) -> Result<OwnedTable, ViewError> {
        let Taken { table, view } = taken;
        let mut numbers = Numbers { next: view.numbers_end - limits::NUMBERS_LEASED, end: view.numbers_end };
        let base = match (table, found) {
            (Some(table), Some(found)) if found.table == table => found,
            (Some(table), _) => self.shared.files(&table.name, topic.id).load(table).await?,
            (None, _) => self.create(topic, &view.schema, &mut numbers, epoch).await?,
        };
        let loose = numbers.next;
        Ok(OwnedTable { base, schema: view.schema, numbers, loose, clean: Clean::default() })
    }

    fn check(&self, topic: &Topic, table: &OwnedTable) -> Result<(), ViewError> {
        let (made, wanted) = (table.schema.kind(), kind(topic));
        if made != wanted {
            let word = |kind| if kind == Kind::Raw { "raw" } else { "json" };
            return Err(TableError::Mode { made: word(made), wanted: word(wanted) }.into());
        }
        Ok(())
    }

    fn fold(&self, topic: &Topic, table: &OwnedTable) -> Encoder {
        let file_bytes = TopicConfig::of(topic).table_file_bytes;
        Encoder::new(table.schema.clone(), usize::try_from(file_bytes).unwrap_or(usize::MAX))
    }

    async fn prepare(
        &self,
        portion: Portion<'_>,
        table: &mut OwnedTable,
        rows: EncodedRows,
    ) -> Result<(OwnedTable, Command), ViewError> {
        prepare::prepare(&self.shared, portion, table, rows).await
    }

    fn job(&self, topic: &Topic, table: &OwnedTable) -> Option<Job<Rewritten>> {
        rewrite::job(&self.shared, topic, table)
    }

    async fn adopt(
        &self,
        portion: Portion<'_>,
        table: &mut OwnedTable,
        rewritten: Rewritten,
    ) -> Result<(OwnedTable, Command), ViewError> {
        prepare::adopt(&self.shared, portion, table, rewritten).await
    }

    fn committed(&self, topic: &Topic, before: &OwnedTable, now: &OwnedTable) {
        let rows = now.base.table.rows - before.base.table.rows;
        counter!("floe_lake_rows_total", "topic" => topic_label(&topic.name)).increment(rows);
    }

    fn forget(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
        command::drop_table(tx, topic)
    }
}

impl TableView {
    /// Makes the table, without a snapshot, so that catalogs list it before its first row.
    async fn create(
        &self,
        topic: &Topic,
        schema: &TableSchema,
        numbers: &mut Numbers,
        epoch: u64,
    ) -> Result<Base, ViewError> {
        let env = &self.shared.env;
        let files = self.shared.files(&topic.name, topic.id);
        let next = commit::create(&files, numbers, env.random_u128(), &topic.name, schema, env.now())?;
        files.put_all(next.files).await?;
        let (id, table) = (topic.id, next.base.table.clone());
        let envelope = Envelope::broker(&format!("lake table of {}", topic.name));
        let command = move |tx: &mut Tx<'_>| command::create(tx, id, epoch, &table);
        // If the answer is lost, the take-over starts again: it finds the table or makes another.
        self.shared.log.meta().commit(envelope, command).await.map_err(ViewError::from_commit)?;
        Ok(next.base)
    }
}

/// The kind of table that the topic's settings ask for.
fn kind(topic: &Topic) -> Kind {
    match TopicConfig::of(topic).table {
        TableMode::Raw => Kind::Raw,
        TableMode::Json | TableMode::Off => Kind::Json,
    }
}
