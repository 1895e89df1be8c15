//! Columns while they are being filled. Arrow's own builders cannot take a row back. These can, because duplicate keys,
//! bad records and widening in the middle of a batch need it.
//!
//! A column may be shorter than the number of rows so far. The missing values at its end are null. So a record costs
//! what it holds and not what the table holds.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    fit::fits,
    table::{ColumnSlot, Type},
    tree::Tree,
    width::width_of,
};
use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Float64Array, Int32Array,
        Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray,
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, Fields},
};

/// Which rows have a value.
#[derive(Debug)]
pub(crate) struct Validity {
    bits: BooleanBufferBuilder,
    nulls: usize,
}

impl Validity {
    fn new() -> Validity {
        Validity { bits: BooleanBufferBuilder::new(0), nulls: 0 }
    }

    fn len(&self) -> usize {
        self.bits.len()
    }

    fn pad(&mut self, rows: usize) {
        let missing = rows - self.len();
        self.bits.append_n(missing, false);
        self.nulls += missing;
    }

    fn push(&mut self) {
        self.bits.append(true);
    }

    fn truncate(&mut self, rows: usize) {
        self.nulls -= (rows..self.len()).filter(|row| !self.bits.get_bit(*row)).count();
        self.bits.truncate(rows);
    }

    fn is_valid(&self, row: usize) -> bool {
        row < self.len() && self.bits.get_bit(row)
    }

    fn finish(mut self) -> Option<NullBuffer> {
        (self.nulls > 0).then(|| NullBuffer::new(self.bits.finish()))
    }
}

/// Values of one size.
#[derive(Debug)]
pub(crate) struct Flat<T> {
    values: Vec<T>,
    validity: Validity,
}

impl<T: Copy + Default> Flat<T> {
    fn new() -> Flat<T> {
        Flat { values: Vec::new(), validity: Validity::new() }
    }

    /// Sets the value of `row`, which is the last row or the one after it.
    pub(crate) fn push(&mut self, row: usize, value: T) {
        self.align(row);
        self.values.push(value);
        self.validity.push();
    }

    fn align(&mut self, row: usize) {
        if self.values.len() < row {
            self.validity.pad(row);
            self.values.resize(row, T::default());
        } else if self.values.len() > row {
            self.truncate(row);
        }
    }

    fn truncate(&mut self, rows: usize) {
        if rows < self.values.len() {
            self.values.truncate(rows);
            self.validity.truncate(rows);
        }
    }

    fn map<U>(self, f: impl Fn(T) -> U) -> Flat<U> {
        Flat { values: self.values.into_iter().map(f).collect(), validity: self.validity }
    }

    fn value(&self, row: usize) -> Option<T> {
        self.validity.is_valid(row).then(|| self.values[row])
    }
}

/// Strings or bytes.
#[derive(Debug)]
pub(crate) struct Bytes {
    ends: Vec<i32>,
    data: Vec<u8>,
    validity: Validity,
}

impl Bytes {
    pub(crate) fn new() -> Bytes {
        Bytes { ends: Vec::new(), data: Vec::new(), validity: Validity::new() }
    }

    pub(crate) fn push(&mut self, row: usize, value: &[u8]) {
        self.align(row);
        self.data.extend_from_slice(value);
        self.ends.push(i32::try_from(self.data.len()).expect("a batch ends before its strings pass 2 GiB"));
        self.validity.push();
    }

    fn end(&self) -> i32 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn align(&mut self, row: usize) {
        if self.ends.len() < row {
            self.ends.resize(row, self.end());
            self.validity.pad(row);
        } else if self.ends.len() > row {
            self.truncate(row);
        }
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            self.ends.truncate(rows);
            self.data.truncate(usize::try_from(self.end()).expect("ends are not negative"));
            self.validity.truncate(rows);
        }
    }

    fn value(&self, row: usize) -> Option<&[u8]> {
        let at = |end: i32| usize::try_from(end).expect("ends are not negative");
        let start = if row == 0 { 0 } else { at(*self.ends.get(row - 1)?) };
        self.validity.is_valid(row).then(|| &self.data[start..at(self.ends[row])])
    }

    fn finish(mut self, rows: usize) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        self.align(rows);
        (offsets(self.ends), Buffer::from_vec(self.data), self.validity.finish())
    }
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend(ends);
    OffsetBuffer::new(ScalarBuffer::from(offsets))
}

