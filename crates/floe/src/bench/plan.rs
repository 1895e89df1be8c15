//! Settings that were checked. Nothing is allocated by a number that has not been here.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Result, ensure};
use floe_log::codec::Compression;
use floe_log::header::HEADER_BYTES;
use serde_json::{Map, Value, json};

use crate::bench::args::{
    Acks, Begin, Codec, ConsumeArgs, Content, LatencyArgs, MixedArgs, ProduceArgs, ReadFlags, TopicFlags,
    WindowFlags, WriteFlags,
};
use crate::bench::limits::{
    ANSWER_SLACK_BYTES, BATCH_BYTES_MAX, BUFFER_BYTES_MAX, CONNECTIONS_MAX, FETCH_BYTES_MAX,
    IDEMPOTENT_IN_FLIGHT_MAX, IN_FLIGHT_MAX, PARTITIONS_MAX, RATE_MAX, RECORD_BYTES_MAX, RECORDS_MAX,
    RECORDS_PER_BATCH_MAX, REQUESTS_PER_SECOND_MAX, SECONDS_MAX, TIMEOUT_SECONDS_MAX, WAIT_MS_MAX,
};
use crate::bench::size::{ByteCount, Rate};

/// Bytes of a JSON record around its text, and a text of some bytes.
pub(super) const JSON_RECORD_BYTES_MIN: u64 = 32;
/// Bytes of the mark in a record of `floe bench latency`: the run, the number of the record, when it was due.
pub(super) const MARK_BYTES: usize = 24;
/// The broker's default.
const REPLICATION_OF_BROKER: i16 = -1;
/// Seconds of a run without another limit.
const SECONDS_DEFAULT: u64 = 10;
/// Bytes of a record of `floe bench latency` around its value, and of its batch: rounded up.
const SINGLE_OVERHEAD: u64 = 128;

/// The topic, and how it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicPlan {
    pub(super) name: String,
    /// How many partitions it must have; `None` for any number.
    pub(super) partitions: Option<i32>,
    pub(super) replication_factor: i16,
    pub(super) configs: Vec<(String, String)>,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WritePlan {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) batch_bytes: u64,
    pub(super) record_bytes: usize,
    pub(super) records_per_batch: usize,
    pub(super) content: Content,
    pub(super) compression: Compression,
    pub(super) acks: i16,
    pub(super) idempotent: bool,
    pub(super) pace: Option<Pace>,
}

/// Requests due at fixed times: `units` of a rate each, `per_second` of them a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) rate: Rate,
    pub(super) units: u64,
    pub(super) per_second: u64,
}

/// How readers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadPlan {
    pub(super) connections: usize,
    pub(super) from: Begin,
    pub(super) fetch_bytes: i32,
    pub(super) partition_bytes: i32,
    pub(super) wait_ms: i32,
}

/// When figures begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) warm_up: Duration,
    /// After the warm-up.
    pub(super) seconds: Option<Duration>,
    pub(super) records: Option<u64>,
    pub(super) bytes: Option<u64>,
}

/// `floe bench produce`, and `mixed` with readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProducePlan {
    pub(super) topic: TopicPlan,
    pub(super) write: WritePlan,
    pub(super) read: Option<ReadPlan>,
    pub(super) window: Window,
}

/// `floe bench consume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConsumePlan {
    pub(super) topic: TopicPlan,
    pub(super) read: ReadPlan,
    pub(super) window: Window,
}

/// `floe bench latency`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LatencyPlan {
    pub(super) topic: TopicPlan,
    pub(super) write: WritePlan,
    pub(super) read: ReadPlan,
    pub(super) window: Window,
}

/// The number if it lies in the range.
fn checked<T: PartialOrd + fmt::Display + Copy>(flag: &str, value: T, range: RangeInclusive<T>) -> Result<T> {
    let (least, most) = (range.start(), range.end());
    ensure!(range.contains(&value), "{flag} is {value}: it must be {least} to {most}");
    Ok(value)
}

