//! Cells of one row, before what its lists hold.

use crate::schema::{Slot, TableSchema, Type};

/// Cells of one row of `slots`; what is inside lists is counted by elements.
pub(crate) fn width(slots: &[Slot]) -> usize {
    let of = |slot: &Slot| {
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

/// Cells of one row: the five system columns, and what is not in lists.
pub(crate) fn row_width(schema: &TableSchema) -> usize {
    5 + width(&schema.slots)
}
