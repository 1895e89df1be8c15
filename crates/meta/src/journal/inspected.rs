//! What a look at the files of a journal finds.

use std::collections::BTreeMap;

use crate::journal::Lsn;
use crate::snapshot::Snapshot;

/// What a look at a journal found.
#[derive(Debug, Default)]
pub struct Inspected {
    /// The last commit that can be read with all before it.
    pub last: Lsn,
    /// The map up to that commit.
    pub snapshot: Snapshot,
    /// Damage of the journal that a start refuses. Nothing but a copy makes it good.
    pub journal: Vec<String>,
    /// Damage of commits that the image has. A start does not read them; who made them cannot be told any more.
    pub history: Vec<String>,
    /// Damage of an image. If the journal has none, [`crate::set_image_aside`] repairs it.
    pub image: Vec<String>,
    /// What is no damage and worth knowing: a torn end, for example, which was never acknowledged.
    pub notes: Vec<String>,
    /// The bytes of the attachments that the journal keeps, by their commits. All of them were read.
    pub attachments: BTreeMap<Lsn, u64>,
    /// The attachments that do not match their checksums. Their commits stand.
    pub damaged: Vec<DamagedAttachment>,
}

/// An attachment that does not match its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedAttachment {
    /// Its commit.
    pub lsn: Lsn,
    /// The file and the bytes of it.
    pub place: String,
}