/// A count that fits into memory, if it lies in the range.
fn count(flag: &str, value: u64, range: RangeInclusive<u64>) -> Result<usize> {
    Ok(usize::try_from(checked(flag, value, range)?)?)
}

/// Bytes that connections may take together.
fn check_buffers(what: &str, connections: usize, bytes_each: u64) -> Result<()> {
    let bytes = bytes_each.saturating_mul(connections as u64);
    let most = ByteCount(BUFFER_BYTES_MAX);
    ensure!(bytes <= BUFFER_BYTES_MAX, "{what} may take {}, at most {most}: take less", ByteCount(bytes));
    Ok(())
}

/// Seconds within which a request must be answered.
pub(super) fn timeout(seconds: u64) -> Result<Duration> {
    Ok(Duration::from_secs(checked("--timeout", seconds, 1..=TIMEOUT_SECONDS_MAX)?))
}

/// Bytes of a number as a varint, after zigzag.
fn varint_bytes(value: u64) -> u64 {
    let zigzag = value.saturating_mul(2).max(1);
    u64::from(zigzag.ilog2()) / 7 + 1
}

/// Bytes of a record without key and headers in a batch, rounded up: its place is one of the last.
fn encoded_bytes(record_bytes: u64) -> u64 {
    let (attributes, time, headers, key) = (1, 1, 1, 1);
    let place = varint_bytes(RECORDS_PER_BATCH_MAX);
    let body = attributes + time + place + key + varint_bytes(record_bytes) + record_bytes + headers;
    varint_bytes(body) + body
}

/// Records of a batch of at most so many bytes; one if it is larger.
fn records_per_batch(batch_bytes: u64, record_bytes: u64) -> u64 {
    let room = batch_bytes.saturating_sub(HEADER_BYTES as u64);
    (room / encoded_bytes(record_bytes)).clamp(1, RECORDS_PER_BATCH_MAX)
}

impl TopicPlan {
    fn new(flags: TopicFlags) -> Result<TopicPlan> {
        let mut plan = TopicPlan::existing(flags.topic)?;
        if let Some(partitions) = flags.partitions {
            let partitions = checked("--partitions", partitions, 1..=PARTITIONS_MAX)?;
            plan.partitions = Some(i32::try_from(partitions)?);
        }
        if let Some(factor) = flags.replication_factor {
            plan.replication_factor = i16::try_from(checked("--replication-factor", factor, 1..=100)?)?;
        }
        for config in flags.configs {
            let pair = config.split_once('=');
            let Some((key, value)) = pair else { anyhow::bail!("`{config}` is not KEY=VALUE") };
            plan.configs.push((key.to_owned(), value.to_owned()));
        }
        Ok(plan)
    }

    fn existing(name: String) -> Result<TopicPlan> {
        let named = (1..=249).contains(&name.len())
            && name.chars().all(|sign| sign.is_ascii_alphanumeric() || "._-".contains(sign));
        ensure!(named, "--topic is `{name}`: write 1 to 249 letters, digits, dots, dashes and underscores");
        Ok(TopicPlan {
            name,
            partitions: None,
            replication_factor: REPLICATION_OF_BROKER,
            configs: Vec::new(),
        })
    }

    fn settings(&self, map: &mut Map<String, Value>) {
        let configs: Map<String, Value> =
            self.configs.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
        map.insert("topic".into(), json!(self.name));
        map.insert("topic_configs".into(), Value::from(configs));
        let chosen = Some(self.replication_factor).filter(|factor| *factor != REPLICATION_OF_BROKER);
        map.insert("replication_factor".into(), json!(chosen));
    }
}

impl Pace {
    /// The pace of requests that carry so many records each.
    fn new(rate: Rate, records_per_request: u64, record_bytes: u64) -> Result<Pace> {
        let (units, per_second) = match rate {
            Rate::Records(records) => (records_per_request, records),
            Rate::Bytes(bytes) => (records_per_request * record_bytes, bytes),
        };
        let per_second = checked("--rate", per_second, 1..=RATE_MAX)?;
        ensure!(
            per_second / units <= REQUESTS_PER_SECOND_MAX,
            "--rate gives {} requests a second, at most {REQUESTS_PER_SECOND_MAX}: raise --batch-bytes",
            per_second / units
        );
        Ok(Pace { rate, units, per_second })
    }
}

