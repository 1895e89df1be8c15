//! Widening: the schema in which one more record fits. Pure functions; the crate's documentation has the rules.

use crate::{
    fit::fits,
    limits, names,
    table::{ColumnSlot, Named, TableSchema, Type, Typed, find},
    timestamp,
    tree::Tree,
};

/// Why a schema cannot grow for a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WidenError {
    #[error(
        "the record needs more than {} columns in its table: if keys are values there, drop their columns \
         (floe topic drop-columns) and write such keys as values",
        limits::COLUMNS_MAX
    )]
    Columns,
    #[error("a key is longer than {} bytes", limits::NAME_BYTES_MAX)]
    Name,
}

/// How many more columns the table may get. They are taken one by one, so a record of a million keys is refused at the
/// first column too many, not after all of them are known.
#[derive(Debug)]
struct Room(usize);

impl Room {
    fn take(&mut self) -> Result<(), WidenError> {
        self.0 = self.0.checked_sub(1).ok_or(WidenError::Columns)?;
        Ok(())
    }
}

/// The names that new columns of one struct cannot have. The set is built when the first name is asked for.
struct Names<'a> {
    reserved: &'a [&'a str],
    taken: Option<names::Taken>,
}

impl Names<'_> {
    /// Picks a free name and marks it as taken.
    fn pick(&mut self, slots: &[ColumnSlot], name: &str) -> String {
        let taken = self.taken.get_or_insert_with(|| {
            let typed = slots.iter().filter_map(|slot| slot.typed.as_ref()).map(|typed| &typed.name);
            let text = slots.iter().filter_map(|slot| slot.text.as_ref()).map(|text| &text.name);
            let mut taken = names::Taken::default();
            typed.chain(text).for_each(|name| taken.insert(name));
            self.reserved.iter().for_each(|name| taken.insert(name));
            taken
        });
        taken.take_unique(name)
    }
}

impl TableSchema {
    /// The schema in which `record` fits. It adds only what this record needs.
    pub(crate) fn widened(&self, record: &[(String, Tree)]) -> Result<TableSchema, WidenError> {
        let mut next = self.clone();
        let before = count(&self.slots);
        let mut room = Room(limits::COLUMNS_MAX.saturating_sub(before));
        absorb(&mut next.slots, record, names::RESERVED, 1, &mut room)?;
        give_ids(&mut next.slots, &mut next.last_column_id);
        let taken = limits::COLUMNS_MAX.saturating_sub(before) - room.0;
        assert_eq!(count(&next.slots), before + taken, "room is taken for every new column");
        if next.slots != self.slots {
            next.version += 1;
        }
        assert!(next.last_column_id >= self.last_column_id, "column ids are never given back");
        Ok(next)
    }

    /// Whether `record` fits without any change. It may say `false` for a record that fits, because it does not look
    /// into lists of structs.
    pub(crate) fn covers(&self, record: &[(String, Tree)]) -> Result<bool, WidenError> {
        covers(&self.slots, record, 1)
    }

    /// Adds the column for keys that are not UTF-8.
    pub(crate) fn see_key_bytes(&mut self) {
        if self.key_bytes.is_none() {
            self.last_column_id += 1;
            self.key_bytes = Some(self.last_column_id);
            self.version += 1;
        }
    }
}

fn absorb(
    slots: &mut Vec<ColumnSlot>,
    members: &[(String, Tree)],
    reserved: &[&str],
    depth: usize,
    room: &mut Room,
) -> Result<(), WidenError> {
    let mut names = Names { reserved, taken: None };
    for (guess, (key, value)) in members.iter().enumerate() {
        if value.is_void() {
            continue;
        }
        if key.len() > limits::NAME_BYTES_MAX {
            return Err(WidenError::Name);
        }
        let at = find(slots, key, guess).unwrap_or_else(|| {
            slots.push(ColumnSlot { key: key.clone(), typed: None, text: None });
            slots.len() - 1
        });
        absorb_value(slots, at, value, &mut names, depth, room)?;
    }
    Ok(())
}

