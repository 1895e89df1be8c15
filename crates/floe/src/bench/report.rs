//! What a run gives: one JSON object for programs, tables for people. Pure: it is told everything.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use floe_wire::ErrorCode;
use serde_json::{Map, Value, json};

use crate::bench::histogram::Histogram;
use crate::bench::run::Ended;
use crate::bench::tally::{Refusals, Tally};
use crate::term::{columns, things};

const MIB: f64 = (1 << 20) as f64;
/// The quantiles that are told, in thousandths.
const QUANTILES: [(&str, u64); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("p99_9", 999)];

/// A run and its figures.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) mode: &'static str,
    /// Every setting, as it was used.
    pub(super) settings: Map<String, Value>,
    pub(super) parts: Vec<Part>,
    pub(super) ended: Ended,
}

/// The figures of one side.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) side: Side,
    pub(super) tally: Tally,
    /// When measuring began, since the beginning of the run.
    pub(super) measured_from: Duration,
}

/// What the connections did whose figures these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// They wrote records of this size. With a rate, so many requests were due and not sent.
    Produce { record_bytes: u64, unsent: Option<u64> },
    /// They read; of a topic that grew meanwhile, so many records were left.
    Consume { behind: Option<u64> },
    /// They waited for records just written; so many did not come.
    EndToEnd { missing: u64 },
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A figure with three digits behind the point.
fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

/// Puts the quantiles of a histogram under names that begin with `name`; null without a value.
fn put_latency(map: &mut Map<String, Value>, name: &str, histogram: &Histogram) {
    let some = |time: Duration| (histogram.count() > 0).then(|| ms(time));
    map.insert(format!("{name}_ms_mean"), json!(some(histogram.mean())));
    for (quantile, per_mille) in QUANTILES {
        map.insert(format!("{name}_ms_{quantile}"), json!(some(histogram.quantile(per_mille))));
    }
    map.insert(format!("{name}_ms_max"), json!(some(histogram.max())));
}

impl Part {
    fn name(&self) -> &'static str {
        match self.side {
            Side::Produce { .. } => "produce",
            Side::Consume { .. } => "consume",
            Side::EndToEnd { .. } => "end_to_end",
        }
    }

    /// Seconds from the beginning of the measurement to the last answer.
    fn seconds(&self) -> f64 {
        self.tally.last_answer.saturating_sub(self.measured_from).as_secs_f64()
    }

    /// How many a second; zero if nothing came.
    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.seconds();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    fn refused_requests(&self) -> u64 {
        self.tally.errors.values().map(|refusals| refusals.requests).sum()
    }

    fn errors(&self) -> Value {
        let error = |(code, refusals): (&i16, &Refusals)| {
            let name = ErrorCode::from_number(*code).name();
            json!({ "code": code, "name": name, "requests": refusals.requests, "said": refusals.said })
        };
        self.tally.errors.iter().map(error).collect()
    }

    fn to_json(&self) -> Value {
        let tally = &self.tally;
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("records", json!(tally.records));
        put("records_warm_up", json!(tally.warm_up_records));
        put("seconds", json!(rounded(self.seconds())));
        put("records_per_second", json!(rounded(self.per_second(tally.records))));
        if !matches!(self.side, Side::EndToEnd { .. }) {
            put("requests", json!(tally.requests));
            put("batch_bytes", json!(tally.batch_bytes));
            put("batch_mib_per_second", json!(rounded(self.per_second(tally.batch_bytes) / MIB)));
            put("requests_throttled", json!(tally.throttled));
            put("requests_unknown", json!(tally.unknown));
            put("requests_refused", json!(self.refused_requests()));
            put("errors", self.errors());
        }
        match self.side {
            Side::Produce { record_bytes, unsent } => {
                let bytes = tally.records * record_bytes;
                put("value_bytes", json!(bytes));
                put("value_mib_per_second", json!(rounded(self.per_second(bytes) / MIB)));
                put("records_unknown", json!(tally.unknown_records));
                put("records_refused", json!(tally.refused_records));
                put("requests_due_unsent", json!(unsent));
                if unsent.is_some() {
                    put_latency(&mut map, "send_delay", &tally.send_delay);
                }
            }
            Side::Consume { behind } => {
                put("requests_empty", json!(tally.empty));
                put("records_behind", json!(behind));
            }
            Side::EndToEnd { missing } => {
                put("records_missing", json!(missing));
            }
        }
        put_latency(&mut map, "latency", &tally.latency);
        Value::from(map)
    }

    /// A line of the table of throughputs.
    fn throughput_row(&self) -> Vec<String> {
        let tally = &self.tally;
        let mib = |bytes: u64| format!("{:.2}", self.per_second(bytes) / MIB);
        vec![
            self.name().replace('_', " "),
            tally.requests.to_string(),
            tally.records.to_string(),
            format!("{:.2}", self.seconds()),
            format!("{:.0}", self.per_second(tally.records)),
            mib(match self.side {
                Side::Produce { record_bytes, .. } => tally.records * record_bytes,
                _ => tally.batch_bytes,
            }),
        ]
    }

    /// Lines that a table has no room for.
    fn remarks(&self) -> Vec<String> {
        let (tally, name) = (&self.tally, self.name().replace('_', " "));
        let mut lines = Vec::new();
        for (code, refusals) in &tally.errors {
            let (code, requests) = (ErrorCode::from_number(*code), things(refusals.requests, "request"));
            let said = if refusals.said.is_empty() { String::new() } else { format!(": {}", refusals.said) };
            lines.push(format!("{name}: {requests} refused with {code}{said}"));
        }
        let unsent = match self.side {
            Side::Produce { unsent, .. } => unsent.unwrap_or(0),
            _ => 0,
        };
        let counted = [
            (tally.unknown, "request", "without an answer, perhaps carried out"),
            (tally.throttled, "answer", "with a demand for a pause: the broker has a quota for this client"),
            (unsent, "request", "due and not sent: the broker, or this machine, did not keep up"),
            (self.missing(), "record", "acknowledged that did not come to the consumer in time"),
            (tally.warm_up_records, "record", "of the warm-up, left out of the figures"),
        ];
        let counted = counted.into_iter().filter(|(count, _, _)| *count > 0);
        lines.extend(counted.map(|(count, thing, what)| format!("{name}: {} {what}", things(count, thing))));
        if let Side::Consume { behind: Some(behind) } = self.side {
            lines.push(format!("{name}: {} left to be read in the end", things(behind, "record")));
        }
        lines
    }

    fn missing(&self) -> u64 {
        match self.side {
            Side::EndToEnd { missing } => missing,
            _ => 0,
        }
    }
}

