//! A parsed JSON value that keeps the order of its members: columns get the order in which people wrote their keys.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

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
}

impl Tree {
    pub(crate) fn parse(text: &[u8]) -> Result<Tree, serde_json::Error> {
        serde_json::from_slice(text)
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

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Tree, D::Error> {
        json.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
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
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Tree::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members: Vec<(String, Tree)> = Vec::new();
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Tree>()? {
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
