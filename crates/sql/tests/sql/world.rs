//! A log, a lake whose views run or rest, and SQL over both.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use floe_env::Env;
use floe_lake::Lake;
use floe_log::PartitionId;
use floe_log::Writer;
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::topic::{NewTopic, Topic};
use floe_log::{Append, Log};
use floe_meta::{MemoryJournal, Meta, Options};
use floe_query::{Format, QueryError};
use floe_sql::{Config, Program, Sql, Workers, text_table};
use floe_store::MemoryStore;
use floe_store::Store;
use futures::TryStreamExt;

pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) sql: Sql,
    /// If they are there, they run the statements.
    pub(crate) workers: Option<Workers>,
    /// Answers for tables, but runs no views.
    pub(crate) lake: Lake,
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(Config { threads: 2, ..Config::default() }).await
    }

    pub(crate) async fn with(config: Config) -> World {
        World::open(Env::real(), Arc::new(MemoryStore::new()), config).await
    }

    /// A world on one thread. The seed determines its clock and randomness. Call it in a runtime with a paused clock.
    pub(crate) async fn simulated(seed: u64) -> World {
        World::simulated_with(seed, Config::default()).await
    }

    pub(crate) async fn simulated_with(seed: u64, config: Config) -> World {
        let config = Config { threads: 2, ..config };
        World::open(Env::simulated(seed), Arc::new(MemoryStore::new()), config).await
    }

    pub(crate) async fn open(env: Env, store: Arc<dyn Store>, config: Config) -> World {
        let journal = Arc::new(MemoryJournal::new());
        let meta = Meta::open(env.clone(), journal, Options::default()).await.unwrap();
        let log = Log::open(env.clone(), meta, store, floe_log::Config::default()).await.unwrap();
        let resting = floe_lake::Config { views: false, ..floe_lake::Config::default() };
        let lake = Lake::start(env.clone(), log.clone(), resting);
        let sql = Sql::new(env.clone(), log.clone(), lake.clone(), config).unwrap();
        World { env, log, sql, workers: None, lake }
    }

    /// A topic that is a table of JSON records.
    pub(crate) async fn table(&self, name: &str, partitions: u32) -> Topic {
        self.topic(name, partitions, &[("floe.table", "json"), ("floe.table.freshness.ms", "100")]).await
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> Topic {
        let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: name.to_owned(), partitions, configs };
        self.log.create_topic(&writer(), new, false).await.unwrap()
    }

    /// Appends records and waits for the acknowledgement.
    pub(crate) async fn append(&self, topic: &Topic, index: u32, values: &[&str]) {
        append(&self.log, topic, index, values).await;
    }

    /// The same world once more.
    pub(crate) fn share(&self) -> World {
        let (env, log, lake) = (self.env.clone(), self.log.clone(), self.lake.clone());
        World { env, log, sql: self.sql.clone(), workers: self.workers.clone(), lake }
    }

    /// The same world, whose statements run in workers.
    pub(crate) fn with_workers(self, config: Config) -> World {
        let program = Program {
            path: "/proc/self/exe".into(),
            arguments: ["workers::a_worker", "--exact", "--nocapture"].map(str::to_owned).to_vec(),
            environment: vec![(crate::workers::IS_WORKER.to_owned(), "1".to_owned())],
            faults: false,
        };
        let (env, log, lake) = (self.env.clone(), self.log.clone(), self.lake.clone());
        World { workers: Some(Workers::start(env, log, lake, config, program).unwrap()), ..self }
    }

    pub(crate) async fn rows(&self, text: &str) -> Result<Vec<RecordBatch>, QueryError> {
        let Some(workers) = &self.workers else {
            return self.sql.query(text).await?.batches.try_collect().await;
        };
        let pieces: Vec<bytes::Bytes> =
            workers.query_as(text, Format::ArrowStream).await?.try_collect().await?;
        let bytes = pieces.concat();
        let reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
        Ok(reader.map(Result::unwrap).collect())
    }

    /// The number in the first row and column of the answer.
    pub(crate) async fn number(&self, text: &str) -> i64 {
        let rows = self.rows(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        rows[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// The rows of a statement as the command line prints them, without the last line.
    pub(crate) async fn text(&self, text: &str) -> String {
        let result = self.sql.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let schema = result.schema.clone();
        let batches: Vec<RecordBatch> =
            result.batches.try_collect().await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let table = text_table(&schema, &batches, Duration::ZERO).unwrap();
        let (rows, _) = table.trim_end().rsplit_once('\n').unwrap_or(("", ""));
        rows.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    /// The error of a statement.
    pub(crate) async fn error(&self, text: &str) -> QueryError {
        match self.rows(text).await {
            Ok(_) => panic!("no error: {text:.200}"),
            Err(error) => error,
        }
    }

    /// Checks that the statement gives these rows.
    pub(crate) async fn check(&self, text: &str, expected: &str) {
        let got = self.text(text).await;
        let expected: Vec<&str> = expected
            .lines()
            .map(|line| line.strip_prefix("        ").unwrap_or(line))
            .map(str::trim_end)
            .collect();
        assert_eq!(got.trim_matches('\n'), expected.join("\n").trim_matches('\n'), "\n{text}\n{got}");
    }

    /// Runs the views until the tables hold every record, then closes them.
    pub(crate) async fn settle(&self) {
        let views = self.views();
        tokio::time::timeout(Duration::from_secs(30), async {
            while !self.settled() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("the lake does not catch up: {:?}", views.status()));
        views.close().await;
    }

    pub(crate) fn views(&self) -> Lake {
        self.views_with(floe_lake::Config::default())
    }

    pub(crate) fn views_with(&self, config: floe_lake::Config) -> Lake {
        Lake::start(self.env.clone(), self.log.clone(), config)
    }

    fn settled(&self) -> bool {
        let snapshot = self.log.meta().snapshot();
        self.lake.tables(&snapshot).unwrap().iter().all(|table| {
            table.topic.partition_ids().all(|partition| {
                let end = Log::bounds(&snapshot, partition).unwrap().high_watermark;
                table.progress.get(&partition.index).is_some_and(|next| *next == end) || end.0 == 0
            })
        })
    }
}

pub(crate) fn writer() -> Writer {
    Writer::new("User:test", "test")
}

pub(crate) async fn append(log: &Log, topic: &Topic, index: u32, values: &[&str]) {
    let mut batch = Builder::new(Compression::None);
    for (at, value) in values.iter().enumerate() {
        let time = 1_700_000_000_000 + i64::try_from(at).unwrap();
        batch.push(time, Some(format!("k{at}").as_bytes()), Some(value.as_bytes()), &[]);
    }
    append_batch(log, topic, index, batch.build()).await;
}

pub(crate) async fn append_batch(log: &Log, topic: &Topic, index: u32, batch: bytes::Bytes) {
    let partition = PartitionId { topic: topic.id, index };
    let request = Append { writer: writer(), batches: vec![(partition, batch)] };
    for result in log.append(request).await {
        result.unwrap();
    }
}
