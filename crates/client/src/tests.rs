//! The client against a scripted broker, over a pipe in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use floe_env::Env;
use floe_log::codec::Compression;
use floe_log::header::validate;
use floe_log::records::Builder;
use floe_wire::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use floe_wire::frame::encode_response;
use floe_wire::metadata::{
    ApiVersion, ApiVersionsResponse, MetadataRequest, MetadataResponse, MetadataResponsePartition,
    MetadataResponseTopic,
};
use floe_wire::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use floe_wire::producer::{InitProducerIdRequest, InitProducerIdResponse};
use floe_wire::{ApiKey, Decoder, Encoder, ErrorCode, Message, RequestHeader, Rope, Versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::*;

/// A broker with one topic `t` of two partitions. It checks sequences as a real one does.
struct Broker {
    stream: DuplexStream,
    versions: Vec<ApiVersion>,
    /// Codes for produce requests, in order; 0 when they are used up.
    script: Vec<ErrorCode>,
    /// Batches written, by partition.
    log: BTreeMap<i32, Vec<Bytes>>,
    /// Requests of each API.
    calls: BTreeMap<i16, usize>,
    /// Ends the connection instead of answering this many produce requests from now.
    hang_up_after: Option<usize>,
}

impl Broker {
    fn new(stream: DuplexStream) -> Broker {
        let known = |(api, versions): &(ApiKey, Versions)| ApiVersion {
            api_key: api.number(),
            min_version: versions.min,
            max_version: versions.max,
        };
        let versions = floe_wire::fuzz::APIS.iter().map(known).collect();
        let (script, log, calls) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Broker { stream, versions, script, log, calls, hang_up_after: None }
    }

    /// Answers until the client has gone.
    async fn serve(mut self) -> Broker {
        while let Ok(length) = self.stream.read_u32().await {
            let mut frame = BytesMut::zeroed(length as usize);
            self.stream.read_exact(&mut frame).await.unwrap();
            let mut decoder = Decoder::new(frame.freeze());
            let header = RequestHeader::decode(&mut decoder).unwrap();
            *self.calls.entry(header.api_key).or_default() += 1;
            let Some(answer) = self.answer(&header, &mut decoder) else {
                self.stream.shutdown().await.unwrap();
                return self;
            };
            for segment in answer {
                self.stream.write_all(&segment).await.unwrap();
            }
        }
        self
    }

    fn answer(&mut self, header: &RequestHeader, decoder: &mut Decoder) -> Option<Vec<Bytes>> {
        let api = header.api().unwrap();
        let version = header.api_version;
        let id = header.correlation_id;
        match api {
            ApiKey::ApiVersions => {
                let known = self.versions.iter().find(|known| known.api_key == 18).unwrap();
                let supported = version <= known.max_version;
                let code = if supported { ErrorCode::None } else { ErrorCode::UnsupportedVersion };
                let api_keys = self.versions.clone();
                let response =
                    ApiVersionsResponse { error_code: code.into(), api_keys, ..Default::default() };
                Some(encode_response(&response, api, if supported { version } else { 0 }, id).unwrap())
            }
            ApiKey::Metadata => {
                MetadataRequest::decode(decoder, version).unwrap();
                let partitions = vec![MetadataResponsePartition::default(); 2];
                let name = Some("t".to_owned());
                let topics = vec![MetadataResponseTopic { name, partitions, ..Default::default() }];
                let response = MetadataResponse { topics, ..Default::default() };
                Some(encode_response(&response, api, version, id).unwrap())
            }
            ApiKey::InitProducerId => {
                InitProducerIdRequest::decode(decoder, version).unwrap();
                let response = InitProducerIdResponse { producer_id: 9, ..Default::default() };
                Some(encode_response(&response, api, version, id).unwrap())
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(decoder, version).unwrap();
                let left = self.hang_up_after.as_mut();
                if left.is_some_and(|left| std::mem::replace(left, left.saturating_sub(1)) == 0) {
                    return None;
                }
                let response = self.produce(&request);
                if request.acks == 0 {
                    return Some(Vec::new());
                }
                Some(encode_response(&response, api, version, id).unwrap())
            }
            ApiKey::Fetch => {
                FetchRequest::decode(decoder, version).unwrap();
                let records = Some(Rope(self.log.get(&0).cloned().unwrap_or_default()));
                let partitions = vec![PartitionData { records, high_watermark: 5, ..Default::default() }];
                let topic = "t".to_owned();
                let responses = vec![FetchableTopicResponse { topic, partitions, ..Default::default() }];
                let response = FetchResponse { responses, ..Default::default() };
                Some(encode_response(&response, api, version, id).unwrap())
            }
            other => unreachable!("the tests do not call {other}"),
        }
    }

    fn produce(&mut self, request: &ProduceRequest) -> ProduceResponse {
        let mut response = ProduceResponse::default();
        for topic in &request.topic_data {
            let mut answers = Vec::new();
            for partition in &topic.partition_data {
                let batch = partition.records.clone().unwrap();
                let scripted = if self.script.is_empty() { ErrorCode::None } else { self.script.remove(0) };
                let code = match scripted {
                    ErrorCode::None => self.append(partition.index, batch),
                    // It was written, but the answer says otherwise.
                    ErrorCode::RequestTimedOut => {
                        self.append(partition.index, batch);
                        ErrorCode::RequestTimedOut
                    }
                    code => code,
                };
                answers.push(PartitionProduceResponse {
                    index: partition.index,
                    error_code: code.into(),
                    base_offset: 3,
                    ..Default::default()
                });
            }
            let name = topic.name.clone();
            let partition_responses = answers;
            response.responses.push(TopicProduceResponse { name, partition_responses, ..Default::default() });
        }
        response
    }

    /// Appends as an idempotent broker does.
    fn append(&mut self, partition: i32, batch: Bytes) -> ErrorCode {
        let header = validate(&batch).unwrap();
        let log = self.log.entry(partition).or_default();
        let written = |batch: &Bytes| validate(batch).unwrap();
        if header.producer_id >= 0 {
            if log.iter().any(|old| written(old).base_sequence == header.base_sequence) {
                return ErrorCode::None;
            }
            let next: i32 = log.iter().map(|batch| written(batch).count).sum();
            if header.base_sequence != next {
                return match next {
                    0 => ErrorCode::UnknownProducerId,
                    _ => ErrorCode::OutOfOrderSequenceNumber,
                };
            }
        }
        log.push(batch);
        ErrorCode::None
    }

    /// The values in the order in which they were written.
    fn values(&self, partition: i32) -> Vec<String> {
        let decode = |bytes: &Bytes| floe_log::batch::Batch::new(floe_log::Offset(0), bytes.clone()).unwrap();
        let batches = self.log.get(&partition).into_iter().flatten();
        let records = batches.flat_map(|bytes| decode(bytes).records(usize::MAX).unwrap());
        records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
    }
}

/// Runs a client against a broker until both are done.
async fn check<T>(
    prepare: impl FnOnce(&mut Broker),
    run: impl AsyncFnOnce(Client<DuplexStream>) -> T,
) -> (T, Broker) {
    let (ours, theirs) = tokio::io::duplex(512);
    let mut broker = Broker::new(theirs);
    prepare(&mut broker);
    tokio::join!(run(Client::new(ours, "test")), broker.serve())
}

fn batch(value: &str) -> Bytes {
    Builder::new(Compression::None).push(1, None, Some(value.as_bytes()), &[]).build()
}

const QUICK: ProducerConfig = ProducerConfig {
    compression: Compression::Lz4,
    request_bytes: 20,
    in_flight_max: 3,
    retries_max: 3,
    retry_pause: Duration::from_millis(1),
};

#[tokio::test]
async fn requests_are_pipelined_and_answers_taken_in_any_order() {
    let ((), broker) = check(
        |_| (),
        async |mut client| {
            let request = MetadataRequest::default();
            let first = client.send(&request).await.unwrap();
            let second = client.send_at_most(&request, 8).await.unwrap();
            let third = client.send(&InitProducerIdRequest::default()).await.unwrap();
            assert_eq!((first.version(), second.version(), client.in_flight()), (13, 8, 3));
            assert_eq!(client.receive(third).await.unwrap().producer_id, 9);
            assert_eq!(client.receive(first).await.unwrap().topics.len(), 1);
            drop(second);
            assert_eq!(client.metadata(&["t"]).await.unwrap().topics.len(), 1);
        },
    )
    .await;
    assert_eq!(broker.calls, BTreeMap::from([(18, 1), (3, 3), (22, 1)]));
}

#[tokio::test]
async fn one_half_sends_and_the_other_receives() {
    let (codes, broker) = check(
        |broker| broker.script = vec![ErrorCode::None, ErrorCode::NotEnoughReplicas],
        async |mut client| {
            let pending = client.send(&MetadataRequest::default()).await.unwrap();
            client.receive(pending).await.unwrap();
            let (mut requests, mut answers) = client.split(tokio::io::split).await.unwrap();
            let value = "v".repeat(2_000);
            let mut pending = Vec::new();
            for index in [0, 1] {
                let partition_data = vec![PartitionProduceData { index, records: Some(batch(&value)) }];
                let topic = TopicProduceData { name: "t".into(), partition_data, ..Default::default() };
                let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
                pending.push(requests.enqueue(&request, NAMED_VERSION_MAX).unwrap());
            }
            requests.flush().await.unwrap();
            let mut codes = Vec::new();
            for sent in pending {
                let answer = answers.receive(sent).await.unwrap();
                codes.push(answer.responses[0].partition_responses[0].error_code);
            }
            codes
        },
    )
    .await;
    assert_eq!(codes, [0, ErrorCode::NotEnoughReplicas.number()]);
    assert_eq!((broker.values(0).len(), broker.values(1).len()), (1, 0));
}

#[tokio::test]
async fn a_connection_with_answers_to_come_is_not_split() {
    let (ours, _theirs) = tokio::io::duplex(4_096);
    let mut client = Client::new(ours, "test");
    client.dialect.broker.insert(3, MetadataRequest::VERSIONS);
    let _pending = client.send(&MetadataRequest::default()).await.unwrap();
    let error = client.split(tokio::io::split).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ClientError::TooManyInFlight));
}

