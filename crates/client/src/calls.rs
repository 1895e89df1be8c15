//! The calls that tools and tests make often. They turn error codes of the answers into errors.

use bytes::Bytes;
use floe_log::Offset;
use floe_log::batch::Batch;
use floe_log::header::{BatchError, HEADER_BYTES, Header};
use floe_log::records::{Record, RecordsError};
use floe_wire::ApiKey;
use floe_wire::admin::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicState,
    DeleteTopicsRequest,
};
use floe_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use floe_wire::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floe_wire::offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use floe_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

use crate::error::{ClientError, check};
use crate::handle::Client;

/// Asks [`Client::list_offsets`] for the offset of the next record.
pub const LATEST: i64 = -1;
/// Asks [`Client::list_offsets`] for the offset of the first record.
pub const EARLIEST: i64 = -2;
/// Asks [`Client::list_offsets`] for the record with the greatest timestamp.
pub const MAX_TIMESTAMP: i64 = -3;

/// The last version of Produce and of Fetch with topic names; later ones have topic ids only.
pub const NAMED_VERSION_MAX: i16 = 12;
/// The timeout that requests give the broker, in milliseconds.
pub(super) const TIMEOUT_MS: i32 = 30_000;
/// The replication factor that means the broker's default.
const BROKER_DEFAULT: i16 = -1;
/// The replica id of clients.
const NO_REPLICA: i32 = -1;

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// The offset of its first record; -1 if no answer was asked for.
    pub base_offset: i64,
    /// The first offset of the partition; -1 if not told.
    pub log_start_offset: i64,
}

/// How long a fetch waits, and for how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The longest wait in milliseconds.
    pub max_ms: i32,
    /// The bytes that end the wait.
    pub min_bytes: i32,
    /// The most bytes in the answer. But one batch comes whatever its size.
    pub max_bytes: i32,
}

impl Wait {
    /// No wait: the records that are there, up to 50 MiB.
    pub const NOT: Wait = Wait { max_ms: 0, min_bytes: 0, max_bytes: 50 * 1024 * 1024 };

    /// At most `max_ms` milliseconds, until there is any record.
    pub const fn up_to_ms(max_ms: i32) -> Wait {
        Wait { max_ms, min_bytes: 1, ..Wait::NOT }
    }
}

/// The answer to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The offset after the last record that may be read.
    pub high_watermark: i64,
    /// The first offset of the partition.
    pub log_start_offset: i64,
    /// The batches, one after the other. The last one may be cut off.
    pub records: Bytes,
    /// The offset that was asked for. A batch may bring records before it.
    from: i64,
}

impl Fetched {
    /// The batches, without one that is cut off at the end.
    ///
    /// # Errors
    /// When a header is damaged.
    pub fn batches(&self) -> Result<Vec<Batch>, BatchError> {
        let mut rest = self.records.clone();
        let mut batches = Vec::new();
        while rest.len() >= HEADER_BYTES {
            let header = Header::parse(&rest)?;
            if header.size > rest.len() {
                break;
            }
            batches.push(Batch::new(Offset(header.base_offset), rest.split_to(header.size))?);
        }
        Ok(batches)
    }

    /// The records from the offset that was asked for, without markers of transactions, at most `bytes_max` bytes per
    /// batch when decompressed.
    ///
    /// # Errors
    /// When a batch is damaged or too large.
    pub fn records(&self, bytes_max: usize) -> Result<Vec<Record>, RecordsError> {
        let mut records = Vec::new();
        for batch in self.batches()?.iter().filter(|batch| batch.has_records()) {
            records.extend(batch.records(bytes_max)?);
        }
        records.retain(|record| record.offset.0 >= self.from);
        Ok(records)
    }
}

