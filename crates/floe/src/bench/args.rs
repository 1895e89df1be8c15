//! What can be typed after `floe bench`.

use clap::{Args, Subcommand, ValueEnum};
use floe_kafka::limits as kafka;

use crate::bench::size::{ByteCount, Rate};

/// `floe bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The broker's Kafka address.
    #[arg(
        long,
        env = "FLOE_BOOTSTRAP",
        value_name = "HOST:PORT",
        default_value = kafka::LISTEN_ADDRESS,
        global = true
    )]
    pub(crate) bootstrap: String,
    /// Print one JSON object with every setting and every figure.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds within which a request must be answered; later its outcome is unknown, and the run ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, global = true)]
    pub(crate) timeout: u64,
    #[command(subcommand)]
    pub(crate) mode: ModeArgs,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum ModeArgs {
    /// Write batches, as fast as it goes or at a rate.
    #[command(after_help = "\
Examples:
  floe bench produce                                  ten seconds, as fast as it goes
  floe bench produce --partitions 16 --connections 4 --bytes 1GiB --compression lz4
  floe bench produce --rate 10MiB --seconds 60 --warm-up 10 --batch-bytes 16KiB
  floe bench produce --rate 5000 --record-bytes 200 --idempotent --json

With --rate, requests are due at fixed times, and latency counts from the time when a request was due: a broker that
stalls is not spared the requests that had to wait.")]
    Produce(ProduceArgs),
    /// Read a topic, from its start or from its end.
    #[command(after_help = "\
Examples:
  floe bench consume --topic floe-bench               all that is there now
  floe bench consume --connections 4 --bytes 1GiB
  floe bench consume --from latest --seconds 30       what others write meanwhile")]
    Consume(ConsumeArgs),
    /// Write single records at a low rate, and say how long each takes to its acknowledgement and to a consumer.
    #[command(after_help = "\
Examples:
  floe bench latency                                  100 records a second for ten seconds
  floe bench latency --rate 1000 --seconds 60 --warm-up 10 --record-bytes 1KiB")]
    Latency(LatencyArgs),
    /// Write, and read at the same time.
    #[command(after_help = "\
Examples:
  floe bench mixed --seconds 30                       readers begin at the start of the topic and catch up
  floe bench mixed --rate 20MiB --readers 4 --partitions 8 --from latest")]
    Mixed(MixedArgs),
}

/// `floe bench produce`.
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    pub(crate) topic: TopicFlags,
    #[command(flatten)]
    pub(crate) write: WriteFlags,
    #[command(flatten)]
    pub(crate) window: WindowFlags,
}

/// `floe bench consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The topic.
    #[arg(long, value_name = "NAME", default_value = "floe-bench")]
    pub(crate) topic: String,
    /// Connections that read, at most one for each partition.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) connections: u64,
    #[command(flatten)]
    pub(crate) read: ReadFlags,
    #[command(flatten)]
    pub(crate) window: WindowFlags,
}

/// `floe bench latency`.
#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    pub(crate) topic: TopicFlags,
    /// Records a second, or bytes of values a second with a unit (10KiB).
    #[arg(long, value_name = "RATE", default_value = "100")]
    pub(crate) rate: Rate,
    /// Connections that write; as many others read.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) connections: u64,
    /// Requests of one connection without an answer; more wait, and the wait counts.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) in_flight: u64,
    /// Bytes of the value of a record, 24 or more.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    pub(crate) record_bytes: ByteCount,
    /// The acknowledgement that is asked for.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub(crate) acks: Acks,
    /// The longest time in milliseconds for which the broker may hold a fetch.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub(crate) wait_ms: u64,
    #[command(flatten)]
    pub(crate) window: WindowFlags,
}

/// `floe bench mixed`.
#[derive(Debug, Args)]
pub(crate) struct MixedArgs {
    #[command(flatten)]
    pub(crate) topic: TopicFlags,
    #[command(flatten)]
    pub(crate) write: WriteFlags,
    /// Connections that read, at most one for each partition.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) readers: u64,
    #[command(flatten)]
    pub(crate) read: ReadFlags,
    #[command(flatten)]
    pub(crate) window: WindowFlags,
}

/// The topic that is written to.
#[derive(Debug, Args)]
pub(crate) struct TopicFlags {
    /// The topic; it is created if it is missing.
    #[arg(long, value_name = "NAME", default_value = "floe-bench")]
    pub(crate) topic: String,
    /// Its partitions [default: those that it has, 1 for a new topic]
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<u64>,
    /// Replicas of a new topic [default: the broker's]
    #[arg(long, value_name = "N")]
    pub(crate) replication_factor: Option<u64>,
    /// A setting of a new topic, for example floe.table=json; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE")]
    pub(crate) configs: Vec<String>,
}

/// What is written, and over which connections.
#[derive(Debug, Args)]
pub(crate) struct WriteFlags {
    /// Records a second, or bytes of values a second with a unit (10MiB) [default: as fast as it goes]
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<Rate>,
    /// Connections that write.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) connections: u64,
    /// Requests of one connection without an answer.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) in_flight: u64,
    /// Bytes of a batch before compression. A request has one batch.
    #[arg(long, value_name = "BYTES", default_value = "64KiB")]
    pub(crate) batch_bytes: ByteCount,
    /// Bytes of the value of a record.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    pub(crate) record_bytes: ByteCount,
    /// What the records are made of.
    #[arg(long, value_enum, default_value_t = Content::Random)]
    pub(crate) content: Content,
    /// The codec of the batches.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub(crate) compression: Codec,
    /// The acknowledgement that is asked for.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub(crate) acks: Acks,
    /// Write as idempotent producers, one for each connection.
    #[arg(long)]
    pub(crate) idempotent: bool,
}

/// How readers read.
#[derive(Debug, Args)]
pub(crate) struct ReadFlags {
    /// Where to begin.
    #[arg(long, value_enum, default_value_t = Begin::Start)]
    pub(crate) from: Begin,
    /// Bytes that one fetch asks for.
    #[arg(long, value_name = "BYTES", default_value = "16MiB")]
    pub(crate) fetch_bytes: ByteCount,
    /// Bytes that one fetch asks for of each partition.
    #[arg(long, value_name = "BYTES", default_value = "1MiB")]
    pub(crate) partition_fetch_bytes: ByteCount,
    /// The longest time in milliseconds for which the broker may hold a fetch.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub(crate) wait_ms: u64,
}

/// When figures begin and end.
#[derive(Debug, Args)]
pub(crate) struct WindowFlags {
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    pub(crate) records: Option<u64>,
    /// Stop after so many bytes of values (consume: of batches).
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes: Option<ByteCount>,
    /// Stop after so many seconds [default: 10, unless records or bytes or the end of the topic are the limit]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,
    /// Seconds before that whose requests are left out of the figures.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) warm_up: u64,
}

/// What records are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Content {
    /// Bytes that do not compress.
    Random,
    /// Small JSON objects of words, which compress well.
    Json,
}

/// How a batch is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Which acknowledgement is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acks {
    /// Of all in-sync replicas.
    All,
    /// Of the leader.
    #[value(name = "1")]
    Leader,
}

/// Where readers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Begin {
    /// At the first record.
    Start,
    /// Behind the last record.
    Latest,
}
