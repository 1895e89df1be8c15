//! Records that merging or compaction cannot read: the service behind HTTP.

use floe_http::{DamageService, Damaged};
use floe_log::{Log, topic};

/// What the log's background work has found.
pub(crate) struct Damage(pub(crate) Log);

impl DamageService for Damage {
    fn damage(&self, name: &str, count: usize) -> Result<Option<(Vec<Damaged>, usize)>, String> {
        let found = topic::by_name(&self.0.meta().snapshot(), name).map_err(|error| error.to_string())?;
        let Some(topic) = found else { return Ok(None) };
        let mut all: Vec<Damaged> = Vec::new();
        all.extend(self.0.merge_trouble(topic.id).into_iter().map(|trouble| Damaged {
            partition: trouble.partition.index,
            first_offset: trouble.from.0,
            next_offset: trouble.to.0,
            place: trouble.source,
            why: trouble.what,
            found_by: "merging",
        }));
        all.extend(self.0.compaction_trouble(topic.id).into_iter().map(|trouble| Damaged {
            partition: trouble.partition.index,
            first_offset: trouble.from.0,
            next_offset: trouble.to.0,
            place: trouble.source,
            why: trouble.what,
            found_by: "compaction",
        }));
        all.sort_by_key(|one| (one.partition, one.first_offset));
        let found = all.len();
        all.truncate(count);
        Ok(Some((all, found)))
    }
}
