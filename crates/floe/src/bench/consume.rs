//! Connections that read. Each asks for all of its partitions at once, takes the answer, and asks again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use floe_client::{Client, EARLIEST, LATEST, NAMED_VERSION_MAX};
use floe_wire::ErrorCode;
use floe_wire::fetch::{FetchRequest, FetchResponse};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::bench::args::Begin;
use crate::bench::cluster::Cluster;
use crate::bench::content::Mark;
use crate::bench::cursor::{Cursor, Position, Taken};
use crate::bench::lanes::Sharing;
use crate::bench::limits::{FAILURES_IN_ROW_MAX, REFUSED_PAUSE};
use crate::bench::plan::{ReadPlan, Window};
use crate::bench::run::{Ended, Run, join};
use crate::bench::tally::Tally;

/// What readers do with what they read.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Count the records. The run ends at the limits of its window.
    Count,
    /// Count the records while the writers say how far the run is.
    CountBesideWriters,
    /// Look for the marked records of a run, and how long they took.
    Marks {
        run: u64,
        /// Marked records that were seen.
        seen: AtomicU64,
    },
}

/// What all readers share.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) run: Arc<Run>,
    pub(super) topic: String,
    pub(super) plan: ReadPlan,
    pub(super) window: Window,
    pub(super) purpose: Purpose,
}

/// A connection that reads.
#[derive(Debug)]
pub(super) struct Reader {
    client: Client<TcpStream>,
    cursor: Cursor,
}

/// What readers read, and where they stood in the end.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) tally: Tally,
    /// The next offset of each partition.
    pub(super) positions: BTreeMap<i32, i64>,
}

/// Where readers end by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// At the end that the topic has now.
    EndOfTopic,
    /// With the run.
    EndOfRun,
}

/// Connects all readers of a plan, and finds out where they begin.
pub(super) async fn connect(cluster: &Cluster, plan: &ReadPlan, until: Until) -> Result<Vec<Reader>> {
    let begin = match plan.from {
        Begin::Start => cluster.offsets(EARLIEST).await?,
        Begin::Latest => cluster.offsets(LATEST).await?,
    };
    let end = match until {
        Until::EndOfTopic => Some(cluster.offsets(LATEST).await?),
        Until::EndOfRun => None,
    };
    let mut readers = Vec::with_capacity(plan.connections);
    for lane in cluster.lanes(plan.connections, Sharing::Refused)? {
        let client = cluster.connect(&lane).await?.frame_bytes_max(plan.frame_bytes_max());
        let position = |partition: &i32| Position {
            partition: *partition,
            offset: begin[partition],
            end: end.as_ref().map(|end| end[partition]),
        };
        let cursor = Cursor::new(lane.partitions.iter().map(position).collect());
        readers.push(Reader { client, cursor });
    }
    Ok(readers)
}

/// Reads until all readers are at their end or the run is over, and counts.
pub(super) async fn read(reading: &Arc<Reading>, readers: Vec<Reader>) -> Result<Read> {
    let start = |reader: Reader| reading.run.env.spawn("bench read", reader.run(reading.clone()));
    let mut all = Read::default();
    for read in join(readers.into_iter().map(start).collect()).await? {
        all.tally.merge(read.tally);
        all.positions.extend(read.positions);
    }
    Ok(all)
}

/// Records from the positions of readers to the next offsets of the partitions.
pub(super) fn records_between(positions: &BTreeMap<i32, i64>, next: &BTreeMap<i32, i64>) -> u64 {
    let left = |(partition, offset): (&i32, &i64)| {
        let next = next.get(partition).copied().unwrap_or(*offset);
        next.saturating_sub(*offset).max(0).unsigned_abs()
    };
    positions.iter().map(left).sum()
}

impl Reader {
    /// Records that this reader has before it; zero without an end.
    pub(super) fn records_ahead(&self) -> u64 {
        let ahead = |position: &Position| position.end.unwrap_or(0).saturating_sub(position.offset).max(0);
        self.cursor.positions().iter().map(|position| ahead(position).unsigned_abs()).sum()
    }

    async fn run(mut self, reading: Arc<Reading>) -> Read {
        let mut tally = Tally::default();
        if let Err(error) = self.fetch_all(&reading, &mut tally).await {
            reading.run.fail(&error.context("cannot read"));
        }
        let positions = self.cursor.positions().iter();
        Read { tally, positions: positions.map(|position| (position.partition, position.offset)).collect() }
    }

