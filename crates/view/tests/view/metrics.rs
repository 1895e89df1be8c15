//! Records the metrics of the thread of one test.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use floe_env::lock;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
};

/// The values of counters and gauges by name and topic; gauges as the bits of a float.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<(String, String), Arc<AtomicU64>>>);

impl Metrics {
    /// Records until the result is dropped.
    pub(crate) fn record(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    pub(crate) fn counter(&self, name: &str, topic: &str) -> u64 {
        self.value(name, topic).map_or(0, |value| value.load(Ordering::SeqCst))
    }

    pub(crate) fn gauge(&self, name: &str, topic: &str) -> Option<f64> {
        self.value(name, topic).map(|value| f64::from_bits(value.load(Ordering::SeqCst)))
    }

    fn value(&self, name: &str, topic: &str) -> Option<Arc<AtomicU64>> {
        lock(&self.0).get(&(name.to_owned(), topic.to_owned())).cloned()
    }

    fn register(&self, key: &Key) -> Arc<AtomicU64> {
        let topic = key.labels().find(|label| label.key() == "topic").map_or("", |label| label.value());
        let name = (key.name().to_owned(), topic.to_owned());
        Arc::clone(lock(&self.0).entry(name).or_default())
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