#[tokio::test]
async fn versions_are_negotiated() {
    let old = |broker: &mut Broker| {
        broker.versions = vec![
            ApiVersion { api_key: 18, min_version: 0, max_version: 0 },
            ApiVersion { api_key: 3, min_version: 0, max_version: 4 },
            ApiVersion { api_key: 1, min_version: 99, max_version: 100 },
        ];
    };
    let ((), broker) = check(old, async |mut client| {
        let sent = client.send(&MetadataRequest::default()).await.unwrap();
        assert_eq!(sent.version(), 4);
        client.receive(sent).await.unwrap();
        let error = client.call(&FetchRequest::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "Fetch: the broker speaks versions 99-100, this client 4-18");
        let error = client.call(&ProduceRequest::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "Produce: the broker speaks versions none, this client 3-13");
    })
    .await;
    assert_eq!(broker.calls[&18], 2);
}

#[tokio::test]
async fn batches_go_in_and_come_out() {
    let (fetched, broker) = check(
        |_| (),
        async |mut client| {
            let unanswered = client.produce("t", 0, batch("a"), 0).await.unwrap();
            assert_eq!(unanswered.base_offset, -1);
            assert_eq!(client.produce("t", 0, batch(&"b".repeat(9_000)), -1).await.unwrap().base_offset, 3);
            client.fetch("t", 0, 0, Wait::NOT).await.unwrap()
        },
    )
    .await;
    assert_eq!(broker.values(0).len(), 2);
    assert_eq!((fetched.high_watermark, fetched.batches().unwrap().len()), (5, 2));
    let records = fetched.records(usize::MAX).unwrap();
    assert_eq!(records[1].value.as_ref().unwrap().len(), 9_000);
}

