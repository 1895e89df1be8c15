//! Widths: the cells of one row without the elements of its lists.

use crate::table::{ColumnSlot, TableSchema, Type};

/// Cells of one row of `slots`. Elements of lists are counted elsewhere, one by one ([`crate::cells`]).
pub(crate) fn width(slots: &[ColumnSlot]) -> usize {
    let of = |slot: &ColumnSlot| {
        slot.typed.as_ref().map_or(0, |typed| width_of(&typed.of)) + usize::from(slot.text.is_some())
    };
    slots.iter().map(of).sum()
}

/// Cells of one value of a type.
pub(crate) fn width_of(of: &Type) -> usize {
    match of {
        Type::Struct(slots) => 1 + width(slots),
        _ => 1,
    }
}

/// Cells of one row of a table: five system columns, and the columns of its keys.
pub(crate) fn row_width(schema: &TableSchema) -> usize {
    5 + width(&schema.slots)
}
