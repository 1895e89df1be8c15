//! Writers: a principal and a client id, interned as a small number.
//!
//! Every extent names its writer. Two strings would be most of an extent's bytes, so the map holds each pair once,
//! under a number, and finds the number by the pair. Principals are interned in the same way, and stay: the broker
//! chooses them, so they are few. Client ids come from clients. A pair is counted by the extents that name it, and is
//! freed with the last of them.
//!
//! ```text
//! key 4 Identity         writer number            -> principal number, client id
//! key 6 Principal        principal number         -> name
//! key 7 PrincipalNumber  name                     -> principal number
//! key 8 IdentityNumber   principal number | client id -> writer number
//! key 9 NamedBy          writer number            -> live extents that name the writer
//! ```
//! Version 1 of kind 4 had the principal's name, and kind 5 found it by both names. Nothing counted the extents of
//! these writers, so they stay, and nothing finds them by name any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use floe_meta::key::{Key, KeyReader};
use floe_meta::key::{put_str, put_u32};
use floe_meta::{Counter, CounterKey, DecodeError, Lookup, MapRecord, Tx, postcard_record};
use floe_meta::{put_postcard, take_postcard};
use serde::{Deserialize, Serialize};

use crate::map::extent::Extent;
use crate::map::ids::WriterId;

/// Pairs that are kept apart at a time. Beyond them, new client ids share [`OTHER_CLIENTS`] until old ones are freed,
/// so that clients cannot fill the metadata map. Principals stay apart, because clients do not choose them.
pub const WRITERS_MAX: u64 = 65_536;
/// The client id that late writers of a full cluster share.
pub const OTHER_CLIENTS: &str = "(other clients)";
/// Bytes of a principal or client id; longer texts are cut.
pub const WRITER_TEXT_BYTES_MAX: usize = 255;

/// Numbers given to writers so far.
const NUMBERS: CounterKey = CounterKey::named("writer");
/// Writers that live extents name.
const WRITERS: CounterKey = CounterKey::named("writers named");
const PRINCIPALS: CounterKey = CounterKey::named("principal");

/// A writer: the principal that the broker authenticated, and the client id that the client chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// Set by the broker, never by the client.
    pub principal: Arc<str>,
    /// The name that the client gave itself.
    pub client_id: Arc<str>,
}

/// Whether a key of the metadata map is that of a writer's name, or of a principal's. [`Writer::by_id`] needs no
/// others.
pub fn names_writer(key: &[u8]) -> bool {
    matches!(key.first(), Some(&Identity::KIND | &Principal::KIND))
}

impl Writer {
    /// A writer of this principal and client id, each cut to [`WRITER_TEXT_BYTES_MAX`] bytes.
    pub fn new(principal: &str, client_id: &str) -> Writer {
        Writer { principal: cut(principal).into(), client_id: cut(client_id).into() }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(WRITER_TEXT_BYTES_MAX)]
}

/// A principal, numbered from 1. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct PrincipalId(u32);

impl Key for PrincipalId {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.0);
    }
    fn decode(bytes: &[u8]) -> Result<PrincipalId, DecodeError> {
        u32::decode(bytes).map(PrincipalId)
    }
}

/// A writer by its number (kind 4).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// As version 1 has it.
    Named {
        principal: String,
        client_id: String,
    },
    Interned {
        principal: PrincipalId,
        client_id: String,
    },
}

impl MapRecord for Identity {
    const KIND: u8 = 4;
    const VERSION: u8 = 2;
    type Key = WriterId;
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Identity::Interned { principal, client_id } => put_postcard(&(principal, client_id), out),
            Identity::Named { .. } => unreachable!("writers of version 1 are only read"),
        }
    }
    fn decode(version: u8, body: &[u8]) -> Result<Identity, DecodeError> {
        if version == 1 {
            let (principal, client_id) = take_postcard(body)?;
            return Ok(Identity::Named { principal, client_id });
        }
        let (principal, client_id) = take_postcard(body)?;
        Ok(Identity::Interned { principal, client_id })
    }
}

