//! A parsed JSON value that keeps the order of its members: columns get the order in which people wrote their keys.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use crate::{limits, text};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    /// A whole number within 64 bits.
    Whole(i64),
    /// A whole number from 2^63 on, within 64 bits unsigned.
    Large(u64),
    /// A number with a fraction or an exponent.
    Double(f64),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
    /// An array or an object below [`limits::TREE_DEPTH_MAX`], as its text.
    Deep(Text),
}

/// JSON text without blanks.
#[derive(Clone, Debug)]
pub(crate) struct Text(Box<RawValue>);

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Tree {
    pub(crate) fn parse(json: &[u8]) -> Result<Tree, serde_json::Error> {
        match text::without_minus_zero(json) {
            Some(json) => serde_json::from_slice(&json),
            None => serde_json::from_slice(json),
        }
    }

    /// Whether it has the double `-0.0`, which may have been the whole number `-0`.
    pub(crate) fn has_minus_zero(&self) -> bool {
        match self {
            Tree::Double(double) => is_minus_zero(*double),
            Tree::Array(elements) => elements.iter().any(Tree::has_minus_zero),
            Tree::Object(members) => members.iter().any(|(_, value)| value.has_minus_zero()),
            _ => false,
        }
    }

    /// The value as JSON text.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("a tree has string keys and finite numbers")
    }

    /// Whether the value says nothing: null, or an array or object of nothing but such values.
    pub(crate) fn is_void(&self) -> bool {
        match self {
            Tree::Null => true,
            Tree::Array(elements) => elements.iter().all(Tree::is_void),
            Tree::Object(members) => members.iter().all(|(_, value)| value.is_void()),
            _ => false,
        }
    }
}

/// Whether a number is `-0.0`.
pub(crate) fn is_minus_zero(double: f64) -> bool {
    double == 0.0 && double.is_sign_negative()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Tree, D::Error> {
        TreeSeed { depth: 0 }.deserialize(json)
    }
}

/// Reads a value that is inside `depth` arrays and objects.
#[derive(Clone, Copy)]
struct TreeSeed {
    depth: usize,
}

impl TreeSeed {
    fn below(self) -> TreeSeed {
        TreeSeed { depth: self.depth + 1 }
    }
}

impl<'de> DeserializeSeed<'de> for TreeSeed {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Tree, D::Error> {
        if self.depth < limits::TREE_DEPTH_MAX {
            return json.deserialize_any(self);
        }
        // The parser skips a raw value without recursion, so its depth does not matter.
        let raw = Box::<RawValue>::deserialize(json)?;
        match raw.get().as_bytes().first() {
            Some(b'[' | b'{') => {
                let text = RawValue::from_string(text::compact(raw.get())).map_err(Error::custom)?;
                Ok(Tree::Deep(Text(text)))
            }
            _ => serde_json::from_str(raw.get()).map_err(Error::custom),
        }
    }
}

impl<'de> Visitor<'de> for TreeSeed {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(i64::try_from(value).map_or(Tree::Large(value), Tree::Whole))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Double(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(self.below())? {
            elements.push(element);
        }
        Ok(Tree::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members: Vec<(String, Tree)> = Vec::new();
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.below())?;
            match index.get(&key) {
                // The last of duplicate keys wins.
                Some(at) => members[*at].1 = value,
                None => {
                    index.insert(key.clone(), members.len());
                    members.push((key, value));
                }
            }
        }
        Ok(Tree::Object(members))
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => json.serialize_unit(),
            Tree::Bool(value) => json.serialize_bool(*value),
            Tree::Whole(value) => json.serialize_i64(*value),
            Tree::Large(value) => json.serialize_u64(*value),
            Tree::Double(value) => json.serialize_f64(*value),
            Tree::String(value) => json.serialize_str(value),
            Tree::Array(elements) => json.collect_seq(elements),
            Tree::Deep(Text(text)) => text.serialize(json),
            Tree::Object(members) => {
                let mut map = json.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
