//! The slow and complete way into the columns: from a parsed tree. It takes every value that [`crate::widen`] made room
//! for.

use crate::{
    column::{Column, FilledSlot, Group},
    fit::{exact_double, fits},
    table::Type,
    timestamp,
    tree::Tree,
};

impl Column {
    /// [`fits`], for a column instead of a type.
    fn takes(&self, value: &Tree) -> bool {
        match (self, value) {
            (Column::Boolean(_), Tree::Bool(_))
            | (Column::Long(_), Tree::Whole(_))
            | (Column::String(_), Tree::String(_))
            | (Column::Struct(_), Tree::Object(_)) => true,
            (Column::Int(_), value) => fits(&Type::Int, value),
            (Column::Double(_), value) => fits(&Type::Double, value),
            (Column::Timestamptz(_), value) => fits(&Type::Timestamptz, value),
            (Column::List(list), Tree::Array(elements)) => elements.iter().all(|e| list.element.takes(e)),
            (_, value) => value.is_void(),
        }
    }

    /// Appends a value that [`fits`]. A void value of another kind leaves the row null.
    pub(crate) fn append(&mut self, row: usize, value: &Tree) {
        match (self, value) {
            (Column::Boolean(c), Tree::Bool(value)) => c.push(row, *value),
            (Column::Int(c), Tree::Whole(whole)) => {
                c.push(row, i32::try_from(*whole).expect("only what fits is appended"));
            }
            (Column::Long(c), Tree::Whole(whole)) => c.push(row, *whole),
            (Column::Double(c), Tree::Whole(_) | Tree::Large(_) | Tree::Double(_)) => {
                c.push(row, exact_double(value).expect("only what fits is appended"));
            }
            (Column::Timestamptz(c), Tree::String(text)) => {
                c.push(row, timestamp::parse(text).expect("only what fits is appended"));
            }
            (Column::String(c), Tree::String(text)) => c.push(row, text.as_bytes()),
            (Column::Struct(c), Tree::Object(members)) => c.append(row, members),
            (Column::List(c), Tree::Array(elements)) => {
                let first = c.begin(row);
                for (at, element) in elements.iter().enumerate() {
                    c.element.append(first + at, element);
                }
                c.end_at(first + elements.len());
            }
            (_, value) => assert!(value.is_void(), "only what fits is appended"),
        }
    }
}

impl Group {
    /// Appends an object for which the schema was widened.
    pub(crate) fn append(&mut self, row: usize, members: &[(String, Tree)]) {
        self.begin(row);
        for (guess, (key, value)) in members.iter().enumerate() {
            match self.find(key, guess) {
                Some(at) => self.slots[at].append(row, value),
                None => assert!(value.is_void(), "the schema was widened for every member"),
            }
        }
    }
}

impl FilledSlot {
    fn append(&mut self, row: usize, value: &Tree) {
        self.truncate(row);
        match &mut self.typed {
            Some(typed) if typed.takes(value) => typed.append(row, value),
            _ if value.is_void() => {}
            _ => {
                let text = self.text.as_mut().expect("the schema was widened for every member");
                text.push(row, value.text().as_bytes());
            }
        }
    }
}
