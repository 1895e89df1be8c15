//! The schema of a table: a tree of slots, and the columns that come out of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::names;

/// The key in a field's metadata where the Parquet writer looks for the column id.
pub const FIELD_ID: &str = "PARQUET:field_id";

/// The format of a table's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// JSON objects; columns are inferred (`floe.table=json`).
    Json,
    /// Bytes; columns are key, value, headers (`floe.table=raw`).
    Raw,
}

/// The schema of one table. The [`crate::Decoder`] widens it as records come. The lake keeps it in the journal in
/// postcard's encoding, which depends on the order of the fields and variants here. So that order never changes
/// (`floe_lake::map` has the bytes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    pub(crate) kind: Kind,
    pub(crate) version: u32,
    pub(crate) last_column_id: i32,
    pub(crate) key_bytes: Option<i32>,
    pub(crate) slots: Vec<ColumnSlot>,
}

/// The columns of one JSON key: at most one typed column and one column of JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ColumnSlot {
    pub(crate) key: String,
    pub(crate) typed: Option<Typed>,
    pub(crate) text: Option<Named>,
}

/// The index of the slot of `key`. It tries `guess` first: records of one topic keep the order of their keys.
pub(crate) fn find(slots: &[ColumnSlot], key: &str, guess: usize) -> Option<usize> {
    match slots.get(guess) {
        Some(slot) if slot.key == key => Some(guess),
        _ => slots.iter().position(|slot| slot.key == key),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) id: i32,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Typed {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) of: Type,
    /// The id of the column of whole numbers that this column replaced.
    pub(crate) replaces: Option<i32>,
}

/// A type in the tree. Its ids are 0 while a change is being worked out; they are given when the change is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Type {
    Boolean,
    Int,
    Long,
    Double,
    String,
    Timestamptz,
    Struct(Vec<ColumnSlot>),
    List { id: i32, of: Box<Type> },
}

/// One column as a table format sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Never reused within a table.
    pub id: i32,
    /// Unique among its siblings, also without regard to case.
    pub name: String,
    /// Whether every row has a value.
    pub required: bool,
    /// The type of its values.
    pub of: ColumnType,
}

/// The type of a [`Column`], named as in Iceberg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Arrow `Boolean`.
    Boolean,
    /// Arrow `Int32`.
    Int,
    /// Arrow `Int64`.
    Long,
    /// Arrow `Float64`.
    Double,
    /// Arrow `Utf8`. Never a view: readers fail on views that an embedded Arrow schema declares.
    String,
    /// Arrow `Binary`.
    Binary,
    /// Arrow `Timestamp(Microsecond, "UTC")`.
    Timestamptz,
    /// Arrow `Struct`.
    Struct(Vec<Column>),
    /// Arrow `List`.
    List {
        /// The column id of the element.
        id: i32,
        /// Whether elements are never null.
        required: bool,
        /// The type of the elements.
        of: Box<ColumnType>,
    },
}

/// Ids of the system columns. They are part of every table for ever.
const PARTITION_ID: i32 = 1;
/// The id of the column [`names::OFFSET`].
pub const OFFSET_ID: i32 = 2;
const TIMESTAMP_ID: i32 = 3;
const KEY_ID: i32 = 4;
const RAW_VALUE_ID: i32 = 5;
const RAW_HEADERS_ID: i32 = 6;
const RAW_HEADER_ID: i32 = 7;
const RAW_HEADER_KEY_ID: i32 = 8;
const RAW_HEADER_VALUE_ID: i32 = 9;

impl TableSchema {
    /// The schema of a table that has seen no record.
    pub fn new(kind: Kind) -> TableSchema {
        let last_column_id = match kind {
            Kind::Json => KEY_ID,
            Kind::Raw => RAW_HEADER_VALUE_ID,
        };
        TableSchema { kind, version: 0, last_column_id, key_bytes: None, slots: Vec::new() }
    }

    /// The format of the records.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of changes so far. Two schemas of one table with the same version are equal.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The highest id that was ever given to a column of this table.
    pub fn last_column_id(&self) -> i32 {
        self.last_column_id
    }

    /// Old id → new id of the columns that became double. A file with an old column must be rewritten
    /// ([`TableSchema::adapt`]), or readers miss its values.
    pub fn replaced(&self) -> BTreeMap<i32, i32> {
        let mut replaced = BTreeMap::new();
        collect_replaced(&self.slots, &mut replaced);
        replaced
    }