/// A line of the table of latencies.
fn latency_row(name: String, histogram: &Histogram) -> Vec<String> {
    let quantiles = QUANTILES.map(|(_, per_mille)| histogram.quantile(per_mille));
    let times = [histogram.mean()].into_iter().chain(quantiles).chain([histogram.max()]);
    let times = times.map(|time| format!("{:.3}", ms(time)));
    [name, histogram.count().to_string()].into_iter().chain(times).collect()
}

impl Report {
    /// One JSON object.
    pub(super) fn to_json(&self) -> String {
        let (ended, failure) = match &self.ended {
            Ended::Done => ("done", None),
            Ended::Interrupted => ("interrupted", None),
            Ended::Failed(why) => ("failed", Some(why)),
        };
        let mut map = Map::new();
        map.insert("mode".into(), json!(self.mode));
        map.insert("floe_version".into(), json!(env!("CARGO_PKG_VERSION")));
        map.insert("settings".into(), Value::from(self.settings.clone()));
        map.insert("ended".into(), json!(ended));
        map.insert("failure".into(), json!(failure));
        for part in &self.parts {
            map.insert(part.name().to_owned(), part.to_json());
        }
        Value::from(map).to_string()
    }

    /// Tables, and what is worth a remark.
    pub(super) fn to_text(&self) -> String {
        let with_requests = self.parts.iter().filter(|part| !matches!(part.side, Side::EndToEnd { .. }));
        let rows: Vec<Vec<String>> = with_requests.map(Part::throughput_row).collect();
        let header = ["throughput", "requests", "records", "seconds", "records/s", "MiB/s"];
        let mut text = vec![columns(&header, &rows), String::new()];
        let mut rows = Vec::new();
        for part in &self.parts {
            rows.push(latency_row(part.name().replace('_', " "), &part.tally.latency));
            if let Side::Produce { unsent: Some(_), .. } = part.side {
                rows.push(latency_row("send delay".to_owned(), &part.tally.send_delay));
            }
        }
        let header = ["latency in ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max"];
        text.push(columns(&header, &rows));
        let remarks: Vec<String> = self.parts.iter().flat_map(Part::remarks).collect();
        if !remarks.is_empty() {
            text.push(String::new());
            text.extend(remarks);
        }
        text.join("\n")
    }

