//! The lake's view: a topic as an Iceberg table. The runner of `floe_view` drives it. Two kinds of it differ in where
//! their table is (`place.rs`).

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use floe_log::{
    Offset, PartitionId, TopicId,
    topic::Topic,
    topic_config::{TableMode, TopicConfig},
};
use floe_meta::{DecodeError, Envelope, Snapshot, Tx};
use floe_schema::Kind;
use floe_view::{Command, Job, MetricNames, Portion, Settings, View, ViewError, topic_label};
use metrics::counter;

use crate::{
    command::{self, Taken},
    commit::{self, Numbers},
    encode::{EncodedRows, Encoder},
    error::TableError,
    files::Base,
    limits,
    map::{Rebuild, Table, ViewState},
    merge::{self, Merging},
    owned::{Clean, OwnedTable},
    place::Place,
    prepare, rebuild,
    rewrite::{self, Rewritten},
    shared::Shared,
    small::SmallFiles,
};

/// The view of every topic that is a table, or of those whose table is rebuilt.
pub(crate) struct TableView<P> {
    pub(crate) shared: Arc<Shared>,
    place: PhantomData<P>,
}

/// What the jobs of a table make.
pub(crate) enum Made {
    Widened(Rewritten),
    Merging(Merging),
}

impl<P: Place> View for TableView<P> {
    const NAME: &'static str = P::VIEW;
    const OUTPUT: &'static str = "table";
    const METRICS: MetricNames = P::METRICS;

    type Progress = P::Progress;
    type Found = Option<Base>;
    type Taken = Taken;
    type Output = OwnedTable;
    type Fold = Encoder;
    type Made = Made;

    fn settings(&self, map: &Snapshot, topic: &Topic) -> Result<Option<Settings>, DecodeError> {
        let config = TopicConfig::of(topic);
        if config.table == TableMode::Off || !P::is_wanted(map, topic.id)? {
            return Ok(None);
        }
        Ok(Some(Settings {
            freshness: P::freshness(&config),
            gather_bytes: config.table_file_bytes.min(self.shared.config.gather_bytes),
            bad_record: P::bad_record(&config),
        }))
    }

    /// The table's documents. While the store fails nothing is taken, because every take-over uses up numbers.
    async fn find(&self, snapshot: &Snapshot, topic: &Topic) -> Result<Option<Base>, ViewError> {
        Ok(match P::table(snapshot, topic.id)? {
            Some(table) => Some(self.shared.files(&table.name, topic.id).load(table).await?),
            None => None,
        })
    }

    fn take_over(tx: &mut Tx<'_>, topic: &Topic, epoch: u64) -> Result<Taken, ViewError> {
        command::take_over::<P>(tx, topic, kind(topic), epoch)
    }

    async fn open(
        &self,
        topic: &Topic,
        epoch: u64,
        found: Option<Base>,
        taken: Taken,
    ) -> Result<OwnedTable, ViewError> {
        let Taken { table, view, rebuild } = taken;
        let mut numbers = Numbers { next: view.numbers_end - limits::NUMBERS_LEASED, end: view.numbers_end };
        let base = match (table, found) {
            (Some(table), Some(found)) if found.table == table => found,
            (Some(table), _) => self.shared.files(&table.name, topic.id).load(table).await?,
            (None, _) => self.create(topic, &view, rebuild, &mut numbers, epoch).await?,
        };
        let loose = numbers.next;
        let (clean, small) = (Clean::default(), SmallFiles::default());
        Ok(OwnedTable { base, schema: view.schema, numbers, loose, clean, small })
    }

    fn check(&self, topic: &Topic, table: &OwnedTable) -> Result<(), ViewError> {
        let (made, wanted) = (table.schema.kind(), kind(topic));
        if made != wanted {
            let word = |kind| if kind == Kind::Raw { "raw" } else { "json" };
            return Err(TableError::Mode { made: word(made), wanted: word(wanted) }.into());
        }
        Ok(())
    }

