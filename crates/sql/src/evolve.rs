//! Reads Parquet files under a newer schema than they were written with.
//!
//! A file's columns match the table's by id. A column of simple type that has kept its id goes through the engine's own
//! adapter, which can also skip row groups by statistics. Two changes go through [`TableSchema::adapt`], the one place
//! that knows every conversion. One is a change inside a column with children. The other replaces a column of whole
//! numbers with a column of doubles; the tail of the log may do that before the lake does.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};

use floe_schema::{FIELD_ID, TableSchema};

/// Makes the adapters of one table, one for each file.
#[derive(Debug)]
pub(crate) struct EvolutionFactory(pub(crate) Arc<TableSchema>);

impl PhysicalExprAdapterFactory for EvolutionFactory {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let simple = DefaultPhysicalExprAdapterFactory.create(table.clone(), file.clone())?;
        Ok(Arc::new(Evolution { schema: self.0.clone(), table, file, simple }))
    }
}

/// Rewrites expressions over the table's columns to expressions over a file's.
#[derive(Debug)]
struct Evolution {
    schema: Arc<TableSchema>,
    table: SchemaRef,
    file: SchemaRef,
    simple: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for Evolution {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        expr.transform_down(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            let replaced = self.column(&expr, column)?;
            // The replacement already refers to columns of the file. It must not be rewritten again.
            Ok(Transformed::new(replaced, true, TreeNodeRecursion::Jump))
        })
        .data()
    }
}

impl Evolution {
    fn column(&self, expr: &Arc<dyn PhysicalExpr>, column: &Column) -> Result<Arc<dyn PhysicalExpr>> {
        let Some((at, target)) = self.table.column_with_name(column.name()) else {
            return self.simple.rewrite(expr.clone());
        };
        let sources = self.sources(at, target);
        match sources.as_slice() {
            [] if target.is_nullable() => Ok(lit(ScalarValue::try_from(target.data_type())?)),
            [one] if self.is_simple(*one, target) => self.simple.rewrite(expr.clone()),
            _ => Ok(Arc::new(self.adapted(at, &sources))),
        }
    }

    /// The file's columns with the values of a table's column.
    fn sources(&self, at: usize, target: &Field) -> Vec<usize> {
        let mut wanted = vec![id(target)];
        let replaced = self.schema.replaced();
        let came_from = |field: &Field| {
            let new = id(field);
            replaced.iter().find(|(_, to)| Some(**to) == new).map(|(old, _)| *old)
        };
        // A column of doubles takes the numbers of the column that it replaced. A column of text may follow right after
        // it. That column takes the numbers that no double can hold.
        wanted.push(came_from(target));
        if let Some(before) = at.checked_sub(1).map(|before| self.table.field(before)) {
            wanted.push(came_from(before));
        }
        let wanted: Vec<i32> = wanted.into_iter().flatten().collect();
        let fields = self.file.fields().iter().enumerate();
        fields
            .filter(|(_, field)| id(field).is_some_and(|id| wanted.contains(&id)))
            .map(|(at, _)| at)
            .collect()
    }

    /// Whether the engine's adapter can read the column. That adapter matches columns by name.
    fn is_simple(&self, source: usize, target: &Field) -> bool {
        let source = self.file.field(source);
        let same = id(source) == id(target) && source.name() == target.name();
        same && (source.data_type() == target.data_type() || !target.data_type().is_nested())
    }

    fn adapted(&self, at: usize, sources: &[usize]) -> Adapted {
        let columns = sources.iter().map(|index| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(self.file.field(*index).name(), *index));
            column
        });
        Adapted {
            schema: self.schema.clone(),
            table: self.table.clone(),
            at,
            fields: sources.iter().map(|index| self.file.fields()[*index].clone()).collect(),
            columns: columns.collect(),
        }
    }
}

/// The id of a column. The table's schema and the Parquet reader both put it into the field's metadata.
fn id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}

/// One column of the table, made of columns of a file.
#[derive(Clone, Debug)]
struct Adapted {
    schema: Arc<TableSchema>,
    table: SchemaRef,
    at: usize,
    fields: Vec<FieldRef>,
    columns: Vec<Arc<dyn PhysicalExpr>>,
}

