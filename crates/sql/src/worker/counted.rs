//! The counters of a worker. It has no exporter of metrics, so each statement brings what it counted to the broker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString,
    Unit,
};
use serde::{Deserialize, Serialize};

use floe_env::lock;

use crate::limits::WORKER_COUNTED_MAX;

/// What one statement counted under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    name: String,
    labels: Vec<(String, String)>,
    count: Count,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Count {
    Counter(u64),
    Histogram(Vec<f64>),
}

impl Counted {
    /// Counts it in this process.
    pub(super) fn count(self) {
        let labels: Vec<Label> =
            self.labels.into_iter().map(|(name, value)| Label::new(name, value)).collect();
        match self.count {
            Count::Counter(count) => metrics::counter!(self.name, labels).increment(count),
            Count::Histogram(values) => {
                let histogram = metrics::histogram!(self.name, labels);
                values.into_iter().for_each(|value| histogram.record(value));
            }
        }
    }
}

/// Histograms that workers bring back. The broker itself measures the times of statements.
const HISTOGRAMS: [&str; 1] = ["floe_sql_tail_bytes"];

/// The recorder of a worker. A clone is the same.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Mutex<Names>>);

#[derive(Default)]
struct Names {
    counters: BTreeMap<Key, Arc<Number>>,
    histograms: BTreeMap<Key, Arc<Values>>,
}

#[derive(Default)]
struct Number(AtomicU64);

#[derive(Default)]
struct Values(Mutex<Vec<f64>>);

impl Counts {
    /// What was counted since the last call.
    pub(super) fn take(&self) -> Vec<Counted> {
        let names = lock(&self.0);
        let counters = names.counters.iter().filter_map(|(key, number)| {
            let count = number.0.swap(0, Relaxed);
            (count > 0).then(|| counted(key, Count::Counter(count)))
        });
        let histograms = names.histograms.iter().filter_map(|(key, values)| {
            let values = std::mem::take(&mut *lock(&values.0));
            (!values.is_empty()).then(|| counted(key, Count::Histogram(values)))
        });
        counters.chain(histograms).take(WORKER_COUNTED_MAX).collect()
    }
}

fn counted(key: &Key, count: Count) -> Counted {
    let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
    Counted { name: key.name().to_owned(), labels, count }
}

impl CounterFn for Number {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        let mut values = lock(&self.0);
        if values.len() < WORKER_COUNTED_MAX {
            values.push(value);
        }
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(lock(&self.0).counters.entry(key.clone()).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match HISTOGRAMS.contains(&key.name()) {
            true => Histogram::from_arc(lock(&self.0).histograms.entry(key.clone()).or_default().clone()),
            false => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_brings_back_what_it_counted_and_no_more() {
        let counts = Counts::default();
        metrics::with_local_recorder(&counts, || {
            metrics::counter!("rows", "from" => "cache").increment(3);
            metrics::counter!("rows", "from" => "cache").increment(4);
            metrics::counter!("none").increment(0);
            metrics::histogram!("floe_sql_tail_bytes").record(5.0);
            metrics::histogram!("floe_sql_statement_seconds").record(6.0);
        });
        let counted = counts.take();
        let rows = Counted {
            name: "rows".to_owned(),
            labels: vec![("from".to_owned(), "cache".to_owned())],
            count: Count::Counter(7),
        };
        let bytes = Counted {
            name: "floe_sql_tail_bytes".to_owned(),
            labels: Vec::new(),
            count: Count::Histogram(vec![5.0]),
        };
        assert_eq!(counted, [rows, bytes]);
        assert_eq!(counts.take(), []);
        // The other end.
        let other = Counts::default();
        metrics::with_local_recorder(&other, || counted.clone().into_iter().for_each(Counted::count));
        assert_eq!(other.take(), counted);
    }
}
