//! Results without views of text and bytes, which few clients of the Arrow stream know.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

/// The same rows, with views as plain columns. Offsets have 64 bits, because a view may hold more than two gigabytes.
pub(crate) fn without(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let views = rows.schema();
    let plain: Vec<Field> = views.fields().iter().map(|field| plain(field)).collect();
    let schema = Arc::new(Schema::new_with_metadata(plain, views.metadata().clone()));
    if schema == views {
        return rows;
    }
    let of_batches = schema.clone();
    let rows = rows.and_then(move |batch| std::future::ready(cast_all(&batch, &of_batches)));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

fn plain(field: &Field) -> Field {
    let kind = match field.data_type() {
        DataType::Utf8View => DataType::LargeUtf8,
        DataType::BinaryView => DataType::LargeBinary,
        other => other.clone(),
    };
    field.clone().with_data_type(kind)
}

fn cast_all(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
