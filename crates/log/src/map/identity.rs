//! Writers: a principal and a client id, interned as a small number.
//!
//! Every extent names its writer. Two strings would be most of an extent's bytes, so the map holds each pair once,
//! under a number, and finds the number by the pair.

use std::sync::Arc;

use floe_meta::key::put_str;
use floe_meta::key::{Key, KeyReader};
use floe_meta::{CounterKey, DecodeError, Lookup, Tx, postcard_record};
use serde::{Deserialize, Serialize};

use crate::map::ids::WriterId;

/// Pairs that are kept apart. Beyond them, new client ids share [`OTHER_CLIENTS`], so that clients cannot fill the
/// metadata map. Principals stay apart, because clients do not choose them.
pub const WRITERS_MAX: u64 = 65_536;
/// The client id that late writers of a full cluster share.
pub const OTHER_CLIENTS: &str = "(other clients)";
/// Bytes of a principal or client id; longer texts are cut.
pub const WRITER_TEXT_BYTES_MAX: usize = 255;

const COUNTER: CounterKey = CounterKey::named("writer");

/// A writer: the principal that the broker authenticated, and the client id that the client chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// Set by the broker, never by the client.
    pub principal: Arc<str>,
    /// The name that the client gave itself.
    pub client_id: Arc<str>,
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

/// A writer by its number (kind 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    principal: String,
    client_id: String,
}

/// The number of a writer (kind 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdentityNumber(WriterId);

postcard_record!(Identity, 4, 1, WriterId);
postcard_record!(IdentityNumber, 5, 1, WriterKey);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WriterKey {
    principal: String,
    client_id: String,
}

impl Key for WriterKey {
    fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, &self.principal);
        put_str(out, &self.client_id);
    }
    fn decode(bytes: &[u8]) -> Result<WriterKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let key = WriterKey { principal: reader.string()?, client_id: reader.string()? };
        reader.finish().map(|()| key)
    }
}

impl Writer {
    /// Command: returns the number of this writer, and assigns one first if it has none.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn intern(&self, tx: &mut Tx<'_>) -> Result<WriterId, DecodeError> {
        intern_bounded(tx, cut(&self.principal), cut(&self.client_id), WRITERS_MAX)
    }

    /// The writer with a number; `None` if the number was never assigned.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn by_id(map: &impl Lookup, id: WriterId) -> Result<Option<Writer>, DecodeError> {
        Ok(map.get::<Identity>(&id)?.map(|found| Writer::new(&found.principal, &found.client_id)))
    }
}

fn intern_bounded(
    tx: &mut Tx<'_>,
    principal: &str,
    client_id: &str,
    writers_max: u64,
) -> Result<WriterId, DecodeError> {
    let key = WriterKey { principal: principal.to_owned(), client_id: client_id.to_owned() };
    if let Some(IdentityNumber(id)) = tx.get::<IdentityNumber>(&key)? {
        return Ok(id);
    }
    let given = tx.get::<floe_meta::Counter>(&COUNTER)?.unwrap_or_default().0;
    if given >= writers_max && client_id != OTHER_CLIENTS {
        return intern_bounded(tx, principal, OTHER_CLIENTS, writers_max);
    }
    let number = tx.next_counter(&COUNTER)?;
    let id = WriterId(u32::try_from(number).expect("there are far fewer principals than 2^32"));
    tx.put(&id, &Identity { principal: key.principal.clone(), client_id: key.client_id.clone() });
    tx.put(&key, &IdentityNumber(id));
    Ok(id)
}

#[cfg(test)]
mod tests {
    use floe_meta::{Envelope, Snapshot};

    use super::*;

    #[test]
    fn writers_are_interned_once_and_bounded() {
        let (snapshot, envelope) = (Snapshot::default(), Envelope::broker("test"));
        let mut tx = Tx::new(&snapshot, &envelope);
        let alice = Writer::new("alice", "a").intern(&mut tx).unwrap();
        assert_eq!(alice, WriterId(1));
        assert_eq!(Writer::new("alice", "a").intern(&mut tx).unwrap(), alice);
        assert_eq!(Writer::new("alic", "ea").intern(&mut tx).unwrap(), WriterId(2));
        assert_eq!(Writer::by_id(&tx, alice).unwrap(), Some(Writer::new("alice", "a")));
        assert_eq!(Writer::by_id(&tx, WriterId(3)).unwrap(), None);

        let other = intern_bounded(&mut tx, "bob", "b", 2).unwrap();
        assert_eq!(Writer::by_id(&tx, other).unwrap(), Some(Writer::new("bob", OTHER_CLIENTS)));
        assert_eq!(intern_bounded(&mut tx, "bob", "c", 2).unwrap(), other, "new client ids share one");
        assert_ne!(intern_bounded(&mut tx, "carol", "c", 2).unwrap(), other, "principals never do");
        assert_eq!(intern_bounded(&mut tx, "alice", "a", 2).unwrap(), alice, "old ones keep theirs");
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let writer = Writer::new(&"ä".repeat(200), &"x".repeat(1000));
        assert_eq!(writer.principal.len(), 254);
        assert_eq!(writer.client_id.len(), WRITER_TEXT_BYTES_MAX);
    }
}
