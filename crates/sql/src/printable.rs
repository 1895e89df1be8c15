//! Finds times that no text can hold. Arrow's writer of JSON would write its own error in their place.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use chrono::{NaiveDate, NaiveDateTime};

/// Seconds of a day. Times within a day of the end of the calendar do not count as printable: a zone may shift them.
const DAY: i64 = 86_400;

/// Checks every time of a batch.
///
/// # Errors
/// A time lies outside the calendar, which ends 262,142 years before and after the year 0.
pub(crate) fn check(batch: &RecordBatch) -> Result<(), ArrowError> {
    let schema = batch.schema();
    let mut columns = schema.fields().iter().zip(batch.columns());
    columns.try_for_each(|(field, column)| check_column(field.name(), column))
}

fn check_column(name: &str, column: &ArrayRef) -> Result<(), ArrowError> {
    for part in children(column) {
        check_column(name, &part)?;
    }
    let Some((first, last)) = range(column.data_type()) else { return Ok(()) };
    let numbers = match column.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(column, &DataType::Int64)?,
    };
    let numbers = numbers.as_primitive::<Int64Type>();
    let outside =
        [min(numbers), max(numbers)].into_iter().flatten().find(|number| *number < first || *number > last);
    match outside {
        None => Ok(()),
        Some(number) => Err(ArrowError::CastError(format!(
            "column '{name}' has a time outside the calendar: {number} as {}",
            column.data_type()
        ))),
    }
}

/// The arrays inside an array. Of a list only the part that belongs to its rows.
fn children(column: &ArrayRef) -> Vec<ArrayRef> {
    match column.data_type() {
        DataType::Struct(_) => column.as_struct().columns().to_vec(),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let (first, last) = (list.value_offsets()[0], list.value_offsets()[list.len()]);
            slice(list.values(), i64::from(first), i64::from(last))
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            slice(list.values(), list.value_offsets()[0], list.value_offsets()[list.len()])
        }
        DataType::FixedSizeList(..) => vec![column.as_fixed_size_list().values().clone()],
        DataType::Map(..) => column.as_map().entries().columns().to_vec(),
        _ => Vec::new(),
    }
}

fn slice(values: &ArrayRef, first: i64, last: i64) -> Vec<ArrayRef> {
    let at = |offset: i64| usize::try_from(offset).unwrap_or(0);
    vec![values.slice(at(first), at(last) - at(first))]
}

/// The first and the last printable number of a type. `None` for types of which every number is printable.
fn range(kind: &DataType) -> Option<(i64, i64)> {
    let calendar = |per_second: i64| {
        let first = NaiveDateTime::MIN.and_utc().timestamp() + DAY;
        let last = NaiveDateTime::MAX.and_utc().timestamp() - DAY;
        Some((first.saturating_mul(per_second), last.saturating_mul(per_second)))
    };
    let clock = |per_second: i64| Some((0, DAY * per_second - 1));
    match kind {
        DataType::Timestamp(TimeUnit::Second, _) => calendar(1),
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => calendar(1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => calendar(1_000_000),
        DataType::Date32 => {
            let days = |date: NaiveDate| date.signed_duration_since(NaiveDate::default()).num_days();
            Some((days(NaiveDate::MIN), days(NaiveDate::MAX)))
        }
        DataType::Time32(TimeUnit::Second) => clock(1),
        DataType::Time32(TimeUnit::Millisecond) => clock(1_000),
        DataType::Time64(TimeUnit::Microsecond) => clock(1_000_000),
        DataType::Time64(TimeUnit::Nanosecond) => clock(1_000_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, StructArray, TimestampMicrosecondArray, TimestampSecondArray};
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn only_times_of_the_calendar_are_printable() {
        let check = |column: ArrayRef, expected: bool| {
            let batch = RecordBatch::try_from_iter([("t", column)]).unwrap();
            assert_eq!(check(&batch).is_ok(), expected, "{batch:?}");
        };
        check(Arc::new(TimestampSecondArray::from(vec![Some(0), None, Some(253_402_300_799)])), true);
        check(Arc::new(TimestampSecondArray::from(vec![i64::MAX])), false);
        check(Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN])), false);
        check(Arc::new(Date32Array::from(vec![0, -719_162, 2_932_896])), true);
        check(Arc::new(Date32Array::from(vec![i32::MAX])), false);
        let field = Arc::new(Field::new("x", DataType::Date32, true));
        let inner: ArrayRef = Arc::new(Date32Array::from(vec![i32::MIN]));
        check(Arc::new(StructArray::from(vec![(field, inner)])), false);
    }
}