impl WritePlan {
    fn new(flags: &WriteFlags) -> Result<WritePlan> {
        let in_flight_max = if flags.idempotent { IDEMPOTENT_IN_FLIGHT_MAX } else { IN_FLIGHT_MAX };
        let ByteCount(record_bytes) = flags.record_bytes;
        let ByteCount(batch_bytes) = flags.batch_bytes;
        let least = if flags.content == Content::Json { JSON_RECORD_BYTES_MIN } else { 1 };
        let record_bytes = checked("--record-bytes", record_bytes, least..=RECORD_BYTES_MAX)?;
        let batch_bytes = checked("--batch-bytes", batch_bytes, 1..=BATCH_BYTES_MAX)?;
        let records = records_per_batch(batch_bytes, record_bytes);
        let plan = WritePlan {
            connections: count("--connections", flags.connections, 1..=CONNECTIONS_MAX)?,
            in_flight: count("--in-flight", flags.in_flight, 1..=in_flight_max)?,
            batch_bytes,
            record_bytes: usize::try_from(record_bytes)?,
            records_per_batch: usize::try_from(records)?,
            content: flags.content,
            compression: flags.compression.into(),
            acks: flags.acks.number(),
            idempotent: flags.idempotent,
            pace: flags.rate.map(|rate| Pace::new(rate, records, record_bytes)).transpose()?,
        };
        plan.check_buffers(batch_bytes.max(record_bytes))?;
        Ok(plan)
    }

    /// One record for each request.
    fn single(args: &LatencyArgs) -> Result<WritePlan> {
        let ByteCount(record_bytes) = args.record_bytes;
        let record_bytes = checked("--record-bytes", record_bytes, MARK_BYTES as u64..=RECORD_BYTES_MAX)?;
        let plan = WritePlan {
            connections: count("--connections", args.connections, 1..=CONNECTIONS_MAX)?,
            in_flight: count("--in-flight", args.in_flight, 1..=IN_FLIGHT_MAX)?,
            batch_bytes: record_bytes + SINGLE_OVERHEAD,
            record_bytes: usize::try_from(record_bytes)?,
            records_per_batch: 1,
            content: Content::Random,
            compression: Compression::None,
            acks: args.acks.number(),
            idempotent: false,
            pace: Some(Pace::new(args.rate, 1, record_bytes)?),
        };
        plan.check_buffers(record_bytes)?;
        Ok(plan)
    }

    fn check_buffers(&self, bytes_each: u64) -> Result<()> {
        let what = "--connections times --in-flight batches";
        check_buffers(what, self.connections, bytes_each.saturating_mul(self.in_flight as u64))
    }

    fn settings(&self, map: &mut Map<String, Value>) {
        let (records, bytes) = match self.pace.map(|pace| pace.rate) {
            Some(Rate::Records(records)) => (Some(records), None),
            Some(Rate::Bytes(bytes)) => (None, Some(bytes)),
            None => (None, None),
        };
        let content = if self.content == Content::Json { "json" } else { "random" };
        for (name, value) in [
            ("connections", json!(self.connections)),
            ("in_flight_per_connection", json!(self.in_flight)),
            ("batch_bytes", json!(self.batch_bytes)),
            ("record_bytes", json!(self.record_bytes)),
            ("records_per_batch", json!(self.records_per_batch)),
            ("content", json!(content)),
            ("compression", json!(self.compression.name())),
            ("acks", json!(self.acks)),
            ("idempotent", json!(self.idempotent)),
            ("rate_records_per_second", json!(records)),
            ("rate_bytes_per_second", json!(bytes)),
        ] {
            map.insert(name.into(), value);
        }
    }
}

