//! Connections that write. Each is two tasks:
//! ```text
//! send      room for a request ─▶ a turn, when it is due ─▶ batch ─▶ socket
//!                                                             │ pending
//! receive   answer ─▶ latency, code ─▶ room again  ◀──────────┘
//! ```
//! Nothing is sent twice. A request that is refused is counted with its code. One without an answer is counted as
//! unknown, and ends the run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use floe_client::{Answers, Client, NAMED_VERSION_MAX, Requests, Sent};
use floe_env::Env;
use floe_log::header::Stamp;
use floe_wire::ErrorCode;
use floe_wire::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use floe_wire::producer::InitProducerIdRequest;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::bench::cluster::{Cluster, once_ready};
use crate::bench::content::{Mark, Source};
use crate::bench::lanes::{Lane, Sharing};
use crate::bench::limits::FAILURES_IN_ROW_MAX;
use crate::bench::load::Turn;
use crate::bench::plan::WritePlan;
use crate::bench::run::{Run, join};
use crate::bench::tally::Tally;
use crate::bench::turns::Turns;

/// What all writers share.
pub(super) struct Writing {
    pub(super) run: Arc<Run>,
    pub(super) topic: String,
    pub(super) plan: WritePlan,
    pub(super) source: Source,
    pub(super) turns: Turns,
}

/// A connection that writes.
pub(super) struct Writer {
    requests: Requests<OwnedWriteHalf>,
    answers: Answers<OwnedReadHalf>,
    targets: Targets,
}

/// The partitions of a connection, written to in turn.
struct Targets {
    /// Each with the sequence number of its next batch.
    partitions: Vec<(i32, i32)>,
    next: usize,
    /// Id and epoch of the idempotent producer.
    producer: Option<(i64, i16)>,
}

/// A request that was sent and has no answer yet.
struct Pending {
    sent: Sent<ProduceRequest>,
    /// From when on its latency counts.
    due: Duration,
    sent_at: Duration,
    turn: Turn,
    batch_bytes: u64,
    _room: OwnedSemaphorePermit,
}

/// Connects all writers of a plan.
pub(super) async fn connect(env: &Env, cluster: &Cluster, plan: &WritePlan) -> Result<Vec<Writer>> {
    let mut writers = Vec::with_capacity(plan.connections);
    for (place, lane) in cluster.lanes(plan.connections, Sharing::Allowed)?.iter().enumerate() {
        writers.push(Writer::connect(env, cluster, plan, lane, place).await?);
    }
    Ok(writers)
}

/// Id and epoch of a new idempotent producer.
async fn identify(client: &mut Client<TcpStream>) -> Result<(i64, i16)> {
    let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..Default::default() };
    let answer = client.call(&request).await?;
    ErrorCode::check(answer.error_code)?;
    Ok((answer.producer_id, answer.producer_epoch))
}

/// Writes until there are no more turns, and counts.
pub(super) async fn write(writing: &Arc<Writing>, writers: Vec<Writer>) -> Result<Tally> {
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    let env = &writing.run.env;
    for Writer { requests, answers, targets } in writers {
        // A pending request has a permit, so the channel is never full.
        let (pending, waiting) = mpsc::channel(writing.plan.in_flight);
        let sender = Sender { writing: writing.clone(), requests, targets, pending, tally: Tally::default() };
        senders.push(env.spawn("bench send", sender.run()));
        receivers.push(env.spawn("bench receive", writing.clone().receive(answers, waiting)));
    }
    let mut all = Tally::default();
    for tally in join(senders).await?.into_iter().chain(join(receivers).await?) {
        all.merge(tally);
    }
    Ok(all)
}

