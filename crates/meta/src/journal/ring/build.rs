//! Makes a ring that goes on where another journal has ended: its map is the image, its entries are the history.

use floe_env::{Disk, Env};

use super::error::RingOpenError;
use super::file::{FileHeader, IMAGES, Position, RING, prepare};
use super::frame::BLOCK;
use super::keeper::{HISTORY, image_name};
use super::pages::{PagesHeader, PagesKind, pair_of_entry};
use super::past::read_image;
use super::recovery::NO_LINK;
use super::state::RingOptions;
use super::store::{PagesSink, Unread};
use crate::journal::{Entry, Lsn};
use crate::snapshot::Snapshot;

/// The directories of a ring.
pub(crate) const DIRECTORIES: [&str; 3] = [RING, IMAGES, HISTORY];

/// A ring in the making. Nothing of it counts before it is moved to its place as a whole.
pub(crate) struct Builder<'a> {
    env: &'a Env,
    disk: &'a dyn Disk,
    options: RingOptions,
    journal: u64,
    first: Lsn,
    /// The next commit of the history.
    due: Lsn,
}

impl<'a> Builder<'a> {
    /// Begins a ring on an empty disk whose history begins with commit `first`.
    pub(crate) fn begin(
        env: &'a Env,
        disk: &'a dyn Disk,
        options: RingOptions,
        first: Lsn,
    ) -> Result<Builder<'a>, RingOpenError> {
        for directory in DIRECTORIES {
            disk.create_dir(directory)?;
        }
        Ok(Builder { env, disk, options, journal: env.random_u64(), first, due: first })
    }

    /// Writes the next entries as one part of the history.
    pub(crate) fn part(&mut self, entries: &[Entry]) -> Result<(), RingOpenError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        assert_eq!(first.lsn, self.due, "parts follow one another");
        let position = position(last.lsn);
        let header =
            PagesHeader { kind: PagesKind::History, journal: self.journal, first: first.lsn, position };
        let name = format!("{:016x}-{:016x}", first.lsn.0, last.lsn.0);
        let mut sink = PagesSink::begin(self.disk, HISTORY, &name, &header, &|| ())?;
        for entry in entries {
            let (key, value) = pair_of_entry(entry);
            sink.writer()?.pair(&key, &value);
        }
        let written = sink.finish(false);
        written.map_err(|error| read_back(&name, error))?;
        self.due = last.lsn.next();
        Ok(())
    }

    /// Writes the image of the map at the last commit of the history, and reads it back. The next commit follows.
    pub(crate) fn image(self, map: &Snapshot) -> Result<(), RingOpenError> {
        let Builder { env, disk, options, journal, first, due } = self;
        let capacity = options.first_bytes.min(options.file_bytes);
        let file = FileHeader { journal, generation: 1, nonce: env.random_u64(), capacity };
        prepare(disk, 1, file, false, &|| ())?;
        let position = position(Lsn(due.0 - 1));
        let header = PagesHeader { kind: PagesKind::Image, journal, first, position };
        let name = image_name(position.lsn, 1);
        let mut sink = PagesSink::begin(disk, IMAGES, &name, &header, &|| ())?;
        for (key, value) in map.pairs() {
            sink.writer()?.pair(key, value);
        }
        let image = sink.finish(false).map_err(|error| read_back(&name, error))?;
        let (pairs, _) = read_image(&image).map_err(|error| read_back(&name, error))?;
        match pairs.iter().map(|(key, value)| (key, value)).eq(map.pairs()) {
            true => Ok(()),
            false => Err(std::io::Error::other(format!("{name} is not what was written")).into()),
        }
    }
}

/// Where a log begins whose next commit follows `last`.
fn position(last: Lsn) -> Position {
    Position { lsn: last, generation: 1, frame: 0, next: BLOCK, link: NO_LINK }
}

fn read_back(name: &str, error: Unread) -> RingOpenError {
    match error {
        Unread::Io(error) => error.into(),
        Unread::Damaged(error) => {
            std::io::Error::other(format!("{name} was written, and is damaged: {error}")).into()
        }
    }
}
