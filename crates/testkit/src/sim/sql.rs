//! Statements over the table while everything fails, and once more when nothing fails.
//!
//! The simulation has no query engine of its own: every test of the engine below would compile one, for minutes. A
//! caller with an engine hands in a function that opens it.

use std::time::Duration;

use arrow::array::RecordBatch;
use floe_log::topic;
use serde_json::Value;
use tokio::time::sleep;

use super::cluster::{Cluster, Running};
use super::engine::Refused;
use super::plan::{COMPACTED_TOPIC, TABLE_TOPIC};
use crate::bug::Bug;
use crate::client::Harness;
use crate::dice::Dice;
use crate::history::{Answer, Event, Phase};
use crate::rows;

/// The process number of the client that asks.
const PROCESS: u32 = 400;
/// This many failed statements without any fault are a finding.
const FAILURES_MAX: u32 = 20;

/// The statements. Each of the first three has another plan over the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Rows,
    Counts,
    Unmatched,
    /// All rows of the table over the compacted topic.
    Keyed,
}

impl Question {
    /// Those of a run.
    fn all(cluster: &Cluster) -> Vec<Question> {
        let mut all = vec![Question::Rows, Question::Counts, Question::Unmatched];
        let keyed = cluster.plan().compacted.filter(|topic| topic.table.is_some());
        all.extend(keyed.map(|_| Question::Keyed));
        all
    }

    /// The topic whose table it is about.
    fn topic(self) -> &'static str {
        if self == Question::Keyed { COMPACTED_TOPIC } else { TABLE_TOPIC }
    }

    fn text(self) -> String {
        let table = self.topic();
        match self {
            Question::Rows | Question::Keyed => format!("select * from {table}"),
            Question::Counts => format!(
                "select _partition_id as p, count(*) as n, max(_offset) as last from {table} group by _partition_id"
            ),
            Question::Unmatched => format!(
                "select count(*) as n from {table} a full join {table} b \
                 on a._partition_id = b._partition_id and a._offset = b._offset \
                 where a._offset is null or b._offset is null"
            ),
        }
    }

    /// The event of the statement, without an answer.
    fn asked(self) -> Event {
        let topic = self.topic().to_owned();
        match self {
            Question::Keyed => Event::KeyedRows { topic, rows: Vec::new(), progress: None },
            _ => Event::Query { topic, answer: None },
        }
    }

    /// The event of the answer; none if the answer has other columns.
    fn answered(self, cluster: &Cluster, dice: &Dice, batches: &[RecordBatch]) -> Option<Event> {
        let objects: Result<Vec<Vec<Value>>, _> = batches.iter().map(rows::objects).collect();
        let objects: Vec<Value> = objects.ok()?.concat();
        let topic = self.topic().to_owned();
        if self == Question::Keyed {
            let rows = objects.iter().map(rows::keyed_of_json).collect::<Option<_>>()?;
            return Some(Event::KeyedRows { topic, rows, progress: None });
        }
        let answer = spoil(cluster.bug(), dice, self.answer(&objects)?);
        Some(Event::Query { topic, answer: Some(answer) })
    }

    fn answer(self, objects: &[Value]) -> Option<Answer> {
        let number = |row: &Value, name: &str| row.get(name)?.as_i64();
        match self {
            Question::Rows | Question::Keyed => {
                objects.iter().map(rows::of_json).collect::<Option<_>>().map(Answer::Rows)
            }
            Question::Counts => {
                let count = |row: &Value| {
                    let partition = u32::try_from(number(row, "p")?).ok()?;
                    Some((partition, number(row, "n")?, number(row, "last")?))
                };
                objects.iter().map(count).collect::<Option<_>>().map(Answer::Counts)
            }
            Question::Unmatched => number(objects.first()?, "n").map(Answer::Unmatched),
        }
    }
}

/// Asks until the faults have ended and one more answer has come.
pub(super) async fn ask(cluster: Cluster) {
    let dice = cluster.dice();
    loop {
        let healed = cluster.healed();
        let running = cluster.broker().await;
        let answered = once(&cluster, &dice, &running, *dice.pick(&Question::all(&cluster))).await;
        if healed && answered {
            return;
        }
        sleep(dice.wait(cluster.pause_max()) + Duration::from_millis(10)).await;
    }
}

/// Asks every statement once when nothing fails any more.
pub(super) async fn ask_all(cluster: &Cluster) {
    let dice = cluster.dice();
    for question in Question::all(cluster) {
        let mut failures = 0;
        while !once(cluster, &dice, &*cluster.broker().await, question).await {
            failures += 1;
            if failures > FAILURES_MAX {
                return cluster.recorder().stuck(format!("no answer to: {}", question.text()));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Asks a broker and notes the answer. Returns whether there was one.
async fn once(cluster: &Cluster, dice: &Dice, running: &Running, question: Question) -> bool {
    let Some(engine) = running.sql.clone() else { return false };
    // A broker beside another one may not know the topic yet.
    if !topic::by_name(&running.log.meta().snapshot(), question.topic()).is_ok_and(|topic| topic.is_some()) {
        return false;
    }
    let begun = cluster.recorder().invoke(PROCESS, running.number, question.asked());
    let text = question.text();
    let result = running.run(async move { engine.rows(&text).await }).await;
    let wrong = |why: &str| cluster.recorder().stuck(format!("{}: {why}", question.text()));
    let answered = match result {
        Some(Ok(batches)) => {
            let answered = question.answered(cluster, dice, &batches);
            if answered.is_none() {
                wrong("the answer has other columns");
            }
            answered
        }
        Some(Err(Refused::Wrong(why))) => {
            wrong(&why);
            None
        }
        Some(Err(Refused::Later(_))) | None => None,
    };
    let phase = if answered.is_some() { Phase::Ok } else { Phase::Fail };
    let is_answered = answered.is_some();
    cluster.recorder().end(begun, phase, answered.unwrap_or_else(|| question.asked()));
    is_answered
}

/// The answer after the planted bug has touched it.
fn spoil(bug: Option<Bug>, dice: &Dice, answer: Answer) -> Answer {
    match answer {
        Answer::Rows(mut rows) if bug == Some(Bug::SqlDropsRow) && !rows.is_empty() => {
            rows.swap_remove(usize::try_from(dice.within(0..rows.len() as u64)).expect("an index"));
            Answer::Rows(rows)
        }
        answer => answer,
    }
}