/// The name of a principal (kind 6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Principal {
    name: String,
}

/// The number of a principal (kind 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PrincipalNumber(PrincipalId);

/// The number of a writer (kind 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdentityNumber(WriterId);

/// The live extents that name a writer (kind 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct NamedBy {
    extents: u64,
}

postcard_record!(Principal, 6, 1, PrincipalId);
postcard_record!(PrincipalNumber, 7, 1, String);
postcard_record!(IdentityNumber, 8, 1, WriterKey);
postcard_record!(NamedBy, 9, 1, WriterId);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WriterKey {
    principal: PrincipalId,
    client_id: String,
}

impl Key for WriterKey {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.principal.0);
        put_str(out, &self.client_id);
    }
    fn decode(bytes: &[u8]) -> Result<WriterKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let key = WriterKey { principal: PrincipalId(reader.u32()?), client_id: reader.string()? };
        reader.finish().map(|()| key)
    }
}

impl Writer {
    /// Command: returns the number of this writer for `extents` new extents that will name it, and assigns one first if
    /// it has none.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn intern(&self, tx: &mut Tx<'_>, extents: u32) -> Result<WriterId, DecodeError> {
        intern_bounded(tx, cut(&self.principal), cut(&self.client_id), extents, WRITERS_MAX)
    }

    /// The writer with a number; `None` if the number was never assigned, or its writer was freed.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn by_id(map: &impl Lookup, id: WriterId) -> Result<Option<Writer>, DecodeError> {
        match map.get::<Identity>(&id)? {
            None => Ok(None),
            Some(Identity::Named { principal, client_id }) => Ok(Some(Writer::new(&principal, &client_id))),
            Some(Identity::Interned { principal, client_id }) => {
                let found = map.get::<Principal>(&principal)?;
                let Principal { name } = found.ok_or_else(|| {
                    DecodeError::corrupt(format!("the principal of writer {id} is missing"))
                })?;
                Ok(Some(Writer::new(&name, &client_id)))
            }
        }
    }
}

/// Command: so many more extents name a writer that has a number.
///
/// # Errors
/// A record cannot be read, or no extent names the writer yet.
pub(crate) fn retain(tx: &mut Tx<'_>, id: WriterId, extents: u64) -> Result<(), DecodeError> {
    match tx.get::<NamedBy>(&id)? {
        Some(named) => tx.put(&id, &NamedBy { extents: named.extents + extents }),
        // A writer of version 1 is not counted.
        None if tx.get::<Identity>(&id)?.is_some() => {}
        None => return Err(DecodeError::corrupt(format!("writer {id} has extents but no name"))),
    }
    Ok(())
}

/// Command: so many extents that named a writer are gone. Frees the writer with the last of them.
///
/// # Errors
/// A record cannot be read, or the count exceeds what the map says.
pub(crate) fn release(tx: &mut Tx<'_>, id: WriterId, extents: u64) -> Result<(), DecodeError> {
    let Some(named) = tx.get::<NamedBy>(&id)? else {
        return Ok(()); // a writer of version 1
    };
    let left = named.extents.checked_sub(extents);
    let left =
        left.ok_or_else(|| DecodeError::corrupt(format!("writer {id} has fewer extents than were freed")))?;
    if left > 0 {
        tx.put(&id, &NamedBy { extents: left });
        return Ok(());
    }
    if let Some(Identity::Interned { principal, client_id }) = tx.get::<Identity>(&id)? {
        tx.delete::<IdentityNumber>(&WriterKey { principal, client_id });
    }
    tx.delete::<Identity>(&id);
    tx.delete::<NamedBy>(&id);
    let Counter(writers) = tx.get(&WRITERS)?.unwrap_or_default();
    tx.put(&WRITERS, &Counter(writers.saturating_sub(1)));
    Ok(())
}

