//! The schema of a table as Iceberg writes it.
//!
//! A column of whole numbers that became double has a new id. While data files still hold the old column, the schema
//! has both: the old one is called `<name>_long`, behind the new one.

use std::collections::{BTreeMap, BTreeSet};

use floe_iceberg::{Error, Field, List, Primitive, Schema, Struct, Type};
use floe_schema::{Column, ColumnType, TableSchema};

/// What the comment of an old column says to other readers.
const OLD_DOC: &str =
    "values of rows whose files are not rewritten yet; coalesce it with the column before it";

/// The Iceberg schema with the same ids, names and order. The table numbers it.
pub(crate) fn schema(table: &TableSchema) -> Result<Schema, Error> {
    schema_with(table, &Old::default())
}

/// The same with the columns that data files still hold besides.
pub(crate) fn schema_with(table: &TableSchema, old: &Old) -> Result<Schema, Error> {
    Schema::new(0, fields(&table.columns(), old))
}

/// Columns that others replaced and that data files still hold.
#[derive(Debug, Default)]
pub(crate) struct Old {
    /// By the id of the column that replaced it.
    by_new: BTreeMap<i32, Field>,
}

impl Old {
    /// The replaced columns of `table` that the Iceberg schema `current` still has, without those in `gone`.
    pub(crate) fn of(table: &TableSchema, current: &Schema, gone: &BTreeSet<i32>) -> Old {
        let replaced = table.replaced().into_iter().filter(|(old, _)| !gone.contains(old));
        let held = replaced.filter_map(|(old, new)| Some((new, current.field_by_id(old)?.clone())));
        Old { by_new: held.collect() }
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> BTreeSet<i32> {
        self.by_new.values().map(|field| field.id).collect()
    }

    /// The ids of all leaves below them. A data file's statistics are by leaf.
    pub(crate) fn leaves(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        self.by_new.values().for_each(|field| leaves(field.id, &field.field_type, &mut found));
        found
    }
}

fn leaves(id: i32, of: &Type, found: &mut BTreeSet<i32>) {
    match of {
        Type::Primitive(_) => {
            found.insert(id);
        }
        Type::List(list) => leaves(list.element_id, &list.element, found),
        Type::Struct(of) => of.fields.iter().for_each(|field| leaves(field.id, &field.field_type, found)),
    }
}

fn fields(columns: &[Column], old: &Old) -> Vec<Field> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut names: BTreeSet<String> = columns.iter().map(|column| column.name.to_lowercase()).collect();
    for c in columns {
        let (name, field_type) = (c.name.clone(), kind(&c.of, old));
        fields.push(Field { id: c.id, name, required: c.required, field_type, doc: None });
        if let Some(before) = old.by_new.get(&c.id) {
            let numbered = (2..).map(|number| format!("{}_long_{number}", c.name));
            let mut free = std::iter::once(format!("{}_long", c.name)).chain(numbered);
            let name = free.find(|name| names.insert(name.to_lowercase())).expect("some number is free");
            fields.push(Field { name, doc: Some(OLD_DOC.to_owned()), ..before.clone() });
        }
    }
    fields
}

fn kind(of: &ColumnType, old: &Old) -> Type {
    match of {
        ColumnType::Struct(columns) => Type::Struct(Struct { fields: fields(columns, old) }),
        ColumnType::List { id, required, of } => {
            let element = Box::new(kind(of, old));
            Type::List(List { element_id: *id, element_required: *required, element })
        }
        primitive => Type::Primitive(self::primitive(primitive).expect("all others are primitive")),
    }
}

fn primitive(of: &ColumnType) -> Option<Primitive> {
    Some(match of {
        ColumnType::Boolean => Primitive::Boolean,
        ColumnType::Int => Primitive::Int,
        ColumnType::Long => Primitive::Long,
        ColumnType::Double => Primitive::Double,
        ColumnType::String => Primitive::String,
        ColumnType::Binary => Primitive::Binary,
        ColumnType::Timestamptz => Primitive::Timestamptz,
        ColumnType::Struct(_) | ColumnType::List { .. } => return None,
    })
}
