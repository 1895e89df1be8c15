//! An idempotent producer: it batches records and keeps a few requests in flight.
//!
//! ```text
//! send ─▶ open (one batch per partition) ─ enough bytes ─▶ in flight (a few requests) ─ answers ─▶ acknowledged
//!                                                               │ a retriable error
//!                                                               ▼
//!                                     await all answers, then repeat the failed batches in order
//! ```
//! A repeated batch keeps its sequence number, so the broker recognises it. No batch is written twice, and none
//! overtakes another. After an error that is not retriable the producer is useless: the broker waits for the missing
//! batch.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use floe_env::{Backoff, Env};
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_wire::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use floe_wire::producer::InitProducerIdRequest;
use floe_wire::{ApiKey, ErrorCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::calls::{NAMED_VERSION_MAX, TIMEOUT_MS};
use crate::dialect::Sent;
use crate::error::{ClientError, check};
use crate::handle::Client;
use crate::partitioner::partition_for_key;

/// How a producer batches and retries.
#[derive(Debug, Clone, Copy)]
pub struct ProducerConfig {
    /// The codec of the batches.
    pub compression: Compression,
    /// A request is sent when its records have this many bytes before compression.
    pub request_bytes: usize,
    /// Requests without an answer, 1 to 5. Brokers remember five batches per producer and partition.
    pub in_flight_max: usize,
    /// Repetitions of a batch before its error is reported.
    pub retries_max: u32,
    /// The longest pause before the second repetition; not zero. It doubles up to two seconds.
    pub retry_pause: Duration,
}

/// The longest back-off.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Batches that a broker remembers per producer and partition. With more in flight it could not check their order.
const IN_FLIGHT_MAX: usize = 5;

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            compression: Compression::Zstd,
            request_bytes: 512 * 1024,
            in_flight_max: IN_FLIGHT_MAX,
            retries_max: 10,
            retry_pause: Duration::from_millis(50),
        }
    }
}

/// Totals of a producer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records that the broker acknowledged.
    pub records: u64,
    /// Bytes of the batches that the broker acknowledged, compressed.
    pub bytes: u64,
    /// Requests sent, repetitions included.
    pub requests: u64,
    /// Batches repeated.
    pub retries: u64,
}

/// A topic and one of its partitions.
type Target = (String, i32);

/// A batch that is encoded, perhaps sent, and not acknowledged.
#[derive(Debug, Clone)]
struct ReadyBatch {
    target: Target,
    records: u64,
    bytes: Bytes,
}

/// An idempotent producer over a client of its own.
#[derive(Debug)]
pub struct Producer<S> {
    env: Env,
    client: Client<S>,
    config: ProducerConfig,
    producer_id: i64,
    producer_epoch: i16,
    partitions: BTreeMap<String, u32>,
    /// The sequence numbers of the next batches.
    sequences: BTreeMap<Target, i32>,
    open: BTreeMap<Target, Builder>,
    open_bytes: usize,
    in_flight: VecDeque<(Sent<ProduceRequest>, Vec<ReadyBatch>)>,
    /// Batches of ended requests without an acknowledgement, in the order of sending.
    failed: Vec<ReadyBatch>,
    /// Chooses the partition of records without a key: another one for each request.
    turn: u32,
    stats: ProducerStats,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Producer<S> {
    /// A producer with a new producer id.
    ///
    /// # Errors
    /// When the broker gives none.
    pub async fn new(
        env: &Env,
        mut client: Client<S>,
        config: ProducerConfig,
    ) -> Result<Producer<S>, ClientError> {
        assert!((1..=IN_FLIGHT_MAX).contains(&config.in_flight_max), "one to five requests in flight");
        let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..Default::default() };
        let identity = client.call(&request).await?;
        check(ApiKey::InitProducerId, identity.error_code, None)?;
        Ok(Producer {
            env: env.clone(),
            client,
            config,
            producer_id: identity.producer_id,
            producer_epoch: identity.producer_epoch,
            partitions: BTreeMap::new(),
            sequences: BTreeMap::new(),
            open: BTreeMap::new(),
            open_bytes: 0,
            in_flight: VecDeque::new(),
            failed: Vec::new(),
            turn: 0,
            stats: ProducerStats::default(),
        })
    }

    /// What was acknowledged so far.
    pub fn stats(&self) -> ProducerStats {
        self.stats
    }

