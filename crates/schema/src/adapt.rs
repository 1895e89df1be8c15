//! Old batches in the current schema: files hold batches that were written before the schema changed.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, new_null_array},
    compute::cast,
    datatypes::{DataType, Field, Fields, Int32Type, Int64Type},
};

use crate::{
    column::{Column as Filled, FilledSlot, overlay},
    fit::fits,
    table::{ColumnSlot, FIELD_ID, Kind, TableSchema, Type},
    tree::Tree,
};

/// Why a batch cannot be brought to a schema.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// The batch is not of this table, or has no ids.
    #[error("column {name} has no column id: it was not written by this table")]
    NoId {
        /// The name of the field.
        name: String,
    },
    /// A column has a type that no earlier schema of the table had.
    #[error("column {name} cannot be read as {wanted}: {reason}")]
    Type {
        /// The name of the field.
        name: String,
        /// The type in the current schema.
        wanted: String,
        /// Arrow's reason.
        reason: String,
    },
}

impl TableSchema {
    /// Returns `batch` with the columns of this schema. The fields of `batch` carry column ids, and columns are found
    /// by id. Missing columns are null, and ints become longs. Whole numbers whose column became double
    /// ([`TableSchema::replaced`]) move to the new column, or to the text column beside it if a double cannot hold
    /// them.
    pub fn adapt(&self, batch: &RecordBatch) -> Result<RecordBatch, AdaptError> {
        let source = Source::new(batch.schema().fields(), batch.columns(), batch.num_rows())?;
        let wanted = self.arrow();
        let columns = self.columns();
        let system = match self.kind {
            Kind::Json => 4 + usize::from(self.key_bytes.is_some()),
            Kind::Raw => columns.len(),
        };
        let mut arrays = Vec::with_capacity(columns.len());
        for (column, field) in columns[..system].iter().zip(wanted.fields()) {
            arrays.push(source.plain(column.id, field)?);
        }
        let rest: Fields = wanted.fields()[system..].iter().cloned().collect();
        arrays.extend(adapt_slots(&self.slots, &rest, &source)?);
        RecordBatch::try_new(wanted, arrays).map_err(|error| AdaptError::Type {
            name: "the batch".to_owned(),
            wanted: "the schema of the table".to_owned(),
            reason: error.to_string(),
        })
    }
}

/// Arrays by column id.
struct Source {
    arrays: HashMap<i32, ArrayRef>,
    rows: usize,
}

impl Source {
    fn new(fields: &Fields, arrays: &[ArrayRef], rows: usize) -> Result<Source, AdaptError> {
        let mut by_id = HashMap::new();
        for (field, array) in fields.iter().zip(arrays) {
            let id = field.metadata().get(FIELD_ID).and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| AdaptError::NoId { name: field.name().clone() })?;
            by_id.insert(id, Arc::clone(array));
        }
        Ok(Source { arrays: by_id, rows })
    }

    /// The column `id` as `field` says; null if it is missing.
    fn plain(&self, id: i32, field: &Field) -> Result<ArrayRef, AdaptError> {
        match self.arrays.get(&id) {
            Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
            Some(array) => cast(array, field.data_type()).map_err(|error| AdaptError::Type {
                name: field.name().clone(),
                wanted: field.data_type().to_string(),
                reason: error.to_string(),
            }),
            None => Ok(new_null_array(field.data_type(), self.rows)),
        }
    }
}

fn adapt_slots(slots: &[ColumnSlot], wanted: &Fields, source: &Source) -> Result<Vec<ArrayRef>, AdaptError> {
    let mut arrays = Vec::with_capacity(wanted.len());
    let mut fields = wanted.iter();
    for slot in slots {
        let mut overflow = None;
        if let Some(typed) = &slot.typed {
            let field = fields.next().expect("fields have the shape of the slots");
            let old = typed.replaces.and_then(|old| source.arrays.get(&old));
            match (source.arrays.get(&typed.id), old) {
                (Some(array), _) => arrays.push(adapt_type(&typed.of, field, array)?),
                (None, Some(old)) => {
                    let (array, text) = convert(slot, &typed.of, field, old)?;
                    arrays.push(array);
                    overflow = text;
                }
                (None, None) => arrays.push(new_null_array(field.data_type(), source.rows)),
            }
        }
        if let Some(text) = &slot.text {
            let field = fields.next().expect("fields have the shape of the slots");
            arrays.push(match overflow {
                Some(over) => overlay(source.arrays.get(&text.id), over, source.rows),
                None => source.plain(text.id, field)?,
            });
        }
    }
    Ok(arrays)
}

fn adapt_type(of: &Type, field: &Field, array: &ArrayRef) -> Result<ArrayRef, AdaptError> {
    let mismatch = || AdaptError::Type {
        name: field.name().clone(),
        wanted: field.data_type().to_string(),
        reason: format!("it is {}", array.data_type()),
    };
    match (of, field.data_type()) {
        (Type::Struct(slots), DataType::Struct(wanted)) => {
            let old = array.as_struct_opt().ok_or_else(mismatch)?;
            let source = Source::new(old.fields(), old.columns(), old.len())?;
            let children = adapt_slots(slots, wanted, &source)?;
            Ok(Arc::new(StructArray::new(wanted.clone(), children, old.nulls().cloned())))
        }
        (Type::List { of, .. }, DataType::List(element)) => {
            let old = array.as_list_opt::<i32>().ok_or_else(mismatch)?;
            let values = adapt_type(of, element, old.values())?;
            let (offsets, nulls) = (old.offsets().clone(), old.nulls().cloned());
            Ok(Arc::new(ListArray::new(Arc::clone(element), offsets, values, nulls)))
        }
        (_, wanted) if array.data_type() == wanted => Ok(Arc::clone(array)),
        (_, wanted) => cast(array, wanted).map_err(|error| AdaptError::Type {
            name: field.name().clone(),
            wanted: wanted.to_string(),
            reason: error.to_string(),
        }),
    }
}

/// Whole numbers as doubles, and as text those that a double cannot hold.
fn convert(
    slot: &ColumnSlot,
    of: &Type,
    field: &Field,
    old: &ArrayRef,
) -> Result<(ArrayRef, Option<crate::column::Bytes>), AdaptError> {
    let mut columns = FilledSlot::of(slot);
    for row in 0..old.len() {
        let Some(value) = whole_number(old, row, field)? else { continue };
        if fits(of, &value) {
            columns.typed.get_or_insert_with(|| Filled::new(of)).append(row, &value);
        } else {
            let text = columns.text.as_mut().expect("a replaced long has a text beside it");
            text.push(row, value.text().as_bytes());
        }
    }
    Ok(columns.finish(field, old.len()))
}

fn whole_number(array: &ArrayRef, row: usize, field: &Field) -> Result<Option<Tree>, AdaptError> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Int32 => Tree::Whole(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Tree::Whole(array.as_primitive::<Int64Type>().value(row)),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            let mut values = Vec::with_capacity(elements.len());
            for at in 0..elements.len() {
                values.push(whole_number(&elements, at, field)?.unwrap_or(Tree::Null));
            }
            Tree::Array(values)
        }
        other => {
            return Err(AdaptError::Type {
                name: field.name().clone(),
                wanted: "whole numbers".to_owned(),
                reason: format!("it is {other}"),
            });
        }
    }))
}