impl ReadPlan {
    fn new(flags: &ReadFlags, flag: &str, connections: u64) -> Result<ReadPlan> {
        let ByteCount(fetch_bytes) = flags.fetch_bytes;
        let ByteCount(partition_bytes) = flags.partition_fetch_bytes;
        let fetch_bytes = checked("--fetch-bytes", fetch_bytes, 1..=FETCH_BYTES_MAX)?;
        let partition_bytes = checked("--partition-fetch-bytes", partition_bytes, 1..=FETCH_BYTES_MAX)?;
        let plan = ReadPlan {
            connections: count(flag, connections, 1..=CONNECTIONS_MAX)?,
            from: flags.from,
            fetch_bytes: i32::try_from(fetch_bytes)?,
            partition_bytes: i32::try_from(partition_bytes)?,
            wait_ms: i32::try_from(checked("--wait-ms", flags.wait_ms, 0..=WAIT_MS_MAX)?)?,
        };
        check_buffers("connections that read times --fetch-bytes", plan.connections, fetch_bytes)?;
        Ok(plan)
    }

    /// The longest answer that is taken.
    pub(super) fn frame_bytes_max(&self) -> usize {
        self.fetch_bytes as usize + ANSWER_SLACK_BYTES
    }

    fn settings(&self, map: &mut Map<String, Value>) {
        let from = if self.from == Begin::Start { "start" } else { "latest" };
        for (name, value) in [
            ("reading_connections", json!(self.connections)),
            ("from", json!(from)),
            ("fetch_bytes", json!(self.fetch_bytes)),
            ("partition_fetch_bytes", json!(self.partition_bytes)),
            ("fetch_wait_ms", json!(self.wait_ms)),
        ] {
            map.insert(name.into(), value);
        }
    }
}

impl Window {
    /// `endless`: the run has no end of its own.
    fn new(flags: &WindowFlags, endless: bool) -> Result<Window> {
        let records = flags.records.map(|n| checked("--records", n, 1..=RECORDS_MAX)).transpose()?;
        let bytes = flags.bytes.map(|ByteCount(n)| checked("--bytes", n, 1..=RECORDS_MAX)).transpose()?;
        let seconds = flags.seconds.map(|n| checked("--seconds", n, 1..=SECONDS_MAX)).transpose()?;
        let warm_up = checked("--warm-up", flags.warm_up, 0..=SECONDS_MAX)?;
        let limited = records.is_some() || bytes.is_some() || !endless;
        let seconds = seconds.or((!limited).then_some(SECONDS_DEFAULT)).map(Duration::from_secs);
        Ok(Window { warm_up: Duration::from_secs(warm_up), seconds, records, bytes })
    }

    /// When the run ends, from its beginning on.
    pub(super) fn end(&self) -> Option<Duration> {
        self.seconds.map(|seconds| self.warm_up + seconds)
    }

    /// The records that may be written, if both limits are in records.
    pub(super) fn records_of(&self, record_bytes: usize) -> Option<u64> {
        let of_bytes = self.bytes.map(|bytes| bytes.div_ceil(record_bytes as u64));
        self.records.into_iter().chain(of_bytes).min()
    }

    fn settings(&self, map: &mut Map<String, Value>) {
        for (name, value) in [
            ("records_max", json!(self.records)),
            ("bytes_max", json!(self.bytes)),
            ("seconds_max", json!(self.seconds.map(|seconds| seconds.as_secs()))),
            ("warm_up_seconds", json!(self.warm_up.as_secs())),
        ] {
            map.insert(name.into(), value);
        }
    }
}

impl ProducePlan {
    /// Checks what was typed.
    pub(super) fn new(args: ProduceArgs) -> Result<ProducePlan> {
        let write = WritePlan::new(&args.write)?;
        let window = Window::new(&args.window, true)?;
        Ok(ProducePlan { topic: TopicPlan::new(args.topic)?, write, read: None, window })
    }

    /// The same with readers.
    pub(super) fn mixed(args: MixedArgs) -> Result<ProducePlan> {
        let write = WritePlan::new(&args.write)?;
        let read = Some(ReadPlan::new(&args.read, "--readers", args.readers)?);
        let window = Window::new(&args.window, true)?;
        Ok(ProducePlan { topic: TopicPlan::new(args.topic)?, write, read, window })
    }

