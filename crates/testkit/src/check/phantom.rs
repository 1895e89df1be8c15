//! No phantoms: every value read was sent to that partition before. A value whose send ended `fail` (the server said
//! that the send did not and will not take effect) is never read.

use std::collections::BTreeMap;

use crate::history::{Event, History, Phase};

/// Reports values that nobody wrote.
pub fn check(history: &History) -> Vec<String> {
    let operations = history.operations();
    let mut sent: BTreeMap<(&str, &str), Vec<(usize, Phase)>> = BTreeMap::new();
    for operation in &operations {
        if let Event::Produce { partition, values, .. } = &operation.invoke.event {
            for value in values {
                sent.entry((partition, value)).or_default().push((operation.began, operation.phase));
            }
        }
    }
    let mut found = Vec::new();
    for operation in &operations {
        let (Event::Fetch { partition, records, .. } | Event::Final { partition, records, .. }) =
            operation.event
        else {
            continue;
        };
        for (offset, value) in records {
            let seen_at = operation.ended.unwrap_or(operation.began);
            let sends =
                sent.get(&(partition.as_str(), value.as_str())).map(Vec::as_slice).unwrap_or_default();
            let before: Vec<_> = sends.iter().filter(|(began, _)| *began < seen_at).collect();
            if before.is_empty() {
                found.push(format!("{partition}@{offset}: {value} was not sent before it was read"));
            } else if before.iter().all(|(_, phase)| *phase == Phase::Fail) {
                found.push(format!("{partition}@{offset}: {value} is there although its send failed"));
            }
        }
    }
    found
}