/// Writers that live extents name.
///
/// # Errors
/// The count cannot be read.
pub(crate) fn writers(map: &impl Lookup) -> Result<u64, DecodeError> {
    Ok(map.get::<Counter>(&WRITERS)?.unwrap_or_default().0)
}

/// Writers whose count differs from the extents that name them, for checkers. Looks at every extent.
///
/// # Errors
/// A record cannot be read.
pub fn miscounted(map: &impl Lookup) -> Result<Vec<String>, DecodeError> {
    let mut named: BTreeMap<WriterId, u64> = BTreeMap::new();
    for pair in map.range::<Extent>(..) {
        if let Some(writer) = pair?.1.writer() {
            *named.entry(writer).or_default() += 1;
        }
    }
    let mut counted = BTreeMap::new();
    for pair in map.range::<NamedBy>(..) {
        let (id, NamedBy { extents }) = pair?;
        counted.insert(id, extents);
    }
    let mut wrong = Vec::new();
    for id in named.keys().chain(counted.keys()).collect::<BTreeSet<_>>() {
        let (named, counted) = (named.get(id), counted.get(id));
        if named != counted || Writer::by_id(map, *id)?.is_none() {
            wrong.push(format!("writer {id} is named by {named:?} extents and counted as {counted:?}"));
        }
    }
    let (writers, count) = (writers(map)?, counted.len() as u64);
    if writers != count {
        wrong.push(format!("{count} writers are counted as {writers}"));
    }
    Ok(wrong)
}

fn intern_bounded(
    tx: &mut Tx<'_>,
    principal: &str,
    client_id: &str,
    extents: u32,
    writers_max: u64,
) -> Result<WriterId, DecodeError> {
    let principal = intern_principal(tx, principal)?;
    let id = number(tx, principal, client_id, writers_max)?;
    let named = tx.get::<NamedBy>(&id)?.unwrap_or_default();
    tx.put(&id, &NamedBy { extents: named.extents + u64::from(extents) });
    Ok(id)
}

fn intern_principal(tx: &mut Tx<'_>, name: &str) -> Result<PrincipalId, DecodeError> {
    let name = name.to_owned();
    if let Some(PrincipalNumber(id)) = tx.get::<PrincipalNumber>(&name)? {
        return Ok(id);
    }
    let number = tx.next_counter(&PRINCIPALS)?;
    let id = PrincipalId(u32::try_from(number).expect("there are far fewer principals than 2^32"));
    tx.put(&name, &PrincipalNumber(id));
    tx.put(&id, &Principal { name });
    Ok(id)
}

fn number(
    tx: &mut Tx<'_>,
    principal: PrincipalId,
    client_id: &str,
    writers_max: u64,
) -> Result<WriterId, DecodeError> {
    let key = WriterKey { principal, client_id: client_id.to_owned() };
    if let Some(IdentityNumber(id)) = tx.get::<IdentityNumber>(&key)? {
        return Ok(id);
    }
    let writers = writers(tx)?;
    if writers >= writers_max && client_id != OTHER_CLIENTS {
        return number(tx, principal, OTHER_CLIENTS, writers_max);
    }
    let id = free_number(tx)?;
    tx.put(&id, &Identity::Interned { principal, client_id: key.client_id.clone() });
    tx.put(&key, &IdentityNumber(id));
    tx.put(&WRITERS, &Counter(writers + 1));
    Ok(id)
}