    /// The columns in order: the system columns, then one or two columns per key. Keys come in the order in which they
    /// were first seen.
    pub fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            column(PARTITION_ID, names::PARTITION, ColumnType::Int, true),
            column(OFFSET_ID, names::OFFSET, ColumnType::Long, true),
            column(TIMESTAMP_ID, names::TIMESTAMP, ColumnType::Timestamptz, false),
        ];
        match self.kind {
            Kind::Json => {
                columns.push(column(KEY_ID, names::KEY, ColumnType::String, false));
                columns
                    .extend(self.key_bytes.map(|id| column(id, names::KEY_BYTES, ColumnType::Binary, false)));
                columns.extend(slot_columns(&self.slots));
            }
            Kind::Raw => columns.extend(raw_columns()),
        }
        columns
    }

    /// The columns as an Arrow schema. Every field carries its id ([`FIELD_ID`]).
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(Schema::new(arrow_fields(&self.columns())))
    }
}

fn collect_replaced(slots: &[ColumnSlot], into: &mut BTreeMap<i32, i32>) {
    for typed in slots.iter().filter_map(|slot| slot.typed.as_ref()) {
        into.extend(typed.replaces.map(|old| (old, typed.id)));
        let mut of = &typed.of;
        while let Type::List { of: element, .. } = of {
            of = element;
        }
        if let Type::Struct(slots) = of {
            collect_replaced(slots, into);
        }
    }
}

fn column(id: i32, name: &str, of: ColumnType, required: bool) -> Column {
    Column { id, name: name.to_owned(), required, of }
}

fn slot_columns(slots: &[ColumnSlot]) -> Vec<Column> {
    let mut columns = Vec::with_capacity(slots.len());
    for slot in slots {
        if let Some(typed) = &slot.typed {
            columns.push(column(typed.id, &typed.name, column_type(&typed.of), false));
        }
        if let Some(text) = &slot.text {
            columns.push(column(text.id, &text.name, ColumnType::String, false));
        }
    }
    columns
}

fn column_type(of: &Type) -> ColumnType {
    match of {
        Type::Boolean => ColumnType::Boolean,
        Type::Int => ColumnType::Int,
        Type::Long => ColumnType::Long,
        Type::Double => ColumnType::Double,
        Type::String => ColumnType::String,
        Type::Timestamptz => ColumnType::Timestamptz,
        Type::Struct(slots) => ColumnType::Struct(slot_columns(slots)),
        Type::List { id, of } => ColumnType::List { id: *id, required: false, of: Box::new(column_type(of)) },
    }
}

fn raw_columns() -> Vec<Column> {
    let header = ColumnType::Struct(vec![
        column(RAW_HEADER_KEY_ID, "key", ColumnType::String, true),
        column(RAW_HEADER_VALUE_ID, "value", ColumnType::Binary, false),
    ]);
    let headers = ColumnType::List { id: RAW_HEADER_ID, required: true, of: Box::new(header) };
    vec![
        column(KEY_ID, "key", ColumnType::Binary, false),
        column(RAW_VALUE_ID, "value", ColumnType::Binary, false),
        column(RAW_HEADERS_ID, "headers", headers, true),
    ]
}

/// Columns as Arrow fields.
fn arrow_fields(columns: &[Column]) -> Fields {
    columns.iter().map(|c| arrow_field(&c.name, c.id, &c.of, !c.required)).collect()
}

fn arrow_field(name: &str, id: i32, of: &ColumnType, nullable: bool) -> Field {
    let metadata = HashMap::from([(FIELD_ID.to_owned(), id.to_string())]);
    Field::new(name, arrow_type(of), nullable).with_metadata(metadata)
}

fn arrow_type(of: &ColumnType) -> DataType {
    match of {
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int => DataType::Int32,
        ColumnType::Long => DataType::Int64,
        ColumnType::Double => DataType::Float64,
        ColumnType::String => DataType::Utf8,
        ColumnType::Binary => DataType::Binary,
        ColumnType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Struct(columns) => DataType::Struct(arrow_fields(columns)),
        ColumnType::List { id, required, of } => {
            DataType::List(Arc::new(arrow_field("element", *id, of, !required)))
        }
    }
}
