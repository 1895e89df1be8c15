//! The values of the label `topic` in metrics. Each costs a line per metric in every scrape, and a histogram one per
//! bucket. So only the first topics have their own; the others share one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use floe_env::lock;
use floe_log::TopicId;
use metrics::{Gauge, gauge};

use crate::limits::METRIC_TOPICS_MAX;

/// The label of all topics without one of their own. No topic can have this name.
pub const OTHER_TOPICS: &str = "(others)";

/// The labels of this process, as the recorder of metrics is the process's. What it has once seen it keeps, so a label
/// is never given to another topic.
static LABELS: TopicLabels = TopicLabels::new(METRIC_TOPICS_MAX);

/// The value of the label `topic` for a topic: its name, or [`OTHER_TOPICS`].
pub fn topic_label(name: &str) -> String {
    LABELS.of(name).value
}

/// The label of a topic.
pub(crate) fn label_of(name: &str) -> TopicLabel {
    LABELS.of(name)
}

/// See [`TopicLabels::still`].
pub(crate) fn still(label: &TopicLabel, topic: TopicId, why: &'static str, since: Option<f64>) -> f64 {
    LABELS.still(label, topic, why, since)
}

struct TopicLabels {
    max: usize,
    named: Mutex<BTreeSet<String>>,
    /// Since when topics without a label of their own stand still, by the reason.
    still: Mutex<BTreeMap<(&'static str, TopicId), f64>>,
}

/// The label of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicLabel {
    pub(crate) value: String,
    /// Whether other topics have it, too.
    shared: bool,
}

impl TopicLabels {
    const fn new(max: usize) -> TopicLabels {
        TopicLabels { max, named: Mutex::new(BTreeSet::new()), still: Mutex::new(BTreeMap::new()) }
    }

    fn of(&self, name: &str) -> TopicLabel {
        let mut named = lock(&self.named);
        let shared = !named.contains(name) && named.len() >= self.max;
        if shared {
            return TopicLabel { value: OTHER_TOPICS.to_owned(), shared };
        }
        named.insert(name.to_owned());
        TopicLabel { value: name.to_owned(), shared }
    }

    /// The value of the gauge that says since when a topic stands still for a reason: 0 if it does not. Under a shared
    /// label it is that of the topic that has stood longest.
    fn still(&self, label: &TopicLabel, topic: TopicId, why: &'static str, since: Option<f64>) -> f64 {
        if !label.shared {
            return since.unwrap_or(0.0);
        }
        let mut still = lock(&self.still);
        match since {
            Some(since) => still.insert((why, topic), since),
            None => still.remove(&(why, topic)),
        };
        let those = still.range((why, TopicId(0))..=(why, TopicId(u64::MAX)));
        those.map(|(_, since)| *since).reduce(f64::min).unwrap_or(0.0)
    }
}

/// The gauge of a number of one topic. Under a shared label it is the sum over its topics.
pub(crate) struct TopicGauge {
    gauge: Gauge,
    shared: bool,
    own: AtomicU64,
}

impl TopicGauge {
    pub(crate) fn new(name: &'static str, label: &TopicLabel) -> TopicGauge {
        let gauge = gauge!(name, "topic" => label.value.clone());
        TopicGauge { gauge, shared: label.shared, own: AtomicU64::new(0) }
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric")]
    pub(crate) fn set(&self, value: u64) {
        let before = self.own.swap(value, Ordering::Relaxed);
        match self.shared {
            true => self.gauge.increment(value as f64 - before as f64),
            false => self.gauge.set(value as f64),
        }
    }
}

impl Drop for TopicGauge {
    fn drop(&mut self) {
        // A topic that is gone is not behind.
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_thousand_topics_have_few_labels_and_keep_them() {
        let labels = TopicLabels::new(100);
        let names: Vec<String> = (0..5_000).map(|n| format!("table-{n}")).collect();
        let values = || names.iter().map(|name| labels.of(name).value).collect::<BTreeSet<_>>();
        let first = values();
        assert_eq!((first.len(), first.contains(OTHER_TOPICS)), (101, true));
        assert_eq!(values(), first, "a topic keeps its label");
        assert!(floe_log::topic::check_name(OTHER_TOPICS).is_err(), "no topic has that name");
    }

    #[test]
    fn the_topic_that_has_stood_longest_speaks_for_those_without_a_label() {
        let labels = TopicLabels::new(1);
        let (named, other) = (labels.of("a"), labels.of("b"));
        let still = |label, topic, since| labels.still(label, TopicId(topic), "store", since);
        assert_eq!(still(&named, 1, Some(5.0)), 5.0);
        assert_eq!(still(&other, 2, Some(9.0)), 9.0);
        assert_eq!(still(&other, 3, Some(7.0)), 7.0);
        assert_eq!(labels.still(&other, TopicId(4), "log", Some(1.0)), 1.0);
        assert_eq!(still(&other, 3, None), 9.0);
        assert_eq!(still(&other, 2, None), 0.0);
        assert_eq!(still(&named, 1, None), 0.0);
    }
}
