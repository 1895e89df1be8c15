//! Which numbers were whose at a commit. Extents name writers and topics by number, and numbers of writers are freed,
//! so the map of today does not say who wrote what then.
//!
//! The names are a part of the metadata map as of a commit: the records of writers, principals, topics, deleted
//! topics, and parts of removed records, as they are. They are kept in the newest object of the history, because rows
//! are made of the entries after it.
//!
//! ```text
//! names   u8 version = 1 | zstd (postcard [(key bytes, value bytes)])
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use floe_log::{TopicId, Writer, WriterId, deleted, names_writer, removed, topic};
use floe_meta::{Change, DecodeError, Lookup};
use uuid::Uuid;

use crate::limits::NAMES_BYTES_MAX;

const VERSION: u8 = 1;
/// The level of zstd.
const LEVEL: i32 = 3;

/// Which numbers were whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    records: BTreeMap<Bytes, Bytes>,
}

impl Lookup for Names {
    fn raw_value(&self, key: &[u8]) -> Option<&Bytes> {
        self.records.get(key)
    }

    fn raw_pairs(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Box<dyn DoubleEndedIterator<Item = (&Bytes, &Bytes)> + Send + '_> {
        Box::new(self.records.range(start..end))
    }
}

fn is_name(key: &[u8]) -> bool {
    names_writer(key) || topic::is_topic(key) || deleted::is_deleted(key) || removed::is_removed(key)
}

/// A topic that a number means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: Arc<str>,
    /// Its number. That of removed records means the topic that lost them.
    pub(crate) id: TopicId,
    /// The Kafka topic id under which removed records can come back.
    pub(crate) removed: Option<Uuid>,
}

impl Names {
    /// Takes in what a commit wrote. Names that it removed are still there for the rows of this commit.
    pub(crate) fn write(&mut self, changes: &[Change]) {
        for change in changes.iter().filter(|change| is_name(&change.key)) {
            if let Some(value) = &change.value {
                self.records.insert(change.key.clone(), value.clone());
            }
        }
    }

    /// Takes in what a commit removed.
    pub(crate) fn remove(&mut self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.value.is_none()) {
            self.records.remove(&change.key);
        }
    }

    /// The writer with a number.
    pub(crate) fn writer(&self, id: WriterId) -> Result<Option<Writer>, DecodeError> {
        Writer::by_id(self, id)
    }

    /// The topic with a number, or the deleted one that can come back.
    pub(crate) fn topic(&self, id: TopicId) -> Result<Option<Named>, DecodeError> {
        if let Some(found) = topic::by_id(self, id)? {
            return Ok(Some(Named { name: found.name.into(), id, removed: None }));
        }
        let Some(found) = deleted::by_id(self, id)? else { return Ok(None) };
        let removed = found.removed.map(|_| found.topic.uuid());
        let id = found.removed.map_or(id, |removed| removed.of);
        Ok(Some(Named { name: found.topic.name.into(), id, removed }))
    }

    /// The bytes that an object keeps.
    ///
    /// # Errors
    /// They cannot be compressed.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let pairs: Vec<(&Bytes, &Bytes)> = self.records.iter().collect();
        let mut body = Vec::new();
        floe_meta::put_postcard(&pairs, &mut body);
        let mut out = vec![VERSION];
        out.extend(zstd::bulk::compress(&body, LEVEL)?);
        Ok(out)
    }

    /// Reads what [`Names::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are damaged, or a newer floe wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Names, DecodeError> {
        let (version, body) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        if *version != VERSION {
            return Err(DecodeError::corrupt(format!(
                "names of version {version}, this build knows {VERSION}: a newer floe wrote them"
            )));
        }
        let body = decompress(body).map_err(|error| DecodeError::corrupt(error.to_string()))?;
        let pairs: Vec<(Bytes, Bytes)> = floe_meta::take_postcard(&body)?;
        Ok(Names { records: pairs.into_iter().collect() })
    }
}

/// Reads as much as there is, and no more than the limit.
fn decompress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut body = Vec::new();
    let limit = NAMES_BYTES_MAX as u64 + 1;
    zstd::stream::read::Decoder::new(bytes)?.take(limit).read_to_end(&mut body)?;
    match body.len() > NAMES_BYTES_MAX {
        true => Err(std::io::Error::other(format!("names are larger than {NAMES_BYTES_MAX} bytes"))),
        false => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static [u8], value: &'static [u8]) -> Change {
        Change { key: Bytes::from_static(key), value: Some(Bytes::from_static(value)) }
    }

    #[test]
    fn only_names_are_kept_until_they_are_removed() {
        let mut names = Names::default();
        names.write(&[put(b"\x04\x00\x00\x00\x07", b"\x02\x01\x01c"), put(b"\x0cother", b"x")]);
        names.write(&[put(b"\x06\x00\x00\x00\x01", b"\x01\x05alice")]);
        assert_eq!(names.writer(WriterId(7)), Ok(Some(Writer::new("alice", "c"))));
        assert_eq!(names.writer(WriterId(8)), Ok(None));
        let read = Names::decode(&names.encode().expect("it is small"));
        assert_eq!(read, Ok(names.clone()));
        names.remove(&[Change { key: Bytes::from_static(b"\x04\x00\x00\x00\x07"), value: None }]);
        assert_eq!(names.writer(WriterId(7)), Ok(None));
        assert_ne!(read, Ok(names));
    }

    #[test]
    fn broken_bytes_are_refused() {
        assert_eq!(Names::decode(&[]), Err(DecodeError::Truncated));
        assert!(Names::decode(&[2]).expect_err("it is newer").to_string().contains("newer floe"));
        let bytes = Names::default().encode().expect("it is small");
        assert!(Names::decode(&bytes[..bytes.len() - 1]).is_err());
        // A small frame of very many zeros.
        let mut bomb = vec![VERSION];
        bomb.extend(zstd::bulk::compress(&vec![0; NAMES_BYTES_MAX + 1], LEVEL).expect("it is compressed"));
        assert!(Names::decode(&bomb).expect_err("it is too large").to_string().contains("larger than"));
    }
}