impl Writer {
    async fn connect(
        env: &Env,
        cluster: &Cluster,
        plan: &WritePlan,
        lane: &Lane,
        place: usize,
    ) -> Result<Writer> {
        let mut client = cluster.connect(lane).await?;
        let mut producer = None;
        if plan.idempotent {
            let identity = once_ready(env, async || identify(&mut client).await).await;
            producer = Some(identity.context("cannot become an idempotent producer")?);
        }
        let (requests, answers) = client.split(TcpStream::into_split).await?;
        let partitions = lane.partitions.iter().map(|partition| (*partition, 0)).collect();
        Ok(Writer { requests, answers, targets: Targets { partitions, next: place, producer } })
    }
}

impl Targets {
    /// The next partition, and what a batch of so many records carries there.
    fn next(&mut self, records: u64, timestamp: i64) -> (i32, Stamp) {
        let place = self.next % self.partitions.len();
        self.next = place + 1;
        let (partition, sequence) = &mut self.partitions[place];
        let producer = self.producer.map(|(id, epoch)| (id, epoch, *sequence));
        // Sequence numbers count records and wrap to 0 after the largest.
        *sequence = ((u64::from(sequence.unsigned_abs()) + records) & 0x7fff_ffff) as i32;
        (*partition, Stamp { timestamp, producer })
    }
}

/// The half of a connection that sends.
struct Sender {
    writing: Arc<Writing>,
    requests: Requests<OwnedWriteHalf>,
    targets: Targets,
    pending: mpsc::Sender<Pending>,
    tally: Tally,
}

impl Sender {
    /// Sends requests until there are no more turns, the run is over, or the connection fails.
    async fn run(mut self) -> Tally {
        let writing = self.writing.clone();
        let run = &writing.run;
        let room = Arc::new(Semaphore::new(writing.plan.in_flight));
        while let Some(Ok(room)) = run.unless_over(room.clone().acquire_owned()).await {
            let Some(Some(turn)) = run.unless_over(writing.turns.take(run)).await else { break };
            if let Err(error) = self.transmit(turn, room).await {
                run.fail(&error.context("cannot write"));
                break;
            }
        }
        self.tally
    }

    /// Sends one request.
    async fn transmit(&mut self, turn: Turn, room: OwnedSemaphorePermit) -> Result<()> {
        let Writing { run, source, turns, .. } = &*self.writing;
        let (partition, stamp) = self.targets.next(turn.records, run.env.now().0);
        let batch = source.batch(Mark { number: turn.number, due: turn.due }, turn.records, stamp);
        let batch_bytes = batch.len() as u64;
        let request = self.writing.request(partition, batch);
        let sent_at = run.now();
        let due = if turns.is_paced() { turn.due } else { sent_at };
        let sent = self.requests.enqueue(&request, NAMED_VERSION_MAX)?;
        if turn.measured {
            self.tally.requests += 1;
            self.tally.send_delay.record(sent_at.saturating_sub(due));
        }
        // The receiver knows of the request before it is written: no answer waits for it.
        let pending = Pending { sent, due, sent_at, turn, batch_bytes, _room: room };
        self.pending.send(pending).await.map_err(|_| anyhow!("nobody receives answers any more"))?;
        // The end of the run does not cut this short: a request that is half written gets no answer.
        let flushed = timeout(run.timeout, self.requests.flush()).await;
        flushed.map_err(|_| anyhow!("the broker took no bytes for {:?}", run.timeout))??;
        Ok(())
    }
}

impl Writing {
    fn request(&self, partition: i32, batch: Bytes) -> ProduceRequest {
        let partition_data = vec![PartitionProduceData { index: partition, records: Some(batch) }];
        let topic = TopicProduceData { name: self.topic.clone(), partition_data, ..Default::default() };
        let timeout_ms = i32::try_from(self.run.timeout.as_millis()).unwrap_or(i32::MAX);
        ProduceRequest { acks: self.plan.acks, timeout_ms, topic_data: vec![topic], ..Default::default() }
    }

