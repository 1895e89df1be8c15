//! What the bytes of an extent are read from.

use std::fmt;

use floe_meta::Lsn;

use crate::map::extent::{Data, Place};
use crate::map::ids::ObjectId;

/// An object in the store, or the bytes that ride with a commit in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Object(ObjectId),
    Frame(Lsn),
}

impl Source {
    pub(crate) fn of(data: &Data) -> Source {
        match data.place {
            Place::Object(object) => Source::Object(object),
            Place::Frame => Source::Frame(data.lsn),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Object(object) => write!(f, "object {object}"),
            Source::Frame(lsn) => write!(f, "the bytes of commit {lsn}"),
        }
    }
}