fn covers(slots: &[ColumnSlot], members: &[(String, Tree)], depth: usize) -> Result<bool, WidenError> {
    for (guess, (key, value)) in members.iter().enumerate() {
        if value.is_void() {
            continue;
        }
        let Some(slot) = find(slots, key, guess).map(|at| &slots[at]) else { return Ok(false) };
        let covered = match (&slot.typed, value) {
            (None, value) => {
                slot.text.is_some() && infer(value, depth, &mut Room(limits::COLUMNS_MAX))?.is_none()
            }
            (Some(Typed { of: Type::Struct(slots), .. }), Tree::Object(members)) => {
                covers(slots, members, depth + 1)?
            }
            (Some(typed), value) if fits(&typed.of, value) => !holds_struct(&typed.of),
            // The value stays text if widening cannot make the column take it.
            (Some(typed), value) => slot.text.is_some() && stays_text(&typed.of, value, depth)?,
        };
        if !covered {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `value` must stay text: the column does not take it now, and widening cannot make it.
fn stays_text(of: &Type, value: &Tree, depth: usize) -> Result<bool, WidenError> {
    if !may_join(of, value) {
        return Ok(true);
    }
    if holds_struct(of) {
        return Ok(false);
    }
    let mut room = Room(limits::COLUMNS_MAX);
    Ok(widen(&mut of.clone(), value, false, depth, &mut room)? == Join::Misfit)
}

fn holds_struct(of: &Type) -> bool {
    match of {
        Type::Struct(_) => true,
        Type::List { of, .. } => holds_struct(of),
        _ => false,
    }
}

/// Widens slot `at` of `slots` so that it takes `value`.
fn absorb_value(
    slots: &mut [ColumnSlot],
    at: usize,
    value: &Tree,
    names: &mut Names<'_>,
    depth: usize,
    room: &mut Room,
) -> Result<(), WidenError> {
    let mut needs_text = false;
    match &mut slots[at].typed {
        None => {
            if let Some(of) = infer(value, depth, room)? {
                room.take()?;
                let name = names.pick(slots, &names::clean(&slots[at].key));
                slots[at].typed = Some(Typed { id: 0, name, of, replaces: None });
            }
        }
        Some(typed) => {
            let held_long = holds_long(&typed.of);
            // A column without an id came with an earlier element of the same array: nothing is stored in it yet.
            let fresh = typed.id == 0;
            match join(&mut typed.of, value, fresh, depth, room)? {
                Join::Fits | Join::Misfit => {}
                Join::Replaces => {
                    if !fresh {
                        assert!(typed.replaces.is_none(), "whole numbers become doubles once");
                        typed.replaces = Some(typed.id);
                        typed.id = 0;
                    }
                    forget_ids(&mut typed.of);
                    needs_text = held_long;
                }
            }
        }
    }
    let slot = &slots[at];
    needs_text |= !slot.typed.as_ref().is_some_and(|typed| fits(&typed.of, value));
    if needs_text && slot.text.is_none() {
        let base = slot.typed.as_ref().map_or_else(|| names::clean(&slot.key), |typed| typed.name.clone());
        room.take()?;
        let name = names.pick(slots, &names::text(&base));
        slots[at].text = Some(Named { id: 0, name });
    }
    Ok(())
}

/// What happened to a type that had to take a value.
#[derive(PartialEq, Eq)]
enum Join {
    /// It takes the value, perhaps widened in place.
    Fits,
    /// It takes the value as another column: whole numbers became doubles.
    Replaces,
    /// It cannot take the value. [`join`] leaves the type as it was. [`widen`] may leave it half changed and useless.
    Misfit,
}

/// The type of a value that is not void, or `None` if only text can hold it.
fn infer(value: &Tree, depth: usize, room: &mut Room) -> Result<Option<Type>, WidenError> {
    Ok(match value {
        Tree::Null | Tree::Large(_) | Tree::Deep(_) => None,
        Tree::Bool(_) => Some(Type::Boolean),
        Tree::Whole(_) if fits(&Type::Int, value) => Some(Type::Int),
        Tree::Whole(_) => Some(Type::Long),
        Tree::Double(_) => Some(Type::Double),
        Tree::String(text) if timestamp::parse(text).is_some() => Some(Type::Timestamptz),
        Tree::String(_) => Some(Type::String),
        Tree::Object(_) | Tree::Array(_) if depth >= limits::DEPTH_MAX => None,
        Tree::Object(members) => {
            let mut slots = Vec::new();
            absorb(&mut slots, members, &[], depth + 1, room)?;
            Some(Type::Struct(slots))
        }
        Tree::Array(elements) => {
            let (mut of, before) = (None, room.0);
            let joined = join_elements(&mut of, elements, true, depth + 1, room)? != Join::Misfit;
            let list = of.filter(|_| joined).map(|of| Type::List { id: 0, of: Box::new(of) });
            let list = list.filter(|list| fits(list, value));
            match list {
                Some(_) => room.take()?,
                // The list becomes text, so its elements need no columns.
                None => room.0 = before,
            }
            list
        }
    })
}

/// Widens `of` for all `elements`.
fn join_elements(
    of: &mut Option<Type>,
    elements: &[Tree],
    fresh: bool,
    depth: usize,
    room: &mut Room,
) -> Result<Join, WidenError> {
    let mut outcome = Join::Fits;
    for element in elements.iter().filter(|element| !element.is_void()) {
        let Some(of) = of else {
            *of = infer(element, depth, room)?;
            if of.is_none() {
                return Ok(Join::Misfit);
            }
            continue;
        };
        match widen(of, element, fresh, depth, room)? {
            Join::Fits => {}
            Join::Replaces => outcome = Join::Replaces,
            Join::Misfit => return Ok(Join::Misfit),
        }
    }
    Ok(outcome)
}

/// Whether [`widen`] is worth trying. `false` means that no widening of `of` can take `value`.
fn may_join(of: &Type, value: &Tree) -> bool {
    match (of, value) {
        (Type::Struct(_), Tree::Object(_))
        | (Type::Int | Type::Long | Type::Double, Tree::Whole(_) | Tree::Large(_) | Tree::Double(_))
        | (Type::Timestamptz | Type::String, Tree::String(_))
        | (Type::Boolean, Tree::Bool(_)) => true,
        (Type::List { of, .. }, Tree::Array(elements)) => elements.iter().all(|e| may_join(of, e)),
        (_, value) => value.is_void(),
    }
}

/// Widens `of` for `value`, or leaves it as it is. It copies only types without structs: a list of wide structs may be
/// asked once for every element of the list around it.
fn join(of: &mut Type, value: &Tree, fresh: bool, depth: usize, room: &mut Room) -> Result<Join, WidenError> {
    if !may_join(of, value) {
        return Ok(Join::Misfit);
    }
    if holds_struct(of) {
        let joined = widen(of, value, fresh, depth, room)?;
        assert!(joined == Join::Fits, "objects always find a place in a struct");
        return Ok(joined);
    }
    let mut wider = of.clone();
    let joined = widen(&mut wider, value, fresh, depth, room)?;
    if joined != Join::Misfit {
        *of = wider;
    }
    Ok(joined)
}

/// Widens `of` for `value`. A void `value` must fit already. A fresh type belongs to no column yet, so it may still
/// become text.
fn widen(
    of: &mut Type,
    value: &Tree,
    fresh: bool,
    depth: usize,
    room: &mut Room,
) -> Result<Join, WidenError> {
    if let (Type::Struct(slots), Tree::Object(members)) = (&mut *of, value) {
        absorb(slots, members, &[], depth + 1, room)?;
        return Ok(Join::Fits);
    }
    if let (Type::List { of, .. }, Tree::Array(elements)) = (&mut *of, value) {
        // The element type is moved, not copied. After an error the caller gives up the whole schema.
        let mut element = Some(std::mem::replace(&mut **of, Type::Boolean));
        let outcome = join_elements(&mut element, elements, fresh, depth + 1, room)?;
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

/// Whether the type has 64-bit numbers, some of which a double cannot hold.
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

fn give_ids(slots: &mut [ColumnSlot], last: &mut i32) {
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

pub(crate) fn count(slots: &[ColumnSlot]) -> usize {
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