    fn lose(&self, partition: PartitionId) -> Result<(), ViewError> {
        P::lose(partition)
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
        prepare::prepare::<P>(&self.shared, portion, table, rows).await
    }

    /// Widening goes first: other readers see two columns until it is done.
    fn job(&self, topic: &Topic, table: &OwnedTable) -> Option<Job<Made>> {
        let widening = rewrite::job(&self.shared, topic, table).map(|job| job.map(Made::Widened));
        widening.or_else(|| Some(merge::job(&self.shared, topic, table)?.map(Made::Merging)))
    }

    async fn adopt(
        &self,
        portion: Portion<'_>,
        table: &mut OwnedTable,
        made: Made,
    ) -> Result<Option<(OwnedTable, Command)>, ViewError> {
        match made {
            Made::Widened(rewritten) => {
                prepare::adopt_rewritten::<P>(&self.shared, portion, table, rewritten).await.map(Some)
            }
            Made::Merging(Merging::Merged(merged)) => {
                prepare::adopt_merged::<P>(&self.shared, portion, table, *merged).await
            }
            Made::Merging(Merging::Found(found)) => {
                table.small = table.small.below(merge::small_bytes(&self.shared.config, portion.topic));
                table.small.learn(found);
                table.small.keep(&table.base.manifests);
                Ok(None)
            }
        }
    }

    fn last(
        &self,
        map: &Snapshot,
        topic: &Topic,
        progress: &BTreeMap<u32, Offset>,
    ) -> Result<Option<Command>, DecodeError> {
        P::last(map, topic.id, progress)
    }

    fn committed(&self, topic: &Topic, before: &OwnedTable, now: &OwnedTable) {
        let rows = now.base.table.rows - before.base.table.rows;
        counter!("floe_lake_rows_total", "topic" => topic_label(&topic.name)).increment(rows);
    }

    fn forget(tx: &mut Tx<'_>, topic: TopicId) -> Result<(), ViewError> {
        command::drop_table::<P>(tx, topic)
    }
}

impl<P: Place> TableView<P> {
    pub(crate) fn new(shared: &Arc<Shared>) -> TableView<P> {
        TableView { shared: Arc::clone(shared), place: PhantomData }
    }

    /// Makes the table: without a snapshot, so that catalogs list it before its first row. Or, if it is rebuilt, with
    /// the rows that the log does not have any more.
    async fn create(
        &self,
        topic: &Topic,
        view: &ViewState,
        rebuild: Option<(Rebuild, Option<Table>)>,
        numbers: &mut Numbers,
        epoch: u64,
    ) -> Result<Base, ViewError> {
        let env = &self.shared.env;
        let files = self.shared.files(&view.name, topic.id);
        let names = (topic.name.as_str(), view.name.as_str());
        let next = commit::create(&files, numbers, env.random_u128(), names, &view.schema, env.now())?;
        files.put_all(next.files).await?;
        let mut base = next.base;
        if let Some((rebuild, Some(running))) = rebuild {
            let below = rebuild::BelowStart { topic, epoch, rebuild: &rebuild, running: &running };
            base = below.copy_into::<P>(&self.shared, &files, numbers, base, &view.schema).await?;
        }
        let (id, table) = (topic.id, base.table.clone());
        let envelope = Envelope::broker(&format!("lake table of {}", topic.name));
        let command = move |tx: &mut Tx<'_>| command::create::<P>(tx, id, epoch, &table);
        // If the answer is lost, the take-over starts again: it finds the table or makes another.
        self.shared.log.meta().commit(envelope, command).await.map_err(ViewError::from_commit)?;
        Ok(base)
    }
}

/// The kind of table that the topic's settings ask for.
fn kind(topic: &Topic) -> Kind {
    match TopicConfig::of(topic).table {
        TableMode::Raw => Kind::Raw,
        TableMode::Json | TableMode::Off => Kind::Json,
    }
}