    /// Every setting, for the report.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let mut map = Map::new();
        self.topic.settings(&mut map);
        self.write.settings(&mut map);
        if let Some(read) = &self.read {
            read.settings(&mut map);
        }
        self.window.settings(&mut map);
        map
    }
}

impl ConsumePlan {
    /// Checks what was typed.
    pub(super) fn new(args: ConsumeArgs) -> Result<ConsumePlan> {
        let read = ReadPlan::new(&args.read, "--connections", args.connections)?;
        let window = Window::new(&args.window, read.from == Begin::Latest)?;
        Ok(ConsumePlan { topic: TopicPlan::existing(args.topic)?, read, window })
    }

    /// Every setting, for the report.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("topic".into(), json!(self.topic.name));
        self.read.settings(&mut map);
        self.window.settings(&mut map);
        map
    }
}

impl LatencyPlan {
    /// Checks what was typed.
    pub(super) fn new(args: LatencyArgs) -> Result<LatencyPlan> {
        let write = WritePlan::single(&args)?;
        let batch_bytes = ByteCount(write.batch_bytes.saturating_mul(write.in_flight as u64 + 1));
        let flags = ReadFlags {
            from: Begin::Latest,
            fetch_bytes: ByteCount(batch_bytes.0.clamp(1 << 20, FETCH_BYTES_MAX)),
            partition_fetch_bytes: ByteCount(1 << 20),
            wait_ms: args.wait_ms,
        };
        let read = ReadPlan::new(&flags, "--connections", args.connections)?;
        let window = Window::new(&args.window, true)?;
        Ok(LatencyPlan { topic: TopicPlan::new(args.topic)?, write, read, window })
    }

    /// Every setting, for the report.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let mut map = Map::new();
        self.topic.settings(&mut map);
        self.read.settings(&mut map);
        self.write.settings(&mut map);
        self.window.settings(&mut map);
        map
    }
}