/// Lists.
#[derive(Debug)]
pub(crate) struct List {
    ends: Vec<i32>,
    validity: Validity,
    /// Cells of one element (see [`crate::cells`]).
    pub(crate) width: usize,
    pub(crate) element: Box<Column>,
}

impl List {
    fn align(&mut self, row: usize) {
        if self.ends.len() < row {
            self.ends.resize(row, self.end());
            self.validity.pad(row);
        } else if self.ends.len() > row {
            self.truncate(row);
        }
    }

    fn end(&self) -> i32 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub(crate) fn elements(&self) -> usize {
        usize::try_from(self.end()).expect("ends are not negative")
    }

    fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            self.ends.truncate(rows);
            self.validity.truncate(rows);
            self.element.truncate(self.elements());
        }
    }

    /// Begins the list of `row` and returns the row of its first element.
    pub(crate) fn begin(&mut self, row: usize) -> usize {
        self.align(row);
        let first = self.elements();
        // A list that was given up half way left its elements here.
        self.element.truncate(first);
        first
    }

    /// Ends the list that was begun last. `end` is the row after its last element.
    pub(crate) fn end_at(&mut self, end: usize) {
        self.ends.push(i32::try_from(end).expect("a batch ends before a list passes 2^31 elements"));
        self.validity.push();
    }
}

/// Structs, and the top of a record.
#[derive(Debug)]
pub(crate) struct Group {
    validity: Validity,
    pub(crate) slots: Vec<FilledSlot>,
    index: BTreeMap<Box<str>, usize>,
}

impl Group {
    pub(crate) fn new(slots: &[ColumnSlot]) -> Group {
        let mut group = Group { validity: Validity::new(), slots: Vec::new(), index: BTreeMap::new() };
        group.conform(slots);
        group
    }

    /// Begins the struct of `row`. Its members have the same row number.
    pub(crate) fn begin(&mut self, row: usize) {
        if self.validity.len() > row {
            self.truncate(row);
        } else {
            self.validity.pad(row);
        }
        self.validity.push();
    }

    /// The index of the slot of `key`. It tries `guess` first: records of one topic keep the order of their keys.
    pub(crate) fn find(&self, key: &str, guess: usize) -> Option<usize> {
        match self.slots.get(guess) {
            Some(slot) if *slot.key == *key => Some(guess),
            _ => self.index.get(key).copied(),
        }
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        // Members are never longer than the struct, because its row begins first.
        if rows < self.validity.len() {
            self.validity.truncate(rows);
            for slot in &mut self.slots {
                slot.truncate(rows);
            }
        }
    }

    /// Takes the shape of `slots`. This group has an earlier version of that shape.
    pub(crate) fn conform(&mut self, slots: &[ColumnSlot]) {
        for (at, slot) in slots.iter().enumerate() {
            if at == self.slots.len() {
                self.slots.push(FilledSlot { key: slot.key.as_str().into(), typed: None, text: None });
                self.index.insert(slot.key.as_str().into(), at);
            }
            self.slots[at].conform(slot);
        }
    }

    fn finish(mut self, fields: &Fields, rows: usize) -> StructArray {
        self.validity.pad(rows);
        let children = finish_slots(self.slots, fields, rows);
        match fields.is_empty() {
            true => StructArray::new_empty_fields(rows, self.validity.finish()),
            false => StructArray::new(fields.clone(), children, self.validity.finish()),
        }
    }

    /// The members' columns, when the group is the top of a record.
    pub(crate) fn finish_top(self, fields: &Fields, rows: usize) -> Vec<ArrayRef> {
        finish_slots(self.slots, fields, rows)
    }
}

fn finish_slots(slots: Vec<FilledSlot>, fields: &Fields, rows: usize) -> Vec<ArrayRef> {
    let mut fields = fields.iter();
    let mut children = Vec::with_capacity(fields.len());
    for slot in slots {
        for column in [slot.typed, slot.text.map(Column::String)].into_iter().flatten() {
            let field = fields.next().expect("the columns have the shape of the schema");
            children.push(column.finish(field, rows));
        }
    }
    assert!(fields.next().is_none(), "the columns have the shape of the schema");
    children
}

/// The columns of one key while they are being filled: see [`ColumnSlot`].
#[derive(Debug)]
pub(crate) struct FilledSlot {
    key: Box<str>,
    pub(crate) typed: Option<Column>,
    pub(crate) text: Option<Bytes>,
}