/// A number that names no writer. After 2^32 of them they are given again; most are free by then.
fn free_number(tx: &mut Tx<'_>) -> Result<WriterId, DecodeError> {
    loop {
        let number = tx.next_counter(&NUMBERS)? & u64::from(u32::MAX);
        let id = WriterId(u32::try_from(number).expect("it has 32 bits"));
        if tx.get::<Identity>(&id)?.is_none() {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use floe_meta::{Envelope, Snapshot};

    use super::*;

    fn in_tx(test: impl FnOnce(&mut Tx<'_>)) {
        let (snapshot, envelope) = (Snapshot::default(), Envelope::broker("test"));
        test(&mut Tx::new(&snapshot, &envelope));
    }

    #[test]
    fn writers_are_interned_once_and_bounded() {
        in_tx(|tx| {
            let alice = Writer::new("alice", "a").intern(tx, 1).unwrap();
            assert_eq!(alice, WriterId(1));
            assert_eq!(Writer::new("alice", "a").intern(tx, 1).unwrap(), alice);
            assert_eq!(Writer::new("alic", "ea").intern(tx, 1).unwrap(), WriterId(2));
            assert_eq!(Writer::by_id(tx, alice).unwrap(), Some(Writer::new("alice", "a")));
            assert_eq!(Writer::by_id(tx, WriterId(3)).unwrap(), None);

            let other = intern_bounded(tx, "bob", "b", 1, 2).unwrap();
            assert_eq!(Writer::by_id(tx, other).unwrap(), Some(Writer::new("bob", OTHER_CLIENTS)));
            assert_eq!(intern_bounded(tx, "bob", "c", 1, 2).unwrap(), other, "new client ids share one");
            assert_ne!(intern_bounded(tx, "carol", "c", 1, 2).unwrap(), other, "principals never do");
            assert_eq!(intern_bounded(tx, "alice", "a", 1, 2).unwrap(), alice, "old ones keep theirs");
        });
    }

    #[test]
    fn a_writer_is_freed_with_the_last_extent_and_makes_room() {
        in_tx(|tx| {
            let alice = intern_bounded(tx, "alice", "a", 2, 1).unwrap();
            assert_eq!(intern_bounded(tx, "alice", "a", 1, 1).unwrap(), alice);
            let shared = intern_bounded(tx, "alice", "b", 1, 1).unwrap();
            assert_eq!((shared, writers(tx).unwrap()), (WriterId(2), 2));
            release(tx, alice, 2).unwrap();
            assert_eq!(Writer::by_id(tx, alice).unwrap(), Some(Writer::new("alice", "a")));
            release(tx, alice, 1).unwrap();
            assert_eq!(Writer::by_id(tx, alice).unwrap(), None);
            assert!(release(tx, shared, 2).is_err(), "more than there are");
            release(tx, shared, 1).unwrap();
            assert_eq!(writers(tx).unwrap(), 0);
            let again = intern_bounded(tx, "alice", "b", 1, 1).unwrap();
            assert_eq!(
                Writer::by_id(tx, again).unwrap(),
                Some(Writer::new("alice", "b")),
                "it has its own now"
            );
            assert_eq!(again, WriterId(3), "no number is given twice");
        });
    }

    #[test]
    fn numbers_in_use_are_passed_over_when_they_come_again() {
        in_tx(|tx| {
            tx.put(&NUMBERS, &Counter(u64::from(u32::MAX)));
            assert_eq!(Writer::new("alice", "a").intern(tx, 1).unwrap(), WriterId(0));
            tx.put(&NUMBERS, &Counter(u64::from(u32::MAX)));
            assert_eq!(Writer::new("alice", "b").intern(tx, 1).unwrap(), WriterId(1));
        });
    }

    /// A writer as version 1 wrote it is still found by its number, and stays when its extents go.
    #[test]
    fn a_writer_of_version_1_is_read() {
        let body = b"\x0aUser:alice\x06loader";
        let alice = Identity::decode(1, body).unwrap();
        assert_eq!(alice, Identity::Named { principal: "User:alice".into(), client_id: "loader".into() });
        in_tx(|tx| assert_eq!(release(tx, WriterId(1), 1), Ok(())));
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let writer = Writer::new(&"ä".repeat(200), &"x".repeat(1000));
        assert_eq!(writer.principal.len(), 254);
        assert_eq!(writer.client_id.len(), WRITER_TEXT_BYTES_MAX);
    }
}
