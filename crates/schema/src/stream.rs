//! The fast way into the columns: serde goes once over the JSON text, without a tree. It gives up ([`Refusal::Misfit`])
//! when a value needs a wider schema. Then [`crate::value`] takes over for this record.

use std::{cell::Cell, fmt};

use serde::de::{
    DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
    value::{MapAccessDeserializer, SeqAccessDeserializer},
};

use crate::{
    column::{Bytes, Column, Group},
    fit::{exact_i64, exact_u64},
    text, timestamp,
    tree::{Tree, is_minus_zero},
};

/// Why a record was not appended. The columns may hold a part of it.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The schema must grow first.
    Misfit,
    /// Its lists need more cells than there are left.
    Full,
    /// The value is not a JSON object. The reason is for people.
    Bad(String),
}

/// State of one record: the cells that its lists may still take, and why the pass stopped.
struct Pass<'a> {
    json: &'a [u8],
    cells: Cell<usize>,
    stopped: Cell<Stop>,
    /// Whether the record has the whole number `-0`; looked for when a `-0.0` is met.
    whole_minus_zero: Cell<Option<bool>>,
}

#[derive(Clone, Copy)]
enum Stop {
    No,
    Misfit,
    Full,
}

impl Pass<'_> {
    fn misfit<T, E: Error>(&self) -> Result<T, E> {
        self.stopped.set(Stop::Misfit);
        Err(E::custom("the schema must grow"))
    }

    /// Whether a `-0.0` may have been the whole number `-0`, for which the parser gives the same. The slow way knows.
    fn doubts_minus_zero(&self) -> bool {
        let known = self.whole_minus_zero.get();
        let found = known.unwrap_or_else(|| text::without_minus_zero(self.json).is_some());
        self.whole_minus_zero.set(Some(found));
        found
    }

    fn take<E: Error>(&self, cells: usize) -> Result<(), E> {
        let Some(left) = self.cells.get().checked_sub(cells) else {
            self.stopped.set(Stop::Full);
            return Err(E::custom("there is no room for more elements"));
        };
        self.cells.set(left);
        Ok(())
    }
}

/// Appends the JSON object `text` as row `row`. Its lists may take up to `cells` cells. Returns how many they took.
pub(crate) fn append(top: &mut Group, row: usize, text: &[u8], cells: usize) -> Result<usize, Refusal> {
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {}
        Some(_) => return Err(Refusal::Bad("the value is not a JSON object".to_owned())),
        None => return Err(Refusal::Bad("the value is empty".to_owned())),
    }
    let pass = Pass {
        json: text,
        cells: Cell::new(cells),
        stopped: Cell::new(Stop::No),
        whole_minus_zero: Cell::new(None),
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    let seed = GroupSeed { group: top, row, pass: &pass };
    match seed.deserialize(&mut json).and_then(|()| json.end()) {
        Ok(()) => Ok(cells - pass.cells.get()),
        Err(error) => Err(match pass.stopped.get() {
            Stop::No => Refusal::Bad(error.to_string()),
            Stop::Misfit => Refusal::Misfit,
            Stop::Full => Refusal::Full,
        }),
    }
}

struct GroupSeed<'a> {
    group: &'a mut Group,
    row: usize,
    pass: &'a Pass<'a>,
}

impl<'de> DeserializeSeed<'de> for GroupSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for GroupSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.group.begin(self.row);
        let mut guess = 0;
        while let Some(found) = members.next_key_seed(KeySeed { group: self.group, guess })? {
            if let Some(at) = found {
                let slot = &mut self.group.slots[at];
                slot.truncate(self.row);
                members.next_value_seed(ValueSeed {
                    typed: slot.typed.as_mut(),
                    text: slot.text.as_mut(),
                    row: self.row,
                    pass: self.pass,
                })?;
                guess = at + 1;
            } else if !members.next_value::<Tree>()?.is_void() {
                return self.pass.misfit();
            }
        }
        Ok(())
    }
}

