//! Cells: the values of a batch, written by a record or not. A column of lists of structs has a cell for every member
//! of every element. So a megabyte of `{}` in a list whose structs have a thousand members takes gigabytes. The number
//! of input bytes says nothing about that, so cells are counted before anything is padded.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Fields},
};

use crate::{
    column::{Column, Group},
    fit::fits,
    table::{ColumnSlot, FIELD_ID, TableSchema, Type, find},
    tree::Tree,
    width::{row_width, width_of},
};

impl Group {
    /// Cells of the elements of all lists in this group, once its columns have the shape of `slots`.
    pub(crate) fn list_cells(&self, slots: &[ColumnSlot]) -> usize {
        let pairs = self.slots.iter().zip(slots);
        let typed = pairs.filter_map(|(columns, slot)| columns.typed.as_ref().zip(slot.typed.as_ref()));
        typed.map(|(column, typed)| column.list_cells(&typed.of)).sum()
    }
}

impl Column {
    fn list_cells(&self, of: &Type) -> usize {
        match (self, of) {
            (Column::Struct(group), Type::Struct(slots)) => group.list_cells(slots),
            (Column::List(list), Type::List { of, .. }) => {
                list.elements() * width_of(of) + list.element.list_cells(of)
            }
            _ => 0,
        }
    }
}

/// Cells of the elements of all lists of `members`, appended to columns of `slots`.
pub(crate) fn needed(slots: &[ColumnSlot], members: &[(String, Tree)]) -> usize {
    let of = |(guess, (key, value)): (usize, &(String, Tree))| {
        let typed = find(slots, key, guess).and_then(|at| slots[at].typed.as_ref());
        typed.filter(|typed| fits(&typed.of, value)).map_or(0, |typed| needed_of(&typed.of, value))
    };
    members.iter().enumerate().map(of).sum()
}

fn needed_of(of: &Type, value: &Tree) -> usize {
    match (of, value) {
        (Type::Struct(slots), Tree::Object(members)) => needed(slots, members),
        (Type::List { of, .. }, Tree::Array(elements)) => {
            elements.len() * width_of(of)
                + elements.iter().map(|element| needed_of(of, element)).sum::<usize>()
        }
        _ => 0,
    }
}

impl TableSchema {
    /// Cells that [`TableSchema::adapt`] makes of `batch`. The number has no limit, as this schema may be much wider.
    pub fn cells_of(&self, batch: &RecordBatch) -> usize {
        batch.num_rows() * row_width(self) + lists(&self.slots, batch.schema().fields(), batch.columns())
    }
}

/// Cells of the elements of all lists of `arrays`, once they have the shape of `slots`.
fn lists(slots: &[ColumnSlot], fields: &Fields, arrays: &[ArrayRef]) -> usize {
    let of = |field: &arrow::datatypes::Field, array: &ArrayRef| {
        let id: i32 = field.metadata().get(FIELD_ID)?.parse().ok()?;
        let mut typed = slots.iter().filter_map(|slot| slot.typed.as_ref());
        let typed = typed.find(|typed| typed.id == id || typed.replaces == Some(id))?;
        Some(lists_of(&typed.of, array))
    };
    let nested = fields.iter().zip(arrays).filter(|(field, _)| field.data_type().is_nested());
    nested.filter_map(|(field, array)| of(field, array)).sum()
}

fn lists_of(of: &Type, array: &ArrayRef) -> usize {
    match (of, array.data_type()) {
        (Type::Struct(slots), DataType::Struct(fields)) => lists(slots, fields, array.as_struct().columns()),
        (Type::List { of, .. }, DataType::List(_)) => {
            let values = array.as_list::<i32>().values();
            values.len() * width_of(of) + lists_of(of, values)
        }
        _ => 0,
    }
}
