//! Encodes a result in pieces of bounded size. A batch of a thousand rows may take gigabytes as text, because a value
//! that many columns share is written for each of them.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use floe_engine::functions::row_sizes;
use floe_query::{Kind, QueryError};

use crate::format::Encoder;
use crate::limits::{ESCAPE_FACTOR, RESULT_PIECE_BYTES, RESULT_ROW_BYTES_MAX};

/// Rows that are encoded together, and the bytes that they take at most.
struct Slice {
    rows: RecordBatch,
    bytes: usize,
}

struct Pieces {
    encoder: Encoder,
    batches: BoxStream<'static, Result<RecordBatch, QueryError>>,
    /// Slices of the last batch.
    slices: VecDeque<Slice>,
    /// Bytes of the last batch.
    batch_bytes: usize,
    memory: MemoryReservation,
}

/// The rows as encoded pieces. `memory` counts a piece and its batch while the reader has them.
pub(crate) fn pieces(
    encoder: Encoder,
    batches: BoxStream<'static, Result<RecordBatch, QueryError>>,
    memory: MemoryReservation,
) -> BoxStream<'static, Result<Bytes, QueryError>> {
    let pieces = Pieces { encoder, batches, slices: VecDeque::new(), batch_bytes: 0, memory };
    let next = |pieces: Option<Pieces>| async {
        let mut pieces = pieces?;
        match pieces.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(pieces))),
            Ok(None) => Some((pieces.encoder.finish().map(Bytes::from).map_err(not_encoded), None)),
            Err(error) => Some((Err(error), None)),
        }
    };
    stream::unfold(Some(pieces), next).boxed()
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, QueryError> {
        loop {
            if let Some(slice) = self.slices.pop_front() {
                self.hold(slice.bytes.saturating_mul(ESCAPE_FACTOR))?;
                let bytes = self.encoder.batch(&slice.rows).map_err(not_encoded)?;
                self.hold(bytes.capacity())?;
                return Ok(Some(bytes.into()));
            }
            (self.slices, self.batch_bytes) = (VecDeque::new(), 0);
            let Some(batch) = self.batches.next().await else { return Ok(None) };
            let batch = batch?;
            self.batch_bytes = batch.get_array_memory_size();
            self.slices = slices(&batch)?;
        }
    }

    fn hold(&self, piece: usize) -> Result<(), QueryError> {
        let held = self.memory.try_resize(self.batch_bytes.saturating_add(piece));
        held.map_err(|error| QueryError::new(Kind::Limit, error.message().into_owned()))
    }
}

/// Cuts a batch into slices of about [`RESULT_PIECE_BYTES`].
///
/// # Errors
/// A row takes more than [`RESULT_ROW_BYTES_MAX`].
fn slices(batch: &RecordBatch) -> Result<VecDeque<Slice>, QueryError> {
    let schema = batch.schema();
    let keys: usize = schema.fields().iter().map(|field| field.name().len()).sum();
    let mut rows = vec![keys; batch.num_rows()];
    for column in batch.columns() {
        let sizes = row_sizes(column).map_err(|error| QueryError::new(Kind::Internal, error.to_string()))?;
        for (row, size) in rows.iter_mut().zip(sizes) {
            *row = row.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        }
    }
    let (mut slices, mut from, mut bytes) = (VecDeque::new(), 0, 0_usize);
    for (at, row) in rows.iter().enumerate() {
        if *row > RESULT_ROW_BYTES_MAX {
            let message = format!(
                "a row of the result takes {row} bytes; at most {RESULT_ROW_BYTES_MAX} are possible; select fewer \
                 or shorter values"
            );
            return Err(QueryError::new(Kind::Limit, message));
        }
        if at > from && bytes + row > RESULT_PIECE_BYTES {
            slices.push_back(Slice { rows: batch.slice(from, at - from), bytes });
            (from, bytes) = (at, 0);
        }
        bytes += row;
    }
    if from < rows.len() {
        slices.push_back(Slice { rows: batch.slice(from, rows.len() - from), bytes });
    }
    Ok(slices)
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
pub(crate) fn not_encoded(error: arrow::error::ArrowError) -> QueryError {
    QueryError::new(
        Kind::Invalid,
        format!("the result cannot be written in this format: {error}; ask for another"),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn check(columns: Vec<ArrayRef>, expected: &[usize]) {
        let columns = columns.into_iter().enumerate().map(|(index, column)| (format!("c{index}"), column));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let rows: Vec<usize> = slices(&batch).unwrap().iter().map(|slice| slice.rows.num_rows()).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn large_batches_are_cut() {
        check(vec![Arc::new(Int64Array::from(vec![1; 8_192]))], &[8_192]);
        let text = "x".repeat(300 << 10);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); 7]));
        check(vec![texts.clone()], &[3, 3, 1]);
        check(vec![texts; 4], &[1; 7]);
        check(vec![Arc::new(Int64Array::from(Vec::<i64>::new()))], &[]);
    }

    #[test]
    fn a_row_has_a_limit() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(RESULT_ROW_BYTES_MAX / 2)]));
        let batch = RecordBatch::try_from_iter([("a", text.clone()), ("b", text)]).unwrap();
        assert_eq!(slices(&batch).err().unwrap().kind, Kind::Limit);
    }
}
