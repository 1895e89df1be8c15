//! Counters: each number is assigned once.

use crate::error::DecodeError;
use crate::key::{Key, KeyReader, put_str};

/// The key of a counter: its name, for example `topic`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey(pub std::borrow::Cow<'static, str>);

impl CounterKey {
    /// A counter with a constant name.
    pub const fn named(name: &'static str) -> CounterKey {
        CounterKey(std::borrow::Cow::Borrowed(name))
    }
}

impl Key for CounterKey {
    fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, &self.0);
    }
    fn decode(bytes: &[u8]) -> Result<CounterKey, DecodeError> {
        let mut reader = KeyReader::new(bytes);
        let name = reader.string()?;
        reader.finish().map(|()| CounterKey(name.into()))
    }
}

/// The last assigned number; 0 before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counter(pub u64);

crate::postcard_record!(Counter, 2, 1, CounterKey);