impl Acks {
    /// The number on the wire.
    fn number(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
        }
    }
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Compression {
        match codec {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use floe_log::records::Builder;

    use super::*;
    use crate::bench::args::{BenchArgs, ModeArgs};
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> BenchArgs {
        let words = ["floe", "bench"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).expect("it parses").command {
            Command::Bench(args) => *args,
            other => unreachable!("bench was typed, not {other:?}"),
        }
    }

    fn settings(line: &str) -> Result<Map<String, Value>> {
        match typed(line).mode {
            ModeArgs::Produce(args) => ProducePlan::new(args).map(|plan| plan.settings()),
            ModeArgs::Consume(args) => ConsumePlan::new(args).map(|plan| plan.settings()),
            ModeArgs::Latency(args) => LatencyPlan::new(args).map(|plan| plan.settings()),
            ModeArgs::Mixed(args) => ProducePlan::mixed(args).map(|plan| plan.settings()),
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_their_flag() {
        for (line, why) in [
            ("produce --connections 0", "--connections is 0: it must be 1 to 256"),
            ("produce --in-flight 65", "--in-flight is 65: it must be 1 to 64"),
            ("produce --idempotent --in-flight 6", "--in-flight is 6: it must be 1 to 5"),
            ("produce --record-bytes 17MiB", "--record-bytes is 17825792: it must be 1 to 16777216"),
            ("produce --content json --record-bytes 31", "--record-bytes is 31: it must be 32 to 16777216"),
            ("produce --batch-bytes 17MiB", "--batch-bytes is 17825792: it must be 1 to 16777216"),
            ("produce --partitions 0", "--partitions is 0: it must be 1 to 10000"),
            ("produce --replication-factor 0", "--replication-factor is 0: it must be 1 to 100"),
            ("produce --config off", "`off` is not KEY=VALUE"),
            ("produce --rate 0", "--rate is 0: it must be 1 to 1099511627776"),
            ("produce --seconds 0", "--seconds is 0: it must be 1 to 604800"),
            ("produce --records 0", "--records is 0: it must be 1 to 1125899906842624"),
            ("consume --fetch-bytes 65MiB", "--fetch-bytes is 68157440: it must be 1 to 67108864"),
            ("consume --wait-ms 30001", "--wait-ms is 30001: it must be 0 to 30000"),
            ("mixed --readers 257", "--readers is 257: it must be 1 to 256"),
            ("latency --record-bytes 23", "--record-bytes is 23: it must be 24 to 16777216"),
            (
                "produce --topic a/b",
                "--topic is `a/b`: write 1 to 249 letters, digits, dots, dashes and underscores",
            ),
            (
                "produce --connections 256 --in-flight 64 --batch-bytes 1MiB",
                "--connections times --in-flight batches may take 16 GiB, at most 1 GiB: take less",
            ),
            (
                "consume --connections 65",
                "connections that read times --fetch-bytes may take 1040 MiB, at most 1 GiB: take less",
            ),
            (
                "produce --rate 1000GiB --batch-bytes 1KiB",
                "--rate gives 1342177280 requests a second, at most 1000000: raise --batch-bytes",
            ),
        ] {
            assert_eq!(settings(line).expect_err(line).to_string(), why);
        }
        assert_eq!(timeout(0).expect_err("none").to_string(), "--timeout is 0: it must be 1 to 600");
    }

    #[test]
    fn a_run_ends_by_itself() {
        let seconds = |line| settings(line).expect(line)["seconds_max"].clone();
        for line in ["produce", "latency", "mixed", "consume --from latest"] {
            assert_eq!(seconds(line), json!(10), "{line}");
        }
        for line in ["produce --records 5", "mixed --bytes 1KiB", "consume"] {
            assert_eq!(seconds(line), Value::Null, "{line}");
        }
        assert_eq!(seconds("produce --records 5 --seconds 3"), json!(3));
    }

    #[test]
    fn each_setting_has_its_unit_in_its_name() {
        let line =
            "mixed --rate 10MiB --batch-bytes 16KiB --compression lz4 --acks 1 --config a=b --warm-up 2";
        let map = settings(line).expect(line);
        for (name, value) in [
            ("topic", json!("floe-bench")),
            ("topic_configs", json!({ "a": "b" })),
            ("rate_bytes_per_second", json!(10 << 20)),
            ("rate_records_per_second", Value::Null),
            ("batch_bytes", json!(16_384)),
            ("compression", json!("lz4")),
            ("acks", json!(1)),
            ("idempotent", json!(false)),
            ("from", json!("start")),
            ("fetch_bytes", json!(16 << 20)),
            ("warm_up_seconds", json!(2)),
        ] {
            assert_eq!(map[name], value, "{name}");
        }
    }

    #[test]
    fn a_batch_is_as_full_as_it_may_be() {
        for (batch_bytes, record_bytes) in
            [(100, 1), (1_000, 10), (65_536, 100), (65_536, 7_000), (1 << 20, 3)]
        {
            let records = records_per_batch(batch_bytes, record_bytes);
            let value = vec![7; record_bytes as usize];
            let mut builder = Builder::new(Compression::None);
            let mut size_of = |count: u64| {
                while (builder.count() as u64) < count {
                    builder.push(1, None, Some(&value), &[]);
                }
                builder.size() as u64
            };
            assert!(size_of(records) <= batch_bytes, "{batch_bytes} {record_bytes}");
            let spare = records + records / 4 + 2;
            assert!(size_of(spare) > batch_bytes, "{batch_bytes} {record_bytes}: room for {spare}");
        }
        assert_eq!(records_per_batch(10, 1_000), 1, "one record whatever its size");
    }

    #[test]
    fn limits_in_bytes_are_records_of_their_size() {
        let window = |line: &str| match typed(line).mode {
            ModeArgs::Produce(args) => Window::new(&args.window, true).expect("it is right"),
            _ => unreachable!("produce was typed"),
        };
        assert_eq!(window("produce --bytes 1001").records_of(100), Some(11));
        assert_eq!(window("produce --bytes 1001 --records 5").records_of(100), Some(5));
        assert_eq!(window("produce").records_of(100), None);
        assert_eq!(window("produce --seconds 5 --warm-up 2").end(), Some(Duration::from_secs(7)));
    }
}
