//! Compares the store with the metadata map. Pure: two sets of objects in, differences out.
//!
//! A commit gives a range of ids before anything is uploaded under them, and another one names the object afterwards.
//! So an object that no record names is either of a range that the map knows, and then one of the few that its process
//! had in flight; or it is of a range that the map does not know, and then the map has lost commits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use floe_meta::{Counter, DecodeError, Lookup};

use crate::limits::UNEXPLAINED_OBJECTS_MAX;
use crate::map::ids::ObjectId;
use crate::map::object::{self, Object, Trash};
use crate::map::writer_number;

/// Differences between a store and a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Objects that the map refers to and that the store does not have.
    pub missing: Vec<ObjectId>,
    /// Objects whose length differs: the length by the map, and that in the store.
    pub cut: Vec<(ObjectId, u64, u64)>,
    /// Objects in ranges that the map knows, which no record names. A process that died had them in flight.
    pub in_flight: Vec<ObjectId>,
    /// Objects in ranges that the map never gave.
    pub unknown: Vec<ObjectId>,
    /// Objects in ranges that ended long ago, which no record names. They cost their space and nothing else.
    pub orphans: Vec<ObjectId>,
}

/// Compares the objects of a store with these ids, and their lengths.
///
/// # Errors
/// A record cannot be read.
pub fn compare(
    map: &impl Lookup,
    stored: &BTreeMap<ObjectId, u64>,
    ids: RangeInclusive<ObjectId>,
) -> Result<Differences, DecodeError> {
    let mut differences = Differences::default();
    let mut named = BTreeSet::new();
    for pair in map.range::<Object>(ids.clone()) {
        let (id, object) = pair?;
        named.insert(id);
        match stored.get(&id) {
            None => differences.missing.push(id),
            Some(length) if *length != object.size => differences.cut.push((id, object.size, *length)),
            Some(_) => {}
        }
    }
    let given = map.get::<Counter>(&object::IDS)?.unwrap_or_default().0;
    let writer = writer_number::known(map)?;
    for id in stored.range(ids).map(|(id, _)| *id).filter(|id| !named.contains(id)) {
        if map.get::<Trash>(&id)?.is_some() {
            continue;
        }
        let unknown = id.writer() > writer || id.count() > given;
        match (unknown, object::lease_of(map, id)?) {
            (true, _) => differences.unknown.push(id),
            (false, Some(_)) => differences.in_flight.push(id),
            (false, None) => differences.orphans.push(id),
        }
    }
    Ok(differences)
}

impl Differences {
    /// Adds those of another kind of objects.
    pub(crate) fn extend(&mut self, other: Differences) {
        let Differences { missing, cut, in_flight, unknown, orphans } = other;
        self.missing.extend(missing);
        self.cut.extend(cut);
        self.in_flight.extend(in_flight);
        self.unknown.extend(unknown);
        self.orphans.extend(orphans);
    }

    /// Why the map is older than the store; `None` if nothing shows that.
    pub fn older(&self) -> Option<String> {
        if let Some(first) = self.unknown.first() {
            let count = self.unknown.len();
            return Some(format!(
                "the store has {count} objects under ids that this metadata never gave, the first is {first}"
            ));
        }
        let count = self.in_flight.len();
        (count > UNEXPLAINED_OBJECTS_MAX).then(|| {
            format!(
                "the store has {count} objects that this metadata gave ids and does not name; one process has at most \
                 {UNEXPLAINED_OBJECTS_MAX} of them in flight"
            )
        })
    }

    /// What is lost or damaged, one line for each object.
    pub fn damage(&self) -> impl Iterator<Item = String> + use<'_> {
        let missing = self.missing.iter().map(|id| format!("{} is missing", object::object_key(*id)));
        let cut = self.cut.iter().map(|(id, wanted, found)| {
            format!("{} has {found} bytes instead of {wanted}", object::object_key(*id))
        });
        missing.chain(cut)
    }
}