    /// Adds a record; `timestamp` in milliseconds since the epoch. The key chooses the partition as in the Java client.
    /// Returns at once unless a request is full and too many are in flight.
    ///
    /// # Errors
    /// When the topic is not known, or an earlier batch could not be delivered.
    pub async fn send(
        &mut self,
        topic: &str,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), ClientError> {
        let partitions = self.partitions_of(topic).await?;
        let partition = key.map_or(self.turn % partitions, |key| partition_for_key(key, partitions));
        self.send_to(topic, partition.cast_signed(), timestamp, key, value).await
    }

    /// Adds a record for a given partition; see [`Producer::send`].
    ///
    /// # Errors
    /// When an earlier batch could not be delivered.
    pub async fn send_to(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), ClientError> {
        let target = (topic.to_owned(), partition);
        let sequence = self.sequences.get(&target).copied().unwrap_or(0);
        let open = self.open.entry(target).or_insert_with(|| {
            let builder = Builder::new(self.config.compression);
            builder.producer(self.producer_id, self.producer_epoch, sequence)
        });
        let before = open.size();
        open.push(timestamp, key, value, &[]);
        self.open_bytes += open.size() - before;
        if self.open_bytes >= self.config.request_bytes {
            self.dispatch().await?;
        }
        Ok(())
    }

    /// Sends all records and waits until they are acknowledged.
    ///
    /// # Errors
    /// When a batch could not be delivered.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.dispatch().await?;
        while !self.in_flight.is_empty() {
            self.settle().await?;
        }
        self.repeat().await
    }

    /// Continues over another connection after one has failed. Batches without an acknowledgement are sent again.
    ///
    /// # Errors
    /// When a batch could not be delivered.
    pub async fn resume(&mut self, client: Client<S>) -> Result<(), ClientError> {
        self.client = client;
        self.abandon();
        self.repeat().await
    }

    /// Flushes, and gives the client back.
    ///
    /// # Errors
    /// When a batch could not be delivered.
    pub async fn close(mut self) -> Result<(Client<S>, ProducerStats), ClientError> {
        self.flush().await?;
        Ok((self.client, self.stats))
    }

    /// The number of partitions of a topic; the broker is asked once.
    async fn partitions_of(&mut self, topic: &str) -> Result<u32, ClientError> {
        if let Some(partitions) = self.partitions.get(topic) {
            return Ok(*partitions);
        }
        let metadata = self.client.metadata(&[topic]).await?;
        let known = metadata.topics.first().ok_or(ClientError::Incomplete(ApiKey::Metadata))?;
        check(ApiKey::Metadata, known.error_code, Some(topic))?;
        let partitions =
            u32::try_from(known.partitions.len()).expect("a frame holds fewer than 2^32 partitions");
        if partitions == 0 {
            return Err(ClientError::Incomplete(ApiKey::Metadata));
        }
        self.partitions.insert(topic.to_owned(), partitions);
        Ok(partitions)
    }

    /// Sends the open batches as one request. Waits first if too many requests are in flight.
    async fn dispatch(&mut self) -> Result<(), ClientError> {
        self.repeat().await?;
        while self.in_flight.len() >= self.config.in_flight_max {
            self.settle().await?;
        }
        if self.open.is_empty() {
            return Ok(());
        }
        self.open_bytes = 0;
        self.turn = self.turn.wrapping_add(1);
        let mut batches = Vec::with_capacity(self.open.len());
        for (target, builder) in std::mem::take(&mut self.open) {
            let records = builder.count();
            let sequence = self.sequences.entry(target.clone()).or_insert(0);
            *sequence = sequence_after(*sequence, records);
            batches.push(ReadyBatch { target, records: records as u64, bytes: builder.build() });
        }
        self.transmit(batches).await
    }

    /// Sends batches, at most one per partition, as one request.
    async fn transmit(&mut self, batches: Vec<ReadyBatch>) -> Result<(), ClientError> {
        self.stats.requests += 1;
        let request = request(&batches);
        match self.client.send_at_most(&request, NAMED_VERSION_MAX).await {
            Ok(sent) => {
                self.in_flight.push_back((sent, batches));
                Ok(())
            }
            Err(error) => {
                self.abandon();
                self.failed.extend(batches);
                Err(error)
            }
        }
    }

    /// Gives up the answers still to come. Their batches have to be repeated.
    fn abandon(&mut self) {
        for (_, batches) in std::mem::take(&mut self.in_flight) {
            self.failed.extend(batches);
        }
    }

    /// Awaits the answer to the oldest request, and repeats failed batches.
    async fn settle(&mut self) -> Result<(), ClientError> {
        self.take_answer().await?;
        if self.failed.is_empty() {
            return Ok(());
        }
        // Later batches of the same partitions are refused as well, because their sequence has a gap now.
        while !self.in_flight.is_empty() {
            self.take_answer().await?;
        }
        self.repeat().await
    }

    /// Sends failed batches again, one after the other.
    async fn repeat(&mut self) -> Result<(), ClientError> {
        let longest = self.config.retry_pause.max(PAUSE_MAX);
        let mut backoff = Backoff::new(&self.env, self.config.retry_pause, longest);
        let mut attempts = 0;
        while let Some(batch) = self.failed.first().cloned() {
            if attempts > 0 {
                backoff.pause().await;
            }
            self.stats.retries += 1;
            self.stats.requests += 1;
            let request = request(std::slice::from_ref(&batch));
            let sent = self.client.send_at_most(&request, NAMED_VERSION_MAX).await?;
            let answers = answers(self.client.receive(sent).await?);
            match verdict(&answers, &batch) {
                Err(error) if error.retriable() && attempts < self.config.retries_max => attempts += 1,
                outcome => {
                    acknowledge(&mut self.stats, &batch, outcome)?;
                    self.failed.remove(0);
                    attempts = 0;
                }
            }
        }
        Ok(())
    }

    /// Awaits the answer to the oldest request. Batches with a retriable error go to `failed`.
    async fn take_answer(&mut self) -> Result<(), ClientError> {
        let Some((sent, batches)) = self.in_flight.pop_front() else { return Ok(()) };
        let answers = match self.client.receive(sent).await {
            Ok(response) => answers(response),
            Err(error) => {
                self.failed.extend(batches);
                self.abandon();
                return Err(error);
            }
        };
        let mut outcome = Ok(());
        for batch in batches {
            match verdict(&answers, &batch) {
                Err(error) if error.retriable() || self.follows_a_failure(&batch, &error) => {
                    self.failed.push(batch);
                }
                answer => outcome = outcome.and(acknowledge(&mut self.stats, &batch, answer)),
            }
        }
        outcome
    }

    /// Whether the error only says that the broker misses an earlier batch, which will be repeated. Without the very
    /// first batch of a partition the broker does not know the producer.
    fn follows_a_failure(&self, batch: &ReadyBatch, error: &ClientError) -> bool {
        use ErrorCode::{OutOfOrderSequenceNumber, UnknownProducerId};
        matches!(error.code(), Some(OutOfOrderSequenceNumber | UnknownProducerId))
            && self.failed.iter().any(|failed| failed.target == batch.target)
    }
}

