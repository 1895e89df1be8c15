//! Sessions: which brokers are at work, and which snapshots they still use.
//!
//! A broker has one session, under its writer number. The cleaner deletes an object only when no session uses a
//! snapshot that refers to it, so a reader keeps what its snapshot names for as long as it reads.
//!
//! ```text
//! key 23 Session   writer number -> epoch, renewal, oldest snapshot in use, format level
//! ```
//! A session says that nobody in its broker uses a snapshot before [`Session::oldest`], and nobody ever will: a map
//! never goes back, and readers begin with the newest one. So the word may be old, which only keeps objects longer. It
//! is renewed in commits that the broker makes anyway. Where several brokers share a map, an idle one makes a commit of
//! its own now and then; a lone one does not.
//!
//! As with leases, no wall clock decides when a session is over. Another broker ends it when it has seen no renewal for
//! the time to live, on its own monotonic clock. A broker whose session was ended while it slept begins it anew, under
//! the next epoch. Readers that were at work meanwhile may find that an object is gone.

use floe_env::Timestamp;
use floe_meta::{DecodeError, Lookup, Lsn, Tx, postcard_record};
use serde::{Deserialize, Serialize};

use crate::map::format_level::{self, FormatLevel};
use crate::map::writer_number::WriterNumber;

/// A broker at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    /// How often the session began: 1, and one more after it was ended while its broker lived.
    pub epoch: u64,
    /// Grows with every renewal, so that others see one. Nobody compares it with a clock.
    pub renewed: Timestamp,
    /// The broker uses no snapshot before this commit.
    pub oldest: Lsn,
    /// The highest format level that the broker takes part in.
    pub level: FormatLevel,
}

postcard_record!(Session, 23, 1, WriterNumber);

/// The least by which a renewal moves [`Session::renewed`].
const RENEWED_MS: i64 = 1;

/// Part of a command: begins a session. Raises the format level to what all sessions take part in.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn begin(
    tx: &mut Tx<'_>,
    number: WriterNumber,
    epoch: u64,
    oldest: Lsn,
    level: FormatLevel,
) -> Result<(), DecodeError> {
    tx.put(&number, &Session { epoch, renewed: tx.now(), oldest, level });
    let levels = tx.range::<Session>(..).map(|pair| pair.map(|(_, session)| session.level));
    let lowest = levels.collect::<Result<Vec<_>, _>>()?.into_iter().min();
    format_level::raise(tx, lowest.unwrap_or(level))
}

/// Part of a command: renews a session. Returns `false` if it was ended.
///
/// # Errors
/// The record cannot be read.
pub(crate) fn renew(
    tx: &mut Tx<'_>,
    number: WriterNumber,
    epoch: u64,
    oldest: Lsn,
) -> Result<bool, DecodeError> {
    let found = tx.get::<Session>(&number)?.filter(|session| session.epoch == epoch);
    let Some(session) = found else { return Ok(false) };
    // Every renewal changes the record, also while the time of commits stands still.
    let renewed = Timestamp(session.renewed.0.saturating_add(RENEWED_MS)).max(tx.now());
    tx.put(&number, &Session { renewed, oldest: oldest.max(session.oldest), ..session });
    Ok(true)
}

/// Part of a command: ends a session if it is still as somebody saw it.
///
/// # Errors
/// The record cannot be read.
pub(crate) fn end(tx: &mut Tx<'_>, number: WriterNumber, seen: Session) -> Result<(), DecodeError> {
    if tx.get::<Session>(&number)? == Some(seen) {
        tx.delete::<Session>(&number);
    }
    Ok(())
}

/// Part of a command: ends all sessions, at the start of the one process that may use the journal.
///
/// # Errors
/// A record cannot be read.
pub(crate) fn end_all(tx: &mut Tx<'_>) -> Result<(), DecodeError> {
    for (number, _) in all(tx)? {
        tx.delete::<Session>(&number);
    }
    Ok(())
}