#[tokio::test]
async fn an_error_code_is_an_error() {
    let refuse = |broker: &mut Broker| broker.script = vec![ErrorCode::MessageTooLarge];
    let (error, broker) =
        check(refuse, async |mut client| client.produce("t", 1, batch("a"), 1).await.unwrap_err()).await;
    assert_eq!(error.to_string(), "Produce: MessageTooLarge (10)");
    assert!(!error.retriable());
    assert_eq!(broker.values(1), Vec::<String>::new());
}

#[tokio::test]
async fn frames_are_bounded_and_a_closed_connection_is_said_so() {
    let (mut theirs, ours) = tokio::io::duplex(64);
    theirs.write_all(&[0, 0, 4, 1]).await.unwrap();
    let mut client = Client::new(ours, "test").frame_bytes_max(1_024);
    let error = client.call(&MetadataRequest::default()).await.unwrap_err();
    let ClientError::NotKafka { http: false, source } = error else { panic!("{error}") };
    let reason = "a message could not be coded: a length of 1025 does not fit into its field";
    assert_eq!(source.to_string(), reason);
    drop(theirs);
    let error = client.call(&MetadataRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Io(_) | ClientError::Closed | ClientError::NotKafka { .. }));
}

#[tokio::test]
async fn an_answer_to_another_request_is_refused() {
    let (mut theirs, ours) = tokio::io::duplex(4_096);
    let mut client = Client::new(ours, "test");
    client.dialect.broker.insert(3, MetadataRequest::VERSIONS);
    let mut encoder = Encoder::frame();
    encoder.put(&99i32.to_be_bytes());
    for segment in encoder.finish().unwrap() {
        theirs.write_all(&segment).await.unwrap();
    }
    let error = client.call(&MetadataRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Correlation { expected: 1, got: 99 }));
}

/// Delivers records through whatever goes wrong; returns the totals and the broker.
async fn deliver(prepare: impl FnOnce(&mut Broker)) -> (ProducerStats, Broker) {
    check(prepare, async |client| {
        let mut producer = Producer::new(&Env::real(), client, QUICK).await.unwrap();
        for i in 0..40 {
            let value = i.to_string();
            producer.send_to("t", i % 2, 5, None, Some(value.as_bytes())).await.unwrap();
        }
        producer.close().await.unwrap().1
    })
    .await
}