    /// An error unless the run came to its end and every request succeeded.
    pub(super) fn verdict(&self) -> Result<()> {
        match &self.ended {
            Ended::Done => {}
            Ended::Interrupted => {
                bail!("stopped before the end of the run; the figures are of what was done")
            }
            Ended::Failed(why) => bail!("the run ended early, the figures are of what was done: {why}"),
        }
        let clean = self.parts.iter().all(|part| part.tally.is_clean());
        ensure!(clean, "not every request succeeded: the figures say which, and are of those that did");
        let missing: u64 = self.parts.iter().map(Part::missing).sum();
        let records = things(missing, "acknowledged record");
        ensure!(missing == 0, "{records} did not come to the consumer in time");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ended: Ended) -> Report {
        let mut written = Tally { requests: 4, records: 3_000, batch_bytes: 1 << 20, ..Tally::default() };
        for ms in 1..=3 {
            written.latency.record(Duration::from_millis(ms));
            written.send_delay.record(Duration::from_micros(ms));
        }
        written.last_answer = Duration::from_millis(2_500);
        written.refused(19, Some("no room"), 1_000);
        written.warm_up_records = 50;
        let mut came = Tally { records: 2_999, ..Tally::default() };
        came.latency.record(Duration::from_micros(1_500));
        let side = Side::Produce { record_bytes: 1_024, unsent: Some(7) };
        let measured_from = Duration::from_millis(1_000);
        let settings = Map::from_iter([("topic".to_owned(), json!("t"))]);
        let parts = vec![
            Part { side, tally: written, measured_from },
            Part { side: Side::EndToEnd { missing: 1 }, tally: came, measured_from },
        ];
        Report { mode: "latency", settings, parts, ended }
    }

    #[test]
    fn the_json_has_every_figure_with_its_unit() {
        let json: Value = serde_json::from_str(&report(Ended::Done).to_json()).expect("it is JSON");
        assert_eq!((&json["mode"], &json["settings"]["topic"]), (&json!("latency"), &json!("t")));
        assert_eq!((&json["ended"], &json["failure"]), (&json!("done"), &Value::Null));
        for (name, value) in [
            ("records", json!(3_000)),
            ("seconds", json!(1.5)),
            ("records_per_second", json!(2_000.0)),
            ("requests", json!(4)),
            ("value_bytes", json!(3_000 << 10)),
            ("value_mib_per_second", json!(1.953)),
            ("batch_mib_per_second", json!(0.667)),
            ("requests_due_unsent", json!(7)),
            ("requests_refused", json!(1)),
            ("records_refused", json!(1_000)),
            ("requests_unknown", json!(0)),
            ("records_warm_up", json!(50)),
            ("latency_ms_max", json!(3.0)),
            ("latency_ms_mean", json!(2.0)),
            ("send_delay_ms_max", json!(0.003)),
            (
                "errors",
                json!([{ "code": 19, "name": "NotEnoughReplicas", "requests": 1, "said": "no room" }]),
            ),
        ] {
            assert_eq!(json["produce"][name], value, "{name}");
        }
        assert_eq!(json["end_to_end"]["records_missing"], json!(1));
        assert_eq!(json["end_to_end"]["latency_ms_p99_9"], json!(1.5));
    }

    #[test]
    fn figures_of_nothing_are_null_or_zero() {
        let part = Part {
            side: Side::Consume { behind: None },
            tally: Tally::default(),
            measured_from: Duration::ZERO,
        };
        let json = part.to_json();
        assert_eq!((&json["records_per_second"], &json["latency_ms_p50"]), (&json!(0.0), &Value::Null));
    }

    #[test]
    fn the_tables_align_and_the_remarks_name_what_went_wrong() {
        let expected = "\
throughput  requests  records  seconds  records/s  MiB/s
produce            4     3000     1.50       2000   1.95

latency in ms  count   mean    p50    p90    p99  p99.9    max
produce            3  2.000  2.007  3.000  3.000  3.000  3.000
send delay         3  0.002  0.002  0.003  0.003  0.003  0.003
end to end         1  1.500  1.500  1.500  1.500  1.500  1.500

produce: 1 request refused with NotEnoughReplicas (19): no room
produce: 7 requests due and not sent: the broker, or this machine, did not keep up
produce: 50 records of the warm-up, left out of the figures
end to end: 1 record acknowledged that did not come to the consumer in time";
        assert_eq!(report(Ended::Done).to_text(), expected);
    }

    #[test]
    fn only_a_clean_run_succeeds() {
        let verdict = |ended, clean: bool| {
            let mut report = report(ended);
            if clean {
                report.parts[0].tally.errors.clear();
            }
            report.verdict().map_err(|error| error.to_string())
        };
        let begins = |verdict: Result<(), String>, with: &str| {
            assert!(verdict.expect_err("it fails").starts_with(with), "{with}");
        };
        begins(verdict(Ended::Interrupted, true), "stopped before the end");
        begins(verdict(Ended::Failed("why".to_owned()), true), "the run ended early");
        begins(verdict(Ended::Done, false), "not every request succeeded");
        begins(verdict(Ended::Done, true), "1 acknowledged record did not come");
        let mut clean = report(Ended::Done);
        clean.parts.pop();
        clean.parts[0].tally.errors.clear();
        assert!(clean.verdict().is_ok());
    }
}