    /// Receives the answer to each request, in their order.
    async fn receive(
        self: Arc<Writing>,
        mut answers: Answers<OwnedReadHalf>,
        mut waiting: mpsc::Receiver<Pending>,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut refused_in_row = 0;
        while let Some(pending) = waiting.recv().await {
            let Pending { sent, turn, sent_at, .. } = pending;
            let left = (sent_at + self.run.timeout).saturating_sub(self.run.now());
            let answer = timeout(left, answers.receive(sent)).await;
            let answer = answer.map_err(|_| anyhow!("no answer came within {:?}", self.run.timeout));
            match answer.and_then(|answer| verdict(answer?)) {
                Ok(Verdict { code, throttled, .. }) if code == ErrorCode::None.number() => {
                    refused_in_row = 0;
                    tally.throttled += u64::from(throttled);
                    self.acknowledged(&mut tally, &turn, pending.due, pending.batch_bytes);
                }
                Ok(Verdict { code, said, throttled }) => {
                    refused_in_row += 1;
                    tally.throttled += u64::from(throttled);
                    tally.refused(code, said.as_deref(), turn.records);
                    self.give_up(code, refused_in_row);
                }
                Err(error) => {
                    self.run
                        .fail(&error.context("a request is without an answer, it may have been carried out"));
                    unknown(&mut tally, &turn);
                    while let Some(pending) = waiting.recv().await {
                        unknown(&mut tally, &pending.turn);
                    }
                }
            }
        }
        tally
    }

    /// Counts records that the broker acknowledged.
    fn acknowledged(&self, tally: &mut Tally, turn: &Turn, due: Duration, batch_bytes: u64) {
        if !turn.measured {
            tally.warm_up_records += turn.records;
            return;
        }
        let now = self.run.now();
        tally.records += turn.records;
        tally.batch_bytes += batch_bytes;
        tally.latency.record(now.saturating_sub(due));
        tally.last_answer = now;
        self.run.count(turn.records, turn.records * self.plan.record_bytes as u64);
    }

    /// Ends the run if the refused request makes more of them useless.
    fn give_up(&self, code: i16, refused_in_row: u32) {
        let code = ErrorCode::from_number(code);
        if self.plan.idempotent {
            let why = anyhow!("the broker waits for a batch that it refused with {code}");
            self.run.fail(&why.context("an idempotent producer cannot go on"));
        } else if refused_in_row >= FAILURES_IN_ROW_MAX {
            let why = anyhow!(
                "{refused_in_row} requests of a connection one after the other, the last with {code}"
            );
            self.run.fail(&why.context("the broker refuses what is written"));
        }
    }
}

/// What the broker says of a batch.
struct Verdict {
    code: i16,
    said: Option<String>,
    /// Whether it asks for a pause.
    throttled: bool,
}

/// The answer to a request with one batch.
fn verdict(mut answer: ProduceResponse) -> Result<Verdict> {
    let partition = answer.responses.pop().and_then(|mut topic| topic.partition_responses.pop());
    let partition = partition.context("the answer does not say what became of the batch")?;
    let throttled = answer.throttle_time_ms > 0;
    Ok(Verdict { code: partition.error_code, said: partition.error_message, throttled })
}

fn unknown(tally: &mut Tally, turn: &Turn) {
    tally.unknown += 1;
    tally.unknown_records += turn.records;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_come_in_turn_and_sequences_count_records() {
        let partitions = vec![(4, 0), (7, i32::MAX - 2)];
        let mut targets = Targets { partitions, next: 1, producer: Some((9, 3)) };
        let mut sequence = |records| {
            let (partition, stamp) = targets.next(records, 5);
            assert_eq!(stamp.timestamp, 5);
            let (id, epoch, sequence) = stamp.producer.expect("it has one");
            assert_eq!((id, epoch), (9, 3));
            (partition, sequence)
        };
        let got = [sequence(10), sequence(10), sequence(1), sequence(1)];
        assert_eq!(got, [(7, i32::MAX - 2), (4, 0), (7, 7), (4, 10)]);
        let mut plain = Targets { partitions: vec![(0, 0)], next: 5, producer: None };
        assert_eq!(plain.next(1, 5), (0, Stamp { timestamp: 5, producer: None }));
    }
}
