//! Time goes forward. A read that began after another read ended sees no lower high watermark and no lower log start. A
//! read that began after an acknowledgement sees its offset (for the brokers that [`Facts`] bind).

use super::known::Facts;
use crate::history::{Event, History, Phase};

/// Reports reads that went back.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let facts = Facts::of(&operations);
    let mut found = Vec::new();
    for operation in &operations {
        if operation.phase != Phase::Ok {
            continue;
        }
        let (partition, high_watermark, log_start) = match operation.event {
            Event::Fetch { partition, high_watermark, log_start, .. }
            | Event::Final { partition, high_watermark, log_start, .. } => {
                (partition.clone(), high_watermark, log_start)
            }
            Event::Keys { topic, high_watermark, log_start, .. } => {
                (format!("{topic}/0"), high_watermark, log_start)
            }
            _ => continue,
        };
        let (high_before, start_before) = facts.bound(&partition, operation);
        let at = operation.invoke.at;
        if *high_watermark < high_before {
            found.push(format!(
                "{partition}: the high watermark went back from {high_before} to {high_watermark} after {at} ms"
            ));
        }
        if *log_start < start_before {
            found.push(format!("{partition}: the log start went back from {start_before} to {log_start}"));
        }
    }
    found
}