fn assert_delivered(broker: &Broker) {
    for partition in 0..2 {
        let expected: Vec<_> = (0..40).filter(|i| i % 2 == partition).map(|i| i.to_string()).collect();
        assert_eq!(broker.values(partition), expected);
    }
}

#[tokio::test]
async fn a_producer_delivers_in_order() {
    let (stats, broker) = deliver(|_| ()).await;
    assert_delivered(&broker);
    assert_eq!((stats.records, stats.retries), (40, 0));
    assert_eq!(stats.requests, broker.calls[&0] as u64);
    assert!(stats.requests < 20, "records are batched: {stats:?}");
}

#[tokio::test]
async fn a_producer_repeats_what_may_pass_without_loss_or_duplicates() {
    use ErrorCode::{None as Ok, NotEnoughReplicas, RequestTimedOut};
    let scripts = [
        vec![NotEnoughReplicas],
        vec![NotEnoughReplicas; 3],
        vec![Ok, NotEnoughReplicas, NotEnoughReplicas, NotEnoughReplicas, Ok, NotEnoughReplicas],
        vec![RequestTimedOut, RequestTimedOut, Ok, RequestTimedOut],
        vec![Ok, Ok, Ok, RequestTimedOut, NotEnoughReplicas, Ok, Ok, RequestTimedOut],
    ];
    for script in scripts {
        let (stats, broker) = deliver(|broker| broker.script = script).await;
        assert_delivered(&broker);
        assert!(stats.retries > 0);
        assert_eq!(stats.records, 40);
    }
}

#[tokio::test]
async fn a_producer_gives_up_in_the_end() {
    let refuse = |broker: &mut Broker| broker.script = vec![ErrorCode::NotEnoughReplicas; 1_000];
    let (error, _) = check(refuse, async |client| {
        let mut producer = Producer::new(&Env::real(), client, QUICK).await.unwrap();
        producer.send_to("t", 0, 5, None, Some(b"x")).await.unwrap();
        producer.flush().await.unwrap_err()
    })
    .await;
    assert_eq!(error.code(), Some(ErrorCode::NotEnoughReplicas));
}

#[tokio::test]
async fn a_producer_goes_on_over_another_connection() {
    let mut records = 0;
    let mut sent = 0;
    let (mut producer, mut broker) = check(
        |broker| broker.hang_up_after = Some(4),
        async |client| {
            let mut producer = Producer::new(&Env::real(), client, QUICK).await.unwrap();
            while producer.send_to("t", 0, 5, None, Some(sent.to_string().as_bytes())).await.is_ok() {
                sent += 1;
            }
            records += producer.stats().records;
            producer
        },
    )
    .await;
    let (ours, theirs) = tokio::io::duplex(512);
    broker.stream = theirs;
    broker.hang_up_after = None;
    let finish = async move {
        producer.resume(Client::new(ours, "test")).await.unwrap();
        producer.close().await.unwrap().1
    };
    let (stats, broker) = tokio::join!(finish, broker.serve());
    assert!(records < stats.records);
    let written = broker.values(0);
    let expected: Vec<_> = (0..written.len()).map(|i| i.to_string()).collect();
    assert_eq!(written, expected);
    assert_eq!((stats.records, written.len()), (written.len() as u64, sent + 1));
}

#[tokio::test]
async fn keys_decide_partitions() {
    let (_, broker) = check(
        |_| (),
        async |client| {
            let mut producer = Producer::new(&Env::real(), client, ProducerConfig::default()).await.unwrap();
            for key in ["a", "21", "abc", "foobar"] {
                producer.send("t", 1, Some(key.as_bytes()), Some(key.as_bytes())).await.unwrap();
            }
            producer.send("t", 1, None, Some(b"any")).await.unwrap();
            producer.close().await.unwrap().1
        },
    )
    .await;
    for partition in 0..2 {
        for value in broker.values(partition).iter().filter(|value| *value != "any") {
            assert_eq!(partition_for_key(value.as_bytes(), 2), partition.cast_unsigned());
        }
    }
    assert_eq!(broker.values(0).len() + broker.values(1).len(), 5);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_named() {
    for (first, http) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], true),
        (b"SSH-2.0-OpenSSH\r\n", false),
        (b"\0\0\0\x08answer 9", false),
        (b"\0\0\0\x02ab", false),
    ] {
        let (stream, mut server) = tokio::io::duplex(1 << 16);
        server.write_all(first).await.unwrap();
        let error = Client::new(stream, "test").negotiate().await.unwrap_err();
        assert!(matches!(error, ClientError::NotKafka { http: found, .. } if found == http), "{error}");
    }
}