impl FilledSlot {
    pub(crate) fn of(slot: &ColumnSlot) -> FilledSlot {
        let mut columns = FilledSlot { key: slot.key.as_str().into(), typed: None, text: None };
        columns.conform(slot);
        columns
    }

    /// Forgets the values from row `rows` on. This is how the last of duplicate keys wins.
    pub(crate) fn truncate(&mut self, rows: usize) {
        if let Some(typed) = &mut self.typed {
            typed.truncate(rows);
        }
        if let Some(text) = &mut self.text {
            text.truncate(rows);
        }
    }

    fn conform(&mut self, slot: &ColumnSlot) {
        if slot.text.is_some() && self.text.is_none() {
            self.text = Some(Bytes::new());
        }
        let Some(typed) = &slot.typed else { return };
        match &mut self.typed {
            None => self.typed = Some(Column::new(&typed.of)),
            Some(column) if column.conforms_in_place(&typed.of) => column.conform(&typed.of),
            Some(_) => self.replace(&typed.of),
        }
    }

    /// Turns whole numbers into doubles. Numbers that a double cannot hold go to the text column.
    fn replace(&mut self, of: &Type) {
        let old = self.typed.take().expect("only a column is replaced");
        let mut new =
            FilledSlot { key: self.key.clone(), typed: Some(Column::new(of)), text: self.text.take() };
        let text = new.text.take();
        let mut merged = text.is_some().then(Bytes::new);
        for row in 0..old.len().max(text.as_ref().map_or(0, |text| text.ends.len())) {
            if let Some(value) = text.as_ref().and_then(|text| text.value(row)) {
                merged.as_mut().expect("made with the text").push(row, value);
            } else if let Some(value) = old.whole_number(row) {
                let column = new.typed.as_mut().expect("made above");
                if fits(of, &value) {
                    column.append(row, &value);
                } else {
                    let text = value.text();
                    merged.as_mut().expect("a replaced long has a text beside it").push(row, text.as_bytes());
                }
            }
        }
        new.text = merged;
        *self = new;
    }

    /// The typed and the text column as arrays of `rows` rows.
    pub(crate) fn finish(self, typed: &Field, rows: usize) -> (ArrayRef, Option<Bytes>) {
        let column = self.typed.expect("asked for the typed column of a slot that has one");
        (column.finish(typed, rows), self.text)
    }
}

/// One column of any type.
#[derive(Debug)]
pub(crate) enum Column {
    Boolean(Flat<bool>),
    Int(Flat<i32>),
    Long(Flat<i64>),
    Double(Flat<f64>),
    Timestamptz(Flat<i64>),
    String(Bytes),
    Struct(Group),
    List(List),
}

impl Column {
    pub(crate) fn new(of: &Type) -> Column {
        match of {
            Type::Boolean => Column::Boolean(Flat::new()),
            Type::Int => Column::Int(Flat::new()),
            Type::Long => Column::Long(Flat::new()),
            Type::Double => Column::Double(Flat::new()),
            Type::Timestamptz => Column::Timestamptz(Flat::new()),
            Type::String => Column::String(Bytes::new()),
            Type::Struct(slots) => Column::Struct(Group::new(slots)),
            Type::List { of, .. } => Column::List(List {
                ends: Vec::new(),
                validity: Validity::new(),
                width: width_of(of),
                element: Box::new(Column::new(of)),
            }),
        }
    }

    fn len(&self) -> usize {
        match self {
            Column::Boolean(c) => c.values.len(),
            Column::Int(c) => c.values.len(),
            Column::Long(c) | Column::Timestamptz(c) => c.values.len(),
            Column::Double(c) => c.values.len(),
            Column::String(c) => c.ends.len(),
            Column::Struct(c) => c.validity.len(),
            Column::List(c) => c.ends.len(),
        }
    }