/// All sessions.
///
/// # Errors
/// A record cannot be read.
pub fn all(map: &impl Lookup) -> Result<Vec<(WriterNumber, Session)>, DecodeError> {
    map.range::<Session>(..).collect()
}

/// No broker uses a snapshot before this commit; none if there is no session.
///
/// # Errors
/// A record cannot be read.
pub fn oldest(map: &impl Lookup) -> Result<Option<Lsn>, DecodeError> {
    Ok(all(map)?.into_iter().map(|(_, session)| session.oldest).min())
}

#[cfg(test)]
mod tests {
    use floe_meta::{Envelope, MapRecord as _, Snapshot};

    use super::*;
    use crate::map::format_level::{FIRST, NEWEST};

    const A: WriterNumber = WriterNumber(1);
    const B: WriterNumber = WriterNumber(2);

    // Users' journals hold these bytes, so they never change.
    #[test]
    fn sessions_are_as_they_were() {
        let session = Session { epoch: 300, renewed: Timestamp(300), oldest: Lsn(5), level: FormatLevel(2) };
        let mut body = Vec::new();
        session.encode(&mut body);
        assert_eq!((Session::KIND, Session::VERSION), (23, 1));
        assert_eq!(body, [0xac, 0x02, 0xd8, 0x04, 5, 2], "persisted: a change needs a new version");
        assert_eq!(Session::decode(1, &body), Ok(session));
    }

    fn in_tx(test: impl FnOnce(&mut Tx<'_>)) {
        let (snapshot, envelope) = (Snapshot::default(), Envelope::broker("test"));
        test(&mut Tx::new(&snapshot, &envelope));
    }

    #[test]
    fn the_oldest_snapshot_of_all_counts_and_never_goes_back() {
        in_tx(|tx| {
            assert_eq!(oldest(tx), Ok(None));
            begin(tx, A, 1, Lsn(5), NEWEST).unwrap();
            begin(tx, B, 1, Lsn(9), NEWEST).unwrap();
            assert_eq!(oldest(tx), Ok(Some(Lsn(5))));
            assert_eq!(renew(tx, A, 1, Lsn(20)), Ok(true));
            assert_eq!(oldest(tx), Ok(Some(Lsn(9))));
            assert_eq!(renew(tx, B, 1, Lsn(3)), Ok(true));
            assert_eq!(oldest(tx), Ok(Some(Lsn(9))));
        });
    }

    #[test]
    fn a_session_that_was_renewed_is_not_ended() {
        in_tx(|tx| {
            begin(tx, A, 1, Lsn(5), NEWEST).unwrap();
            let seen = tx.get::<Session>(&A).unwrap().unwrap();
            // The time of commits stands still.
            assert_eq!(renew(tx, A, 1, Lsn(5)), Ok(true));
            end(tx, A, seen).unwrap();
            let seen = tx.get::<Session>(&A).unwrap().expect("it is there");
            end(tx, A, seen).unwrap();
            assert_eq!(all(tx), Ok(Vec::new()));
            assert_eq!(renew(tx, A, 1, Lsn(7)), Ok(false), "its broker has to begin it anew");
            begin(tx, A, 2, Lsn(7), NEWEST).unwrap();
            assert_eq!(renew(tx, A, 1, Lsn(8)), Ok(false), "a word from before");
            end_all(tx).unwrap();
            assert_eq!(oldest(tx), Ok(None));
        });
    }

    #[test]
    fn the_level_rises_when_all_sessions_take_part() {
        in_tx(|tx| {
            begin(tx, A, 1, Lsn(1), FIRST).unwrap();
            begin(tx, B, 1, Lsn(1), NEWEST).unwrap();
            assert_eq!(format_level::get(tx), Ok(FIRST));
            begin(tx, A, 1, Lsn(1), NEWEST).unwrap();
            assert_eq!(format_level::get(tx), Ok(NEWEST));
            begin(tx, A, 1, Lsn(1), FIRST).unwrap();
            assert_eq!(format_level::get(tx), Ok(NEWEST), "it never falls");
        });
    }
}
