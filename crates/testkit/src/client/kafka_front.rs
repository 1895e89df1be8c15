//! A client on a Kafka connection. A missing answer, for whatever reason, is an unknown outcome.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use floe_client::{Client, ClientError, EARLIEST, LATEST, Wait};
use floe_wire::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use floe_wire::producer::InitProducerIdRequest;
use floe_wire::{ErrorCode, Request};
use tokio::time::timeout;
use uuid::Uuid;

use super::cut::Stream;
use super::front::{Fetched, Front, Sent};
use super::values::{Place, seen};

/// The last version of Produce that names topics.
const PRODUCE_NAMED_VERSION_MAX: i16 = 12;
/// How long this client waits for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a read waits at the end of the log.
const WAIT_MS: i32 = 500;
/// Most bytes of one read. The limit is small, so that reads end in the middle of an object.
const READ_BYTES_MAX: i32 = 4_000;
/// Most bytes of a batch's records after decompression.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// A way to a broker over one connection.
pub struct KafkaFront {
    client: Client<Stream>,
    broker: u32,
    reads: u64,
}

impl KafkaFront {
    /// A client on a connection to this incarnation of a broker.
    pub fn new(stream: Stream, broker: u32, process: u32) -> KafkaFront {
        KafkaFront { client: Client::new(stream, &format!("client-{process}")), broker, reads: 0 }
    }

    /// Makes one call. Returns none if no answer came or it could not be read.
    pub async fn call<R: Request + Sync>(&mut self, request: &R) -> Option<R::Response> {
        timeout(ANSWER_MAX, self.client.call(request)).await.ok()?.ok()
    }

    async fn list(&mut self, place: Place, time: i64) -> Option<i64> {
        let index = i32::try_from(place.index).expect("a small index");
        let listed = timeout(ANSWER_MAX, self.client.list_offsets(place.topic, index, time)).await;
        listed.ok()?.ok().map(|listed| listed.offset)
    }

    async fn produce_all(
        &mut self,
        sends: Vec<(Place, Bytes)>,
        answers: &mut Vec<Sent>,
    ) -> Result<(), ClientError> {
        let mut sent = Vec::with_capacity(sends.len());
        for (place, batch) in sends {
            let version_max = if place.incarnation.is_some() { i16::MAX } else { PRODUCE_NAMED_VERSION_MAX };
            sent.push((place, self.client.send_at_most(&request(place, batch), version_max).await?));
        }
        for (place, sent) in sent {
            answers.push(answer(place, &self.client.receive(sent).await?));
        }
        Ok(())
    }
}

fn request(place: Place, batch: Bytes) -> ProduceRequest {
    let index = i32::try_from(place.index).expect("a small index");
    let partition_data = vec![PartitionProduceData { index, records: Some(batch) }];
    let (name, topic_id) = (place.topic.to_owned(), Uuid::from_u128(place.incarnation.unwrap_or_default()));
    let topic = TopicProduceData { name, topic_id, partition_data };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

fn answer(place: Place, response: &ProduceResponse) -> Sent {
    let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
    let Some(partition) = partition else {
        return Sent::Unknown("an answer without the partition".to_owned());
    };
    match ErrorCode::from_number(partition.error_code) {
        ErrorCode::None => Sent::Appended(partition.base_offset),
        ErrorCode::OutOfOrderSequenceNumber => Sent::OutOfOrder,
        ErrorCode::InvalidProducerEpoch => Sent::Fenced,
        ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition if place.incarnation.is_some() => {
            Sent::Gone
        }
        code => {
            let message = partition.error_message.clone().unwrap_or_default();
            let reason = format!("{}: {message}", code.name());
            match code {
                _ if !code.retriable() => Sent::Final(reason),
                _ if refuses(code) => Sent::NotApplied(reason),
                _ => Sent::Unknown(reason),
            }
        }
    }
}

/// Whether the code promises that nothing was appended. From any other code a Kafka client cannot know.
fn refuses(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::CorruptMessage
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::KafkaStorageError
            | ErrorCode::ThrottlingQuotaExceeded
    )
}

#[async_trait]
impl Front for KafkaFront {
    fn broker(&self) -> u32 {
        self.broker
    }

    async fn incarnation(&mut self, topic: &str) -> Option<Option<u128>> {
        let metadata = timeout(ANSWER_MAX, self.client.metadata(&[topic])).await.ok()?.ok()?;
        let found = metadata.topics.first()?;
        match ErrorCode::from_number(found.error_code) {
            ErrorCode::None => Some(Some(found.topic_id.as_u128())),
            ErrorCode::UnknownTopicOrPartition => Some(None),
            _ => None,
        }
    }

    async fn producer_id(&mut self) -> Option<(i64, i16)> {
        let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
        let response = self.call(&request).await?;
        (response.error_code == 0).then_some((response.producer_id, response.producer_epoch))
    }

    async fn produce(&mut self, sends: Vec<(Place, Bytes)>) -> Vec<Sent> {
        let count = sends.len();
        let mut answers = Vec::with_capacity(count);
        // Answers that came before the connection broke are kept.
        let _ = timeout(ANSWER_MAX, self.produce_all(sends, &mut answers)).await;
        answers.resize_with(count, || Sent::Unknown("no answer came".to_owned()));
        answers
    }

    async fn fetch(&mut self, place: Place, from: i64) -> Option<Fetched> {
        let wait = Wait { max_ms: WAIT_MS, min_bytes: 1, max_bytes: READ_BYTES_MAX };
        let index = i32::try_from(place.index).expect("a small index");
        self.reads += 1;
        let fetched = match place.incarnation {
            None => timeout(ANSWER_MAX, self.client.fetch(place.topic, index, from, wait)).await,
            Some(id) if self.reads.is_multiple_of(3) => {
                // The incarnation behind the name is certain if it is the same before and after the read.
                if self.incarnation(place.topic).await? != Some(id) {
                    return None;
                }
                let fetched = timeout(ANSWER_MAX, self.client.fetch(place.topic, index, from, wait)).await;
                if self.incarnation(place.topic).await? != Some(id) {
                    return None;
                }
                fetched
            }
            Some(id) => {
                let id = Uuid::from_u128(id);
                timeout(ANSWER_MAX, self.client.fetch_by_id(id, index, from, wait)).await
            }
        };
        let fetched = fetched.ok()?.ok()?;
        let (mut records, mut next) = (Vec::new(), from);
        for batch in fetched.batches().ok()? {
            records.extend(seen(&batch, RECORDS_BYTES_MAX).ok()?);
            next = batch.next_offset().0;
        }
        records.retain(|(offset, _)| *offset >= from);
        Some(Fetched {
            records,
            next,
            high_watermark: fetched.high_watermark,
            log_start: fetched.log_start_offset,
        })
    }

    async fn latest(&mut self, place: Place) -> Option<i64> {
        self.list(place, LATEST).await
    }

    async fn earliest(&mut self, place: Place) -> Option<i64> {
        self.list(place, EARLIEST).await
    }
}