    /// Forgets rows from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match self {
            Column::Boolean(c) => c.truncate(rows),
            Column::Int(c) => c.truncate(rows),
            Column::Long(c) | Column::Timestamptz(c) => c.truncate(rows),
            Column::Double(c) => c.truncate(rows),
            Column::String(c) => c.truncate(rows),
            Column::Struct(c) => c.truncate(rows),
            Column::List(c) => c.truncate(rows),
        }
    }

    /// Whether the column can become `of` and stay the same column. Only whole numbers that become doubles cannot.
    fn conforms_in_place(&self, of: &Type) -> bool {
        match (self, of) {
            (Column::Int(_) | Column::Long(_), Type::Double) => false,
            (Column::List(list), Type::List { of, .. }) => list.element.conforms_in_place(of),
            _ => true,
        }
    }

    fn conform(&mut self, of: &Type) {
        match (self, of) {
            (this @ Column::Int(_), Type::Long) => {
                let Column::Int(ints) = std::mem::replace(this, Column::Int(Flat::new())) else {
                    unreachable!("matched as int")
                };
                *this = Column::Long(ints.map(i64::from));
            }
            (Column::Struct(group), Type::Struct(slots)) => group.conform(slots),
            (Column::List(list), Type::List { of, .. }) => {
                list.element.conform(of);
                list.width = width_of(of);
            }
            _ => {}
        }
    }

    /// The value of `row`, for a column of whole numbers or of lists of them.
    fn whole_number(&self, row: usize) -> Option<Tree> {
        match self {
            Column::Int(c) => c.value(row).map(|whole| Tree::Whole(whole.into())),
            Column::Long(c) => c.value(row).map(Tree::Whole),
            Column::List(c) => {
                let at = |end: i32| usize::try_from(end).expect("ends are not negative");
                let start = if row == 0 { 0 } else { at(*c.ends.get(row - 1)?) };
                let element = |at| c.element.whole_number(at).unwrap_or(Tree::Null);
                c.validity.is_valid(row).then(|| Tree::Array((start..at(c.ends[row])).map(element).collect()))
            }
            _ => unreachable!("only whole numbers are replaced"),
        }
    }

    /// The column as an array of `rows` rows of the type of `field`.
    pub(crate) fn finish(self, field: &Field, rows: usize) -> ArrayRef {
        match self {
            Column::Boolean(mut c) => {
                c.align(rows);
                Arc::new(BooleanArray::new(BooleanBuffer::from(c.values), c.validity.finish()))
            }
            Column::Int(mut c) => {
                c.align(rows);
                Arc::new(Int32Array::new(c.values.into(), c.validity.finish()))
            }
            Column::Long(mut c) => {
                c.align(rows);
                Arc::new(Int64Array::new(c.values.into(), c.validity.finish()))
            }
            Column::Timestamptz(mut c) => {
                c.align(rows);
                let array = TimestampMicrosecondArray::new(c.values.into(), c.validity.finish());
                Arc::new(array.with_timezone("UTC"))
            }
            Column::Double(mut c) => {
                c.align(rows);
                Arc::new(Float64Array::new(c.values.into(), c.validity.finish()))
            }
            Column::String(c) => strings(c, rows),
            Column::Struct(c) => {
                let DataType::Struct(fields) = field.data_type() else {
                    unreachable!("a struct column is a struct")
                };
                Arc::new(c.finish(fields, rows))
            }
            Column::List(mut c) => {
                let DataType::List(element) = field.data_type() else {
                    unreachable!("a list column is a list")
                };
                c.align(rows);
                let elements = c.elements();
                c.element.truncate(elements);
                let values = c.element.finish(element, elements);
                Arc::new(ListArray::new(Arc::clone(element), offsets(c.ends), values, c.validity.finish()))
            }
        }
    }
}

/// UTF-8 values as an array.
pub(crate) fn strings(bytes: Bytes, rows: usize) -> ArrayRef {
    let (offsets, data, nulls) = bytes.finish(rows);
    // Arrow checks the bytes again although every value came from a `&str`. It does so at 2 GB/s, and this way the
    // crate has no unsafe code.
    Arc::new(StringArray::new(offsets, data, nulls))
}

/// Byte values as an array.
pub(crate) fn binaries(bytes: Bytes, rows: usize) -> ArrayRef {
    let (offsets, data, nulls) = bytes.finish(rows);
    Arc::new(BinaryArray::new(offsets, data, nulls))
}

/// Fills the gaps of `under` with the values of `over`. Both are strings of `rows` rows.
pub(crate) fn overlay(under: Option<&ArrayRef>, over: Bytes, rows: usize) -> ArrayRef {
    let Some(under) = under else { return strings(over, rows) };
    let under = under.as_any().downcast_ref::<StringArray>().expect("a text column holds strings");
    let mut merged = Bytes::new();
    for row in 0..rows {
        if let Some(value) = over.value(row) {
            merged.push(row, value);
        } else if under.is_valid(row) {
            merged.push(row, under.value(row).as_bytes());
        }
    }
    strings(merged, rows)
}