    async fn fetch_all(&mut self, reading: &Reading, tally: &mut Tally) -> Result<()> {
        let run = &reading.run;
        let with_values = matches!(reading.purpose, Purpose::Marks { .. });
        let (mut refused_in_row, mut moved_at) = (0, run.now());
        while let Some(request) = self.cursor.request(&reading.topic, &reading.plan) {
            let sent_at = run.now();
            let answer = match run.unless_over(self.fetch(&request, run)).await {
                None => return Ok(()),
                // Nobody knows how far the broker went with it, but a fetch changes nothing.
                Some(Err(error)) => {
                    tally.unknown += 1;
                    return Err(error);
                }
                Some(Ok(answer)) => answer,
            };
            let now = run.now();
            tally.throttled += u64::from(answer.throttle_time_ms > 0);
            let taken = self.cursor.take(answer, with_values)?;
            taken.refused.iter().for_each(|code| tally.refused(*code, None, 0));
            if taken.moved {
                moved_at = now;
            }
            reading.count(tally, &taken, sent_at, now);
            match taken.refused.last() {
                None => refused_in_row = 0,
                Some(code) => {
                    refused_in_row += 1;
                    pause(run, *code, refused_in_row).await?;
                }
            }
            self.check_progress(run.now().saturating_sub(moved_at), run.timeout)?;
        }
        Ok(())
    }

    /// A reader that has an end must come nearer to it.
    fn check_progress(&self, stands_for: Duration, most: Duration) -> Result<()> {
        match self.cursor.behind() {
            Some((Position { partition, offset, .. }, end)) if stands_for > most => bail!(
                "nothing came for {most:?}, although partition {partition} was read to offset {offset} of {end}: raise \
                 --partition-fetch-bytes if a batch is larger, otherwise look at the broker"
            ),
            _ => Ok(()),
        }
    }

    async fn fetch(&mut self, request: &FetchRequest, run: &Run) -> Result<FetchResponse> {
        let fetching = async {
            let sent = self.client.send_at_most(request, NAMED_VERSION_MAX).await?;
            self.client.receive(sent).await
        };
        let held = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let answer = timeout(run.timeout + held, fetching).await;
        let answer = answer.map_err(|_| anyhow!("no answer came within {:?}", run.timeout + held))?;
        answer.context("a fetch has no answer")
    }
}

/// Waits after a fetch that was refused; an error if too many were.
async fn pause(run: &Run, code: i16, refused_in_row: u32) -> Result<()> {
    let code = ErrorCode::from_number(code);
    ensure!(
        refused_in_row < FAILURES_IN_ROW_MAX,
        "the broker refused {refused_in_row} fetches one after the other, the last with {code}"
    );
    // The end of the run is noticed before the next fetch.
    let _ = run.unless_over(sleep(REFUSED_PAUSE)).await;
    Ok(())
}

impl Reading {
    /// Marked records that have come.
    pub(super) fn seen(&self) -> u64 {
        match &self.purpose {
            Purpose::Marks { seen, .. } => seen.load(Ordering::Relaxed),
            Purpose::Count | Purpose::CountBesideWriters => 0,
        }
    }

    /// Counts what an answer brought.
    fn count(&self, tally: &mut Tally, taken: &Taken, sent_at: Duration, now: Duration) {
        if let Purpose::Marks { run, seen } = &self.purpose {
            self.count_marks(tally, &taken.values, (*run, seen), now);
        } else if now < self.window.warm_up {
            tally.warm_up_records += taken.records;
        } else if taken.records == 0 {
            tally.requests += 1;
            tally.empty += 1;
        } else {
            tally.requests += 1;
            tally.records += taken.records;
            tally.batch_bytes += taken.bytes;
            tally.latency.record(now.saturating_sub(sent_at));
            tally.last_answer = now;
            self.count_for_limits(taken);
        }
    }

    fn count_marks(
        &self,
        tally: &mut Tally,
        values: &[Bytes],
        (run, seen): (u64, &AtomicU64),
        now: Duration,
    ) {
        for mark in values.iter().filter_map(|value| Mark::read(run, value)) {
            if mark.due < self.window.warm_up {
                tally.warm_up_records += 1;
            } else {
                tally.records += 1;
                tally.latency.record(now.saturating_sub(mark.due));
                tally.last_answer = now;
            }
            seen.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the run if readers have read what was wanted.
    fn count_for_limits(&self, taken: &Taken) {
        if !matches!(self.purpose, Purpose::Count) {
            return;
        }
        self.run.count(taken.records, taken.bytes);
        let (records, bytes) = self.run.counted();
        let enough = |limit: Option<u64>, counted| limit.is_some_and(|limit| counted >= limit);
        if enough(self.window.records, records) || enough(self.window.bytes, bytes) {
            self.run.end(Ended::Done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_read_is_summed_over_partitions() {
        let positions = BTreeMap::from([(0, 5), (1, 7), (2, 9)]);
        let next = BTreeMap::from([(0, 8), (1, 7), (3, 100)]);
        assert_eq!(records_between(&positions, &next), 3);
    }
}