/// Counts a batch whose answer is final. A duplicate counts as acknowledged: it was written before.
fn acknowledge(
    stats: &mut ProducerStats,
    batch: &ReadyBatch,
    outcome: Result<(), ClientError>,
) -> Result<(), ClientError> {
    match outcome {
        Err(error) if error.code() != Some(ErrorCode::DuplicateSequenceNumber) => return Err(error),
        _ => {}
    }
    stats.records += batch.records;
    stats.bytes += batch.bytes.len() as u64;
    Ok(())
}

/// One request for batches sorted by topic.
fn request(batches: &[ReadyBatch]) -> ProduceRequest {
    let mut topic_data: Vec<TopicProduceData> = Vec::new();
    for batch in batches {
        let (topic, index) = &batch.target;
        let data = PartitionProduceData { index: *index, records: Some(batch.bytes.clone()) };
        match topic_data.last_mut() {
            Some(last) if last.name == *topic => last.partition_data.push(data),
            _ => topic_data.push(TopicProduceData {
                name: topic.clone(),
                partition_data: vec![data],
                ..Default::default()
            }),
        }
    }
    ProduceRequest { acks: -1, timeout_ms: TIMEOUT_MS, topic_data, ..Default::default() }
}

/// The error code and message for each batch of a request.
type Answers = BTreeMap<Target, (i16, Option<String>)>;

fn answers(response: ProduceResponse) -> Answers {
    let mut answers = BTreeMap::new();
    for topic in response.responses {
        for partition in topic.partition_responses {
            let target = (topic.name.clone(), partition.index);
            answers.insert(target, (partition.error_code, partition.error_message));
        }
    }
    answers
}

/// The broker's answer to one batch.
fn verdict(answers: &Answers, batch: &ReadyBatch) -> Result<(), ClientError> {
    let answer = answers.get(&batch.target).ok_or(ClientError::Incomplete(ApiKey::Produce))?;
    check(ApiKey::Produce, answer.0, answer.1.as_deref())
}

/// Sequence numbers count records and wrap to 0 after the largest.
fn sequence_after(sequence: i32, records: usize) -> i32 {
    ((sequence.unsigned_abs() as usize + records) & 0x7fff_ffff) as i32
}