impl Adapted {
    fn evaluate_arrays(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
        let mut fields = self.fields.clone();
        let mut arrays = arrays;
        let given: Vec<Option<i32>> = fields.iter().map(|field| id(field)).collect();
        // The schema requires its columns that are never null. Their values do not matter here.
        for field in
            self.table.fields().iter().filter(|field| !field.is_nullable() && !given.contains(&id(field)))
        {
            fields.push(field.clone());
            arrays.push(ScalarValue::new_zero(field.data_type())?.to_array_of_size(rows)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?;
        let adapted =
            self.schema.adapt(&batch).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(adapted.column(self.at).clone())
    }

    fn target(&self) -> &FieldRef {
        &self.table.fields()[self.at]
    }
}

impl PartialEq for Adapted {
    fn eq(&self, other: &Adapted) -> bool {
        self.at == other.at && self.table == other.table && self.columns == other.columns
    }
}

impl Eq for Adapted {}

impl Hash for Adapted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.at.hash(state);
        self.columns.hash(state);
    }
}

impl fmt::Display for Adapted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adapted({})", self.target().name())
    }
}

impl PhysicalExpr for Adapted {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.target().data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.target().is_nullable())
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(self.target().clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let arrays = self.columns.iter().map(|column| column.evaluate(batch)?.into_array(rows));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(self.evaluate_arrays(arrays, rows)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.columns.iter().collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        columns: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        assert_eq!(columns.len(), self.columns.len(), "the engine gives back as many children as there were");
        Ok(Arc::new(Adapted { columns, ..Adapted::clone(&self) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use floe_schema::{Decoder, Kind, Row};

    /// Decodes JSON lines, starting with `schema`.
    fn decode(schema: &TableSchema, lines: &[&str]) -> (TableSchema, RecordBatch) {
        let mut decoder = Decoder::new(schema.clone());
        for (offset, line) in lines.iter().enumerate() {
            let value = Some(line.as_bytes());
            let offset = i64::try_from(offset).unwrap();
            decoder
                .push(&Row { partition: 0, offset, timestamp: 0, key: None, value, headers: &[] })
                .unwrap();
        }
        decoder.finish()
    }

    /// Checks that the adapter makes the same columns of an older file as [`TableSchema::adapt`].
    fn check(before: &[&str], after: &[&str]) {
        let (old, batch) = decode(&TableSchema::new(Kind::Json), before);
        let (new, _) = decode(&old, after);
        let table = new.arrow();
        let adapter = EvolutionFactory(Arc::new(new.clone())).create(table.clone(), batch.schema()).unwrap();
        let columns = table.fields().iter().enumerate().map(|(at, field)| {
            let expr = adapter.rewrite(Arc::new(Column::new(field.name(), at))).unwrap();
            expr.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap()
        });
        let made = RecordBatch::try_new(table.clone(), columns.collect()).unwrap();
        let expected = new.adapt(&batch).unwrap();
        let show =
            |batch: &RecordBatch| pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string();
        assert_eq!(show(&made), show(&expected));
    }

    #[test]
    fn a_file_gives_what_the_schema_makes_of_it() {
        check(&[r#"{"a":1}"#], &[r#"{"a":1}"#]);
        // New columns; int to long.
        check(&[r#"{"a":1}"#, r#"{"b":"x"}"#], &[r#"{"a":10000000000,"c":[{"d":1}],"e":{"f":true}}"#]);
        // Inside structs and lists.
        check(
            &[r#"{"s":{"x":1,"l":[{"y":1},null]}}"#, r#"{"s":null}"#],
            &[r#"{"s":{"x":10000000000,"z":"new","l":[{"y":1.5,"n":2}]}}"#],
        );
        // Whole numbers whose column became double, including one that no double can hold.
        check(&[r#"{"a":1}"#, r#"{"a":9007199254740993}"#, r#"{"a":"text"}"#], &[r#"{"a":1.5}"#]);
        check(&[r#"{"a":[1,2]}"#, r#"{"b":7}"#], &[r#"{"a":[1.5],"b":"seven"}"#]);
    }
}
