//! Records that could not be read: the service behind HTTP.

use floe_http::{DamageService, Damaged};
use floe_log::{FoundBy, Log, topic};

use crate::query::rfc3339;

/// What the readers of the log have met.
pub(crate) struct Damage(pub(crate) Log);

impl DamageService for Damage {
    fn damage(&self, name: &str, count: usize) -> Result<Option<(Vec<Damaged>, usize)>, String> {
        let found = topic::by_name(&self.0.meta().snapshot(), name).map_err(|error| error.to_string())?;
        let Some(topic) = found else { return Ok(None) };
        let all = self.0.damage(topic.id);
        let found = all.len();
        let told = all.into_iter().take(count).map(|one| Damaged {
            partition: one.partition.index,
            first_offset: one.from.0,
            next_offset: one.to.0,
            place: one.place,
            why: one.what,
            since: rfc3339(one.since),
            found_by: one.found_by.into_iter().map(FoundBy::name).collect(),
        });
        Ok(Some((told.collect(), found)))
    }
}