/// An offset that was found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; -1 if there is none.
    pub offset: i64,
    /// The timestamp of its record; -1 for [`EARLIEST`] and [`LATEST`].
    pub timestamp: i64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Brokers and topics. Without names all topics. Creates no topic.
    ///
    /// # Errors
    /// When the call fails. The caller checks the error codes of the topics.
    pub async fn metadata(&mut self, topics: &[&str]) -> Result<MetadataResponse, ClientError> {
        let named =
            |name: &&str| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() };
        let topics = (!topics.is_empty()).then(|| topics.iter().map(named).collect());
        let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
        self.call(&request).await
    }

    /// Creates one topic with settings.
    ///
    /// # Errors
    /// When the call fails or the broker refuses.
    pub async fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), ClientError> {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        };
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: BROKER_DEFAULT,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let response = self.create_topics(vec![topic]).await?;
        let [topic] = response.topics.as_slice() else {
            return Err(ClientError::Incomplete(ApiKey::CreateTopics));
        };
        check(ApiKey::CreateTopics, topic.error_code, topic.error_message.as_deref())
    }

    /// Creates topics.
    ///
    /// # Errors
    /// When the call fails. The caller checks the error codes of the topics.
    pub async fn create_topics(
        &mut self,
        topics: Vec<CreatableTopic>,
    ) -> Result<CreateTopicsResponse, ClientError> {
        let request = CreateTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() };
        self.call(&request).await
    }

    /// Deletes one topic.
    ///
    /// # Errors
    /// When the call fails or the broker refuses.
    pub async fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let topics = vec![DeleteTopicState { name: Some(name.to_owned()), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() };
        let sent = match self.send(&request).await {
            // Before version 6 topics are named in another field.
            Err(ClientError::Wire(_)) => {
                let topic_names = vec![name.to_owned()];
                let request =
                    DeleteTopicsRequest { topic_names, timeout_ms: TIMEOUT_MS, ..Default::default() };
                self.send(&request).await?
            }
            sent => sent?,
        };
        let response = self.receive(sent).await?;
        let [topic] = response.responses.as_slice() else {
            return Err(ClientError::Incomplete(ApiKey::DeleteTopics));
        };
        check(ApiKey::DeleteTopics, topic.error_code, topic.error_message.as_deref())
    }

    /// Appends one batch. With `acks` 0 there is no answer, and no error either.
    ///
    /// # Errors
    /// When the call fails or the broker refuses.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
        acks: i16,
    ) -> Result<Produced, ClientError> {
        let partition_data = vec![PartitionProduceData { index: partition, records: Some(batch) }];
        let topic = TopicProduceData { name: topic.to_owned(), partition_data, ..Default::default() };
        let request =
            ProduceRequest { acks, timeout_ms: TIMEOUT_MS, topic_data: vec![topic], ..Default::default() };
        if acks == 0 {
            self.send_unanswered(&request, NAMED_VERSION_MAX).await?;
            return Ok(Produced { base_offset: -1, log_start_offset: -1 });
        }
        let sent = self.send_at_most(&request, NAMED_VERSION_MAX).await?;
        let response = self.receive(sent).await?;
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let answer = answer.ok_or(ClientError::Incomplete(ApiKey::Produce))?;
        check(ApiKey::Produce, answer.error_code, answer.error_message.as_deref())?;
        Ok(Produced { base_offset: answer.base_offset, log_start_offset: answer.log_start_offset })
    }

    /// Reads from one partition.
    ///
    /// # Errors
    /// When the call fails or the broker refuses, for example because the offset is out of range.
    pub async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        wait: Wait,
    ) -> Result<Fetched, ClientError> {
        let topic = FetchTopic { topic: topic.to_owned(), ..Default::default() };
        self.fetch_topic(topic, partition, offset, wait, NAMED_VERSION_MAX).await
    }

    /// Reads from one partition of the topic with this id.
    ///
    /// # Errors
    /// As [`Client::fetch`]; and when the broker does not know topics by id.
    pub async fn fetch_by_id(
        &mut self,
        topic_id: Uuid,
        partition: i32,
        offset: i64,
        wait: Wait,
    ) -> Result<Fetched, ClientError> {
        let topic = FetchTopic { topic_id, ..Default::default() };
        self.fetch_topic(topic, partition, offset, wait, i16::MAX).await
    }

    async fn fetch_topic(
        &mut self,
        topic: FetchTopic,
        partition: i32,
        offset: i64,
        wait: Wait,
        version_max: i16,
    ) -> Result<Fetched, ClientError> {
        let partitions = vec![FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: wait.max_bytes,
            ..Default::default()
        }];
        let request = FetchRequest {
            max_wait_ms: wait.max_ms,
            min_bytes: wait.min_bytes,
            max_bytes: wait.max_bytes,
            topics: vec![FetchTopic { partitions, ..topic }],
            ..Default::default()
        };
        let sent = self.send_at_most(&request, version_max).await?;
        let mut response = self.receive(sent).await?;
        check(ApiKey::Fetch, response.error_code, None)?;
        let answer = response.responses.first_mut().and_then(|topic| topic.partitions.pop());
        let answer = answer.ok_or(ClientError::Incomplete(ApiKey::Fetch))?;
        check(ApiKey::Fetch, answer.error_code, None)?;
        Ok(Fetched {
            high_watermark: answer.high_watermark,
            log_start_offset: answer.log_start_offset,
            records: answer.records.unwrap_or_default().to_bytes(),
            from: offset,
        })
    }

    /// Finds an offset by a timestamp in milliseconds, or by [`EARLIEST`], [`LATEST`], [`MAX_TIMESTAMP`].
    ///
    /// # Errors
    /// When the call fails or the broker refuses.
    pub async fn list_offsets(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<ListedOffset, ClientError> {
        let asked = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: topic.to_owned(), partitions: vec![asked] }];
        let request = ListOffsetsRequest { replica_id: NO_REPLICA, topics, ..Default::default() };
        let response = self.call(&request).await?;
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let answer = answer.ok_or(ClientError::Incomplete(ApiKey::ListOffsets))?;
        check(ApiKey::ListOffsets, answer.error_code, None)?;
        Ok(ListedOffset { offset: answer.offset, timestamp: answer.timestamp })
    }
}