struct KeySeed<'a> {
    group: &'a Group,
    guess: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<usize>, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.group.find(key, self.guess))
    }
}

/// Where one value goes: the typed column, or the text column beside it. Elements of lists have no text column.
struct ValueSeed<'a> {
    typed: Option<&'a mut Column>,
    text: Option<&'a mut Bytes>,
    row: usize,
    pass: &'a Pass<'a>,
}

impl ValueSeed<'_> {
    fn text<E: Error>(self, json: impl FnOnce() -> String) -> Result<(), E> {
        match self.text {
            Some(text) => {
                text.push(self.row, json().as_bytes());
                Ok(())
            }
            None => self.pass.misfit(),
        }
    }

    /// Handles an object or an array whose typed column is of another kind. A void value leaves the row null.
    fn tree<E: Error>(self, value: &Tree) -> Result<(), E> {
        if value.is_void() {
            return Ok(());
        }
        if value.has_minus_zero() && self.pass.doubts_minus_zero() {
            return self.pass.misfit();
        }
        match self.typed {
            None => self.pass.misfit(),
            Some(_) => self.text(|| value.text()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.typed {
            Some(Column::Boolean(c)) => c.push(self.row, value),
            None => return self.pass.misfit(),
            Some(_) => return self.text(|| value.to_string()),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.typed {
            Some(Column::Int(c)) => match i32::try_from(value) {
                Ok(value) => c.push(self.row, value),
                Err(_) => return self.pass.misfit(),
            },
            Some(Column::Long(c)) => c.push(self.row, value),
            Some(Column::Double(c)) => match exact_i64(value) {
                Some(value) => c.push(self.row, value),
                None => return self.text(|| value.to_string()),
            },
            None => return self.pass.misfit(),
            Some(_) => return self.text(|| value.to_string()),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if let Ok(value) = i64::try_from(value) {
            return self.visit_i64(value);
        }
        match (self.typed, exact_u64(value)) {
            (Some(Column::Double(c)), Some(exact)) => {
                c.push(self.row, exact);
                Ok(())
            }
            (typed, _) => ValueSeed { typed, ..self }.text(|| value.to_string()),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if is_minus_zero(value) && self.pass.doubts_minus_zero() {
            return self.pass.misfit();
        }
        match self.typed {
            Some(Column::Double(c)) => c.push(self.row, value),
            None | Some(Column::Int(_) | Column::Long(_)) => return self.pass.misfit(),
            Some(_) => return self.text(|| Tree::Double(value).text()),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        match self.typed {
            Some(Column::String(c)) => c.push(self.row, value.as_bytes()),
            Some(Column::Timestamptz(c)) => match timestamp::parse(value) {
                Some(micros) => c.push(self.row, micros),
                None => return self.text(|| Tree::String(value.to_owned()).text()),
            },
            None => return self.pass.misfit(),
            Some(_) => return self.text(|| Tree::String(value.to_owned()).text()),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        match self.typed {
            Some(Column::Struct(group)) => {
                GroupSeed { group, row: self.row, pass: self.pass }.visit_map(members)
            }
            typed => {
                let value: Tree = serde::Deserialize::deserialize(MapAccessDeserializer::new(members))?;
                ValueSeed { typed, ..self }.tree(&value)
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        match self.typed {
            Some(Column::List(list)) => {
                let mut at = list.begin(self.row);
                while elements
                    .next_element_seed(ValueSeed {
                        typed: Some(&mut list.element),
                        text: None,
                        row: at,
                        pass: self.pass,
                    })?
                    .is_some()
                {
                    at += 1;
                    self.pass.take(list.width)?;
                }
                list.end_at(at);
                Ok(())
            }
            typed => {
                let value: Tree = serde::Deserialize::deserialize(SeqAccessDeserializer::new(elements))?;
                ValueSeed { typed, ..self }.tree(&value)
            }
        }
    }
}
