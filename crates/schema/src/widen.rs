//! Widening: what a schema becomes so that one more record fits. Pure; the rules are in the crate's documentation.

use std::collections::BTreeSet;

use crate::{
    limits, names,
    schema::{Named, Slot, TableSchema, Type, Typed},
    timestamp,
    tree::Tree,
    value::fits,
};

/// Why a schema cannot grow for a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WidenError {
    #[error("the record needs more than {} columns in its table", limits::COLUMNS_MAX)]
    Columns,
    #[error("a key is longer than {} bytes", limits::NAME_BYTES_MAX)]
    Name,
}

impl TableSchema {
    /// The schema in which `record` fits. Only what this record needs is added.
    pub(crate) fn widened(&self, record: &[(String, Tree)]) -> Result<TableSchema, WidenError> {
        let mut next = self.clone();
        absorb(&mut next.slots, record, names::RESERVED, 1)?;
        give_ids(&mut next.slots, &mut next.last_column_id);
        if count(&next.slots) > limits::COLUMNS_MAX {
            return Err(WidenError::Columns);
        }
        if next.slots != self.slots {
            next.version += 1;
        }
        assert!(next.last_column_id >= self.last_column_id, "column ids are never given back");
        Ok(next)
    }

    /// Whether `record` fits without any change; may say `false` where it does (lists of structs are not looked into).
    pub(crate) fn covers(&self, record: &[(String, Tree)]) -> Result<bool, WidenError> {
        covers(&self.slots, record, 1)
    }

    /// The schema with the column for keys that are not UTF-8.
    pub(crate) fn with_key_bytes(&self) -> TableSchema {
        let mut next = self.clone();
        if next.key_bytes.is_none() {
            next.last_column_id += 1;
            next.key_bytes = Some(next.last_column_id);
            next.version += 1;
        }
        next
    }
}

fn absorb(
    slots: &mut Vec<Slot>,
    members: &[(String, Tree)],
    reserved: &[&str],
    depth: usize,
) -> Result<(), WidenError> {
    for (key, value) in members {
        if value.is_void() {
            continue;
        }
        if key.len() > limits::NAME_BYTES_MAX {
            return Err(WidenError::Name);
        }
        let at = slots.iter().position(|slot| slot.key == *key).unwrap_or_else(|| {
            slots.push(Slot { key: key.clone(), typed: None, text: None });
            slots.len() - 1
        });
        absorb_value(slots, at, value, reserved, depth)?;
    }
    Ok(())
}

