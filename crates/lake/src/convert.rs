//! The schema of a table as Iceberg writes it.

use std::{collections::BTreeSet, sync::Arc};

use floe_schema::{Column, ColumnType, TableSchema};
use iceberg::spec::{ListType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type};

/// The Iceberg schema with the same ids, names and order.
pub(crate) fn schema(table: &TableSchema) -> Result<Schema, iceberg::Error> {
    Schema::builder().with_fields(fields(&table.columns())).build()
}

fn fields(columns: &[Column]) -> Vec<NestedFieldRef> {
    columns.iter().map(|c| Arc::new(NestedField::new(c.id, &c.name, kind(&c.of), c.required))).collect()
}

fn kind(of: &ColumnType) -> Type {
    match of {
        ColumnType::Struct(columns) => Type::Struct(StructType::new(fields(columns))),
        ColumnType::List { id, required, of } => {
            Type::List(ListType::new(Arc::new(NestedField::list_element(*id, kind(of), *required))))
        }
        primitive => Type::Primitive(self::primitive(primitive).expect("all others are primitive")),
    }
}

fn primitive(of: &ColumnType) -> Option<PrimitiveType> {
    Some(match of {
        ColumnType::Boolean => PrimitiveType::Boolean,
        ColumnType::Int => PrimitiveType::Int,
        ColumnType::Long => PrimitiveType::Long,
        ColumnType::Double => PrimitiveType::Double,
        ColumnType::String => PrimitiveType::String,
        ColumnType::Binary => PrimitiveType::Binary,
        ColumnType::Timestamptz => PrimitiveType::Timestamptz,
        ColumnType::Struct(_) | ColumnType::List { .. } => return None,
    })
}

/// The ids of all leaves below the columns `roots`. A data file's statistics are by leaf.
pub(crate) fn leaves(table: &TableSchema, roots: &BTreeSet<i32>) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for column in table.columns() {
        collect(column.id, &column.of, roots.contains(&column.id), roots, &mut found);
    }
    found
}

fn collect(id: i32, of: &ColumnType, inside: bool, roots: &BTreeSet<i32>, found: &mut BTreeSet<i32>) {
    match of {
        ColumnType::Struct(columns) => {
            for column in columns {
                collect(column.id, &column.of, inside || roots.contains(&column.id), roots, found);
            }
        }
        ColumnType::List { id, of, .. } => collect(*id, of, inside, roots, found),
        _ if inside => {
            found.insert(id);
        }
        _ => {}
    }
}