fn covers(slots: &[Slot], members: &[(String, Tree)], depth: usize) -> Result<bool, WidenError> {
    for (guess, (key, value)) in members.iter().enumerate() {
        if value.is_void() {
            continue;
        }
        let guessed = slots.get(guess).filter(|slot| slot.key == *key);
        let Some(slot) = guessed.or_else(|| slots.iter().find(|slot| slot.key == *key)) else {
            return Ok(false);
        };
        let covered = match (&slot.typed, value) {
            (None, value) => slot.text.is_some() && infer(value, depth)?.is_none(),
            (Some(Typed { of: Type::Struct(slots), .. }), Tree::Object(members)) => {
                covers(slots, members, depth + 1)?
            }
            (Some(typed), value) if fits(&typed.of, value) => !holds_struct(&typed.of),
            // It stays text if the column cannot become what takes it.
            (Some(typed), value) => {
                slot.text.is_some() && widen(&mut typed.of.clone(), value, false, depth)? == Join::Misfit
            }
        };
        if !covered {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds_struct(of: &Type) -> bool {
    match of {
        Type::Struct(_) => true,
        Type::List { of, .. } => holds_struct(of),
        _ => false,
    }
}

/// Widens the slot `at` of `slots` so that it takes `value`.
fn absorb_value(
    slots: &mut [Slot],
    at: usize,
    value: &Tree,
    reserved: &[&str],
    depth: usize,
) -> Result<(), WidenError> {
    let mut needs_text = false;
    match &mut slots[at].typed {
        None => {
            if let Some(of) = infer(value, depth)? {
                let name = names::unique(&names::clean(&slots[at].key), &taken(slots, reserved));
                slots[at].typed = Some(Typed { id: 0, name, of, replaces: None });
            }
        }
        Some(typed) => {
            let mut of = typed.of.clone();
            let held_long = holds_long(&of);
            // Without an id it came with an earlier element of the same array: nothing is stored yet.
            let fresh = typed.id == 0;
            match widen(&mut of, value, fresh, depth)? {
                Join::Fits => typed.of = of,
                Join::Replaces => {
                    if !fresh {
                        assert!(typed.replaces.is_none(), "whole numbers become doubles once");
                        typed.replaces = Some(typed.id);
                        typed.id = 0;
                    }
                    typed.of = of;
                    forget_ids(&mut typed.of);
                    needs_text = held_long;
                }
                Join::Misfit => {}
            }
        }
    }
    let slot = &slots[at];
    needs_text |= !slot.typed.as_ref().is_some_and(|typed| fits(&typed.of, value));
    if needs_text && slot.text.is_none() {
        let base = slot.typed.as_ref().map_or_else(|| names::clean(&slot.key), |typed| typed.name.clone());
        let name = names::unique(&names::text(&base), &taken(slots, reserved));
        slots[at].text = Some(Named { id: 0, name });
    }
    Ok(())
}

fn taken(slots: &[Slot], reserved: &[&str]) -> BTreeSet<String> {
    let typed = slots.iter().filter_map(|slot| slot.typed.as_ref()).map(|typed| typed.name.to_lowercase());
    let text = slots.iter().filter_map(|slot| slot.text.as_ref()).map(|text| text.name.to_lowercase());
    typed.chain(text).chain(reserved.iter().map(ToString::to_string)).collect()
}

/// What became of a type that was asked to take a value.
#[derive(PartialEq, Eq)]
enum Join {
    /// It takes it, perhaps widened in place.
    Fits,
    /// It takes it as another column: whole numbers became doubles.
    Replaces,
    /// It cannot; the type may have changed half way and is of no use.
    Misfit,
}

/// The type of a value that is not void; `None` when only text can hold it.
fn infer(value: &Tree, depth: usize) -> Result<Option<Type>, WidenError> {
    Ok(match value {
        Tree::Null | Tree::Large(_) => None,
        Tree::Bool(_) => Some(Type::Boolean),
        Tree::Whole(_) if fits(&Type::Int, value) => Some(Type::Int),
        Tree::Whole(_) => Some(Type::Long),
        Tree::Double(_) => Some(Type::Double),
        Tree::String(text) if timestamp::parse(text).is_some() => Some(Type::Timestamptz),
        Tree::String(_) => Some(Type::String),
        Tree::Object(_) | Tree::Array(_) if depth >= limits::DEPTH_MAX => None,
        Tree::Object(members) => {
            let mut slots = Vec::new();
            absorb(&mut slots, members, &[], depth + 1)?;
            Some(Type::Struct(slots))
        }
        Tree::Array(elements) => {
            let mut of = None;
            if join_elements(&mut of, elements, true, depth + 1)? == Join::Misfit {
                return Ok(None);
            }
            let list = of.map(|of| Type::List { id: 0, of: Box::new(of) });
            list.filter(|list| fits(list, value))
        }
    })
}

/// Widens `of` for all `elements`.
fn join_elements(
    of: &mut Option<Type>,
    elements: &[Tree],
    fresh: bool,
    depth: usize,
) -> Result<Join, WidenError> {
    let mut outcome = Join::Fits;
    for element in elements.iter().filter(|element| !element.is_void()) {
        let Some(of) = of else {
            *of = infer(element, depth)?;
            if of.is_none() {
                return Ok(Join::Misfit);
            }
            continue;
        };
        match widen(of, element, fresh, depth)? {
            Join::Fits => {}
            Join::Replaces => outcome = Join::Replaces,
            Join::Misfit => return Ok(Join::Misfit),
        }
    }
    Ok(outcome)
}

/// Widens `of` for `value`, which is not void or fits anyway. A fresh type belongs to no column yet and may
/// still become text.
fn widen(of: &mut Type, value: &Tree, fresh: bool, depth: usize) -> Result<Join, WidenError> {
    if let (Type::Struct(slots), Tree::Object(members)) = (&mut *of, value) {
        absorb(slots, members, &[], depth + 1)?;
        return Ok(Join::Fits);
    }
    if let (Type::List { of, .. }, Tree::Array(elements)) = (&mut *of, value) {
        let mut element = Some((**of).clone());
        let outcome = join_elements(&mut element, elements, fresh, depth + 1)?;
        **of = element.expect("an element type is never taken away");
        if outcome != Join::Misfit && !elements.iter().all(|e| fits(of, e)) {
            return Ok(Join::Misfit);
        }
        return Ok(outcome);
    }
    if fits(of, value) {
        return Ok(Join::Fits);
    }
    let (next, outcome) = match (&*of, value) {
        (Type::Int, Tree::Whole(_)) => (Type::Long, Join::Fits),
        (Type::Int | Type::Long, Tree::Double(_)) => (Type::Double, Join::Replaces),
        (Type::Timestamptz, Tree::String(_)) if fresh => (Type::String, Join::Fits),
        _ => return Ok(Join::Misfit),
    };
    *of = next;
    Ok(outcome)
}

/// Whether replacing the type may meet whole numbers that a double cannot hold.
fn holds_long(of: &Type) -> bool {
    match of {
        Type::Long => true,
        Type::List { of, .. } => holds_long(of),
        _ => false,
    }
}

fn forget_ids(of: &mut Type) {
    if let Type::List { id, of } = of {
        *id = 0;
        forget_ids(of);
    }
}

fn give_ids(slots: &mut [Slot], last: &mut i32) {
    let give = |id: &mut i32, last: &mut i32| {
        if *id == 0 {
            *last += 1;
            *id = *last;
        }
    };
    for slot in slots {
        if let Some(typed) = &mut slot.typed {
            give(&mut typed.id, last);
        }
        if let Some(text) = &mut slot.text {
            give(&mut text.id, last);
        }
        let mut of = slot.typed.as_mut().map(|typed| &mut typed.of);
        while let Some(Type::List { id, of: element }) = of {
            give(id, last);
            of = Some(element);
        }
        if let Some(Type::Struct(slots)) = of {
            give_ids(slots, last);
        }
    }
}

fn count(slots: &[Slot]) -> usize {
    let mut columns = 0;
    for slot in slots {
        columns += usize::from(slot.typed.is_some()) + usize::from(slot.text.is_some());
        let mut of = slot.typed.as_ref().map(|typed| &typed.of);
        while let Some(Type::List { of: element, .. }) = of {
            columns += 1;
            of = Some(element);
        }
        if let Some(Type::Struct(slots)) = of {
            columns += count(slots);
        }
    }
    columns
}
